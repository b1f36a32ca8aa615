//! The model is one of the code: random walks through it, carried out by the state machines of a committee as well.
//! Whatever the model says an authority votes for, settles or refuses, the real one does; and they end up equal.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{Promise, sign};
use florin_core::envelope::{Order, next_hash};
use florin_core::limits::RECOVERY_WAIT_MS;
use florin_core::ordered::input::Input;
use florin_core::testing::{Cluster, Signer, TestCommittee, log_calls, to};
use florin_core::wire;
use florin_model::{Action, Authority, Broadcast, Link, ORDERS, Recovery, State};
use stateright::Model as _;

/// The one that lies; and brings to the log what others have made.
const LIAR: usize = 3;
const PAID: u64 = 10;

/// Chance from a seed: splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

struct Code {
    cluster: Cluster,
    owner: Signer,
    orders: Vec<Option<Bytes>>,
    votes: Vec<Vec<wire::Signed>>,
    recover: Vec<wire::Signed>,
    void: u64,
}

impl Code {
    fn new() -> Code {
        let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
        let owner = Signer::new(1);
        cluster.fund(owner.address, 1_000);
        cluster.set_time(1);
        let (orders, votes) = (vec![None; ORDERS.len()], vec![Vec::new(); ORDERS.len()]);
        Code { cluster, owner, orders, votes, recover: Vec::new(), void: 0 }
    }

    /// The signer as it stands after a link of the chain.
    fn after(&mut self, link: Link) -> Signer {
        let mut signer = self.owner.clone();
        match link {
            Link::Start => {}
            Link::Order(order) => {
                let order = Order::decode(self.order(order)).unwrap();
                (signer.seqnum, signer.prev_hash) = (order.seqnum, next_hash(&order.id));
            }
            Link::Void(at) => (signer.seqnum, signer.prev_hash) = (u32::from(at), self.void),
        }
        signer
    }

    fn order(&mut self, order: u8) -> Bytes {
        if let Some(signed) = &self.orders[order as usize] {
            return signed.clone();
        }
        let mut signer = self.after(ORDERS[order as usize].prev);
        let signed = signer.pay(&[to(Signer::new(100 + u64::from(order)).address, PAID)], "");
        self.orders[order as usize] = Some(signed.clone());
        signed
    }

    /// The votes of these honest ones and the liar's.
    fn certificate(&self, order: &Bytes, votes: &[wire::Signed]) -> wire::Certificate {
        let batch = decode_batch(std::slice::from_ref(order)).unwrap().id;
        let (committee, key) = (&self.cluster.committee, &self.cluster.keys[LIAR]);
        let liar = sign(Promise::Vote, committee, LIAR as u32, key, &batch, &Bitmap::full(1));
        let votes = votes.iter().take(2).cloned().chain([liar]).collect();
        self.cluster.certificate(std::slice::from_ref(order), votes)
    }

    /// Whether an authority gives its vote. The first one that it gives is kept.
    fn vote(&mut self, i: usize, order: u8) -> bool {
        let signed = self.order(order);
        let vote = self.cluster.node(i, 0).vote(&[signed]).unwrap().vote;
        let given = vote.is_some();
        let kept = &mut self.votes[order as usize];
        kept.extend(vote.filter(|vote| kept.iter().all(|k| k.authority != vote.authority)));
        given
    }

    fn settle(&mut self, i: usize, order: u8) {
        let signed = self.order(order);
        let certificate = self.certificate(&signed, &self.votes[order as usize]);
        let reply = self.cluster.node(i, 0).settle(&certificate, &[signed]).unwrap();
        assert!(reply.acknowledgement.is_some() && reply.waiting.is_empty(), "{i} does not settle {order}: {reply:?}");
    }

    /// The vote of an authority that has settled this link and nothing after it, for a RECOVER: it is kept.
    fn ask_recover(&mut self, i: usize, after: Link) {
        if self.recover.iter().all(|vote| vote.authority != i as u32) {
            let order = self.after(after).recover();
            self.recover.extend(self.cluster.node(i, 0).vote(&[order]).unwrap().vote);
        }
    }

    /// Hands what the liar's shard has for the log to it.
    fn hand_in(&mut self) {
        let items = self.cluster.log_items(LIAR);
        self.cluster.order_items(LIAR as u32, 0, items);
        let log = &self.cluster.logs[LIAR];
        florin_core::testing::acknowledge_calls(log, &mut self.cluster.nodes[LIAR]);
    }

    fn read_log(&mut self, i: usize) {
        let (log, node) = (&mut self.cluster.logs[i], &mut self.cluster.nodes[i][0]);
        let (first, last) = log.log.outbox_range(&log.state, 0).unwrap();
        assert!(first <= last, "the log has nothing for {i}");
        let delivery = log.log.outbox(&log.state, 0, first).unwrap();
        let florin_core::authority::effect::Reply::Deliver(reply) =
            node.step(florin_core::authority::input::Input::Deliver(delivery)).unwrap().reply
        else {
            panic!("a delivery is acknowledged")
        };
        log.step(Input::Delivered { to_shard: 0, applied: reply.applied }).unwrap();
    }

