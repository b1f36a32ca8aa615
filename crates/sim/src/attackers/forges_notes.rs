//! Somebody without notes, who makes orders of those that he sees: another payee, another tier, another note's signature,
//! his own key, or a note that he claims the log has freed.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use florin_core::bearer::{Spend, build};
use florin_core::cash::derive::{CashSeed, NoteSecrets};
use florin_core::content::{Credit, credit_output};
use florin_core::pbtx;
use florin_core::wire::{self, NoteInput};
use prost::Message as _;

use super::votes_for_everything::flip;
use crate::client::{Client, payee, wake};
use crate::message::{Addr, Body, Envelope};
use crate::world::{MS, World};

/// It has a key, and nothing that it opens.
pub struct ForgesNotes {
    addr: Addr,
    own: Arc<NoteSecrets>,
    seen: VecDeque<Seen>,
}

/// An order that somebody has sent.
#[derive(Clone, PartialEq)]
struct Seen {
    raw: Bytes,
    /// What it spends, with the committee's signatures.
    notes: Vec<(NoteInput, [u8; 48])>,
}

/// Orders that it remembers.
const SEEN_MAX: usize = 12;

impl ForgesNotes {
    /// At this address.
    pub fn new(world: &mut World, addr: Addr) -> ForgesNotes {
        let seed = CashSeed::new(&world.rng.bytes(), world.committee.network.id);
        ForgesNotes { addr, own: Arc::new(seed.note(1)), seen: VecDeque::new() }
    }

    /// Looks at what others have sent.
    fn listen(&mut self, world: &World) {
        let requests = world.recorded.iter().filter_map(|e| match &e.body {
            Body::Vote(orders) => Some(orders),
            _ => None,
        });
        let read = |raw: &Bytes| {
            let transaction = pbtx::Transaction::decode(raw.clone()).ok()?;
            let body = pbtx::TransactionBody::decode(transaction.body.clone()).ok()?;
            let bearer = (body.transaction_type == 5).then(|| wire::Bearer::decode(body.transaction_content))?.ok()?;
            let sigs = transaction.authorities.iter().flat_map(|a| &a.sigs);
            let of = |(note, sig): (NoteInput, &Bytes)| Some((note, <[u8; 48]>::try_from(sig.get(..48)?).ok()?));
            Some(Seen { raw: raw.clone(), notes: bearer.notes.into_iter().zip(sigs).filter_map(of).collect() })
        };
        for seen in requests.flatten().filter_map(read) {
            if !self.seen.contains(&seen) && !seen.notes.is_empty() {
                self.seen.push_back(seen);
            }
        }
        while self.seen.len() > SEEN_MAX {
            self.seen.pop_front();
        }
    }

    fn forge(&self, world: &mut World) {
        if self.seen.is_empty() {
            return;
        }
        let Seen { raw, mut notes } = self.seen[world.rng.index(self.seen.len())].clone();
        let at = world.rng.index(notes.len());
        let mut extra = 0;
        match world.rng.below(8) {
            0 => notes[at].0.tier = (notes[at].0.tier + 1) % crate::cash::TIERS,
            // A note of his own, signed by nobody.
            1 => notes[at].0 = self.note(notes[at].0.tier),
            2 => {
                let other = notes[(at + 1) % notes.len()].1;
                notes[at] = (self.note(notes[at].0.tier), other);
            }
            3 => {
                let mut identity = [0; 48];
                identity[0] = 0xc0;
                notes[at] = (self.note(notes[at].0.tier), identity);
            }
            4 => notes[at].0.recoveries += 1,
            5 => notes.push(notes[at].clone()),
            6 => extra = 1,
            _ => {
                // The order itself, with one bit of it changed.
                world.fault("forged notes");
                let raw = flip(world, &raw);
                return self.send(world, raw);
            }
        }
        world.fault("forged notes");
        let worth = notes.iter().map(|(note, _)| 1u64 << note.tier).sum::<u64>() + extra;
        let key = self.own.clone();
        let sign = move |message: &[u8]| key.sign(message);
        let spends: Vec<Spend> = (notes.into_iter())
            .map(|(input, signature)| Spend { input, signature, sign: Box::new(sign.clone()) })
            .collect();
        let credit = credit_output(&Credit { address: payee(world), amount: worth });
        let raw = build(world.committee.network.id, &spends, vec![credit], "", None);
        self.send(world, raw);
    }

    fn note(&self, tier: u32) -> NoteInput {
        NoteInput { tier, nonce: Bytes::copy_from_slice(&self.own.nonce().0), ..Default::default() }
    }

    fn send(&self, world: &mut World, raw: Bytes) {
        for authority in 0..world.committee.size() as u32 {
            world.send(self.addr, Addr::Shard(authority, 0), 0, Body::Vote(vec![raw.clone()]));
        }
    }
}

impl Client for ForgesNotes {
    fn start(&mut self, world: &mut World) {
        wake(world, self.addr, 100 * MS, 600 * MS, 0);
    }

    fn on_message(&mut self, _: &mut World, _: Envelope) {}

    fn on_timer(&mut self, world: &mut World, _: u64) {
        if !world.calm {
            self.listen(world);
            self.forge(world);
            wake(world, self.addr, 100 * MS, 500 * MS, 0);
        }
    }

    fn unfinished(&self) -> Option<String> {
        None
    }
}
