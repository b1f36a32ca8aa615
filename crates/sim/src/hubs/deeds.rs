//! What parties do: payments over hubs and by hand, and all that a manager is asked for.

use bytes::Bytes;
use florin_core::channel::hub::{Ask, Input, Pay, Reply, Step, plan, read_invoice};
use florin_core::channel::manager::{self, Create, EndId, EndState, Incoming, Issue, Reserve, Use};

use super::life::{Life, MINUTE};
use super::node::{Manner, Wish};

impl Life {
    /// Somebody pays somebody.
    pub(super) fn pay(&mut self) {
        let (payer, payee) = match self.world.rng.chance(850) {
            true => (self.user(), self.user()),
            false => (self.any(), self.any()),
        };
        if payer == payee || !self.world.nodes[payer].is_up() || !self.world.nodes[payee].is_up() {
            return;
        }
        let Some((own, theirs, hubs)) = self.way(payer, payee) else { return };
        let amount = if self.world.rng.chance(60) {
            self.world.rng.between(5_000, 12_000)
        } else {
            self.world.rng.between(1, 2_500)
        };
        let secret = self.world.rng.bytes();
        let expires_ms = self.world.time() + 2 * 3_600_000;
        let ask = Ask { end: theirs, amount, secret, expires_ms, memo: String::new() };
        let Ok(Reply::Invoice(invoice, hash)) = self.world.tell(payee, Input::Ask(ask), Wish::None) else { return };
        if !self.world.sync(payee) {
            return;
        }
        self.world.secrets.insert(hash, secret);
        let Ok(terms) = read_invoice(&invoice) else { return };
        let now = self.world.nodes[payer].known_ms;
        let route = match plan(self.world.nodes[payer].config(), now, &terms, own, &hubs) {
            Ok(route) => route,
            Err(_) => return,
        };
        let mut pay = Pay { key: self.key(), invoice, route };
        if self.world.nodes[payer].manner == Manner::Liar {
            super::liars::bend(&mut self.world.rng, &mut pay);
        }
        self.world.upfront.insert(pay.key.to_vec(), pay.route.upfront);
        if let Ok(Reply::Payment(number)) = self.world.tell(payer, Input::Pay(pay.clone()), Wish::None) {
            self.payments.push((payer, pay, number));
            self.world.mark("payment");
            if hubs.len() > 1 {
                self.world.mark("payment over two hubs");
            }
        }
        if self.world.rng.chance(500) {
            self.world.flush(payer);
        }
    }

    /// Somebody asks once more for a payment of before, by its key or by another: it is the same one, or is refused.
    pub(super) fn pay_again(&mut self) {
        let honest = |of: &(usize, Pay, u64)| {
            let node = &self.world.nodes[of.0];
            node.is_up() && node.is_honest() && !node.restored
        };
        let known: Vec<usize> = (0..self.payments.len()).filter(|at| honest(&self.payments[*at])).collect();
        if known.is_empty() {
            return;
        }
        let (payer, mut pay, number) = self.payments[known[self.world.rng.index(known.len())]].clone();
        // A crash may have taken the first.
        let facts = &self.world.nodes[payer].memory;
        let was_made = facts.payments.iter().any(|made| made.payment == number && made.key == pay.key);
        let is_forgotten = facts.forgotten.0.contains(&number);
        let same_key = self.world.rng.chance(500);
        if !same_key {
            pay.key = self.key();
        }
        self.world.upfront.entry(pay.key.to_vec()).or_insert(pay.route.upfront);
        let reply = self.world.tell(payer, Input::Pay(pay.clone()), Wish::None);
        match reply {
            Ok(Reply::Payment(again)) if was_made && same_key && (again != number || is_forgotten) => {
                self.world.violation(format!("party {payer}: payment {number} is made again, as {again}"));
            }
            Ok(Reply::Payment(again)) if again != number => {
                self.payments.push((payer, pay, again));
                self.world.mark("failed payment tried again");
            }
            Ok(_) => self.world.mark("payment asked for twice"),
            Err(_) if is_forgotten => self.world.mark("forgotten payment asked for again"),
            Err(_) => {}
        }
    }

