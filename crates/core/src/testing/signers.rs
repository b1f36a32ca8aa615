//! Accounts and actors that sign, for tests.

use std::sync::Arc;

use bytes::Bytes;

use super::{NETWORK_ID, secret};
use crate::address::Address;
use crate::authority::state::Account;
use crate::bearer::NoteAsked;
use crate::bls;
use crate::cash::testing::Asked;
use crate::certificate::BatchId;
use crate::committee::Committee;
use crate::content::{
    Content, Credit, TYPE_CALL, TYPE_PAY, TYPE_RECOVER, TYPE_ROTATE, TYPE_SET_PERMISSION, encode_call, encode_pay,
    encode_recover, encode_rotate, encode_set_permission, encode_withdraw,
};
use crate::distilled;
use crate::envelope::{self, Body, Order, encode_body, encode_envelope};
use crate::keys::{Curve, POSSESSION_BYTE, SecretKey};
use crate::permission::Permission;
use crate::wire;

/// An account that signs orders one after another.
#[derive(Clone)]
pub struct Signer {
    /// Keys that sign, the first for a single one.
    pub keys: Arc<Vec<SecretKey>>,
    /// BLS keys: the first signs roots of batches, and all are proved where an order sets them.
    pub bls: Arc<Vec<SecretKey>>,
    /// The permission that opened the account.
    pub permission: Permission,
    /// The account's address.
    pub address: Address,
    /// Of the last order signed.
    pub seqnum: u32,
    /// What the next order names.
    pub prev_hash: u64,
    /// Its last CALL.
    pub last_call: u32,
    /// The network it pays in.
    pub network_id: u64,
}

impl Signer {
    /// An account with one ed25519 key.
    pub fn new(number: u64) -> Signer {
        let key = secret(Curve::Ed25519, number);
        Signer::with(Permission::single(key.public()), vec![key])
    }

    /// An account of any permission, and the keys that sign for it.
    pub fn with(permission: Permission, keys: Vec<SecretKey>) -> Signer {
        let address = permission.address(NETWORK_ID);
        let (keys, bls, network_id) = (Arc::new(keys), Arc::default(), NETWORK_ID);
        Signer { keys, bls, permission, address, seqnum: 0, prev_hash: 0, last_call: 0, network_id }
    }

    /// An account with an ed25519 key, which signs its orders, and a BLS key, which signs roots of batches.
    pub fn distilled(number: u64) -> Signer {
        let (key, bls) = (secret(Curve::Ed25519, number), secret(Curve::Bls, number));
        let keys = vec![(key.public(), 1), (bls.public(), 1)];
        let signer = Signer::with(Permission { threshold: 1, keys, actor: 0 }, vec![key]);
        Signer { bls: Arc::new(vec![bls]), ..signer }
    }

    /// Its signature of the root of a batch, shown or not.
    pub fn sign_root(&self, committee: &Committee, batch: &BatchId) -> bls::SignatureBytes {
        let key = self.bls.first().and_then(SecretKey::bls).expect("an account with a BLS key");
        key.sign(&distilled::root_message(committee, batch))
    }

    /// The same keys in another network, where the account has another address.
    pub fn in_network(self, network_id: u64) -> Signer {
        Signer { address: self.permission.address(network_id), network_id, ..self }
    }

    /// The first account from `from` on that lives on a shard.
    pub fn on_shard(shard: u32, shards: u32, from: u64) -> Signer {
        (from..).map(Signer::new).find(|s| s.address.shard(shards) == shard).expect("half of all do")
    }

    /// The actor's id.
    pub fn actor(&self) -> u64 {
        self.address.actor()
    }

    /// `open` of the next order.
    pub fn open(&self) -> Option<Bytes> {
        (self.seqnum == 0).then(|| self.permission.encode())
    }

    /// Signs the next payment.
    pub fn pay(&mut self, outputs: &[Credit], memo: &str) -> Bytes {
        let content = encode_pay(outputs, memo, self.open());
        self.order(TYPE_PAY, content)
    }

    /// Signs a payment to itself, as notes.
    pub fn withdraw(&mut self, asked: &[Asked]) -> Bytes {
        let requests: Vec<wire::NoteRequest> =
            asked.iter().map(|a| NoteAsked::request(a.tier, &a.secrets.blinded())).collect();
        let content = encode_withdraw(&[], &requests, "", self.open());
        self.order(TYPE_PAY, content)
    }

    /// Signs a change of keys; what follows is signed with the new ones.
    pub fn set_permission(&mut self, permission: &Permission, keys: Vec<SecretKey>) -> Bytes {
        let content = encode_set_permission(permission.encode(), self.open());
        let order = self.order(TYPE_SET_PERMISSION, content);
        self.keys = Arc::new(keys);
        order
    }

    /// Signs an operation on shared objects.
    pub fn call(&mut self, inputs: Vec<wire::Input>, outputs: Vec<wire::output::Kind>) -> Bytes {
        let call = wire::Call {
            account: Bytes::copy_from_slice(self.address.as_bytes()),
            previous_call: self.last_call,
            inputs,
            outputs: outputs.into_iter().map(|kind| wire::Output { kind: Some(kind) }).collect(),
            memo: String::new(),
            open: self.open().unwrap_or_default(),
        };
        let order = self.order(TYPE_CALL, encode_call(&call));
        self.last_call = self.seqnum;
        order
    }

