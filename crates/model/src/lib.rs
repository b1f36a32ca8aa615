//! A model of one account at one committee: votes, certificates, settling, the window of pending orders, and recovery
//! through the log. Small enough that a checker looks at every state; `tests/code.rs` holds it to the real code.
//!
//! n = 3f + 1 authorities, f of them lie: they vote for everything, acknowledge everything and report that they hold
//! nothing, at once. They are not in the state: whatever needs 2f + 1 needs f + 1 honest ones. The account's owner, and
//! whoever carries certificates, is the adversary: it signs every order there is, shows them to whom it likes when
//! it likes, and keeps certificates back. The log is one order of decisions that every authority carries out when it
//! gets there.
//!
//! Where the model differs from the code it allows more: a log that could decide may wait; an authority that got a
//! certificate too early has forgotten it, and reports. Not in it: a second recovery, and the window's limit, as there are
//! fewer orders than it holds.

use std::fmt;

use stateright::{Model, Property};

/// What an account's chain can end with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Link {
    /// Nothing has settled.
    Start,
    /// An order, by its place in [`ORDERS`].
    Order(u8),
    /// A recovery has voided this seqnum.
    Void(u8),
}

use Link::{Order as O, Start, Void};

/// An order: what it follows. Two that follow the same one conflict.
#[derive(Clone, Copy, Debug)]
pub struct OrderInfo {
    /// For people.
    pub name: &'static str,
    /// Its number in the chain, from 1.
    pub seqnum: u8,
    /// What it names as its predecessor.
    pub prev: Link,
}

const fn order(name: &'static str, seqnum: u8, prev: Link) -> OrderInfo {
    OrderInfo { name, seqnum, prev }
}

/// All that the owner signs: conflicts at the first seqnum and the second, and what may follow a void.
pub const ORDERS: [OrderInfo; 10] = [
    order("A", 1, Start),
    order("B", 1, Start),
    order("A1", 2, O(0)),
    order("A2", 2, O(0)),
    order("B1", 2, O(1)),
    order("A11", 3, O(2)),
    order("V1", 2, Void(1)),
    order("V2", 2, Void(1)),
    order("W1", 3, Void(2)),
    order("C", 1, Start),
];

/// An error in the protocol, for tests of the properties.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    /// None.
    #[default]
    None,
    /// 2f votes make a certificate.
    SmallQuorum,
    /// A crash forgets votes.
    ForgottenVotes,
    /// A report counts although its authority holds a certificate.
    BlindReports,
    /// f + 1 reports are enough.
    FewReports,
    /// A frozen account goes on settling.
    NoFreeze,
    /// What follows a void names what the voided order named.
    StaleVoid,
}

/// One honest authority, as far as the account goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Authority {
    /// The last that has settled.
    pub tip: Link,
    /// Voted for and not settled, in their order.
    pub pending: [Option<u8>; 3],
    /// Orders that a vote is out for.
    pub voted: u16,
    /// Orders that an acknowledgement is out for.
    pub acknowledged: u16,
    /// Decisions of the log that it has carried out: freeze, then resolve.
    pub log: u8,
    /// Its report is in the log.
    pub reported: bool,
    /// It has crashed.
    pub crashed: bool,
}

/// What the log has decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Recovery {
    /// Nothing.
    None,
    /// This seqnum is being recovered.
    Open(u8),
    /// This order settles at its seqnum.
    Settles(u8),
    /// This seqnum is void.
    Void(u8),
}

/// All that there is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The honest ones; which is which makes no difference.
    pub honest: Vec<Authority>,
    /// The log's.
    pub recovery: Recovery,
}

/// What may happen; numbers are of honest authorities and of orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// An authority is shown an order and votes.
    Vote(usize, u8),
    /// An authority is shown a certificate and settles.
    Settle(usize, u8),
    /// An authority crashes and starts again.
    Crash(usize),
    /// A certified RECOVER of this seqnum is in the log.
    Recover(u8),
    /// An authority carries out the next decision of the log.
    Log(usize),
    /// The report of an authority is in the log.
    Report(usize),
    /// Somebody's certificate is in the log while the recovery is open.
    Show(u8),
    /// Ten minutes are over, a quorum has reported, and no certificate was shown.
    Decide,
}

/// A committee with its fault.
#[derive(Clone, Copy, Debug)]
pub struct Broadcast {
    /// Authorities that lie, at least 1.
    pub faults: usize,
    /// What the owner signs, as a mask over [`ORDERS`].
    pub orders: u16,
    /// Which seqnum may be recovered, if any.
    pub recovers: Option<u8>,
    /// What is wrong with the protocol.
    pub fault: Fault,
}

