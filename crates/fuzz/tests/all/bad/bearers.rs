//! What orders that spend notes say.

use bytes::Bytes;
use florin_core::Code::*;
use florin_core::envelope::{Body, encode_body};
use florin_core::testing::NETWORK_ID;
use florin_core::wire::{self, output::Kind};
use prost::Message;

use super::Cases;
use super::contents::{credit, fund, hash, note, out};
use super::proto::break_message;

/// The body of an order without an account.
fn nobody(transaction_type: u32, content: &[u8]) -> Vec<u8> {
    let content = Bytes::copy_from_slice(content);
    encode_body(&Body { network_id: NETWORK_ID, transaction_type, content, ..Body::default() }).to_vec()
}

fn spent(byte: u8, tier: u32) -> wire::NoteInput {
    wire::NoteInput { tier, nonce: hash(byte), ..Default::default() }
}

/// All cases of this file.
pub fn add(cases: &mut Cases) {
    let outputs = vec![credit(4), note(2)];
    let good = wire::Bearer { notes: vec![spent(1, 3)], outputs, memo: "m".into(), refund: Bytes::new() };
    break_message(cases, ("content", "bearer"), &good.encode_to_vec(), (BadContent, NonCanonical), |b| nobody(5, b));
    let mut bad = |code, rule: &str, change: &dyn Fn(&mut wire::Bearer)| {
        let mut bearer = good.clone();
        change(&mut bearer);
        cases.bad("content", code, format!("bearer: {rule}"), nobody(5, &bearer.encode_to_vec()));
    };
    bad(Limit, "no notes", &|b| b.notes.clear());
    bad(Limit, "129 notes", &|b| b.notes = (0..129).map(|i| spent(i, 0)).collect());
    bad(Limit, "257 notes and outputs", &|b| b.outputs = vec![credit(1); 256]);
    bad(Limit, "a memo of 257 bytes", &|b| b.memo = "m".repeat(257));
    bad(Limit, "no outputs", &|b| b.outputs.clear());
    bad(BadContent, "a note twice", &|b| b.notes = vec![spent(1, 2); 2]);
    bad(BadContent, "a note twice of two tiers", &|b| b.notes = vec![spent(1, 2), spent(1, 1)]);
    bad(BadContent, "a note of tier 63", &|b| b.notes[0].tier = 63);
    bad(BadAmount, "notes of 2^63", &|b| b.notes = vec![spent(1, 62), spent(2, 62)]);
    bad(BadAmount, "outputs below the notes", &|b| b.outputs[0] = credit(3));
    bad(BadAmount, "outputs above the notes", &|b| b.outputs[0] = credit(5));
    bad(BadAmount, "a credit of 0", &|b| b.outputs[0] = credit(0));
    bad(BadContent, "a credit after a note", &|b| b.outputs.reverse());
    bad(BadContent, "an output without a kind", &|b| b.outputs[0].kind = None);
    bad(BadContent, "a nonce of 31 bytes", &|b| b.notes[0].nonce = hash(1).slice(1..));
    bad(BadContent, "no nonce", &|b| b.notes[0].nonce = Bytes::new());
    bad(BadContent, "a free note that is taken back", &|b| b.notes[0].returned = true);
    let lock = |receiver: usize, sender: usize| {
        Some(wire::NoteLock {
            receiver: Bytes::from(vec![1; receiver]),
            sender: Bytes::from(vec![2; sender]),
            after_ms: 3,
        })
    };
    bad(BadContent, "a locked note with a nonce", &|b| b.notes[0].lock = lock(32, 32));
    for (receiver, sender) in [(31, 32), (32, 31), (33, 32), (32, 0)] {
        bad(BadContent, &format!("a lock with keys of {receiver} and {sender} bytes"), &|b| {
            b.notes[0] = wire::NoteInput { tier: 3, lock: lock(receiver, sender), ..Default::default() };
        });
    }
    bad(BadContent, "a refund without a shared output", &|b| b.refund = hash(9));
    let shared = || out(Kind::ContractFund(fund()));
    bad(BadContent, "a shared output without a refund", &|b| b.outputs = vec![credit(3), shared()]);
    bad(BadContent, "a refund of 31 bytes", &|b| {
        (b.outputs, b.refund) = (vec![credit(3), shared()], hash(9).slice(1..))
    });
    bad(BadContent, "a credit after a shared output", &|b| {
        (b.outputs, b.refund) = (vec![shared(), credit(3)], hash(9))
    });
    bad(BadContent, "a note after a shared output", &|b| {
        (b.outputs, b.refund) = (vec![credit(1), shared(), note(1)], hash(9))
    });
    let settle = Kind::ChannelSettle(wire::ChannelSettle { channel: hash(1) });
    bad(BadContent, "a shared output that needs an account", &|b| {
        (b.outputs, b.refund) = (vec![credit(8), out(settle.clone())], hash(9));
    });
    let recover = wire::Bearer { notes: vec![spent(1, 3)], ..Default::default() };
    cases.whole("content", "recover notes", nobody(6, &recover.encode_to_vec()));
    let mut bad = |rule: &str, bearer: wire::Bearer| {
        cases.bad("content", BadContent, format!("recover notes: {rule}"), nobody(6, &bearer.encode_to_vec()));
    };
    bad("with outputs", wire::Bearer { outputs: vec![credit(8)], ..recover.clone() });
    bad("with a memo", wire::Bearer { memo: "m".into(), ..recover.clone() });
    bad("with a refund", wire::Bearer { refund: hash(1), ..recover });
    cases.bad("content", Limit, "recover notes: of none", nobody(6, &[]));
}
