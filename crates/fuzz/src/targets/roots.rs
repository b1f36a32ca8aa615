//! Roots that senders sign together: what travels, and a worker's round among senders of any kind.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use florin_core::batch::decode_batch;
use florin_core::bls;
use florin_core::committee::Committee;
use florin_core::distilled::round::{Config, Effect, Input, Round};
use florin_core::distilled::{Proposal, check_proposal};
use florin_core::envelope::Order;
use florin_core::merkle::{Hash, Tree};
use florin_core::testing::{Signer, TestCommittee, to};
use florin_core::wire;
use prost::Message;

use crate::cursor::Cursor;

/// Senders, and orders of each.
const SENDERS: usize = 4;
const ORDERS: usize = 3;

struct World {
    committee: Arc<Committee>,
    signers: Vec<Signer>,
    orders: Vec<Vec<Bytes>>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let mut signers: Vec<Signer> = (1..=SENDERS as u64).map(Signer::distilled).collect();
    let orders = signers.iter_mut().map(|signer| {
        let own = signer.address;
        (0..ORDERS).map(|_| signer.pay(&[to(own, 1)], "")).collect()
    });
    let orders = orders.collect();
    World { committee: TestCommittee::default().build().0, signers, orders }
});

/// A proposal says what it is for, and a sender signs it only for a root that its order leads to.
pub fn root_proposal(bytes: &[u8]) {
    let Some((&at, rest)) = bytes.split_first() else { return };
    let committee = &WORLD.committee;
    let ids: Vec<Hash> = WORLD.orders.iter().map(|orders| id_of(&orders[0])).collect();
    if let Ok(said) = wire::RootProposal::decode(rest)
        && let Ok(proposal) = Proposal::from_wire(committee, &said)
    {
        assert_eq!(proposal.to_wire(committee), said);
        // A root that somebody came by without the tree is not to be had.
        if check_proposal(committee, &ids[usize::from(at) % SENDERS], &proposal).is_ok() {
            assert!((1..=SENDERS).any(|n| Tree::new(&ids[..n]).root() == proposal.batch.root), "{proposal:?}");
        }
    }
    // True ones, for the order at their place and no other.
    let count = usize::from(at) % SENDERS + 1;
    let tree = Tree::new(&ids[..count]);
    for index in 0..count {
        let batch = decode_batch(&WORLD.orders[..count].iter().map(|orders| orders[0].clone()).collect::<Vec<_>>());
        let proposal = Proposal { batch: batch.expect("orders").id, index, path: tree.path(index) };
        for (other, id) in ids.iter().enumerate() {
            assert_eq!(check_proposal(committee, id, &proposal).is_ok(), other == index);
        }
    }
}

fn id_of(raw: &Bytes) -> Hash {
    Order::decode(raw.clone()).expect("an order of the pool").id
}

/// A round and what is known of it from outside.
struct Life {
    round: Round,
    config: Config,
    now_ms: u64,
    /// Orders that were taken and are not yet in a batch.
    held: BTreeSet<Hash>,
    /// Proposals whose batch is not finished.
    proposed: Vec<(usize, Proposal)>,
    /// Who has said that it signs which root, and truly.
    said: BTreeSet<(u64, Hash)>,
    /// Whose keys have signed which root, whoever said so: true signatures under each other's names have the same sum.
    made: BTreeSet<(u64, Hash)>,
}

/// A worker's round: what it takes it puts into one batch, once; who has signed the root is marked, and nobody else.
pub fn round(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let config = Config {
        orders_max: cursor.below(SENDERS) + 1,
        collect_ms: cursor.below(32) as u64,
        sign_ms: cursor.below(64) as u64,
        orders_held_max: cursor.below(8) + 1,
    };
    let round = Round::new(WORLD.committee.clone(), config);
    let (held, proposed) = (BTreeSet::new(), Vec::new());
    let (said, made) = (BTreeSet::new(), BTreeSet::new());
    let mut life = Life { round, config, now_ms: 0, held, proposed, said, made };
    while !cursor.is_empty() {
        life.step(&mut cursor);
    }
    while let Some(deadline) = life.round.deadline_ms() {
        assert!(deadline <= life.now_ms + config.collect_ms.max(config.sign_ms), "nothing waits longer than it may");
        life.now_ms = life.now_ms.max(deadline);
        life.handle(Input::Tick);
    }
    assert!(life.held.is_empty(), "{:?} are in no batch", life.held);
}