/// Orders as a mask.
const fn bit(order: u8) -> u16 {
    1 << order
}

fn seqnum(link: Link) -> u8 {
    match link {
        Start => 0,
        O(order) => ORDERS[order as usize].seqnum,
        Void(seqnum) => seqnum,
    }
}

impl Authority {
    const NEW: Authority = Authority {
        tip: Start,
        pending: [None; 3],
        voted: 0,
        acknowledged: 0,
        log: 0,
        reported: false,
        crashed: false,
    };

    fn frozen(&self, recovery: Recovery) -> Option<u8> {
        match recovery {
            _ if self.log != 1 => None,
            Recovery::None => None,
            Recovery::Open(at) | Recovery::Void(at) => Some(at),
            Recovery::Settles(order) => Some(ORDERS[order as usize].seqnum),
        }
    }

    /// What the next vote's order has to follow.
    fn last(&self) -> Link {
        self.pending.iter().flatten().last().map_or(self.tip, |order| O(*order))
    }

    fn settle(&mut self, order: u8) {
        self.tip = O(order);
        self.acknowledged |= bit(order);
        if self.pending[0] == Some(order) {
            self.pending.rotate_left(1);
            self.pending[2] = None;
        } else {
            self.pending = [None; 3];
        }
    }
}

impl Broadcast {
    /// The protocol with f liars among 3f + 1. The owner signs the orders with these names.
    pub fn new(faults: usize, names: &[&str], recovers: Option<u8>) -> Broadcast {
        let orders = (0..ORDERS.len() as u8).filter(|order| names.contains(&ORDERS[*order as usize].name));
        Broadcast { faults, orders: orders.map(bit).sum(), recovers, fault: Fault::None }
    }

    /// Honest ones that a quorum needs.
    fn quorum(&self) -> usize {
        if self.fault == Fault::SmallQuorum { self.faults } else { self.faults + 1 }
    }

    fn orders(&self) -> impl Iterator<Item = u8> {
        let all = self.orders;
        (0..ORDERS.len() as u8).filter(move |order| all & bit(*order) != 0)
    }

    /// Whether a certificate can be made.
    pub fn certified(&self, state: &State, order: u8) -> bool {
        state.honest.iter().filter(|a| a.voted & bit(order) != 0).count() >= self.quorum()
    }

    /// Whether a quorum has acknowledged it: what its payer and its payee believe.
    pub fn is_final(&self, state: &State, order: u8) -> bool {
        state.honest.iter().filter(|a| a.acknowledged & bit(order) != 0).count() > self.faults
    }

    /// Whether an authority would vote.
    pub fn votes(&self, authority: &Authority, recovery: Recovery, order: u8) -> bool {
        let info = ORDERS[order as usize];
        authority.frozen(recovery).is_none_or(|at| info.seqnum < at)
            && authority.last() == self.prev(info)
            && authority.pending[2].is_none()
    }

    /// Whether an authority would settle what is certified.
    fn settles(&self, authority: &Authority, recovery: Recovery, order: u8) -> bool {
        let info = ORDERS[order as usize];
        let frozen = authority.frozen(recovery).filter(|_| self.fault != Fault::NoFreeze);
        frozen.is_none_or(|at| info.seqnum < at) && authority.tip == self.prev(info)
    }

    /// Whether it has frozen the account, has settled all before and holds no certificate.
    fn reports(&self, authority: &Authority, recovery: Recovery) -> bool {
        let Recovery::Open(at) = recovery else { return false };
        let settled = seqnum(authority.tip) + 1;
        let knows = if self.fault == Fault::BlindReports { settled >= at } else { settled == at };
        authority.log == 1 && knows && !authority.reported
    }

    fn prev(&self, info: OrderInfo) -> Link {
        match info.prev {
            Void(1) if self.fault == Fault::StaleVoid => Start,
            prev => prev,
        }
    }

    /// The chain of an authority, from its end.
    fn chain(&self, tip: Link) -> impl Iterator<Item = Link> {
        std::iter::successors(Some(tip), |link| match link {
            O(order) => Some(ORDERS[*order as usize].prev),
            Start | Void(_) => None,
        })
    }

    /// What has settled at this seqnum, as an authority sees it: `None` if nothing has, or it is behind a void.
    fn at(&self, tip: Link, at: u8) -> Option<Link> {
        self.chain(tip).find(|link| seqnum(*link) == at && *link != Start)
    }

