//! The shard of an authority: votes, certificates, deliveries, questions and its genesis file.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::authority::audit::audit_shard;
use florin_core::authority::effect::{Effects, Reply};
use florin_core::authority::input::Input;
use florin_core::authority::state::{LOG, Link, State, Table, Totals, link_key};
use florin_core::authority::{Authority, NoMeter};
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{Promise, check_signed};
use florin_core::content::{Action, Content, TYPE_RECOVER, TYPE_RECOVER_NOTES};
use florin_core::envelope::Order;
use florin_core::testing::{MemState, NETWORK_ID, NOW_US, TestCommittee};
use florin_core::{Result, receipt, wire};
use prost::Message;

use crate::cursor::Cursor;
use crate::worlds::shard::{PBTX, SHARD};

/// What a vote promises: an actor's place, or a note and how often it was freed, to one order.
type Place = (u64, u64, u32, Vec<u8>);

struct Run {
    authority: Authority,
    state: MemState,
    promised: BTreeMap<Place, [u8; 32]>,
}

fn places(order: &Order) -> Vec<Place> {
    // In another network than the own one an admin may let an actor vote again.
    if order.network_id != NETWORK_ID || matches!(order.transaction_type, TYPE_RECOVER | TYPE_RECOVER_NOTES) {
        return Vec::new();
    }
    match Content::decode(order).map(|c| c.action) {
        Ok(Action::Bearer(bearer)) => bearer.notes.iter().map(|n| (0, 0, n.recoveries, n.nonce.0.to_vec())).collect(),
        _ => vec![(order.network_id, order.actor, order.seqnum, order.prev_hash.to_be_bytes().to_vec())],
    }
}

impl Run {
    fn new() -> Run {
        let authority = Authority::new(SHARD.committee.clone(), 0, 0, SHARD.keys[0].clone());
        authority.set_mint(SHARD.mint.clone());
        Run { authority, state: SHARD.base.clone(), promised: BTreeMap::new() }
    }

    fn step(&mut self, input: Input) -> Result<Effects> {
        // That another own shard has applied what was never sent is this authority's fault.
        let may_fail = matches!(input, Input::Delivered { .. });
        let effects = self.authority.handle(NOW_US, input, &self.state, &mut NoMeter);
        if let Err(e) = &effects {
            assert!(may_fail || !e.is_own_fault(), "a state in memory is whole: {e}");
        }
        let effects = effects?;
        self.state.apply(&effects.writes);
        assert_eq!(Totals::load(&self.state).expect("a state in memory").sum(), 0, "postings");
        Ok(effects)
    }

    fn vote(&mut self, orders: Vec<Bytes>) {
        let before = self.state.clone();
        let Ok(effects) = self.step(Input::vote(orders.clone())) else { return };
        let Reply::Vote(reply) = effects.reply else { panic!("a vote is answered with another reply") };
        let batch = decode_batch(&orders).expect("it was voted on");
        let Some(vote) = &reply.vote else {
            assert_eq!(self.state, before, "what is refused changes nothing");
            assert_eq!(reply.errors.len(), orders.len());
            return;
        };
        let bits = check_signed(Promise::Vote, &SHARD.committee, &batch.id, std::slice::from_ref(vote));
        let bits = bits.expect("a true vote").remove(0);
        for i in 0..orders.len() {
            let refused = reply.errors.iter().any(|e| e.index as usize == i);
            assert_ne!(bits.get(i), refused, "order {i} is voted for or refused");
        }
        for i in bits.iter() {
            let order = batch.orders[i].as_ref().expect("it was voted for");
            for place in places(order) {
                let promised = *self.promised.entry(place).or_insert(order.id);
                assert_eq!(promised, order.id, "two orders for one place");
            }
        }
        // An order that stood before its predecessor is voted for the second time, and none less.
        let state = self.state.clone();
        let again = self.step(Input::vote(orders)).expect("the same again");
        let Reply::Vote(again) = again.reply else { panic!("a vote is answered with another reply") };
        let more =
            check_signed(Promise::Vote, &SHARD.committee, &batch.id, again.vote.as_slice()).expect("a true vote");
        assert!(more.first().is_some_and(|more| more.contains(&bits)), "a vote is repeated");
        assert!(more[0] != bits || (again.vote == reply.vote && self.state == state), "a vote is repeated as it was");
    }

