//! What clients saw of a committee, and whether a bank could have shown it: one clock over all that was signed, became
//! final and was read, and rules that are derived from that alone.
//!
//! | Rule | |
//! |---|---|
//! | `Backwards` | what a client has read at an authority, that authority never takes back, whoever is killed meanwhile |
//! | `Lost` | what was final before a quorum was asked is in that quorum's answers, more liars than f aside |
//! | `Unsigned` | no account settles more orders than its owner has signed |
//! | `FromNothing`, `Vanished` | an account has what it began with, without what it paid, and some of what others signed for it |
//! | `Total` | when nothing is on its way, all accounts together have at each authority what they began with |

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use florin_core::address::Address;

/// What an authority said of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// Minor units.
    pub balance: i128,
    /// Orders settled.
    pub seqnum: u32,
}

/// One account read by a client at some authorities, at least a quorum's, at a time.
#[derive(Clone, Debug)]
pub struct Read {
    pub client: usize,
    pub account: Address,
    /// From [`Bank::asks`], before the first question went out.
    pub asked: usize,
    /// Authority and answer.
    pub said: Vec<(usize, Said)>,
}

#[derive(Clone, Debug)]
enum Event {
    /// Before it is sent to anybody.
    Signed {
        from: Address,
        seqnum: u32,
        to: Address,
        amount: u64,
    },
    /// With acknowledgements of a quorum.
    Final {
        from: Address,
        seqnum: u32,
    },
    Read(Read),
}

/// A rule that was broken, and what shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Broken {
    Backwards(String),
    Lost(String),
    Unsigned(String),
    FromNothing(String),
    Vanished(String),
    Total(String),
}

/// The history since all accounts were level.
pub struct Bank {
    faults: usize,
    quorum: usize,
    start: HashMap<Address, Said>,
    events: Mutex<Vec<Event>>,
}

/// What the history so far makes of an account.
#[derive(Default)]
struct Account {
    /// Amounts of its orders from the start on.
    signed: Vec<u64>,
    /// Newest final order.
    last: u32,
    /// Signed for it by others.
    promised: i128,
}

impl Account {
    fn paid(&self, start: Said, seqnum: u32) -> i128 {
        let count = seqnum.saturating_sub(start.seqnum) as usize;
        self.signed.iter().take(count).map(|amount| i128::from(*amount)).sum()
    }
}

impl Bank {
    /// All accounts, as every authority has them.
    pub fn open(authorities: usize, accounts: impl IntoIterator<Item = (Address, Said)>) -> Bank {
        let faults = (authorities - 1) / 3;
        let (start, events) = (accounts.into_iter().collect(), Mutex::default());
        Bank { faults, quorum: authorities - faults, start, events }
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap()
    }

    pub fn signed(&self, from: Address, seqnum: u32, to: Address, amount: u64) {
        self.events().push(Event::Signed { from, seqnum, to, amount });
    }

    pub fn is_final(&self, from: Address, seqnum: u32) {
        self.events().push(Event::Final { from, seqnum });
    }

    /// The moment, for a read that begins now.
    pub fn asks(&self) -> usize {
        self.events().len()
    }

    pub fn read(&self, read: Read) {
        self.events().push(Event::Read(read));
    }

    /// Final orders and reads.
    pub fn counts(&self) -> (usize, usize) {
        let events = self.events();
        let finals = events.iter().filter(|e| matches!(e, Event::Final { .. })).count();
        (finals, events.iter().filter(|e| matches!(e, Event::Read(_))).count())
    }

    /// What every account has once all that was signed is final and has arrived.
    pub fn expected(&self) -> HashMap<Address, Said> {
        let mut accounts = self.start.clone();
        for event in self.events().iter() {
            if let Event::Signed { from, seqnum, to, amount } = event {
                let payer = accounts.get_mut(from).unwrap();
                (payer.balance, payer.seqnum) = (payer.balance - i128::from(*amount), *seqnum);
                accounts.get_mut(to).unwrap().balance += i128::from(*amount);
            }
        }
        accounts
    }

