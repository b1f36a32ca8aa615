//! Wallets with a manager each, and the log.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::chain::{COMMITTEE, Chain};
use crate::address::Address;
use crate::channel::manager::{
    Added, Conditions, Config, Create, Effect, Effects, EndId, Event, Incoming, Input, Issue, Manager, Message, Now,
    OpId, OpState, Outcome, Policy, Reply, ReservationId, Reserve, Signer, Status, Use,
};
use crate::channel::voucher::{self, Voucher};
use crate::error::{Code, Result};
use crate::keys::{Curve, SecretKey};
use crate::merkle::Hash;
use crate::permission::Permission;
use crate::testing::{NETWORK_ID, secret};
use crate::wire;

pub const START: u64 = 1_700_000_000_000;
pub const DELAY: u64 = 3_600_000;

/// Keys of own accounts.
#[derive(Default)]
pub struct Keys(pub BTreeMap<Address, SecretKey>);

impl Signer for Keys {
    fn voucher(&self, account: &Address, terms: wire::Voucher, side: u32) -> Result<Voucher> {
        Ok(Voucher::sign(terms, side, &[&self.0[account]]))
    }
    fn withdraw(&self, account: &Address, permit: &wire::WithdrawPermit) -> Result<wire::SignedPermit> {
        Ok(voucher::sign_withdraw(permit, &[&self.0[account]]))
    }
    fn watch(&self, account: &Address, permit: &wire::WatchPermit) -> Result<wire::SignedPermit> {
        Ok(voucher::sign_watch(permit, &[&self.0[account]]))
    }
}

/// Key, address and permission of account `number`.
pub fn account(number: u64) -> (SecretKey, Address, Bytes) {
    let key = secret(Curve::Ed25519, number);
    let permission = Permission::single(key.public());
    (key, permission.address(NETWORK_ID), permission.encode())
}

/// A wallet: manager, journal, and what is to be carried out.
pub struct Wallet {
    pub manager: Manager,
    pub config: Config,
    pub keys: Keys,
    /// Durable.
    pub journal: Vec<wire::ManagerRecord>,
    /// Not synced: records and what follows from them.
    pub unsynced: Vec<Effects>,
    /// Released and not carried out.
    pub effects: VecDeque<Effect>,
    /// Orders that were signed, by id.
    pub signed: BTreeMap<Hash, Message>,
    pub events: Vec<Event>,
    pub account: Address,
    /// Orders signed so far, also those that a crash has forgotten.
    pub number: u64,
}

impl Wallet {
    pub fn new(numbers: &[u64], policy: Policy) -> Wallet {
        let mut keys = Keys::default();
        let mut accounts = BTreeMap::new();
        for number in numbers {
            let (key, address, permission) = account(*number);
            keys.0.insert(address, key);
            accounts.insert(address, permission);
        }
        let config = Config { committee_id: COMMITTEE, accounts, policy };
        let account = account(numbers[0]).1;
        Wallet {
            manager: Manager::new(config.clone()),
            config,
            keys,
            journal: Vec::new(),
            unsynced: Vec::new(),
            effects: VecDeque::new(),
            signed: BTreeMap::new(),
            events: Vec::new(),
            account,
            number: 0,
        }
    }

