//! Somebody who sets a BLS key made of another's: its own less that one. If a committee took it, the sum of the two would be a key that it
//! knows the secret of, and its signature of a root would pass for both.

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::bls;
use florin_core::certificate::BatchId;
use florin_core::content::{Credit, TYPE_SET_PERMISSION, encode_set_permission};
use florin_core::distilled::{marked, root_message};
use florin_core::envelope::{Authority, Body as OrderBody, Order, encode_body, encode_envelope, order_id};
use florin_core::keys::{Curve, POSSESSION_BYTE, PublicKey};
use florin_core::merkle::Tree;
use florin_core::permission::Permission;

use crate::client::{Client, Purse, SignedOrder, Wish, payee, wake};
use crate::driver::{Driver, Outcome, Tally};
use crate::message::{Addr, Body, Envelope};
use crate::roots::forged;
use crate::world::{MS, SECOND, World};

/// Tag of the timer that begins something; others are numbers of jobs.
const TICK: u64 = 0;

enum Stage {
    /// The account is not open yet.
    Closed,
    /// It has its own key.
    Open,
    /// It has this victim's key taken off its own.
    MadeUp(Address),
}

struct Pending {
    order: SignedOrder,
    /// Whose key is taken off the own one.
    victim: Option<Address>,
    under_way: bool,
}

/// One account.
pub struct MakesUpKeys {
    addr: Addr,
    purse: Purse,
    stage: Stage,
    pending: Option<Pending>,
    driver: Driver,
}

impl MakesUpKeys {
    /// With an account that has some money.
    pub fn new(addr: Addr, purse: Purse) -> Self {
        MakesUpKeys { addr, purse, stage: Stage::Closed, pending: None, driver: Driver::new(addr, Tally::default()) }
    }

    fn begin(&mut self, world: &mut World) {
        match &self.stage {
            Stage::Closed => {
                let wish = Wish::Pay(vec![Credit { address: payee(world), amount: 1 }]);
                let order = self.purse.draft(&wish);
                self.submit(world, order, None);
            }
            Stage::Open => {
                let shards = world.committee.shards;
                let shard = self.purse.shard(shards);
                let near: Vec<_> = world.senders.iter().filter(|(address, _)| address.shard(shards) == shard).collect();
                if near.is_empty() {
                    return;
                }
                let (victim, place) = near[world.rng.index(near.len())];
                let (victim, key) = (*victim, place.key);
                let Some(order) = self.set_key(&key) else { return };
                world.fault("keys made of others'");
                self.submit(world, order, Some(victim));
            }
            Stage::MadeUp(victim) => self.steal(world, *victim),
        }
    }

    fn submit(&mut self, world: &mut World, order: SignedOrder, victim: Option<Address>) {
        let shard = self.purse.shard(world.committee.shards);
        self.driver.submit(world, shard, vec![(order.raw.clone(), order.id)]);
        self.pending = Some(Pending { order, victim, under_way: true });
    }

    /// An order that sets its key less another, with a proof of its own key.
    fn set_key(&self, other: &bls::Key) -> Option<SignedOrder> {
        let own = self.purse.bls.as_ref()?;
        let mut sum = bls::Sum::default();
        sum.add(&own.public().bls()?);
        sum.add(&negative(other));
        let made = PublicKey::parse(&[&[Curve::Bls.byte()], &sum.key()?[..]].concat()).ok()?;
        let keys = vec![(self.purse.key.public(), 1), (made, 1)];
        let permission = Permission { threshold: 1, keys, actor: 0 }.encode();
        let (network_id, actor) = (self.purse.network_id, self.purse.address.actor());
        let body = encode_body(&OrderBody {
            network_id,
            actor,
            cosignors: Vec::new(),
            seqnum: self.purse.seqnum + 1,
            prev_hash: self.purse.prev_hash,
            transaction_type: TYPE_SET_PERMISSION,
            content: encode_set_permission(permission, None),
        });
        let mut authority = Authority::of(&[self.purse.key.sign_body(&body)]);
        let proof = own.bls()?.prove(network_id, actor);
        authority.sigs.push(Bytes::from([&[POSSESSION_BYTE], &proof[..]].concat()));
        let raw = encode_envelope(&body, &[authority]);
        Some(SignedOrder { raw, id: order_id(&body), seqnum: self.purse.seqnum + 1, call: false })
    }

