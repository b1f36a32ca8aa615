//! Shared objects, and what one operation does to them.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::wire::log_step::Kind as Told;
use florin_core::wire::{self, input, output};
use sha2::{Digest, Sha256};

use super::channel_orders::{Draft, Fail};
use super::channels::Channels;
use super::log::{Address, Credit};
use super::orders::{Id, Known};
use super::registry::Registry;
use super::rules::Facts;

pub(super) struct Contract {
    pub(super) fund: wire::ContractFund,
    pub(super) open: bool,
}

/// Shared objects after the newest unit that anybody has applied.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) contracts: BTreeMap<Id, Contract>,
    pub(super) primary: BTreeMap<Bytes, u64>,
    pub(super) registry: Registry,
    pub(super) channels: Channels,
    pub(super) claimed: u64,
    pub(super) refunded: u64,
}

/// Credits of an operation, and what it tells of networks.
pub(super) type Done = (Vec<Credit>, Vec<(u64, Told)>);

impl Objects {
    /// None yet, of this committee.
    pub(super) fn new(facts: &Facts) -> Objects {
        Objects { channels: Channels::new(facts), ..Default::default() }
    }

    /// Runs an operation: its credits and what it tells of networks, or why it fails. A failure changes nothing.
    pub(super) fn run(&mut self, order: &Known, call: &wire::Call, account: Address, now: u64) -> Result<Done, Fail> {
        use wire::credit_entry::Kind;
        let mut channels = Draft::new(&self.channels, order.id, account, now);
        let mut closed: Vec<(Id, bool)> = Vec::new();
        for input in &call.inputs {
            let (contract, preimage) = match input.kind.as_ref().ok_or("no input")? {
                input::Kind::ContractClaim(c) => (&c.contract, Some(&c.preimage)),
                input::Kind::ContractRefund(c) => (&c.contract, None),
                input::Kind::ChannelWithdraw(withdraw) => {
                    channels.withdraw(withdraw, input.amount)?;
                    continue;
                }
            };
            let id = Id::try_from(contract.as_ref()).map_err(|_| "no id")?;
            let contract = self.contracts.get(&id).ok_or("no such contract")?;
            let fund = &contract.fund;
            if !contract.open || closed.iter().any(|(c, _)| *c == id) || fund.amount != input.amount {
                return Err("closed, or of another amount".into());
            }
            let party = if preimage.is_some() { &fund.receiver } else { &fund.sender };
            let in_time = if preimage.is_some() { now < fund.expiry_ms } else { now >= fund.expiry_ms };
            let knows = preimage.is_none_or(|p| Sha256::digest(p)[..] == fund.hash[..]);
            if party[..] != account || !in_time || !knows {
                return Err(format!("own: {}, in time: {in_time}, knows: {knows}", party[..] == account).into());
            }
            closed.push((id, preimage.is_some()));
        }
        let (mut credits, mut funds) = (Vec::new(), Vec::new());
        let mut primary = self.primary.clone();
        let (mut networks, mut told) = (None, Vec::new());
        for (i, output) in call.outputs.iter().enumerate() {
            match output.kind.as_ref().ok_or("no output")? {
                output::Kind::Note(_) => return Err("a CALL makes no notes".into()),
                output::Kind::Credit(credit) => {
                    let to = Address::try_from(credit.address.as_ref()).map_err(|_| "no address")?;
                    credits.push((to, credit.amount, order.id, Kind::Call as i32));
                }
                output::Kind::ContractFund(fund) => {
                    if fund.expiry_ms <= now {
                        return Err("over before it begins".into());
                    }
                    let id = Sha256::new().chain_update(b"florin-contract-v1").chain_update(order.id);
                    funds.push((Id::from(id.chain_update((i as u32).to_be_bytes()).finalize()), fund.clone()));
                }
                output::Kind::PrimaryRedeem(redeem) => {
                    *primary.entry(redeem.address.clone()).or_default() += redeem.amount;
                }
                output::Kind::PrimaryDeposit(deposit) => {
                    let own = primary.entry(Bytes::copy_from_slice(&account)).or_default();
                    *own = own.checked_sub(deposit.amount).ok_or("not enough on the primary")?;
                    let to = Address::try_from(deposit.address.as_ref()).map_err(|_| "no address")?;
                    credits.push((to, deposit.amount, order.id, Kind::Deposit as i32));
                }
                kind @ (output::Kind::ChannelOpen(_)
                | output::Kind::ChannelDeposit(_)
                | output::Kind::ChannelKeys(_)
                | output::Kind::ChannelRedeem(_)
                | output::Kind::ChannelLeave(_)
                | output::Kind::ChannelSettle(_)
                | output::Kind::ChannelCollect(_)) => credits.extend(channels.output(kind, i as u32)?),
                output::Kind::Network(command) => {
                    let networks = networks.get_or_insert_with(|| self.registry.networks.clone());
                    let steps = networks.command(command, (order.place.network, &account), now, &order.id)?;
                    told.extend(steps.into_iter().map(|step| (command.network_id, step)));
                }
            }
        }
        let channels = channels.done();
        self.channels.commit(&order.id, channels);
        self.primary = primary;
        if let Some(networks) = networks {
            self.registry.networks = networks;
        }
        for (id, claimed) in closed {
            self.claimed += u64::from(claimed);
            self.refunded += u64::from(!claimed);
            if let Some(contract) = self.contracts.get_mut(&id) {
                contract.open = false;
            }
        }
        self.contracts.extend(funds.into_iter().map(|(id, fund)| (id, Contract { fund, open: true })));
        Ok((credits, told))
    }
}
