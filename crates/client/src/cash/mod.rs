//! E-cash for people and programs: a wallet's notes.
//!
//! - [`amounts`]: which notes to make and give
//! - [`text`]: notes as strings
//! - [`records`], [`store`]: the journal of cash and what follows from it
//! - [`keys`], [`shares`]: the committee's keys; from signature shares to notes
//! - [`cores`]: work on many notes, on all cores
//! - `order`: orders that make and spend notes, finished whatever crashes
//! - `give`, `take`: from and to other people; the account
//! - `search`: notes found again from the seed words
//! - `free`: notes that different orders have locked

pub mod amounts;
pub mod cores;
mod free;
mod give;
pub mod keys;
mod order;
pub mod records;
mod search;
pub mod shares;
mod states;
pub mod store;
mod take;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use florin_core::cash::mint_keys::MintKeys;
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result};

pub use give::{Cancelled, Sending};
pub use order::{Exchanged, Lost};
pub use search::Found;
pub use take::{Offline, Taken};

use crate::network::{Event, Network};
use crate::seed::Seed;
use crate::wallet::Wallet;
use records::{Book, Record};
use shares::Blind;
use store::{Secrets, Store};

/// What happens on the way of an order.
pub type Events<'a> = &'a mut (dyn FnMut(Event) + 'a);

/// A wallet with its cash.
pub struct CashWallet {
    wallet: Wallet,
    store: Store,
    keys: Option<MintKeys>,
    /// Of open orders, if this process has made them.
    blinds: BTreeMap<u64, Vec<Blind>>,
    /// Authorities that gave false shares.
    liars: BTreeSet<usize>,
}

/// An order that was open when a command began.
pub struct Resumed {
    /// Its number.
    pub number: u64,
    /// What it was for.
    pub purpose: records::Purpose,
    /// Why it is sure never to settle; `None` if it has settled, or is still open.
    pub failed: Option<Error>,
    /// Why it is still open.
    pub open: Option<Error>,
    /// If notes that came in were exchanged: what that gave.
    pub exchanged: Option<Exchanged>,
}

impl CashWallet {
    /// Opens a wallet and its cash. Errors: as of [`Wallet::open`] and [`Store::open`].
    pub fn open(path: &Path, committee: Arc<Committee>) -> Result<CashWallet> {
        let wallet = Wallet::open(path, committee)?;
        let store = Store::open(wallet.keystore())?;
        Ok(CashWallet { wallet, store, keys: None, blinds: BTreeMap::new(), liars: BTreeSet::new() })
    }

    /// The wallet.
    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// What the journal of cash says.
    pub fn book(&self) -> &Book {
        &self.store.book
    }

    /// What the seed gives for cash.
    pub fn secrets(&self, seed: Seed) -> Secrets {
        Secrets::new(seed, self.wallet.committee().network.id)
    }

    /// Names of authorities that were found to give false signature shares.
    pub fn liars(&self) -> Vec<&str> {
        let authorities = &self.wallet.committee().authorities;
        self.liars.iter().filter_map(|i| authorities.get(*i)).map(|a| a.name.as_str()).collect()
    }

    /// The committee's keys: those in the journal, else what `f + 1` authorities say, which are kept.
    /// Errors: as of [`keys::fetch`] and [`keys::decode`].
    pub async fn keys(&mut self, network: &Network) -> Result<MintKeys> {
        if self.store.book.keys.is_none() {
            self.renew_keys(network).await?;
        }
        self.known_keys()
    }

    /// Asks for the keys once more: the shares of each may be others by now. Whether they are.
    async fn renew_keys(&mut self, network: &Network) -> Result<bool> {
        let encoded = keys::fetch(network).await?;
        if self.store.book.keys.as_ref() == Some(&encoded) {
            return Ok(false);
        }
        self.keys = Some(keys::decode(&encoded, self.wallet.committee())?);
        self.store.record(vec![Record::Keys { keys: hex::encode(&encoded) }])?;
        Ok(true)
    }

    /// The committee's keys in the journal. Errors: `CASH_NOT_READY` if it has none.
    pub fn known_keys(&mut self) -> Result<MintKeys> {
        if let Some(keys) = &self.keys {
            return Ok(keys.clone());
        }
        let encoded = self.store.book.keys.clone().ok_or_else(|| {
            let none = keys::none_yet();
            Error { message: "this wallet has never seen the committee's keys: run it once online".into(), ..none }
        })?;
        let keys = keys::decode(&encoded, self.wallet.committee())?;
        self.keys = Some(keys.clone());
        Ok(keys)
    }

    /// Whether a command with a network has something to finish: open orders, notes that others still know, or notes of the seed that
    /// nobody has looked for.
    pub fn unfinished(&self) -> bool {
        let book = self.book();
        let taken = book.in_state(|state| matches!(state, records::State::Received(_))).next().is_some();
        !book.searched || !book.open.is_empty() || taken
    }

    /// Finishes what earlier commands could not: looks for notes of the seed if that was never done, drives open orders,
    /// exchanges what came in. What is left stays, and the next time it is tried again. Errors: those of looking; `IO`.
    pub async fn resume(&mut self, network: &Network, secrets: &Secrets, on_event: Events<'_>) -> Result<Vec<Resumed>> {
        if !self.book().searched {
            self.keys(network).await?;
            self.search(network, secrets, 0).await?;
        }
        let mut resumed = Vec::new();
        for number in self.book().open.keys().copied().collect::<Vec<_>>() {
            let purpose = self.book().open[&number].purpose.clone();
            let (failed, open) = match self.drive(network, secrets, number, on_event).await {
                Ok(failed) => (failed, None),
                Err(e) if e.code == Code::Io => return Err(e),
                Err(e) => (None, Some(e)),
            };
            resumed.push(Resumed { number, purpose, failed, open, exchanged: None });
        }
        let waiting: BTreeSet<u64> = (self.book().notes.values())
            .filter_map(|n| if let records::State::Received(number) = n.state { Some(number) } else { None })
            .collect();
        for number in waiting {
            let purpose = records::Purpose::Receive { received: number };
            let (exchanged, open) = match self.exchange_received(network, secrets, number, on_event).await {
                Ok(exchanged) => (Some(exchanged), None),
                Err(e) => (None, Some(e)),
            };
            resumed.push(Resumed { number, purpose, failed: None, open, exchanged });
        }
        Ok(resumed)
    }
}
