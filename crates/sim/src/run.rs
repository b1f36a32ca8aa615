//! Setting up a committee, its clients and their enemies, and running them to the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use florin_core::address::Address;
use florin_core::authority::audit::audit_authority;
use florin_core::committee::{AuthorityInfo, Committee, Network};
use florin_core::ordered::engine::Ordering as _;
use florin_core::signatures::AuthorityKey;
use sha2::{Digest, Sha256};

use crate::attackers::copies::Identity;
use crate::attackers::forges_notes::ForgesNotes;
use crate::attackers::lies_in_recovery::report;
use crate::attackers::old_chains::OldChains;
use crate::attackers::replays::Replays;
use crate::attackers::signs_twice::SignsTwice;
use crate::attackers::spends_twice::SpendsTwice;
use crate::attackers::{LogLiar, SHARD_LIARS, ShardLiar, shard_liar};
use crate::cash::has_cash;
use crate::cash::wallet::CashWallet;
use crate::channels::party::Party;
use crate::channels::{Channels, FUNDS, PARTIES, has_channels};
use crate::checkers::cash::Held;
use crate::checkers::{Checkers, Facts, Rule};
use crate::client::{Client, Purse, Signer};
use crate::driver::Tally;
use crate::log::LogNode;
use crate::message::Addr;
use crate::node::Node;
use crate::pbtx::actors::Actors;
use crate::pbtx::admin::Admin;
use crate::pbtx::{Cheat, Plan};
use crate::profile::Part;
use crate::recoverer::Recoverer;
use crate::rng::Rng;
use crate::sequencer::Ring;
use crate::wallet::Worker;
use crate::world::{Event, MS, SECOND, Timer, World};
use crate::{Operations, Options, Report, Shell, roots};

const NETWORK_ID: u64 = 7_001;
const ISSUER_LIMIT: u64 = 1_000_000;
/// Virtual seconds without faults in which everything has to come to its end.
const CALM_SECONDS: u64 = 30;
/// Accounts of the wallet that signs twice.
const CHEATS: usize = 6;
/// Accounts of the wallet that locks itself and recovers.
const LOCKED: usize = 4;
/// Wallets with e-cash, in runs that have it.
const CASH_WALLETS: usize = 3;
/// What each of them starts with, minor units.
const CASH_FUNDS: u64 = 500;

enum Slot {
    Honest(Box<Node>),
    Liar(Box<dyn ShardLiar>),
}

enum LogSlot {
    Honest(Box<LogNode>),
    Liar(Box<LogLiar>),
}

struct Run {
    world: World,
    /// By authority.
    logs: Vec<LogSlot>,
    /// By authority, then shard.
    shards: Vec<Vec<Slot>>,
    clients: Vec<Box<dyn Client>>,
    /// Of wallets, of actors, of wallets with e-cash, of parties of channels, and of those who sign roots.
    tallies: [Tally; 5],
}

/// Runs it.
///
/// # Panics
/// If the options are out of their ranges.
pub fn run(options: Options) -> Report {
    run_until(options, [])
}

/// Runs it until one of these rules is broken, or to the end.
///
/// # Panics
/// If the options are out of their ranges.
pub fn run_until(options: Options, stop_at: impl IntoIterator<Item = Rule>) -> Report {
    let _faster = florin_core::memo::remember();
    run_here(options, stop_at)
}

/// The same as [`run`], event for event, with every signature verified each time that somebody has to.
///
/// # Panics
/// As [`run`].
pub fn run_without_memory(options: Options) -> Report {
    run_here(options, [])
}

fn run_here(options: Options, stop_at: impl IntoIterator<Item = Rule>) -> Report {
    let mut run = Run::new(options);
    run.world.checks.stop_at = stop_at.into_iter().collect();
    run.begin();
    run.until(run.world.options.seconds * SECOND);
    if run.world.is_stopped() {
        return run.report();
    }
    run.world.calm_down();
    let mut left = Vec::new();
    for calm in 1..=CALM_SECONDS {
        let end = run.world.now + SECOND;
        run.until(end);
        // Checking everything is slow, and not due while some client still waits.
        if calm < CALM_SECONDS && run.clients.iter().any(|c| c.unfinished().is_some()) {
            continue;
        }
        left = run.unfinished();
        if left.is_empty() {
            break;
        }
    }
    if run.world.is_stopped() {
        return run.report();
    }
    if left.is_empty() {
        run.audit();
    }
    left.into_iter().for_each(|l| run.world.violation(Rule::Unfinished, l));
    run.report()
}

