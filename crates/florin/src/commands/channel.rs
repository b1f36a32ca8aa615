//! `florin channel`: payment channels.

pub mod desk;
pub mod life;
mod money;
mod payments;
mod tower;
mod virtuals;
mod vouchers;

use clap::Subcommand;
use florin_core::Result;

use crate::output::Output;

/// Subcommands. Each goes on with what an earlier one had to leave.
#[derive(Subcommand)]
pub enum Command {
    /// Open a channel to an address
    Open(money::OpenArgs),
    /// Put more money into a channel
    Fund(money::FundArgs),
    /// Set money of a channel aside, for a lane or for something of your own
    Reserve(money::ReserveArgs),
    /// Free what was set aside
    Release(money::ReleaseArgs),
    /// Pay by a channel: print a voucher for the other side. Needs no network
    Pay(vouchers::PayArgs),
    /// Take a voucher that the other side has printed
    Receive(vouchers::ReceiveArgs),
    /// The vouchers of a channel
    Vouchers(vouchers::ListArgs),
    /// Redeem vouchers in the log: the best of each lane
    Submit(desk::OneArgs),
    /// Say this wallet's keys in a channel that somebody else has opened: before that it signs nothing there
    Keys(desk::OneArgs),
    /// Print a permit: the other side may take money out of the open channel
    Permit(money::PermitArgs),
    /// Take money out of an open channel, with the other side's permit or after an announcement
    Withdraw(money::WithdrawArgs),
    /// Begin to close a channel; vouchers are redeemed until its delay is over
    Settle(desk::OneArgs),
    /// Pay both sides out, once the delay is over
    Collect(desk::OneArgs),
    /// All about one channel
    Status(life::StatusArgs),
    /// The wallet's channels
    List(life::ListArgs),
    /// Stay, follow the channels in the log, and redeem what must be redeemed when the other side closes one
    Watch(life::WatchArgs),
    /// Write what another account needs to redeem this wallet's vouchers, should the other side close the channel
    Delegate(tower::DelegateArgs),
    /// Ask to be paid by anybody who has a channel with the same hub: print an invoice and wait until it is paid
    Request(payments::RequestArgs),
    /// Pay an invoice over a hub
    Send(payments::SendArgs),
    /// Virtual channels: pay somebody over a hub that hears of the opening and the closing alone
    #[command(subcommand)]
    Virtual(virtuals::Command),
    /// Watch channels of others, from such files: a watchtower. It can redeem for them, and nothing else
    Tower(tower::TowerArgs),
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Open(args) => money::open(args, out),
        Command::Fund(args) => money::fund(args, out),
        Command::Reserve(args) => money::reserve(args, out),
        Command::Release(args) => money::release(args, out),
        Command::Pay(args) => vouchers::pay(args, out),
        Command::Receive(args) => vouchers::receive(args, out),
        Command::Vouchers(args) => vouchers::list(args, out),
        Command::Submit(args) => vouchers::submit(args, out),
        Command::Keys(args) => money::keys(args, out),
        Command::Permit(args) => money::permit(args, out),
        Command::Withdraw(args) => money::withdraw(args, out),
        Command::Settle(args) => life::settle(args, out),
        Command::Collect(args) => life::collect(args, out),
        Command::Status(args) => life::status(args, out),
        Command::List(args) => life::list(args, out),
        Command::Watch(args) => life::watch(args, out),
        Command::Delegate(args) => tower::delegate(args, out),
        Command::Request(args) => payments::request(args, out),
        Command::Send(args) => payments::send(args, out),
        Command::Virtual(command) => virtuals::run(command, out),
        Command::Tower(args) => tower::tower(args, out),
    }
}
