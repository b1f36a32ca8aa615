//! The settled streams of peers, and the batches that they have and this shard has not.

use florin_core::authority::input::Input;
use florin_core::authority::query::settled_by;
use florin_core::bitmap::Bitmap;
use florin_core::wire;

use super::Node;
use crate::Shell;
use crate::checkers::Rule;
use crate::message::{Addr, Body, Envelope};
use crate::world::{MS, Micros, World};

/// How long a peer's settled batch may be missing before it is fetched: mostly its wallet brings it.
const GRACE: Micros = 300 * MS;
impl Node {
    pub(super) fn on_follow(&mut self, world: &mut World, request: &Envelope, from: u64) {
        let unsynced = self.ends.back().map_or(self.durable_end, |(_, end)| *end);
        let end = if self.shell == Shell::ShowsUnsyncedStream { unsynced } else { self.durable_end };
        match self.core.follow(self.view(), from, end) {
            Ok(reply) => {
                world.checks.shown(self.id(), end);
                world.send(self.addr(), request.from, request.id, Body::Followed(reply));
            }
            Err(e) => world.violation(Rule::Impossible, format!("{:?} can't read its settled stream: {e}", self.id())),
        }
    }

    /// Entries of a peer's stream. Those after a missing one are fetched too: an order of an earlier entry
    /// may wait for one of a later entry of the same step.
    pub(super) fn on_followed(&mut self, world: &mut World, peer: u32, reply: &wire::FollowReply) {
        let Ok(cursor) = self.core.cursor(self.view(), peer) else { return };
        let mut next = cursor;
        let mut fetch = Vec::new();
        let mut level = true;
        for (i, entry) in reply.entries.iter().enumerate() {
            if entry.position != reply.entries[0].position.saturating_add(i as u64) || entry.position > cursor && i == 0
            {
                world.fault("garbage of peers");
                break;
            }
            if entry.position < cursor {
                continue;
            }
            let elsewhere = self.elsewhere.get(&entry.root).is_some_and(|reply| {
                let settled = settled_by(reply, entry.count as usize);
                Bitmap::parse(&entry.bitmap, settled.count()).is_ok_and(|wanted| settled.contains(&wanted))
            });
            match self.core.missing(self.view(), entry).map(|missing| missing && !elsewhere) {
                Ok(false) if level => next = entry.position + 1,
                Ok(false) => {}
                Ok(true) => {
                    level = false;
                    let since = *self.missing.entry((peer, entry.position)).or_insert(world.now);
                    if world.now >= since + GRACE {
                        fetch.push(entry.root.clone());
                    }
                }
                Err(_) => {
                    world.fault("garbage of peers");
                    break;
                }
            }
        }
        if self.shell == Shell::NeverFetches {
            fetch.clear();
        }
        for root in fetch {
            world.send(self.addr(), Addr::Shard(peer, self.shard), 0, Body::Batch(root));
        }
        if next > cursor {
            self.missing.retain(|(p, position), _| *p != peer || *position >= next);
            if let Err(e) = self.step(world, Input::Followed { authority: peer, position: next }) {
                world.violation(Rule::Impossible, format!("{:?} can't move a cursor: {e}", self.id()));
            }
        }
    }
}
