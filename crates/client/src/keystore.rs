//! The wallet file: the seed, encrypted, and what can be known without it.
//!
//! The passphrase and the salt give a key (Argon2id); it encrypts the seed's entropy (ChaCha20-Poly1305) with the
//! network, currency, decimals and curve as associated data, so they cannot be changed under it. Public keys
//! stand in the open, so that showing an address or a balance needs no passphrase; `unlock` derives them again and
//! refuses a file in which somebody put others.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use florin_core::address::{self, Address};
use florin_core::keys::{Curve, PublicKey};
use florin_core::limits::{DECIMALS_MAX, ID_MAX};
use florin_core::permission::Permission;
use florin_core::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::files::{self, Lock};
use crate::seed::Seed;

/// Accounts of one wallet.
pub const ACCOUNTS_MAX: u32 = 1_000;
/// Characters of an account's label.
pub const LABEL_CHARS_MAX: usize = 64;

const VERSION: u32 = 1;
const KDF: &str = "argon2id";
const CIPHER: &str = "chacha20poly1305";
const AD_TAG: &[u8] = b"florin-wallet-v1";
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;

/// The second choice of RFC 9106, for machines that cannot spare 2 GiB.
const COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
/// A file may not ask for more: opening it would take the machine down.
const COST_MAX: Cost = Cost { memory_kib: 1024 * 1024, passes: 64, lanes: 64 };

/// What a wallet is for. Fixed when it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The payment network, below 2^63.
    pub network_id: u64,
    /// Currency code, the prefix of addresses.
    pub currency: String,
    /// Digits after the point, at most 18.
    pub decimals: u8,
    /// Curve of the accounts' keys.
    pub curve: Curve,
}

/// An open wallet file. Other commands get `BUSY` until it is dropped.
#[derive(Debug)]
pub struct Keystore {
    path: PathBuf,
    meta: Meta,
    public_keys: Vec<PublicKey>,
    labels: BTreeMap<u32, String>,
    sealed: Sealed,
    _lock: Lock,
}

/// The encrypted entropy and how to get at it.
#[derive(Clone, Debug)]
struct Sealed {
    cost: Cost,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
    ciphertext: Vec<u8>,
}

/// Cost of trying one passphrase.
#[derive(Clone, Copy, Debug)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// The file, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    florin_wallet: u32,
    /// Decimal text: other JSON readers round numbers above 2^53.
    network_id: String,
    currency: String,
    decimals: u8,
    curve: String,
    accounts: u32,
    public_keys: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<u32, String>,
    kdf: KdfForm,
    cipher: String,
    nonce: String,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KdfForm {
    name: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
}

/// Fresh entropy from the operating system: 16 bytes for 12 words, 32 for 24. `IO` if it has none.
pub fn new_entropy<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut entropy = Zeroizing::new([0; N]);
    random(&mut entropy[..])?;
    Ok(entropy)
}

impl Keystore {
    /// Creates the file (mode 0600), with account 0. `entropy` has 16 or 32 bytes. `ALREADY_EXISTS` if anything is at
    /// `path`; `BAD_CONFIG` for a meta out of range.
    pub fn create(path: &Path, entropy: &[u8], passphrase: &str, meta: Meta) -> Result<Keystore> {
        Self::create_at(path, entropy, passphrase, meta, COST)
    }

    fn create_at(path: &Path, entropy: &[u8], passphrase: &str, meta: Meta, cost: Cost) -> Result<Keystore> {
        check_meta(&meta).map_err(|message| Error::new(Code::BadConfig, message))?;
        let seed = Seed::from_entropy(entropy)?;
        let path = vacant(path)?;
        let lock = Lock::take(&path)?;
        // Again, now that no other command can create it.
        let path = vacant(&path)?;
        let public_keys = derive(&seed, meta.curve, 0..1)?;
        let sealed = Sealed::seal(entropy, passphrase, &meta, cost)?;
        let keystore = Keystore { path, meta, public_keys, labels: BTreeMap::new(), sealed, _lock: lock };
        keystore.write(&keystore.public_keys, &keystore.labels)?;
        Ok(keystore)
    }

    /// Opens the file; no passphrase needed. `BAD_FILE` if it is none of ours, `BUSY` if another command has it open.
    pub fn open(path: &Path) -> Result<Keystore> {
        let path = files::resolve(path)?;
        // Before the lock, which would leave its file beside a wallet that is not there.
        fs::symlink_metadata(&path).map_err(|e| unreadable(&path, &e))?;
        let lock = Lock::take(&path)?;
        let bytes = fs::read(&path).map_err(|e| unreadable(&path, &e))?;
        let bad = |message: String| Error::new(Code::BadFile, format!("{}: {message}", path.display()));
        let (meta, public_keys, labels, sealed) = read(&bytes).map_err(bad)?;
        Ok(Keystore { path, meta, public_keys, labels, sealed, _lock: lock })
    }

