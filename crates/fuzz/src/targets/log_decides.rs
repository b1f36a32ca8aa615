//! What only the log decides: recoveries of accounts and notes, and where sessions end.

use bytes::Bytes;
use florin_core::content::credit_output;
use florin_core::limits::{RECOVERY_WAIT_MS, SESSION_ROUNDS};
use florin_core::ordered::input::Input;
use florin_core::ordered::session;
use florin_core::testing::{NETWORK_ID, to};
use florin_core::wire::{self, output};
use prost::Message;
use sha2::{Digest, Sha256};

use super::log::{STEPS, credit};
use crate::cursor::Cursor;
use crate::worlds::ledger::Ledger;
use crate::worlds::shard::SHARD;

/// Accounts that are locked: requests, reports, orders that are shown, and time.
pub fn log_recovery(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut ledger = Ledger::new();
    let mut shown: Vec<Bytes> = Vec::new();
    for _ in 0..STEPS {
        if cursor.is_empty() {
            break;
        }
        let who = cursor.below(3);
        match cursor.byte() % 8 {
            0 => {
                let request = ledger.signers[who].recover();
                ledger.order(&[request]);
            }
            1 | 2 => {
                let (network_id, actor) = (NETWORK_ID, ledger.signers[who].actor());
                let seqnum = (ledger.signers[who].seqnum + 1).wrapping_sub(u32::from(cursor.byte() == 0xff));
                let order_id = match shown.last() {
                    Some(order) if cursor.flag() => Bytes::copy_from_slice(&Sha256::digest(order)),
                    _ => Bytes::new(),
                };
                let report = wire::RecoveryReport { network_id, actor, seqnum, order_id };
                let item = wire::Item { kind: Some(wire::item::Kind::Report(report)) }.encode_to_vec();
                ledger.items(cursor.below(4) as u32, 0, vec![item.into()]);
            }
            3 => {
                let amount = u64::from(cursor.byte());
                let to_ = ledger.signers[3].address;
                let order = ledger.signers[who].clone().pay(&[to(to_, 1 + amount)], "");
                shown.push(order);
            }
            4 if !shown.is_empty() => {
                let order = shown[cursor.below(shown.len())].clone();
                ledger.order(&[order]);
            }
            5 => {
                let outputs = vec![credit(&ledger, 3, 1 + u64::from(cursor.byte()))];
                ledger.call(who, vec![], outputs);
            }
            6 => {
                let now = ledger.time() + RECOVERY_WAIT_MS / 2;
                ledger.clocks(now);
            }
            _ => {
                // Its owner learns what the log has decided, and goes on.
                let signer = &mut ledger.signers[who];
                signer.seqnum = signer.seqnum.wrapping_add(u32::from(cursor.flag()));
                signer.prev_hash ^= u64::from(cursor.byte());
            }
        }
    }
    ledger.check();
}

/// Notes: shared sides of bearer orders, and recoveries of notes.
pub fn log_notes(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut ledger = Ledger::new();
    let own: Vec<&Bytes> = SHARD.certified.iter().flat_map(|(_, orders)| orders).filter(|o| is_bearer(o)).collect();
    for _ in 0..STEPS {
        if cursor.is_empty() {
            break;
        }
        match cursor.byte() % 6 {
            0 => {
                let order = (*cursor.pick(&own)).clone();
                ledger.order(&[order]);
            }
            1 => {
                let order = shared(&mut cursor, &ledger);
                if honest(&order) {
                    ledger.order(&[order]);
                }
            }
            2 | 3 => {
                let nonce = cursor.pick(&SHARD.nonces).clone();
                let order_id = if cursor.flag() { Bytes::new() } else { Bytes::copy_from_slice(&[cursor.byte(); 32]) };
                let report = wire::NoteReport { nonce, order_id, recoveries: u32::from(cursor.byte() % 3) };
                let item = wire::Item { kind: Some(wire::item::Kind::NoteReport(report)) }.encode_to_vec();
                ledger.items(cursor.below(4) as u32, 0, vec![item.into()]);
            }
            4 => {
                let now = ledger.time() + RECOVERY_WAIT_MS / 2;
                ledger.clocks(now);
            }
            _ => {
                let order = raw_bearer(&mut cursor, Vec::new(), Bytes::new());
                if honest(&order) {
                    ledger.order(&[order]);
                }
            }
        }
    }
    ledger.check();
}

fn is_bearer(order: &Bytes) -> bool {
    florin_core::envelope::Order::decode(order.clone()).is_ok_and(|o| o.actor == 0)
}

/// Whether the form is such that honest authorities may vote for it.
fn honest(order: &Bytes) -> bool {
    let order = florin_core::envelope::Order::decode(order.clone()).expect("it was put together here");
    florin_core::content::Content::decode(&order).is_ok()
}

