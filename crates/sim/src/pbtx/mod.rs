//! PBTX networks in the simulation: which there are, who their actors are, and everybody's keys.

pub mod actors;
pub mod admin;

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::content::{TYPE_ROTATE, encode_rotate};
use florin_core::envelope::{self, Body, encode_body, next_hash, order_id};
use florin_core::keys::{Curve, PublicKey, SecretKey};
use florin_core::network_flags::{HISTORY, ORDERED, RAW_NOTIFY, SKIP_SEQ_AND_PREVHASH};
use florin_core::permission::Permission;

use crate::client::{SignedOrder, Signer};
use crate::rng::Rng;
use crate::world::{Micros, World};

/// Network ids begin here; wallets play with those below.
const FIRST_ID: u64 = 40;
/// Honest actors of a network.
const ACTORS: u64 = 3;
/// Actors that sign twice.
const CHEATS: u64 = 2;
/// Ids of the latter, and of those that strangers register.
const CHEATS_FROM: u64 = 90;

/// A network that will be registered.
#[derive(Clone, Debug)]
pub struct Net {
    /// Its id.
    pub id: u64,
    /// Its flags.
    pub flags: u32,
    /// Its honest actors.
    pub actors: Vec<u64>,
    /// Those that are not.
    pub cheats: Vec<u64>,
    /// What each of them is registered with first.
    pub first: BTreeMap<u64, Bytes>,
}

impl Net {
    /// Whether it has sequence numbers.
    pub fn counts(&self) -> bool {
        self.flags & SKIP_SEQ_AND_PREVHASH == 0
    }
}

/// All networks, and the secret keys of all actors.
#[derive(Default)]
pub struct Plan {
    /// The networks.
    pub networks: Vec<Net>,
    /// By network and actor: what an honest actor waits for, and since when.
    pub fronts: BTreeMap<(u64, u64), ([u8; 32], Micros)>,
    keys: BTreeMap<PublicKey, SecretKey>,
}

impl Plan {
    /// Three networks of three kinds.
    pub fn draw(rng: &mut Rng, attackers: bool) -> Plan {
        let mut plan = Plan::default();
        let mut kinds = vec![0, ORDERED, SKIP_SEQ_AND_PREVHASH, HISTORY];
        kinds.remove(rng.index(kinds.len()));
        for (i, kind) in kinds.into_iter().enumerate() {
            let more = [HISTORY, RAW_NOTIFY, 1 << 16].into_iter().filter(|_| rng.chance(300)).fold(0, |f, b| f | b);
            let actors: Vec<u64> = (1..=ACTORS).collect();
            let cheats = if attackers { CHEATS } else { 0 };
            let cheats: Vec<u64> = (CHEATS_FROM..CHEATS_FROM + cheats).collect();
            let all: Vec<u64> = actors.iter().chain(&cheats).copied().collect();
            let first = all.into_iter().map(|actor| (actor, plan.permission(rng, actor))).collect();
            let id = FIRST_ID + i as u64 + 10 * rng.below(3);
            plan.networks.push(Net { id, flags: kind | more, actors, cheats, first });
        }
        plan
    }

    /// A new key, mostly ed25519: the others cost more.
    pub fn key(&mut self, rng: &mut Rng) -> PublicKey {
        let curve = match rng.below(12) {
            0 => Curve::K1,
            1 => Curve::R1,
            _ => Curve::Ed25519,
        };
        let key = SecretKey::from_seed(curve, rng.bytes()).expect("a number below the order, but for 1 in 2^32");
        let public = key.public();
        self.keys.insert(public, key);
        public
    }

    /// A permission of new keys: mostly one, or two of which both are needed.
    pub fn permission(&mut self, rng: &mut Rng, actor: u64) -> Bytes {
        let count = if rng.chance(200) { 2 } else { 1 };
        let keys: Vec<(PublicKey, u32)> = (0..count).map(|_| (self.key(rng), 1)).collect();
        Permission { threshold: count, keys, actor }.encode()
    }