    /// Addresses of a wallet that another command may have open. Errors: `BAD_FILE`.
    pub fn peek(path: &Path) -> Result<Vec<Address>> {
        let path = files::resolve(path)?;
        let bytes = fs::read(&path).map_err(|e| unreadable(&path, &e))?;
        let bad = |message: String| Error::new(Code::BadFile, format!("{}: {message}", path.display()));
        let (meta, public_keys, ..) = read(&bytes).map_err(bad)?;
        Ok(public_keys.into_iter().map(|key| Permission::single(key).address(meta.network_id)).collect())
    }

    /// The seed, for signing. `WRONG_PASSPHRASE`, also if somebody changed what the passphrase protects; `BAD_FILE`
    /// if a public key in the file is not the seed's.
    pub fn unlock(&self, passphrase: &str) -> Result<Seed> {
        let entropy = self.sealed.open(passphrase, &self.meta)?;
        let seed = Seed::from_entropy(&entropy)?;
        self.check_seed(&seed)?;
        Ok(seed)
    }

    fn check_seed(&self, seed: &Seed) -> Result<()> {
        let derived = derive(seed, self.meta.curve, 0..self.accounts())?;
        match derived.iter().zip(&self.public_keys).position(|(derived, found)| derived != found) {
            None => Ok(()),
            Some(i) => {
                let what = format!("{}: public key of account {i}", self.path.display());
                Err(Error::expected(Code::BadFile, &what, derived[i], self.public_keys[i]))
            }
        }
    }

    /// What the wallet is for.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The file's path, with symbolic links followed; the journal stands beside it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of accounts, from 1 to [`ACCOUNTS_MAX`].
    pub fn accounts(&self) -> u32 {
        u32::try_from(self.public_keys.len()).expect("bounded by ACCOUNTS_MAX")
    }

    /// The public keys, by account.
    pub fn public_keys(&self) -> &[PublicKey] {
        &self.public_keys
    }

    /// The address of an account. `USAGE` if there is no such account.
    pub fn address(&self, account: u32) -> Result<Address> {
        self.check_account(account)?;
        let key = self.public_keys[account as usize];
        Ok(Permission::single(key).address(self.meta.network_id))
    }

    /// Adds accounts until there are `accounts`; durable when it returns. `USAGE` for fewer than there are (their
    /// money would be out of sight) and above [`ACCOUNTS_MAX`]; `BAD_FILE` with another wallet's seed.
    pub fn set_accounts(&mut self, accounts: u32, seed: &Seed) -> Result<()> {
        if !(self.accounts()..=ACCOUNTS_MAX).contains(&accounts) {
            let expected = format!("{} to {ACCOUNTS_MAX}", self.accounts());
            return Err(Error::expected(Code::Usage, "number of accounts", expected, accounts));
        }
        self.check_seed(seed)?;
        if accounts == self.accounts() {
            return Ok(());
        }
        let mut public_keys = self.public_keys.clone();
        public_keys.extend(derive(seed, self.meta.curve, self.accounts()..accounts)?);
        self.write(&public_keys, &self.labels)?;
        self.public_keys = public_keys;
        Ok(())
    }

    /// The labels that accounts have. They are not protected by the passphrase: for display only.
    pub fn labels(&self) -> &BTreeMap<u32, String> {
        &self.labels
    }

    /// Labels an account, or with an empty text unlabels it. `USAGE` if there is no such account, or the text has
    /// control characters or more than [`LABEL_CHARS_MAX`].
    pub fn set_label(&mut self, account: u32, label: &str) -> Result<()> {
        self.check_account(account)?;
        check_label(label).map_err(|message| Error::new(Code::Usage, message))?;
        let mut labels = self.labels.clone();
        if label.is_empty() {
            labels.remove(&account);
        } else {
            labels.insert(account, label.to_string());
        }
        self.write(&self.public_keys, &labels)?;
        self.labels = labels;
        Ok(())
    }

    fn check_account(&self, account: u32) -> Result<()> {
        if account < self.accounts() {
            return Ok(());
        }
        Err(Error::expected(Code::Usage, "account", format!("0 to {}", self.accounts() - 1), account))
    }