    fn apply(&self, state: &mut State, i: usize) {
        let recovery = state.recovery;
        let authority = &mut state.honest[i];
        authority.log += 1;
        match (authority.log, recovery) {
            (2, Recovery::Settles(_)) => self.settle_shown(authority, recovery),
            (2, Recovery::Void(at)) => {
                authority.tip = match at {
                    1 if self.fault == Fault::StaleVoid => Start,
                    at => Void(at),
                };
                authority.pending = [None; 3];
            }
            _ => {}
        }
    }

    /// The order that the log has decided on settles as soon as it can.
    fn settle_shown(&self, authority: &mut Authority, recovery: Recovery) {
        if let (2, Recovery::Settles(order)) = (authority.log, recovery)
            && authority.tip == self.prev(ORDERS[order as usize])
        {
            authority.settle(order);
        }
    }

    /// Whether it has settled all before a seqnum that is void.
    fn may_void(&self, authority: &Authority, recovery: Recovery) -> bool {
        match recovery {
            Recovery::Void(at) => authority.log == 0 || seqnum(authority.tip) + 1 >= at,
            _ => true,
        }
    }

    /// What an action leads to, every authority in its place; `None` if it makes no sense.
    pub fn step(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Vote(i, order) => {
                let authority = &mut state.honest[i];
                let free = authority.pending.iter_mut().find(|pending| pending.is_none())?;
                *free = Some(order);
                authority.voted |= bit(order);
            }
            Action::Settle(i, order) => {
                state.honest[i].settle(order);
                self.settle_shown(&mut state.honest[i], last.recovery);
            }
            Action::Crash(i) => (state.honest[i].pending, state.honest[i].crashed) = ([None; 3], true),
            Action::Recover(at) => state.recovery = Recovery::Open(at),
            Action::Log(i) => self.apply(&mut state, i),
            Action::Report(i) => state.honest[i].reported = true,
            Action::Show(order) => state.recovery = Recovery::Settles(order),
            Action::Decide => {
                let Recovery::Open(at) = last.recovery else { return None };
                state.recovery = Recovery::Void(at);
            }
        }
        Some(state)
    }

    fn forgets(&self) -> bool {
        self.fault == Fault::ForgottenVotes
    }
}

impl Model for Broadcast {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { honest: vec![Authority::NEW; 2 * self.faults + 1], recovery: Recovery::None }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let decisions = match state.recovery {
            Recovery::None => 0,
            Recovery::Open(_) => 1,
            Recovery::Settles(_) | Recovery::Void(_) => 2,
        };
        for (i, authority) in state.honest.iter().enumerate() {
            // What its equal can do, it need not do as well.
            if i > 0 && state.honest[i - 1] == *authority {
                continue;
            }
            for order in self.orders() {
                if self.votes(authority, state.recovery, order) {
                    actions.push(Action::Vote(i, order));
                }
                if self.settles(authority, state.recovery, order) && self.certified(state, order) {
                    actions.push(Action::Settle(i, order));
                }
            }
            if self.forgets() && !authority.crashed && authority.pending[0].is_some() {
                actions.push(Action::Crash(i));
            }
            if authority.log < decisions && self.may_void(authority, state.recovery) {
                actions.push(Action::Log(i));
            }
            if self.reports(authority, state.recovery) {
                actions.push(Action::Report(i));
            }
        }
        match state.recovery {
            // A quorum voted for it when this seqnum was their next: kept since then, perhaps.
            Recovery::None if self.recovers == Some(1) => actions.push(Action::Recover(1)),
            Recovery::None if self.recovers == Some(2) => {
                let mut firsts = self.orders().filter(|order| ORDERS[*order as usize].seqnum == 1);
                if firsts.any(|order| self.is_final(state, order)) {
                    actions.push(Action::Recover(2));
                }
            }
            Recovery::Open(at) => {
                let of = |order: &u8| ORDERS[*order as usize].seqnum == at;
                let shown = self.orders().filter(of).filter(|order| self.certified(state, *order));
                actions.extend(shown.map(Action::Show));
                let needed = if self.fault == Fault::FewReports { 1 } else { self.faults + 1 };
                if state.honest.iter().filter(|a| a.reported).count() >= needed {
                    actions.push(Action::Decide);
                }
            }
            Recovery::None | Recovery::Settles(_) | Recovery::Void(_) => {}
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = self.step(last, action)?;
        state.honest.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one certificate", one_certificate),
            Property::always("one final order a seqnum", one_final),
            Property::always("what is final stays", final_stays),
            Property::always("nothing is stuck in the end", nothing_is_stuck),
            Property::sometimes("a chain of three is final", |model: &Self, state: &State| {
                model.orders().any(|order| ORDERS[order as usize].prev == O(2) && model.is_final(state, order))
            }),
            Property::sometimes("no certificate can be made", |model: &Self, state: &State| {
                let firsts = || model.orders().filter(|order| ORDERS[*order as usize].prev == Start);
                let has = |a: &Authority, order: u8| a.voted & bit(order) != 0;
                let may = |a: &&Authority, order: u8| has(a, order) || !firsts().any(|other| has(a, other));
                firsts().all(|order| state.honest.iter().filter(|a| may(a, order)).count() < model.quorum())
            }),
            Property::sometimes("a shown certificate settles", |_: &Self, state: &State| {
                let Recovery::Settles(order) = state.recovery else { return false };
                state.honest.iter().any(|a| a.log == 2 && a.tip == O(order))
            }),
            Property::sometimes("it goes on after a void", |model: &Self, state: &State| {
                let mut after = model.orders().filter(|order| matches!(ORDERS[*order as usize].prev, Void(_)));
                after.any(|order| model.is_final(state, order))
            }),
            Property::sometimes("one takes back what it alone had settled", |_: &Self, state: &State| {
                let Recovery::Void(at) = state.recovery else { return false };
                let undone = |o: u8| ORDERS[o as usize].seqnum == at && !matches!(ORDERS[o as usize].prev, Void(_));
                let settled =
                    |a: &Authority| (0..ORDERS.len() as u8).any(|o| undone(o) && a.acknowledged & bit(o) != 0);
                state.honest.iter().any(|a| a.log == 2 && settled(a))
            }),
        ]
    }
}

