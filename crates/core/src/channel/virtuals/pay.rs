//! Payments: the payer signs (id, amount so far), the payee keeps the highest. No hub, no log, one record each.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::state::Stage;
use super::{Event, Reply, Turn, VirtualId, Virtuals};
use crate::channel::voucher;
use crate::error::{Code, Error, Result};
use crate::signatures::Batch;
use crate::wire::virtual_peer::Kind;
use crate::wire::virtual_record::Kind as Record;
use crate::wire::{SignedPermit, VirtualAmount, VirtualPeer};

impl Virtuals {
    pub(super) fn pay(&mut self, id: VirtualId, amount: u64, turn: &mut Turn) -> Result<()> {
        let one = self.channel(&id)?;
        let out = one.out.as_ref().filter(|out| one.inc.is_none() && one.opened && out.stage == Stage::Live);
        let out = out.ok_or_else(|| over(&id))?;
        if amount < one.paid || amount > out.cap.cap {
            let expected = format!("{} to {}", one.paid, out.cap.cap);
            return Err(Error::expected(Code::VirtualAmount, "amount of the virtual channel", expected, amount));
        }
        if turn.now.log_ms.saturating_add(self.config.claim_ms()) > out.cap.not_after_ms {
            return Err(over(&id));
        }
        let terms = VirtualAmount { id: Bytes::copy_from_slice(&id), amount };
        let signed = turn.signer.virtual_amount(&out.cap.permission, &terms)?;
        if amount > one.paid {
            self.commit(Record::Paid(terms), turn);
        }
        turn.tell(&id, Kind::Paid(signed.clone()));
        turn.fx.reply = Reply::Signed(signed);
        Ok(())
    }

    /// The other party.
    pub(super) fn peer(&mut self, peer: VirtualPeer, turn: &mut Turn) -> Result<()> {
        let id = VirtualId::try_from(&peer.id[..]).map_err(|_| Error::new(Code::BadContent, "an id of 32 bytes"))?;
        let one = self.channel(&id)?;
        match peer.kind.ok_or_else(|| Error::new(Code::BadContent, "an empty message"))? {
            Kind::Paid(signed) => self.payments(vec![signed], turn),
            Kind::Ack(amount) if one.out.is_some() && amount <= one.paid => {
                turn.event(Event::Acknowledged { id, amount });
            }
            Kind::Close(true) if one.out.is_none() => self.close(id, turn)?,
            _ => {}
        }
        Ok(())
    }

    /// Each counts by itself; their signatures are verified together. Of each virtual channel the highest is acknowledged.
    pub(super) fn payments(&mut self, many: Vec<SignedPermit>, turn: &mut Turn) {
        let mut batch = Batch::new();
        let mut amounts = Vec::with_capacity(many.len());
        for (tag, signed) in many.iter().enumerate() {
            let judged = self.judge_payment(signed, turn);
            if let Ok((id, _)) = &judged
                && let Some(inc) = self.channels.get(id).and_then(|one| one.inc.as_ref())
            {
                batch.push_job(tag, voucher::virtual_job(signed, &inc.permission));
            }
            amounts.push(judged);
        }
        let results = batch.verify().results.into_iter();
        let mut bad: BTreeMap<usize, Error> = results.filter_map(|(tag, result)| Some((tag, result.err()?))).collect();
        let mut replies = Vec::with_capacity(many.len());
        let mut highest = BTreeMap::new();
        for (tag, (signed, judged)) in many.into_iter().zip(amounts).enumerate() {
            let judged = judged.and_then(|good| bad.remove(&tag).map_or(Ok(good), Err));
            replies.push(judged.map(|(id, amount)| {
                let before = self.channels.get(&id).map_or(0, |one| one.best());
                if amount > before {
                    self.commit(Record::Best(signed), turn);
                    highest.insert(id, amount);
                } else {
                    highest.entry(id).or_insert(before);
                }
                amount.saturating_sub(before)
            }));
        }
        for (id, amount) in highest {
            turn.tell(&id, Kind::Ack(amount));
        }
        turn.fx.reply = Reply::Received(replies);
    }

    /// All but the signature. The same again, or less, brings nothing.
    fn judge_payment(&self, signed: &SignedPermit, turn: &Turn) -> Result<(VirtualId, u64)> {
        let terms = voucher::virtual_amount(signed)?;
        let id = VirtualId::try_from(&terms.id[..]).unwrap_or_default();
        let one = self.channel(&id)?;
        let inc = one.inc.as_ref().filter(|_| one.out.is_none());
        let inc = inc.filter(|inc| inc.closing.is_none() && inc.over.is_none()).ok_or_else(|| over(&id))?;
        if terms.amount > inc.cap.cap {
            let expected = format!("at most {}", inc.cap.cap);
            return Err(Error::expected(Code::VirtualAmount, "amount of the virtual channel", expected, terms.amount));
        }
        // What comes later could no longer be claimed for sure.
        if turn.now.log_ms.saturating_add(self.config.claim_ms()) >= inc.cap.not_after_ms {
            return Err(over(&id));
        }
        Ok((id, terms.amount))
    }
}

pub fn over(id: &VirtualId) -> Error {
    let message = format!("virtual channel {} is not open, closing, over, or near its time limit", hex::encode(id));
    Error::new(Code::VirtualOver, message)
}
