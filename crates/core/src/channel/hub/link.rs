//! Connections: what the two sides of a channel say to each other after connecting.
//!
//! A journal that was restored from an old backup has forgotten vouchers. It would sign their nonces again, over the same money. So
//! after a start nothing is signed on a channel before the other side has said which of the own vouchers it holds. One that the
//! journal does not know, and that is shown, ends all signing on that channel for good. A side that only claims to hold one holds up its own
//! channel. What both sides wait for is said again.

use super::claim::incoming;
use super::shared::{Connection, check_channel, unknown};
use super::{Hub, LockKey, Todo, Turn, whole};
use crate::channel::manager::{self, EndId};
use crate::channel::voucher::Voucher;
use crate::error::{Code, Error, Result};
use crate::wire::hub_message::Kind;
use crate::wire::{self, HubLane};

/// A connection with the other side of a channel.
#[derive(Debug, Default)]
pub struct Link {
    pub connection: Connection,
    /// It has offered a lock that could not be judged before another channel is compared.
    pub waits: bool,
}

impl Hub {
    /// Whether anything may be signed on an end.
    pub(super) fn is_ready(&self, end: &EndId) -> bool {
        self.links.get(end).is_some_and(|link| link.connection.compared) && !self.diverged.contains(end)
    }

    pub(super) fn connected(&mut self, end: EndId, connection: u64, turn: &mut Turn) -> Result<()> {
        turn.manager.status(&end)?;
        self.links.entry(end).or_default().connection.number = Some(connection);
        self.hello(end, turn)?;
        if self.is_ready(&end) {
            self.say_again(end, turn);
        }
        Ok(())
    }

    fn hello(&self, end: EndId, turn: &mut Turn) -> Result<()> {
        let nonces = turn.manager.held_nonces(&end)?;
        let lanes = nonces.into_iter().map(|(payer, lane, nonce)| HubLane { payer, lane, nonce }).collect();
        self.send(end, Kind::Hello(wire::HubHello { lanes }), turn);
        Ok(())
    }

    /// Those that wait for a comparison say their locks again.
    fn wake(&mut self, turn: &mut Turn) -> Result<()> {
        let waiting: Vec<EndId> = self.links.iter().filter(|(_, link)| link.waits).map(|(end, _)| *end).collect();
        for end in waiting {
            self.links.entry(end).or_default().waits = false;
            self.hello(end, turn)?;
        }
        Ok(())
    }

    pub(super) fn message(&mut self, end: EndId, message: wire::HubMessage, turn: &mut Turn) -> Result<()> {
        check_channel(&end, &message.channel)?;
        turn.manager.status(&end)?;
        match message.kind.ok_or_else(|| Error::new(Code::BadContent, "an empty message"))? {
            Kind::Hello(hello) => self.on_hello(end, &hello, turn),
            Kind::Show(lane) => {
                if let Some(voucher) = turn.manager.kept_voucher(&end, lane.payer, lane.lane, lane.nonce)? {
                    self.send(end, Kind::Shown(voucher), turn);
                }
                Ok(())
            }
            Kind::Shown(voucher) => self.on_shown(end, voucher, turn),
            Kind::Offer(offer) => self.on_offer(end, offer, turn),
            Kind::Held(_) => Ok(()),
            Kind::Refused(refused) => self.on_refused(end, refused, turn),
            Kind::Secret(secret) => self.on_secret(end, &secret, turn),
            Kind::Paid(voucher) => self.on_paid(end, voucher, turn),
            Kind::PaidAck(ack) => {
                self.on_paid_ack(end, &ack, turn);
                Ok(())
            }
        }
    }

    fn on_hello(&mut self, end: EndId, hello: &wire::HubHello, turn: &mut Turn) -> Result<()> {
        let unknown = unknown(&hello.lanes, |lane| {
            let own = match lane.payer == end.side {
                true => turn.manager.out_lane(&end, lane.lane)?,
                false => turn.manager.paid_lane(&end, lane.lane)?,
            };
            Ok(own.nonce)
        })?;
        if unknown.is_empty() {
            let before = std::mem::replace(&mut self.links.entry(end).or_default().connection.compared, true);
            self.say_again(end, turn);
            if !before {
                self.wake(turn)?;
            }
        } else {
            self.links.entry(end).or_default().connection.compared = false;
            unknown.into_iter().for_each(|lane| self.send(end, Kind::Show(lane), turn));
        }
        Ok(())
    }

    /// A voucher of the own side, as it is said.
    fn on_shown(&mut self, end: EndId, signed: wire::SignedVoucher, turn: &mut Turn) -> Result<()> {
        let voucher = Voucher::decode(&signed)?;
        let terms = &voucher.terms;
        let own = match terms.payer == end.side {
            true => turn.manager.out_lane(&end, terms.lane)?,
            false => turn.manager.paid_lane(&end, terms.lane)?,
        };
        if voucher.signer == end.side && terms.nonce > own.nonce {
            // Its signature is checked, and its nonce never used again.
            turn.call(manager::Input::VoucherAdd(incoming(end, signed)))?;
            self.diverge(end, turn);
            self.wake(turn)?;
        }
        Ok(())
    }

    /// What the own side waits for, and what the other has not got.
    fn say_again(&mut self, end: EndId, turn: &mut Turn) {
        let outs: Vec<LockKey> = self.outs.range(whole(end)).map(|(key, _)| *key).collect();
        for key in outs {
            let Some(out) = self.outs.get(&key) else { continue };
            if out.upgraded {
                let paid = turn.manager.kept_voucher(&end, end.side, key.1, out.nonce.saturating_add(1));
                if let Ok(Some(paid)) = paid {
                    self.send(end, Kind::Paid(paid), turn);
                }
            } else if out.secret.is_empty() {
                self.offer_again(&key, turn);
            } else {
                turn.todo.push_back(Todo::Out(key));
            }
        }
        let ins: Vec<LockKey> = self.ins.range(whole(end)).map(|(key, _)| *key).collect();
        for key in ins {
            if self.ins.get(&key).is_some_and(|one| !one.secret.is_empty()) {
                self.say_secret(&key, turn);
            }
            turn.todo.push_back(Todo::In(key));
        }
    }
}
