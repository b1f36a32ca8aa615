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

    /// The log has redeemed a voucher. Returns whether who redeemed it had given it back.
    pub(super) fn note_redeemed(&mut self, channel: &Id, terms: &wire::Voucher) -> bool {
        self.redeemed += 1;
        let Some(papers) = self.of.get_mut(channel) else { return false };
        let lane = |p: &&mut Promise| p.terms.payer == terms.payer && p.terms.lane == terms.lane;
        let mut given_back = false;
        for p in papers.promises.iter_mut().filter(lane) {
            p.redeemed |= p.terms == *terms;
            given_back |= p.signer != terms.payer && p.terms.nonce > terms.nonce && !terms.secret_hash.is_empty();
        }
        given_back
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

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: Id = [7; 32];

    fn voucher(payer: u32, lane: u32, nonce: u64, amount: u64) -> wire::Voucher {
        wire::Voucher { payer, lane, nonce, amount, ..Default::default() }
    }

    /// What side 1 must get of the vouchers of side 0, and what side 0 must keep of 100, if both have stood up for themselves.
    fn owed(papers: &[(wire::Voucher, u32)]) -> (i128, i128) {
        let mut all = Vouchers::default();
        [0, 1].into_iter().for_each(|side| all.is_honest(CHANNEL, side));
        papers.iter().for_each(|(terms, signer)| all.promised(CHANNEL, terms, *signer));
        for side in [0, 1] {
            all.stands([1; 32], CHANNEL, side);
        }
        assert_eq!(all.note_applied(&[1; 32]), 2);
        (all.owed(&CHANNEL, 1, 0).unwrap(), all.owed(&CHANNEL, 0, 100).unwrap())
    }

    #[test]
    fn the_newest_of_each_lane_counts() {
        let papers = [(voucher(0, 0, 1, 10), 0), (voucher(0, 3, 1, 5), 0), (voucher(0, 0, 2, 30), 0)];
        assert_eq!(owed(&papers), (35, 65));
    }

    #[test]
    fn a_lock_binds_its_payer_until_it_is_given_back_and_counts_for_nobody() {
        let lock = wire::Voucher { secret_hash: vec![1; 32].into(), not_after_ms: 9, ..voucher(0, 0, 2, 40) };
        let papers = [(voucher(0, 0, 1, 10), 0), (lock, 0)];
        assert_eq!(owed(&papers), (10, 60));
        let [first, second] = papers;
        assert_eq!(owed(&[first, second, (voucher(0, 0, 3, 10), 1)]), (10, 90));
    }

    #[test]
    fn merged_lanes_count_once() {
        let merges = vec![wire::LaneMerge { lane: 1, nonce: 2 }];
        let merging = wire::Voucher { merges, ..voucher(0, 0, 2, 30) };
        let papers = [(voucher(0, 0, 1, 10), 0), (voucher(0, 1, 1, 15), 0), (merging, 0)];
        assert_eq!(owed(&papers), (30, 70));
    }

    #[test]
    fn who_was_away_is_owed_nothing_of_what_it_has_not_redeemed() {
        let mut all = Vouchers::default();
        [0, 1].into_iter().for_each(|side| all.is_honest(CHANNEL, side));
        all.promised(CHANNEL, &voucher(0, 0, 1, 10), 0);
        assert_eq!((all.owed(&CHANNEL, 1, 0), all.owed(&CHANNEL, 0, 100)), (Some(0), Some(90)));
        assert_eq!((all.most(&CHANNEL, 0), all.most(&CHANNEL, 1)), (10, 0));
        assert!(all.note_left(&CHANNEL, 0) && all.was_robbed(&CHANNEL, 1) && !all.was_robbed(&CHANNEL, 0));
        // What is redeemed counts, stood for or not.
        assert!(!all.note_redeemed(&CHANNEL, &voucher(0, 0, 1, 10)));
        assert_eq!(all.owed(&CHANNEL, 1, 0), Some(10));
    }

    #[test]
    fn a_signature_is_true_for_what_was_signed_by_a_key_that_is_enough() {
        let key = |byte: u8| pbtx::KeyWeight {
            key: Some(pbtx::PublicKey { r#type: 0, key_bytes: vec![byte; 34].into() }),
            weight: 1,
        };
        let permission = |byte, threshold| {
            Bytes::from(pbtx::Permission { actor: 0, threshold, keys: vec![key(byte)] }.encode_to_vec())
        };
        let (message, signatures) = (Bytes::from_static(b"voucher"), [Bytes::from_static(b"signature")]);
        let mut all = Vouchers::default();
        all.signed(Paper::Voucher, &message, &signatures, &[3; 34]);
        assert!(all.is_true(Paper::Voucher, &message, &signatures, &permission(3, 1)));
        for (paper, message, permission) in [
            (Paper::Withdraw, &message, permission(3, 1)),
            (Paper::Voucher, &Bytes::from_static(b"another"), permission(3, 1)),
            (Paper::Voucher, &message, permission(4, 1)),
            (Paper::Voucher, &message, permission(3, 2)),
        ] {
            assert!(!all.is_true(paper, message, &signatures, &permission));
        }
    }
}
