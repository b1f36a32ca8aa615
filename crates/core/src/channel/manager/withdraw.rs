//! Money out of a channel that stays open, and the own keys into it.

use bytes::Bytes;

use super::Manager;
use super::effect::{Effects, Reply};
use super::funds::{check_amount, not_open};
use super::input::{EndId, Now, Signer};
use super::ops::Work;
use super::query::EndState;
use crate::channel::rules;
use crate::error::{Code, Error, Result};
use crate::limits::AMOUNT_MAX;
use crate::wire;
use crate::wire::manager_record::Kind as Record;

impl Manager {
    pub(super) fn say_keys(&mut self, id: EndId, fx: &mut Effects) -> Result<()> {
        let end = self.open_end(&id)?;
        if end.keys[end.side as usize].is_some() {
            let message = format!("side {} has said its keys before, and vouchers rest on them", end.side);
            return Err(Error::new(Code::ChannelKeys, message));
        }
        let account = end.account;
        let busy = end.busy.keys;
        let permission = self.config.accounts.get(&account).cloned().unwrap_or_default();
        let op = busy.unwrap_or_else(|| self.start(account, Some(id), Bytes::new(), Work::Keys(permission), fx));
        fx.reply = Reply::Op(op);
        Ok(())
    }

    fn open_end(&self, id: &EndId) -> Result<&super::end::End> {
        let end = self.end(id)?;
        match end.state() {
            EndState::Open => Ok(end),
            state => Err(not_open(state)),
        }
    }

    pub(super) fn leave(&mut self, id: EndId, amount: u64, fx: &mut Effects) -> Result<()> {
        check_amount(amount, 0)?;
        let end = self.open_end(&id)?;
        if let Some((op, old)) = end.busy.leave {
            if old != amount {
                return Err(busy("announcement", op));
            }
            fx.reply = Reply::Op(op);
            return Ok(());
        }
        // What is announced already is not available, but may be announced again.
        let announced = i128::from(rules::side(&end.record, end.side).leaving);
        let has = end.raw_available() + announced;
        if i128::from(amount) > has {
            let expected = format!("at most {has}, which is available");
            return Err(Error::expected(Code::ChannelFunds, "amount to withdraw", expected, amount));
        }
        let account = end.account;
        fx.reply = Reply::Op(self.start(account, Some(id), Bytes::new(), Work::Leave(amount), fx));
        Ok(())
    }

    pub(super) fn withdraw(
        &mut self,
        now: Now,
        id: EndId,
        amount: u64,
        permit: Option<wire::SignedPermit>,
        fx: &mut Effects,
    ) -> Result<()> {
        check_amount(amount, 1)?;
        let end = self.open_end(&id)?;
        let work = Work::Withdraw(wire::ManagerWithdraw { amount, permit: permit.clone() });
        if let Some(busy_now) = end.busy.withdraw {
            if self.op(busy_now.op)?.work != work {
                return Err(busy("withdrawal", busy_now.op));
            }
            fx.reply = Reply::Op(busy_now.op);
            return Ok(());
        }
        let side = rules::side(&end.record, end.side);
        let has = match &permit {
            None if side.leaving_at_ms == 0 => {
                return Err(Error::new(Code::ChannelNotDue, "no withdrawal is announced, and there is no permit"));
            }
            None if now.log_ms < side.leaving_at_ms => {
                fx.reply = Reply::NotYet(end.earliest(side.leaving_at_ms, now));
                return Ok(());
            }
            None => i128::from(side.leaving),
            // What the log has not redeemed yet can't be taken out.
            Some(permit) => {
                crate::channel::voucher::withdraw_permit(permit)?;
                end.raw_available() - end.money.received
            }
        };
        if i128::from(amount) > has {
            let expected = format!("at most {has}");
            return Err(Error::expected(Code::ChannelFunds, "amount to withdraw", expected, amount));
        }
        let account = end.account;
        fx.reply = Reply::Op(self.start(account, Some(id), Bytes::new(), work, fx));
        Ok(())
    }

    /// Signs that the other side may take money out, as far as it has not signed for it.
    pub(super) fn permit(
        &mut self,
        now: Now,
        id: EndId,
        withdrawn: u64,
        not_after_ms: u64,
        signer: &dyn Signer,
        fx: &mut Effects,
    ) -> Result<()> {
        let end = self.open_end(&id)?;
        end.check_signs_at_all()?;
        let other = rules::side(&end.record, end.other());
        let most = i128::from(other.deposited) - i128::from(other.leaving) + end.money.committed - end.others_spent();
        if i128::from(withdrawn) > most.min(i128::from(AMOUNT_MAX)) {
            let expected = format!("at most {most}, so that it can still pay what it has signed for");
            return Err(Error::expected(Code::ChannelFunds, "withdrawn in all", expected, withdrawn));
        }
        let channel = Bytes::copy_from_slice(&id.channel);
        let terms = wire::WithdrawPermit { channel: channel.clone(), side: end.other(), withdrawn, not_after_ms };
        let permit = signer.withdraw(&end.account, &terms)?;
        // The widest of all that are signed: an older one may be used as well, until it ends.
        let (mut widest, mut until) = (withdrawn, not_after_ms);
        if let (old @ 1.., old_until) = end.permitted
            && (old_until == 0 || old_until >= now.log_ms)
        {
            widest = widest.max(old);
            until = if old_until == 0 || until == 0 { 0 } else { until.max(old_until) };
        }
        let record = wire::ManagerPermit { channel, side: id.side, withdrawn: widest, not_after_ms: until };
        self.commit(Record::Permit(record), fx);
        fx.reply = Reply::Permitted(permit);
        Ok(())
    }

    pub(super) fn apply_permit(&mut self, record: &wire::ManagerPermit) -> Result<()> {
        let end = self.end_mut(&super::end_id(&record.channel, record.side)?)?;
        end.permitted = (record.withdrawn, record.not_after_ms);
        Ok(())
    }
}

fn busy(what: &str, op: u64) -> Error {
    Error::new(Code::OperationStarted, format!("another {what} is under way: operation {op}"))
}
