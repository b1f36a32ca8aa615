//! Locks out, locks in, and passing on. Checks in the order in which they stand; by log time.

use bytes::Bytes;

use super::claim::{holds, incoming};
use super::input::{Ask, Pay};
use super::route::{fee, read_invoice, write_invoice};
use super::state::{In, Purpose, id};
use super::{Event, Hub, LockKey, PaymentState, Reply, Todo, Turn, whole};
use crate::address::Address;
use crate::channel::manager::{self, Conditions, EndId, EndState, Issue, Reply as ChannelReply};
use crate::channel::voucher::Voucher;
use crate::channel::{OPENER, OTHER};
use crate::error::{Code, Error, Result};
use crate::limits::{HUB_HOPS_MAX, IDEMPOTENCY_BYTES_MAX};
use crate::merkle::Hash;
use crate::wire::hub_message::Kind;
use crate::wire::hub_record::Kind as Record;
use crate::wire::{self, HubHop, HubLane, HubLock, HubOffer};

/// A lock to make.
struct Wanted<'a> {
    end: EndId,
    amount: u64,
    secret_hash: Hash,
    not_after_ms: u64,
    upfront: u64,
    hops: &'a [HubHop],
}

impl Hub {
    /// Makes an invoice: its secret is durable before its hash is shown.
    pub(super) fn ask(&mut self, ask: Ask, turn: &mut Turn) -> Result<()> {
        let status = turn.manager.status(&ask.end)?;
        let (invoice, hash) = write_invoice(self.config.network_id, &status.control, &ask)?;
        match self.invoices.get(&hash) {
            Some(old) if read_invoice(&invoice)? == old.terms && old.end == ask.end => {}
            Some(_) => return Err(Error::new(Code::InvoiceOver, "the secret was used for another invoice")),
            // Perhaps it was made before, and is forgotten.
            None if turn.now.log_ms > ask.expires_ms => {
                let expected = format!("at most {} ms", ask.expires_ms);
                return Err(Error::expected(Code::InvoiceOver, "log time", expected, turn.now.log_ms));
            }
            None => {
                let secret = Bytes::copy_from_slice(&ask.secret);
                let made = wire::HubSecretInvoice { invoice: invoice.clone(), secret, side: ask.end.side };
                self.commit(Record::Invoice(made), turn);
            }
        }
        turn.fx.reply = Reply::Invoice(invoice, hash);
        Ok(())
    }

    /// Pays an invoice.
    pub(super) fn pay(&mut self, pay: Pay, turn: &mut Turn) -> Result<()> {
        if !(1..=IDEMPOTENCY_BYTES_MAX).contains(&pay.key.len()) {
            let expected = format!("1 to {IDEMPOTENCY_BYTES_MAX}");
            return Err(Error::expected(Code::IdempotencyKey, "bytes of the idempotency key", expected, pay.key.len()));
        }
        if let Some(payment) = self.keys.get(&pay.key) {
            if self.payments.get(payment).is_none_or(|old| old.invoice != pay.invoice) {
                return Err(Error::new(Code::IdempotencyKey, "the key was used for another invoice"));
            }
            turn.fx.reply = Reply::Payment(*payment);
            return Ok(());
        }
        let invoice = read_invoice(&pay.invoice)?;
        let secret_hash = Hash::try_from(&invoice.secret_hash[..]).unwrap_or_default();
        self.check_payable(&invoice, &secret_hash, &pay, turn)?;
        let route = &pay.route;
        let wanted = Wanted {
            end: route.end,
            amount: route.amount,
            secret_hash,
            not_after_ms: route.not_after_ms,
            upfront: route.upfront,
            hops: &route.hops,
        };
        let (lock, offer) = self.lock(&wanted, turn)?;
        let payment = self.last_payment + 1;
        let made = wire::HubPayment { payment, key: pay.key, invoice: pay.invoice, lock: Some(lock) };
        self.commit(Record::Payment(made), turn);
        self.send(route.end, Kind::Offer(offer), turn);
        turn.fx.reply = Reply::Payment(payment);
        Ok(())
    }

