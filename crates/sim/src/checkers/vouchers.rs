//! What the sides of channels have signed for each other outside of the log, as those know it who signed.
//!
//! From it follows what a side that was there must end with, whatever the other one does: the vouchers that it has
//! redeemed in time count in full, and what it has signed itself counts as far as the other could use it.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::{pbtx, wire};
use prost::Message as _;

use super::orders::Id;

/// What a signature is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paper {
    /// A voucher.
    Voucher,
    /// A permit to withdraw.
    Withdraw,
    /// A permit to redeem for a side.
    Watch,
}

/// A voucher that is signed, in the order of signing.
struct Promise {
    terms: wire::Voucher,
    signer: u32,
    redeemed: bool,
}

impl Promise {
    /// Whether it can be redeemed at any time by whoever has it.
    fn is_plain(&self) -> bool {
        let t = &self.terms;
        t.secret_hash.is_empty() && t.not_before_ms == 0 && t.not_after_ms == 0
    }
}

/// All that is signed for one channel.
#[derive(Default)]
struct Papers {
    promises: Vec<Promise>,
    /// By payer and lane: the most that it could come to.
    most: BTreeMap<(u32, u32), i128>,
    /// Sides that follow the rules, present or not.
    honest: [bool; 2],
    /// Promises up to which each side has redeemed all that it could.
    stood: [usize; 2],
    /// The other side has taken money out while this one was away with vouchers in hand.
    robbed: [bool; 2],
}

/// Signatures and promises.
#[derive(Default)]
pub struct Vouchers {
    /// What each true signature is over, and by which key.
    signatures: BTreeMap<Bytes, (Paper, Bytes, Bytes)>,
    of: BTreeMap<Id, Papers>,
    /// Orders by which a side redeems all that it can: channel, side, promises there are.
    standing: BTreeMap<Id, Vec<(Id, u32, usize)>>,
    redeemed: u64,
}

impl Vouchers {
    /// Somebody has signed something with a key.
    pub fn signed(&mut self, paper: Paper, message: &Bytes, signatures: &[Bytes], key: &[u8]) {
        for signature in signatures {
            let over = (paper, message.clone(), Bytes::copy_from_slice(key));
            self.signatures.insert(signature.clone(), over);
        }
    }

    /// A side has signed a voucher and given it to the other.
    pub fn promised(&mut self, channel: Id, terms: &wire::Voucher, signer: u32) {
        let papers = self.of.entry(channel).or_default();
        if terms.payer == signer {
            let lane = (terms.payer, terms.lane);
            let merged: i128 = terms.merges.iter().filter_map(|m| papers.most.remove(&(terms.payer, m.lane))).sum();
            let before = papers.most.get(&lane).copied().unwrap_or(0);
            papers.most.insert(lane, (before + merged).max(i128::from(terms.amount)));
        }
        papers.promises.push(Promise { terms: terms.clone(), signer, redeemed: false });
    }

    /// A side of a channel follows the rules.
    pub fn is_honest(&mut self, channel: Id, side: u32) {
        self.of.entry(channel).or_default().honest[side as usize] = true;
    }

    /// An order redeems all that a side of a channel can redeem now.
    pub fn stands(&mut self, order: Id, channel: Id, side: u32) {
        let upto = self.of.get(&channel).map_or(0, |p| p.promises.len());
        self.standing.entry(order).or_default().push((channel, side, upto));
    }

    /// Vouchers signed, and redeemed.
    pub fn counts(&self) -> [u64; 2] {
        [self.of.values().map(|p| p.promises.len() as u64).sum(), self.redeemed]
    }

    /// The most that a side might still claim of a channel, minor units: all that the other has signed, less what this
    /// side has signed without conditions.
    pub fn claims(&self, channel: &Id, side: u32, deposited: i128, withdrawn: i128) -> i128 {
        let Some(papers) = self.of.get(channel) else { return deposited - withdrawn };
        let all = papers.promises.len();
        deposited - withdrawn - papers.outgoing(side, all, false) + papers.incoming(side, all, true)
    }

    /// The least that an honest side gets in all, minor units, with what it has taken out; `None` for others.
    pub(super) fn owed(&self, channel: &Id, side: u32, deposited: i128) -> Option<i128> {
        let papers = self.of.get(channel).filter(|p| p.honest[side as usize])?;
        let upto = papers.stood[side as usize];
        Some(deposited - papers.outgoing(side, upto, true) + papers.incoming(side, upto, false))
    }

