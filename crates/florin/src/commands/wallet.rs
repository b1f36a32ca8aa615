//! `florin wallet`: keys, balances, payments.

mod create;
mod distil;
mod history;
mod outcome;
mod pay;
mod payer;
mod place;
mod recover;
mod secrets;
mod show;
mod status;

use clap::Subcommand;
use florin_core::Result;

use crate::output::Output;

pub use outcome::{Outcome, decided, failure};
pub use payer::{Payer, Progress, Way, make};
pub use place::{Passphrase, Place, Question, block_on, duration, log_to_stderr};
pub use show::qr;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Make a wallet; prints its seed words once
    New(create::NewArgs),
    /// Make a wallet from seed words, and learn what its accounts have done
    Import(create::ImportArgs),
    /// Show an account's address
    Address(show::AddressArgs),
    /// List the accounts, or add some
    Accounts(show::AccountsArgs),
    /// Give an account a name of your own
    Label(show::LabelArgs),
    /// Show the seed words
    Backup(create::BackupArgs),
    /// What enough authorities agree that an account has
    Balance(show::BalanceArgs),
    /// Pay
    ///
    /// The order is on disk before it is sent. If anything goes wrong on the way, `florin wallet resume` finishes it, and
    /// so does the next payment; the same payment given again while it is pending is made once. With `--id` it is made
    /// once for good: after whatever happened, the same command finishes it, or shows again what it made. The id is kept
    /// in the journal beside the wallet, so two copies of a wallet do not know of each other's.
    Pay(pay::PayArgs),
    /// Give an account a BLS key, to sign the roots of batches
    ///
    /// Beside the key that it has, and from the same seed; the address stays. When a payment goes through a worker
    /// (`--worker`), the wallet signs the root of its batch together with the other senders then, which costs the committee
    /// less than a signature of each. Whoever is not asked, or too late, pays as ever.
    Distil(distil::DistilArgs),
    /// Finish orders that an earlier command could not
    Resume(pay::ResumeArgs),
    /// What became of an order; without one, of the account
    Status(status::StatusArgs),
    /// Free an account that its own wallet has locked
    ///
    /// An account is locked when two different orders have split the votes for one sequence number. The ordered log then
    /// decides: it freezes the account for ten minutes of its own time, and either an order that was certified
    /// settles, or the number is void and nothing of it moved. The command waits for that; stopped and run again, it
    /// goes on waiting.
    Recover(recover::RecoverArgs),
    /// Give up the payments of an account that are pending
    ///
    /// For one that the committee refuses and that is not wanted any more. It can't be taken back for sure: whoever has
    /// seen it can hand it in, and if authorities vote for both it and the next payment, the account is locked. When the
    /// committee was only out of reach, use `florin wallet resume` instead.
    Drop(pay::DropArgs),
    /// Payments sent and received
    History(history::HistoryArgs),
    /// Save the receipt of a payment, which anyone can check offline with `florin receipt verify`
    Receipt(history::ReceiptArgs),
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::New(args) => create::new(args, out),
        Command::Import(args) => create::import(args, out),
        Command::Address(args) => show::address(args, out),
        Command::Accounts(args) => show::accounts(args, out),
        Command::Label(args) => show::label(args, out),
        Command::Backup(args) => create::backup(args, out),
        Command::Balance(args) => show::balance(args, out),
        Command::Pay(args) => pay::pay(args, out),
        Command::Distil(args) => distil::distil(args, out),
        Command::Resume(args) => pay::resume(args, out),
        Command::Status(args) => status::status(args, out),
        Command::Recover(args) => recover::recover(args, out),
        Command::Drop(args) => pay::give_up(args, out),
        Command::History(args) => history::history(args, out),
        Command::Receipt(args) => history::receipt(args, out),
    }
}
