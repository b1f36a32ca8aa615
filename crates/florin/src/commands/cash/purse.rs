//! What the commands of cash share: the wallet, the way to the committee, what earlier commands left.

use std::future::Future;
use std::sync::Arc;

use florin_client::cash::records::Purpose;
use florin_client::cash::store::Secrets;
use florin_client::cash::{CashWallet, Lost, Resumed};
use florin_client::network::{Event, Network};
use florin_core::amount::{format_amount, parse_amount};
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use crate::commands::wallet::{Passphrase, Place, Progress, block_on};
use crate::output::Output;

/// Options of every command of cash.
#[derive(clap::Args)]
pub struct PurseArgs {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub passphrase: Passphrase,
}

/// An open wallet on its way to the committee.
pub struct Purse {
    pub cash: CashWallet,
    pub secrets: Secrets,
    pub network: Network,
    pub committee: Arc<Committee>,
    pub out: Output,
}

impl PurseArgs {
    /// Opens the wallet without a network. Errors: those of the files and the passphrase.
    pub fn open(&self) -> Result<(CashWallet, Secrets, Arc<Committee>)> {
        let committee = self.place.committee()?;
        let cash = self.place.cash(&committee)?;
        let seed = self.passphrase.unlock(cash.wallet().keystore())?;
        let secrets = cash.secrets(seed);
        Ok((cash, secrets, committee))
    }

    /// Opens the wallet, finishes what earlier commands could not, and runs a command.
    pub fn run<T, F: Future<Output = Result<T>>>(&self, out: Output, command: impl FnOnce(Purse) -> F) -> Result<T> {
        let (cash, secrets, committee) = self.open()?;
        block_on(async {
            let network = self.place.network(&committee);
            let mut purse = Purse { cash, secrets, network, committee, out };
            purse.resume().await?;
            command(purse).await
        })
    }
}

impl Purse {
    /// Finishes what earlier commands could not, as far as it goes.
    pub async fn resume(&mut self) -> Result<()> {
        let searched = self.cash.book().searched;
        if !searched {
            self.out.note("looking for notes of these seed words");
        }
        let mut progress = progress(&self.cash, self.out);
        let resumed = self.cash.resume(&self.network, &self.secrets, &mut progress).await?;
        resumed.iter().for_each(|resumed| self.say(resumed));
        if !searched {
            let free = self.cash.book().free();
            if free.notes() > 0 {
                self.out.note(format_args!("found {} in {} notes", self.amount(free.total()), free.notes()));
            }
        }
        Ok(())
    }

    fn say(&self, resumed: &Resumed) {
        let what = match &resumed.purpose {
            Purpose::Withdraw { account, .. } => format!("a withdrawal from account {account}"),
            Purpose::Send { .. } => {
                format!("number {}, which is sent: `florin cash sent {0}` shows it", resumed.number)
            }
            Purpose::Receive { received } => format!("number {received}, which came in"),
            Purpose::Cancel { sent } => format!("taking back number {sent}"),
            Purpose::Deposit { amount, .. } => format!("a deposit of {}", self.amount((*amount).into())),
            Purpose::Merge => "changing small notes".to_owned(),
        };
        if let Some(e) = &resumed.failed {
            self.out.note(format_args!("came to nothing: {what}: {e}"));
        } else if let Some(e) = &resumed.open {
            self.out.note(format_args!("still open: {what}: {e}"));
        } else {
            self.out.note(format_args!("finished: {what}"));
        }
        if let Some(exchanged) = resumed.exchanged.as_ref().filter(|e| !e.lost.is_empty()) {
            self.out.note(self.told(&exchanged.lost));
        }
    }

    /// Minor units as people write them.
    pub fn amount(&self, minor: u128) -> String {
        amount(&self.committee, minor)
    }

    /// Runs something that shows its progress.
    pub fn progress(&self) -> impl FnMut(Event) + use<> {
        progress(&self.cash, self.out)
    }

    /// What is said of notes that somebody else has spent.
    pub fn told(&self, lost: &[Lost]) -> String {
        let total = lost.iter().map(|l| 1u128 << l.tier).sum();
        let mut orders: Vec<&str> = lost.iter().map(|l| l.by.as_str()).filter(|by| !by.is_empty()).collect();
        orders.sort_unstable();
        orders.dedup();
        let by = if orders.is_empty() { String::new() } else { format!(", by order {}", orders.join(" and ")) };
        let (notes, were) = if lost.len() == 1 { ("note", "was") } else { ("notes", "were") };
        format!(
            "{} {notes}, {}, {were} spent before{by}: the sender, or somebody who has seen the string, was faster",
            lost.len(),
            self.amount(total)
        )
    }

    /// Says who gave false shares.
    pub fn name_liars(&self) {
        for name in self.cash.liars() {
            self.out.note(format_args!("{name} gave false signature shares; the notes are made without them"));
        }
    }

    /// What is left, for programs.
    pub fn left(&self) -> Value {
        let free = self.cash.book().free();
        let total = free.total();
        json!({"balance": plain(&self.committee, total), "balance_minor": total.to_string(), "notes": free.notes()})
    }
}

fn progress(cash: &CashWallet, out: Output) -> impl FnMut(Event) + use<> {
    let mut progress = Progress::new(cash.wallet(), out);
    move |event| progress.on(event)
}

/// Minor units as people write them, with the currency.
pub fn amount(committee: &Committee, minor: u128) -> String {
    format!("{} {}", plain(committee, minor), committee.network.currency)
}

/// The same without the currency.
pub fn plain(committee: &Committee, minor: u128) -> String {
    format_amount(i128::try_from(minor).unwrap_or(i128::MAX), committee.network.decimals)
}

/// Reads an amount. Errors: `BAD_AMOUNT`.
pub fn parse(committee: &Committee, text: &str) -> Result<u64> {
    parse_amount(text, committee.network.decimals)
}

/// An account of this wallet that exists. Errors: `USAGE`.
pub fn need_account(cash: &CashWallet, account: u32) -> Result<()> {
    cash.wallet().address(account).map(|_| ()).map_err(|e| Error { code: Code::Usage, ..e })
}
