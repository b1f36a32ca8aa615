//! Random schedules of votes, certificates, recoveries and deliveries, with one authority of four that lies: what could be final
//! is never taken back, no note is spent twice, and the money adds up.

use std::collections::BTreeSet;

use proptest::prelude::*;
use prost::Message;

use super::bearer::{spend, with_notes};
use super::*;
use crate::authority::state::{State, order_id_key};
use crate::batch::decode_batch;
use crate::bitmap::Bitmap;
use crate::cash::testing::Note;
use crate::certificate::{Promise, sign};
use crate::content::credit_output;

const NOTES: usize = 3;
const HONEST: usize = 3;
const LIAR: usize = 3;

#[derive(Clone, Debug)]
enum Event {
    /// The owner signs an order of some notes, naming their recoveries as the log has them.
    Sign {
        notes: usize,
        to_bob: bool,
    },
    /// Some authorities are asked for their votes.
    Vote {
        order: usize,
        who: usize,
    },
    /// One authority gets the certificate, if there are enough votes.
    Settle {
        order: usize,
        authority: usize,
    },
    /// A RECOVER_NOTES gets the votes that it gets, and one authority its certificate.
    Recover {
        notes: usize,
        authority: usize,
    },
    /// The log takes something that an authority hands in, whatever else it should have taken before.
    HandIn {
        authority: usize,
        item: usize,
    },
    /// An authority hears what the log has decided.
    Hear {
        authority: usize,
    },
    /// The liar has frozen nothing, and says that it holds nothing.
    Lie {
        note: usize,
    },
    Time {
        ms: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let notes = || 1..1_usize << NOTES;
    let order = any::<usize>;
    let honest = || 0..HONEST;
    prop_oneof![
        2 => (notes(), any::<bool>()).prop_map(|(notes, to_bob)| Sign { notes, to_bob }),
        5 => (order(), 1..8_usize).prop_map(|(order, who)| Vote { order, who }),
        4 => (order(), honest()).prop_map(|(order, authority)| Settle { order, authority }),
        2 => (notes(), honest()).prop_map(|(notes, authority)| Recover { notes, authority }),
        6 => (honest(), any::<usize>()).prop_map(|(authority, item)| HandIn { authority, item }),
        4 => honest().prop_map(|authority| Hear { authority }),
        2 => (0..NOTES).prop_map(|note| Lie { note }),
        2 => (0..2 * RECOVERY_WAIT_MS).prop_map(|ms| Time { ms }),
    ]
}

struct Signed {
    raw: Bytes,
    votes: Vec<wire::Signed>,
    notes: usize,
    to_bob: bool,
    /// Authorities that have ever acknowledged it.
    settled: BTreeSet<usize>,
}

struct World {
    cluster: Cluster,
    alice: Signer,
    bob: Signer,
    notes: Vec<Note>,
    orders: Vec<Signed>,
    now: u64,
}

impl World {
    fn new() -> World {
        let (cluster, alice, bob, _, notes) = with_notes(2, &[2, 3, 4]);
        World { cluster, alice, bob, notes, orders: Vec::new(), now: 1_000 }
    }

    /// Some of the notes, as the log knows them.
    fn some(&self, which: usize) -> Vec<Note> {
        let picked = self.notes.iter().enumerate().filter(|(i, _)| which >> i & 1 == 1);
        picked.map(|(i, note)| Note { recoveries: self.recoveries(i), ..note.clone() }).collect()
    }

    fn recoveries(&self, note: usize) -> u32 {
        let key = super::super::bearers::note_key(&self.notes[note].secrets.nonce().0);
        let record = self.cluster.logs[0].state.get(Table::Objects, &key).unwrap();
        record.map_or(0, |r| wire::NoteRecoveryRecord::decode(r).unwrap().recoveries)
    }

    /// A vote of the liar, who votes for anything.
    fn lie(&self, order: &Bytes) -> wire::Signed {
        let batch = decode_batch(std::slice::from_ref(order)).unwrap().id;
        let mut bits = Bitmap::empty(1);
        bits.set(0);
        sign(Promise::Vote, &self.cluster.committee, LIAR as u32, &self.cluster.keys[LIAR], &batch, &bits)
    }