    fn write(&self, public_keys: &[PublicKey], labels: &BTreeMap<u32, String>) -> Result<()> {
        let form = Form {
            florin_wallet: VERSION,
            network_id: self.meta.network_id.to_string(),
            currency: self.meta.currency.clone(),
            decimals: self.meta.decimals,
            curve: curve_name(self.meta.curve).into(),
            accounts: u32::try_from(public_keys.len()).expect("bounded by ACCOUNTS_MAX"),
            public_keys: public_keys.iter().map(PublicKey::to_string).collect(),
            labels: labels.clone(),
            kdf: KdfForm {
                name: KDF.into(),
                memory_kib: self.sealed.cost.memory_kib,
                passes: self.sealed.cost.passes,
                lanes: self.sealed.cost.lanes,
                salt: hex::encode(self.sealed.salt),
            },
            cipher: CIPHER.into(),
            nonce: hex::encode(self.sealed.nonce),
            ciphertext: hex::encode(&self.sealed.ciphertext),
        };
        let mut json = serde_json::to_vec_pretty(&form).expect("texts and numbers are always JSON");
        json.push(b'\n');
        let staged = files::stage(&self.path, &json)?;
        files::publish(&staged, &self.path)
    }
}

impl Sealed {
    fn seal(entropy: &[u8], passphrase: &str, meta: &Meta, cost: Cost) -> Result<Sealed> {
        let mut sealed = Sealed { cost, salt: [0; SALT_BYTES], nonce: [0; NONCE_BYTES], ciphertext: Vec::new() };
        random(&mut sealed.salt)?;
        random(&mut sealed.nonce)?;
        let payload = Payload { msg: entropy, aad: &associated_data(meta) };
        sealed.ciphertext = sealed
            .cipher(passphrase)?
            .encrypt(&sealed.nonce.into(), payload)
            .expect("a few bytes are below the cipher's limit");
        Ok(sealed)
    }

    fn open(&self, passphrase: &str, meta: &Meta) -> Result<Zeroizing<Vec<u8>>> {
        let payload = Payload { msg: &self.ciphertext, aad: &associated_data(meta) };
        let opened = self.cipher(passphrase)?.decrypt(&self.nonce.into(), payload);
        opened.map(Zeroizing::new).map_err(|_| {
            let message = "the passphrase is wrong, or the file's network, currency, decimals, curve or secret changed";
            Error::new(Code::WrongPassphrase, message)
        })
    }

    fn cipher(&self, passphrase: &str) -> Result<ChaCha20Poly1305> {
        let params = Params::new(self.cost.memory_kib, self.cost.passes, self.cost.lanes, Some(32));
        let mut key = Zeroizing::new([0; 32]);
        params
            .and_then(|params| {
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
                    passphrase.as_bytes(),
                    &self.salt,
                    &mut key[..],
                )
            })
            .map_err(|e| Error::new(Code::BadFile, format!("key derivation: {e}")))?;
        Ok(ChaCha20Poly1305::new((&*key).into()))
    }
}

/// Everything of fixed meaning that the passphrase is to protect.
fn associated_data(meta: &Meta) -> Vec<u8> {
    let mut data = AD_TAG.to_vec();
    data.extend_from_slice(&meta.network_id.to_be_bytes());
    data.extend_from_slice(&[meta.curve.byte(), meta.decimals]);
    // Last, so that it needs no length.
    data.extend_from_slice(meta.currency.as_bytes());
    data
}

/// Whether these are a wallet file's bytes: for how many accounts, and for what. An error is the problem alone.
#[doc(hidden)]
pub fn inspect(bytes: &[u8]) -> std::result::Result<(Meta, Vec<PublicKey>), String> {
    read(bytes).map(|(meta, keys, ..)| (meta, keys))
}

type Parts = (Meta, Vec<PublicKey>, BTreeMap<u32, String>, Sealed);