impl Run {
    fn new(options: Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let issuer = Purse::new(NETWORK_ID, &mut rng);
        let honest: Vec<Purse> = (0..options.wallets.max(1)).map(|_| Purse::new(NETWORK_ID, &mut rng)).collect();
        let cheats = if options.attackers && options.has(Part::DoubleSigners) { CHEATS } else { 0 };
        let cheats: Vec<Purse> = (0..cheats).map(|_| Purse::new(NETWORK_ID, &mut rng)).collect();
        // Some wallets start with nothing and open their account with what they are paid.
        let mut genesis: Vec<(Address, u64)> = Vec::new();
        for purse in &honest {
            if rng.chance(700) {
                genesis.push((purse.address, rng.between(100, 20_000)));
            }
        }
        let locked: Vec<Purse> = (0..LOCKED).map(|_| Purse::new(NETWORK_ID, &mut rng)).collect();
        genesis.extend(cheats.iter().chain(&locked).map(|p| (p.address, 1_000)));
        let cash = if has_cash(options.seed) && options.has(Part::Cash) { CASH_WALLETS } else { 0 };
        let cash: Vec<Purse> = (0..cash).map(|_| Purse::new(NETWORK_ID, &mut rng)).collect();
        genesis.extend(cash.iter().map(|p| (p.address, CASH_FUNDS)));
        let mut channels = Channels::default();
        let parties = if has_channels(options.seed) && options.has(Part::Channels) { PARTIES } else { 0 };
        let parties: Vec<Purse> = (0..parties).map(|_| channels.party(NETWORK_ID, &mut rng)).collect();
        genesis.extend(parties.iter().map(|p| (p.address, FUNDS)));
        let senders = roots::purses(&options, NETWORK_ID);
        genesis.extend(senders.iter().map(|p| (p.address, roots::FUNDS)));
        let (committee, keys) = committee(&options, &issuer, &genesis, &mut rng);
        let byzantine = liars(&options, &committee, &mut rng);
        let mut pbtx = Plan::draw(&mut rng, options.attackers);
        if !options.has(Part::Pbtx) {
            pbtx.networks.clear();
        }
        let facts = Facts {
            networks: pbtx.networks.iter().map(|n| (n.id, n.flags)).collect(),
            committee_id: *committee.id(),
            network_id: NETWORK_ID,
            shards: options.shards,
            authorities: options.authorities,
            byzantine: byzantine.clone(),
            issuer: *issuer.address.as_bytes(),
            issuer_limit: i128::from(ISSUER_LIMIT),
            genesis: genesis.iter().map(|(a, amount)| (*a.as_bytes(), *amount)).collect(),
        };
        let mut world = World::new(options, rng, committee.clone(), byzantine, Checkers::new(facts));
        world.pbtx = pbtx;
        world.channels = channels;
        world.directory = honest.iter().chain(&cash).map(|p| p.address).chain([issuer.address]).collect();
        if !cash.is_empty() {
            world.cash.keys = crate::cash::keys(world.options.authorities);
        }

        let genesis = Arc::new(genesis);
        // A liar lies in one way at all its shards.
        let lies: BTreeMap<u32, u64> =
            world.byzantine.clone().into_iter().map(|liar| (liar, world.rng.below(SHARD_LIARS))).collect();
        let slot = |authority: u32, shard: u32| {
            let key = keys[authority as usize].clone();
            let mint = world.cash.keys.get(authority as usize).cloned();
            if let Some(lie) = lies.get(&authority) {
                let (committee, place, genesis) = (committee.clone(), (authority, shard), genesis.clone());
                return Slot::Liar(shard_liar(*lie, Identity { committee, key, place, genesis, mint }));
            }
            let shell = world.options.shell;
            let node = Node::new(committee.clone(), key, (authority, shard), genesis.clone(), shell);
            mint.into_iter().for_each(|keys| node.set_mint(keys));
            Slot::Honest(Box::new(node))
        };
        let shards = (0..committee.size() as u32).map(|a| (0..committee.shards).map(|s| slot(a, s)).collect());
        let shards = shards.collect();
        let logs = (0..committee.size() as u32).map(|authority| log_slot(&world, &keys, authority)).collect();
        break_the_world(&mut world);
        let tallies = [(); 5].map(|()| Tally::default());
        let mut clients = clients(&mut world, issuer, honest, cheats, &genesis, &tallies);
        let locked = if world.has(Part::Recoveries) { locked } else { Vec::new() };
        let mut locked = locked.into_iter();
        while locked.len() > 0 {
            let purses = locked.by_ref().take(LOCKED / 2).collect();
            clients.push(Box::new(Recoverer::new(Addr::Client(clients.len() as u32), purses)));
        }
        add_cash(&mut world, &mut clients, cash, &tallies[2]);
        for (number, purse) in parties.into_iter().enumerate() {
            let addr = Addr::Client(clients.len() as u32);
            clients.push(Box::new(Party::new(addr, number, purse, tallies[3].clone())));
        }
        roots::add(&mut world, &mut clients, senders, &tallies[4]);
        Run { world, logs, shards, clients, tallies }
    }

