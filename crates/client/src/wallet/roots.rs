//! Accounts that sign roots of batches ([`florin_core::distilled`]): the BLS key beside the other one, and what is signed with it.
//!
//! The key comes from the seed, as the account's other key, and is of this account alone. It signs one root for an order that this
//! wallet has signed and journaled, after a look at the path from the order to the root, for its committee and epoch; so a worker gets
//! nothing signed by it that the wallet has not signed already.

use bytes::Bytes;
use florin_core::distilled::{Proposal, check_proposal, mark_of};
use florin_core::envelope::{Authority, Order, encode_envelope};
use florin_core::keys::{Curve, POSSESSION_BYTE, SecretKey};
use florin_core::merkle::Hash;
use florin_core::permission::Permission;
use florin_core::{Code, Error, Result, wire};

use super::records::Record;
use super::{Draft, Wallet, sign_envelope};
use crate::seed::Seed;
use crate::worker_client::WorkerClient;

/// Other keys for an account, that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekey {
    /// Account of the wallet.
    pub account: u32,
    /// Whether it is to have a BLS key beside its own one.
    pub bls: bool,
}

/// An order that sets a BLS key: after the signature comes the proof that the key's secret is known.
pub(super) fn sign_proved(key: &SecretKey, body: &Bytes, bls: &SecretKey) -> Result<Bytes> {
    let order = Order::decode_body(body.clone())?;
    let secret = bls.bls().ok_or_else(|| Error::new(Code::KeyType, "a proof of possession is made with a BLS key"))?;
    let proof = secret.prove(order.network_id, order.actor);
    let mut authority = Authority::of(&[key.sign_body(body)]);
    authority.sigs.push([&[POSSESSION_BYTE], &proof[..]].concat().into());
    Ok(encode_envelope(body, &[authority]))
}

/// What the sender of an order says to a proposal: its share of the root's signature, or why it signs nothing.
fn share(wallet: &Wallet, key: &SecretKey, order_id: &Hash, proposal: &wire::RootProposal) -> Result<wire::RootShare> {
    let proposal = Proposal::from_wire(&wallet.committee, proposal)?;
    let message = check_proposal(&wallet.committee, order_id, &proposal)?;
    let key = key.bls().ok_or_else(|| Error::new(Code::KeyType, "roots are signed with a BLS key"))?;
    let signature = Bytes::copy_from_slice(&key.sign(&message));
    Ok(wire::RootShare { root: Bytes::copy_from_slice(&proposal.batch.root), signature })
}

impl Wallet {
    /// The account's own permission with a BLS key of the seed beside the key, each enough alone; or as it was at first.
    pub(super) fn rekey(&self, seed: &Seed, rekey: &Rekey) -> Result<Draft> {
        let mut permission = self.permission(rekey.account)?;
        if !rekey.bls {
            return Ok(Draft::Keys(permission, None));
        }
        let bls = seed.key(Curve::Bls, rekey.account)?;
        permission.keys.push((bls.public(), 1));
        Ok(Draft::Keys(permission, Some(bls)))
    }

    /// From now on roots are signed for the account, if it has a BLS key. What an authority has shown of another copy's orders with a mark
    /// in place of a signature is signed again, the same.
    pub fn sign_roots(&mut self, seed: &Seed, account: u32) -> Result<()> {
        let Some(state) = self.book.accounts.get_mut(&account).filter(|state| state.distils) else { return Ok(()) };
        let key = seed.key(self.keystore.meta().curve, account)?;
        for pending in &mut state.pending {
            let order = pending.order()?;
            if mark_of(&order).is_some() {
                pending.envelope = sign_envelope(&key, &order.body)?;
            }
        }
        self.root_keys.insert(account, seed.key(Curve::Bls, account)?);
        Ok(())
    }

    /// Orders of the batch whose root was signed last.
    pub fn root_signed(&self) -> Option<usize> {
        self.root_signed
    }

    /// Hands what is pending of an account to a worker. Only its receipts are believed, after a check; an
    /// order for which it reports an error stays pending. If roots are signed for the account, a single order's sender stays and signs the
    /// root of its batch. Errors: `UNREACHABLE`, `TIMEOUT`, those of a receipt that proves nothing; `BAD_PROOF`, `WRONG_COMMITTEE`,
    /// `WRONG_EPOCH` or `LIMIT` of a root that was not signed.
    pub async fn finish_through(&mut self, worker: &WorkerClient, account: u32) -> Result<Vec<Result<wire::Receipt>>> {
        let pending = &self.account(account).pending;
        let seqnums: Vec<u32> = pending.iter().map(|p| p.seqnum).collect();
        let envelopes: Vec<Bytes> = pending.iter().map(|p| p.envelope.clone()).collect();
        let outcomes = match self.distil(worker, account).await? {
            Some(outcome) => vec![outcome],
            None => worker.submit(envelopes).await?,
        };
        let noted = seqnums.into_iter().zip(&outcomes).map(|(s, o)| (s, o.clone(), false)).collect();
        self.settle_outcomes(account, noted)?;
        Ok(outcomes)
    }

    /// The outcome of the account's pending order, if there is one alone and the root of its batch may be signed.
    async fn distil(&mut self, worker: &WorkerClient, account: u32) -> Result<Option<Result<wire::Receipt>>> {
        self.root_signed = None;
        let Some(key) = self.root_keys.get(&account) else { return Ok(None) };
        let [pending] = &self.account(account).pending[..] else { return Ok(None) };
        let (id, mut signed) = (pending.order()?.id, None);
        let sign = |proposal: &wire::RootProposal| {
            let share = share(self, key, &id, proposal)?;
            signed = Some(proposal.count as usize);
            Ok(share)
        };
        let said = worker.distil(pending.envelope.clone(), &self.address(account)?, sign).await;
        self.root_signed = signed;
        match said {
            Ok(outcome) => Ok(Some(outcome)),
            // It knows nothing of roots.
            Err(e) if e.code == Code::NotServed => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What enough authorities' answers say of the account's keys, if it is news: whether one signs roots of batches.
    pub(super) fn keys_said(&self, account: u32, replies: &[Result<wire::AccountReply>]) -> Option<Record> {
        let distils = |reply: &wire::AccountReply| {
            let permission = Permission::decode_account(&reply.permission);
            permission.ok().map(|permission| permission.distils().is_some())
        };
        let said: Vec<bool> = replies.iter().flatten().filter_map(distils).collect();
        let enough = |bls: bool| said.iter().filter(|said| **said == bls).count() >= self.committee.validity();
        let bls = !self.account(account).distils;
        (enough(bls) && !enough(!bls)).then_some(Record::Keys { account, bls })
    }
}

#[cfg(test)]
#[path = "roots_tests.rs"]
mod tests;