    /// Handles an input without syncing.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<Reply> {
        let fx = self.manager.handle(now, input, &self.keys)?;
        let reply = fx.reply.clone();
        self.unsynced.push(fx);
        Ok(reply)
    }

    pub fn sync(&mut self) {
        for fx in self.unsynced.drain(..) {
            // Over the disk and back.
            let bytes = fx.records.iter().map(|record| record.encode_to_vec());
            self.journal.extend(bytes.map(|bytes| wire::ManagerRecord::decode(&bytes[..]).unwrap()));
            self.effects.extend(fx.effects);
        }
    }

    /// Writes the journal anew.
    pub fn compact(&mut self) {
        let manager = Manager::load(self.config.clone(), &self.journal).unwrap();
        let bytes: Vec<Vec<u8>> = manager.snapshot().iter().map(|record| record.encode_to_vec()).collect();
        self.journal = bytes.iter().map(|bytes| wire::ManagerRecord::decode(&bytes[..]).unwrap()).collect();
        let again = Manager::load(self.config.clone(), &self.journal).unwrap();
        assert_eq!(format!("{again:?}"), format!("{manager:?}"), "the new journal makes another manager");
    }

    /// Loses all that is not durable, and starts again.
    pub fn crash(&mut self, now: Now) {
        self.unsynced.clear();
        self.effects.clear();
        self.manager = Manager::load(self.config.clone(), &self.journal).unwrap();
        let fx = self.manager.resume(now);
        self.unsynced.push(fx);
    }

    /// Carries out one effect.
    pub fn step(&mut self, chain: &mut Chain, now: Now) -> bool {
        self.sync();
        let Some(effect) = self.effects.pop_front() else { return false };
        match effect {
            Effect::Prepare { op, message } => {
                self.number += 1;
                let id = Sha256::new()
                    .chain_update(self.account.as_bytes())
                    .chain_update(self.number.to_be_bytes())
                    .finalize()
                    .into();
                self.signed.insert(id, message);
                let order = Bytes::copy_from_slice(&id);
                self.handle(now, Input::Prepared { op, order_id: id, output: 0, order }).unwrap();
            }
            Effect::Broadcast { op, order } => {
                let id = Hash::try_from(&order[..]).unwrap();
                let message = self.signed[&id].clone();
                let outcome = match chain.apply(id, &message) {
                    Some(e) => Outcome::Failed { code: e.code as u32, message: e.message },
                    None => {
                        let end = self.manager.operation(op).unwrap().end.unwrap();
                        let record = Box::new(chain.channels[&end.channel].clone());
                        Outcome::Confirmed { record, time_ms: chain.now }
                    }
                };
                self.handle(now, Input::Outcome { op, outcome }).unwrap();
            }
            Effect::Event(event) => self.events.push(event),
        }
        true
    }
}

/// Wallets and the log.
pub struct World {
    pub chain: Chain,
    pub wallets: Vec<Wallet>,
    pub clock: u64,
}

pub const ALICE: usize = 0;
pub const BOB: usize = 1;

impl World {
    /// Alice and Bob, with default policies.
    pub fn new() -> World {
        World::with(Policy::default())
    }

    pub fn with(policy: Policy) -> World {
        let wallets = vec![Wallet::new(&[1], policy.clone()), Wallet::new(&[2], policy)];
        World { chain: Chain { now: START, ..Chain::default() }, wallets, clock: 0 }
    }

    /// Alice and Bob in one wallet.
    pub fn alone() -> World {
        let wallets = vec![Wallet::new(&[1, 2], Policy::default())];
        World { chain: Chain { now: START, ..Chain::default() }, wallets, clock: 0 }
    }

    pub fn now(&self) -> Now {
        Now { log_ms: self.chain.now, clock_ms: self.clock }
    }

    /// Asks a manager and syncs; nothing is carried out yet.
    pub fn ask(&mut self, wallet: usize, input: Input) -> Result<Reply> {
        let now = self.now();
        let reply = self.wallets[wallet].handle(now, input)?;
        self.wallets[wallet].sync();
        Ok(reply)
    }

    pub fn code(&mut self, wallet: usize, input: Input) -> Code {
        match self.ask(wallet, input) {
            Ok(reply) => panic!("expected an error, found {reply:?}"),
            Err(e) => e.code,
        }
    }

    /// Carries out all effects, tells all managers what the log has, until nothing is left to do.
    pub fn run(&mut self) {
        for _ in 0..1_000 {
            let now = self.now();
            let mut busy = false;
            for wallet in &mut self.wallets {
                for _ in 0..100 {
                    busy |= wallet.step(&mut self.chain, now);
                }
            }
            self.poll();
            if !busy && self.wallets.iter().all(|wallet| wallet.effects.is_empty()) {
                return;
            }
        }
        panic!("the managers never come to rest");
    }

    /// Every manager looks at every channel.
    pub fn poll(&mut self) {
        let now = self.now();
        self.chain.clocks();
        for wallet in &mut self.wallets {
            for (channel, record) in &self.chain.channels {
                let record = Box::new(record.clone());
                wallet.handle(now, Input::Seen { channel: *channel, record, time_ms: now.log_ms }).unwrap();
            }
            wallet.handle(now, Input::Tick).unwrap();
            wallet.sync();
        }
    }

