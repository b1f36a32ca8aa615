//! One life: what parties do, what befalls them, and how it ends.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::channel::hub::{Ask, Input, Pay, Policy, Reply, Step, plan, read_invoice};
use florin_core::channel::manager::{self, Create, EndId, EndState, Incoming, Issue, Reserve, Use};
use florin_core::limits::HUB_GRACE_MS;
use florin_core::merkle::Hash;

use super::checks::Starts;
use super::ledger::{Ledger, START};
use super::node::{Manner, Node, Wish};
use super::template::Template;
use super::world::{CLAIM_MS, World};
use super::{Crash, Found, Options, Shell};
use crate::rng::Rng;

const MINUTE: u64 = 60_000;

/// A party's reservation.
type Reserved = (usize, EndId, u64);

/// One life.
pub struct Life {
    /// The world that it is in.
    pub world: World,
    starts: Starts,
    /// Lanes that pay by hand: party and end, lane and what it has paid.
    streams: BTreeMap<(usize, EndId), (u32, u64)>,
    reserved: Vec<Reserved>,
    /// Users with whom most of it happens.
    active: Vec<usize>,
    /// Keys given out.
    keys: u64,
    /// When each party last came back from an absence, ms.
    back: BTreeMap<usize, u64>,
    restores: u32,
    steps: u64,
}

impl Life {
    /// The life of a seed.
    pub fn new(seed: u64, options: &Options, template: &Template) -> Life {
        let mut rng = Rng::new(seed);
        let ledger = Ledger::resume(&template.of, &template.snapshot, &template.accounts);
        let nodes =
            (0..template.journals.len()).map(|number| node(number, &mut rng, options.shell, template)).collect();
        let mut world = World::new(rng, ledger, nodes, options.shell);
        world.money = world.ledger.money();
        for channel in template.snapshot_channels() {
            world.find_link(channel);
        }
        for number in 0..world.nodes.len() {
            world.nodes[number].journal.clone_from(&template.journals[number]);
            world.start(number);
        }
        if let Some(Crash { party, entry, kept }) = options.crash {
            let at = template.journals[party].len() + entry;
            world.nodes[party].crash_at = Some((at, kept));
        }
        let starts = (0..world.nodes.len()).map(|number| world.wealth(number)).collect();
        world.begun = (0..world.nodes.len()).map(|number| world.deposited(number)).collect();
        let users = world.nodes.len() - 2;
        let active = (0..world.rng.between(4, users as u64)).map(|_| 2 + world.rng.index(users)).collect();
        let (streams, back) = (BTreeMap::new(), BTreeMap::new());
        let mut life = Life {
            world,
            starts,
            streams,
            reserved: Vec::new(),
            active,
            keys: 0,
            back,
            restores: 0,
            steps: options.steps,
        };
        life.connect_all();
        life.rest();
        life
    }

    /// Lives it.
    pub fn live(mut self) -> Found {
        for _ in 0..self.steps {
            self.turn();
            if !self.world.violations.is_empty() {
                break;
            }
        }
        if self.world.violations.is_empty() {
            self.end();
        }
        let entries = self.world.nodes.iter().map(|node| node.journal.len()).collect();
        Found { marks: self.world.marks, violations: self.world.violations, entries }
    }

    fn turn(&mut self) {
        match self.world.rng.below(100) {
            0..20 => self.pay(),
            20..34 => self.work(),
            34..68 => self.mail(),
            68..73 => self.reconnect(),
            73 => self.break_link(),
            74..76 => self.late_mail(),
            76..79 => self.crash(),
            79 => self.come_and_go(),
            80 => self.restore(),
            81..88 => self.manage(),
            88..94 => super::liars::act(&mut self.world),
            _ => self.time(),
        }
    }

    fn any(&mut self) -> usize {
        // Hubs have more to do than others.
        if self.world.rng.chance(300) { self.world.rng.below(2) as usize } else { self.user() }
    }

    fn user(&mut self) -> usize {
        if self.world.rng.chance(800) {
            return self.active[self.world.rng.index(self.active.len())];
        }
        2 + self.world.rng.index(self.world.nodes.len() - 2)
    }