    fn settle(&mut self, at: usize, authority: usize) {
        let order = &self.orders[at];
        if order.votes.len() < 3 {
            return;
        }
        let raw = std::slice::from_ref(&order.raw).to_vec();
        let certificate = self.cluster.certificate(&raw, order.votes.clone());
        self.cluster.node(authority, 0).settle(&certificate, &raw).unwrap();
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Sign { notes, to_bob } => {
                let spent = self.some(notes);
                let payee = if to_bob { self.bob.address } else { self.alice.address };
                let amount = spent.iter().map(|n| 1 << n.tier).sum();
                let raw = spend(&spent, vec![credit_output(&to(payee, amount))], None);
                if self.orders.iter().any(|order| order.raw == raw) {
                    return;
                }
                let votes = vec![self.lie(&raw)];
                self.orders.push(Signed { raw, votes, notes, to_bob, settled: BTreeSet::new() });
            }
            Event::Vote { order, who } if !self.orders.is_empty() => {
                let at = order % self.orders.len();
                let order = &mut self.orders[at];
                for authority in (0..HONEST).filter(|i| who >> i & 1 == 1) {
                    let reply = self.cluster.node(authority, 0).vote(std::slice::from_ref(&order.raw)).unwrap();
                    let known = |v: &wire::Signed| order.votes.iter().any(|o| o.authority == v.authority);
                    let fresh: Vec<_> = reply.vote.into_iter().filter(|v| !known(v)).collect();
                    order.votes.extend(fresh);
                }
            }
            Event::Settle { order, authority } if !self.orders.is_empty() => {
                self.settle(order % self.orders.len(), authority);
            }
            Event::Vote { .. } | Event::Settle { .. } => {}
            Event::Recover { notes, authority } => {
                let raw = [spend(&self.some(notes), vec![], None)];
                let mut votes = vec![self.lie(&raw[0])];
                votes.extend((0..HONEST).filter_map(|i| self.cluster.node(i, 0).vote(&raw).unwrap().vote));
                if votes.len() >= 3 {
                    let certificate = self.cluster.certificate(&raw, votes);
                    self.cluster.node(authority, 0).settle(&certificate, &raw).unwrap();
                }
            }
            Event::HandIn { authority, item } => {
                let mut items = self.cluster.log_items(authority);
                if !items.is_empty() {
                    let item = items.swap_remove(item % items.len());
                    self.cluster.order_items(authority as u32, 0, vec![item]);
                }
            }
            Event::Hear { authority } => self.hear(authority),
            Event::Lie { note } => {
                let nonce = Bytes::copy_from_slice(&self.notes[note].secrets.nonce().0);
                let report = wire::NoteReport { nonce, recoveries: self.recoveries(note), ..Default::default() };
                let item = wire::Item { kind: Some(wire::item::Kind::NoteReport(report)) };
                self.cluster.order_items(LIAR as u32, 0, vec![item.encode_to_vec().into()]);
            }
            Event::Time { ms } => {
                self.now += ms;
                self.cluster.set_time(self.now);
            }
        }
    }

    fn hear(&mut self, i: usize) {
        deliver_log(&mut self.cluster.logs[i], &mut self.cluster.nodes[i]);
        acknowledge_calls(&self.cluster.logs[i], &mut self.cluster.nodes[i]);
        deliver_all(&mut self.cluster.nodes[i]);
    }

    fn has_settled(&self, at: usize, authority: usize) -> bool {
        let key = order_id_key(NETWORK_ID, 0, &id_of(&self.orders[at].raw));
        self.cluster.nodes[authority][0].state.get(Table::Orders, &key).unwrap().is_some()
    }

    /// With the liar's word f + 1 honest acknowledgements make an order final.
    fn check_final(&mut self) {
        for at in 0..self.orders.len() {
            let now: Vec<usize> = (0..HONEST).filter(|i| self.has_settled(at, *i)).collect();
            self.orders[at].settled.extend(&now);
            if self.orders[at].settled.len() >= 2 {
                assert_eq!(self.orders[at].settled, now.into_iter().collect(), "order {at} was final");
            }
        }
    }

    fn end(&mut self) {
        for _ in 0..3 {
            for _ in 0..3 {
                for i in 0..4 {
                    (0..self.orders.len()).for_each(|at| self.settle(at, i));
                    let items = self.cluster.log_items(i);
                    self.cluster.order_items(i as u32, 0, items);
                }
                (0..4).for_each(|i| self.hear(i));
                self.check_final();
            }
            self.now += RECOVERY_WAIT_MS;
            self.cluster.set_time(self.now);
        }
        self.cluster.order_all();
        self.check_final();
        assert_eq!(self.cluster.logs[0].log.book(&self.cluster.logs[0].state).unwrap().open_recoveries, 0);
        let (mut to_alice, mut to_bob, mut spent) = (0, 0, 0);
        for (at, order) in self.orders.iter().enumerate() {
            let settled: Vec<bool> = (0..4).map(|i| self.has_settled(at, i)).collect();
            assert!(settled.iter().all(|s| *s == settled[0]), "order {at}: {settled:?}");
            assert!(settled[0] || order.settled.len() < 2, "order {at} was final");
            if settled[0] {
                assert_eq!(spent & order.notes, 0, "order {at} spends a note again");
                spent |= order.notes;
                *if order.to_bob { &mut to_bob } else { &mut to_alice } += (order.notes << 2) as i128;
            }
        }
        check(&self.cluster, &[(&self.alice, 972 + to_alice), (&self.bob, 1_000 + to_bob)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_could_be_final_is_never_freed(
        first in (1..1_usize << NOTES, 1..1_usize << NOTES, 0..HONEST),
        events in prop::collection::vec(event(), 1..90),
    ) {
        let mut world = World::new();
        // A recovery is certified before anything has settled.
        let (notes, recovered, authority) = first;
        world.happen(&Event::Sign { notes, to_bob: true });
        world.happen(&Event::Vote { order: 0, who: 7 });
        world.happen(&Event::Recover { notes: recovered, authority });
        for (i, event) in events.iter().enumerate() {
            world.happen(event);
            world.check_final();
            if i % 8 == 7 {
                (0..HONEST).for_each(|i| clean(&world.cluster, i));
            }
        }
        world.end();
    }
}
