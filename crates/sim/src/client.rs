//! What wallets, workers and attackers have in common.

use std::rc::Rc;

use florin_core::address::Address;
use florin_core::content::{
    Credit, TYPE_CALL, TYPE_PAY, TYPE_RECOVER, TYPE_SET_PERMISSION, encode_call, encode_pay, encode_recover,
    encode_set_permission, encode_withdraw,
};
use florin_core::envelope::{self, Body, next_hash, order_id};
use florin_core::keys::{Curve, POSSESSION_BYTE, SecretKey};
use florin_core::permission::Permission;
use florin_core::wire;

use bytes::Bytes;

use crate::cash::odd_request;
use crate::checkers::cash::Held;
use crate::message::{Addr, Envelope};
use crate::rng::Rng;
use crate::world::{Micros, Timer, World};

/// Somebody who talks to shards.
pub trait Client {
    /// Before anything happens.
    fn start(&mut self, world: &mut World);
    /// A message for it.
    fn on_message(&mut self, world: &mut World, envelope: Envelope);
    /// Its timer.
    fn on_timer(&mut self, world: &mut World, tag: u64);
    /// What it still waits for; asked once faults are over.
    fn unfinished(&self) -> Option<String>;
    /// Notes that it has, for the checkers.
    fn notes(&self) -> Vec<Held> {
        Vec::new()
    }
}

/// Somebody with a chain of orders, who can sign more than one for a place in it.
pub trait Signer {
    /// Seqnum and link of what comes next.
    fn chain(&self) -> (u32, u64);
    /// Signs something that would come after this seqnum and link, and does not remember it.
    fn draft_after(&self, world: &mut World, seqnum: u32, prev_hash: u64) -> SignedOrder;
    /// Makes a signed order the last one of the chain.
    fn advance(&mut self, order: &SignedOrder);
    /// The shard that keeps it.
    fn shard(&self, shards: u32) -> u32;
}

impl Signer for Purse {
    fn chain(&self) -> (u32, u64) {
        (self.seqnum, self.prev_hash)
    }

    fn draft_after(&self, world: &mut World, seqnum: u32, prev_hash: u64) -> SignedOrder {
        if let Some(odd) = odd_request(world, secret_of(&self.address, seqnum)) {
            return Purse::draft_after(self, seqnum, prev_hash, &Wish::Withdraw(vec![odd]));
        }
        let amount = match world.rng.between(1, 400) {
            // What comes next is signed with the old key all the same.
            1..=6 => {
                let seed = SecretKey::from_seed(Curve::Ed25519, secret_of(&self.address, seqnum)).ok();
                return Purse::draft_after(self, seqnum, prev_hash, &seed.map_or(Wish::Recover, Wish::Rekey));
            }
            // One more than there is.
            7..=16 => u64::try_from(world.checks.balance(self.address.as_bytes())).unwrap_or(0) + 1,
            amount => amount,
        };
        let pay = Wish::Pay(vec![Credit { address: payee(world), amount }]);
        Purse::draft_after(self, seqnum, prev_hash, &pay)
    }

    fn advance(&mut self, order: &SignedOrder) {
        Purse::advance(self, order);
    }

    fn shard(&self, shards: u32) -> u32 {
        Purse::shard(self, shards)
    }
}

/// A secret of an account that does not matter.
fn secret_of(address: &Address, seqnum: u32) -> [u8; 32] {
    let mut secret = *address.as_bytes();
    secret[24..].copy_from_slice(&u64::from(seqnum).to_be_bytes());
    secret
}

/// An account's keys and its place in its chain.
pub struct Purse {
    /// The network.
    pub network_id: u64,
    /// What others pay to.
    pub address: Address,
    /// The encoded first permission.
    pub permission: Bytes,
    /// The key that signs now.
    pub key: SecretKey,
    /// The BLS key beside it, of those who sign roots of batches.
    pub bls: Option<Rc<SecretKey>>,
    /// Last seqnum signed.
    pub seqnum: u32,
    /// prev_hash of the next order.
    pub prev_hash: u64,
    /// Seqnum of the last CALL signed.
    pub last_call: u32,
}

/// What to sign.
pub enum Wish {
    /// Pay these.
    Pay(Vec<Credit>),
    /// Ask for notes.
    Withdraw(Vec<wire::NoteRequest>),
    /// Change to this key.
    Rekey(SecretKey),
    /// Set this BLS key beside the key that signs now.
    Bls(Rc<SecretKey>),
    /// Operate on shared objects.
    Call(Vec<wire::Input>, Vec<wire::output::Kind>),
    /// Ask the log to free the account.
    Recover,
}

/// A signed order.
pub struct SignedOrder {
    /// The envelope.
    pub raw: Bytes,
    /// Its id.
    pub id: [u8; 32],
    /// Its seqnum.
    pub seqnum: u32,
    /// Whether it is a CALL.
    pub call: bool,
}

