//! What a shard keeps of an account, and how much it answers.

use bytes::Bytes;
use florin_core::authority::state::{Table, Write, get_u64};
use florin_core::keys::Curve;
use florin_core::limits::{
    CERTIFICATES_BYTES_MAX, CREDITS_PER_RECORD, FOLLOW_PAGE, OUTPUTS_MAX, PAGE_MAX, PENDING_WINDOW,
};
use florin_core::testing::{Actor, NETWORK_ID, Signer, to};
use florin_core::wire::{self, network_command, output};
use florin_core::{Code, Result};
use prost::Message;

use crate::{Bound, Case, funded, judged, limit};

pub fn cases() -> Vec<Case> {
    vec![
        Case::at_most(limit!(PENDING_WINDOW), &[64 * 64], Code::WindowFull, pending_orders),
        Case::at_most(limit!(PENDING_WINDOW), &[64 * 64], Code::WindowFull, pending_orders_of_an_actor),
    ]
}

pub fn bounds() -> Vec<Bound> {
    vec![
        ("PAGE_MAX", pages_of_credits),
        ("CREDITS_PER_RECORD", records_of_credits),
        ("FOLLOW_PAGE", pages_of_the_settled_stream),
        ("CERTIFICATES_BYTES_MAX", certificates_in_one_message),
    ]
}

fn pending_orders(n: u64) -> Result<()> {
    let (mut cluster, mut alice) = funded(10_000);
    let orders: Vec<_> = (0..n).map(|_| alice.pay(&[to(Signer::new(2).address, 1)], "")).collect();
    let node = cluster.node(0, 0);
    let result = judged(node, &orders);
    assert_eq!(node.account(alice.actor()).pending.len(), PENDING_WINDOW);
    result
}

fn pending_orders_of_an_actor(n: u64) -> Result<()> {
    let (mut cluster, mut alice) = funded(10_000);
    let mut actor = Actor::new(500, 1, Curve::Ed25519);
    let kind = Some(network_command::Kind::Register(wire::NetworkRegister::default()));
    let register = output::Kind::Network(wire::NetworkCommand { network_id: 500, kind });
    let order = alice.call(vec![], vec![register, actor.registration()]);
    cluster.run_ordered(&[order]);
    let orders: Vec<_> = (0..n).map(|_| actor.order(1, b"x", &[])).collect();
    let node = cluster.node(0, 0);
    let result = judged(node, &orders);
    assert_eq!(node.account_of(500, 1).pending.len(), PENDING_WINDOW);
    result
}

fn pages_of_credits() {
    let (mut cluster, mut alice) = funded(10_000);
    let bob = Signer::new(2);
    let orders: Vec<_> = (0..2).map(|_| alice.pay(&[to(bob.address, 1); OUTPUTS_MAX], "")).collect();
    cluster.run(&orders);
    let node = &cluster.nodes[0][0];
    let mut seen = Vec::new();
    for limit in [PAGE_MAX as u32 - 1, PAGE_MAX as u32, PAGE_MAX as u32 + 1, u32::MAX] {
        let address = Bytes::copy_from_slice(bob.address.as_bytes());
        let request = wire::CreditsRequest { network_id: NETWORK_ID, address, before: 0, limit };
        let reply = node.authority.credits(&node.state, &request).unwrap();
        assert!(reply.next > 0);
        seen.push(reply.credits.len());
    }
    assert_eq!(seen, [PAGE_MAX - 1, PAGE_MAX, PAGE_MAX, PAGE_MAX]);
}

fn records_of_credits() {
    let (mut cluster, mut alice) = funded(10_000);
    let bob = Signer::new(2);
    for credits in [CREDITS_PER_RECORD, CREDITS_PER_RECORD + 1, 4 * CREDITS_PER_RECORD] {
        let before = cluster.nodes[0][0].state.iter(Table::Credits).count();
        let order = alice.pay(&vec![to(bob.address, 1); credits], "");
        cluster.run(&[order]);
        let records = cluster.nodes[0][0].state.iter(Table::Credits).skip(before);
        let sizes: Vec<usize> =
            records.map(|(_, value)| wire::CreditsRecord::decode(value.clone()).unwrap().credits.len()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), credits);
        assert_eq!(sizes.len(), credits.div_ceil(CREDITS_PER_RECORD));
        assert!(sizes.iter().all(|size| *size <= CREDITS_PER_RECORD), "{sizes:?}");
    }
}