    /// Ends of payer and payee, and the hubs between them.
    fn way(&mut self, payer: usize, payee: usize) -> Option<(EndId, EndId, Vec<Step>)> {
        let step =
            |life: &Life, hub: usize, end: &EndId| Step { channel: end.channel, terms: life.world.nodes[hub].terms() };
        if payer < 2 || payee < 2 {
            // A channel that both have.
            let ends: Vec<EndId> =
                self.world.nodes[payer].ends.iter().filter(|(_, peer)| **peer == payee).map(|(end, _)| *end).collect();
            if ends.is_empty() || payer < 2 && self.world.rng.chance(700) {
                return None;
            }
            let own = ends[self.world.rng.index(ends.len())];
            return Some((own, EndId { side: 1 - own.side, ..own }, Vec::new()));
        }
        let (own, theirs) = (self.end_of(payer)?, self.end_of(payee)?);
        let (first, last) = (self.world.nodes[payer].ends[&own], self.world.nodes[payee].ends[&theirs]);
        if first == last {
            return Some((own, theirs, vec![step(self, last, &theirs)]));
        }
        let between: Vec<EndId> =
            self.world.nodes[first].ends.iter().filter(|(_, peer)| **peer == last).map(|(end, _)| *end).collect();
        let between = between[self.world.rng.index(between.len())];
        Some((own, theirs, vec![step(self, first, &between), step(self, last, &theirs)]))
    }

    /// What the manager is asked for.
    pub(super) fn manage(&mut self) {
        let node = self.any();
        let Some(mut end) = self.end_of(node) else { return };
        let world = &mut self.world;
        let over = |end: &EndId| world.nodes[node].manager.status(end).is_ok_and(|s| s.state == EndState::Settling);
        if let Some(settling) = world.nodes[node].ends.keys().find(|end| over(end)).copied() {
            end = settling;
        }
        match world.rng.below(20) {
            0 | 1 => {
                let amount = world.rng.between(1, 3_000);
                let key = self.key();
                drop(self.world.channel(node, manager::Input::AddFunds { end, key, amount }, Wish::None));
            }
            2..5 => self.reserve(node, end),
            5 => self.release(),
            6..11 => self.stream(node, end),
            11 | 12 => self.by_hand(),
            13 => {
                let amount = world.rng.below(4_000);
                drop(world.channel(node, manager::Input::Leave { end, amount }, Wish::None));
            }
            14 => self.withdraw(node, end),
            15 => self.permit(node, end),
            16 => drop(world.channel(node, manager::Input::SubmitAll(end), Wish::None)),
            17 => self.settle(node, end),
            18 => self.open(),
            _ => {
                world.look(node);
                if let Ok(manager::Reply::Op(_)) =
                    world.channel(node, manager::Input::Collect(end), Wish::None).map(channel_reply)
                {
                    world.mark("collected in between");
                }
            }
        }
    }

    fn settle(&mut self, node: usize, end: EndId) {
        if !self.world.rng.chance(300) {
            return;
        }
        let locked = self.world.nodes[node].manager.status(&end).map_or(0, |s| s.locked + s.locked_in);
        if self.world.channel(node, manager::Input::Settle(end), Wish::None).is_ok() {
            self.world.mark("settled in between");
            if locked > 0 {
                self.world.mark("settled with locks in flight");
            }
        }
    }

    fn open(&mut self) {
        let node = self.user();
        if self.world.nodes[node].ends.len() > 2 || !self.world.rng.chance(500) {
            return;
        }
        let hub = self.world.rng.below(2) as usize;
        let (from, to) = (self.world.nodes[node].account, self.world.nodes[hub].account);
        let to_permission = self.world.nodes[hub].permission.clone();
        let (key, amount) = (self.key(), self.world.rng.below(5_000));
        let create = Create { key, from, to, to_permission, amount, delay_ms: 4 * 3_600_000, two_way: true };
        if self.world.channel(node, manager::Input::Create(create), Wish::None).is_ok() {
            self.world.mark("channel opened in between");
        }
    }

