//! Random lives of a committee against a plain ledger: whatever is split, lost, late or repeated, all
//! honest authorities end with the balances of the certified orders executed one after another.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::address::Address;
use crate::authority::audit::{audit_authority, audit_shard};
use crate::authority::state::Totals;
use crate::batch::decode_batch;
use crate::bitmap::Bitmap;
use crate::certificate::{Promise, check_certificate, sign};
use crate::content::Content;
use crate::envelope::Order;

const ACCOUNTS: usize = 5;
const SHARDS: u32 = 2;
const FUND: u64 = 100;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    /// An account signs a payment on top of what it signed before.
    Pay { from: usize, to: usize, amount: u64 },
    /// An account signs another order for the seqnum of its last one.
    Conflict { from: usize, to: usize, amount: u64 },
    /// A worker asks the authorities of `mask` for votes on the newest `orders`; the replies of
    /// `lost` do not come back.
    Vote { orders: usize, mask: u8, lost: u8 },
    /// A certificate reaches the authorities of `mask`.
    Settle { certificate: usize, mask: u8 },
    /// One authority's outboxes are emptied.
    Deliver { authority: usize },
}

fn event() -> impl Strategy<Value = Event> {
    let account = || 0..ACCOUNTS;
    prop_oneof![
        4 => (account(), account(), 1..60_u64).prop_map(|(from, to, amount)| Event::Pay { from, to, amount }),
        1 => (account(), account(), 1..60_u64).prop_map(|(from, to, amount)| Event::Conflict { from, to, amount }),
        4 => (1..6_usize, any::<u8>(), any::<u8>()).prop_map(|(orders, mask, lost)| Event::Vote { orders, mask, lost: lost & mask & 5 }),
        4 => (any::<usize>(), any::<u8>()).prop_map(|(certificate, mask)| Event::Settle { certificate, mask }),
        1 => (0..4_usize).prop_map(|authority| Event::Deliver { authority }),
    ]
}

struct World {
    cluster: Cluster,
    /// Signers, as they are and as they were before their last order.
    signers: Vec<(Signer, Signer)>,
    orders: Vec<Bytes>,
    /// Votes by shard and batch.
    votes: HashMap<(u32, Vec<Bytes>), BTreeMap<u32, wire::Signed>>,
    certificates: Vec<(u32, Vec<Bytes>, wire::Certificate)>,
    /// By (actor, seqnum): the order that was certified.
    certified: BTreeMap<(u64, u32), Order>,
    /// Whether the last authority signs whatever it is asked to.
    traitor: bool,
}

impl World {
    fn new(traitor: bool) -> World {
        let mut cluster = Cluster::new(&TestCommittee::new(4, SHARDS));
        let signers: Vec<Signer> =
            (0..ACCOUNTS as u64).map(|i| Signer::on_shard(i as u32 % 2, SHARDS, 1 + 50 * i)).collect();
        signers.iter().for_each(|s| cluster.fund(s.address, FUND));
        World {
            cluster,
            signers: signers.into_iter().map(|s| (s.clone(), s)).collect(),
            orders: Vec::new(),
            votes: HashMap::new(),
            certificates: Vec::new(),
            certified: BTreeMap::new(),
            traitor,
        }
    }