    fn check_payable(&self, invoice: &wire::HubInvoice, hash: &Hash, pay: &Pay, turn: &Turn) -> Result<()> {
        if invoice.network_id != self.config.network_id {
            let (expected, found) = (self.config.network_id, invoice.network_id);
            return Err(Error::expected(Code::UnknownNetwork, "network of the invoice", expected, found));
        }
        if turn.now.log_ms > invoice.expires_ms {
            let expected = format!("at most {} ms", invoice.expires_ms);
            return Err(Error::expected(Code::InvoiceOver, "log time", expected, turn.now.log_ms));
        }
        let before = self.by_hash.get(hash).and_then(|payment| self.payments.get(payment));
        if before.is_some_and(|before| !matches!(before.state, PaymentState::Failed { .. })) {
            return Err(Error::new(Code::InvoiceOver, "the invoice is paid, or being paid, by another payment"));
        }
        if pay.route.hops.len() > HUB_HOPS_MAX {
            let expected = format!("at most {HUB_HOPS_MAX}");
            return Err(Error::expected(Code::HubRoute, "hubs on the way", expected, pay.route.hops.len()));
        }
        let arrives = pay.route.hops.last().map_or(pay.route.amount, |hop| hop.amount);
        if arrives < invoice.amount {
            let expected = format!("at least {}", invoice.amount);
            return Err(Error::expected(Code::InvoiceAmount, "what arrives", expected, arrives));
        }
        Ok(())
    }

    /// Signs an own lock, and the up-front fee that goes with it. All that can fail is checked first.
    fn lock(&mut self, wanted: &Wanted, turn: &mut Turn) -> Result<(HubLock, HubOffer)> {
        let end = wanted.end;
        let status = turn.manager.status(&end)?;
        if self.diverged.contains(&end) || status.diverged {
            return Err(Error::new(Code::HubDiverged, "the journal has forgotten vouchers of this channel"));
        }
        if !self.is_ready(&end) || self.links.get(&end).is_none_or(|link| link.connection.number.is_none()) {
            return Err(Error::new(
                Code::HubOffline,
                "the next party is not connected, or vouchers are not compared yet",
            ));
        }
        // Who is about to take money out could redeem a lock that it gave back, and be gone with it.
        if status.state != EndState::Open || status.leaving_at_ms != 0 {
            let found = format!("{:?}, {} announced", status.state, status.leaving);
            return Err(Error::expected(Code::ChannelNotOpen, "state of the channel", "open", found));
        }
        let (now, claim) = (turn.now.log_ms, self.config.claim_ms());
        let first = now.saturating_add(claim);
        let last = now.saturating_add(turn.manager.delay_ms(&end)?.min(self.config.channels.lock_max_ms));
        // Who gives a lock back, settles and redeems it all the same is answered after an absence, too.
        let last = last.saturating_sub(claim.saturating_add(self.config.policy.grace_ms));
        if !(first..=last).contains(&wanted.not_after_ms) {
            let expected = format!("{first} to {last} ms");
            return Err(Error::expected(Code::HubMargin, "time limit of the lock", expected, wanted.not_after_ms));
        }
        let needs = wanted.amount.saturating_add(wanted.upfront);
        if needs > status.available || wanted.amount == 0 {
            let expected = format!("1 to {}", status.available);
            return Err(Error::expected(Code::HubFunds, "what the lock takes", expected, needs));
        }
        let lane = self.lane(end, turn)?;
        let paid_before = turn.manager.out_lane(&end, lane)?.paid;
        let (secret_hash, not_after_ms) = (Some(wanted.secret_hash), wanted.not_after_ms);
        let conditions = Conditions { secret_hash, not_before_ms: 0, not_after_ms };
        let voucher = issue(end, lane, paid_before.saturating_add(wanted.amount), conditions, turn)?;
        let fee = if wanted.upfront == 0 { None } else { Some(self.pay_fee(end, wanted.upfront, turn)?) };
        let lock = HubLock {
            id: id(&(end, lane)),
            nonce: Voucher::decode(&voucher)?.terms.nonce,
            amount: wanted.amount,
            secret_hash: Bytes::copy_from_slice(&wanted.secret_hash),
            not_after_ms,
            hops: wanted.hops.to_vec(),
            upfront: 0,
            paid_before,
        };
        Ok((lock, HubOffer { voucher: Some(voucher), fee, hops: wanted.hops.to_vec() }))
    }

    /// A lane without a lock.
    fn lane(&self, end: EndId, turn: &mut Turn) -> Result<u32> {
        let now = turn.now.log_ms;
        let rested = self.lanes.range(whole(end)).filter(|(key, rest)| **rest < now && !self.outs.contains_key(key));
        for ((_, lane), _) in rested {
            if turn.manager.out_lane(&end, *lane)?.lock.is_none() {
                return Ok(*lane);
            }
        }
        new_lane(end, turn)
    }

