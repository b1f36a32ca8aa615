//! Virtual channels of wallets whose managers speak with the log itself.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::address::Address;
use crate::channel::manager::{self, EndId, Manager, Now, Outcome, Signer as Signs};
use crate::channel::virtuals::{self, Effect, Effects, Input, Open as OpenVirtual, VirtualSigner, Virtuals};
use crate::channel::voucher::sign_virtual;
use crate::error::Result;
use crate::keys::SecretKey;

struct Keys(std::sync::Arc<Vec<SecretKey>>);

impl Signs for Keys {
    fn voucher(&self, _: &Address, terms: wire::Voucher, side: u32) -> Result<Voucher> {
        Ok(Voucher::sign(terms, side, &self.0.iter().collect::<Vec<_>>()))
    }
    fn withdraw(&self, _: &Address, permit: &wire::WithdrawPermit) -> Result<wire::SignedPermit> {
        Ok(sign_withdraw(permit, &self.0.iter().collect::<Vec<_>>()))
    }
    fn watch(&self, _: &Address, permit: &wire::WatchPermit) -> Result<wire::SignedPermit> {
        Ok(sign_watch(permit, &self.0.iter().collect::<Vec<_>>()))
    }
}

impl VirtualSigner for Keys {
    fn virtual_amount(&self, _: &Bytes, amount: &wire::VirtualAmount) -> Result<wire::SignedPermit> {
        Ok(sign_virtual(amount, &self.0.iter().collect::<Vec<_>>()))
    }
}

struct Wallet {
    signer: Signer,
    keys: Keys,
    manager: Manager,
    virtuals: Virtuals,
    effects: VecDeque<Effect>,
    orders: BTreeMap<u64, Bytes>,
    /// What it says is lost.
    mute: bool,
}

impl Wallet {
    fn new(cluster: &Cluster, signer: Signer) -> Wallet {
        let policy = manager::Policy { submit_ms: 1_000, margin_ms: 1_000, ..Default::default() };
        let accounts = BTreeMap::from([(signer.address, signer.permission.encode())]);
        let config = manager::Config { committee_id: *cluster.committee.id(), accounts, policy: policy.clone() };
        let own = virtuals::Policy { grace_ms: 4_000, margin_ms: 0, ..Default::default() };
        Wallet {
            keys: Keys(signer.keys.clone()),
            signer,
            manager: Manager::new(config),
            virtuals: Virtuals::new(virtuals::Config { channels: policy, policy: own }),
            effects: VecDeque::new(),
            orders: BTreeMap::new(),
            mute: false,
        }
    }

    fn handle(&mut self, now: Now, input: Input) -> Effects {
        let fx = self.virtuals.handle(now, input, &mut self.manager, &self.keys).unwrap();
        self.virtuals.check(now, &self.manager);
        self.effects.extend(fx.effects.clone());
        fx
    }
}

struct World {
    cluster: Cluster,
    wallets: [Wallet; 3],
    /// By wallets in a row: the end of the first in the channel with the next.
    ends: [EndId; 2],
}

impl World {
    fn now(&self) -> Now {
        let log_ms = self.cluster.logs[0].log.book(&self.cluster.logs[0].state).unwrap().time_ms;
        Now { log_ms, clock_ms: log_ms }
    }

    fn record(&self, end: &EndId) -> ChannelRecord {
        let log = &self.cluster.logs[0];
        let request = wire::ChannelRequest { channel: Bytes::copy_from_slice(&end.channel) };
        log.log.channel(&log.state, &request).unwrap().channel.unwrap()
    }

    fn look(&mut self) {
        let now = self.now();
        for at in 0..3 {
            for end in self.ends {
                let record = Box::new(self.record(&end));
                let seen = manager::Input::Seen { channel: end.channel, record, time_ms: now.log_ms };
                self.wallets[at].handle(now, Input::Channel(Box::new(seen)));
            }
        }
        self.run();
    }