    fn settle(&mut self, input: Input) {
        let Ok(effects) = self.step(input.clone()) else { return };
        let Reply::Settle(reply) = effects.reply else { panic!("a certificate is answered with another reply") };
        let (Input::Settle { certificate, .. } | Input::Fetched { certificate, .. }) = &input else { return };
        if let Some(signed) = &reply.acknowledgement {
            let known = SHARD.certified.iter().find(|(c, _)| c.root == certificate.root);
            let (of, _) = known.expect("orders that no quorum has voted for have settled");
            let id = florin_core::certificate::batch_id(&of.root, of.count).expect("made here");
            let signed = check_signed(Promise::Settled, &SHARD.committee, &id, std::slice::from_ref(signed));
            assert!(signed.expect("a true acknowledgement").remove(0).ones() > 0);
        }
        let state = self.state.clone();
        self.step(input).expect("the same again");
        assert!(self.state == state, "a certificate counts once");
    }

    fn audit(&self) {
        let audit = audit_shard(&self.authority, &self.state, true).expect("a state in memory");
        assert_eq!(audit.findings, Vec::<String>::new());
    }
}

fn some_orders(cursor: &mut Cursor<'_>) -> Vec<Bytes> {
    let mut orders: Vec<Bytes> = (0..1 + cursor.below(4)).map(|_| cursor.pick(&SHARD.orders).clone()).collect();
    match cursor.byte() {
        1 => orders = cursor.pick(&SHARD.certified).1.clone(),
        2 => orders.push(cursor.long()),
        3 => {
            let mut spoiled = orders[0].to_vec();
            let at = usize::from(u16::from_le_bytes([cursor.byte(), cursor.byte()])) % spoiled.len();
            spoiled[at] ^= cursor.byte();
            orders[0] = spoiled.into();
        }
        _ => {}
    }
    orders
}

fn certificate(cursor: &mut Cursor<'_>) -> (wire::Certificate, Vec<Bytes>) {
    let (mut certificate, mut orders) = cursor.pick(&SHARD.certified).clone();
    match cursor.byte() {
        1 => orders.clear(),
        2 => orders = some_orders(cursor),
        3 => certificate.votes.truncate(cursor.below(5)),
        4 => certificate.votes = cursor.pick(&SHARD.certified).0.votes.clone(),
        5 => {
            let twice = cursor.pick(&certificate.votes).clone();
            certificate.votes[0] = twice;
        }
        6 => certificate = wire::Certificate::decode(cursor.long()).unwrap_or(certificate),
        7 => certificate.count = cursor.byte().into(),
        8 => certificate.votes[0].bitmap = Bitmap::empty(orders.len()).to_bytes(),
        _ => {}
    }
    (certificate, orders)
}

