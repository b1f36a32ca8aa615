//! Hashes, data and signatures as AlephBFT wants them.
//!
//! AlephBFT signs bare 32-byte hashes, of units and of alerts alike. Here every message gets the domain tag, the
//! committee, the epoch and the session in front, so nothing signed in one is valid in another. Within a session a unit's
//! bytes never pass for an alert's: where a unit has the number of its parents, an alert has an authority's index,
//! whose length-prefixed reading is below a quarter of the committee's size, and [`super::wire`] asks for exactly that size.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher as _, RandomState};
use std::sync::{Arc, Mutex};

use aleph_bft::{Hasher, Index, Keychain, MultiKeychain, NodeCount, NodeIndex, SignatureSet};
use bytes::Bytes;
use florin_core::signatures::{AuthorityKey, AuthorityPublicKey, PreparedKey};
use parity_scale_codec::{Compact, Decode, Encode, Error as CodecError, Input, Output};
use sha2::{Digest, Sha256};

use super::UNIT_BYTES_MAX;

/// Domain tag of all that the engine signs.
const DOMAIN: &[u8] = b"florin-ordering-v1";
/// Signatures remembered as true; AlephBFT asks again for every copy of a unit that peers repeat.
const REMEMBERED: usize = 16_384;
/// Length of the only kind of message that [`Keys::token`] signs; no hash is as long.
const NEWEST_RESPONSE: usize = 25;

/// An ed25519 signature.
pub(super) type Sig = [u8; 64];
/// A sha256 hash.
pub(super) type Hash = [u8; 32];

/// sha256.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sha;

impl Hasher for Sha {
    type Hash = Hash;

    fn hash(bytes: &[u8]) -> Hash {
        Sha256::digest(bytes).into()
    }
}

/// The data of a unit: cheap to clone, since AlephBFT does that a lot, and never longer than [`UNIT_BYTES_MAX`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Item(pub(super) Bytes);

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Encode for Item {
    fn size_hint(&self) -> usize {
        4 + self.0.len()
    }

    fn encode_to<T: Output + ?Sized>(&self, to: &mut T) {
        Compact(self.0.len() as u32).encode_to(to);
        to.write(&self.0);
    }
}

impl Decode for Item {
    fn decode<I: Input>(input: &mut I) -> Result<Item, CodecError> {
        let length = Compact::<u32>::decode(input)?.0 as usize;
        if length > UNIT_BYTES_MAX || input.remaining_len()?.is_some_and(|rest| rest < length) {
            return Err("data of a unit is too long".into());
        }
        let mut bytes = vec![0; length];
        input.read(&mut bytes)?;
        Ok(Item(bytes.into()))
    }
}

/// A token that nobody else knows: the standard library draws its seeds from the system.
pub(super) fn random_token() -> Sig {
    let word = || RandomState::new().build_hasher().finish().to_le_bytes();
    let mut token = [0; 64];
    token.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&word()));
    token
}

/// The keys of a committee, for one session. Clones share one memory of true signatures.
#[derive(Clone)]
pub(super) struct Keys(Arc<Inner>);

struct Inner {
    index: u32,
    key: Arc<AuthorityKey>,
    members: Vec<PreparedKey>,
    quorum: usize,
    /// What stands before every signed message.
    prefix: Vec<u8>,
    token: Sig,
    known: Mutex<Known>,
}

/// True signatures, the newest and those before them.
#[derive(Default)]
struct Known {
    new: HashSet<(u32, Hash, Sig)>,
    old: HashSet<(u32, Hash, Sig)>,
}

impl Known {
    fn insert(&mut self, entry: (u32, Hash, Sig)) {
        if self.new.len() >= REMEMBERED / 2 {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(entry);
    }
}

impl Keys {
    pub(super) fn new(
        members: Vec<AuthorityPublicKey>,
        (committee_id, epoch, session): (&[u8; 32], u64, u64),
        index: u32,
        key: Arc<AuthorityKey>,
        token: Sig,
    ) -> Keys {
        let prefix = [DOMAIN, committee_id, &epoch.to_be_bytes(), &session.to_be_bytes()].concat();
        let quorum = members.len() - (members.len() - 1) / 3;
        let members = members.iter().map(AuthorityPublicKey::prepared).collect();
        Keys(Arc::new(Inner { index, key, members, quorum, prefix, token, known: Mutex::default() }))
    }

    /// Stands for the signature of any authority under an answer to "which of my units is the newest?", so that a
    /// process can give itself such answers: see [`super::link`].
    pub(super) fn token(&self) -> &Sig {
        &self.0.token
    }

    pub(super) fn size(&self) -> usize {
        self.0.members.len()
    }

    /// Whether the authority signed the message; remembers it if so.
    pub(super) fn verifies(&self, message: &[u8], signature: &Sig, index: usize) -> bool {
        let Some(member) = self.0.members.get(index) else { return false };
        if message.len() == NEWEST_RESPONSE {
            return *signature == self.0.token;
        }
        let Ok(hash) = Hash::try_from(message) else { return false };
        let entry = (index as u32, hash, *signature);
        let known = || self.0.known.lock().expect("no panic under this lock");
        {
            let known = known();
            if known.new.contains(&entry) || known.old.contains(&entry) {
                return true;
            }
        }
        let is_true = member.verifies(&[&self.0.prefix, message].concat(), signature);
        if is_true {
            known().insert(entry);
        }
        is_true
    }
}

impl Index for Keys {
    fn index(&self) -> NodeIndex {
        NodeIndex(self.0.index as usize)
    }
}

impl Keychain for Keys {
    type Signature = Sig;

    fn node_count(&self) -> NodeCount {
        NodeCount(self.size())
    }

    fn sign(&self, message: &[u8]) -> Sig {
        if message.len() == NEWEST_RESPONSE {
            return self.0.token;
        }
        let signature = self.0.key.sign(&[&self.0.prefix, message].concat());
        if let Ok(hash) = message.try_into() {
            self.0.known.lock().expect("no panic under this lock").insert((self.0.index, hash, signature));
        }
        signature
    }

    fn verify(&self, message: &[u8], signature: &Sig, index: NodeIndex) -> bool {
        self.verifies(message, signature, index.0)
    }
}

impl MultiKeychain for Keys {
    type PartialMultisignature = SignatureSet<Sig>;

    fn bootstrap_multi(&self, signature: &Sig, index: NodeIndex) -> SignatureSet<Sig> {
        let mut set = SignatureSet::with_size(self.node_count());
        set.insert(index, *signature);
        set
    }

    fn is_complete(&self, message: &[u8], partial: &SignatureSet<Sig>) -> bool {
        partial.size() == self.node_count()
            && partial.item_count() >= self.0.quorum
            && partial.iter().all(|(index, signature)| self.verify(message, signature, index))
    }
}