    fn begin(&mut self) {
        for slot in self.shards.iter_mut().flatten() {
            if let Slot::Honest(node) = slot {
                node.start(&mut self.world);
            }
        }
        for slot in &mut self.logs {
            match slot {
                LogSlot::Honest(log) => log.start(&mut self.world),
                LogSlot::Liar(liar) => liar.start(&mut self.world),
            }
        }
        self.clients.iter_mut().for_each(|c| c.start(&mut self.world));
        self.world.after(MS, Event::Order);
        self.world.cut(None);
        self.world.after(300 * MS, Event::Crash);
        self.world.begin_disturbances();
    }

    fn until(&mut self, end: u64) {
        while let Some(event) = self.world.next(end) {
            match event {
                Event::Message(envelope) => match envelope.to {
                    Addr::Client(at) => self.clients[at as usize].on_message(&mut self.world, envelope),
                    Addr::Log(authority) => match &mut self.logs[authority as usize] {
                        LogSlot::Honest(log) => log.on_message(&mut self.world, envelope),
                        LogSlot::Liar(liar) => liar.on_message(&mut self.world, &envelope),
                    },
                    Addr::Shard(authority, shard) => match &mut self.shards[authority as usize][shard as usize] {
                        Slot::Honest(node) => node.on_message(&mut self.world, envelope),
                        Slot::Liar(liar) => liar.on_message(&mut self.world, envelope),
                    },
                },
                Event::Timer { to: Addr::Client(at), timer: Timer::Client(tag), .. } => {
                    self.clients[at as usize].on_timer(&mut self.world, tag);
                }
                Event::Timer { to: Addr::Shard(authority, shard), life, timer } => {
                    if let Slot::Honest(node) = &mut self.shards[authority as usize][shard as usize] {
                        node.on_timer(&mut self.world, life, timer);
                    }
                }
                Event::Timer { to: Addr::Log(authority), life, timer } => match &mut self.logs[authority as usize] {
                    LogSlot::Honest(log) => log.on_timer(&mut self.world, life, timer),
                    LogSlot::Liar(liar) => liar.on_timer(&mut self.world, timer),
                },
                Event::Timer { .. } => {}
                Event::Crash => self.crash(),
                Event::Cut(who) => self.world.cut(who),
                Event::Rejoin(who) => self.world.rejoin(who),
                Event::Order => self.order(),
                Event::Disturb(what) => self.world.disturb(what),
            }
        }
    }

    fn order(&mut self) {
        if self.world.options.shell == Shell::ForgedReports {
            for place in self.world.checks.log.open_recoveries() {
                for authority in 0..self.logs.len() as u32 {
                    let mut ring = Ring::new(self.world.sequencer.clone(), authority);
                    let _ = ring.submit(report(place));
                }
            }
        }
        self.world.order();
    }