    fn end_of(&mut self, node: usize) -> Option<EndId> {
        let ends: Vec<EndId> = self.world.nodes[node].ends.keys().copied().collect();
        (!ends.is_empty()).then(|| ends[self.world.rng.index(ends.len())])
    }

    fn key(&mut self) -> Bytes {
        self.keys += 1;
        Bytes::copy_from_slice(&self.keys.to_be_bytes())
    }

    /// Its effects, all or some, or only a sync.
    fn work(&mut self) {
        let node = self.any();
        match self.world.rng.below(4) {
            0 => drop(self.world.sync(node)),
            1 => drop(self.world.step(node)),
            _ => self.world.flush(node),
        }
    }

    fn mail(&mut self) {
        let waiting: Vec<(Hash, u32)> = self
            .world
            .links
            .iter()
            .filter(|(_, link)| link.up)
            .flat_map(|(channel, link)| {
                (0..2_u32).filter(|side| !link.mail[*side as usize].is_empty()).map(|side| (*channel, side))
            })
            .collect();
        if waiting.is_empty() {
            return self.work();
        }
        let (channel, side) = waiting[self.world.rng.index(waiting.len())];
        for _ in 0..self.world.rng.between(1, 3) {
            self.world.deliver(channel, side);
        }
        let node = self.world.links[&channel].sides[side as usize];
        if self.world.rng.chance(650) {
            self.world.flush(node);
        }
    }

    fn link(&mut self) -> Hash {
        let at = self.world.rng.index(self.world.links.len());
        self.world.links.keys().nth(at).copied().unwrap_or_default()
    }

    fn reconnect(&mut self) {
        let down: Vec<Hash> =
            self.world.links.iter().filter(|(_, link)| !link.up).map(|(channel, _)| *channel).collect();
        let channel = match down.is_empty() || self.world.rng.chance(200) {
            true => self.link(),
            false => down[self.world.rng.index(down.len())],
        };
        self.world.connect(channel);
    }

    fn break_link(&mut self) {
        let channel = self.link();
        let told = self.world.rng.chance(800);
        self.world.disconnect(channel, told);
        self.world.mark("connection broken");
    }

    /// A message of a connection that is gone, and sometimes once more.
    fn late_mail(&mut self) {
        if self.world.stale.is_empty() {
            return;
        }
        let at = self.world.rng.index(self.world.stale.len());
        let (channel, side, message) = match self.world.rng.chance(200) {
            true => self.world.stale[at].clone(),
            false => self.world.stale.swap_remove(at),
        };
        self.world.mark("message of an old connection");
        self.world.arrives(channel, side, message);
    }

    fn crash(&mut self) {
        let node = self.any();
        if !self.world.nodes[node].is_up() {
            return;
        }
        let now = self.world.time();
        let long = self.world.rng.chance(300) && self.back.get(&node).is_none_or(|back| now > back + 2 * MINUTE);
        // What it has sent counts as ordered only if it has seen the log since it came back.
        let long = long && self.world.nodes[node].waiting.is_empty();
        let away = if long { self.world.rng.between(MINUTE, HUB_GRACE_MS - MINUTE) } else { 0 };
        let away = if self.world.shell == Shell::SleepsTooLong && node < 2 { 8 * away } else { away };
        if away > 0 {
            self.world.mark("away for minutes");
            self.back.insert(node, now + away);
        }
        self.world.crash(node, now + away);
        if away == 0 {
            self.world.start(node);
            if self.world.rng.chance(700) {
                self.connect_of(node);
            }
        }
    }

    /// Those who need not be there go and come.
    fn come_and_go(&mut self) {
        let node = self.user();
        if self.world.nodes[node].is_diligent() {
            return;
        }
        if self.world.nodes[node].is_up() {
            self.world.mark("away for hours");
            self.world.crash(node, u64::MAX);
        } else {
            self.world.start(node);
            self.connect_of(node);
        }
    }