/// A bearer order whose signatures are left out: the log sees its body alone.
fn raw_bearer(cursor: &mut Cursor<'_>, outputs: Vec<wire::Output>, refund: Bytes) -> Bytes {
    use florin_core::envelope::{Body, encode_body, encode_envelope};
    let note = |cursor: &mut Cursor<'_>| wire::NoteInput {
        tier: u32::from(cursor.byte() % 5),
        nonce: cursor.pick(&SHARD.nonces).clone(),
        recoveries: u32::from(cursor.byte() % 3),
        ..Default::default()
    };
    let notes: Vec<wire::NoteInput> = (0..1 + cursor.below(2)).map(|_| note(cursor)).collect();
    let transaction_type = if outputs.is_empty() { 6 } else { 5 };
    let content = wire::Bearer { notes, outputs, memo: String::new(), refund }.encode_to_vec().into();
    encode_envelope(&encode_body(&Body { network_id: NETWORK_ID, transaction_type, content, ..Body::default() }), &[])
}

fn shared(cursor: &mut Cursor<'_>, ledger: &Ledger) -> Bytes {
    let amount = 1 << (cursor.byte() % 5);
    let fund = wire::ContractFund {
        amount,
        hash: Bytes::copy_from_slice(&Sha256::digest(b"one")),
        expiry_ms: cursor.time(ledger.time()),
        receiver: ledger.address(0),
        sender: ledger.address(1),
    };
    let mut outputs = Vec::new();
    if cursor.flag() {
        outputs.push(credit_output(&to(ledger.signers[2].address, u64::from(cursor.byte()) + 1)));
    }
    outputs.push(wire::Output { kind: Some(output::Kind::ContractFund(fund)) });
    raw_bearer(cursor, outputs, ledger.address(3))
}

/// Sessions: they end at the same unit everywhere, and only true signatures are kept.
pub fn log_sessions(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut ledger = Ledger::new();
    let mut closed: Vec<wire::SignedSession> = Vec::new();
    for _ in 0..STEPS {
        if cursor.is_empty() {
            break;
        }
        let book = ledger.book();
        match cursor.byte() % 7 {
            0 => {
                let outputs = vec![credit(&ledger, 3, 1 + u64::from(cursor.byte()))];
                ledger.call(cursor.below(3), vec![], outputs);
            }
            1 => {
                let input = Input::Unit {
                    session: book.session.wrapping_add(u64::from(cursor.byte() % 3)).wrapping_sub(1),
                    position: book.units.wrapping_add(u32::from(cursor.byte() % 3)).wrapping_sub(1),
                    creator: cursor.below(5) as u32,
                    round: SESSION_ROUNDS - 1 + u32::from(cursor.flag()),
                    data: Bytes::copy_from_slice(cursor.short()),
                };
                ledger.both(&input);
            }
            2 => {
                // The round at which a session ends.
                let (session, position) = (book.session, book.units);
                let (creator, round) = (0, SESSION_ROUNDS);
                ledger.both(&Input::Unit { session, position, creator, round, data: Bytes::from_static(&[0]) });
                assert_eq!(ledger.book().session, session + 1);
                let request = wire::SessionsRequest { from: session, limit: 1 };
                let log = &ledger.logs[0];
                let _ = log.log.sessions(&log.state, &request).expect("a state in memory");
                let signature = log.log.own_signature(&log.state, session).expect("a state in memory");
                assert!(signature.is_some(), "it signs what it closes");
            }
            3 | 4 => {
                let (session, by) = (u64::from(cursor.byte() % 4), cursor.below(4));
                let mut signature = wire::Signed { authority: by as u32, ..Default::default() };
                if let Some(header) = header_of(&ledger, session) {
                    signature = session::sign(&ledger.committee, by as u32, &ledger.keys[by], &header);
                    closed.push(wire::SignedSession { header: Some(header), signatures: vec![signature.clone()] });
                }
                match cursor.byte() {
                    1 => signature.signature = Bytes::copy_from_slice(cursor.take(64)),
                    2 => signature.authority = cursor.byte().into(),
                    _ => {}
                }
                ledger.both(&Input::Signature { session, signature });
            }
            5 if !closed.is_empty() => {
                let mut signed = closed[cursor.below(closed.len())].clone();
                let header = signed.header.clone().expect("it was made here");
                signed.signatures = (0..cursor.below(5))
                    .map(|i| session::sign(&ledger.committee, i as u32 % 4, &ledger.keys[i % 4], &header))
                    .collect();
                ledger.both(&Input::Close(signed));
            }
            _ => {
                ledger.both(&Input::Delivered { to_shard: cursor.below(3) as u32, applied: cursor.byte().into() });
            }
        }
        let log = &ledger.logs[0];
        assert!(session::signed_sessions(&log.state).expect("a state in memory") <= ledger.book().session);
    }
    ledger.check();
}

fn header_of(ledger: &Ledger, number: u64) -> Option<wire::SessionHeader> {
    use florin_core::authority::state::{State, Table};
    let value = ledger.logs[0].state.get(Table::Sessions, &number.to_be_bytes()).expect("a state in memory")?;
    wire::SessionRecord::decode(value).expect("the log's own record").session?.header
}
