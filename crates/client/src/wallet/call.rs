//! Operations on shared objects (CALL): signed like payments, and then decided by the ordered log.
//!
//! A CALL is final when its spending side is: then what it takes has left the account, and every honest authority brings
//! it into the log. What the log makes of it, the shared side or a refund, is believed when `f + 1` authorities say
//! the same, and kept in the journal. Until then the journal remembers that it waits, through any crash.

use std::time::{Duration, Instant};

use florin_core::address::Address;
use florin_core::amount::format_amount;
use florin_core::committee::Committee;
use florin_core::limits::PREIMAGE_BYTES_MAX;
use florin_core::ordered::modules::check_output;
use florin_core::wire::network_command::Kind as NetworkKind;
use florin_core::wire::{self, input, order_status::State, output};
use florin_core::{Code, Error, Result};

use super::Wallet;
use super::records::{Ordered, Record};
use super::status::Status;
use crate::network::Network;
use crate::time::utc;

/// Between two questions what became of an order: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An operation on shared objects that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// As of a payment.
    pub id: Option<String>,
    /// Account of the wallet that calls.
    pub account: u32,
    /// What brings value.
    pub inputs: Vec<wire::Input>,
    /// What takes value, or operates.
    pub outputs: Vec<output::Kind>,
    /// A note, public.
    pub memo: String,
    /// Whether the expiry of its contracts is counted from the moment of asking: then it is no reason to take two
    /// requests for different ones.
    pub expires_in: bool,
}

impl Operation {
    /// What it takes from the account, minor units. Errors: those of the outputs' form; `BAD_AMOUNT`.
    pub fn total(&self) -> Result<i128> {
        let mut total = 0;
        for kind in &self.outputs {
            total += i128::from(check_output(kind)?);
        }
        Ok(total - self.inputs.iter().map(|i| i128::from(i.amount)).sum::<i128>())
    }

    /// The content, but for address and permission.
    pub(super) fn call(&self, previous_call: u32) -> wire::Call {
        wire::Call {
            previous_call,
            inputs: self.inputs.clone(),
            outputs: self.outputs.iter().map(|kind| wire::Output { kind: Some(kind.clone()) }).collect(),
            memo: self.memo.clone(),
            ..Default::default()
        }
    }

    /// Whether an order asks for just this.
    pub(super) fn is(&self, call: &wire::Call) -> bool {
        let mut own = self.call(call.previous_call);
        for (mine, theirs) in own.outputs.iter_mut().zip(&call.outputs).filter(|_| self.expires_in) {
            if let (Some(output::Kind::ContractFund(mine)), Some(output::Kind::ContractFund(theirs))) =
                (&mut mine.kind, &theirs.kind)
            {
                mine.expiry_ms = theirs.expiry_ms;
            }
        }
        (own.inputs, own.outputs, own.memo) == (call.inputs.clone(), call.outputs.clone(), call.memo.clone())
    }
}

/// What a CALL does, one line for each input and output, for people.
pub fn describe(call: &wire::Call, committee: &Committee) -> Vec<String> {
    let network = &committee.network;
    let amount = |minor: u64| format!("{} {}", format_amount(minor.into(), network.decimals), network.currency);
    describe_with(call, amount, |address| address.to_text(&network.currency))
}