    /// What is broken in all that clients saw.
    pub fn check(&self) -> Vec<Broken> {
        let events = self.events();
        let mut accounts: HashMap<Address, Account> =
            self.start.iter().map(|(a, s)| (*a, Account { last: s.seqnum, ..Account::default() })).collect();
        // The newest final order of an account at each moment that one became final, in order.
        let mut finals: HashMap<Address, Vec<(usize, u32)>> = HashMap::new();
        // What each client has read last at each authority: orders, and money received.
        let mut read: HashMap<(usize, usize, Address), (u32, i128)> = HashMap::new();
        let mut broken = Vec::new();
        for (moment, event) in events.iter().enumerate() {
            match event {
                Event::Signed { from, to, amount, .. } => {
                    accounts.get_mut(from).unwrap().signed.push(*amount);
                    accounts.get_mut(to).unwrap().promised += i128::from(*amount);
                }
                Event::Final { from, seqnum } => {
                    let account = accounts.get_mut(from).unwrap();
                    account.last = account.last.max(*seqnum);
                    finals.entry(*from).or_default().push((moment, account.last));
                }
                Event::Read(one) => {
                    self.check_one(one, &accounts[&one.account], &mut read, &mut broken);
                    let of = finals.get(&one.account).map(Vec::as_slice).unwrap_or_default();
                    let before = of.partition_point(|(at, _)| *at < one.asked);
                    let due = before.checked_sub(1).map_or(self.start[&one.account].seqnum, |i| of[i].1);
                    let knowing = one.said.iter().filter(|(_, said)| said.seqnum >= due).count();
                    // Any two quorums have f + 1 in common.
                    if one.said.len() >= self.quorum && knowing <= self.faults {
                        broken.push(Broken::Lost(format!("order {due} of {one:?}")));
                    }
                }
            }
        }
        broken
    }

    fn check_one(
        &self,
        one: &Read,
        account: &Account,
        read: &mut HashMap<(usize, usize, Address), (u32, i128)>,
        broken: &mut Vec<Broken>,
    ) {
        let start = self.start[&one.account];
        for (authority, said) in &one.said {
            let what = || format!("authority {authority} says {said:?}: {one:?}");
            let received = said.balance - start.balance + account.paid(start, said.seqnum);
            if said.seqnum.saturating_sub(start.seqnum) as usize > account.signed.len() {
                broken.push(Broken::Unsigned(what()));
            } else if received > account.promised {
                broken.push(Broken::FromNothing(what()));
            } else if received < 0 {
                broken.push(Broken::Vanished(what()));
            }
            let before = read.entry((one.client, *authority, one.account)).or_insert((start.seqnum, 0));
            if said.seqnum < before.0 || received < before.1 {
                broken.push(Broken::Backwards(format!("{before:?} before, {}", what())));
            }
            *before = (said.seqnum, received);
        }
    }

    /// What is broken in what one authority says of all accounts when nothing is on its way.
    pub fn check_level(&self, authority: usize, said: &HashMap<Address, Said>) -> Vec<Broken> {
        let mut broken = Vec::new();
        let sum = |all: &HashMap<Address, Said>| all.values().map(|s| s.balance).sum::<i128>();
        if sum(said) != sum(&self.start) {
            let (found, expected) = (sum(said), sum(&self.start));
            broken.push(Broken::Total(format!("authority {authority} has {found} in all, expected {expected}")));
        }
        for (address, expected) in self.expected() {
            let found = said.get(&address);
            let what = || format!("authority {authority}, {address:?}: expected {expected:?}, found {found:?}");
            match found {
                Some(found) if found.seqnum < expected.seqnum => broken.push(Broken::Lost(what())),
                Some(found) if found.seqnum > expected.seqnum => broken.push(Broken::Unsigned(what())),
                Some(found) if found.balance > expected.balance => broken.push(Broken::FromNothing(what())),
                Some(found) if found.balance == expected.balance => {}
                _ => broken.push(Broken::Vanished(what())),
            }
        }
        broken
    }
}
