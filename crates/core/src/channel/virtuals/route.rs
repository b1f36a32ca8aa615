//! The way of a virtual channel: what each hub asks for.

use bytes::Bytes;

use super::input::{Open, VirtualId};
use crate::address::Address;
use crate::channel::manager::EndId;
use crate::error::{Code, Error, Result};
use crate::limits::{AMOUNT_MAX, HUB_HOPS_MAX};
use crate::merkle::Hash;
use crate::wire::{VirtualHop, VirtualTerms};

/// What a hub takes for opening one with this cap, minor units.
pub fn fee(terms: &VirtualTerms, cap: u64) -> u64 {
    let part = (u128::from(cap) * u128::from(terms.fee_ppm)).div_ceil(1_000_000);
    u64::try_from(part).unwrap_or(u64::MAX).saturating_add(terms.fee_base)
}

/// Where a hub opens it next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// In this channel.
    Channel(Hash),
    /// In the channel with this address that has the most money.
    Party(Address),
}

/// A hub on the way.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Where to.
    pub to: To,
    /// What it asks for.
    pub terms: VirtualTerms,
}

/// A virtual channel over these hubs, in their order, or over none. `permission`: encoded, of the keys that sign its payments. It ends at
/// `until_ms` for the payee, log time.
///
/// Errors: `BAD_AMOUNT`, `HUB_ROUTE` for too many hubs, `VIRTUAL_TERMS` for a cap that a hub does not take.
pub fn plan(id: VirtualId, end: EndId, permission: Bytes, (cap, until_ms): (u64, u64), steps: &[Step]) -> Result<Open> {
    if !(1..=AMOUNT_MAX).contains(&cap) {
        return Err(Error::expected(Code::BadAmount, "cap of the virtual channel", "1 to 2^63 - 1", cap));
    }
    if steps.len() > HUB_HOPS_MAX {
        let expected = format!("at most {HUB_HOPS_MAX}");
        return Err(Error::expected(Code::HubRoute, "hubs on the way", expected, steps.len()));
    }
    let (mut fees, mut not_after_ms) = (0u64, until_ms);
    let mut hops = Vec::with_capacity(steps.len());
    for Step { to, terms } in steps.iter().rev() {
        if cap < terms.cap_min {
            let expected = format!("at least {}", terms.cap_min);
            return Err(Error::expected(Code::VirtualTerms, "cap of the virtual channel", expected, cap));
        }
        let (channel, party) = match to {
            To::Channel(channel) => (Bytes::copy_from_slice(channel), Bytes::new()),
            To::Party(party) => (Bytes::new(), Bytes::copy_from_slice(party.as_bytes())),
        };
        hops.push(VirtualHop { channel, party, not_after_ms, fee: fees });
        fees = fees.saturating_add(fee(terms, cap));
        not_after_ms = not_after_ms.saturating_add(terms.margin_ms);
    }
    hops.reverse();
    Ok(Open { id, end, permission, cap, not_after_ms, fee: fees, hops })
}
