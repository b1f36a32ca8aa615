//! A watchtower: redeems in a side's name when the other side settles, with no key of the side.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::effect::Message;
use super::input::{EndId, Signer};
use super::redeem::fit;
use super::{Manager, end_id};
use crate::address::Address;
use crate::channel::rules;
use crate::channel::virtuals::fit_claims;
use crate::channel::voucher::{self, Voucher};
use crate::error::{Code, Error, Result};
use crate::limits::WATCH_CLAIM_MS;
use crate::merkle::Hash;
use crate::wire::{self, ChannelRecord, Redemption, VirtualClaim, WatchedChannel, output};

impl Manager {
    /// What a watcher with this address needs to redeem for an end: its best vouchers, secrets as far as known, and cancels; claims of
    /// virtual channels are still to be added ([`crate::channel::virtuals::Virtuals::watch`]). To be handed over again after every voucher that is not to be lost. `UNKNOWN_CHANNEL`, `CHANNEL_KEYS`, `CHANNEL_DIVERGED`.
    pub fn watch(&self, id: &EndId, watcher: &Address, signer: &dyn Signer) -> Result<WatchedChannel> {
        let end = self.end(id)?;
        end.check_signs_at_all()?;
        let channel = Bytes::copy_from_slice(&id.channel);
        let permit = wire::WatchPermit {
            channel: channel.clone(),
            side: id.side,
            watcher: Bytes::copy_from_slice(watcher.as_bytes()),
        };
        let permit = signer.watch(&end.account, &permit)?;
        let mut redemptions = Vec::new();
        for lane in end.paid.values() {
            let locks = lane.lock.iter().filter(|lock| lock.secret_hash.is_none() || !lock.secret.is_empty());
            redemptions.extend(lane.firm.iter().map(|firm| (&firm.voucher, Bytes::new())));
            redemptions.extend(locks.map(|lock| (&lock.kept.voucher, lock.secret.clone())));
        }
        let cancels = end.out.values().filter_map(|lane| lane.cancel.as_ref());
        redemptions.extend(cancels.map(|cancel| (&cancel.kept.voucher, Bytes::new())));
        let redemptions = redemptions.into_iter().map(|(voucher, secret)| Redemption {
            voucher: Some(voucher.clone()),
            secret,
            watch: Some(permit.clone()),
        });
        Ok(WatchedChannel { channel, side: id.side, redemptions: redemptions.collect(), claims: Vec::new() })
    }
}

/// The vouchers of one side that are watched for.
#[derive(Clone, Debug)]
pub struct Watch {
    vouchers: Vec<(Voucher, Redemption)>,
    claims: Vec<VirtualClaim>,
    /// Revision of the channel, log time in ms, and how often before, when something was sent.
    sent: Option<(u64, u64, u32)>,
}

/// Watches channels. It keeps nothing that it is not given, so after a restart it is given everything again.
#[derive(Clone, Debug)]
pub struct Watcher {
    account: Address,
    /// Log time, ms, after which it tries again.
    retry_ms: u64,
    watched: BTreeMap<EndId, Watch>,
}

impl Watcher {
    /// A watcher with this address.
    pub fn new(account: Address, retry_ms: u64) -> Watcher {
        Watcher { account, retry_ms, watched: BTreeMap::new() }
    }

    /// Watches a channel, in place of what it had for it. Errors: those of decoding, `NOT_A_PARTY` if the permit names another watcher.
    pub fn add(&mut self, watched: &WatchedChannel) -> Result<EndId> {
        let id = end_id(&watched.channel, watched.side)
            .map_err(|e| Error::new(Code::BadContent, format!("watched channel: {}", e.message)))?;
        let mut vouchers = Vec::with_capacity(watched.redemptions.len());
        for one in &watched.redemptions {
            let missing = || Error::new(Code::BadContent, "a redemption without a voucher or permit");
            let found = Voucher::decode(one.voucher.as_ref().ok_or_else(missing)?)?;
            self.check_permit(&id, one.watch.as_ref().ok_or_else(missing)?)?;
            if found.terms.channel != id.channel[..] || found.signer == id.side {
                return Err(Error::new(
                    Code::VoucherChannel,
                    "a voucher of another channel, or of the watched side itself",
                ));
            }
            vouchers.push((found, one.clone()));
        }
        for claim in &watched.claims {
            self.check_claim(&id, claim, &vouchers)?;
        }
        // The best of a lane first: only one of a lane is redeemed.
        vouchers.sort_by_key(|(v, _)| (v.terms.payer, v.terms.lane, std::cmp::Reverse(v.terms.nonce)));
        self.watched.insert(id, Watch { vouchers, claims: watched.claims.clone(), sent: None });
        Ok(id)
    }

    fn check_permit(&self, id: &EndId, permit: &wire::SignedPermit) -> Result<()> {
        let permit = voucher::watch_permit(permit)?;
        if permit.watcher != self.account.as_bytes()[..] || permit.side != id.side || permit.channel != id.channel[..] {
            let (expected, found) = (hex::encode(self.account.as_bytes()), hex::encode(&permit.watcher));
            return Err(Error::expected(Code::NotAParty, "watcher of the channel", expected, found));
        }
        Ok(())
    }

