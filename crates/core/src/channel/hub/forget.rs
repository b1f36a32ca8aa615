//! What is long over takes no more room: neither in memory, nor in a journal that is written anew.
//!
//! Nothing is paid, passed on or taken twice for it:
//!
//! - An **invoice** is forgotten a day (`HUB_KEEP_MS`) after the log has passed its expiry and after the end of its lock, and not before that lock is over
//!   on the channel. A lock that comes for it afterwards is one for no invoice, as it would have been one that comes too late; and it can't be made again,
//!   for no invoice is made whose time is over.
//! - A **payment** is forgotten a day after its invoice's expiry and after the end of its own lock, and not before that lock is over on the channel: the
//!   payee has acknowledged what was paid for good or has signed it back, or the log has decided it. An invoice whose time is over is not paid, by
//!   no key, so the same again is refused. Its number is never used again.
//! - Of a **forward** nothing is left when both its locks are over but the lane, which is used again. What is said of its locks again is answered by the nonces of lanes,
//!   which the manager keeps.
//! - Of a **collected channel** without locks in hand nobody needs to know which lanes are free.
//!
//! A day is far more than log time can be behind after a restart.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::state::{Source, id, key};
use super::{Hub, PaymentId, PaymentState, Turn, corrupt, whole};
use crate::channel::manager::{EndId, EndState};
use crate::error::Result;
use crate::limits::{HUB_FORGET_MAX, HUB_KEEP_MS};
use crate::merkle::Hash;
use crate::wire::HubForgotten;
use crate::wire::hub_record::Kind as Record;

impl Hub {
    /// Forgets what is long over, as much as goes into a record.
    pub(super) fn forget(&mut self, turn: &mut Turn) {
        let now = turn.now.log_ms;
        let is_old = |expires_ms: u64, over_ms: u64| expires_ms.max(over_ms).saturating_add(HUB_KEEP_MS) < now;
        let invoices = self.invoices.iter().filter(|(_, one)| is_old(one.terms.expires_ms, one.over_ms));
        let payments = self
            .payments
            .iter()
            .filter(|(_, one)| is_old(one.expires_ms, one.over_ms) && one.state != PaymentState::InFlight);
        let (mut invoices, mut payments) = (invoices.peekable(), payments.peekable());
        let ends = self.gone(turn);
        if invoices.peek().is_none() && payments.peek().is_none() && ends.is_empty() {
            return;
        }
        // Those in hand are left out before they are counted: they do not take the place of others.
        let held: BTreeSet<Hash> = self.ins.values().map(|one| one.secret_hash).collect();
        let paying: BTreeSet<PaymentId> = self.outs.values().filter_map(|out| payment_of(&out.source)).collect();
        let payments = payments.map(|(payment, _)| *payment).filter(|payment| !paying.contains(payment));
        let invoices = invoices.map(|(hash, _)| hash).filter(|hash| !held.contains(*hash));
        let all = HubForgotten {
            payments: payments.take(HUB_FORGET_MAX).collect(),
            invoices: invoices.take(HUB_FORGET_MAX).map(|hash| Bytes::copy_from_slice(hash)).collect(),
            ends: ends.into_iter().filter_map(|end| id(&(end, 0))).collect(),
        };
        if all != HubForgotten::default() {
            self.commit(Record::Forgotten(all), turn);
        }
    }

    /// Ends of collected channels that have lanes, and no locks.
    fn gone(&self, turn: &Turn) -> Vec<EndId> {
        let (mut ends, mut from) = (BTreeSet::new(), None);
        let next = |from: Option<EndId>| match from {
            None => self.lanes.keys().next(),
            Some(end) => self.lanes.range((end, u32::MAX)..).map(|(key, _)| key).find(|key| key.0 != end),
        };
        while let Some((end, _)) = next(from) {
            ends.insert(*end);
            from = Some(*end);
        }
        ends.extend(self.credit.keys().chain(self.fee_lanes.keys()));
        let is_gone = |end: &EndId| {
            turn.manager.status(end).is_ok_and(|status| status.state == EndState::Collected)
                && self.outs.range(whole(*end)).next().is_none()
                && self.ins.range(whole(*end)).next().is_none()
        };
        ends.into_iter().filter(is_gone).collect()
    }

    pub(super) fn apply_forgotten(&mut self, all: &HubForgotten) -> Result<()> {
        for payment in &all.payments {
            let gone = self.payments.remove(payment).ok_or_else(|| corrupt("a forgotten payment that is none"))?;
            self.keys.remove(&gone.key);
            let hash = super::read_invoice(&gone.invoice).ok().and_then(|i| Hash::try_from(&i.secret_hash[..]).ok());
            if let Some(hash) = hash.filter(|hash| self.by_hash.get(hash) == Some(payment)) {
                self.by_hash.remove(&hash);
            }
        }
        for invoice in &all.invoices {
            self.invoices.remove(&invoice[..]).ok_or_else(|| corrupt("a forgotten invoice that is none"))?;
        }
        for lane in &all.ends {
            let (end, _) = key(Some(lane))?;
            self.lanes.retain(|(of, _), _| *of != end);
            self.fee_lanes.remove(&end);
            self.credit.remove(&end);
        }
        Ok(())
    }
}

fn payment_of(source: &Source) -> Option<PaymentId> {
    match source {
        Source::Payment(payment) => Some(*payment),
        Source::Forward(..) => None,
    }
}