    fn pay_fee(&mut self, end: EndId, upfront: u64, turn: &mut Turn) -> Result<wire::SignedVoucher> {
        let lane = match self.fee_lanes.get(&end) {
            Some(lane) => *lane,
            None => {
                let lane = new_lane(end, turn)?;
                self.commit(Record::FeeLane(id(&(end, lane)).unwrap_or_default()), turn);
                lane
            }
        };
        let amount = turn.manager.out_lane(&end, lane)?.paid.saturating_add(upfront);
        issue(end, lane, amount, Conditions::default(), turn)
    }

    /// The other side has locked money.
    pub(super) fn on_offer(&mut self, end: EndId, offer: HubOffer, turn: &mut Turn) -> Result<()> {
        if !self.is_ready(&end) {
            return Err(Error::new(Code::HubOffline, "vouchers are not compared yet"));
        }
        let signed = offer.voucher.ok_or_else(|| Error::new(Code::BadContent, "an offer without a voucher"))?;
        let terms = Voucher::decode(&signed)?.terms;
        let simple = terms.not_before_ms == 0 && terms.merges.is_empty() && terms.virtuals.is_none();
        if terms.payer != 1 - end.side || terms.secret_hash.len() != 32 || terms.not_after_ms == 0 || !simple {
            return Err(Error::new(Code::LockTerms, "an offer is a hash lock of the other side with a time limit"));
        }
        if offer.hops.len() > HUB_HOPS_MAX {
            let expected = format!("at most {HUB_HOPS_MAX}");
            return Err(Error::expected(Code::HubRoute, "hubs on the way", expected, offer.hops.len()));
        }
        let (key, before) = ((end, terms.lane), turn.manager.paid_lane(&end, terms.lane)?);
        if terms.nonce <= before.nonce {
            self.answer(key, terms.nonce, turn);
            return Ok(());
        }
        self.check_next(&end, offer.hops.first(), turn)?;
        if let Some(fee) = offer.fee {
            self.take_fee(&key, fee, turn);
        }
        let invoice = if offer.hops.is_empty() { self.check_invoice(&end, &terms, before.paid, turn) } else { Ok(()) };
        if let Err(e) = turn.call(manager::Input::VoucherAdd(incoming(end, signed))) {
            self.refuse(&key, terms.nonce, e, None, turn);
            return Ok(());
        }
        let lock = HubLock {
            id: id(&key),
            nonce: terms.nonce,
            amount: terms.amount - before.paid,
            secret_hash: terms.secret_hash,
            not_after_ms: terms.not_after_ms,
            hops: Vec::new(),
            upfront: 0,
            paid_before: before.paid,
        };
        let taken = match offer.hops.split_first() {
            None => invoice.map(|()| {
                self.commit(Record::Held(lock), turn);
                turn.todo.push_back(Todo::In(key));
            }),
            Some((hop, rest)) => match self.forward(key, lock.clone(), hop, rest, turn) {
                Err(e) if e.code == Code::HubDiverged => {
                    self.commit(Record::Held(HubLock { hops: vec![hop.clone()], ..lock }), turn);
                    Ok(())
                }
                forwarded => forwarded,
            },
        };
        match taken {
            Ok(()) => self.held(&key, terms.nonce, turn),
            Err(e) => self.give_back(&key, terms.nonce, e, turn),
        }
        Ok(())
    }

    /// Before a start has compared vouchers with the next party, perhaps the lock was passed on already and is forgotten: it is not
    /// judged, and the other side asked to say it again later.
    fn check_next(&mut self, end: &EndId, hop: Option<&HubHop>, turn: &Turn) -> Result<()> {
        let Some(next) = hop.and_then(|hop| self.next(end, hop, turn).ok()) else { return Ok(()) };
        let forgotten = self.diverged.contains(&next) || turn.manager.status(&next)?.diverged;
        if !forgotten && !self.is_ready(&next) {
            self.links.entry(*end).or_default().waits = true;
            return Err(Error::new(Code::HubOffline, "vouchers are not compared with the next party yet"));
        }
        Ok(())
    }

    fn held(&self, key: &LockKey, nonce: u64, turn: &mut Turn) {
        let lock = HubLane { payer: 1 - key.0.side, lane: key.1, nonce };
        self.send(key.0, Kind::Held(lock), turn);
    }

