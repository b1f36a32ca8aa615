//! Limits of what a connection says, and of how soon a lane is used again.

use super::world::*;
use crate::channel::hub::{Input, Policy, shared};
use crate::error::Code;
use crate::limits::{HUB_FORGET_MAX, HUB_KEEP_MS, HUB_LANES_SHOWN_MAX, HUB_REST_MS};
use crate::wire::hub_message::Kind;
use crate::wire::hub_record::Kind as Record;
use crate::wire::{self, HubLane};

#[test]
fn a_greeting_shows_no_more_vouchers_than_are_compared() {
    let lanes = |n: usize| vec![HubLane::default(); n];
    let known = |n: usize| shared::unknown(&lanes(n), |_| Ok(0)).map(|lanes| lanes.len()).map_err(|e| e.code);
    assert_eq!(known(HUB_LANES_SHOWN_MAX), Ok(0));
    let mut line = Line::new(Policy::default());
    let (_, hubs) = line.links[0];
    for n in [HUB_LANES_SHOWN_MAX + 1, 64 * HUB_LANES_SHOWN_MAX] {
        assert_eq!(known(n), Err(Code::Limit));
        let kind = Some(Kind::Hello(wire::HubHello { lanes: lanes(n) }));
        let message = Box::new(wire::HubMessage { channel: hubs.channel.to_vec().into(), kind });
        let before = line.world.nodes[HUB].journal.len();
        assert_eq!(line.world.ask(HUB, Input::Message { end: hubs, message }).unwrap_err().code, Code::Limit);
        assert_eq!(line.world.nodes[HUB].journal.len(), before);
    }
}

/// The lane of a lock that expired unheard.
#[test]
fn a_lane_rests_for_ten_minutes() {
    for (late, same) in [(HUB_REST_MS, false), (HUB_REST_MS + 1, true), (64 * HUB_REST_MS, true)] {
        let mut line = Line::new(Policy::default());
        line.world.lose = |_| true;
        line.start(1_000);
        line.world.run();
        let out = |line: &Line| {
            let outs = &line.world.nodes[ALICE].hub.outs;
            assert_eq!(outs.len(), 1);
            outs.iter().next().map(|((_, lane), out)| (*lane, out.not_after_ms)).unwrap()
        };
        let (lane, limit) = out(&line);
        line.world.log.now = limit + 1;
        line.world.poll();
        line.world.run();
        line.world.log.now = limit + late;
        line.world.poll();
        line.start(500);
        assert_eq!(out(&line).0 == lane, same, "{late} ms after its limit");
    }
}

#[test]
fn no_more_is_forgotten_at_once_than_goes_into_a_record() {
    let mut line = Line::new(Policy::default());
    for _ in 0..2 * HUB_FORGET_MAX + 1 {
        line.invoice(7);
    }
    let before = line.world.nodes[BOB].journal.len();
    line.world.log.now = START + 3_600_000 + HUB_KEEP_MS + 1;
    while !line.world.nodes[BOB].hub.invoices.is_empty() {
        line.world.poll();
        line.world.run();
    }
    let entries = line.world.nodes[BOB].journal[before..].iter().flat_map(|group| &group.entries);
    let forgotten = entries.filter_map(|entry| match &entry.kind {
        Some(wire::hub_entry::Kind::Hub(wire::HubRecord { kind: Some(Record::Forgotten(all)) })) => {
            Some(all.invoices.len())
        }
        _ => None,
    });
    assert_eq!(forgotten.collect::<Vec<_>>(), [HUB_FORGET_MAX, HUB_FORGET_MAX, 1]);
}
