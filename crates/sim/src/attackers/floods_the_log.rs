//! An authority that proposes garbage, oversized units, duplicates, huge numbers of items, and what others have
//! handed in long ago, whole or changed.

use bytes::Bytes;
use florin_core::limits::UNIT_BYTES_MAX;
use florin_core::ordered::engine::Ordering as _;
use florin_core::{batch, envelope, wire};
use prost::Message as _;

use super::votes_for_everything::flip;
use super::{LogLiar, LogLie};
use crate::message::{Body, Envelope};
use crate::world::World;

/// It remembers nothing but what it hears on the network.
pub struct FloodsTheLog;

impl LogLie for FloodsTheLog {
    fn act(&mut self, world: &mut World, me: &mut LogLiar) {
        world.fault("floods of the log");
        let old = old_certificate(world);
        let data: Bytes = match (world.rng.below(7), old) {
            (0, _) => Bytes::copy_from_slice(&world.rng.bytes()),
            (1, _) => vec![7; UNIT_BYTES_MAX + 1].into(),
            // As many items as a unit takes, each of them nothing.
            (2, _) => unit(vec![Bytes::new(); 3_000]),
            (3, Some(item)) => unit(vec![item; 12]),
            (4, Some(item)) => {
                let changed = flip(world, &item);
                unit(vec![changed, item])
            }
            (_, Some(item)) => unit(vec![item]),
            (_, None) => unit(vec![Bytes::from_static(b"?")]),
        };
        for _ in 0..world.rng.between(1, 4) {
            let _ = me.ring.submit(data.clone());
        }
    }

    fn on_message(&mut self, _: &mut World, _: &mut LogLiar, _: &Envelope) {}
}

fn unit(items: Vec<Bytes>) -> Bytes {
    wire::UnitData { clock_ms: 0, items }.encode_to_vec().into()
}

/// Some certificate that went over the network, as an item: payments too, and operations of long ago.
fn old_certificate(world: &mut World) -> Option<Bytes> {
    let settles: Vec<(wire::Certificate, Vec<Bytes>)> = world
        .recorded
        .iter()
        .filter_map(|e| match &e.body {
            Body::Settle(certificate, orders) if !orders.is_empty() => Some((certificate.clone(), orders.clone())),
            _ => None,
        })
        .collect();
    if settles.is_empty() {
        return None;
    }
    let at = world.rng.index(settles.len());
    let (certificate, orders) = &settles[at];
    batch::decode_batch(orders).ok()?;
    let bodies: Option<Vec<Bytes>> =
        orders.iter().map(|raw| envelope::Order::decode(raw.clone()).ok().map(|o| o.body)).collect();
    let orders = wire::CertifiedOrders {
        certificate: Some(certificate.clone()),
        indices: (0..orders.len() as u32).collect(),
        bodies: bodies?,
        proof: Vec::new(),
    };
    Some(wire::Item { kind: Some(wire::item::Kind::Orders(orders)) }.encode_to_vec().into())
}