    /// A lock that came before.
    fn answer(&mut self, key: LockKey, nonce: u64, turn: &mut Turn) {
        if let Some(one) = self.ins.get(&key) {
            if one.nonce != nonce {
                return;
            }
            match one.secret.is_empty() {
                true => self.held(&key, nonce, turn),
                false => self.say_secret(&key, turn),
            }
            return;
        }
        let (end, lane) = key;
        let cancel = turn.manager.kept_voucher(&end, 1 - end.side, lane, nonce.saturating_add(1)).ok().flatten();
        let cancel = cancel.filter(|voucher| voucher.signer == end.side);
        let why = Error::new(Code::LockOver, "the lock is over");
        self.refuse(&key, nonce, why, cancel, turn);
    }

    /// Up-front fees come as ordinary vouchers on a lane of their own. A stale one brings nothing.
    fn take_fee(&mut self, lock: &LockKey, fee: wire::SignedVoucher, turn: &mut Turn) {
        let end = lock.0;
        let Ok(terms) = Voucher::decode(&fee).map(|fee| fee.terms) else { return };
        let free = turn.manager.paid_lane(&end, terms.lane).is_ok_and(|lane| lane.lock.is_none());
        if terms.lane == lock.1 || !free || !terms.secret_hash.is_empty() || terms.payer == end.side {
            return;
        }
        if let Ok(ChannelReply::Added(added)) = turn.call(manager::Input::VoucherAdd(incoming(end, fee)))
            && !added.locked
            && added.delta > 0
        {
            let amount = self.credit.get(&end).copied().unwrap_or(0).saturating_add(added.delta);
            let channel = Bytes::copy_from_slice(&end.channel);
            self.commit(Record::Credit(wire::HubCredit { channel, side: end.side, amount }), turn);
        }
    }

    /// Whether a lock pays an own invoice.
    fn check_invoice(&self, end: &EndId, terms: &wire::Voucher, before: u64, turn: &Turn) -> Result<()> {
        let hash = Hash::try_from(&terms.secret_hash[..]).unwrap_or_default();
        let found = self.invoices.get(&hash).filter(|invoice| invoice.end == *end);
        let unknown = || Error::new(Code::InvoiceUnknown, "there is no such invoice for this channel");
        let invoice = found.ok_or_else(unknown)?;
        if invoice.taken {
            return Err(Error::new(Code::InvoiceOver, "the invoice is paid, or being paid"));
        }
        let now = turn.now.log_ms;
        if now > invoice.terms.expires_ms {
            let expected = format!("at most {} ms", invoice.terms.expires_ms);
            return Err(Error::expected(Code::InvoiceOver, "log time", expected, now));
        }
        let amount = terms.amount.saturating_sub(before);
        if amount < invoice.terms.amount {
            let expected = format!("at least {}", invoice.terms.amount);
            return Err(Error::expected(Code::InvoiceAmount, "amount of the lock", expected, amount));
        }
        // It may be away for its grace before it redeems.
        let first = now.saturating_add(self.config.policy.grace_ms).saturating_add(self.config.claim_ms());
        if terms.not_after_ms < first {
            let expected = format!("at least {first} ms");
            return Err(Error::expected(Code::HubMargin, "time limit of the lock", expected, terms.not_after_ms));
        }
        Ok(())
    }

    /// Passes a lock on, which the manager has taken.
    fn forward(
        &mut self,
        from: LockKey,
        mut lock: HubLock,
        hop: &HubHop,
        rest: &[HubHop],
        turn: &mut Turn,
    ) -> Result<()> {
        let policy = &self.config.policy;
        if !policy.forwards {
            return Err(Error::new(Code::HubRoute, "this wallet passes nothing on"));
        }
        let to = self.next(&from.0, hop, turn)?;
        let asked = hop.amount.saturating_add(fee(&policy.terms, hop.amount));
        if lock.amount < asked {
            return Err(Error::expected(Code::HubFee, "amount of the lock", format!("at least {asked}"), lock.amount));
        }
        let upfront = policy.terms.upfront.saturating_add(hop.upfront);
        let credit = self.credit.get(&from.0).copied().unwrap_or(0);
        if credit < upfront {
            return Err(Error::expected(Code::HubFee, "up-front fee", format!("at least {upfront}"), credit));
        }
        if hop.amount < policy.terms.lock_min {
            let expected = format!("at least {}", policy.terms.lock_min);
            return Err(Error::expected(Code::HubCaps, "amount to pass on", expected, hop.amount));
        }
        let last = lock.not_after_ms.saturating_sub(self.config.margin_ms());
        let last = last.min(turn.now.log_ms.saturating_add(policy.terms.lock_max_ms));
        if hop.not_after_ms > last {
            let expected = format!("at most {last} ms");
            return Err(Error::expected(
                Code::HubMargin,
                "time limit of what is passed on",
                expected,
                hop.not_after_ms,
            ));
        }
        self.check_caps(&from.0, lock.amount)?;
        let secret_hash = Hash::try_from(&lock.secret_hash[..]).unwrap_or_default();
        let wanted = Wanted {
            end: to,
            amount: hop.amount,
            secret_hash,
            not_after_ms: hop.not_after_ms,
            upfront: hop.upfront,
            hops: rest,
        };
        let (outgoing, offer) = self.lock(&wanted, turn)?;
        lock.upfront = upfront;
        self.commit(Record::Forward(wire::HubForward { incoming: Some(lock), outgoing: Some(outgoing) }), turn);
        self.send(to, Kind::Offer(offer), turn);
        Ok(())
    }

