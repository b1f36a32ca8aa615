//! Hash locks: money that whoever is named as receiver takes with the preimage of a hash before the expiry, and
//! that goes back to its sender after. Log time decides which, so both parties and all authorities agree.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Caller, Module};
use crate::address::Address;
use crate::authority::state::{State, Table, corrupt};
use crate::content::{check_address, check_amount};
use crate::error::{Code, Error, Result};
use crate::limits::PREIMAGE_BYTES_MAX;
use crate::merkle::Hash;
use crate::ordered::book::Book;
use crate::ordered::step::{Object, Step, object_key};
use crate::planted::{self, Bug};
use crate::wire::{self, contract_reply::State as S, input, output};

/// The module `contracts`.
pub struct Contracts;

/// Id of the contract that an output of an order makes.
pub fn contract_id(order_id: &Hash, output: u32) -> Hash {
    let h = Sha256::new().chain_update(b"florin-contract-v1").chain_update(order_id);
    h.chain_update(output.to_be_bytes()).finalize().into()
}

/// Key of a contract.
pub fn contract_key(id: &[u8]) -> Vec<u8> {
    object_key(Object::Contract, &[id])
}

/// Key that finds open contracts by their expiry.
pub fn expiry_key(expiry_ms: u64, id: &[u8]) -> Vec<u8> {
    object_key(Object::Expiry, &[&expiry_ms.to_be_bytes(), id])
}

impl Module for Contracts {
    fn name(&self) -> &'static str {
        "contracts"
    }

    fn check_input(&self, kind: &input::Kind) -> Result<()> {
        match kind {
            input::Kind::ContractClaim(claim) => {
                check_address("contract's id", &claim.contract)?;
                if claim.preimage.is_empty() || claim.preimage.len() > PREIMAGE_BYTES_MAX {
                    let expected = format!("1 to {PREIMAGE_BYTES_MAX}");
                    return Err(Error::expected(Code::Limit, "bytes of the preimage", expected, claim.preimage.len()));
                }
            }
            input::Kind::ContractRefund(refund) => {
                check_address("contract's id", &refund.contract)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn check_output(&self, kind: &output::Kind) -> Result<u64> {
        let output::Kind::ContractFund(fund) = kind else { return Ok(0) };
        check_amount(fund.amount)?;
        check_address("contract's hash", &fund.hash)?;
        check_address("receiver's address", &fund.receiver)?;
        check_address("sender's address", &fund.sender)?;
        Ok(fund.amount)
    }

    fn apply_input(&self, kind: &input::Kind, amount: u64, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
        let (id, preimage) = match kind {
            input::Kind::ContractClaim(claim) => (&claim.contract, Some(&claim.preimage)),
            input::Kind::ContractRefund(refund) => (&refund.contract, None),
            _ => return Ok(()),
        };
        let key = contract_key(id);
        let mut record: wire::ContractRecord = step
            .get(&key)?
            .ok_or_else(|| Error::new(Code::UnknownContract, format!("there is no contract {}", hex::encode(id))))?;
        let fund = record.fund.clone().unwrap_or_default();
        match record.state() {
            S::Open => {}
            _ if planted::is(Bug::ContractTwice) => {}
            other => return Err(Error::expected(Code::ContractClosed, "state of the contract", "open", name(other))),
        }
        if fund.amount != amount {
            return Err(Error::expected(Code::BadAmount, "amount of the contract", fund.amount, amount));
        }
        let party = if preimage.is_some() { &fund.receiver } else { &fund.sender };
        if party.as_ref() != caller.account.as_bytes() {
            let what = if preimage.is_some() { "receiver of the contract" } else { "sender of the contract" };
            let found = hex::encode(caller.account.as_bytes());
            return Err(Error::expected(Code::NotAParty, what, hex::encode(party), found));
        }
        let (now, expiry) = (step.time_ms(), fund.expiry_ms);
        match preimage {
            Some(_) if now >= expiry && !planted::is(Bug::ClaimsLate) => {
                return Err(Error::expected(Code::ContractExpired, "log time", format!("before {expiry} ms"), now));
            }
            None if now < expiry && !planted::is(Bug::RefundsEarly) => {
                return Err(Error::expected(Code::ContractOpen, "log time", format!("at least {expiry} ms"), now));
            }
            Some(preimage) => {
                let hash: Hash = Sha256::digest(preimage).into();
                if fund.hash != hash[..] && !planted::is(Bug::PreimageUnchecked) {
                    let (expected, found) = (hex::encode(&fund.hash), hex::encode(hash));
                    return Err(Error::expected(Code::WrongPreimage, "sha256 of the preimage", expected, found));
                }
                record.preimage = preimage.clone();
                record.set_state(S::Claimed);
            }
            None => record.set_state(S::Refunded),
        }
        step.put(key, &record);
        step.delete(expiry_key(expiry, id));
        step.book.contracts -= amount as i128;
        Ok(())
    }

    fn apply_output(&self, kind: &output::Kind, output: u32, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
        let output::Kind::ContractFund(fund) = kind else { return Ok(()) };
        if fund.expiry_ms <= step.time_ms() {
            let expected = format!("after {} ms, the log's time", step.time_ms());
            return Err(Error::expected(Code::ContractExpired, "expiry of the contract", expected, fund.expiry_ms));
        }
        let record =
            wire::ContractRecord { fund: Some(fund.clone()), state: S::Open as i32, preimage: Default::default() };
        let id = contract_id(&caller.order_id, output);
        step.put(contract_key(&id), &record);
        step.put_bytes(expiry_key(fund.expiry_ms, &id), Bytes::new());
        step.book.contracts += fund.amount as i128;
        Ok(())
    }

    fn held(&self, state: &dyn State) -> Result<i128> {
        let mut held = 0;
        super::each(state, Object::Contract, |key, value| {
            let record: wire::ContractRecord = prost::Message::decode(value)
                .map_err(|e: prost::DecodeError| corrupt(Table::Objects, &key, &e.to_string()))?;
            if record.state() == S::Open {
                held += record.fund.map_or(0, |f| f.amount as i128);
            }
            Ok(())
        })?;
        Ok(held)
    }

    fn booked(&self, book: &Book) -> i128 {
        book.contracts
    }
}

/// What people read.
pub fn name(state: S) -> &'static str {
    match state {
        S::Unknown => "unknown",
        S::Open => "open",
        S::Claimed => "claimed",
        S::Refunded => "refunded",
    }
}

/// Whether both parties are the ones given; for wallets that list their contracts.
pub fn concerns(fund: &wire::ContractFund, account: &Address) -> bool {
    fund.receiver == account.as_bytes()[..] || fund.sender == account.as_bytes()[..]
}
