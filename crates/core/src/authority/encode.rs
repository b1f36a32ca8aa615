//! Records written for every order, encoded by hand: what the generated code would make of them, without the messages in
//! between. The tests hold them to it.

use bytes::Bytes;

use crate::address::Address;
use crate::canonical::{self as tag, put_bytes, put_message, put_some, put_uint32, put_uint64};
use crate::wire;

/// A `BatchRecord`.
pub(super) fn encode_batch_record(orders: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::with_capacity(orders.iter().map(|order| order.len() + 6).sum());
    orders.iter().for_each(|order| put_bytes(&mut out, tag::bytes(1), order));
    out
}

/// An `OrderRecord`.
pub(super) fn encode_order_record(record: &wire::OrderRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(56 + record.previous_permission.len());
    put_some(&mut out, tag::bytes(1), &record.order_id);
    put_uint64(&mut out, tag::varint(2), record.batch);
    put_uint32(&mut out, tag::varint(3), record.index);
    put_some(&mut out, tag::bytes(4), &record.previous_permission);
    put_uint32(&mut out, tag::varint(5), record.previous_call);
    put_uint32(&mut out, tag::varint(6), record.call.into());
    put_uint32(&mut out, tag::varint(7), record.voted_other.into());
    out
}

/// One more credit of a `CreditsRecord`; `previous` is the one before it to the same address.
pub(super) fn put_credit_record(out: &mut Vec<u8>, address: &Address, entry: &wire::CreditEntry, previous: (u64, u32)) {
    put_message(out, tag::bytes(1), |out| {
        put_bytes(out, tag::bytes(1), address.as_bytes());
        put_message(out, tag::bytes(2), |out| {
            put_uint64(out, tag::varint(1), entry.network_id);
            put_uint64(out, tag::varint(2), entry.actor);
            put_uint32(out, tag::varint(3), entry.seqnum);
            put_uint32(out, tag::varint(4), entry.output);
            put_some(out, tag::bytes(5), &entry.order_id);
            put_uint64(out, tag::varint(6), entry.amount);
            put_some(out, tag::bytes(7), entry.memo.as_bytes());
            put_uint64(out, tag::varint(8), i64::from(entry.kind) as u64);
        });
        put_uint64(out, tag::varint(3), previous.0);
        put_uint32(out, tag::varint(4), previous.1);
    });
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn records_are_encoded_as_the_generated_code_would() {
        let orders = vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![3; 300])];
        assert_eq!(encode_batch_record(&orders), wire::BatchRecord { orders: orders.clone() }.encode_to_vec());

        let plain = wire::OrderRecord { order_id: vec![7; 32].into(), batch: 300, index: 3, ..Default::default() };
        let full = wire::OrderRecord {
            previous_permission: vec![9; 200].into(),
            previous_call: 5,
            call: true,
            voted_other: true,
            ..plain.clone()
        };
        for record in [wire::OrderRecord::default(), plain, full] {
            assert_eq!(encode_order_record(&record), record.encode_to_vec());
        }
    }

    #[test]
    fn credits_are_encoded_as_the_generated_code_would() {
        let address = Address::new([3; 32]);
        let short = wire::CreditEntry { network_id: 7, actor: u64::MAX, amount: 5, ..Default::default() };
        let long = wire::CreditEntry {
            seqnum: 9,
            output: 2,
            order_id: vec![7; 32].into(),
            memo: "m".repeat(256),
            kind: wire::credit_entry::Kind::Reversed as i32,
            ..short.clone()
        };
        let mut out = Vec::new();
        let mut credits = Vec::new();
        for (entry, previous) in [(wire::CreditEntry::default(), (0, 0)), (short, (5, 0)), (long, (300, 900))] {
            put_credit_record(&mut out, &address, &entry, previous);
            credits.push(wire::CreditRecord {
                address: Bytes::copy_from_slice(address.as_bytes()),
                entry: Some(entry),
                previous_batch: previous.0,
                previous_index: previous.1,
            });
        }
        assert_eq!(out, wire::CreditsRecord { credits }.encode_to_vec());
    }
}