    fn honest(&self) -> usize {
        if self.traitor { 3 } else { 4 }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Pay { from, to: payee, amount } => {
                let payee = self.signers[payee].0.address;
                let (now, before) = &mut self.signers[from];
                *before = now.clone();
                self.orders.push(now.pay(&[to(payee, amount)], ""));
            }
            Event::Conflict { from, to: payee, amount } => {
                let payee = self.signers[payee].0.address;
                let mut twin = self.signers[from].1.clone();
                self.orders.push(twin.pay(&[to(payee, amount)], "instead"));
            }
            Event::Vote { orders, mask, lost } => {
                let newest = self.orders[self.orders.len().saturating_sub(orders)..].to_vec();
                self.ask(&newest, mask, lost);
            }
            Event::Settle { certificate, mask } => {
                if !self.certificates.is_empty() {
                    let at = certificate % self.certificates.len();
                    self.hand_in(at, mask);
                }
            }
            Event::Deliver { authority } => deliver_all(&mut self.cluster.nodes[authority]),
        }
        for node in self.cluster.nodes.iter().flatten() {
            assert_eq!(Totals::load(&node.state).unwrap().sum(), 0);
        }
    }

    /// Asks for votes, keeps the replies that arrive, and makes a certificate once they are enough.
    fn ask(&mut self, orders: &[Bytes], mask: u8, lost: u8) {
        for shard in 0..SHARDS {
            let here = |raw: &&Bytes| Order::decode((*raw).clone()).unwrap().actor % 2 == u64::from(shard);
            let part: Vec<Bytes> = orders.iter().filter(here).cloned().collect();
            if part.is_empty() {
                continue;
            }
            let mut replies = Vec::new();
            for i in (0..self.honest()).filter(|i| mask >> i & 1 == 1) {
                let reply = self.cluster.node(i, shard).vote(&part).unwrap();
                replies.extend(reply.vote.filter(|_| lost >> i & 1 == 0));
            }
            if self.traitor {
                let id = decode_batch(&part).unwrap().id;
                let all = Bitmap::full(part.len());
                replies.push(sign(Promise::Vote, &self.cluster.committee, 3, &self.cluster.keys[3], &id, &all));
            }
            let votes = self.votes.entry((shard, part.clone())).or_default();
            votes.extend(replies.into_iter().map(|v| (v.authority, v)));
            let certificate = self.cluster.certificate(&part, votes.values().cloned().collect());
            let Ok((_, certified)) = check_certificate(&self.cluster.committee, &certificate) else { continue };
            for i in certified.iter() {
                let order = Order::decode(part[i].clone()).unwrap();
                let winner = self.certified.entry((order.actor, order.seqnum)).or_insert_with(|| order.clone());
                assert_eq!(winner.id, order.id, "at most one order of a seqnum is certified");
            }
            self.certificates.push((shard, part, certificate));
        }
    }

    fn hand_in(&mut self, at: usize, mask: u8) {
        let (shard, orders, certificate) = self.certificates[at].clone();
        for i in (0..self.honest()).filter(|i| mask >> i & 1 == 1) {
            self.cluster.node(i, shard).settle(&certificate, &orders).unwrap();
        }
    }

    /// The network heals: everything is asked for again and delivered, until nothing new happens.
    fn heal(&mut self) {
        loop {
            let before = self.certified.len();
            for order in self.orders.clone() {
                self.ask(&[order], 0xf, 0);
            }
            for at in 0..self.certificates.len() {
                self.hand_in(at, 0xf);
            }
            self.cluster.deliver_all();
            if self.certified.len() == before {
                return;
            }
        }
    }

    /// Balances after executing the certified orders in any sequence that their chains allow.
    fn model(&self) -> HashMap<Address, i128> {
        let mut ledger: HashMap<Address, i128> = self.signers.iter().map(|(s, _)| (s.address, FUND as i128)).collect();
        let mut seqnums: HashMap<u64, (u32, u64)> = HashMap::new();
        let sender: HashMap<u64, Address> = self.signers.iter().map(|(s, _)| (s.actor(), s.address)).collect();
        let mut left: BTreeSet<(u64, u32)> = self.certified.keys().copied().collect();
        while !left.is_empty() {
            let next = left.iter().copied().find(|key| {
                let order = &self.certified[key];
                let (seqnum, hash) = seqnums.get(&key.0).copied().unwrap_or_default();
                let total = Content::decode(order).unwrap().total as i128;
                order.seqnum == seqnum + 1 && order.prev_hash == hash && ledger[&sender[&key.0]] >= total
            });
            let key = next.expect("certified orders can be executed one after another without overdraft");
            left.remove(&key);
            let order = &self.certified[&key];
            seqnums.insert(key.0, (order.seqnum, order.next_hash()));
            for credit in Content::decode(order).unwrap().credits() {
                *ledger.entry(sender[&key.0]).or_default() -= credit.amount as i128;
                *ledger.entry(credit.address).or_default() += credit.amount as i128;
            }
        }
        ledger
    }

    fn check(&mut self) {
        let model = self.model();
        for i in 0..self.honest() {
            for (address, balance) in &model {
                assert_eq!(self.cluster.balance(i, address), *balance, "authority {i}, {address:?}");
            }
            let audits: Vec<_> = (0..SHARDS)
                .map(|shard| {
                    let node = self.cluster.node(i, shard);
                    let audit = audit_shard(&node.authority, &node.state, false).unwrap();
                    assert_eq!(audit.findings, Vec::<String>::new());
                    (shard, audit)
                })
                .collect();
            assert_eq!(audit_authority(&audits, None), Vec::<String>::new());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn authorities_agree_with_a_plain_ledger(traitor: bool, events in prop::collection::vec(event(), 1..70)) {
        let mut world = World::new(traitor);
        for event in &events {
            world.happen(event);
        }
        world.heal();
        world.check();
    }
}