    /// One shard or log loses its power, both that are in one process, or all of an authority.
    fn crash(&mut self) {
        if self.world.calm || !self.world.has(Part::Crashes) {
            return;
        }
        let authority = self.world.rng.index(self.shards.len());
        let one = self.world.rng.index(self.shards[authority].len());
        let all = self.world.rng.chance(300);
        let (with_log, log_alone) = (self.world.rng.chance(500), self.world.rng.chance(300));
        // Mostly when it hurts: while something is written and not synced.
        let hurts = matches!(&self.shards[authority][one], Slot::Honest(node) if node.has_unsynced());
        let log_hurts = matches!(&self.logs[authority], LogSlot::Honest(log) if log.has_unsynced());
        let hurts = if log_alone { log_hurts } else { hurts };
        if !hurts && !self.world.rng.chance(10) {
            return self.world.after(MS, Event::Crash);
        }
        if let LogSlot::Honest(log) = &mut self.logs[authority]
            && (all || log_alone || one == 0 && with_log)
        {
            log.crash(&mut self.world);
        }
        for (shard, slot) in self.shards[authority].iter_mut().enumerate() {
            if let Slot::Honest(node) = slot
                && (all || shard == one && !log_alone)
            {
                node.crash(&mut self.world);
            }
        }
        let pause = self.world.rng.between(50 * MS, 1_200 * MS);
        self.world.after(pause, Event::Crash);
    }

    fn unfinished(&self) -> Vec<String> {
        let honest = self.shards.iter().flatten().filter_map(|slot| match slot {
            Slot::Honest(node) => Some((node.id(), node.disk())),
            Slot::Liar(_) => None,
        });
        let logs = self.logs.iter().filter_map(|slot| match slot {
            LogSlot::Honest(log) => Some((log.authority(), log.disk())),
            LogSlot::Liar(_) => None,
        });
        let (honest, logs) = (honest.collect::<Vec<_>>(), logs.collect::<Vec<_>>());
        let notes: Vec<Held> = self.clients.iter().flat_map(|c| c.notes()).collect();
        let mut left = self.world.checks.unfinished(&honest, &logs, &notes);
        left.extend(self.clients.iter().filter_map(|c| c.unfinished()));
        let [opened, collected] = self.world.checks.log.channels().counts();
        if opened > collected {
            left.push(format!("{} channels are not collected", opened - collected));
        }
        left
    }

    /// The audit that operators run has to agree that all is well.
    fn audit(&mut self) {
        for (authority, slots) in self.shards.iter().enumerate() {
            let mut audits = Vec::new();
            for slot in slots {
                let Slot::Honest(node) = slot else { continue };
                match node.audit() {
                    Ok(audit) => audits.push((node.id().1, audit)),
                    Err(e) => self.world.violation(Rule::Audit, format!("{:?}: {e}", node.id())),
                }
            }
            let log = match &self.logs[authority] {
                LogSlot::Honest(log) => log.audit().map(Some),
                LogSlot::Liar(_) => Ok(None),
            };
            let log = log.unwrap_or_else(|e| {
                self.world.violation(Rule::Audit, format!("log {authority}: {e}"));
                None
            });
            for finding in log.iter().flat_map(|l| l.findings.clone()) {
                self.world.violation(Rule::Audit, format!("log {authority}: {finding}"));
            }
            let each =
                audits.iter().flat_map(|(shard, a)| a.findings.iter().map(move |f| format!("shard {shard}: {f}")));
            for finding in each.chain(audit_authority(&audits, log.as_ref())).collect::<Vec<_>>() {
                self.world.violation(Rule::Audit, format!("authority {authority}: {finding}"));
            }
        }
    }

