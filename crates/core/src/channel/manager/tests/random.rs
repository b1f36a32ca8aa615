//! Random lives of two wallets, or of both in one, with records that are not synced yet, restarts that lose them, failing
//! messages and vouchers that come late, twice or never; against what a naive onlooker has written down of what was said.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::world::*;
use crate::channel::manager::{
    Conditions, EndId, EndState, Event, Incoming, Input, Issue, Policy, Reply, ReservationId, Reserve, Use,
};
use crate::error::Code;
use crate::wire::{self, SignedVoucher};

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        (!of.is_empty()).then(|| &of[self.below(of.len() as u64) as usize])
    }
}

/// What becomes true once an answer is given.
enum Note {
    Nothing,
    Issued(EndId),
    Taken(EndId, SignedVoucher),
    Reserved(EndId, u64, u64),
    Money(u64),
    Secret,
}

#[derive(Default)]
struct Seen {
    /// Vouchers that were spoken, by signer, payer, lane and nonce.
    spoken: BTreeMap<(EndId, u32, u32, u64), Bytes>,
    /// Most that a side could lose on a lane: (payer's end, lane) -> amount.
    promised: BTreeMap<(EndId, u32), u64>,
    /// Firm amounts that were acknowledged: (payee's end, lane) -> amount.
    acknowledged: BTreeMap<(EndId, u32), u64>,
    /// Most that may have been paid in.
    asked: u64,
    reservations: Vec<(EndId, ReservationId)>,
    mail: Vec<(EndId, SignedVoucher)>,
}

struct Life {
    world: World,
    dice: Dice,
    /// Index of Bob's wallet: 0 if it is Alice's, too.
    bob: usize,
    notes: [Vec<(Reply, Note)>; 2],
    seen: Seen,
    ends: Vec<(EndId, EndId)>,
    failures: bool,
}

