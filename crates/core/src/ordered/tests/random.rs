//! Random lives of accounts that pay, call and lock themselves, against a plain model of the money.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::permission::Permission;

const ACCOUNTS: usize = 4;
const SHARDS: u32 = 3;
const FUND: i128 = 200;

/// One thing that happens, everywhere and to its end.
#[derive(Clone, Debug)]
enum Event {
    Pay {
        from: usize,
        to: usize,
        amount: u64,
    },
    /// A CALL that only credits.
    Give {
        from: usize,
        to: usize,
        amount: u64,
    },
    Fund {
        from: usize,
        to: usize,
        amount: u64,
        lasts: u64,
    },
    /// By anyone, with the preimage or another one, of any contract.
    Claim {
        from: usize,
        contract: usize,
        right: bool,
    },
    TakeBack {
        from: usize,
        contract: usize,
    },
    Redeem {
        from: usize,
        to: usize,
        amount: u64,
    },
    Deposit {
        from: usize,
        to: usize,
        amount: u64,
    },
    Keys {
        from: usize,
        key: u64,
    },
    Time {
        ms: u64,
    },
    /// The wallet signs twice for one seqnum; then its owner recovers.
    Lock {
        from: usize,
        call: bool,
        certified: Certified,
    },
}

/// How far one of the two orders came before the recovery.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Certified {
    /// The votes are split.
    No,
    /// A certificate is there and nobody has it.
    Unseen,
    /// One authority has settled it.
    ByOne,
    /// All have, but the log orders the recovery first.
    ByAll,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let who = || 0..ACCOUNTS;
    let amount = || 1..40_u64;
    let certified =
        prop_oneof![Just(Certified::No), Just(Certified::Unseen), Just(Certified::ByOne), Just(Certified::ByAll)];
    prop_oneof![
        (who(), who(), amount()).prop_map(|(from, to, amount)| Pay { from, to, amount }),
        (who(), who(), amount()).prop_map(|(from, to, amount)| Give { from, to, amount }),
        (who(), who(), amount(), 0..900_000_u64).prop_map(|(from, to, amount, lasts)| Fund { from, to, amount, lasts }),
        (who(), any::<usize>(), any::<bool>()).prop_map(|(from, contract, right)| Claim { from, contract, right }),
        (who(), any::<usize>()).prop_map(|(from, contract)| TakeBack { from, contract }),
        (who(), who(), amount()).prop_map(|(from, to, amount)| Redeem { from, to, amount }),
        (who(), who(), amount()).prop_map(|(from, to, amount)| Deposit { from, to, amount }),
        (who(), 0..50_u64).prop_map(|(from, key)| Keys { from, key }),
        (0..500_000_u64).prop_map(|ms| Time { ms }),
        (who(), any::<bool>(), certified).prop_map(|(from, call, certified)| Lock { from, call, certified }),
    ]
}

struct Contract {
    id: [u8; 32],
    amount: u64,
    expiry: u64,
    sender: usize,
    receiver: usize,
    open: bool,
}

struct World {
    cluster: Cluster,
    signers: Vec<Signer>,
    now: u64,
    balances: Vec<i128>,
    primary: BTreeMap<usize, i128>,
    contracts: Vec<Contract>,
}

impl World {
    fn new() -> World {
        let mut cluster = Cluster::new(&TestCommittee::new(4, SHARDS));
        let signers: Vec<Signer> = (1..=ACCOUNTS as u64).map(Signer::new).collect();
        signers.iter().for_each(|s| cluster.fund(s.address, FUND as u64));
        cluster.set_time(1_000);
        let balances = vec![FUND; ACCOUNTS];
        World { cluster, signers, now: 1_000, balances, primary: BTreeMap::new(), contracts: Vec::new() }
    }