    /// A batch of an order of its own and one that the victim has never seen, with its own signature of the root for both.
    fn steal(&self, world: &mut World, victim: Address) {
        let Some(place) = world.senders.get(&victim).cloned() else { return };
        let stolen = forged(self.purse.network_id, &victim, &place, self.purse.address);
        let wish = Wish::Pay(vec![Credit { address: self.purse.address, amount: 1 }]);
        let Ok(own) = Order::decode(self.purse.draft(&wish).raw) else { return };
        let mut orders = [stolen, own];
        orders.sort_by_key(|order| order.actor);
        let tree = Tree::new(&[orders[0].id, orders[1].id]);
        let batch = BatchId { root: tree.root(), count: 2 };
        let Some(secret) = self.purse.bls.as_ref().and_then(|key| key.bls()) else { return };
        let aggregate = secret.sign(&root_message(&world.committee, &batch));
        let own_id = orders.iter().find(|order| order.actor == self.purse.address.actor()).map(|order| order.id);
        own_id.into_iter().for_each(|id| world.checks.signed_root(batch.root, id));
        let raw = vec![marked(&orders[0], Some(&aggregate)), marked(&orders[1], None)];
        let shard = self.purse.shard(world.committee.shards);
        for authority in 0..world.committee.size() as u32 {
            world.send(self.addr, Addr::Shard(authority, shard), u64::MAX, Body::Vote(raw.clone()));
        }
    }

    fn take(&mut self, outcomes: Vec<Outcome>) {
        for (id, is_final) in outcomes {
            let Some(mut pending) = self.pending.take_if(|pending| pending.order.id == id) else { continue };
            if !is_final {
                pending.under_way = false;
                self.pending = Some(pending);
                continue;
            }
            self.stage = pending.victim.map_or(Stage::Open, Stage::MadeUp);
            self.purse.advance(&pending.order);
        }
    }
}

/// The same point on the other side: y is the field's prime less y.
fn negative(key: &bls::Key) -> bls::Key {
    const PRIME: [u8; 48] = [
        0x1a, 0x01, 0x11, 0xea, 0x39, 0x7f, 0xe6, 0x9a, 0x4b, 0x1b, 0xa7, 0xb6, 0x43, 0x4b, 0xac, 0xd7, 0x64, 0x77,
        0x4b, 0x84, 0xf3, 0x85, 0x12, 0xbf, 0x67, 0x30, 0xd2, 0xa0, 0xf6, 0xb0, 0xf6, 0x24, 0x1e, 0xab, 0xff, 0xfe,
        0xb1, 0x53, 0xff, 0xff, 0xb9, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xaa, 0xab,
    ];
    let mut out = *key;
    let mut borrow = 0;
    for i in (0..48).rev() {
        let difference = i32::from(PRIME[i]) - i32::from(key[48 + i]) - borrow;
        borrow = i32::from(difference < 0);
        out[48 + i] = difference.rem_euclid(256) as u8;
    }
    out
}

impl Client for MakesUpKeys {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 20 * MS, 200 * MS, TICK);
    }

    fn on_message(&mut self, world: &mut World, envelope: Envelope) {
        let outcomes = self.driver.on_message(world, envelope);
        self.take(outcomes);
    }

    fn on_timer(&mut self, world: &mut World, tag: u64) {
        if tag != TICK {
            let outcomes = self.driver.on_timer(world, tag);
            return self.take(outcomes);
        }
        if !world.calm {
            match self.pending.take() {
                Some(pending) if pending.under_way => self.pending = Some(pending),
                Some(Pending { order, victim: None, .. }) => self.submit(world, order, None),
                // Nobody has taken a made-up key, as it should be: another one.
                _ => self.begin(world),
            }
            wake(world, self.addr, 300 * MS, SECOND, TICK);
        }
    }

    /// It may wait for ever.
    fn unfinished(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::new_bls_key;
    use crate::rng::Rng;

    #[test]
    fn a_key_and_its_negative_cancel() {
        let key = new_bls_key(&mut Rng::new(1)).public().bls().unwrap();
        let mut sum = bls::Sum::default();
        sum.add(&key);
        assert_eq!(sum.key(), Some(key));
        sum.add(&negative(&key));
        assert_eq!(sum.key(), None, "they sum to nothing");
        assert_eq!(negative(&negative(&key)), key);
    }
}
