//! E-cash in the simulation: keys, notes in hand, and what goes from hand to hand.
//!
//! Curve arithmetic is what costs here, so two of three seeds have cash, with some dozens of notes of few tiers.

pub mod wallet;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use florin_core::bearer::{NoteAsked, Spend, lock_nonce};
use florin_core::cash::blind::{BlindedNonce, Nonce, NoteSignature};
use florin_core::cash::derive::{CashSeed, NoteSecrets};
use florin_core::cash::mint_keys::MintKeys;
use florin_core::cash::testing;
use florin_core::content::Credit;
use florin_core::wire;

use crate::attackers::votes_for_everything::flip;
use crate::checkers::cash::Held;
use crate::message::Addr;
use crate::world::World;

/// Tiers of the keys: notes of 1 to 16 minor units.
pub const TIERS: u32 = 5;
/// Notes that a run may ask for, those of attackers included.
const NOTES_MAX: u64 = 36;

/// Whether a seed has cash.
pub fn has_cash(seed: u64) -> bool {
    !seed.is_multiple_of(3)
}

/// The keys of a committee of `n`, dealt once.
pub fn keys(n: u32) -> Vec<Arc<MintKeys>> {
    static KEYS: OnceLock<Mutex<BTreeMap<u32, Vec<Arc<MintKeys>>>>> = OnceLock::new();
    let mut all = KEYS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(n).or_insert_with(|| testing::mint(n, TIERS as usize)).clone()
}

/// What everyone shares.
#[derive(Default)]
pub struct Cash {
    /// By authority; none if there is no cash in this run.
    pub keys: Vec<Arc<MintKeys>>,
    /// Notes that others have given to a wallet, as text that it still has to write down.
    pub mail: BTreeMap<Addr, Vec<Gift>>,
    /// Keys to which notes for a wallet can be locked, and whose they are.
    pub receivers: Vec<(Addr, Arc<NoteSecrets>)>,
    /// What wallets have asked for: tier and blinded nonce, which others may ask for, too.
    pub requests: Vec<(u32, Bytes)>,
    /// Somebody who spends twice, if there is such a one.
    pub cheat: Option<Addr>,
    /// Notes asked for so far.
    pub asked: u64,
    /// When faults were over.
    pub calm_since: Option<u64>,
}

impl Cash {
    /// Whether that many notes more may be asked for.
    pub fn allows(&self, notes: usize) -> bool {
        self.asked + notes as u64 <= NOTES_MAX
    }

    /// Puts notes into somebody's mail.
    pub fn give(&mut self, to: Addr, coins: Vec<Coin>) {
        self.mail.entry(to).or_default().push(Gift { coins });
    }
}

/// Notes from somebody.
#[derive(Clone)]
pub struct Gift {
    /// As they were given.
    pub coins: Vec<Coin>,
}

/// The lock of a note, and who spends it.
#[derive(Clone)]
pub struct Lock {
    /// As it stands in an order.
    pub lock: wire::NoteLock,
    /// Whether its sender takes it back.
    pub returned: bool,
}

/// A note in hand.
#[derive(Clone)]
pub struct Coin {
    /// It is worth 2^tier minor units.
    pub tier: u32,
    /// The key that spends it.
    pub key: Arc<NoteSecrets>,
    /// If it is locked.
    pub lock: Option<Lock>,
    /// What makes it a note.
    pub signature: [u8; 48],
}

impl Coin {
    /// What is marked spent.
    pub fn nonce(&self) -> Nonce {
        self.lock.as_ref().map_or_else(|| self.key.nonce(), |lock| lock_nonce(&lock.lock))
    }

    /// Minor units.
    pub fn worth(&self) -> u64 {
        1 << self.tier
    }

    /// Whether the committee has signed it: what its receiver can see without a network.
    pub fn is_true(&self, keys: &MintKeys) -> bool {
        let signature = NoteSignature::parse(&self.signature);
        let key = keys.tier_key(self.tier);
        matches!((signature, key), (Ok(signature), Some(key)) if key.verifies(&self.nonce(), &signature))
    }

    /// For the checkers.
    pub fn held(&self, keys: &MintKeys) -> Held {
        Held { nonce: self.nonce().0, tier: self.tier, is_true: self.is_true(keys) }
    }