    fn report(self) -> Report {
        let [counts, actors, cash, parties, _] = self.tallies.each_ref().map(Tally::get);
        let channels = self.world.checks.log.channels();
        let ([opened, collected], [vouchers, redeemed]) = (channels.counts(), channels.vouchers.counts());
        let [ordered, failed, claimed, refunded, sessions, voided, kept] = self.world.checks.log.counts();
        let decided = [
            ("operation refunded", failed),
            ("contract claimed", claimed),
            ("contract refunded", refunded),
            ("recovery voids", voided),
            ("recovery keeps a reported order", kept),
        ];
        Report {
            seed: self.world.options.seed,
            authorities: self.world.options.authorities,
            shards: self.world.options.shards,
            profile: self.world.options.profile,
            simulated_seconds: self.world.now as f64 / SECOND as f64,
            load_seconds: self.world.options.seconds,
            events: self.world.events,
            operations: Operations {
                signed: counts.signed,
                certified: counts.certified,
                finals: counts.finals,
                refused: counts.refused,
                settled: self.world.checks.settled_orders(),
                ordered,
                failed,
                claimed,
                refunded,
                sessions,
                voided,
                kept,
                transactions: actors.signed,
                transacted: actors.finals,
                cash_orders: cash.signed,
                cash_finals: cash.finals,
                channels: opened,
                collected,
                channel_orders: parties.signed,
                channel_finals: parties.finals,
                vouchers,
                redeemed,
            },
            faults: self.world.faults().clone(),
            replies: self.world.replies.clone(),
            marks: self
                .world
                .checks
                .cash
                .marks
                .iter()
                .chain(&channels.marks)
                .chain(&self.world.marks)
                .map(|(k, n)| ((*k).to_owned(), *n))
                .chain(decided.into_iter().filter(|(_, n)| *n > 0).map(|(k, n)| (k.to_owned(), n)))
                .collect(),
            violations: self.world.checks.violations().to_vec(),
            broken: self.world.checks.broken().iter().map(|(rule, at)| (format!("{rule:?}"), *at)).collect(),
            trace: self.world.trace_hash(),
            wall_seconds: None,
        }
    }
}

fn log_slot(world: &World, keys: &[Arc<AuthorityKey>], authority: u32) -> LogSlot {
    let ring = Ring::new(world.sequencer.clone(), authority);
    let key = keys[authority as usize].clone();
    if world.byzantine.contains(&authority) {
        return LogSlot::Liar(Box::new(LogLiar::new(authority, ring, key)));
    }
    // A log that pays twice is one of them, so that the others show what is right.
    let first = (0..).find(|a| !world.byzantine.contains(a));
    let shell = match world.options.shell {
        Shell::RefundsTwice | Shell::ForgetsLanes if first != Some(authority) => Shell::Sound,
        shell => shell,
    };
    LogSlot::Honest(Box::new(LogNode::new(world.committee.clone(), key, authority, ring, shell)))
}

/// What is broken outside the shells, for tests of the checkers.
fn break_the_world(world: &mut World) {
    let honest = (0..world.committee.size() as u32).filter(|a| !world.byzantine.contains(a)).collect::<Vec<_>>();
    let spoiled: Vec<u32> = honest.iter().skip(1).take(world.committee.faults() + 1).copied().collect();
    match (world.options.shell, honest.first().copied()) {
        (Shell::ForkedOrder, Some(authority)) => world.sequencer.borrow_mut().fork = Some(authority),
        (Shell::ClocksBeyond, _) => spoiled.into_iter().for_each(|a| world.spoil_clock(a)),
        _ => {}
    }
}

fn committee(
    options: &Options,
    issuer: &Purse,
    genesis: &[(Address, u64)],
    rng: &mut Rng,
) -> (Arc<Committee>, Vec<Arc<AuthorityKey>>) {
    let keys: Vec<_> = (0..options.authorities).map(|_| Arc::new(AuthorityKey::from_seed(rng.bytes()))).collect();
    let authorities = keys.iter().enumerate().map(|(i, key)| AuthorityInfo {
        name: format!("a{i}"),
        key: key.public(),
        addresses: (0..options.shards).map(|s| format!("a{i}.invalid:{s}")).collect(),
    });
    let network = Network {
        id: NETWORK_ID,
        currency: "sim".into(),
        decimals: 2,
        issuer: issuer.permission.clone(),
        issuer_limit: ISSUER_LIMIT,
        genesis_hash: Sha256::digest(format!("{genesis:?}")).into(),
    };
    let committee = Committee::new(1, options.shards, network, authorities.collect());
    (Arc::new(committee.expect("options within their ranges")), keys)
}

/// f authorities (and those beyond), by chance, if there are attackers.
fn liars(options: &Options, committee: &Committee, rng: &mut Rng) -> BTreeSet<u32> {
    let mut liars = BTreeSet::new();
    let any = options.attackers && options.has(Part::Liars);
    while any && liars.len() < committee.faults() + options.liars_beyond as usize {
        liars.insert(rng.below(u64::from(options.authorities)) as u32);
    }
    liars
}

