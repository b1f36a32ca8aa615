//! All that the authorities of a committee have ever signed, so that whatever else is accepted is a forgery.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{BatchId, Promise, sign};
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::merkle::Tree;
use florin_core::ordered::session;
use florin_core::receipt::assemble;
use florin_core::testing::{NETWORK_ID, Signer, TestCommittee, to};
use florin_core::wire;

/// A batch, and who has signed what of it.
pub struct Signed {
    /// Its orders.
    pub orders: Vec<Bytes>,
    /// Root and count.
    pub id: BatchId,
    /// Over its ids.
    pub tree: Tree,
    /// Votes by authority.
    pub votes: Vec<wire::Signed>,
    /// Acknowledgements by authority.
    pub acknowledgements: Vec<wire::Signed>,
}

/// A committee of four, of which the last one lies.
pub struct Proofs {
    /// The committee.
    pub committee: Arc<Committee>,
    /// Three orders, voted for and settled by all; the same account's other order for the first seqnum, which the last authority
    /// has voted for alone; and an order that three have voted for and two have settled.
    pub batches: Vec<Signed>,
    /// A session that all have signed, and one that only the last has.
    pub sessions: [wire::SignedSession; 2],
    /// Units of the first one.
    pub units: Vec<wire::OrderedUnit>,
}

/// The committee and what it has signed.
pub static PROOFS: LazyLock<Proofs> = LazyLock::new(Proofs::new);

impl Proofs {
    fn new() -> Proofs {
        let (committee, keys) = TestCommittee::default().build();
        let batch = |orders: Vec<Bytes>, voters: &[u32], settlers: &[u32]| {
            let id = decode_batch(&orders).expect("a batch within the limits").id;
            let decoded = orders.iter().map(|o| Order::decode(o.clone()).expect("an order of its signer"));
            let ids: Vec<_> = decoded.map(|o| o.id).collect();
            let all = Bitmap::full(orders.len());
            let signed = |promise, who: &[u32]| {
                who.iter().map(|i| sign(promise, &committee, *i, &keys[*i as usize], &id, &all)).collect()
            };
            let (votes, acknowledgements) = (signed(Promise::Vote, voters), signed(Promise::Settled, settlers));
            Signed { tree: Tree::new(&ids), id, orders, votes, acknowledgements }
        };
        let alice = Signer::new(1);
        let pay = |to_byte: u8| alice.clone().pay(&[to(Address::new([to_byte; 32]), 5)], "");
        let mut chain = alice.clone();
        let orders = (1..=3).map(|i| chain.pay(&[to(Address::new([i; 32]), 1)], "")).collect();
        let bob = Signer::new(2).pay(&[to(Address::new([9; 32]), 7)], "bob");
        let batches = vec![
            batch(orders, &[0, 1, 2, 3], &[0, 1, 2, 3]),
            batch(vec![pay(7)], &[3], &[3]),
            batch(vec![bob], &[1, 2, 3], &[2, 3]),
        ];
        let units: Vec<wire::OrderedUnit> =
            (0..3).map(|i| wire::OrderedUnit { creator: i, data: Bytes::from(vec![0x0a, 1, i as u8]) }).collect();
        let leaves: Vec<_> = units.iter().map(session::unit_hash).collect();
        let header = |number| wire::SessionHeader {
            epoch: committee.epoch,
            session: number,
            units_root: Bytes::copy_from_slice(&florin_core::merkle::root(&leaves)),
            units: units.len() as u32,
            time_ms: 1_000,
            state_hash: Bytes::from(vec![4; 32]),
            ..Default::default()
        };
        let sessions = [(0, 0..4), (1, 3..4)].map(|(number, who)| {
            let header = header(number);
            let signatures = who.map(|i| session::sign(&committee, i, &keys[i as usize], &header)).collect();
            wire::SignedSession { header: Some(header), signatures }
        });
        Proofs { committee, batches, sessions, units }
    }

    /// A certificate with these votes of a batch.
    pub fn certificate(&self, batch: usize, votes: Vec<wire::Signed>) -> wire::Certificate {
        let BatchId { root, count } = self.batches[batch].id;
        let root = Bytes::copy_from_slice(&root);
        wire::Certificate { epoch: self.committee.epoch, root, count: count as u32, votes }
    }

    /// A receipt for an order, with all that was signed of its batch.
    pub fn receipt(&self, batch: usize, index: usize) -> wire::Receipt {
        let of = &self.batches[batch];
        let place = (index, of.id.count);
        let (votes, acknowledgements) = (of.votes.clone(), of.acknowledgements.clone());
        assemble(&self.committee, of.orders[index].clone(), &of.tree, place, votes, acknowledgements)
    }
}

/// The network of all worlds.
pub const NETWORK: u64 = NETWORK_ID;