    fn restore(&mut self) {
        if self.restores > 0 || !self.world.rng.chance(400) {
            return;
        }
        // One that has something to forget; the second hub now and then.
        let busy = |world: &World, node: usize| world.nodes[node].is_up() && world.nodes[node].durable.signed.len() > 1;
        let users: Vec<usize> = (2..self.world.nodes.len()).filter(|node| busy(&self.world, *node)).collect();
        let node = match self.world.rng.chance(100) {
            true if self.world.nodes[1].is_up() => 1,
            _ if users.is_empty() => return,
            _ => users[self.world.rng.index(users.len())],
        };
        let all = self.world.nodes[node].journal.len() as u64;
        let first = all.min(3);
        self.restores += 1;
        let groups = self.world.rng.between(first, all) as usize;
        self.streams.retain(|(of, _), _| *of != node);
        self.reserved.retain(|(of, ..)| *of != node);
        self.world.restore(node, groups);
        self.connect_of(node);
    }

    fn connect_of(&mut self, node: usize) {
        let ends: Vec<Hash> = self.world.nodes[node].ends.keys().map(|end| end.channel).collect();
        for channel in ends {
            if self.world.rng.chance(800) {
                self.world.connect(channel);
            }
        }
    }

    fn connect_all(&mut self) {
        let all: Vec<Hash> = self.world.links.keys().copied().collect();
        all.into_iter().for_each(|channel| self.world.connect(channel));
    }

    /// Until nobody has anything to say.
    fn rest(&mut self) {
        for _ in 0..2_000 {
            for node in 0..self.world.nodes.len() {
                self.world.flush(node);
            }
            let waiting: Vec<(Hash, u32)> = self
                .world
                .links
                .iter()
                .flat_map(|(channel, link)| {
                    (0..2_u32).filter(|side| !link.mail[*side as usize].is_empty()).map(|side| (*channel, side))
                })
                .collect();
            if waiting.is_empty() {
                return;
            }
            for (channel, side) in waiting {
                while self.world.deliver(channel, side) {}
            }
        }
        self.world.violation("parties never come to rest");
    }

    /// Time passes: a little, or up to where something ends.
    fn time(&mut self) {
        let now = self.world.time();
        let to = match self.world.rng.below(10) {
            0..6 => now + self.world.rng.between(1, 20_000),
            6..9 => {
                let moments: Vec<u64> = self.world.moments.iter().map(|(at, _)| *at).take(12).collect();
                if moments.is_empty() { now + MINUTE } else { moments[self.world.rng.index(moments.len())] }
            }
            _ if self.world.rng.chance(150) => now + self.world.rng.between(60 * MINUTE, 420 * MINUTE),
            _ => now + self.world.rng.between(MINUTE, 40 * MINUTE),
        };
        self.world.pass(to.max(now + 1));
        if self.world.rng.chance(400) {
            let node = self.user();
            self.world.look(node);
        }
    }

