//! A worker that shows a sender the root of a batch with a second order of its account beside the one it has handed in, and takes the
//! sender's signature for both.

use florin_core::bls;
use florin_core::certificate::BatchId;
use florin_core::distilled::{Proposal, check_proposal, marked};
use florin_core::envelope::Order;
use florin_core::merkle::Tree;

use crate::client::{Purse, SignedOrder};
use crate::message::{Addr, Body};
use crate::roots::{Place, forged};
use crate::world::World;

/// Does so with an order that has just been handed in. The sender goes on as if nothing had been.
pub fn show(world: &mut World, addr: Addr, purse: &Purse, order: &SignedOrder) {
    let Some(key) = purse.bls.as_ref() else { return };
    let (Some(secret), Some(public)) = (key.bls(), key.public().bls()) else { return };
    let Ok(own) = Order::decode(order.raw.clone()) else { return };
    let place = Place { key: public, seqnum: purse.seqnum, prev_hash: purse.prev_hash };
    let to = crate::client::payee(world);
    // The one that it has not seen comes first, and would take the seqnum.
    let second = forged(purse.network_id, &purse.address, &place, to);
    let tree = Tree::new(&[second.id, own.id]);
    let batch = BatchId { root: tree.root(), count: 2 };
    let proposal = Proposal { batch, index: 1, path: tree.path(1) };
    let Ok(message) = check_proposal(&world.committee, &own.id, &proposal) else { return };
    world.checks.signed_root(batch.root, own.id);
    let share = secret.sign(&message);
    let Ok(aggregate) = bls::sum_signatures([&share, &share]) else { return };
    world.fault("second orders under a root");
    let orders = vec![marked(&second, Some(&aggregate)), marked(&own, None)];
    let shard = purse.shard(world.committee.shards);
    for authority in 0..world.committee.size() as u32 {
        world.send(addr, Addr::Shard(authority, shard), u64::MAX, Body::Vote(orders.clone()));
    }
}
