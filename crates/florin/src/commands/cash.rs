//! `florin cash`: notes of e-cash.

mod deposit;
mod purse;
mod receive;
mod recover;
mod send;
mod show;
mod withdraw;

use clap::Subcommand;
use florin_core::Result;

use crate::output::Output;

/// Subcommands. Each first finishes what an earlier one could not.
#[derive(Subcommand)]
pub enum Command {
    /// From an account to notes
    Withdraw(withdraw::WithdrawArgs),
    /// What the wallet has in notes
    Balance(show::BalanceArgs),
    /// Take notes out of the wallet, as a string: whoever has it can spend them
    ///
    /// With `--to` only the receiver's key can, until the date from which the sender may take them back: the receiver can
    /// take them without a network. What was sent and not claimed comes back with `florin cash cancel`.
    Send(send::SendArgs),
    /// What was sent, and whether it was claimed; with its number, its string again
    Sent(send::SentArgs),
    /// Take back what was sent, as far as nobody has claimed it
    Cancel(send::CancelArgs),
    /// Make the notes of a string your own
    ///
    /// They are exchanged at once for notes that nobody else knows: then they are yours for good. With `--offline` they are
    /// checked and kept, and exchanged by the next command that has a network.
    Receive(receive::ReceiveArgs),
    /// Print a key for one payment, to which a sender can lock notes
    Request(receive::RequestArgs),
    /// From notes to an account: this wallet's, or any
    Deposit(deposit::DepositArgs),
    /// Find the notes of the seed words again, and what became of those that are known
    ///
    /// Notes that different orders have locked are freed by the log, which takes ten minutes; stopped and run again, it goes on
    /// waiting. A wallet whose cash was never asked for looks for it by itself. What was sent and not claimed counts as the wallet's own
    /// again.
    Recover(recover::RecoverArgs),
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Withdraw(args) => withdraw::withdraw(args, out),
        Command::Balance(args) => show::balance(args, out),
        Command::Send(args) => send::send(args, out),
        Command::Sent(args) => send::sent(args, out),
        Command::Cancel(args) => send::cancel(args, out),
        Command::Receive(args) => receive::receive(args, out),
        Command::Request(args) => receive::request(args, out),
        Command::Deposit(args) => deposit::deposit(args, out),
        Command::Recover(args) => recover::recover(args, out),
    }
}