/// A shard under true, false, late and repeated inputs: one vote a place, one settlement an order, no money made or lost,
/// and its books in order at the end, as the audit derives them again.
pub fn shard_orders(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut run = Run::new();
    for _ in 0..48 {
        if cursor.is_empty() {
            break;
        }
        match cursor.byte() % 8 {
            0 | 1 => run.vote(some_orders(&mut cursor)),
            2 | 3 => {
                let (certificate, orders) = certificate(&mut cursor);
                run.settle(Input::Settle { certificate, orders });
            }
            4 => {
                let (certificate, orders) = certificate(&mut cursor);
                run.settle(Input::Fetched { certificate, orders });
            }
            5 | 6 => {
                let from = if cursor.flag() { LOG } else { 1 };
                let all = SHARD.deliveries.get(&from).map_or(&[][..], |all| all);
                if all.is_empty() {
                    continue;
                }
                // As many as the byte says, from where it stopped; or any one, which is refused or answered.
                let (many, any) = (cursor.byte(), cursor.byte());
                let next = applied(&run.state, from);
                let any = usize::from(any);
                let range = if many == 0xff { any..any + 1 } else { next..next + 1 + usize::from(many % 16) };
                for delivery in all.get(range.start..range.end.min(all.len())).unwrap_or_default() {
                    let _ = run.step(Input::Deliver(delivery.clone()));
                }
            }
            _ => {
                let input = match cursor.flag() {
                    true => Input::Delivered {
                        to_shard: if cursor.flag() { LOG } else { 1 },
                        applied: cursor.byte().into(),
                    },
                    false => Input::Followed { authority: cursor.below(4) as u32, position: cursor.byte().into() },
                };
                let _ = run.step(input);
            }
        }
    }
    run.audit();
}

/// Deliveries that it has applied.
fn applied(state: &MemState, from: u32) -> usize {
    let value = state.get(Table::Links, &link_key(Link::Applied, from)).expect("a state in memory");
    value.map_or(0, |v| u64::from_be_bytes(v[..].try_into().expect("8 bytes")) as usize)
}

fn request(cursor: &mut Cursor<'_>) -> (u64, u64, u32, Bytes) {
    let (network, actor) = *cursor.pick(&SHARD.actors);
    let network = if cursor.byte() == 0xff { cursor.number() } else { network };
    let actor = if cursor.byte() == 0xff { cursor.number() } else { actor };
    let seqnum = cursor.byte();
    (network, actor, u32::from(seqnum), Bytes::new())
}

/// Questions to a shard with a history: pages go on, proofs are true, and nothing is at fault whatever is asked.
pub fn shard_queries(bytes: &[u8]) {
    fn good<T>(result: Result<T>) -> Option<T> {
        if let Err(e) = &result {
            assert!(!e.is_own_fault(), "a state in memory is whole: {e}");
        }
        result.ok()
    }
    let mut cursor = Cursor::new(bytes);
    let (run, state) = (Run::new(), &SHARD.end);
    let authority = &run.authority;
    while !cursor.is_empty() {
        let what = cursor.byte() % 11;
        let (network_id, actor, seqnum, order_id) = request(&mut cursor);
        match what {
            0 => {
                let address = cursor.pick(&SHARD.addresses).clone();
                let request = wire::AccountRequest { network_id, address };
                let reply = good(authority.account(state, &request));
                assert!(reply.is_none_or(|r| r.balance.parse::<i128>().is_ok()));
            }
            1 => {
                let request = wire::OrderRequest { network_id, actor, seqnum, order_id };
                let proof = good(authority.order(state, &request)).and_then(|r| r.receipt);
                if let Some(proof) = proof.filter(|proof| !proof.votes.is_empty()) {
                    receipt::verify_certified(&SHARD.committee, &proof).expect("a true proof");
                }
            }
            2 => drop(good(
                authority.order_status(state, &wire::OrderStatusRequest { network_id, actor, seqnum, order_id }),
            )),
            3 => {
                let address = cursor.pick(&SHARD.addresses).clone();
                let (before, limit) = (cursor.number() >> cursor.below(64), cursor.byte().into());
                let request = wire::CreditsRequest { network_id, address, before, limit };
                if let Some(reply) = good(authority.credits(state, &request)) {
                    assert!(reply.credits.len() <= 256);
                    assert!(reply.credits.iter().all(|c| c.amount > 0));
                }
            }
            4 => {
                let (from, end) = (u64::from(cursor.byte()), u64::from(cursor.byte()));
                if let Some(reply) = good(authority.follow(state, from, end)) {
                    assert!(reply.entries.len() as u64 <= end.saturating_sub(from));
                }
            }
            5 => drop(good(authority.batch(state, &wire::BatchRequest::decode(cursor.long()).unwrap_or_default()))),
            6 => {
                let nonces: Vec<Bytes> = (0..cursor.below(4)).map(|_| cursor.pick(&SHARD.nonces).clone()).collect();
                let blinded = if cursor.flag() { vec![Bytes::copy_from_slice(cursor.take(48))] } else { vec![] };
                let request = wire::NotesRequest { shard: cursor.below(3) as u32, blinded, nonces };
                if let Some(reply) = good(authority.notes(state, &request)) {
                    assert_eq!((reply.issued.len(), reply.states.len()), (request.blinded.len(), request.nonces.len()));
                }
            }
            7 => drop(good(authority.actor(state, &wire::ActorRequest { network_id, actor }))),
            8 => {
                let request = wire::ListenRequest { network_id: PBTX, from: cursor.number() >> cursor.below(64) };
                if let Some(reply) = good(authority.listen(state, &request)) {
                    assert!(reply.next <= reply.end && (reply.next > request.from.max(1) || reply.next == reply.end));
                }
            }
            9 => drop(good(authority.history(state, &wire::HistoryRequest::decode(cursor.long()).unwrap_or_default()))),
            _ => {
                let to = if cursor.flag() { LOG } else { cursor.byte().into() };
                let (first, last) = good(authority.outbox_range(state, to)).unwrap_or((1, 0));
                let sequence = first + u64::from(cursor.byte());
                if sequence <= last {
                    assert_eq!(authority.outbox(state, to, sequence).map(|d| d.sequence), Ok(sequence));
                }
                let _ = good(authority.missing(state, &wire::SettledEntry::decode(cursor.long()).unwrap_or_default()));
            }
        }
    }
}

