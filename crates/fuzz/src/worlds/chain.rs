//! Wallets' orders in the log: what a channel manager asks its shell for.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::channel::manager::Signer as Signs;
use florin_core::channel::manager::{EndId, Input, Message, OpId, Outcome};
use florin_core::channel::virtuals::VirtualSigner;
use florin_core::channel::voucher::{self, Voucher};
use florin_core::content::Content;
use florin_core::envelope::Order;
use florin_core::merkle::Hash;
use florin_core::testing::Signer;
use florin_core::{Code, Result, wire};

use super::ledger::Ledger;

/// Signs with the keys of one account.
pub struct Keys(pub Signer);

impl Signs for Keys {
    fn voucher(&self, _: &Address, terms: wire::Voucher, side: u32) -> Result<Voucher> {
        Ok(Voucher::sign(terms, side, &[&self.0.keys[0]]))
    }
    fn withdraw(&self, _: &Address, permit: &wire::WithdrawPermit) -> Result<wire::SignedPermit> {
        Ok(voucher::sign_withdraw(permit, &[&self.0.keys[0]]))
    }
    fn watch(&self, _: &Address, permit: &wire::WatchPermit) -> Result<wire::SignedPermit> {
        Ok(voucher::sign_watch(permit, &[&self.0.keys[0]]))
    }
}

impl VirtualSigner for Keys {
    fn virtual_amount(&self, _: &Bytes, amount: &wire::VirtualAmount) -> Result<wire::SignedPermit> {
        Ok(voucher::sign_virtual(amount, &[&self.0.keys[0]]))
    }
}

/// An order that a wallet has signed.
#[derive(Clone)]
struct Signed {
    raw: Bytes,
    /// Whether authorities would vote for its form.
    fits: bool,
    applied: bool,
    status: wire::OrderStatus,
}

/// The log, and what wallets have signed for it.
#[derive(Default)]
pub struct Chain {
    /// The log.
    pub ledger: Ledger,
    /// By wallet, in the order of their numbers.
    signed: BTreeMap<usize, Vec<Signed>>,
    /// What was signed for an operation: a wallet signs it once.
    by_op: BTreeMap<(usize, OpId), (Message, Hash, Bytes)>,
}

impl Chain {
    /// Signs what an operation says.
    pub fn prepare(&mut self, wallet: usize, op: OpId, message: Message) -> Input {
        if let Some((known, order_id, order)) = self.by_op.get(&(wallet, op))
            && *known == message
        {
            return Input::Prepared { op, order_id: *order_id, output: 0, order: order.clone() };
        }
        let before = self.ledger.signers[wallet].clone();
        let raw = self.ledger.signers[wallet].call(message.inputs.clone(), message.outputs.clone());
        let order = Order::decode(raw.clone()).expect("a signer's order");
        let fits = Content::decode(&order).is_ok();
        if !fits {
            self.ledger.signers[wallet] = before;
        }
        let signed = Signed { raw: raw.clone(), fits, applied: !fits, status: wire::OrderStatus::default() };
        self.signed.entry(wallet).or_default().push(signed);
        self.by_op.insert((wallet, op), (message, order.id, raw.clone()));
        Input::Prepared { op, order_id: order.id, output: 0, order: raw }
    }

    /// Brings an order to the log, those that its wallet has signed before it first, and says how it ended.
    pub fn broadcast(&mut self, wallet: usize, op: OpId, order: &Bytes, end: Option<EndId>) -> Input {
        let all = self.signed.get_mut(&wallet).expect("it was signed");
        let at = all.iter().position(|s| s.raw == *order).expect("it was signed");
        for signed in &mut all[..=at] {
            if !std::mem::replace(&mut signed.applied, true) {
                self.ledger.order(std::slice::from_ref(&signed.raw));
                let id = Order::decode(signed.raw.clone()).expect("a signer's order");
                let request = wire::OrderStatusRequest {
                    network_id: id.network_id,
                    actor: id.actor,
                    seqnum: id.seqnum,
                    ..Default::default()
                };
                let log = &self.ledger.logs[0];
                let unknown = wire::OrderStatus::default();
                signed.status = log.log.order_status(&log.state, &request, unknown).expect("a state in memory");
            }
        }
        let found = &all[at];
        let failed = |code, message: &str| Outcome::Failed { code, message: message.to_owned() };
        let outcome = match (found.fits, found.status.code, end.and_then(|end| self.ledger.channel(&end.channel))) {
            (false, ..) => failed(Code::BadContent as u32, "authorities refuse it"),
            (true, 0, Some(record)) => Outcome::Confirmed { record: Box::new(record), time_ms: self.ledger.time() },
            (true, 0, None) => failed(Code::UnknownChannel as u32, "no such channel"),
            (true, code, _) => failed(code, &found.status.message),
        };
        Input::Outcome { op, outcome }
    }
}
