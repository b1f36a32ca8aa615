//! An authority's true code and key, without its honesty: state in memory, answered from at once, and as many as wanted.
//! Those who forget, are two, or live in the past are made of it.

use std::sync::Arc;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::authority::effect::Reply;
use florin_core::authority::input::Input;
use florin_core::authority::{Authority, NoMeter};
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::cash::mint_keys::MintKeys;
use florin_core::committee::Committee;
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Error, Result, wire};

use crate::disk::Image;
use crate::message::{Addr, Body, Envelope};
use crate::world::World;

/// What a liar is made with.
#[derive(Clone)]
pub struct Identity {
    /// Its committee.
    pub committee: Arc<Committee>,
    /// Its key.
    pub key: Arc<AuthorityKey>,
    /// Authority and shard.
    pub place: (u32, u32),
    /// The genesis file.
    pub genesis: Arc<Vec<(Address, u64)>>,
    /// Keys of e-cash.
    pub mint: Option<Arc<MintKeys>>,
}

impl Identity {
    /// Its address.
    pub fn addr(&self) -> Addr {
        Addr::Shard(self.place.0, self.place.1)
    }
}

/// The code of an authority's shard, for any number of states.
pub struct Program {
    core: Authority,
    shard: u32,
}

/// One state.
#[derive(Clone, Default)]
pub struct Copy {
    state: Image,
}

impl Program {
    /// The code, and a state that knows the genesis file and nothing else.
    pub fn new(identity: &Identity) -> (Program, Copy) {
        let (authority, shard) = identity.place;
        let core = Authority::new(identity.committee.clone(), authority, shard, identity.key.clone());
        identity.mint.iter().for_each(|keys| core.set_mint(keys.clone()));
        let (code, mut copy) = (Program { core, shard }, Copy::default());
        let lines = identity.genesis.to_vec();
        let _ = code.step(0, &mut copy, Input::Genesis { first_line: 0, lines, last: true });
        (code, copy)
    }

    fn step(&self, now_us: u64, copy: &mut Copy, input: Input) -> Result<Reply> {
        let effects = self.core.handle(now_us, input, &copy.state, &mut NoMeter)?;
        copy.state.apply(&effects.writes);
        Ok(effects.reply)
    }

    /// What this state answers, and what it has become.
    pub fn answer(&self, world: &World, copy: &mut Copy, envelope: &Envelope) -> Option<Body> {
        let now_us = world.clock_ms(self.core.index()) * 1_000;
        let odd = || Error::new(Code::Busy, "no");
        Some(match &envelope.body {
            Body::Vote(orders) => Body::Voted(match self.step(now_us, copy, Input::vote(orders.clone())) {
                Ok(Reply::Vote(reply)) => Ok(reply),
                Ok(_) => Err(odd()),
                Err(e) => Err(e),
            }),
            Body::Settle(certificate, orders) => {
                let input = Input::Settle { certificate: certificate.clone(), orders: orders.clone() };
                Body::Settled(match self.step(now_us, copy, input) {
                    Ok(Reply::Settle(reply)) => Ok(self.with_shares(copy, orders, reply)),
                    Ok(_) => Err(odd()),
                    Err(e) => Err(e),
                })
            }
            Body::Deliver(delivery) if envelope.from == Addr::Shard(self.core.index(), delivery.from_shard) => {
                Body::Delivered(match self.step(now_us, copy, Input::Deliver(delivery.clone())) {
                    Ok(Reply::Deliver(reply)) => Ok(reply),
                    Ok(_) => Err(odd()),
                    Err(e) => Err(e),
                })
            }
            Body::Follow(from) => {
                let end = self.core.totals(&copy.state).ok()?.next.1;
                Body::Followed(self.core.follow(&copy.state, *from, end).ok()?)
            }
            Body::Batch(root) => {
                let request = wire::BatchRequest { shard: self.shard, root: root.clone(), bitmap: Bytes::new() };
                Body::Batches(self.core.batch(&copy.state, &request).unwrap_or_default())
            }
            Body::Notes(notes) => Body::NotesAre(self.core.notes(&copy.state, notes)),
            _ => return None,
        })
    }

    /// With the shares for notes that it has settled.
    fn with_shares(&self, copy: &Copy, orders: &[Bytes], mut reply: wire::SettleReply) -> wire::SettleReply {
        let Ok(batch) = decode_batch(orders).map(|batch| batch.id) else { return reply };
        let bits = reply.acknowledgement.as_ref().and_then(|a| Bitmap::parse(&a.bitmap, batch.count).ok());
        if let Some(settled) = bits {
            reply.shares = self.core.settled_shares(&copy.state, &batch, orders, &settled).unwrap_or_default();
        }
        reply
    }
}
