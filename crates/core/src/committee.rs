//! The committee: who the authorities are, how accounts are split over shards, and what money they keep.
//!
//! With `n` authorities at most `f = (n - 1) / 3` may be Byzantine. A quorum is `n - f` (2f + 1 when
//! `n = 3f + 1`): two quorums share at least one honest authority. Something that `f + 1` say is said
//! by one honest authority at least.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use florin_ed25519::KnownKeys;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, COMMITTEE_MAX, COMMITTEE_MIN, DECIMALS_MAX, ID_MAX, SHARDS_MAX};
use crate::permission::Permission;
use crate::planted::{self, Bug};
use crate::signatures::AuthorityPublicKey;

/// One operator's authority, as everyone sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityInfo {
    /// Name for people.
    pub name: String,
    /// Key that its votes are signed with and its TLS connections are pinned to.
    pub key: AuthorityPublicKey,
    /// `host:port` of the process that runs each shard, by shard.
    pub addresses: Vec<String>,
}

/// A payment network: one currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// 63 bits, unique to this deployment.
    pub id: u64,
    /// Lower-case code, prefix of every address.
    pub currency: String,
    /// Decimals that people see; one unit is 10^decimals minor units.
    pub decimals: u8,
    /// The encoded first permission of the issuer's account (actor 0).
    pub issuer: Bytes,
    /// How far below zero the issuer may go, minor units.
    pub issuer_limit: u64,
    /// sha256 of the genesis file's bytes; of nothing if there is none.
    pub genesis_hash: [u8; 32],
}

impl Network {
    /// The issuer's address.
    pub fn issuer_address(&self) -> Address {
        Permission::address_of(self.id, &self.issuer)
    }
}

/// The public description of a committee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committee {
    id: [u8; 32],
    /// Term of this set of authorities.
    pub epoch: u64,
    /// Shards that every authority splits its accounts into.
    pub shards: u32,
    /// The payment network that it runs.
    pub network: Network,
    /// Its members; a vote names its signer by the index here.
    pub authorities: Vec<AuthorityInfo>,
    points: Points,
}

/// Points of the authorities' keys, once they have been needed: the square root for each costs a third of a verification.
#[derive(Clone, Default)]
struct Points(Arc<KnownKeys>);

/// They follow from the keys.
impl PartialEq for Points {
    fn eq(&self, _: &Points) -> bool {
        true
    }
}

impl Eq for Points {}

impl fmt::Debug for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Points")
    }
}

impl Committee {
    /// Checks the parts and computes the id. Errors: `BAD_CONFIG`, with what was expected and found.
    pub fn new(epoch: u64, shards: u32, network: Network, authorities: Vec<AuthorityInfo>) -> Result<Self> {
        let bad =
            |what: &str, expected: String, found: String| Err(Error::expected(Code::BadConfig, what, expected, found));
        let n = authorities.len();
        if !(COMMITTEE_MIN..=COMMITTEE_MAX).contains(&n) {
            return bad("authorities", format!("{COMMITTEE_MIN} to {COMMITTEE_MAX}"), n.to_string());
        }
        if shards == 0 || shards > SHARDS_MAX {
            return bad("shards", format!("1 to {SHARDS_MAX}"), shards.to_string());
        }
        if network.id == 0 || network.id > ID_MAX {
            return bad("network id", "1 to 2^63 - 1".into(), network.id.to_string());
        }
        let currency_fits = (2..=12).contains(&network.currency.len())
            && network.currency.bytes().all(|b| b.is_ascii_lowercase())
            && network.currency != "bc";
        if !currency_fits {
            return bad("currency", "2 to 12 letters a-z".into(), network.currency.clone());
        }
        if network.decimals > DECIMALS_MAX {
            return bad("decimals", format!("at most {DECIMALS_MAX}"), network.decimals.to_string());
        }
        if network.issuer_limit > AMOUNT_MAX {
            return bad("issuer limit", format!("at most {AMOUNT_MAX}"), network.issuer_limit.to_string());
        }
        Permission::decode_account(&network.issuer)
            .map_err(|e| Error::new(Code::BadConfig, format!("issuer's permission: {e}")))?;
        for (i, a) in authorities.iter().enumerate() {
            if a.addresses.len() != shards as usize {
                return bad(
                    &format!("addresses of {}", a.name),
                    format!("one for each of {shards} shards"),
                    a.addresses.len().to_string(),
                );
            }
            if authorities[..i].iter().any(|b| b.key == a.key || b.name == a.name) {
                return bad("keys and names of authorities", "distinct ones".into(), format!("{} twice", a.name));
            }
        }
        let mut committee = Committee { id: [0; 32], epoch, shards, network, authorities, points: Points::default() };
        committee.id = committee.compute_id();
        Ok(committee)
    }

