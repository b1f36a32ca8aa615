//! Channels in the simulation: what the two sides of each know, and what they sign for each other outside of the log.
//!
//! Some sides watch over their money, some are away until all is over, and some rob whom they can
//! ([`crate::attackers::robs_channels`]).

pub mod moves;
pub mod papers;
pub mod party;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::keys::{Curve, SecretKey};
use florin_core::permission::Permission;
use florin_core::wire;

use crate::checkers::channels::Channel as Record;
use crate::client::Purse;
use crate::rng::Rng;
use crate::world::World;

/// Parties of channels in a run that has them. The last one is a stranger to all channels, and watches for others.
pub const PARTIES: usize = 5;
/// What each starts with, minor units.
pub const FUNDS: u64 = 2_000;
/// Channels that a run may open.
const CHANNELS_MAX: usize = 14;

/// Whether a seed has channels.
pub fn has_channels(seed: u64) -> bool {
    seed % 4 != 3
}

/// How a side goes about its channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// It redeems what it has whenever its money could go.
    Watchful,
    /// It signs, and sees nothing of the log until all is over.
    Absent,
    /// It takes what it can get.
    Cheat,
}

/// A side, as both know it.
pub struct Side {
    /// Which party.
    pub party: usize,
    /// Its address.
    pub address: Address,
    /// What signs for it in this channel.
    pub key: Arc<SecretKey>,
    /// The encoded permission of that key.
    pub permission: Bytes,
    /// How it goes about it.
    pub manner: Manner,
    /// What the other side lets it take out.
    pub permits: Vec<Permit>,
    /// What lets the watcher redeem for it.
    pub watch: Option<wire::SignedPermit>,
    /// Its last order failed: one of many may be what it failed for.
    pub picky: bool,
}

/// The other side's word that a side may take money out.
pub struct Permit {
    /// As it travels.
    pub signed: wire::SignedPermit,
    /// What the side may have taken out in all, minor units.
    pub upto: u64,
    /// Until when it is good, log time; 0 is for ever.
    pub until_ms: u64,
    /// Whether it is in some order.
    pub used: bool,
}

/// A voucher that was given from one to the other.
pub struct Promise {
    /// What it says.
    pub terms: wire::Voucher,
    /// As it travels.
    pub signed: wire::SignedVoucher,
    /// The secret of a lock.
    pub secret: Option<[u8; 32]>,
    /// Whether who redeems it knows the secret.
    pub known: bool,
    /// Whether its payee has signed that it gives it back.
    pub dead: bool,
    /// Whether it is in some order of its payee.
    pub sent: bool,
}

/// A lane as its payer has it.
#[derive(Default)]
pub struct Lane {
    /// Of the newest voucher.
    pub nonce: u64,
    /// What is agreed on, minor units.
    pub agreed: u64,
    /// A lock that is open.
    pub lock: Option<usize>,
    /// The lane and nonce of a merge that has to be redeemed first.
    pub merging: Option<(u32, u64)>,
}

/// A channel that somebody has opened, or tried to.
pub struct Channel {
    /// Its id.
    pub id: [u8; 32],
    /// The opener, and the other.
    pub sides: [Side; 2],
    /// Log time between settle and collect, ms.
    pub delay_ms: u64,
    /// Whether the other pays, too.
    pub two_way: bool,
    /// In the order of signing.
    pub promises: Vec<Promise>,
    /// By payer.
    pub lanes: [BTreeMap<u32, Lane>; 2],
}

/// What everyone shares.
#[derive(Default)]
pub struct Channels {
    /// All channels.
    pub list: Vec<Channel>,
    /// Addresses and account keys of parties.
    pub parties: Vec<(Address, Bytes, Arc<SecretKey>)>,
}

impl Channels {
    /// Whether more may be opened.
    pub fn allows_more(&self) -> bool {
        self.list.len() < CHANNELS_MAX
    }

    /// An account whose key can sign in channels, too.
    pub fn party(&mut self, network_id: u64, rng: &mut Rng) -> Purse {
        let seed = rng.bytes();
        let key = || SecretKey::from_seed(Curve::Ed25519, seed).expect("any seed is an ed25519 key");
        let permission = Permission::single(key().public()).encode();
        let address = Permission::address_of(network_id, &permission);
        self.parties.push((address, permission.clone(), Arc::new(key())));
        Purse { network_id, address, permission, key: key(), bls: None, seqnum: 0, prev_hash: 0, last_call: 0 }
    }
}

/// A channel as the log has it.
pub fn record(world: &World, at: usize) -> Option<&Record> {
    world.checks.log.channels().get(&world.channels.list[at].id)
}

/// Log time, ms.
pub fn now(world: &World) -> u64 {
    world.checks.log.time_ms()
}

/// Whether vouchers are still redeemed.
pub fn is_live(world: &World, at: usize) -> bool {
    record(world, at).is_some_and(|r| !r.collected && r.end_ms.is_none_or(|end| now(world) < end))
}

/// What a side may take out without the other's consent in the end: permits that are good, and what is announced.
pub fn reserved(world: &World, at: usize, side: u32) -> i128 {
    let Some(own) = record(world, at).map(|r| &r.sides[side as usize]) else { return 0 };
    let good = |until: u64| until == 0 || now(world) <= until;
    let permits = world.channels.list[at].sides[side as usize].permits.iter().filter(|p| good(p.until_ms));
    let most = permits.map(|p| i128::from(p.upto) - own.withdrawn).max().unwrap_or(0);
    most.max(0) + own.leaving.map_or(0, |(amount, _)| i128::from(amount))
}

/// What more a side could be promised and still be paid, whatever the other does, minor units.
pub fn cover(world: &World, at: usize, side: u32) -> i128 {
    let Some(r) = record(world, at) else { return 0 };
    let id = &world.channels.list[at].id;
    r.held() - reserved(world, at, 1 - side) - world.checks.log.channels().claims(id, side).max(0)
}

/// The newest voucher of each lane that a side can redeem, by their order, if it has this much time left for it, ms.
pub fn usable(world: &World, at: usize, side: u32, margin_ms: u64) -> Vec<usize> {
    let Some(r) = record(world, at) else { return Vec::new() };
    let time = now(world);
    let mut newest: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for (i, p) in world.channels.list[at].promises.iter().enumerate() {
        let t = &p.terms;
        let in_time = t.not_before_ms <= time && (t.not_after_ms == 0 || t.not_after_ms >= time + margin_ms);
        let knows = t.secret_hash.is_empty() || p.known;
        let news = r.lane(t.payer, t.lane).is_none_or(|(_, nonce)| t.nonce > nonce);
        if p.signed.signer != side && !p.dead && in_time && knows && news {
            newest.insert((t.payer, t.lane), i);
        }
    }
    let mut all: Vec<usize> = newest.into_values().collect();
    all.sort_unstable();
    all
}
