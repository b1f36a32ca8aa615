//! What authorities sign: nothing that they have not signed is accepted.

use bytes::Bytes;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::check_certificate;
use florin_core::merkle::{Hash, Tree, root, root_from_parts, root_from_path};
use florin_core::ordered::session;
use florin_core::{evidence, receipt, wire};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::cursor::Cursor;
use crate::worlds::proofs::PROOFS;

/// Sets of orders: one form, and the algebra of sets.
pub fn bitmap(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let count = usize::from(u16::from_le_bytes([cursor.byte(), cursor.byte() % 3]));
    let (first, second) = (cursor.take(count.div_ceil(8)), cursor.rest());
    let Ok(a) = Bitmap::parse(first, count) else { return };
    assert_eq!((a.as_bytes(), a.count()), (first, count));
    assert_eq!(a.iter().count(), a.ones());
    let mut again = Bitmap::empty(count);
    a.iter().for_each(|i| again.set(i));
    assert_eq!(again, a);
    let Ok(b) = Bitmap::parse(second, count) else { return };
    let mut union = a.clone();
    union.union(&b);
    assert!((0..count + 9).all(|i| union.get(i) == (a.get(i) || b.get(i))));
    assert!((0..count).all(|i| a.without(&b).get(i) == (a.get(i) && !b.get(i))));
    assert_eq!(a.contains(&b), b.without(&a).is_empty());
    let sets = [a.clone(), b.clone(), union.clone()];
    for threshold in 1..=3 {
        let common = Bitmap::at_least(&sets, threshold, count);
        let counted = |i| sets.iter().filter(|s| s.get(i)).count() >= threshold;
        assert!((0..count).all(|i| common.get(i) == counted(i)), "{threshold} of three");
    }
}

/// Trees: a proof that leads to the root is the proof of just these orders at just these places.
pub fn merkle(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let count = 1 + cursor.below(64);
    let ids: Vec<Hash> = (0..count).map(|i| Sha256::digest([i as u8]).into()).collect();
    let (tree, root) = (Tree::new(&ids), root(&ids));
    let (index, claimed, claimed_count) = (cursor.below(count), cursor.below(66), 1 + cursor.below(70));
    let mut path = tree.path(index);
    let mut parts_of: Vec<usize> = (0..cursor.below(5)).map(|_| cursor.below(count)).collect();
    parts_of.sort_unstable();
    parts_of.dedup();
    let mut parts = tree.parts(&parts_of);
    let mut orders: Vec<(usize, Hash)> = parts_of.iter().map(|i| (*i, ids[*i])).collect();
    let honest = (orders.clone(), parts.clone());
    // What a liar makes of it.
    while !cursor.is_empty() {
        let (what, at) = (cursor.byte(), cursor.byte().into());
        match what % 8 {
            0 => path.truncate(at),
            1 => path.push([what; 32]),
            2 => parts.truncate(at),
            3 => parts.push(ids[at % count]),
            4 if !orders.is_empty() => drop(orders.remove(at % orders.len())),
            5 if !orders.is_empty() => orders[0].0 = at,
            6 => path.iter_mut().skip(at % 8).take(1).for_each(|h| h[0] ^= 1),
            _ => orders.push((at, ids[at % count])),
        }
    }
    if root_from_path(&ids[index], claimed, claimed_count, &path) == Some(root) && claimed_count == count {
        assert_eq!((claimed, path), (index, tree.path(index)), "another way to the root");
    }
    if root_from_parts(&orders, count, &parts) == Some(root) {
        assert!(orders.iter().all(|(i, id)| ids[*i] == *id), "an order that is not in the batch");
    }
    if (&orders, &parts) == (&honest.0, &honest.1) && !orders.is_empty() {
        assert_eq!(root_from_parts(&orders, count, &parts), Some(root));
    }
}

/// Votes and acknowledgements of all batches, as a liar shuffles them.
fn signatures(cursor: &mut Cursor<'_>) -> Vec<wire::Signed> {
    let mut all = Vec::new();
    for _ in 0..cursor.below(7) {
        let batch = cursor.pick(&PROOFS.batches);
        let of = if cursor.flag() { &batch.acknowledgements } else { &batch.votes };
        let mut signed = cursor.pick(of).clone();
        match cursor.byte() {
            1 => signed.authority = cursor.byte().into(),
            2 => signed.bitmap = Bytes::copy_from_slice(cursor.short()),
            3 => signed.signature = Bytes::copy_from_slice(cursor.short()),
            _ => {}
        }
        all.push(signed);
    }
    all
}

/// Certificates, raw or put together from what was signed: only orders that a quorum has voted for are certified.
pub fn certificate(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let certificate = if cursor.flag() {
        let batch = cursor.below(PROOFS.batches.len());
        let votes = signatures(&mut cursor);
        let mut made = PROOFS.certificate(batch, votes);
        if cursor.flag() {
            (made.epoch, made.count) = (cursor.byte().into(), cursor.byte().into());
        }
        made
    } else {
        let Ok(read) = wire::Certificate::decode(cursor.rest()) else { return };
        read
    };
    let Ok((batch, certified)) = check_certificate(&PROOFS.committee, &certificate) else { return };
    let known = PROOFS.batches.iter().find(|b| b.id == batch).expect("a batch that nobody has signed");
    assert!(known.votes.len() >= 3, "a quorum out of {} votes", known.votes.len());
    let distinct: std::collections::BTreeSet<u32> = certificate.votes.iter().map(|v| v.authority).collect();
    assert!(distinct.len() >= 3 && distinct.len() == certificate.votes.len());
    assert!(certified.ones() > 0 && Bitmap::full(known.id.count).contains(&certified));
}