fn secret_of(end: &EndId, lane: u32, amount: u64) -> Vec<u8> {
    [&end.channel[..8], &lane.to_be_bytes(), &amount.to_be_bytes()].concat()
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut world = if seed.is_multiple_of(3) { World::alone() } else { World::with(Policy::default()) };
        let bob = world.wallets.len() - 1;
        let ends = vec![world.open(500, false), world.open(300, true)];
        let seen = Seen { asked: 800, ..Seen::default() };
        let notes = [Vec::new(), Vec::new()];
        Life { world, dice: Dice(seed), bob, notes, seen, ends, failures: seed % 2 == 1 }
    }

    fn wallet(&self, end: &EndId) -> usize {
        if end.side == 0 { ALICE } else { self.bob }
    }

    /// Asks without syncing.
    fn ask(&mut self, wallet: usize, input: Input, note: Note) -> Option<Reply> {
        let now = self.world.now();
        let reply = self.world.wallets[wallet].handle(now, input).ok()?;
        self.notes[wallet].push((reply.clone(), note));
        if self.dice.below(3) > 0 {
            self.sync(wallet);
        }
        Some(reply)
    }

    fn sync(&mut self, wallet: usize) {
        self.world.wallets[wallet].sync();
        for (reply, note) in std::mem::take(&mut self.notes[wallet]) {
            self.said(reply, note);
        }
    }

    /// An answer has left the wallet.
    fn said(&mut self, reply: Reply, note: Note) {
        match (reply, note) {
            (Reply::Issued { voucher: Some(voucher), .. }, Note::Issued(end)) => {
                let terms = wire::Voucher::decode(&voucher.voucher[..]).unwrap();
                let key = (end, terms.payer, terms.lane, terms.nonce);
                let old = self.seen.spoken.insert(key, voucher.voucher.clone());
                assert!(old.is_none_or(|old| old == voucher.voucher), "two vouchers with one nonce were spoken");
                if terms.payer == end.side && terms.secret_hash.is_empty() {
                    let promised = self.seen.promised.entry((end, terms.lane)).or_default();
                    *promised = (*promised).max(terms.amount);
                }
                self.seen.mail.push((EndId { side: 1 - end.side, ..end }, voucher));
            }
            (Reply::Added(added), Note::Taken(end, voucher)) => {
                let terms = wire::Voucher::decode(&voucher.voucher[..]).unwrap();
                if !added.locked && terms.payer != end.side && terms.secret_hash.is_empty() {
                    let best = self.seen.acknowledged.entry((end, terms.lane)).or_default();
                    *best = (*best).max(terms.amount);
                }
            }
            (Reply::Reserved { reservation, active, .. }, Note::Reserved(end, amount, available)) => {
                if !active {
                    self.seen.asked += amount.saturating_sub(available);
                }
                self.seen.reservations.push((end, reservation));
            }
            (Reply::Op(_), Note::Money(amount)) => self.seen.asked += amount,
            _ => {}
        }
    }

    fn crash(&mut self, wallet: usize) {
        self.notes[wallet].clear();
        if self.dice.below(2) == 0 {
            self.world.wallets[wallet].compact();
        }
        self.world.crash(wallet);
    }

    fn end(&mut self) -> EndId {
        let (alices, bobs) = *self.dice.pick(&self.ends).unwrap();
        if self.dice.below(4) == 0 { bobs } else { alices }
    }

    fn step(&mut self) {
        let end = self.end();
        let wallet = self.wallet(&end);
        let lane = self.dice.below(4) as u32;
        let amount = 1 + self.dice.below(60);
        match self.dice.below(24) {
            0 => drop(self.ask(wallet, Input::AddFunds { end, key: Bytes::new(), amount }, Note::Money(amount))),
            1..=3 => {
                let usage = [Use::Named, Use::Lane(lane), Use::Pool][self.dice.below(3) as usize];
                let available = self.world.status(wallet, &end).available;
                let off_chain_only = self.dice.below(4) == 0;
                let amount = amount * 3;
                let reserve = Reserve { end, key: Bytes::new(), amount, usage, off_chain_only };
                self.ask(wallet, Input::Reserve(reserve), Note::Reserved(end, amount, available));
            }
            4 => {
                if let Some((end, reservation)) = self.dice.pick(&self.seen.reservations).copied() {
                    self.ask(self.wallet(&end), Input::Release { end, reservation }, Note::Nothing);
                }
            }
            5 => drop(self.ask(wallet, Input::ReleaseAmount { end, amount }, Note::Nothing)),
            6..=10 => self.pay(wallet, end, lane, amount),
            11 | 12 => self.lock(wallet, end, lane, amount),
            13..=16 => self.deliver(),
            17 => self.locks(end, lane),
            18 => drop(self.ask(wallet, Input::SubmitAll(end), Note::Nothing)),
            19 => self.crash(wallet),
            20 => self.time(),
            21 => self.leave(wallet, end, amount),
            22 if self.dice.below(15) == 0 => drop(self.ask(wallet, Input::Settle(end), Note::Nothing)),
            22 if self.failures => self.world.chain.refuse = vec![Code::Busy],
            _ => self.carry_out(),
        }
    }

    fn lane_amount(&self, wallet: usize, end: &EndId, lane: u32) -> u64 {
        let listed = self.world.wallets[wallet].manager.voucher_list(end, Some((end.side, lane, 0)), 256).unwrap();
        let own = listed.iter().filter(|one| one.payer == end.side && one.lane == lane);
        own.map(|one| wire::Voucher::decode(&one.voucher.voucher[..]).unwrap().amount).max().unwrap_or(0)
    }

    fn pay(&mut self, wallet: usize, end: EndId, lane: u32, amount: u64) {
        let amount = self.lane_amount(wallet, &end, lane) + amount;
        let issue = Issue { end, lane, amount, conditions: Conditions::default() };
        self.ask(wallet, Input::VoucherCreate(issue), Note::Issued(end));
    }

    fn lock(&mut self, wallet: usize, end: EndId, lane: u32, amount: u64) {
        let amount = self.lane_amount(wallet, &end, lane) + amount;
        let secret_hash = Some(Sha256::digest(secret_of(&end, lane, amount)).into());
        let not_after_ms = self.world.chain.now + 120_000 + self.dice.below(DELAY / 2);
        let conditions = Conditions { secret_hash, not_before_ms: 0, not_after_ms };
        self.ask(wallet, Input::VoucherCreate(Issue { end, lane, amount, conditions }), Note::Issued(end));
    }

    /// Letters arrive in any order, also twice.
    fn deliver(&mut self) {
        let Some((end, voucher)) = self.dice.pick(&self.seen.mail).cloned() else { return };
        let wallet = self.wallet(&end);
        let note = Note::Taken(end, voucher.clone());
        if self.dice.below(2) == 0 {
            self.ask(wallet, Input::VoucherAdd(incoming(end, &voucher)), note);
        } else {
            let many: Vec<Incoming> = vec![incoming(end, &voucher)];
            let now = self.world.now();
            let reply = self.world.wallets[wallet].handle(now, Input::VoucherAddMany(many)).unwrap();
            let Reply::AddedMany(added) = reply else { panic!() };
            if let Ok(added) = &added[0] {
                self.notes[wallet].push((Reply::Added(*added), note));
            }
        }
    }

    /// Something happens to the lock on a lane, if there is one.
    fn locks(&mut self, end: EndId, lane: u32) {
        let payer = self.wallet(&end);
        let payee_end = EndId { side: 1 - end.side, ..end };
        let payee = self.wallet(&payee_end);
        let amount = self.lane_amount(payer, &end, lane);
        let secret = Bytes::from(secret_of(&end, lane, amount));
        match self.dice.below(3) {
            0 => drop(self.ask(payer, Input::LockPaid { end, lane, secret }, Note::Issued(end))),
            1 => {
                // From now on the payee could take it.
                let promised = self.seen.promised.entry((end, lane)).or_default();
                *promised = (*promised).max(amount);
                self.ask(payee, Input::Secret { end: payee_end, lane, secret }, Note::Secret);
            }
            _ => drop(self.ask(payee, Input::LockCancel { end: payee_end, lane }, Note::Issued(payee_end))),
        }
    }

    fn leave(&mut self, wallet: usize, end: EndId, amount: u64) {
        match self.dice.below(3) {
            0 => drop(self.ask(wallet, Input::Leave { end, amount: amount / 2 }, Note::Nothing)),
            1 => drop(self.ask(wallet, Input::Withdraw { end, amount, permit: None }, Note::Nothing)),
            _ => {
                let other = EndId { side: 1 - end.side, ..end };
                let before = self.world.chain.channels[&end.channel].clone();
                let withdrawn = crate::channel::rules::side(&before, end.side).withdrawn + amount;
                let permit = Input::Permit { end: other, withdrawn, not_after_ms: 0 };
                let by = self.wallet(&other);
                if let Some(Reply::Permitted(permit)) = self.ask(by, permit, Note::Nothing) {
                    self.sync(by);
                    self.ask(wallet, Input::Withdraw { end, amount, permit: Some(permit) }, Note::Nothing);
                }
            }
        }
    }

    /// Some of what is to be done.
    fn carry_out(&mut self) {
        for wallet in 0..self.world.wallets.len() {
            for _ in 0..self.dice.below(4) {
                self.sync(wallet);
                let now = self.world.now();
                self.world.wallets[wallet].step(&mut self.world.chain, now);
            }
        }
        if self.dice.below(3) == 0 {
            self.poll();
        }
    }

    fn poll(&mut self) {
        (0..self.world.wallets.len()).for_each(|wallet| self.sync(wallet));
        self.world.poll();
    }

    fn run(&mut self) {
        (0..self.world.wallets.len()).for_each(|wallet| self.sync(wallet));
        self.world.run();
    }

    /// Time passes; who must act in time is there to do it.
    fn time(&mut self) {
        self.poll();
        let urgent = |record: &wire::ChannelRecord| {
            let sides = [&record.opener, &record.other];
            record.settling_at_ms != 0 || sides.into_iter().flatten().any(|side| side.leaving_at_ms != 0)
        };
        if self.world.chain.channels.values().any(urgent) {
            self.world.chain.refuse.clear();
            self.run();
            (0..4).for_each(|_| self.world.pass(60_000));
        }
        let ms = self.dice.below(600_000);
        self.world.chain.now += ms;
        self.world.clock += ms;
        self.poll();
    }

    /// Nothing is reserved when all is released.
    fn release_all(&mut self) {
        self.world.chain.refuse.clear();
        self.run();
        for (end, reservation) in std::mem::take(&mut self.seen.reservations) {
            let wallet = self.wallet(&end);
            if self.world.status(wallet, &end).state != EndState::Collected {
                self.world.ask(wallet, Input::Release { end, reservation }).unwrap();
            }
        }
        for (alices, bobs) in self.ends.clone() {
            for end in [alices, bobs] {
                let wallet = self.wallet(&end);
                let amount = self.world.wallets[wallet].manager.pool(&end).unwrap();
                self.world.ask(wallet, Input::ReleaseAmount { end, amount }).unwrap();
                self.run();
                let status = self.world.status(wallet, &end);
                let record = &self.world.chain.channels[&end.channel];
                let leaving = crate::channel::rules::side(record, end.side).leaving;
                let leaving = if status.state == EndState::Collected { 0 } else { leaving };
                assert_eq!(status.reserved, leaving, "a reservation has leaked");
                assert!(!status.diverged, "{status:?}");
            }
        }
    }

    /// Everybody gets what is theirs.
    fn close(&mut self) {
        self.release_all();
        for (alices, _) in self.ends.clone() {
            let _ = self.world.ask(ALICE, Input::Settle(alices));
        }
        self.run();
        // What was refused before is tried again in time.
        (0..4).for_each(|_| self.world.pass(60_000));
        self.world.pass(DELAY + 1);
        for (alices, bobs) in self.ends.clone() {
            let _ = self.world.ask(ALICE, Input::Collect(alices));
            let _ = self.world.ask(self.bob, Input::Collect(bobs));
        }
        self.run();
        assert_eq!(self.world.chain.held(), 0);
        let sum = |of: &BTreeMap<(EndId, u32), u64>, side: u32| -> u64 {
            of.iter().filter(|((end, _), _)| end.side == side).map(|(_, amount)| *amount).sum()
        };
        for (side, number) in [(0, 1), (1, 2)] {
            let paid_in = self.world.chain.paid_in.get(&account(number).1).copied().unwrap_or(0);
            let got = self.world.paid_out(number) + sum(&self.seen.promised, side);
            let due = paid_in + sum(&self.seen.acknowledged, side);
            assert!(got >= due, "side {side} got {got}, promises included, and {due} is due");
        }
        let paid_in: u64 = self.world.chain.paid_in.values().sum();
        assert!(paid_in <= self.seen.asked, "{paid_in} was paid in, and {} was asked for", self.seen.asked);
    }
}

fn live(seed: u64, steps: usize) {
    let mut life = Life::new(seed);
    for _ in 0..steps {
        life.step();
    }
    life.close();
    let events = life.world.wallets.iter().flat_map(|wallet| &wallet.events);
    assert!(!events.into_iter().any(|event| matches!(event, Event::Diverged(_))), "nobody cheats here");
}

#[test]
fn random_lives_lose_nothing_and_pay_nothing_twice() {
    let lives = std::env::var("FLORIN_LIVES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let from: u64 = std::env::var("FLORIN_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    for seed in from..from + lives {
        let result = std::panic::catch_unwind(|| live(seed, 250));
        assert!(result.is_ok(), "seed {seed}");
    }
}