    /// The most that a side can have sent by all that it has signed, minor units.
    pub(super) fn most(&self, channel: &Id, side: u32) -> i128 {
        let papers = self.of.get(channel).into_iter().flat_map(|p| &p.most);
        papers.filter(|((payer, _), _)| *payer == side).map(|(_, amount)| amount).sum()
    }

    pub(super) fn was_robbed(&self, channel: &Id, side: u32) -> bool {
        self.of.get(channel).is_some_and(|p| p.robbed[side as usize])
    }

    /// Whether one of the keys of a permission, which is enough alone, has signed this.
    pub(super) fn is_true(&self, paper: Paper, message: &Bytes, signatures: &[Bytes], permission: &Bytes) -> bool {
        let permission = pbtx::Permission::decode(permission.clone()).unwrap_or_default();
        let [signature] = signatures else { return false };
        let Some((what, over, key)) = self.signatures.get(signature) else { return false };
        let enough = |k: &&pbtx::KeyWeight| k.weight >= permission.threshold;
        let mut keys = permission.keys.iter().filter(enough).filter_map(|k| k.key.as_ref());
        *what == paper && over == message && keys.any(|k| k.key_bytes == *key)
    }

    /// The log has redeemed a voucher.
    pub(super) fn note_redeemed(&mut self, channel: &Id, terms: &wire::Voucher) {
        self.redeemed += 1;
        let papers = self.of.get_mut(channel).into_iter().flat_map(|p| &mut p.promises);
        papers.filter(|p| p.terms == *terms).for_each(|p| p.redeemed = true);
    }

    /// The log has carried out an order. Returns how many sides it stood up for.
    pub(super) fn note_applied(&mut self, order: &Id) -> usize {
        let all = self.standing.remove(order).unwrap_or_default();
        for (channel, side, upto) in &all {
            if let Some(papers) = self.of.get_mut(channel) {
                let stood = &mut papers.stood[*side as usize];
                *stood = (*stood).max(*upto);
            }
        }
        all.len()
    }

    /// A side has taken money out without the other's word. Returns whether that one still had vouchers.
    pub(super) fn note_left(&mut self, channel: &Id, side: u32) -> bool {
        let Some(papers) = self.of.get_mut(channel) else { return false };
        let other = 1 - side as usize;
        let late = papers.promises[papers.stood[other]..].iter().any(|p| p.signer == side && !p.redeemed);
        papers.robbed[other] |= late;
        late
    }
}

impl Papers {
    /// What the other side's vouchers have moved to a side, once it has redeemed those up to a place; with `all`
    /// also what hangs on a secret or a time.
    fn incoming(&self, side: u32, upto: usize, all: bool) -> i128 {
        let mut lanes: BTreeMap<u32, i128> = BTreeMap::new();
        for (i, p) in self.promises.iter().enumerate().filter(|(_, p)| p.terms.payer != side) {
            let amount = i128::from(p.terms.amount);
            if p.signer == side {
                lanes.entry(p.terms.lane).and_modify(|lane| *lane = amount.min(*lane));
            } else if i < upto && (all || p.is_plain()) || p.redeemed {
                lanes.retain(|lane, _| p.terms.merges.iter().all(|m| m.lane != *lane));
                lanes.insert(p.terms.lane, amount);
            }
        }
        lanes.values().sum()
    }

    /// What a side's own vouchers can have moved away from it, once it has redeemed what cancels them up to a place;
    /// with `locks` also what hangs on a secret or a time.
    fn outgoing(&self, side: u32, upto: usize, locks: bool) -> i128 {
        let mut lanes: BTreeMap<u32, i128> = BTreeMap::new();
        for (i, p) in self.promises.iter().enumerate().filter(|(_, p)| p.terms.payer == side) {
            let amount = i128::from(p.terms.amount);
            if p.signer != side {
                if i < upto && p.is_plain() || p.redeemed {
                    lanes.entry(p.terms.lane).and_modify(|lane| *lane = amount.min(*lane));
                }
            } else if locks || p.is_plain() || p.redeemed {
                // The other may redeem what was there before the merge, or the merge.
                let merged: i128 = p.terms.merges.iter().filter_map(|m| lanes.remove(&m.lane)).sum();
                let lane = lanes.entry(p.terms.lane).or_default();
                *lane = amount.max(*lane + merged);
            }
        }
        lanes.values().sum()
    }
}