    /// The id that every signature of this committee names. It covers what must never change: keys,
    /// names, shards, the network and its genesis; not host names, which operators may move.
    fn compute_id(&self) -> [u8; 32] {
        let mut h = Sha256::new();
        h.update(b"florin-committee-v1");
        let mut field = |bytes: &[u8]| {
            h.update((bytes.len() as u64).to_be_bytes());
            h.update(bytes);
        };
        field(&self.shards.to_be_bytes());
        field(&self.network.id.to_be_bytes());
        field(self.network.currency.as_bytes());
        field(&[self.network.decimals]);
        field(&self.network.issuer);
        field(&self.network.issuer_limit.to_be_bytes());
        field(&self.network.genesis_hash);
        for a in &self.authorities {
            field(a.name.as_bytes());
            field(a.key.as_bytes());
        }
        h.finalize().into()
    }

    /// sha256 over all that must never change.
    pub fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Number of authorities, `n`.
    pub fn size(&self) -> usize {
        self.authorities.len()
    }

    /// Byzantine authorities that it survives, `f`.
    pub fn faults(&self) -> usize {
        (self.size() - 1) / 3
    }

    /// The shard that keeps an actor. In the payment network that goes by the actor, in any other by the network: then
    /// an order's cosignors are where its actor is, and a network's listeners follow one shard.
    pub fn shard_of(&self, network_id: u64, actor: u64) -> u32 {
        let by = if network_id == self.network.id { actor } else { network_id };
        u32::try_from(by % u64::from(self.shards)).expect("a remainder is below its u32 divisor")
    }

    /// Authorities that make a certificate.
    pub fn quorum(&self) -> usize {
        self.size() - self.faults() - planted::when(Bug::QuorumTwoF, 1, 0)
    }

    /// Authorities of which one at least is honest.
    pub fn validity(&self) -> usize {
        self.faults() + 1
    }

    /// For verifying what its authorities sign.
    pub(crate) fn points(&self) -> &KnownKeys {
        &self.points.0
    }

    /// Index of the authority with this key.
    pub fn index_of(&self, key: &AuthorityPublicKey) -> Option<u32> {
        self.authorities.iter().position(|a| a.key == *key).map(|i| i as u32)
    }

    /// The committee file.
    pub fn to_toml(&self) -> String {
        let file = CommitteeFile {
            version: 1,
            id: hex::encode(self.id),
            epoch: self.epoch,
            shards: self.shards,
            network: NetworkFile {
                id: self.network.id.to_string(),
                currency: self.network.currency.clone(),
                decimals: self.network.decimals,
                issuer: hex::encode(&self.network.issuer),
                issuer_limit: self.network.issuer_limit.to_string(),
                genesis_sha256: hex::encode(self.network.genesis_hash),
            },
            authority: self
                .authorities
                .iter()
                .map(|a| AuthorityFile { name: a.name.clone(), key: a.key.to_string(), addresses: a.addresses.clone() })
                .collect(),
        };
        format!(
            "# A Florin committee: public, the same for everyone. Its id covers all but epoch and addresses.\n{}",
            toml::to_string(&file).expect("plain tables serialize")
        )
    }

    /// From the committee file's text. Errors: `BAD_CONFIG`.
    pub fn from_toml(text: &str) -> Result<Self> {
        let bad =
            |what: &str, e: &dyn std::fmt::Display| Error::new(Code::BadConfig, format!("committee file, {what}: {e}"));
        let file: CommitteeFile = toml::from_str(text).map_err(|e| bad("syntax", &e))?;
        if file.version != 1 {
            return Err(Error::expected(Code::BadConfig, "version of the committee file", 1, file.version));
        }
        let hash = |what: &str, text: &str| -> Result<[u8; 32]> {
            let bytes = hex::decode(text).map_err(|e| bad(what, &e))?;
            <[u8; 32]>::try_from(bytes.as_slice())
                .map_err(|_| Error::expected(Code::BadConfig, what, "32 bytes", bytes.len()))
        };
        let network = Network {
            id: file.network.id.parse().map_err(|e| bad("network id", &e))?,
            currency: file.network.currency,
            decimals: file.network.decimals,
            issuer: hex::decode(&file.network.issuer).map_err(|e| bad("issuer", &e))?.into(),
            issuer_limit: file.network.issuer_limit.parse().map_err(|e| bad("issuer_limit", &e))?,
            genesis_hash: hash("genesis_sha256", &file.network.genesis_sha256)?,
        };
        let mut authorities = Vec::new();
        for a in file.authority {
            let key = a.key.parse().map_err(|e| bad(&format!("key of {}", a.name), &e))?;
            authorities.push(AuthorityInfo { name: a.name, key, addresses: a.addresses });
        }
        let committee = Committee::new(file.epoch, file.shards, network, authorities)?;
        if hex::encode(committee.id) != file.id {
            return Err(Error::expected(
                Code::BadConfig,
                "id of the committee file",
                hex::encode(committee.id),
                file.id,
            ));
        }
        Ok(committee)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitteeFile {
    version: u32,
    id: String,
    epoch: u64,
    shards: u32,
    network: NetworkFile,
    authority: Vec<AuthorityFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    id: String,
    currency: String,
    decimals: u8,
    issuer: String,
    issuer_limit: String,
    genesis_sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorityFile {
    name: String,
    key: String,
    addresses: Vec<String>,
}

#[cfg(test)]
#[path = "committee_tests.rs"]
mod tests;