/// Of two orders that follow the same one, one is certified at most.
fn one_certificate(model: &Broadcast, state: &State) -> bool {
    let certified: Vec<u8> = model.orders().filter(|order| model.certified(state, *order)).collect();
    let voided = match state.recovery {
        Recovery::Void(at) => at,
        _ => u8::MAX,
    };
    certified.iter().enumerate().all(|(i, a)| {
        certified[i + 1..].iter().all(|b| {
            let (a, b) = (ORDERS[*a as usize], ORDERS[*b as usize]);
            let same = a.prev == b.prev || a.seqnum == b.seqnum && a.seqnum < voided;
            !same
        })
    })
}

fn one_final(model: &Broadcast, state: &State) -> bool {
    let finals: Vec<u8> = model.orders().filter(|order| model.is_final(state, *order)).collect();
    let seqnums = |order: &u8| ORDERS[*order as usize].seqnum;
    let twice = finals.iter().enumerate().any(|(i, a)| finals[i + 1..].iter().any(|b| seqnums(a) == seqnums(b)));
    let chained = finals.iter().all(|order| match ORDERS[*order as usize].prev {
        O(prev) => finals.contains(&prev),
        Start | Void(_) => true,
    });
    !twice && chained
}

/// No seqnum with a final order is void, and whoever is as far as the log has at that seqnum what is final.
fn final_stays(model: &Broadcast, state: &State) -> bool {
    model.orders().filter(|order| model.is_final(state, *order)).all(|order| {
        let info = ORDERS[order as usize];
        let voided = matches!(state.recovery, Recovery::Void(at)
            if at == info.seqnum || at < info.seqnum && !model.chain(O(order)).any(|link| link == Void(at)));
        let knows = |a: &&Authority| !matches!(state.recovery, Recovery::Void(_)) || a.log == 2;
        !voided
            && state.honest.iter().filter(knows).all(|a| {
                let behind = seqnum(a.tip) < info.seqnum;
                behind
                    || model.at(a.tip, info.seqnum) == Some(O(order))
                    || model.chain(a.tip).any(|l| seqnum(l) > info.seqnum && matches!(l, Void(_)))
            })
    })
}

/// Where nothing more can happen all are at the same order, which is final, and the account can go on.
fn nothing_is_stuck(model: &Broadcast, state: &State) -> bool {
    let mut actions = Vec::new();
    model.actions(state, &mut actions);
    if !actions.is_empty() {
        return true;
    }
    let tip = state.honest[0].tip;
    tip != Start && state.honest.iter().all(|a| a.tip == tip && a.pending == [None; 3] || model.forgets())
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |order: &u8| ORDERS[*order as usize].name;
        match self {
            Action::Vote(i, order) => write!(f, "{i} votes for {}", name(order)),
            Action::Settle(i, order) => write!(f, "{i} settles {}", name(order)),
            Action::Crash(i) => write!(f, "{i} crashes"),
            Action::Recover(at) => write!(f, "seqnum {at} is to be recovered"),
            Action::Log(i) => write!(f, "{i} reads the log"),
            Action::Report(i) => write!(f, "the report of {i} is in the log"),
            Action::Show(order) => write!(f, "the certificate of {} is in the log", name(order)),
            Action::Decide => write!(f, "the log decides without a certificate"),
        }
    }
}
