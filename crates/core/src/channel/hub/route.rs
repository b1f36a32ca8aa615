//! Routes: what the payer computes from the hubs' terms, and what an invoice says.

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::input::{Ask, Config, Route};
use crate::address::Address;
use crate::channel::manager::EndId;
use crate::content::{canonical, check_address};
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, HUB_HOPS_MAX, MEMO_BYTES_MAX};
use crate::merkle::Hash;
use crate::wire::{HubHop, HubInvoice, HubTerms};

/// A hub on the way: the channel that it is to pay in, and its terms.
#[derive(Clone, Debug)]
pub struct Step {
    /// Channel of the hub with the next one, or with the payee.
    pub channel: Hash,
    /// What the hub asks for.
    pub terms: HubTerms,
}

/// What a hub takes for passing an amount on, minor units: base + millionths, rounded up.
pub fn fee(terms: &HubTerms, amount: u64) -> u64 {
    let part = (u128::from(amount) * u128::from(terms.fee_ppm)).div_ceil(1_000_000);
    u64::try_from(part).unwrap_or(u64::MAX).saturating_add(terms.fee_base)
}

/// The way of a payment over hubs, from the payer's end of its channel with the first of them (without hubs: with the payee).
/// `now_ms` is log time. Errors: `HUB_ROUTE`, `LOCK_TERMS`.
pub fn plan(config: &Config, now_ms: u64, invoice: &HubInvoice, end: EndId, hubs: &[Step]) -> Result<Route> {
    if hubs.len() > HUB_HOPS_MAX {
        let expected = format!("at most {HUB_HOPS_MAX}");
        return Err(Error::expected(Code::HubRoute, "hubs on the way", expected, hubs.len()));
    }
    let last = hubs.last().map_or(end.channel, |hub| hub.channel);
    if invoice.channel != last[..] {
        let (expected, found) = (hex::encode(&invoice.channel), hex::encode(last));
        return Err(Error::expected(Code::HubRoute, "channel where the route ends", expected, found));
    }
    let mut not_after_ms = now_ms.saturating_add(config.policy.final_ms);
    let (mut amount, mut upfront, mut hops) = (invoice.amount, 0u64, Vec::with_capacity(hubs.len()));
    for hub in hubs.iter().rev() {
        let terms = &hub.terms;
        if amount < terms.lock_min || not_after_ms.saturating_sub(now_ms) > terms.lock_max_ms {
            let message = format!("a lock of {amount} until {not_after_ms} ms is outside of a hub's terms");
            return Err(Error::new(Code::LockTerms, message));
        }
        let channel = Bytes::copy_from_slice(&hub.channel);
        hops.push(HubHop { channel, party: Bytes::new(), amount, not_after_ms, upfront });
        amount = amount.saturating_add(fee(terms, amount));
        not_after_ms = not_after_ms.saturating_add(terms.margin_ms);
        upfront = upfront.saturating_add(terms.upfront);
    }
    hops.reverse();
    if amount > AMOUNT_MAX {
        return Err(Error::expected(Code::HubRoute, "amount with all fees", "at most 2^63 - 1", amount));
    }
    Ok(Route { end, amount, not_after_ms, upfront, hops })
}

/// The invoice in these bytes. Errors: `BAD_CONTENT`, `NON_CANONICAL`, `LIMIT`, `BAD_AMOUNT`.
pub fn read_invoice(bytes: &Bytes) -> Result<HubInvoice> {
    let invoice: HubInvoice = canonical(bytes)?;
    check_address("invoice's payee", &invoice.payee)?;
    check_address("invoice's channel", &invoice.channel)?;
    check_address("invoice's secret hash", &invoice.secret_hash)?;
    if invoice.memo.len() > MEMO_BYTES_MAX {
        let expected = format!("at most {MEMO_BYTES_MAX}");
        return Err(Error::expected(Code::Limit, "bytes of the invoice's memo", expected, invoice.memo.len()));
    }
    if !(1..=AMOUNT_MAX).contains(&invoice.amount) {
        return Err(Error::expected(Code::BadAmount, "amount of the invoice", "1 to 2^63 - 1", invoice.amount));
    }
    Ok(invoice)
}

/// A new invoice, encoded. Errors: those of reading it.
pub fn write_invoice(network_id: u64, payee: &Address, ask: &Ask) -> Result<(Bytes, Hash)> {
    let hash: Hash = Sha256::digest(ask.secret).into();
    let invoice = HubInvoice {
        network_id,
        payee: Bytes::copy_from_slice(payee.as_bytes()),
        channel: Bytes::copy_from_slice(&ask.end.channel),
        amount: ask.amount,
        secret_hash: Bytes::copy_from_slice(&hash),
        expires_ms: ask.expires_ms,
        memo: ask.memo.clone(),
    };
    let bytes = Bytes::from(invoice.encode_to_vec());
    read_invoice(&bytes)?;
    Ok((bytes, hash))
}