    fn reserve(&mut self, node: usize, end: EndId) {
        let (amount, key) = (self.world.rng.between(1, 12_000), self.key());
        let usage = match self.streams.get(&(node, end)) {
            Some((lane, _)) if self.world.rng.chance(500) => Use::Lane(*lane),
            _ if self.world.rng.chance(300) => Use::Pool,
            _ => Use::Named,
        };
        let off_chain_only = self.world.rng.chance(300);
        let reserve = Reserve { end, key, amount, usage, off_chain_only };
        let reply = self.world.channel(node, manager::Input::Reserve(reserve), Wish::None).map(channel_reply);
        if let Ok(manager::Reply::Reserved { reservation, active, .. }) = reply {
            self.world.sync(node);
            self.reserved.push((node, end, reservation));
            if !active {
                self.world.mark("reservation that tops up");
            }
        }
    }

    fn release(&mut self) {
        if self.reserved.is_empty() {
            return;
        }
        let at = self.world.rng.index(self.reserved.len());
        let (node, end, reservation) = self.reserved[at];
        let released = self.world.channel(node, manager::Input::Release { end, reservation }, Wish::None).is_ok();
        // A crash may have taken it.
        if released && self.world.sync(node) {
            self.reserved.swap_remove(at);
        }
    }

    /// Money by hand, on a lane of its own. Nothing warns whoever has restored an old backup, so nobody pays from one.
    fn stream(&mut self, node: usize, end: EndId) {
        if self.world.nodes[node].restored {
            return;
        }
        if !self.streams.contains_key(&(node, end)) {
            let lane = self.world.channel(node, manager::Input::AllocateLane(end), Wish::None).map(channel_reply);
            let Ok(manager::Reply::Lane(lane)) = lane else { return };
            if !self.world.sync(node) {
                return;
            }
            self.streams.insert((node, end), (lane, 0));
            self.world.streams.insert((node, end, lane));
        }
        let more = self.world.rng.between(1, 300);
        let Some((lane, _)) = self.streams.get(&(node, end)).copied() else { return };
        let amount = self.world.nodes[node].manager.lane_paid(&end, lane).unwrap_or(0) + more;
        let issue = Issue { end, lane, amount, conditions: manager::Conditions::default() };
        drop(self.world.channel(node, manager::Input::VoucherCreate(issue), Wish::Voucher(end)));
        if self.world.rng.chance(600) {
            self.world.sync(node);
        }
    }

    /// A voucher that was passed by hand arrives, or never does.
    fn by_hand(&mut self) {
        if self.world.hand.is_empty() {
            return;
        }
        let at = self.world.rng.index(self.world.hand.len());
        let (node, end, voucher) = self.world.hand.swap_remove(at);
        if self.world.rng.chance(100) {
            return self.world.mark("voucher by hand that was lost");
        }
        let incoming = Incoming { end, voucher, secret: Bytes::new(), proof: Bytes::new(), min_delta: 0 };
        let reply = self.world.channel(node, manager::Input::VoucherAdd(incoming), Wish::None);
        if reply.is_ok() {
            self.world.mark("voucher by hand");
        }
    }

    fn withdraw(&mut self, node: usize, end: EndId) {
        let of = self.world.permits.iter().position(|(of, ..)| *of == node);
        let (end, amount, permit) = match of {
            Some(at) => {
                let (_, end, amount, permit) = self.world.permits.swap_remove(at);
                (end, amount, Some(permit))
            }
            None => (end, self.world.rng.between(1, 2_000), None),
        };
        let permitted = permit.is_some();
        let reply =
            self.world.channel(node, manager::Input::Withdraw { end, amount, permit }, Wish::None).map(channel_reply);
        if let Ok(manager::Reply::Op(_)) = reply {
            self.world.mark(if permitted { "withdrawal with a permit" } else { "withdrawal after an announcement" });
        }
    }

    fn permit(&mut self, node: usize, end: EndId) {
        let amount = self.world.rng.between(1, 2_000);
        let Ok(taken) = self.world.nodes[node].manager.withdrawn(&end, 1 - end.side) else { return };
        let not_after_ms = self.world.time() + self.world.rng.between(MINUTE, 60 * MINUTE);
        let permit = manager::Input::Permit { end, withdrawn: taken + amount, not_after_ms };
        drop(self.world.channel(node, permit, Wish::Permit(end, amount)));
    }
}

fn channel_reply(reply: Reply) -> manager::Reply {
    match reply {
        Reply::Channel(reply) => reply,
        _ => manager::Reply::Done,
    }
}