/// Wallets with e-cash, and those who are after their notes.
fn add_cash(world: &mut World, clients: &mut Vec<Box<dyn Client>>, purses: Vec<Purse>, tally: &Tally) {
    let any = !purses.is_empty();
    for purse in purses {
        let addr = Addr::Client(clients.len() as u32);
        let wallet = CashWallet::new(world, addr, purse, i128::from(CASH_FUNDS), tally.clone());
        clients.push(Box::new(wallet));
    }
    if any && world.options.attackers && world.has(Part::NoteThieves) {
        let cheat = SpendsTwice::new(world, Addr::Client(clients.len() as u32));
        clients.push(Box::new(cheat));
    }
    if any && world.options.attackers && world.has(Part::NoteForgers) {
        let forger = ForgesNotes::new(world, Addr::Client(clients.len() as u32));
        clients.push(Box::new(forger));
    }
}

/// Every third wallet is alone; the others share workers. The issuer is a wallet too.
fn clients(
    world: &mut World,
    issuer: Purse,
    honest: Vec<Purse>,
    cheats: Vec<Purse>,
    genesis: &[(Address, u64)],
    tallies: &[Tally; 5],
) -> Vec<Box<dyn Client>> {
    let issued: u64 = genesis.iter().map(|(_, amount)| amount).sum();
    let mut groups: Vec<Vec<(Purse, i128)>> = vec![vec![(issuer, i128::from(ISSUER_LIMIT - issued))], Vec::new()];
    for (i, purse) in honest.into_iter().enumerate() {
        let funds = genesis.iter().find(|(a, _)| *a == purse.address).map_or(0, |(_, amount)| i128::from(*amount));
        if i % 3 == 0 {
            groups.insert(1, vec![(purse, funds)]);
        } else {
            let worker = groups.last_mut().expect("there are two groups from the start");
            worker.push((purse, funds));
            if worker.len() == 6 {
                groups.push(Vec::new());
            }
        }
    }
    let mut clients: Vec<Box<dyn Client>> = Vec::new();
    for purses in groups {
        let addr = Addr::Client(clients.len() as u32);
        clients.push(Box::new(Worker::new(addr, purses, tallies[0].clone())));
    }
    let networks = world.pbtx.networks.clone();
    let purses: Vec<Purse> = networks.iter().map(|_| Purse::new(NETWORK_ID, &mut world.rng)).collect();
    let addresses: Vec<(u64, Address)> = networks.iter().zip(&purses).map(|(n, p)| (n.id, p.address)).collect();
    let admins = networks.iter().zip(purses).map(|(net, purse)| {
        let others = addresses.iter().filter(|(id, _)| *id != net.id).copied().collect();
        let admin = Admin::new(net.clone(), others);
        (purse, admin)
    });
    let addr = Addr::Client(clients.len() as u32);
    clients.push(Box::new(Worker::of_admins(addr, admins.collect(), tallies[0].clone())));
    let addr = Addr::Client(clients.len() as u32);
    clients.push(Box::new(Actors::new(addr, &networks, tallies[1].clone())));
    if world.options.attackers {
        let cheats: Vec<Box<dyn Signer>> = cheats.into_iter().map(|c| Box::new(c) as Box<dyn Signer>).collect();
        if !cheats.is_empty() {
            clients.push(Box::new(SignsTwice::new(Addr::Client(clients.len() as u32), cheats)));
        }
        let chained = networks.iter().filter(|net| net.counts());
        let cheats = chained.flat_map(|net| net.cheats.iter().map(|actor| Cheat::new(net.id, *actor)));
        let cheats: Vec<Box<dyn Signer>> = cheats.map(|c| Box::new(c) as Box<dyn Signer>).collect();
        if !cheats.is_empty() && world.has(Part::DoubleSigners) {
            clients.push(Box::new(SignsTwice::new(Addr::Client(clients.len() as u32), cheats)));
        }
        if world.has(Part::Replays) {
            clients.push(Box::new(Replays::new(Addr::Client(clients.len() as u32))));
        }
        let loose = networks.iter().find(|net| !net.counts());
        let own = loose.and_then(|net| Some(Cheat::new(net.id, *net.cheats.first()?)));
        if world.has(Part::OldChains) {
            clients.push(Box::new(OldChains::new(Addr::Client(clients.len() as u32), own)));
        }
    }
    clients
}
