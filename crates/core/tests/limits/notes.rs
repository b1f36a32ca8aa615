//! What orders may ask and spend of e-cash.

use bytes::Bytes;
use florin_core::content::TYPE_BEARER;
use florin_core::envelope::{Authority, Body, encode_body, encode_envelope};
use florin_core::limits::NOTES_IN_MAX;
use florin_core::testing::{Cluster, NETWORK_ID, Signer, TestCommittee};
use florin_core::wire::{self, output};
use florin_core::{Code, Result};
use prost::Message;

use crate::{Case, funded, judged, limit, text};

pub fn cases() -> Vec<Case> {
    use Code::{BadContent, Busy, Limit};
    vec![
        Case::at_most(limit!(NOTES_IN_MAX), &[64 * 128], Limit, |n| bearer(n, 1, 0)).at_least(1),
        Case::at_most(limit!(NOTES_PER_ORDER_MAX), &[64 * 256], Limit, |n| {
            bearer(NOTES_IN_MAX as u64, n - NOTES_IN_MAX as u64, 0)
        }),
        Case::at_most(limit!(MEMO_BYTES_MAX), &[64 * 256], Limit, |n| bearer(1, 1, n)),
        // 16 times as much would be more than a message.
        Case::at_most(limit!(NOTES_PER_BATCH_MAX), &[8 * 2_048], Busy, asked_in_a_batch),
        Case::at_most(limit!(NOTES_PER_BATCH_MAX), &[8 * 2_048], Busy, spent_in_a_batch),
        Case::at_most(limit!(NOTES_PER_QUERY_MAX), &[64 * 1_024], Limit, asked_about),
        // The tier of a note is one less than how many tiers there must be for it.
        Case::at_most(limit!(CASH_TIERS), &[63, 64, 65, 64 * 32, u32::MAX as u64], BadContent, asked_of_tier),
    ]
}

fn mint() -> Cluster {
    let mut cluster = Cluster::new(&TestCommittee::default());
    cluster.make_cash(1);
    cluster
}

/// The `number`th order that spends so many notes, which nobody has ever signed.
fn spends(number: u64, notes: u64, outputs: u64, memo: u64) -> Bytes {
    let nonce = |i: u64| {
        let mut nonce = [7; 32];
        nonce[..8].copy_from_slice(&(number << 32 | i).to_be_bytes());
        Bytes::copy_from_slice(&nonce)
    };
    // Each note is worth 256, so that there is something for each output.
    let credit = |i: u64| {
        let address = Bytes::copy_from_slice(Signer::new(1).address.as_bytes());
        let amount = if i == 0 { 256 * notes + 1 - outputs.min(256 * notes) } else { 1 };
        wire::Output { kind: Some(output::Kind::Credit(wire::Credit { address, amount })) }
    };
    let content = wire::Bearer {
        notes: (0..notes).map(|i| wire::NoteInput { tier: 8, nonce: nonce(i), ..Default::default() }).collect(),
        outputs: (0..outputs).map(credit).collect(),
        memo: text(memo),
        refund: Bytes::new(),
    };
    let content = Bytes::from(content.encode_to_vec());
    let body = encode_body(&Body { network_id: NETWORK_ID, transaction_type: TYPE_BEARER, content, ..Body::default() });
    // No more than an envelope holds: what is too much is to be the notes.
    let sigs = vec![Bytes::from(vec![7; 112]); (notes as usize).min(NOTES_IN_MAX)];
    let authorities: Vec<_> = sigs.chunks(16).map(|sigs| Authority { key_type: 0, sigs: sigs.to_vec() }).collect();
    encode_envelope(&body, &authorities)
}

/// An order of that form is refused only for its signatures, which come last.
fn bearer(notes: u64, outputs: u64, memo: u64) -> Result<()> {
    let mut cluster = Cluster::new(&TestCommittee::default());
    cluster.make_cash(9);
    match judged(cluster.node(0, 0), &[spends(0, notes, outputs, memo)]) {
        Err(e) if e.code == Code::KeyMismatch => Ok(()),
        other => other,
    }
}

/// Orders ask for so many notes. Those that are too many get them when asked again.
fn asked_in_a_batch(n: u64) -> Result<()> {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut purse = cluster.make_cash(1);
    let asked = purse.ask(&[0; 256]);
    let mut orders = Vec::new();
    for number in 0..n.div_ceil(64 * 256) {
        let mut signer = Signer::new(number + 1);
        cluster.fund(signer.address, 64 * 256);
        let left = n - number * 64 * 256;
        let parts = (0..64).map(|i| left.saturating_sub(i * 256).min(256) as usize).filter(|part| *part > 0);
        orders.extend(parts.map(|part| signer.withdraw(&asked[..part])));
    }
    let node = cluster.node(0, 0);
    let reply = node.vote(&orders)?;
    let accepted: u32 = reply.vote.iter().flat_map(|vote| &vote.bitmap).map(|byte| byte.count_ones()).sum();
    assert_eq!(accepted as u64, (n / 256).min(2_048 / 256), "of {} orders", orders.len());
    match reply.errors.first() {
        None => Ok(()),
        Some(e) => Err(florin_core::Error::new(Code::from_number(e.code).unwrap(), e.message.clone())),
    }
}

/// Orders spend so many notes and ask for none: of those that are too many no signature is looked at.
fn spent_in_a_batch(n: u64) -> Result<()> {
    let mut cluster = Cluster::new(&TestCommittee::default());
    cluster.make_cash(9);
    let parts = (0..n.div_ceil(128)).map(|i| (i, (n - i * 128).min(128)));
    let orders: Vec<_> = parts.map(|(i, part)| spends(i, part, 1, 0)).collect();
    let node = cluster.node(0, 0);
    let before = node.state.clone();
    let reply = node.vote(&orders)?;
    assert_eq!((reply.errors.len(), &node.state), (orders.len(), &before));
    let looked_at = reply.errors.iter().filter(|e| e.code == Code::KeyMismatch as u32).count();
    assert_eq!(looked_at as u64, (n / 128).min(2_048 / 128));
    match reply.errors.last() {
        Some(e) if e.code != Code::KeyMismatch as u32 => {
            Err(florin_core::Error::new(Code::from_number(e.code).unwrap(), e.message.clone()))
        }
        _ => Ok(()),
    }
}

fn asked_about(n: u64) -> Result<()> {
    let cluster = mint();
    let node = &cluster.nodes[0][0];
    let nonces = vec![Bytes::from_static(&[7; 32]); (n / 2) as usize];
    let blinded = vec![Bytes::from_static(&[7; 48]); n as usize - nonces.len()];
    let reply = node.authority.notes(&node.state, &wire::NotesRequest { shard: 0, blinded, nonces })?;
    assert_eq!((reply.issued.len() + reply.states.len()) as u64, n);
    Ok(())
}

/// A note of the last of so many tiers.
fn asked_of_tier(n: u64) -> Result<()> {
    let (mut cluster, mut alice) = funded(1 << 62);
    let mut purse = cluster.make_cash(florin_core::limits::CASH_TIERS);
    let mut asked = purse.ask(&[0]);
    asked[0].tier = u32::try_from(n - 1).unwrap();
    let order = alice.withdraw(&asked);
    judged(cluster.node(0, 0), &[order])
}