    fn run(&mut self, action: Action) {
        match action {
            Action::Vote(i, order) => assert!(self.vote(i, order), "{i} does not vote for {order}"),
            Action::Settle(i, order) => self.settle(i, order),
            Action::Recover(at) => {
                let after = if at == 1 { Link::Start } else { Link::Order(0) };
                let order = self.after(after).recover();
                let certificate = self.certificate(&order, &self.recover);
                self.cluster.node(LIAR, 0).settle(&certificate, std::slice::from_ref(&order)).unwrap();
                if let Link::Order(order) = after {
                    // It reports only if it has settled what is before.
                    self.settle(LIAR, order);
                }
                self.hand_in();
                self.read_log(LIAR);
                self.hand_in();
            }
            Action::Log(i) => {
                self.read_log(i);
                let account = self.cluster.nodes[i][0].account(self.owner.actor());
                if account.voided != 0 {
                    self.void = account.prev_hash;
                }
            }
            Action::Report(i) => {
                let items = self.cluster.log_items(i);
                assert_eq!(items.len(), 1, "a report and nothing else");
                self.cluster.order_items(i as u32, 0, items);
            }
            Action::Show(order) => {
                let signed = self.order(order);
                let certificate = self.certificate(&signed, &self.votes[order as usize]);
                self.cluster.node(LIAR, 0).settle(&certificate, &[signed]).unwrap();
                assert!(!log_calls(&self.cluster.nodes[LIAR][0]).is_empty(), "a frozen shard shows what it gets");
                self.hand_in();
            }
            Action::Decide => self.cluster.set_time(RECOVERY_WAIT_MS + 1),
            Action::Crash(_) => {}
        }
    }

    /// What an authority has of the account, in the model's words.
    fn compare(&mut self, i: usize, model: &Broadcast, authority: &Authority, state: &State) {
        let account = self.cluster.nodes[i][0].account(self.owner.actor());
        let tip = self.after(authority.tip);
        assert_eq!((account.seqnum, account.prev_hash), (tip.seqnum, tip.prev_hash), "{i}: {authority:?}");
        let pending: Vec<u8> = authority.pending.iter().flatten().copied().collect();
        let expected: Vec<Bytes> = pending
            .iter()
            .map(|order| Bytes::copy_from_slice(&Order::decode(self.order(*order)).unwrap().id))
            .collect();
        let found: Vec<Bytes> = account.pending.iter().map(|p| p.order_id.clone()).collect();
        assert_eq!(found, expected, "{i} has pending: {authority:?}");
        let paid = u32::from(account.voided != 0);
        assert_eq!(self.cluster.balance(i, &self.owner.address), 1_000 - 10 * i128::from(account.seqnum - paid));
        for order in 0..ORDERS.len() as u8 {
            let info = ORDERS[order as usize];
            let known = !matches!(info.prev, Link::Void(_)) || self.void != 0;
            let settled = u32::from(info.seqnum) <= account.seqnum;
            if !known || settled || model.votes(authority, state.recovery, order) {
                continue;
            }
            // Frozen, an authority gives no vote again either.
            let again = pending.contains(&order) && !account.is_frozen(info.seqnum.into());
            assert_eq!(self.vote(i, order), again, "{i} votes for {} in {authority:?}", info.name);
        }
    }
}

fn walk(seed: u64, model: &Broadcast) -> State {
    let mut chance = Chance(seed);
    let mut code = Code::new();
    let mut state = model.init_states().remove(0);
    let recovers_after = if model.recovers == Some(1) { Link::Start } else { Link::Order(0) };
    loop {
        let at = state.honest.iter().enumerate().filter(|(_, a)| a.tip == recovers_after && a.log == 0);
        at.for_each(|(i, _)| code.ask_recover(i, recovers_after));
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        if actions.is_empty() {
            return state;
        }
        let action = actions[chance.below(actions.len())];
        code.run(action);
        state = model.step(&state, action).unwrap();
        for (i, authority) in state.honest.iter().enumerate() {
            code.compare(i, model, authority, &state);
        }
    }
}

#[test]
fn what_the_model_does_the_code_does() {
    let first = Broadcast::new(1, &["A", "B", "C", "A1", "A2", "B1", "A11", "V1", "V2"], Some(1));
    let second = Broadcast::new(1, &["A", "A1", "A2", "A11", "W1"], Some(2));
    let ends: Vec<State> = (0..60).flat_map(|seed| [walk(seed, &first), walk(seed, &second)]).collect();
    let count = |what: fn(&State) -> bool| ends.iter().filter(|state| what(state)).count();
    let voids = count(|state| matches!(state.recovery, Recovery::Void(_)));
    let settles = count(|state| matches!(state.recovery, Recovery::Settles(_)));
    assert!(voids > 5 && settles > 5, "{voids} voids, {settles} settled by the log");
}