    /// Somebody pays somebody.
    fn pay(&mut self) {
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
        if let Ok(Reply::Payment(_)) = self.world.tell(payer, Input::Pay(pay), Wish::None) {
            self.world.mark("payment");
            if hubs.len() > 1 {
                self.world.mark("payment over two hubs");
            }
        }
        if self.world.rng.chance(500) {
            self.world.flush(payer);
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
    fn manage(&mut self) {
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
        if self.world.channel(node, manager::Input::Release { end, reservation }, Wish::None).is_ok() {
            self.world.sync(node);
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

    /// Whoever keeps the rules ends all of it.
    fn end(&mut self) {
        let world = &mut self.world;
        for node in 0..world.nodes.len() {
            let stays_away = !world.nodes[node].is_diligent() && world.rng.chance(500);
            if !world.nodes[node].is_up() && !stays_away && !world.nodes[node].is_diligent() {
                world.start(node);
            }
        }
        let back = world.nodes.iter().filter(|node| node.is_diligent()).filter_map(|node| node.down_until).max();
        world.pass(back.unwrap_or(0).max(world.time()));
        if world.rng.chance(500) {
            world.muted.clear();
        }
        self.connect_all();
        self.rest();
        self.over_all_locks();
        self.connect_all();
        self.rest();
        self.over_all_locks();
        self.release_all();
        self.close();
        if self.world.violations.is_empty() {
            self.world.check_end(&self.starts);
        }
    }

    fn over_all_locks(&mut self) {
        while let Some((at, _)) = self.world.moments.first().copied() {
            let now = self.world.time();
            self.world.pass(at.max(now + 1));
            self.rest();
            if self.world.rng.chance(100) {
                super::liars::grab(&mut self.world);
            }
        }
        let now = self.world.time();
        self.world.pass(now + 2 * MINUTE);
        self.rest();
    }

    fn release_all(&mut self) {
        for (node, end, reservation) in std::mem::take(&mut self.reserved) {
            drop(self.world.channel(node, manager::Input::Release { end, reservation }, Wish::None));
        }
        for node in 0..self.world.nodes.len() {
            let ends: Vec<EndId> = self.world.nodes[node].ends.keys().copied().collect();
            for end in ends {
                let amount = self.world.nodes[node].manager.pool(&end).unwrap_or(0);
                if amount > 0 {
                    drop(self.world.channel(node, manager::Input::ReleaseAmount { end, amount }, Wish::None));
                }
            }
        }
    }

    /// Asks for something at many ends; twice, for a crash may take the first.
    fn asks(&mut self, ends: &[(Hash, usize, u32)], what: fn(EndId) -> manager::Input) {
        for _ in 0..2 {
            for (channel, node, side) in ends {
                let end = EndId { channel: *channel, side: *side };
                drop(self.world.channel(*node, what(end), Wish::None));
                self.world.flush(*node);
            }
            self.world.order(|_| true);
        }
    }

    /// Settles and collects what was used.
    fn close(&mut self) {
        let used: Vec<(Hash, usize, u32)> = self
            .world
            .links
            .iter()
            .filter_map(|(channel, link)| {
                let side = (0..2_u32).find(|side| self.world.nodes[link.sides[*side as usize]].is_diligent())?;
                let used = link.sides.iter().any(|node| self.world.nodes[*node].uses(channel));
                let collected = self.world.ledger.record(channel).is_some_and(|record| record.collected);
                (used && !collected).then_some((*channel, link.sides[side as usize], side))
            })
            .collect();
        self.asks(&used, manager::Input::Settle);
        let now = self.world.time();
        self.world.pass(now + 2 * MINUTE);
        let ends =
            self.world.ledger.records().values().map(|record| record.settling_at_ms).filter(|at| *at != u64::MAX);
        let last = ends.max().unwrap_or(now);
        let early = last.saturating_sub(self.world.rng.between(1, CLAIM_MS));
        self.world.pass(early.max(now + 2 * MINUTE + 1));
        super::liars::old_states(&mut self.world);
        self.world.pass(last.max(self.world.time()) + 5 * MINUTE);
        let nodes: std::collections::BTreeSet<usize> = used.iter().map(|(_, node, _)| *node).collect();
        nodes.into_iter().for_each(|node| self.world.look(node));
        self.asks(&used, manager::Input::Collect);
        let now = self.world.time();
        self.world.pass(now + 2 * MINUTE);
        for node in 0..self.world.nodes.len() {
            self.world.look(node);
        }
        for (channel, node, side) in used {
            let state = self.world.nodes[node].manager.status(&EndId { channel, side }).map(|status| status.state);
            if state.as_ref().is_ok_and(|state| *state != EndState::Collected) {
                self.world.violation(format!("party {node}: a channel is {state:?} in the end"));
            }
        }
    }
}

fn channel_reply(reply: Reply) -> manager::Reply {
    match reply {
        Reply::Channel(reply) => reply,
        _ => manager::Reply::Done,
    }
}

fn node(number: usize, rng: &mut Rng, shell: Shell, template: &Template) -> Node {
    let manner = match (number, rng.below(10)) {
        (0 | 1, _) => Manner::Hub,
        (_, 0..6) => Manner::Watchful,
        (_, 6) => Manner::Sleeper,
        _ => Manner::Liar,
    };
    let mut policy = Policy::default();
    policy.terms.upfront = if rng.chance(300) { 2 } else { 0 };
    policy.terms.margin_ms = if rng.chance(500) { 1 } else { policy.terms.margin_ms };
    policy.locks_max = if rng.chance(200) { 2 } else { 6 };
    policy.final_ms = rng.between(15, 60) * MINUTE;
    let mut node = Node::new(number as u64, manner, policy, shell);
    node.of_committee(*template.of.committee.id());
    node.known_ms = START;
    node
}