/// As [`describe`], with other words for amounts and addresses.
pub fn describe_with(
    call: &wire::Call,
    amount: impl Fn(u64) -> String,
    show: impl Fn(&Address) -> String,
) -> Vec<String> {
    let address = |bytes: &[u8]| Address::from_slice(bytes).map_or_else(|_| hex::encode(bytes), |a| show(&a));
    let inputs = call.inputs.iter().map(|input| match &input.kind {
        Some(input::Kind::ContractClaim(claim)) => {
            format!("claims {} of contract {}", amount(input.amount), hex::encode(&claim.contract))
        }
        Some(input::Kind::ContractRefund(refund)) => {
            format!("takes {} back from contract {}", amount(input.amount), hex::encode(&refund.contract))
        }
        Some(input::Kind::ChannelWithdraw(withdraw)) => {
            format!("takes {} out of channel {}", amount(input.amount), hex::encode(&withdraw.channel))
        }
        None => "unknown input".into(),
    });
    let outputs = call.outputs.iter().map(|output| match &output.kind {
        Some(output::Kind::Credit(credit)) => format!("pays {} to {}", amount(credit.amount), address(&credit.address)),
        Some(output::Kind::ContractFund(fund)) => {
            let (hash, receiver) = (hex::encode(&fund.hash), address(&fund.receiver));
            format!("locks {} for {receiver} by hash {hash} until {}", amount(fund.amount), utc(fund.expiry_ms))
        }
        Some(output::Kind::PrimaryRedeem(redeem)) => {
            format!("redeems {} to {} of the primary", amount(redeem.amount), hex::encode(&redeem.address))
        }
        Some(output::Kind::PrimaryDeposit(deposit)) => {
            format!("deposits {} from the primary to {}", amount(deposit.amount), address(&deposit.address))
        }
        Some(output::Kind::Note(note)) => format!("makes a note of tier {}", note.tier),
        Some(output::Kind::Network(command)) => {
            let what = match &command.kind {
                Some(NetworkKind::Register(_)) => "registers",
                Some(NetworkKind::Metadata(_)) => "changes the metadata of",
                Some(NetworkKind::Offer(_)) => "offers",
                Some(NetworkKind::Accept(_)) => "accepts",
                Some(NetworkKind::Remove(_)) => "removes",
                Some(NetworkKind::Update(_)) => "changes flags and listeners of",
                Some(NetworkKind::Precheck(_)) => "sets a precheck of",
                Some(NetworkKind::Actor(_)) => "registers an actor in",
                Some(NetworkKind::Open(_)) => "registers an actor, by itself, in",
                Some(NetworkKind::RemoveActor(_)) => "removes an actor from",
                Some(NetworkKind::FreezeActor(freeze)) if freeze.frozen => "freezes an actor of",
                Some(NetworkKind::FreezeActor(_)) => "unfreezes an actor of",
                Some(NetworkKind::Admit(_)) => "admits a transaction in",
                Some(NetworkKind::Prune(_)) => "prunes the history of",
                None => "does something unknown to",
            };
            format!("{what} network {}", command.network_id)
        }
        Some(kind) => describe_channel(kind, &amount, &address),
        None => "unknown output".into(),
    });
    inputs.chain(outputs).collect()
}

fn describe_channel(kind: &output::Kind, amount: &dyn Fn(u64) -> String, address: &dyn Fn(&[u8]) -> String) -> String {
    let (what, channel) = match kind {
        output::Kind::ChannelOpen(open) => {
            let (opener, other) = (address(&open.opener), address(&open.other));
            return format!("opens a channel of {opener} to {other} with {}", amount(open.amount));
        }
        output::Kind::ChannelDeposit(deposit) => (format!("puts {} into", amount(deposit.amount)), &deposit.channel),
        output::Kind::ChannelKeys(keys) => ("says its keys in".into(), &keys.channel),
        output::Kind::ChannelLeave(leave) if leave.amount == 0 => ("stays with its money in".into(), &leave.channel),
        output::Kind::ChannelLeave(leave) => (format!("will take {} out of", amount(leave.amount)), &leave.channel),
        output::Kind::ChannelSettle(settle) => ("settles".into(), &settle.channel),
        output::Kind::ChannelCollect(collect) => ("collects".into(), &collect.channel),
        output::Kind::ChannelRedeem(redeem) => return format!("redeems {} vouchers", redeem.redemptions.len()),
        _ => return "does something unknown".into(),
    };
    format!("{what} channel {}", hex::encode(channel))
}

/// A preimage from hex. Errors: `USAGE`, without showing it.
pub fn preimage(text: &str) -> Result<Vec<u8>> {
    let expected = format!("2 to {} hex digits", 2 * PREIMAGE_BYTES_MAX);
    let found = format!("{} characters", text.trim().len());
    let bytes = hex::decode(text.trim()).ok().filter(|b| !b.is_empty() && b.len() <= PREIMAGE_BYTES_MAX);
    bytes.ok_or_else(|| Error::expected(Code::Usage, "preimage", expected, found))
}

impl Wallet {
    /// The account's last CALL, which the next one names: by the journal if it knows, else as `f + 1` authorities
    /// agree that are as far as the journal. Errors: `UNDECIDED`; those of reading the account's state.
    pub(super) async fn previous_call(&self, network: &Network, account: u32) -> Result<u32> {
        let state = self.account(account);
        if let Some(last) = state.last_call {
            return Ok(last);
        }
        let said = Wallet::account_state(network, &self.address(account)?).await?;
        match said.last_call {
            Some(last) if (said.seqnum, said.prev_hash) == (state.seqnum, state.prev_hash) => Ok(last),
            last => {
                let expected = format!("{} orders", state.seqnum);
                let found = format!("{} orders, the last CALL at {last:?}", said.seqnum);
                Err(Error::expected(Code::Undecided, "state of the account at the authorities", expected, found))
            }
        }
    }