    /// Signs a request to free the account at its next seqnum. The chain does not go on: what follows depends on
    /// what the log decides.
    pub fn recover(&self) -> Bytes {
        self.sign(&self.next_body(TYPE_RECOVER, encode_recover(&self.address, self.open())))
    }

    /// Goes on from what an authority says of the account.
    pub fn resume(&mut self, account: &Account) {
        (self.seqnum, self.prev_hash, self.last_call) = (account.seqnum, account.prev_hash, account.last_call);
    }

    /// Signs the next order, whatever it says.
    pub fn order(&mut self, transaction_type: u32, content: Bytes) -> Bytes {
        let body = self.next_body(transaction_type, content);
        self.seqnum += 1;
        self.prev_hash = envelope::next_hash(&envelope::order_id(&encode_body(&body)));
        self.sign(&body)
    }

    /// The body of the next order.
    pub fn next_body(&self, transaction_type: u32, content: Bytes) -> Body {
        Body {
            network_id: self.network_id,
            actor: self.actor(),
            cosignors: Vec::new(),
            seqnum: self.seqnum.wrapping_add(1),
            prev_hash: self.prev_hash,
            transaction_type,
            content,
        }
    }

    /// Signs a body with all keys, and proves the BLS keys that it sets.
    pub fn sign(&self, body: &Body) -> Bytes {
        let body = encode_body(body);
        let sigs: Vec<_> = self.keys.iter().map(|key| key.sign_body(&body)).collect();
        let mut authority = envelope::Authority::of(&sigs);
        authority.sigs.extend(self.proofs(&body));
        encode_envelope(&body, &[authority])
    }

    fn proofs(&self, body: &Bytes) -> Vec<Bytes> {
        if self.bls.is_empty() {
            return Vec::new();
        }
        let order = Order::decode_body(body.clone()).expect("a body");
        let sets = Content::decode(&order).and_then(|content| content.sets_bls_keys()).unwrap_or_default();
        let own = |key: &bls::Key| self.bls.iter().filter_map(SecretKey::bls).find(|own| own.public() == key);
        let prove = |key: &bls::Key| -> Option<Bytes> {
            let proof = own(key)?.prove(order.network_id, order.actor);
            Some([&[POSSESSION_BYTE], &proof[..]].concat().into())
        };
        sets.iter().filter_map(prove).collect()
    }
}

/// An actor of a PBTX network, with the keys that sign for it.
#[derive(Clone)]
pub struct Actor {
    /// Its network.
    pub network_id: u64,
    /// What it is registered with.
    pub permission: Permission,
    /// All its keys.
    pub keys: Arc<Vec<SecretKey>>,
    /// Of the last order signed.
    pub seqnum: u32,
    /// What the next order names.
    pub prev_hash: u64,
    /// Of its permission.
    pub generation: u32,
}

impl Actor {
    /// An actor with one key of a curve.
    pub fn new(network_id: u64, actor: u64, curve: Curve) -> Actor {
        let key = secret(curve, actor);
        let permission = Permission { actor, ..Permission::single(key.public()) };
        Actor { network_id, permission, keys: Arc::new(vec![key]), seqnum: 0, prev_hash: 0, generation: 1 }
    }

    /// What registers it: a command of its network's admin.
    pub fn registration(&self) -> wire::output::Kind {
        let kind = Some(wire::network_command::Kind::Actor(self.permission.encode()));
        wire::output::Kind::Network(wire::NetworkCommand { network_id: self.network_id, kind })
    }

    /// Signs its next transaction, with others who agree.
    pub fn order(&mut self, transaction_type: u32, content: &[u8], cosignors: &[&Actor]) -> Bytes {
        self.seqnum += 1;
        let body = encode_body(&Body {
            network_id: self.network_id,
            actor: self.permission.actor,
            cosignors: cosignors.iter().map(|a| a.permission.actor).collect(),
            seqnum: self.seqnum,
            prev_hash: self.prev_hash,
            transaction_type,
            content: Bytes::copy_from_slice(content),
        });
        self.prev_hash = envelope::next_hash(&envelope::order_id(&body));
        let signed = |actor: &Actor| {
            let sigs: Vec<_> = actor.keys.iter().map(|key| key.sign_body(&body)).collect();
            envelope::Authority::of(&sigs)
        };
        let authorities: Vec<_> = std::iter::once(&*self).chain(cosignors.iter().copied()).map(signed).collect();
        encode_envelope(&body, &authorities)
    }

    /// Signs a change of its keys; what follows is signed with the new ones.
    pub fn rotate(&mut self, keys: Vec<SecretKey>) -> Bytes {
        let keys_and_weights = keys.iter().map(|key| (key.public(), 1)).collect();
        let permission = Permission { threshold: 1, keys: keys_and_weights, actor: self.permission.actor };
        let order = self.order(TYPE_ROTATE, &encode_rotate(permission.encode(), self.generation), &[]);
        self.generation += 1;
        (self.permission, self.keys) = (permission, Arc::new(keys));
        order
    }
}

/// The same order with a signature that does not verify.
pub fn spoil(order: &Bytes) -> Bytes {
    let mut spoiled = order.to_vec();
    let last = spoiled.len() - 40;
    spoiled[last] ^= 1;
    spoiled.into()
}