    fn run(&mut self) {
        while let Some(at) = (0..3).find(|at| !self.wallets[*at].effects.is_empty()) {
            let now = self.now();
            let tell = |input| Input::Channel(Box::new(input));
            let wallet = &mut self.wallets[at];
            match wallet.effects.pop_front().unwrap() {
                Effect::Channel(manager::Effect::Prepare { op, message }) => {
                    let order = wallet.signer.call(message.inputs, message.outputs);
                    wallet.orders.insert(op, order.clone());
                    let order_id = id_of(&order);
                    wallet.handle(now, tell(manager::Input::Prepared { op, order_id, output: 0, order }));
                }
                Effect::Channel(manager::Effect::Broadcast { op, order }) => {
                    let end = wallet.manager.operation(op).unwrap().end.unwrap();
                    let signer = wallet.signer.clone();
                    let code = came_to(&mut self.cluster, &signer, order);
                    let (time_ms, record) = (self.now().log_ms, Box::new(self.record(&end)));
                    let outcome = match code {
                        Some(code) => Outcome::Failed { code: code as u32, message: String::new() },
                        None => Outcome::Confirmed { record, time_ms },
                    };
                    let now = self.now();
                    self.wallets[at].handle(now, tell(manager::Input::Outcome { op, outcome }));
                }
                Effect::Send { end, message, .. } if !wallet.mute => {
                    let other = EndId { side: 1 - end.side, ..end };
                    let to = if end.side == 0 { at + 1 } else { at - 1 };
                    self.wallets[to].handle(now, Input::Message { end: other, message });
                }
                Effect::Tell(message) if !wallet.mute => drop(self.wallets[2 - at].handle(now, Input::Peer(*message))),
                _ => {}
            }
        }
    }
}

#[test]
fn wallets_with_managers_dispute_a_virtual_channel_in_the_log() {
    let (mut cluster, mut alice, mut hub) = setup(2);
    let bob = Signer::new(3);
    cluster.fund(bob.address, 10);
    let open = |cluster: &mut Cluster, from: &mut Signer, to: &Signer| {
        let order = from.call(vec![], vec![output::Kind::ChannelOpen(opening(from, to, 300, false))]);
        let channel = channel_id(cluster.committee.id(), &id_of(&order), 0);
        cluster.run_ordered(&[order]);
        EndId { channel, side: OPENER }
    };
    let ends = [open(&mut cluster, &mut alice, &hub), open(&mut cluster, &mut hub, &bob)];
    let wallets = [alice, hub, bob].map(|signer| Wallet::new(&cluster, signer));
    let mut world = World { cluster, wallets, ends };
    world.look();
    let now = world.now();
    for (at, end) in [(0, ends[0]), (1, EndId { side: OTHER, ..ends[0] }), (1, ends[1])] {
        world.wallets[at].handle(now, Input::Connected(end, 1));
    }
    world.wallets[2].handle(now, Input::Connected(EndId { side: OTHER, ..ends[1] }, 1));
    world.run();
    let id = [5; 32];
    let hop = wire::VirtualHop {
        channel: Bytes::copy_from_slice(&ends[1].channel),
        not_after_ms: now.log_ms + 10_000,
        ..Default::default()
    };
    let permission = world.wallets[0].signer.permission.encode();
    let wanted = OpenVirtual {
        id,
        end: ends[0],
        permission,
        cap: 100,
        not_after_ms: now.log_ms + 20_000,
        fee: 2,
        hops: vec![hop],
    };
    world.wallets[0].handle(now, Input::Open(wanted));
    world.run();
    for amount in [10, 40, 70] {
        world.wallets[0].handle(now, Input::Pay { id, amount });
        world.run();
    }
    assert_eq!(world.wallets[2].virtuals.status(&id).unwrap().amount, 70);
    // From now on nobody answers: Bob claims near his limit, the hub shows the same when that is over.
    world.wallets.iter_mut().for_each(|wallet| wallet.mute = true);
    for later in [7_000, 8_500, 10_001, 12_000, 18_500, 20_001] {
        world.cluster.set_time(now.log_ms + later);
        world.look();
        world.look();
    }
    assert_eq!(rules::shares(&world.record(&ends[1])), [230, 70]);
    assert_eq!(rules::shares(&world.record(&ends[0])), [228, 72]);
    for wallet in &world.wallets {
        assert!(wallet.virtuals.status(&id).unwrap().over);
    }
    let [alice, hub, bob] = world.wallets.map(|wallet| wallet.signer);
    check(&world.cluster, &[(&alice, 700), (&hub, 700), (&bob, 10)]);
}