    /// Asks once what the log has decided about a final CALL; the answer is journaled. `None` if it is not known
    /// yet. Errors: as of [`Wallet::status`] but `UNDECIDED`; `IO`.
    pub async fn ordered(
        &mut self,
        network: &Network,
        account: u32,
        seqnum: u32,
        mut on_status: impl FnMut(&Status),
    ) -> Result<Option<Ordered>> {
        if let Some(known) = self.account(account).ordered.get(&seqnum) {
            return Ok(Some(known.clone()));
        }
        let status = match Wallet::status(network, self.address(account)?.actor(), seqnum).await {
            Ok(status) => status,
            // They have not all seen the same yet.
            Err(e) if e.code == Code::Undecided => return Ok(None),
            Err(e) => return Err(e),
        };
        on_status(&status);
        let Some(record) = outcome(account, seqnum, &status.said) else { return Ok(None) };
        self.record(vec![record])?;
        Ok(self.account(account).ordered.get(&seqnum).cloned())
    }

    /// Waits until the log has decided about a final CALL. Errors: `TIMEOUT`, then the journal still knows that it
    /// waits; as of [`Wallet::ordered`].
    pub async fn wait_ordered(
        &mut self,
        network: &Network,
        account: u32,
        seqnum: u32,
        patience: Duration,
        mut on_status: impl FnMut(&Status),
    ) -> Result<Ordered> {
        let deadline = Instant::now() + patience;
        let mut pause = PAUSE;
        loop {
            // Too few answers may be an authority that starts again: they are asked until the time is up.
            let asked = self.ordered(network, account, seqnum, &mut on_status).await;
            match asked {
                Ok(Some(ordered)) => return Ok(ordered),
                Err(e) if e.code != Code::QuorumUnreachable => return Err(e),
                Err(e) if Instant::now() + pause >= deadline => return Err(e),
                _ => {}
            }
            if Instant::now() + pause >= deadline {
                let message =
                    format!("seqnum {seqnum} of account {account} is final, and not ordered after {patience:?}");
                return Err(Error::new(Code::Timeout, message));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(PAUSE_MAX);
        }
    }
}

/// What a decided status means for the journal.
fn outcome(account: u32, seqnum: u32, said: &wire::OrderStatus) -> Option<Record> {
    let (session, unit) = (said.session, said.index);
    match said.state() {
        State::Ordered => Some(Record::Ordered { account, seqnum, session, unit, code: 0, message: String::new() }),
        State::Failed => {
            // Failed without a code would read as settled.
            let code = if said.code == 0 { Code::Decode as u32 } else { said.code };
            Some(Record::Ordered { account, seqnum, session, unit, code, message: said.message.clone() })
        }
        _ => None,
    }
}

/// The log's decision in the words of a status, for what the journal knows.
pub(super) fn status_of(ordered: &Ordered, order_id: &[u8]) -> wire::OrderStatus {
    let state = if ordered.failed.is_some() { State::Failed } else { State::Ordered };
    wire::OrderStatus {
        state: state as i32,
        order_id: bytes::Bytes::copy_from_slice(order_id),
        session: ordered.session,
        index: ordered.unit,
        code: ordered.failed.as_ref().map_or(0, |e| e.code as u32),
        message: ordered.failed.as_ref().map(|e| e.message.clone()).unwrap_or_default(),
        calls: true,
    }
}

impl Wallet {
    /// What the journal alone knows of one of its orders. `None` if the network must be asked.
    pub fn known_status(&self, account: u32, seqnum: u32) -> Option<wire::OrderStatus> {
        let state = self.account(account);
        if state.voided.contains(&seqnum) {
            return Some(wire::OrderStatus { state: State::Void as i32, ..Default::default() });
        }
        let ordered = state.ordered.get(&seqnum)?;
        let sent = state.sent.iter().rev().find(|s| s.seqnum == seqnum);
        let order = sent.and_then(|s| florin_core::envelope::Order::decode(s.receipt.transaction.clone()).ok());
        Some(status_of(ordered, order.as_ref().map_or(&[], |o| &o.id[..])))
    }
}
