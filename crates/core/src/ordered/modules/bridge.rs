//! The bridge to the primary, as FastPay has it: deposits there credit accounts here, each once, by index; redeems
//! here are paid there, each once, by number.

use bytes::Bytes;

use super::primary::{Embedded, Primary, redeem_hash};
use super::{Caller, Module};
use crate::address::Address;
use crate::authority::state::{State, Table, corrupt};
use crate::content::{check_address, check_amount};
use crate::error::{Code, Error, Result};
use crate::ordered::book::Book;
use crate::ordered::step::{Object, Step, object_key};
use crate::planted::{self, Bug};
use crate::wire::{self, credit_entry, input, output};

/// Deposits credited at a time; more are credited by the next order of the bridge.
const DEPOSITS_MAX: usize = 256;

/// The module `bridge`.
pub struct Bridge;

/// Key of an entry of the redeem log.
pub fn redeem_key(index: u64) -> Vec<u8> {
    object_key(Object::Redeem, &[&index.to_be_bytes()])
}

impl Module for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn check_input(&self, _: &input::Kind) -> Result<()> {
        Ok(())
    }

    fn check_output(&self, kind: &output::Kind) -> Result<u64> {
        match kind {
            output::Kind::PrimaryRedeem(redeem) => {
                check_address("address of the primary", &redeem.address)?;
                check_amount(redeem.amount)?;
                Ok(redeem.amount)
            }
            output::Kind::PrimaryDeposit(deposit) => {
                check_address("credited address", &deposit.address)?;
                check_amount(deposit.amount)?;
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    fn apply_input(&self, _: &input::Kind, _: u64, _: &Caller, _: &mut Step<'_>) -> Result<()> {
        Ok(())
    }

    fn apply_output(&self, kind: &output::Kind, _: u32, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
        let committee = (caller.committee_id, caller.epoch);
        match kind {
            output::Kind::PrimaryRedeem(redeem) => {
                let entry = wire::RedeemEntry {
                    index: step.book.redeems,
                    address: redeem.address.clone(),
                    amount: redeem.amount,
                    order_id: Bytes::copy_from_slice(&caller.order_id),
                    previous: step.book.last_redeem.clone(),
                };
                step.put(redeem_key(entry.index), &entry);
                step.book.redeems += 1;
                step.book.last_redeem = Bytes::copy_from_slice(&redeem_hash(&entry));
                step.book.primary += redeem.amount as i128;
                Embedded::new(step, committee).redeem(&entry)?;
            }
            output::Kind::PrimaryDeposit(deposit) => {
                let mut primary = Embedded::new(step, committee);
                primary.deposit(caller.account.as_bytes(), deposit.amount, &deposit.address)?;
                let since = primary.credited();
                for entry in primary.deposits(since, DEPOSITS_MAX)? {
                    credit_deposit(&entry, caller, step)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn held(&self, state: &dyn State) -> Result<i128> {
        let mut held = 0;
        super::each(state, Object::Primary, |key, value| {
            if key.len() > 1 {
                let balance: wire::PrimaryBalance = prost::Message::decode(value)
                    .map_err(|e: prost::DecodeError| corrupt(Table::Objects, &key, &e.to_string()))?;
                held += balance.amount as i128;
            }
            Ok(())
        })?;
        Ok(held)
    }

    fn booked(&self, book: &Book) -> i128 {
        book.primary
    }
}

/// Credits a deposit of the primary, if it is the next one. One that is credited already, or a gap, changes nothing.
/// Errors: `OUT_OF_ORDER`.
pub fn credit_deposit(entry: &wire::DepositEntry, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
    if entry.index != step.book.deposits {
        return Err(Error::expected(Code::OutOfOrder, "index of the deposit", step.book.deposits, entry.index));
    }
    let address = Address::from_slice(&entry.address)?;
    let source = caller.entry(entry.index as u32, entry.amount, credit_entry::Kind::Deposit);
    step.book.deposits += planted::when(Bug::DepositTwice, 0, 1);
    step.book.primary -= entry.amount as i128;
    step.credit(&address, entry.amount, source);
    Ok(())
}