    pub fn pass(&mut self, ms: u64) {
        self.chain.now += ms;
        self.clock += ms;
        self.run();
    }

    pub fn create(&mut self, key: &str, amount: u64, two_way: bool) -> Create {
        let (_, to, to_permission) = account(2);
        let key = Bytes::copy_from_slice(key.as_bytes());
        let from = self.wallets[ALICE].account;
        Create { key, from, to, to_permission, amount, delay_ms: DELAY, two_way }
    }

    /// An open channel of Alice to Bob. Gives her end and his.
    pub fn channel(&mut self, amount: u64) -> (EndId, EndId) {
        self.open(amount, false)
    }

    pub fn open(&mut self, amount: u64, two_way: bool) -> (EndId, EndId) {
        let create = self.create(&format!("channel {}", self.chain.channels.len()), amount, two_way);
        let op = op(self.ask(ALICE, Input::Create(create)).unwrap());
        self.run();
        let end = self.wallets[ALICE].manager.operation(op).unwrap().end.unwrap();
        (end, EndId { side: 1, ..end })
    }

    pub fn status(&self, wallet: usize, end: &EndId) -> Status {
        self.wallets[wallet].manager.status(end).unwrap()
    }

    pub fn state(&self, wallet: usize, op: OpId) -> OpState {
        self.wallets[wallet].manager.operation(op).unwrap().state
    }

    pub fn add(&mut self, end: EndId, amount: u64) -> OpId {
        op(self.ask(ALICE, Input::AddFunds { end, key: Bytes::new(), amount }).unwrap())
    }

    pub fn reserve(&mut self, end: EndId, amount: u64, usage: Use) -> (ReservationId, bool, Option<OpId>) {
        let reserve = Reserve { end, key: Bytes::new(), amount, usage, off_chain_only: false };
        match self.ask(ALICE, Input::Reserve(reserve)).unwrap() {
            Reply::Reserved { reservation, active, op } => (reservation, active, op),
            other => panic!("{other:?}"),
        }
    }

    /// A voucher of a wallet, or the shortfall.
    pub fn issue(&mut self, wallet: usize, issue: Issue) -> std::result::Result<wire::SignedVoucher, u64> {
        match self.ask(wallet, Input::VoucherCreate(issue)).unwrap() {
            Reply::Issued { voucher: Some(voucher), shortfall: 0 } => Ok(voucher),
            Reply::Issued { voucher: None, shortfall } => Err(shortfall),
            other => panic!("{other:?}"),
        }
    }

    pub fn pay(&mut self, end: EndId, lane: u32, amount: u64) -> wire::SignedVoucher {
        self.issue(ALICE, Issue { end, lane, amount, conditions: Conditions::default() }).unwrap()
    }

    /// Alice locks money for `ms` from now.
    pub fn lock(&mut self, end: EndId, lane: u32, amount: u64, secret: &[u8], ms: u64) -> wire::SignedVoucher {
        let secret_hash = Some(Sha256::digest(secret).into());
        let conditions = Conditions { secret_hash, not_before_ms: 0, not_after_ms: self.chain.now + ms };
        self.issue(ALICE, Issue { end, lane, amount, conditions }).unwrap()
    }

    pub fn take(&mut self, wallet: usize, end: EndId, voucher: &wire::SignedVoucher) -> Result<Added> {
        match self.ask(wallet, Input::VoucherAdd(incoming(end, voucher)))? {
            Reply::Added(added) => Ok(added),
            other => panic!("{other:?}"),
        }
    }

    pub fn crash(&mut self, wallet: usize) {
        let now = self.now();
        self.wallets[wallet].crash(now);
        self.wallets[wallet].sync();
    }

    /// How much of the log's money an account got, less what it paid in.
    pub fn paid_out(&self, number: u64) -> u64 {
        self.chain.paid_out.get(&account(number).1).copied().unwrap_or(0)
    }
}

pub fn op(reply: Reply) -> OpId {
    match reply {
        Reply::Op(op) => op,
        other => panic!("{other:?}"),
    }
}

pub fn incoming(end: EndId, voucher: &wire::SignedVoucher) -> Incoming {
    Incoming { end, voucher: voucher.clone(), secret: Bytes::new(), proof: Bytes::new(), min_delta: 0 }
}