impl Life {
    fn step(&mut self, cursor: &mut Cursor<'_>) {
        let sender = cursor.below(SENDERS);
        let signer = &WORLD.signers[sender];
        match cursor.below(6) {
            0 | 1 => {
                let order = cursor.pick(&WORLD.orders[sender]).clone();
                let key = cursor.flag().then(|| signer.bls[0].public().bls()).flatten();
                self.submit(order, key);
            }
            2 => self.submit(Bytes::copy_from_slice(cursor.short()), None),
            3 if !self.proposed.is_empty() => {
                let (sender, proposal) = self.proposed[cursor.below(self.proposed.len())].clone();
                let (signer, root) = (&WORLD.signers[sender], proposal.batch.root);
                let signature = signer.sign_root(&WORLD.committee, &proposal.batch);
                self.said.insert((signer.actor(), root));
                self.made.insert((signer.actor(), root));
                self.handle(Input::Share { actor: signer.actor(), root, signature });
            }
            4 if !self.proposed.is_empty() => {
                // In the name of whoever was asked, by another one or over nothing.
                let (sender, proposal) = self.proposed[cursor.below(self.proposed.len())].clone();
                let other = &WORLD.signers[(sender + 1 + cursor.below(SENDERS - 1)) % SENDERS];
                let mut signature = other.sign_root(&WORLD.committee, &proposal.batch);
                let (actor, root) = (WORLD.signers[sender].actor(), proposal.batch.root);
                match cursor.flag() {
                    true => signature[cursor.below(96)] ^= 1,
                    false => drop(self.made.insert((other.actor(), root))),
                }
                self.handle(Input::Share { actor, root, signature });
            }
            _ => {
                self.now_ms += u64::from(cursor.byte());
                self.handle(Input::Tick);
            }
        }
    }

    fn submit(&mut self, order: Bytes, key: Option<bls::Key>) {
        if let Ok(order) = Order::decode(order.clone())
            && !self.held.insert(order.id)
        {
            // Nobody hands in what is held.
            return;
        }
        self.handle(Input::Submit { order, key });
    }

    fn take_out(&mut self, id: &Hash) {
        assert!(self.held.remove(id), "nothing comes out that did not go in");
    }

    fn handle(&mut self, input: Input) {
        for effect in self.round.handle(self.now_ms, input) {
            match effect {
                Effect::Propose { actor, order_id, proposal } => {
                    check_proposal(&WORLD.committee, &order_id, &proposal).expect("a sender may sign it");
                    let sender = WORLD.signers.iter().position(|signer| signer.actor() == actor);
                    self.proposed.push((sender.expect("one of the senders"), proposal));
                }
                Effect::Refused { order, .. } => {
                    if let Ok(order) = Order::decode(order) {
                        self.take_out(&order.id);
                    }
                }
                Effect::Liar { actor } => {
                    // Somebody has said something in its name; what it said itself counts all the same.
                    assert!(WORLD.signers.iter().any(|signer| signer.actor() == actor));
                }
                Effect::Finished(sealed) => {
                    let root = sealed.batch().root;
                    let own = sealed.own_orders();
                    assert!(own.len() <= self.config.orders_max && own.is_sorted_by(|a, b| a.actor < b.actor));
                    own.iter().for_each(|order| self.take_out(&order.id));
                    let marked: BTreeSet<u64> = sealed.signers().iter().map(|i| own[*i].actor).collect();
                    let asked = self.proposed.iter().filter(|(_, proposal)| proposal.batch.root == root);
                    let mut asked = asked.map(|(sender, _)| WORLD.signers[*sender].actor());
                    assert!(marked.iter().all(|actor| self.made.contains(&(*actor, root))), "who is marked has signed");
                    let is_missing = |actor: &u64| self.said.contains(&(*actor, root)) && !marked.contains(actor);
                    assert_eq!(asked.find(is_missing), None, "who has signed is marked");
                    self.proposed.retain(|(_, proposal)| proposal.batch.root != root);
                    self.said.retain(|(_, of)| *of != root);
                    self.made.retain(|(_, of)| *of != root);
                    let sent = decode_batch(&sealed.orders(&sealed.signers())).expect("orders");
                    assert_eq!(&sent.id, sealed.batch(), "marks change no root");
                }
            }
        }
        assert!(self.held.len() <= self.config.orders_held_max, "what it holds is bounded");
    }
}