/// A key from chance.
pub fn new_key(rng: &mut Rng) -> SecretKey {
    SecretKey::from_seed(Curve::Ed25519, rng.bytes()).expect("any seed is an ed25519 key")
}

/// A BLS key from chance.
pub fn new_bls_key(rng: &mut Rng) -> SecretKey {
    SecretKey::from_seed(Curve::Bls, rng.bytes()).expect("any seed is a BLS key")
}

/// The encoded permission of two keys, each enough alone.
fn with_bls(key: &SecretKey, bls: &SecretKey) -> Bytes {
    Permission { threshold: 1, keys: vec![(key.public(), 1), (bls.public(), 1)], actor: 0 }.encode()
}

impl Purse {
    /// An account that nobody knows yet.
    pub fn new(network_id: u64, rng: &mut Rng) -> Self {
        let key = new_key(rng);
        let permission = Permission::single(key.public()).encode();
        let address = Permission::address_of(network_id, &permission);
        Purse { network_id, address, permission, key, bls: None, seqnum: 0, prev_hash: 0, last_call: 0 }
    }

    /// One that signs roots of batches.
    pub fn of_sender(network_id: u64, rng: &mut Rng) -> Self {
        let (key, bls) = (new_key(rng), Rc::new(new_bls_key(rng)));
        let permission = with_bls(&key, &bls);
        let address = Permission::address_of(network_id, &permission);
        Purse { network_id, address, permission, key, bls: Some(bls), seqnum: 0, prev_hash: 0, last_call: 0 }
    }

    /// Signs what would be the next order, and does not remember it.
    pub fn draft(&self, wish: &Wish) -> SignedOrder {
        self.draft_after(self.seqnum, self.prev_hash, wish)
    }

    /// Signs what would be the order after one that is not remembered.
    pub fn draft_after(&self, seqnum: u32, prev_hash: u64, wish: &Wish) -> SignedOrder {
        let seqnum = seqnum + 1;
        let open = (seqnum == 1).then(|| self.permission.clone());
        let opens = open.is_some();
        let (transaction_type, content) = match wish {
            Wish::Pay(credits) => (TYPE_PAY, encode_pay(credits, "", open)),
            Wish::Withdraw(notes) => (TYPE_PAY, encode_withdraw(&[], notes, "", open)),
            Wish::Rekey(key) => {
                (TYPE_SET_PERMISSION, encode_set_permission(Permission::single(key.public()).encode(), open))
            }
            Wish::Bls(bls) => (TYPE_SET_PERMISSION, encode_set_permission(with_bls(&self.key, bls), open)),
            Wish::Call(inputs, outputs) => {
                let call = wire::Call {
                    account: Bytes::copy_from_slice(self.address.as_bytes()),
                    previous_call: self.last_call,
                    inputs: inputs.clone(),
                    outputs: outputs.iter().map(|kind| wire::Output { kind: Some(kind.clone()) }).collect(),
                    memo: String::new(),
                    open: open.unwrap_or_default(),
                };
                (TYPE_CALL, encode_call(&call))
            }
            Wish::Recover => (TYPE_RECOVER, encode_recover(&self.address, open)),
        };
        let body = envelope::encode_body(&Body {
            network_id: self.network_id,
            actor: self.address.actor(),
            cosignors: Vec::new(),
            seqnum,
            prev_hash,
            transaction_type,
            content,
        });
        let mut authority = envelope::Authority::of(&[self.key.sign_body(&body)]);
        // BLS keys that it sets: that of `open`, then another.
        let set = self.bls.iter().filter(|_| opens).chain(match wish {
            Wish::Bls(bls) => Some(bls),
            _ => None,
        });
        let proofs = set.filter_map(|bls| Some(bls.bls()?.prove(self.network_id, self.address.actor())));
        authority.sigs.extend(proofs.map(|proof| Bytes::from([&[POSSESSION_BYTE], &proof[..]].concat())));
        let raw = envelope::encode_envelope(&body, &[authority]);
        SignedOrder { raw, id: order_id(&body), seqnum, call: transaction_type == TYPE_CALL }
    }

    /// Makes a signed order the last one of the chain.
    pub fn advance(&mut self, order: &SignedOrder) {
        self.seqnum = order.seqnum;
        self.prev_hash = next_hash(&order.id);
        if order.call {
            self.last_call = order.seqnum;
        }
    }

    /// The shard that keeps it.
    pub fn shard(&self, shards: u32) -> u32 {
        self.address.shard(shards)
    }
}

/// Sets a client's timer. That of what it does of itself has tag 0 and is slower in a slow world, until faults are over.
pub fn wake(world: &mut World, client: Addr, low: Micros, high: Micros, tag: u64) {
    let slower = if tag == 0 && !world.calm { world.options.pace } else { 1 };
    let delay = slower * world.rng.between(low, high);
    world.timer(client, 0, delay, Timer::Client(tag));
}

/// An address to pay.
pub fn payee(world: &mut World) -> Address {
    let at = world.rng.index(world.directory.len());
    world.directory[at]
}
