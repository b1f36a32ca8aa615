//! One life: what parties do, what befalls them, and how it ends.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::channel::hub::{Pay, Policy};
use florin_core::channel::manager::{self, EndId, EndState};
use florin_core::limits::{HUB_GRACE_MS, HUB_KEEP_MS};
use florin_core::merkle::Hash;

use super::checks::Starts;
use super::ledger::{Ledger, START};
use super::node::{Manner, Node, Wish};
use super::template::Template;
use super::world::{CLAIM_MS, World};
use super::{Crash, Found, Options, Shell};
use crate::rng::Rng;

pub(super) const MINUTE: u64 = 60_000;

/// A party's reservation.
type Reserved = (usize, EndId, u64);

/// One life.
pub struct Life {
    /// The world that it is in.
    pub world: World,
    pub(super) starts: Starts,
    /// Lanes that pay by hand: party and end, lane and what it has paid.
    pub(super) streams: BTreeMap<(usize, EndId), (u32, u64)>,
    pub(super) reserved: Vec<Reserved>,
    /// Users with whom most of it happens.
    pub(super) active: Vec<usize>,
    /// Payments that were asked for, and the number that each got.
    pub(super) payments: Vec<(usize, Pay, u64)>,
    /// Virtual channels that were opened.
    pub(super) virtuals: Vec<Hash>,
    /// Keys given out.
    pub(super) keys: u64,
    /// When each party last came back from an absence, ms.
    pub(super) back: BTreeMap<usize, u64>,
    pub(super) restores: u32,
    pub(super) steps: u64,
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
            payments: Vec::new(),
            virtuals: Vec::new(),
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
        match self.world.rng.below(120) {
            0..19 => self.pay(),
            19 => self.pay_again(),
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
            94..100 => self.time(),
            _ => self.virtual_turn(),
        }
    }

    pub(super) fn any(&mut self) -> usize {
        // Hubs have more to do than others.
        if self.world.rng.chance(300) { self.world.rng.below(2) as usize } else { self.user() }
    }

    pub(super) fn user(&mut self) -> usize {
        if self.world.rng.chance(800) {
            return self.active[self.world.rng.index(self.active.len())];
        }
        2 + self.world.rng.index(self.world.nodes.len() - 2)
    }

    pub(super) fn end_of(&mut self, node: usize) -> Option<EndId> {
        let ends: Vec<EndId> = self.world.nodes[node].ends.keys().copied().collect();
        (!ends.is_empty()).then(|| ends[self.world.rng.index(ends.len())])
    }

    pub(super) fn key(&mut self) -> Bytes {
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
            if waiting.is_empty() && self.world.peers.is_empty() {
                return;
            }
            for (node, message) in std::mem::take(&mut self.world.peers) {
                self.world.peer_arrives(node, message);
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
            // Long enough that what was before is forgotten.
            _ if self.world.rng.chance(150) => now + HUB_KEEP_MS + self.world.rng.between(60 * MINUTE, 300 * MINUTE),
            _ => now + self.world.rng.between(MINUTE, 40 * MINUTE),
        };
        self.world.pass(to.max(now + 1));
        if self.world.rng.chance(400) {
            let node = self.user();
            self.world.look(node);
        }
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
        // Invoices are of two hours at most.
        let now = self.world.time();
        self.world.pass(now + HUB_KEEP_MS + 121 * MINUTE);
        (0..self.world.nodes.len()).for_each(|node| self.world.look(node));
        self.world.check_forgotten();
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
        let reserved = std::mem::take(&mut self.reserved);
        // Twice, for a crash may take the first.
        for _ in 0..2 {
            for (node, end, reservation) in reserved.iter().copied() {
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
                self.world.flush(node);
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