    /// That a claim is one over a lane of the vouchers.
    fn check_claim(&self, id: &EndId, claim: &VirtualClaim, vouchers: &[(Voucher, Redemption)]) -> Result<()> {
        voucher::virtual_claim(claim)?;
        let missing = || Error::new(Code::BadContent, "a claim without a permit");
        self.check_permit(id, claim.watch.as_ref().ok_or_else(missing)?)?;
        let of_it =
            |v: &Voucher| v.terms.lane == claim.lane && v.terms.payer == claim.payer && v.terms.virtuals.is_some();
        if claim.channel != id.channel[..] || claim.payer == id.side || !vouchers.iter().any(|(v, _)| of_it(v)) {
            return Err(Error::new(Code::VirtualUnknown, "a claim of another channel, or without the lane's voucher"));
        }
        Ok(())
    }

    /// The channels that are watched.
    pub fn channels(&self) -> impl Iterator<Item = &EndId> {
        self.watched.keys()
    }

    /// What has to be told the log, given a channel as it has it at a log time, ms.
    pub fn seen(&mut self, channel: &Hash, record: &ChannelRecord, time_ms: u64) -> Vec<Message> {
        if record.collected || rules::is_over(record, time_ms) {
            self.watched.retain(|id, _| id.channel != *channel);
            return Vec::new();
        }
        let (account, retry_ms) = (self.account, self.retry_ms);
        let both = EndId { channel: *channel, side: 0 }..=EndId { channel: *channel, side: u32::MAX };
        let messages = self.watched.range_mut(both).flat_map(|(id, watch)| {
            let mut redemptions = watch.due(id, record, time_ms);
            let claims = watch.claims_due(record, time_ms, &mut redemptions);
            let tries = match watch.sent {
                Some((revision, at, _)) if revision == record.revision && time_ms < at.saturating_add(retry_ms) => {
                    return Vec::new();
                }
                Some((_, _, tries)) => tries,
                None => 0,
            };
            if !redemptions.is_empty() || !claims.is_empty() {
                watch.sent = Some((record.revision, time_ms, tries + 1));
            }
            // Together first; one by one if the log has refused that. Claims come after the vouchers that they are over.
            let redeems = fit(redemptions, if tries == 0 { usize::MAX } else { 1 });
            let redeems = redeems.into_iter().map(|redemptions| (redemptions, Vec::new()));
            let claims = fit_claims(claims, if tries == 0 { usize::MAX } else { 1 });
            redeems.chain(claims.into_iter().map(|claims| (Vec::new(), claims))).collect()
        });
        let message = |(redemptions, claims)| Message {
            account,
            inputs: Vec::new(),
            outputs: vec![output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims })],
        };
        messages.map(message).collect()
    }
}

impl Watch {
    /// Claims whose limit is near, and with them the vouchers that they are over. Not before: who is watched for claims earlier, and each
    /// is claimed once on a voucher, for what it has then.
    fn claims_due(&self, record: &ChannelRecord, time_ms: u64, redemptions: &mut Vec<Redemption>) -> Vec<VirtualClaim> {
        let mut due = Vec::new();
        for claim in &self.claims {
            let limit = claim.cap.as_ref().map_or(0, |cap| cap.not_after_ms);
            if time_ms > limit || time_ms.saturating_add(WATCH_CLAIM_MS) < limit {
                continue;
            }
            let of_it = |v: &&(Voucher, Redemption)| v.0.terms.payer == claim.payer && v.0.terms.lane == claim.lane;
            let Some((voucher, redemption)) = self.vouchers.iter().find(of_it) else { continue };
            let lane = rules::lane(record, claim.payer, claim.lane);
            let is_claimed = lane.is_some_and(|lane| lane.claimed.iter().any(|one| one.index == claim.index));
            match lane.map_or(0, |lane| lane.nonce) {
                nonce if nonce > voucher.terms.nonce => continue,
                nonce if nonce == voucher.terms.nonce && is_claimed => continue,
                nonce if nonce == voucher.terms.nonce => {}
                _ if redemptions.contains(redemption) => {}
                _ => redemptions.push(redemption.clone()),
            }
            due.push(claim.clone());
        }
        due
    }

    fn due(&self, id: &EndId, record: &ChannelRecord, time_ms: u64) -> Vec<Redemption> {
        let other = rules::side(record, 1 - id.side);
        let urgent = record.settling_at_ms != 0 || other.leaving_at_ms != 0;
        let mut due = Vec::new();
        let mut taken = None;
        for (voucher, redemption) in &self.vouchers {
            let terms = &voucher.terms;
            let lane = (terms.payer, terms.lane);
            let (nonce, amount) =
                rules::lane(record, terms.payer, terms.lane).map_or((0, 0), |lane| (lane.nonce, lane.redeemed));
            let gains = match terms.payer == id.side {
                // A cancel, if what it cancels was redeemed.
                true => amount > terms.amount,
                false => urgent && terms.amount > amount,
            };
            let in_time = time_ms >= terms.not_before_ms && (terms.not_after_ms == 0 || time_ms <= terms.not_after_ms);
            if taken != Some(lane) && nonce < terms.nonce && gains && in_time {
                taken = Some(lane);
                due.push(redemption.clone());
            }
        }
        due
    }
}