    /// Signs a CALL and runs it, if its account has what it is debited. Whether the log must refuse it is the model's.
    fn call(
        &mut self,
        from: usize,
        inputs: Vec<wire::Input>,
        outputs: Vec<output::Kind>,
        debit: u64,
        expected: bool,
    ) -> Option<[u8; 32]> {
        if self.balances[from] < i128::from(debit) {
            return None;
        }
        let order = self.signers[from].call(inputs, outputs);
        let id = id_of(&order);
        self.cluster.run_ordered(&[order]);
        let status = self.cluster.status(2, &self.signers[from], self.signers[from].seqnum);
        assert_eq!(status.state() == S::Ordered, expected, "{status:?}");
        expected.then_some(id)
    }

    fn happen(&mut self, event: &Event) {
        let account = |world: &World, i: usize| world.signers[i].clone();
        match *event {
            Event::Pay { from, to: payee, amount } => {
                if self.balances[from] >= i128::from(amount) {
                    let order = {
                        let to_ = self.signers[payee].address;
                        self.signers[from].pay(&[to(to_, amount)], "")
                    };
                    self.cluster.run(&[order]);
                    self.moved(from, payee, amount);
                }
            }
            Event::Give { from, to, amount } => {
                let outputs = vec![credit(&account(self, to), amount)];
                if self.call(from, vec![], outputs, amount, true).is_some() {
                    self.moved(from, to, amount);
                }
            }
            Event::Fund { from, to, amount, lasts } => {
                let expiry = self.now + lasts;
                let outputs = vec![fund(amount, expiry, &account(self, from), &account(self, to))];
                if let Some(id) = self.call(from, vec![], outputs, amount, lasts > 0) {
                    self.balances[from] -= i128::from(amount);
                    let id = contract_id(&id, 0);
                    self.contracts.push(Contract { id, amount, expiry, sender: from, receiver: to, open: true });
                }
            }
            Event::Claim { from, contract, right } => self.close(from, contract, Some(right)),
            Event::TakeBack { from, contract } => self.close(from, contract, None),
            Event::Redeem { from, to, amount } => {
                let redeem = wire::PrimaryRedeem { amount, address: bytes(&account(self, to)) };
                if self.call(from, vec![], vec![output::Kind::PrimaryRedeem(redeem)], amount, true).is_some() {
                    self.balances[from] -= i128::from(amount);
                    *self.primary.entry(to).or_default() += i128::from(amount);
                }
            }
            Event::Deposit { from, to, amount } => {
                let deposit = wire::PrimaryDeposit { amount, address: bytes(&account(self, to)) };
                let enough = self.primary.get(&from).is_some_and(|p| *p >= i128::from(amount));
                if self.call(from, vec![], vec![output::Kind::PrimaryDeposit(deposit)], 0, enough).is_some() {
                    *self.primary.entry(from).or_default() -= i128::from(amount);
                    self.balances[to] += i128::from(amount);
                }
            }
            Event::Keys { from, key } => {
                let key = secret(crate::keys::Curve::Ed25519, 1_000 + key);
                let order = self.signers[from].set_permission(&Permission::single(key.public()), vec![key]);
                self.cluster.run(&[order]);
            }
            Event::Time { ms } => {
                self.now += ms;
                self.cluster.set_time(self.now);
            }
            Event::Lock { from, call, certified } => self.lock(from, call, certified),
        }
    }

    fn moved(&mut self, from: usize, to: usize, amount: u64) {
        self.balances[from] -= i128::from(amount);
        self.balances[to] += i128::from(amount);
    }

    fn close(&mut self, from: usize, contract: usize, preimage: Option<bool>) {
        if self.contracts.is_empty() {
            return;
        }
        let at = contract % self.contracts.len();
        let c = &self.contracts[at];
        let (id, amount) = (c.id, c.amount);
        let due = match preimage {
            Some(right) => right && from == c.receiver && self.now < c.expiry,
            None => from == c.sender && self.now >= c.expiry,
        };
        let input = match preimage {
            Some(right) => claim(id, amount, if right { b"secret" } else { b"guess" }),
            None => refund(id, amount),
        };
        let outputs = vec![credit(&self.signers[from].clone(), amount)];
        let expected = c.open && due;
        if self.call(from, vec![input], outputs, 0, expected).is_some() {
            self.contracts[at].open = false;
            self.balances[from] += i128::from(amount);
        }
    }