    fn check_caps(&self, from: &EndId, amount: u64) -> Result<()> {
        let policy = &self.config.policy;
        let passed_on = |one: &&In| matches!(one.purpose, Purpose::Forward(..));
        let (mut locks, mut flight) = (0, u128::from(amount));
        for one in self.ins.range(whole(*from)).map(|(_, one)| one).filter(passed_on) {
            locks += 1;
            flight += u128::from(one.amount);
        }
        if locks >= policy.locks_max {
            let expected = format!("fewer than {}", policy.locks_max);
            return Err(Error::expected(Code::HubCaps, "locks in flight", expected, locks));
        }
        if flight > u128::from(policy.in_flight_max) {
            let expected = format!("at most {}", policy.in_flight_max);
            return Err(Error::expected(Code::HubCaps, "money in flight", expected, flight));
        }
        Ok(())
    }

    /// The end in which a hop is paid.
    fn next(&self, from: &EndId, hop: &HubHop, turn: &Turn) -> Result<EndId> {
        let found = if hop.channel.is_empty() {
            let own = turn.manager.status(from)?.control;
            Address::from_slice(&hop.party).ok().and_then(|party| turn.manager.lookup(&own, &party))
        } else {
            let channel = Hash::try_from(&hop.channel[..]).unwrap_or_default();
            let both = [OPENER, OTHER].map(|side| EndId { channel, side });
            both.into_iter().find(|end| turn.manager.status(end).is_ok())
        };
        let unknown = || Error::new(Code::HubRoute, "the next party has no channel here that is not the same");
        found.filter(|end| end.channel != from.channel).ok_or_else(unknown)
    }

    /// The offer of an own lock, again.
    pub(super) fn offer_again(&self, key: &LockKey, turn: &mut Turn) {
        let Some(out) = self.outs.get(key) else { return };
        let Ok(view) = turn.manager.out_lane(&key.0, key.1) else { return };
        let fee = self.fee_lanes.get(&key.0).and_then(|lane| turn.manager.out_lane(&key.0, *lane).ok()?.newest);
        if holds(&view, out.nonce) {
            let offer = HubOffer { voucher: view.newest, fee, hops: out.hops.clone() };
            self.send(key.0, Kind::Offer(offer), turn);
        }
    }

    /// The other side holds a voucher of the own side that is not in the journal.
    pub(super) fn diverge(&mut self, end: EndId, turn: &mut Turn) {
        if !self.diverged.contains(&end) {
            self.commit(Record::Diverged(id(&(end, 0)).unwrap_or_default()), turn);
            turn.event(Event::Diverged(end));
        }
    }
}

fn new_lane(end: EndId, turn: &mut Turn) -> Result<u32> {
    match turn.call(manager::Input::AllocateLane(end))? {
        ChannelReply::Lane(lane) => Ok(lane),
        other => Err(Error::new(Code::LanesUsedUp, format!("expected a lane, found {other:?}"))),
    }
}

fn issue(end: EndId, lane: u32, amount: u64, conditions: Conditions, turn: &mut Turn) -> Result<wire::SignedVoucher> {
    match turn.call(manager::Input::VoucherCreate(Issue { end, lane, amount, conditions }))? {
        ChannelReply::Issued { voucher: Some(voucher), .. } => Ok(voucher),
        other => Err(Error::new(Code::HubFunds, format!("expected a voucher, found {other:?}"))),
    }
}