    /// The secret key of a public one that was made here.
    pub fn secret(&self, key: &PublicKey) -> Option<&SecretKey> {
        self.keys.get(key)
    }
}

/// Signs a body for an actor and its cosignors, each with the keys that it has as far as the log has said.
pub fn sign(world: &mut World, network: u64, body: &Bytes, signers: &[u64]) -> Bytes {
    sign_with(world, network, body, signers, usize::MAX)
}

/// The same with so many keys of each, at most.
fn sign_with(world: &mut World, network: u64, body: &Bytes, signers: &[u64], most: usize) -> Bytes {
    let (mut authorities, mut keys) = (Vec::new(), Vec::new());
    let first = world.pbtx.networks.iter().find(|n| n.id == network).map(|n| &n.first);
    for actor in signers {
        let newest = world.checks.log.registry().networks.actor(network, *actor).map(|a| a.permission.clone());
        let kept = newest.or_else(|| first.and_then(|all| all.get(actor)).cloned()).unwrap_or_default();
        let permission = Permission::decode_actor(&kept).ok();
        let known = permission.iter().flat_map(|p| &p.keys).filter_map(|(key, _)| world.pbtx.secret(key));
        let secrets: Vec<&SecretKey> = known.take(most).collect();
        let signatures: Vec<_> = secrets.iter().map(|key| key.sign_body(body)).collect();
        keys.push(secrets.iter().map(|key| Bytes::copy_from_slice(key.public().as_bytes())).collect());
        authorities.push(envelope::Authority::of(&signatures));
    }
    let raw = envelope::encode_envelope(body, &authorities);
    world.checks.signed(&raw, keys);
    raw
}

/// A change to new keys, of the permission that the actor has as far as the log has said.
fn rotation(world: &mut World, network: u64, actor: u64) -> Bytes {
    let generation = world.checks.log.registry().networks.actor(network, actor).map_or(0, |a| a.generation);
    let World { pbtx, rng, .. } = world;
    encode_rotate(pbtx.permission(rng, actor), generation)
}

/// An actor that may sign two orders for one seqnum.
pub struct Cheat {
    network: u64,
    actor: u64,
    seqnum: u32,
    prev_hash: u64,
}

impl Cheat {
    /// One that has signed nothing yet.
    pub fn new(network: u64, actor: u64) -> Cheat {
        Cheat { network, actor, seqnum: 0, prev_hash: 0 }
    }
}

impl Signer for Cheat {
    fn chain(&self) -> (u32, u64) {
        (self.seqnum, self.prev_hash)
    }

    fn draft_after(&self, world: &mut World, seqnum: u32, prev_hash: u64) -> SignedOrder {
        let (transaction_type, content) = match world.rng.below(5) {
            // One side may change the keys.
            0 => {
                let content = rotation(world, self.network, self.actor);
                (TYPE_ROTATE, content)
            }
            1 => (TYPE_ROTATE, Bytes::from_static(b"no permission")),
            _ => (world.rng.below(9) as u32, Bytes::copy_from_slice(&world.rng.bytes()[..8])),
        };
        let body = encode_body(&Body {
            network_id: self.network,
            actor: self.actor,
            cosignors: Vec::new(),
            seqnum: seqnum + 1,
            prev_hash,
            transaction_type,
            content,
        });
        // Where two keys are needed, one is not enough.
        let most = if transaction_type == 8 { 1 } else { usize::MAX };
        let raw = sign_with(world, self.network, &body, &[self.actor], most);
        SignedOrder { raw, id: order_id(&body), seqnum: seqnum + 1, call: false }
    }

    fn advance(&mut self, order: &SignedOrder) {
        (self.seqnum, self.prev_hash) = (order.seqnum, next_hash(&order.id));
    }

    fn shard(&self, shards: u32) -> u32 {
        (self.network % u64::from(shards)) as u32
    }
}