    fn lock(&mut self, from: usize, call: bool, certified: Certified) {
        if self.balances[from] < 2 {
            return;
        }
        let payee = self.signers[(from + 1) % ACCOUNTS].clone();
        let before = self.signers[from].clone();
        let shard = before.address.shard(SHARDS);
        let mut twins = [before.clone(), before.clone()];
        let orders: Vec<Bytes> = (1..)
            .zip(&mut twins)
            .map(|(amount, twin)| match call {
                true => twin.call(vec![], vec![credit(&payee, amount)]),
                false => twin.pay(&[to(payee.address, amount)], ""),
            })
            .collect();
        let recovery = [before.recover()];
        let recover = self.cluster.certify(shard, &recovery);
        if certified == Certified::No {
            for i in 0..4 {
                self.cluster.node(i, shard).vote(&orders[i / 2..i / 2 + 1]).unwrap();
            }
            self.cluster.settle(shard, &recover, &recovery);
        } else {
            let one = [orders[0].clone()];
            let certificate = self.cluster.certify(shard, &one);
            // Whoever has the RECOVER settled hands it in before the order.
            self.cluster.settle(shard, &recover, &recovery);
            let settled = match certified {
                Certified::ByOne => 1,
                Certified::ByAll => 4,
                Certified::No | Certified::Unseen => 0,
            };
            for i in 0..settled {
                self.cluster.node((from + i) % 4, shard).settle(&certificate, &one).unwrap();
            }
        }
        self.cluster.order_all_but_held();
        self.now += RECOVERY_WAIT_MS;
        self.cluster.set_time(self.now);
        self.cluster.order_all();
        let settles = matches!(certified, Certified::ByOne | Certified::ByAll);
        if settles {
            self.moved(from, (from + 1) % ACCOUNTS, 1);
        }
        let state = self.cluster.status(1, &before, before.seqnum + 1).state();
        let expected = if !settles {
            S::Void
        } else if call {
            S::Ordered
        } else {
            S::Settled
        };
        assert_eq!(state, expected);
        let account = self.cluster.node(3, shard).account(before.actor());
        self.signers[from].resume(&account);
    }

    fn check(&self) {
        let expected: Vec<(&Signer, i128)> = self.signers.iter().zip(self.balances.iter().copied()).collect();
        check(&self.cluster, &expected);
        let log = &self.cluster.logs[1];
        let book = log.log.book(&log.state).unwrap();
        assert_eq!(book.primary, self.primary.values().sum::<i128>());
        let held = self.contracts.iter().filter(|c| c.open).map(|c| i128::from(c.amount)).sum::<i128>();
        assert_eq!(book.contracts, held);
        assert_eq!(self.balances.iter().sum::<i128>() + book.primary + held, FUND * ACCOUNTS as i128);
    }
}

trait Held {
    fn order_all_but_held(&mut self);
}

impl Held for Cluster {
    /// As `order_all`, but a CALL that a recovery holds up stays.
    fn order_all_but_held(&mut self) {
        for _ in 0..4 {
            for authority in 0..self.nodes.len() {
                let items = self.log_items(authority);
                self.order_items(authority as u32, 0, items);
            }
            for authority in 0..self.nodes.len() {
                deliver_log(&mut self.logs[authority], &mut self.nodes[authority]);
                acknowledge_calls(&self.logs[authority], &mut self.nodes[authority]);
            }
            self.deliver_all();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn shards_and_logs_agree_with_a_plain_model(events in prop::collection::vec(event(), 1..40)) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
            world.check();
        }
    }
}
