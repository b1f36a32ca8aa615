//! The primary: where money comes from and goes back to. The bridge sees it through [`Primary`]; the default is
//! the ordered log itself, others are adapters to real chains.
//!
//! FastPay's contract on the primary remembers every user's last redeemed sequence number, O(users), so that no
//! certificate pays twice. Here the committee's own log gives each redeem a number, without gaps, and chains the
//! entries by hash; the primary pays entry `paid`, and then only `paid + 1`. So the contract keeps one counter a
//! network, and a redeem costs it the check of one signed session, or of one entry if sessions are followed.
//! `docs/bridge.md` has the argument and the costs.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};
use crate::merkle::Hash;
use crate::ordered::step::{Object, Step, object_key};
use crate::planted::{self, Bug};
use crate::wire;

/// A primary, as the bridge of one network sees it.
pub trait Primary {
    /// Deposits with an index from `since` on, ascending, at most `limit`.
    fn deposits(&self, since: u64, limit: usize) -> Result<Vec<wire::DepositEntry>>;
    /// Pays an entry of the redeem log out. False if it was paid before: then nothing changes.
    /// Errors: `OUT_OF_ORDER` if entries before it are not paid.
    fn redeem(&mut self, entry: &wire::RedeemEntry) -> Result<bool>;
    /// Id and epoch of the committee that it takes redeems from.
    fn committee(&self) -> (Hash, u64);
    /// What it holds for the network's accounts, minor units: with the embedded primary, what it has paid out and
    /// could come back.
    fn total_funds(&self) -> Result<u64>;
    /// Redeems paid: all entries with an index below this.
    fn redeemed(&self) -> Result<u64>;
}

/// Hash of an entry of the redeem log, which the next entry names.
pub fn redeem_hash(entry: &wire::RedeemEntry) -> Hash {
    let mut h = Sha256::new();
    h.update(b"florin-redeem-v1");
    h.update(entry.index.to_be_bytes());
    h.update((entry.address.len() as u64).to_be_bytes());
    h.update(&entry.address);
    h.update(entry.amount.to_be_bytes());
    h.update(&entry.order_id);
    h.update(&entry.previous);
    h.finalize().into()
}

/// Key of what an address has on the embedded primary.
pub fn balance_key(address: &[u8]) -> Vec<u8> {
    object_key(Object::Primary, &[address])
}

/// Key of an entry of the deposit log.
pub fn deposit_key(index: u64) -> Vec<u8> {
    object_key(Object::Deposit, &[&index.to_be_bytes()])
}

/// The embedded primary, inside one step of the log. Its own transactions are CALLs.
pub struct Embedded<'s, 'a> {
    step: &'s mut Step<'a>,
    committee: (Hash, u64),
}

impl<'s, 'a> Embedded<'s, 'a> {
    /// The primary as this step sees it.
    pub fn new(step: &'s mut Step<'a>, committee: (Hash, u64)) -> Self {
        Embedded { step, committee }
    }

    /// Deposits that the bridge has credited: all with an index below this.
    pub fn credited(&self) -> u64 {
        self.step.book.deposits
    }

    fn record(&self) -> Result<wire::PrimaryRecord> {
        Ok(self.step.get(&balance_key(&[]))?.unwrap_or_default())
    }

    fn balance(&self, address: &[u8]) -> Result<u64> {
        Ok(self.step.get::<wire::PrimaryBalance>(&balance_key(address))?.map_or(0, |b| b.amount))
    }

    /// A transaction of the primary: its holder pays into the bridge, for an account. Errors: `PRIMARY_FUNDS`.
    pub fn deposit(&mut self, from: &[u8], amount: u64, account: &[u8]) -> Result<()> {
        let balance = self.balance(from)?;
        let Some(left) = balance.checked_sub(amount) else {
            let expected = format!("at least {amount}");
            return Err(Error::expected(Code::PrimaryFunds, "minor units on the primary", expected, balance));
        };
        match left {
            0 => self.step.delete(balance_key(from)),
            _ => self.step.put(balance_key(from), &wire::PrimaryBalance { amount: left }),
        }
        let mut record = self.record()?;
        let entry = wire::DepositEntry {
            index: record.deposits,
            address: Bytes::copy_from_slice(account),
            amount,
            from: Bytes::copy_from_slice(from),
        };
        record.deposits += 1;
        self.step.put(deposit_key(entry.index), &entry);
        self.step.put(balance_key(&[]), &record);
        Ok(())
    }
}

impl Primary for Embedded<'_, '_> {
    fn deposits(&self, since: u64, limit: usize) -> Result<Vec<wire::DepositEntry>> {
        let end = self.record()?.deposits;
        let mut entries = Vec::new();
        for index in (since..end).take(limit) {
            entries.extend(self.step.get::<wire::DepositEntry>(&deposit_key(index))?);
        }
        Ok(entries)
    }

    fn redeem(&mut self, entry: &wire::RedeemEntry) -> Result<bool> {
        let mut record = self.record()?;
        if entry.index < record.paid {
            return Ok(false);
        }
        if entry.index > record.paid {
            return Err(Error::expected(Code::OutOfOrder, "index of the redeem", record.paid, entry.index));
        }
        let balance = self.balance(&entry.address)?;
        let amount = balance
            .checked_add(entry.amount * planted::when(Bug::RedeemTwice, 2, 1))
            .ok_or_else(|| Error::new(Code::BadAmount, "the address would have 2^64 minor units or more"))?;
        self.step.put(balance_key(&entry.address), &wire::PrimaryBalance { amount });
        record.paid += 1;
        self.step.put(balance_key(&[]), &record);
        Ok(true)
    }

    fn committee(&self) -> (Hash, u64) {
        self.committee
    }

    fn total_funds(&self) -> Result<u64> {
        Ok(u64::try_from(self.step.book.primary).unwrap_or(0))
    }

    fn redeemed(&self) -> Result<u64> {
        Ok(self.record()?.paid)
    }
}
