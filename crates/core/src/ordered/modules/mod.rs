//! Modules of shared objects: what orders can do beside paying accounts.
//!
//! A module checks the form of its inputs and outputs (what voters look at), applies them in the log's order, and
//! says what money its records hold. `docs/modules.md` shows how to add one.

pub mod bridge;
pub mod channels;
pub mod contracts;
pub mod primary;
pub mod registry;

use bytes::Bytes;

use super::step::{Object, Step};
use crate::address::Address;
use crate::authority::state::{State, Table};
use crate::content::{check_address, check_amount};
use crate::error::{Code, Error, Result};
use crate::merkle::Hash;
use crate::wire::{self, credit_entry, input, output};

/// Entries of one read.
const PAGE: usize = 256;

/// Who calls, by what order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The account's address.
    pub account: Address,
    /// Its network.
    pub network_id: u64,
    /// Its actor id.
    pub actor: u64,
    /// Its order's number.
    pub seqnum: u32,
    /// Its order's id.
    pub order_id: Hash,
    /// Its order's memo.
    pub memo: String,
    /// The committee's id.
    pub committee_id: Hash,
    /// The committee's term.
    pub epoch: u64,
}

impl Caller {
    /// Where a credit that the log makes for this order comes from.
    pub fn entry(&self, output: u32, amount: u64, kind: credit_entry::Kind) -> wire::CreditEntry {
        wire::CreditEntry {
            network_id: self.network_id,
            actor: self.actor,
            seqnum: self.seqnum,
            output,
            order_id: Bytes::copy_from_slice(&self.order_id),
            amount,
            memo: self.memo.clone(),
            kind: kind as i32,
        }
    }
}

/// A module. Errors of `check_*` and `apply_*` are the order's; those of `apply_*` undo the whole order.
pub trait Module: Sync {
    /// Name in audits.
    fn name(&self) -> &'static str;
    /// Form of an input of this module, without any state.
    fn check_input(&self, kind: &input::Kind) -> Result<()>;
    /// Form of an output, without any state. Returns the value that it takes, minor units.
    fn check_output(&self, kind: &output::Kind) -> Result<u64>;
    /// Takes `amount` out of a shared object, with its posting.
    fn apply_input(&self, kind: &input::Kind, amount: u64, caller: &Caller, step: &mut Step<'_>) -> Result<()>;
    /// Puts value into a shared object, or operates on one, with its posting.
    fn apply_output(&self, kind: &output::Kind, output: u32, caller: &Caller, step: &mut Step<'_>) -> Result<()>;
    /// What its records hold, read one by one, minor units.
    fn held(&self, state: &dyn State) -> Result<i128>;
    /// What the book says that it holds.
    fn booked(&self, book: &super::book::Book) -> i128;
}

/// Every module.
pub static MODULES: [&dyn Module; 5] =
    [&Accounts, &contracts::Contracts, &bridge::Bridge, &registry::Registry, &channels::Channels];

fn of_input(kind: &input::Kind) -> &'static dyn Module {
    match kind {
        input::Kind::ContractClaim(_) | input::Kind::ContractRefund(_) => &contracts::Contracts,
        input::Kind::ChannelWithdraw(_) => &channels::Channels,
    }
}

fn of_output(kind: &output::Kind) -> &'static dyn Module {
    match kind {
        output::Kind::Credit(_) | output::Kind::Note(_) => &Accounts,
        output::Kind::ContractFund(_) => &contracts::Contracts,
        output::Kind::PrimaryRedeem(_) | output::Kind::PrimaryDeposit(_) => &bridge::Bridge,
        output::Kind::Network(_) => &registry::Registry,
        output::Kind::ChannelOpen(_)
        | output::Kind::ChannelDeposit(_)
        | output::Kind::ChannelKeys(_)
        | output::Kind::ChannelRedeem(_)
        | output::Kind::ChannelLeave(_)
        | output::Kind::ChannelSettle(_)
        | output::Kind::ChannelCollect(_) => &channels::Channels,
    }
}

/// Form of an input.
pub fn check_input(kind: &input::Kind) -> Result<()> {
    of_input(kind).check_input(kind)
}

/// Form of an output, and the value that it takes.
pub fn check_output(kind: &output::Kind) -> Result<u64> {
    of_output(kind).check_output(kind)
}

pub(super) fn apply_input(input: &wire::Input, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
    match &input.kind {
        Some(kind) => of_input(kind).apply_input(kind, input.amount, caller, step),
        None => Ok(()),
    }
}

pub(super) fn apply_output(output: &wire::Output, at: u32, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
    match &output.kind {
        Some(kind) => of_output(kind).apply_output(kind, at, caller, step),
        None => Ok(()),
    }
}

/// Entries of the objects table of one kind, one by one.
pub fn each(state: &dyn State, object: Object, mut visit: impl FnMut(Bytes, Bytes) -> Result<()>) -> Result<()> {
    let mut from = vec![object as u8];
    loop {
        let page = state.scan(Table::Objects, &from, PAGE)?;
        let full = page.len() == PAGE;
        for (key, value) in page {
            if key.first() != Some(&(object as u8)) {
                return Ok(());
            }
            from = key.to_vec();
            from.push(0);
            visit(key, value)?;
        }
        if !full {
            return Ok(());
        }
    }
}

/// Credits to accounts, which live at their shards: here they are only on their way.
struct Accounts;

impl Module for Accounts {
    fn name(&self) -> &'static str {
        "accounts"
    }

    fn check_input(&self, _: &input::Kind) -> Result<()> {
        Ok(())
    }

    fn check_output(&self, kind: &output::Kind) -> Result<u64> {
        let output::Kind::Credit(credit) = kind else {
            let message = "a CALL makes no notes: credit the account, then withdraw";
            return Err(Error::new(Code::BadContent, message));
        };
        check_address("credited address", &credit.address)?;
        check_amount(credit.amount)?;
        Ok(credit.amount)
    }

    fn apply_input(&self, _: &input::Kind, _: u64, _: &Caller, _: &mut Step<'_>) -> Result<()> {
        Ok(())
    }

    fn apply_output(&self, kind: &output::Kind, output: u32, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
        let output::Kind::Credit(credit) = kind else { return Ok(()) };
        let address = check_address("credited address", &credit.address)?;
        step.credit(&address, credit.amount, caller.entry(output, credit.amount, credit_entry::Kind::Call));
        Ok(())
    }

    fn held(&self, _: &dyn State) -> Result<i128> {
        Ok(0)
    }

    fn booked(&self, _: &super::book::Book) -> i128 {
        0
    }
}