/// A genesis file in parts of any size, late and repeated: every line counts once, and its shard's alone.
pub fn shard_genesis(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let committee = TestCommittee { genesis_hash: [3; 32], ..TestCommittee::new(4, 2) };
    let (committee, keys) = committee.build();
    let authority = Authority::new(committee, 0, 0, keys[0].clone());
    let address = |i: usize| Address::new([i as u8; 32]);
    let lines: Vec<(Address, u64)> = (0..1 + cursor.below(20)).map(|i| (address(i), 1 + i as u64 % 7)).collect();
    let mut state = MemState::default();
    let total = |state: &MemState| Totals::load(state).expect("a state in memory");
    for _ in 0..64 {
        let from = match cursor.byte() {
            0xff => cursor.below(lines.len() + 2),
            _ => total(&state).genesis_lines as usize,
        };
        let end = (from + 1 + cursor.below(6)).min(lines.len());
        let part = lines.get(from..end).unwrap_or_default().to_vec();
        let last = end == lines.len() || cursor.byte() == 0xff;
        let input = Input::Genesis { first_line: from as u64, lines: part, last };
        let before = total(&state);
        match authority.handle(NOW_US, input, &state, &mut NoMeter) {
            Ok(effects) => state.apply(&effects.writes),
            Err(e) => assert!(!e.is_own_fault(), "{e}"),
        }
        let now = total(&state);
        assert!(now.genesis_lines >= before.genesis_lines && now.genesis_lines <= lines.len() as u64 + 1);
        assert_eq!(now.sum(), 0);
        if now.genesis_done {
            break;
        }
    }
    let done = total(&state);
    let loaded = lines.iter().take(done.genesis_lines as usize).filter(|(address, _)| address.shard(2) == 0);
    let expected: i128 = loaded.map(|(_, amount)| i128::from(*amount)).sum();
    let audit = audit_shard(&authority, &state, true).expect("a state in memory");
    assert_eq!((audit.genesis, audit.findings), (expected, vec![]));
}