    /// As an order spends it.
    pub fn spend(&self) -> Spend {
        let mut input = wire::NoteInput { tier: self.tier, ..Default::default() };
        match &self.lock {
            None => input.nonce = Bytes::copy_from_slice(&self.nonce().0),
            Some(lock) => (input.lock, input.returned) = (Some(lock.lock.clone()), lock.returned),
        }
        let key = self.key.clone();
        Spend { input, signature: self.signature, sign: Box::new(move |message| key.sign(message)) }
    }
}

/// A note that is asked for.
#[derive(Clone)]
pub struct Asked {
    /// It is worth 2^tier minor units.
    pub tier: u32,
    /// Its blinding, and the key that spends it (or that takes it back, if it is locked).
    pub secrets: Arc<NoteSecrets>,
    /// To whom it is locked, if it is.
    pub lock: Option<(wire::NoteLock, Addr)>,
    /// What is signed.
    pub blinded: BlindedNonce,
}

impl Asked {
    /// A note of this tier with these secrets.
    pub fn new(tier: u32, secrets: Arc<NoteSecrets>, lock: Option<(wire::NoteLock, Addr)>) -> Asked {
        let nonce = lock.as_ref().map_or_else(|| secrets.nonce(), |(lock, _)| lock_nonce(lock));
        let blinded = nonce.blind(secrets.blinding());
        Asked { tier, secrets, lock, blinded }
    }

    /// What is marked spent, once it is spent.
    pub fn nonce(&self) -> Nonce {
        self.lock.as_ref().map_or_else(|| self.secrets.nonce(), |(lock, _)| lock_nonce(lock))
    }

    /// As it stands in an order.
    pub fn request(&self) -> wire::NoteRequest {
        NoteAsked::request(self.tier, &self.blinded)
    }

    /// What authorities get to sign, as they get it.
    pub fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.blinded.to_bytes())
    }
}

/// The envelope of a bearer order, told to the checkers as signed by the owners of its notes.
pub fn bearer(world: &mut World, coins: &[Coin], credits: &[Credit], asked: &[Asked]) -> (Bytes, [u8; 32]) {
    let note = |a: &Asked| wire::Output { kind: Some(wire::output::Kind::Note(a.request())) };
    let outputs = credits.iter().map(florin_core::content::credit_output).chain(asked.iter().map(note)).collect();
    let spends: Vec<Spend> = coins.iter().map(Coin::spend).collect();
    let raw = florin_core::bearer::build(world.committee.network.id, &spends, outputs, "", None);
    let id = crate::checkers::orders::id_of(&raw).unwrap_or_default();
    coins.iter().for_each(|coin| world.checks.cash.signed(id, coin.nonce().0));
    (raw, id)
}

/// Notes for which somebody with bad intentions asks: what another has asked for, what nobody may have, or own ones.
pub fn odd_request(world: &mut World, secret: [u8; 32]) -> Option<wire::NoteRequest> {
    if world.cash.keys.is_empty() || !world.rng.chance(250) {
        return None;
    }
    world.fault("odd requests of notes");
    let tier = world.rng.below(u64::from(TIERS)) as u32;
    let own = CashSeed::new(&secret, world.committee.network.id).note(1);
    let blinded = Bytes::copy_from_slice(&own.blinded().to_bytes());
    let known = (!world.cash.requests.is_empty()).then(|| {
        let at = world.rng.index(world.cash.requests.len());
        world.cash.requests[at].clone()
    });
    let (tier, blinded) = match (world.rng.below(6), known) {
        (0, _) => (tier, [&[0xc0][..], &[0; 47]].concat().into()),
        (1, _) => (TIERS + tier, blinded),
        (2, _) => {
            let flipped = flip(world, &blinded);
            // The sign of a point is a bit: without it nobody has a nonce for it.
            if BlindedNonce::parse(&flipped).is_ok() {
                world.checks.cash.made(flipped.clone(), [0; 32]);
            }
            (tier, flipped)
        }
        (_, Some(known)) => known,
        _ => {
            world.checks.cash.made(blinded.clone(), own.nonce().0);
            (tier, blinded)
        }
    };
    Some(wire::NoteRequest { tier, blinded })
}

/// The tiers of which an amount is made, biggest first.
pub fn tiers_of(mut amount: u64) -> Vec<u32> {
    let mut tiers = Vec::new();
    for tier in (0..TIERS).rev() {
        while amount >= 1 << tier {
            amount -= 1 << tier;
            tiers.push(tier);
        }
    }
    tiers
}