/// As if so many batches had settled.
fn pages_of_the_settled_stream() {
    let (mut cluster, _) = funded(1);
    let node = cluster.node(0, 0);
    let end = 64 * FOLLOW_PAGE as u64;
    let entry = |position| wire::SettledEntry { position, root: vec![7; 32].into(), count: 1, ..Default::default() };
    let write = |i: u64| Write::put(Table::Settled, i.to_be_bytes(), entry(i).encode_to_vec());
    node.state.apply(&(0..end).map(write).collect::<Vec<_>>());
    for (from, expected) in [(end - 1_023, 1_023), (end - 1_024, 1_024), (end - 1_025, 1_024), (0, 1_024)] {
        let reply = node.authority.follow(&node.state, from, end).unwrap();
        assert_eq!((reply.entries.len(), reply.entries[0].position), (expected, from));
    }
}

/// As if a batch had so many certificates, of so many bytes: those that fit are shown.
fn certificates_in_one_message() {
    const COUNT: usize = 17;
    let (mut cluster, _) = funded(10_000);
    let mut signers: Vec<_> = (10..10 + COUNT as u64).map(Signer::new).collect();
    signers.iter().for_each(|signer| cluster.fund(signer.address, 1));
    let issuer = cluster.issuer.address;
    let orders: Vec<_> = signers.iter_mut().map(|signer| signer.pay(&[to(issuer, 1)], "")).collect();
    cluster.run(&orders);
    let root = Bytes::copy_from_slice(&florin_core::batch::decode_batch(&orders).unwrap().id.root);
    let node = cluster.node(0, 0);
    let number = get_u64(&node.state, Table::Roots, &root).unwrap().unwrap();
    let (_, record) = node.state.iter(Table::Progress).find(|(key, _)| *key == number.to_be_bytes()).unwrap();
    let record = wire::ProgressRecord::decode(record.clone()).unwrap();
    // One for each order, by three authorities, padded to so many bytes.
    let certificate = |i: usize, bytes: usize| {
        let mut bitmap = vec![0; COUNT.div_ceil(8)];
        bitmap[i / 8] |= 1 << (i % 8);
        let (bitmap, old) = (Bytes::from(bitmap), &record.certificates[0]);
        let mut votes: Vec<wire::Signed> =
            old.votes.iter().map(|vote| wire::Signed { bitmap: bitmap.clone(), ..vote.clone() }).collect();
        let padded = (0..bytes).rev().find_map(|padding| {
            votes[0].signature = vec![7; padding].into();
            let found = wire::Certificate { votes: votes.clone(), ..old.clone() };
            (found.encoded_len() == bytes).then_some(found)
        });
        padded.unwrap()
    };
    let part = CERTIFICATES_BYTES_MAX / 16;
    let sizes = |last: &[usize]| [&[part; 15][..], last].concat();
    for (sizes, shown) in
        [(sizes(&[part]), 16), (sizes(&[part + 1]), 15), (sizes(&[part, part]), 16), (vec![8 * part; COUNT], 2)]
    {
        let certificates = sizes.iter().enumerate().map(|(i, bytes)| certificate(i, *bytes)).collect();
        let record = wire::ProgressRecord { certificates, ..record.clone() };
        node.state.apply(&[Write::put(Table::Progress, number.to_be_bytes(), record.encode_to_vec())]);
        let request = wire::BatchRequest { shard: 0, root: root.clone(), bitmap: Bytes::new() };
        let reply = node.authority.batch(&node.state, &request).unwrap();
        assert_eq!(reply.certificates.len(), shown);
        assert!(reply.certificates.iter().map(Message::encoded_len).sum::<usize>() <= CERTIFICATES_BYTES_MAX);
    }
}
