//! Money between shards of one authority, and the genesis file.
//!
//! Deliveries of a link (from, to) are numbered from 1 without gaps. The receiver applies `last + 1`
//! and nothing else, so each is applied once whatever the network repeats or reorders; the sender keeps
//! each until it is acknowledged. That is the design's "once by order id and output index" with a
//! constant amount of state.

use super::changes::{Changes, signed_amount};
use super::state::{LOG, Link, State, Table, Write, get_u64, link_key, outbox_key};
use super::{Authority, Meter};
use crate::address::Address;
use crate::error::{Code, Error, Result};
use crate::planted::{self, Bug};
use crate::wire;

impl Authority {
    pub(super) fn deliver(
        &self,
        delivery: wire::Delivery,
        changes: &mut Changes<'_>,
        meter: &mut dyn Meter,
    ) -> Result<wire::DeliveryReply> {
        let from = delivery.from_shard;
        let known = from < self.committee.shards || from == LOG;
        if delivery.to_shard != self.shard || from == self.shard || !known {
            return Err(Error::expected(
                Code::WrongShard,
                "shards of the delivery",
                format!("another to {}", self.shard),
                format!("{from} to {}", delivery.to_shard),
            ));
        }
        let key = link_key(Link::Applied, from);
        let applied = get_u64(changes.state, Table::Links, &key)?.unwrap_or(0);
        let applied = planted::when(Bug::DeliveredTwice, applied.min(delivery.sequence.saturating_sub(1)), applied);
        let applied = planted::when(Bug::DeliverySkipped, applied.max(delivery.sequence.saturating_sub(1)), applied);
        if delivery.sequence <= applied {
            return Ok(wire::DeliveryReply { applied });
        }
        if delivery.sequence != applied + 1 {
            return Err(Error::expected(
                Code::OutOfOrder,
                &format!("sequence of the delivery from shard {from}"),
                applied + 1,
                delivery.sequence,
            ));
        }
        if from != LOG && !delivery.steps.is_empty() || !delivery.calls.is_empty() {
            return Err(Error::expected(Code::WrongShard, "shard that sends steps of the log", LOG, from));
        }
        for step in delivery.steps {
            self.log_step(step, changes, meter)?;
        }
        for credit in delivery.credits {
            let address = Address::from_slice(&credit.address)?;
            let amount = signed_amount(&credit);
            let entry = credit.source.ok_or_else(|| Error::new(Code::Decode, "a delivered credit has no source"))?;
            if address.shard(self.committee.shards) != self.shard {
                return Err(Error::expected(
                    Code::WrongShard,
                    "shard of the credited address",
                    self.shard,
                    address.shard(self.committee.shards),
                ));
            }
            changes.totals.received += amount;
            match amount < 0 {
                true => changes.take_back(entry.network_id, &address, credit.amount, entry)?,
                false => changes.credit(entry.network_id, &address, credit.amount, entry)?,
            }
        }
        changes.put(Table::Links, key, delivery.sequence.to_be_bytes());
        Ok(wire::DeliveryReply { applied: delivery.sequence })
    }

    pub(super) fn genesis(
        &self,
        first_line: u64,
        lines: Vec<(Address, u64)>,
        last: bool,
        changes: &mut Changes<'_>,
    ) -> Result<()> {
        let at = changes.totals.genesis_lines;
        if changes.totals.genesis_done || first_line != at {
            return Err(Error::expected(Code::OutOfOrder, "line of the genesis file", at, first_line));
        }
        let network_id = self.committee.network.id;
        let issuer_here = self.issuer.shard(self.committee.shards) == self.shard;
        for (i, (address, amount)) in lines.iter().enumerate() {
            if issuer_here {
                changes.holding_mut(network_id, &self.issuer)?.balance -= *amount as i128;
                changes.totals.accounts -= *amount as i128;
                changes.totals.issued += *amount as i128;
            }
            if address.shard(self.committee.shards) != self.shard {
                continue;
            }
            // Seqnum 0 of the issuer stands for the genesis file; the output is the line.
            let entry = wire::CreditEntry {
                network_id,
                actor: self.issuer.actor(),
                seqnum: 0,
                output: (at + i as u64) as u32,
                order_id: bytes::Bytes::new(),
                amount: *amount,
                memo: String::new(),
                kind: wire::credit_entry::Kind::Payment as i32,
            };
            changes.totals.genesis += *amount as i128;
            changes.credit(network_id, address, *amount, entry)?;
        }
        changes.totals.genesis_lines = at + lines.len() as u64;
        changes.totals.genesis_done = last;
        let limit = self.committee.network.issuer_limit as i128;
        if changes.totals.issued > limit {
            return Err(Error::expected(
                Code::IssuerLimit,
                "minor units issued by the genesis file",
                format!("at most {limit}"),
                changes.totals.issued,
            ));
        }
        Ok(())
    }
}

/// What leaves the outbox when a shard has applied all up to a sequence. Errors: `STORAGE_CORRUPT` if it has applied
/// more than was ever sent: then this folder is an old one.
pub(crate) fn delivered(state: &dyn State, to_shard: u32, applied: u64) -> Result<Vec<Write>> {
    let key = link_key(Link::Acknowledged, to_shard);
    let before = get_u64(state, Table::Links, &key)?.unwrap_or(0);
    let sent = get_u64(state, Table::Links, &link_key(Link::Sent, to_shard))?.unwrap_or(0);
    if applied > sent {
        return Err(Error::expected(
            Code::StorageCorrupt,
            &format!("deliveries applied by shard {to_shard}"),
            format!("at most {sent}"),
            applied,
        ));
    }
    let gone = planted::when(Bug::OutboxEmptied, sent, applied);
    let mut writes: Vec<Write> =
        (before + 1..=gone).map(|sequence| Write::delete(Table::Outbox, outbox_key(to_shard, sequence))).collect();
    if applied > before {
        writes.push(Write::put(Table::Links, key, applied.to_be_bytes()));
    }
    Ok(writes)
}
