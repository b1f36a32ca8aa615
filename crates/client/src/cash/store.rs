//! The journal of cash on disk, beside the wallet file, and what is encrypted in it.
//!
//! Secrets of the wallet's own notes are not in it: they follow from the seed. Those of notes that came from others are
//! encrypted with a key that follows from it, too.

use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use florin_core::cash::derive::CashSeed;
use florin_core::{Code, Error, Result};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::records::{Book, Hex32, Record};
use crate::journal::Journal;
use crate::keystore::{Keystore, random};
use crate::seed::Seed;

const NONCE_BYTES: usize = 12;
const BOX_TAG: &[u8] = b"florin-cash-journal-v1";

/// Path of the journal of cash beside a wallet file.
pub fn journal_path(wallet: &Path) -> PathBuf {
    let mut name = wallet.as_os_str().to_owned();
    name.push(".cash");
    name.into()
}

/// An open journal and what it says.
pub struct Store {
    journal: Journal<Record>,
    /// What it says.
    pub book: Book,
}

impl Store {
    /// Opens it, or makes an empty one. Errors: as of [`Journal::open`]; `BAD_FILE` if it is another wallet's.
    pub fn open(keystore: &Keystore) -> Result<Store> {
        let path = journal_path(keystore.path());
        let (mut journal, records) = Journal::open(&path)?;
        let mut book = Book::default();
        for record in records {
            book.apply(record).map_err(|e| Error { message: format!("{}: {}", path.display(), e.message), ..e })?;
        }
        let address = hex::encode(keystore.address(0)?.as_bytes());
        match &book.owner {
            Some(owner) if *owner == address => {}
            None => {
                journal.append(&[Record::Owner { address: address.clone() }])?;
                book.owner = Some(address);
            }
            Some(_) => {
                let message = format!("{} is the cash of another wallet: move it away", path.display());
                return Err(Error::new(Code::BadFile, message));
            }
        }
        Ok(Store { journal, book })
    }

    /// Makes records durable, then counts them in.
    pub fn record(&mut self, records: Vec<Record>) -> Result<()> {
        self.journal.append(&records)?;
        records.into_iter().try_for_each(|record| self.book.apply(record))
    }
}

/// What the seed gives for cash. Wiped when dropped.
pub struct Secrets {
    /// The seed, for what accounts sign.
    pub seed: Seed,
    /// Secrets of notes.
    pub notes: CashSeed,
    key: Zeroizing<[u8; 32]>,
}

impl Secrets {
    /// Of a wallet in a network.
    pub fn new(seed: Seed, network_id: u64) -> Secrets {
        let secret = seed.cash_secret();
        let key = Sha256::new().chain_update(BOX_TAG).chain_update(&secret[..]).finalize();
        Secrets { notes: CashSeed::new(&secret, network_id), key: Zeroizing::new(key.into()), seed }
    }

    /// Encrypts the secret of the note with this nonce, as hex. Errors: `IO` without randomness.
    pub fn seal(&self, nonce: &Hex32, secret: &[u8]) -> Result<String> {
        let mut salt = [0; NONCE_BYTES];
        random(&mut salt)?;
        let payload = Payload { msg: secret, aad: &nonce.0 };
        let sealed = self.cipher().encrypt(&salt.into(), payload).expect("a few bytes are below the cipher's limit");
        Ok(hex::encode([&salt[..], &sealed].concat()))
    }

    /// Decrypts it. `BAD_FILE` if it is not this wallet's, or was changed.
    pub fn unseal(&self, nonce: &Hex32, sealed: &str) -> Result<Zeroizing<[u8; 32]>> {
        let open = || {
            let bytes = hex::decode(sealed).ok()?;
            let (salt, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
            let payload = Payload { msg: sealed, aad: &nonce.0 };
            let secret = Zeroizing::new(self.cipher().decrypt(&(*salt).into(), payload).ok()?);
            <[u8; 32]>::try_from(&secret[..]).ok().map(Zeroizing::new)
        };
        open().ok_or_else(|| Error::new(Code::BadFile, "the wallet's journal of cash holds a secret of another wallet"))
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new((&*self.key).into())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
