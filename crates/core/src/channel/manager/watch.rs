//! A watchtower: redeems in a side's name when the other side settles, with no key of the side.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::effect::Message;
use super::input::{EndId, Signer};
use super::redeem::fit;
use super::{Manager, end_id};
use crate::address::Address;
use crate::channel::rules;
use crate::channel::voucher::{self, Voucher};
use crate::error::{Code, Error, Result};
use crate::merkle::Hash;
use crate::wire::{self, ChannelRecord, Redemption, WatchedChannel, output};

impl Manager {
    /// What a watcher with this address needs to redeem for an end: its best vouchers, secrets as far as known, and cancels. To be
    /// handed over again after every voucher that is not to be lost. `UNKNOWN_CHANNEL`, `CHANNEL_KEYS`, `CHANNEL_DIVERGED`.
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
        Ok(WatchedChannel { channel, side: id.side, redemptions: redemptions.collect() })
    }
}

/// The vouchers of one side that are watched for.
#[derive(Clone, Debug)]
pub struct Watch {
    vouchers: Vec<(Voucher, Redemption)>,
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
            let permit = voucher::watch_permit(one.watch.as_ref().ok_or_else(missing)?)?;
            if permit.watcher != self.account.as_bytes()[..]
                || permit.side != id.side
                || permit.channel != id.channel[..]
            {
                let (expected, found) = (hex::encode(self.account.as_bytes()), hex::encode(&permit.watcher));
                return Err(Error::expected(Code::NotAParty, "watcher of the channel", expected, found));
            }
            if found.terms.channel != id.channel[..] || found.signer == id.side {
                return Err(Error::new(
                    Code::VoucherChannel,
                    "a voucher of another channel, or of the watched side itself",
                ));
            }
            vouchers.push((found, one.clone()));
        }
        // The best of a lane first: only one of a lane is redeemed.
        vouchers.sort_by_key(|(v, _)| (v.terms.payer, v.terms.lane, std::cmp::Reverse(v.terms.nonce)));
        self.watched.insert(id, Watch { vouchers, sent: None });
        Ok(id)
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
            let redemptions = watch.due(id, record, time_ms);
            let tries = match watch.sent {
                Some((revision, at, _)) if revision == record.revision && time_ms < at.saturating_add(retry_ms) => {
                    return Vec::new();
                }
                Some((_, _, tries)) => tries,
                None => 0,
            };
            if !redemptions.is_empty() {
                watch.sent = Some((record.revision, time_ms, tries + 1));
            }
            // Together first; one by one if the log has refused that.
            fit(redemptions, if tries == 0 { usize::MAX } else { 1 })
        });
        let message = |redemptions| Message {
            account,
            inputs: Vec::new(),
            outputs: vec![output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims: Vec::new() })],
        };
        messages.map(message).collect()
    }
}

impl Watch {
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