/// Reads the file's bytes. An error is the problem alone.
fn read(bytes: &[u8]) -> std::result::Result<Parts, String> {
    #[derive(Deserialize)]
    struct Probe {
        florin_wallet: u32,
    }
    let probe: Probe = serde_json::from_slice(bytes).map_err(|e| format!("not a Florin wallet: {e}"))?;
    if probe.florin_wallet != VERSION {
        return Err(format!("version of the wallet file: expected {VERSION}, found {}", probe.florin_wallet));
    }
    let form: Form = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let meta = Meta {
        network_id: form.network_id.parse().map_err(|e| format!("network_id: {e}"))?,
        currency: form.currency,
        decimals: form.decimals,
        curve: curve_of(&form.curve)?,
    };
    check_meta(&meta)?;
    if form.accounts as usize != form.public_keys.len() || !(1..=ACCOUNTS_MAX).contains(&form.accounts) {
        let (expected, found) = (form.accounts, form.public_keys.len());
        return Err(format!("public_keys: expected {expected} of 1 to {ACCOUNTS_MAX}, found {found}"));
    }
    let public_keys = form.public_keys.iter().enumerate().map(|(i, text)| {
        let key: PublicKey = text.parse().map_err(|e| format!("public key {i}: {e}"))?;
        let (expected, found) = (curve_name(meta.curve), curve_name(key.curve()));
        if expected == found { Ok(key) } else { Err(format!("public key {i}: expected {expected}, found {found}")) }
    });
    let public_keys = public_keys.collect::<std::result::Result<Vec<_>, String>>()?;
    for (account, label) in &form.labels {
        check_label(label)?;
        if *account >= form.accounts {
            return Err(format!("labels: expected accounts below {}, found {account}", form.accounts));
        }
    }
    if form.kdf.name != KDF || form.cipher != CIPHER {
        return Err(format!("expected {KDF} and {CIPHER}, found {:?} and {:?}", form.kdf.name, form.cipher));
    }
    let cost = Cost { memory_kib: form.kdf.memory_kib, passes: form.kdf.passes, lanes: form.kdf.lanes };
    if cost.memory_kib > COST_MAX.memory_kib || cost.passes > COST_MAX.passes || cost.lanes > COST_MAX.lanes {
        return Err(format!("kdf: expected at most {COST_MAX:?}, found {cost:?}"));
    }
    let sealed = Sealed {
        cost,
        salt: fixed("salt", &form.kdf.salt)?,
        nonce: fixed("nonce", &form.nonce)?,
        ciphertext: hex::decode(&form.ciphertext).map_err(|e| format!("ciphertext: {e}"))?,
    };
    Ok((meta, public_keys, form.labels, sealed))
}

fn fixed<const N: usize>(what: &str, text: &str) -> std::result::Result<[u8; N], String> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|e| format!("{what}: expected {} hex digits: {e}", 2 * N))?;
    Ok(bytes)
}

fn check_meta(meta: &Meta) -> std::result::Result<(), String> {
    if meta.network_id > ID_MAX {
        return Err(format!("network_id: expected at most {ID_MAX}, found {}", meta.network_id));
    }
    if meta.decimals > DECIMALS_MAX {
        return Err(format!("decimals: expected at most {DECIMALS_MAX}, found {}", meta.decimals));
    }
    address::check_currency(&meta.currency).map_err(|e| e.message)
}

fn check_label(label: &str) -> std::result::Result<(), String> {
    let found = label.chars().count();
    if found > LABEL_CHARS_MAX || label.chars().any(char::is_control) {
        let expected = format!("at most {LABEL_CHARS_MAX} characters, none of them a control character");
        return Err(format!("label: expected {expected}, found {found} in {label:?}"));
    }
    Ok(())
}

fn derive(seed: &Seed, curve: Curve, accounts: std::ops::Range<u32>) -> Result<Vec<PublicKey>> {
    accounts.map(|account| Ok(seed.key(curve, account)?.public())).collect()
}

/// The path to create a file at. `ALREADY_EXISTS` if something is there, even a link to nothing.
fn vacant(path: &Path) -> Result<PathBuf> {
    match fs::symlink_metadata(path) {
        Ok(_) => {
            Err(Error::new(Code::AlreadyExists, format!("{} exists; a wallet is never overwritten", path.display())))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => files::resolve(path),
        Err(e) => Err(files::io("look at", path, &e)),
    }
}

fn unreadable(path: &Path, cause: &std::io::Error) -> Error {
    if cause.kind() == ErrorKind::NotFound {
        return Error::new(Code::BadFile, format!("there is no wallet at {}", path.display()));
    }
    files::io("read", path, cause)
}

pub(crate) fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|e| Error::new(Code::Io, format!("the operating system gives no random numbers: {e}")))
}

/// The name of a curve in files and on the command line.
pub fn curve_name(curve: Curve) -> &'static str {
    match curve {
        Curve::K1 => "k1",
        Curve::R1 => "r1",
        Curve::Ed25519 => "ed25519",
        Curve::Bls => "bls",
    }
}

fn curve_of(name: &str) -> std::result::Result<Curve, String> {
    let curves = [Curve::Ed25519, Curve::K1, Curve::R1];
    let found = curves.into_iter().find(|curve| curve_name(*curve) == name);
    found.ok_or_else(|| format!("curve: expected ed25519, k1 or r1, found {name:?}"))
}

#[cfg(test)]
#[path = "keystore_tests.rs"]
mod tests;