fn read_receipt(cursor: &mut Cursor<'_>) -> Option<wire::Receipt> {
    if !cursor.flag() {
        return wire::Receipt::decode(cursor.long()).ok();
    }
    let batch = cursor.below(PROOFS.batches.len());
    let index = cursor.below(PROOFS.batches[batch].orders.len());
    let mut made = PROOFS.receipt(batch, index);
    for _ in 0..cursor.below(4) {
        match cursor.byte() % 8 {
            0 => made.index = cursor.byte().into(),
            1 => made.count = cursor.byte().into(),
            2 => made.votes = signatures(cursor),
            3 => made.acknowledgements = signatures(cursor),
            4 => made.transaction = cursor.pick(&cursor.clone().pick(&PROOFS.batches).orders).clone(),
            5 => made.path.push(Bytes::copy_from_slice(cursor.take(32))),
            6 => made.path.truncate(cursor.byte().into()),
            _ => made.epoch = cursor.byte().into(),
        }
    }
    Some(made)
}

/// Receipts: only orders that a quorum has settled are final, only those with a quorum's votes certified.
pub fn receipt(bytes: &[u8]) {
    let Some(receipt) = read_receipt(&mut Cursor::new(bytes)) else { return };
    let has = |order: &[u8], acknowledged: bool| {
        let of = |b: &&crate::worlds::proofs::Signed| b.orders.iter().any(|o| o == order);
        let signers =
            |b: &crate::worlds::proofs::Signed| if acknowledged { b.acknowledgements.len() } else { b.votes.len() };
        PROOFS.batches.iter().find(of).map_or(0, signers)
    };
    let certified = receipt::verify_certified(&PROOFS.committee, &receipt);
    let last = receipt::verify(&PROOFS.committee, &receipt);
    if let Ok(order) = &certified {
        assert!(
            has(&order.raw, false) >= 3 || order.raw != receipt.transaction || same_body(&order.body),
            "a forged order"
        );
    }
    if let Ok(order) = &last {
        assert_eq!(certified.as_ref(), Ok(order), "final and not certified");
        assert!(has(&order.raw, true) >= 3 || same_body(&order.body), "an order that nobody has settled");
    }
}

/// Whether the body is that of the batch that all have settled: a receipt's envelope may carry other signatures of the sender,
/// which prove nothing and are not looked at.
fn same_body(body: &Bytes) -> bool {
    let orders = PROOFS.batches[0].orders.iter().chain(&PROOFS.batches[2].orders);
    orders.map(|o| florin_core::envelope::Order::decode(o.clone()).expect("made here").body).any(|b| b == body)
}

/// Evidence: nobody is guilty but the one who has signed two orders.
pub fn evidence(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let (Some(first), Some(second)) = (read_receipt(&mut cursor), read_receipt(&mut cursor)) else { return };
    if let Ok(found) = evidence::check(&PROOFS.committee, [&first, &second]) {
        assert_eq!(found.guilty, [3], "an honest authority is accused");
    }
    let again = evidence::check(&PROOFS.committee, [&second, &first]).map(|e| e.guilty);
    assert_eq!(evidence::check(&PROOFS.committee, [&first, &second]).map(|e| e.guilty).ok(), again.ok());
}

/// Sessions: only what a quorum has signed, with just its units.
pub fn session(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let signed = if cursor.flag() {
        let mut made = cursor.pick(&PROOFS.sessions).clone();
        for _ in 0..cursor.below(5) {
            let signature = cursor.pick(&cursor.clone().pick(&PROOFS.sessions).signatures).clone();
            match cursor.byte() % 6 {
                0 => made.signatures.push(signature),
                1 => made.signatures.truncate(cursor.byte().into()),
                2 => made.signatures.iter_mut().take(1).for_each(|s| s.authority = signature.authority),
                3 => made.header.iter_mut().for_each(|h| h.units = cursor.byte().into()),
                4 => made.header = None,
                _ => made.header.iter_mut().for_each(|h| h.session = cursor.byte().into()),
            }
        }
        made
    } else {
        let Ok(read) = wire::SignedSession::decode(cursor.long()) else { return };
        read
    };
    let mut units = PROOFS.units.clone();
    units.truncate(cursor.below(5));
    units.iter_mut().take(cursor.below(2)).for_each(|unit| unit.creator ^= 1);
    let checked = session::check(&PROOFS.committee, &signed);
    if let Ok(header) = &checked {
        assert_eq!(Some(header), PROOFS.sessions[0].header.as_ref(), "a session that no quorum has signed");
    }
    if session::verify(&PROOFS.committee, &signed, &units).is_ok() {
        assert!(checked.is_ok());
        assert_eq!(units, PROOFS.units, "units of another session");
    }
}
