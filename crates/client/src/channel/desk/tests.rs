//! The thread's turns, one by one, by a clock that the test sets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::channel::hub::introduction;
use florin_core::channel::manager::{EndId, Message, OpId, Outcome, Signer};
use florin_core::channel::virtuals::{Open, VirtualId};
use florin_core::channel::voucher::{Voucher, sign_virtual, sign_watch, sign_withdraw};
use florin_core::keys::{Curve, SecretKey};
use florin_core::merkle::Hash;
use florin_core::permission::Permission;
use florin_core::testing::{TestCommittee, secret};
use florin_core::wire::{ChannelRecord, ChannelSide, VirtualHello, VirtualMessage, virtual_message};
use tokio::runtime::Handle;
use tokio::sync::broadcast;

use super::super::chain::{Answer, Chain, Signed};
use super::super::link::Links;
use super::*;

const LOG_MS: u64 = 1_700_000_000_000;
const END: EndId = EndId { channel: [7; 32], side: 0 };

/// A log that never answers.
struct Silent;

impl Chain for Silent {
    fn prepare<'a>(&'a self, _: OpId, _: &'a Message) -> Answer<'a, Signed> {
        Box::pin(std::future::pending())
    }
    fn broadcast<'a>(&'a self, _: OpId, _: Option<Hash>, _: &'a Bytes) -> Answer<'a, Outcome> {
        Box::pin(std::future::pending())
    }
    fn channel<'a>(&'a self, _: &'a Hash) -> Answer<'a, (Option<ChannelRecord>, u64)> {
        Box::pin(std::future::pending())
    }
    fn channels<'a>(&'a self, _: &'a Address) -> Answer<'a, Vec<Hash>> {
        Box::pin(std::future::pending())
    }
}

struct Key(SecretKey);

impl Signer for Key {
    fn voucher(&self, _: &Address, terms: wire::Voucher, side: u32) -> Result<Voucher> {
        Ok(Voucher::sign(terms, side, &[&self.0]))
    }
    fn withdraw(&self, _: &Address, permit: &wire::WithdrawPermit) -> Result<wire::SignedPermit> {
        Ok(sign_withdraw(permit, &[&self.0]))
    }
    fn watch(&self, _: &Address, permit: &wire::WatchPermit) -> Result<wire::SignedPermit> {
        Ok(sign_watch(permit, &[&self.0]))
    }
    fn introduce(&self, _: &Address, one: &wire::HubIntroduction) -> Result<Vec<Bytes>> {
        Ok(introduction::sign(one, &[&self.0]))
    }
}

impl VirtualSigner for Key {
    fn virtual_amount(&self, _: &Bytes, amount: &wire::VirtualAmount) -> Result<wire::SignedPermit> {
        Ok(sign_virtual(amount, &[&self.0]))
    }
}

fn permission(number: u64) -> Permission {
    Permission::single(secret(Curve::Ed25519, number).public())
}

/// A wallet with one channel, to another.
struct Table {
    desk: Desk,
    /// Ms since the start.
    clock: Arc<AtomicU64>,
    links: Links,
    folder: tempfile::TempDir,
    network_id: u64,
}

impl Table {
    fn new() -> Table {
        let folder = tempfile::tempdir().unwrap();
        let (committee, _) = TestCommittee::new(4, 1).build();
        let network_id = committee.network.id;
        let (store, groups) = Store::open(&folder.path().join("channels"), &committee).unwrap();
        let (clock, links, began) = (Arc::new(AtomicU64::new(0)), Links::default(), Instant::now());
        let (to, _from) = mpsc::unbounded_channel();
        let shell = Shell {
            chain: Arc::new(Silent),
            to: to.downgrade(),
            events: broadcast::channel(8).0,
            payments: broadcast::channel(8).0,
            virtuals: broadcast::channel(8).0,
            links: links.clone(),
            runtime: Handle::current(),
        };
        let passed = clock.clone();
        let desk = Desk {
            machines: load(network_id, &groups),
            store,
            signer: Arc::new(Key(secret(Curve::Ed25519, 1))),
            shell,
            log_ms: 0,
            heard: None,
            began,
            clock: Box::new(move || began + Duration::from_millis(passed.load(SeqCst))),
        };
        let mut table = Table { desk, clock, links, folder, network_id };
        table.log();
        table
    }

    /// The log answers, with the channel.
    fn log(&mut self) {
        let side = |number, deposited| {
            let address = permission(number).address(self.network_id);
            let address = Bytes::copy_from_slice(address.as_bytes());
            Some(ChannelSide { address, permission: permission(number).encode(), deposited, ..Default::default() })
        };
        let record = ChannelRecord {
            opener: side(1, 1_000),
            other: side(2, 0),
            delay_ms: 24 * 3_600_000,
            revision: 1,
            ..Default::default()
        };
        let time_ms = LOG_MS + self.clock.load(SeqCst);
        let seen = manager::Input::Seen { channel: END.channel, record: Box::new(record), time_ms };
        let seen = Command::Tell(Box::new(Input::Channel(Box::new(seen))), None);
        self.desk.group(&mut vec![Command::Time(time_ms), seen]).unwrap();
    }

    fn ask(&mut self, input: Input) -> Result<hub::Reply> {
        let (reply, mut answer) = oneshot::channel();
        self.desk.group(&mut vec![Command::Ask(Box::new(input), reply)]).unwrap();
        answer.try_recv().unwrap()
    }

    fn virtuals(&mut self, input: virtuals::Input) -> Result<virtuals::Reply> {
        let (reply, mut answer) = oneshot::channel();
        self.desk.group(&mut vec![Command::Virtual(Box::new(input), Some(reply), None)]).unwrap();
        answer.try_recv().unwrap()
    }

    fn tick(&mut self) {
        self.ask(Input::Channel(Box::new(manager::Input::Tick))).unwrap();
    }

    /// The other side is there, and says that it holds nothing.
    fn greeted(&mut self, connection: u64) {
        self.ask(Input::Connected(END, connection)).unwrap();
        let hello = virtual_message::Kind::Hello(VirtualHello::default());
        let message = VirtualMessage { channel: Bytes::copy_from_slice(&END.channel), kind: Some(hello) };
        self.virtuals(virtuals::Input::Message { end: END, message: Box::new(message) }).unwrap();
    }

    fn open(&self, id: VirtualId) -> virtuals::Input {
        let permission = permission(1).encode();
        let not_after_ms = LOG_MS + 3_600_000;
        virtuals::Input::Open(Open { id, end: END, permission, cap: 100, not_after_ms, fee: 1, hops: Vec::new() })
    }
}

fn load(network_id: u64, groups: &[wire::HubGroup]) -> Machines {
    let channels = manager::Policy::default();
    let own = permission(1);
    let accounts = BTreeMap::from([(own.address(network_id), own.encode())]);
    let of_manager = manager::Config { committee_id: [3; 32], accounts, policy: channels.clone() };
    let of_hub = hub::Config { network_id, channels: channels.clone(), policy: hub::Policy::default() };
    let (hub, manager) = Hub::load(of_hub, of_manager, groups).unwrap();
    let of_virtuals = virtuals::Config { channels, policy: virtuals::Policy::default() };
    Machines { hub, virtuals: Virtuals::load(of_virtuals, groups).unwrap(), manager }
}

#[tokio::test]
async fn after_two_minutes_without_the_log_all_connections_are_cut_and_nothing_is_heard_of_other_sides() {
    let mut table = Table::new();
    let (number, _messages, mut cut) = table.links.open(END);
    table.greeted(number);
    table.clock.store(120_000, SeqCst);
    table.tick();
    assert!(matches!(cut.try_recv(), Err(oneshot::error::TryRecvError::Empty)), "it is cut too early");
    table.virtuals(table.open([1; 32])).unwrap();
    table.clock.store(120_001, SeqCst);
    table.tick();
    assert!(cut.await.is_err(), "the connection is still there");
    let code = |answer: Result<virtuals::Reply>| answer.unwrap_err().code;
    assert_eq!(code(table.virtuals(table.open([2; 32]))), Code::HubOffline);
    assert_eq!(table.ask(Input::Connected(END, number + 1)).unwrap_err().code, Code::HubOffline);
    // It goes on with the next word of the log.
    table.log();
    let (number, _messages, mut cut) = table.links.open(END);
    table.greeted(number);
    table.virtuals(table.open([2; 32])).unwrap();
    table.tick();
    assert!(matches!(cut.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
}

#[tokio::test]
async fn a_journal_that_is_written_anew_keeps_virtual_channels_and_payments_in_one() {
    let mut table = Table::new();
    let (number, mut messages, _cut) = table.links.open(END);
    table.greeted(number);
    table.virtuals(table.open([1; 32])).unwrap();
    table.desk.store.make_long();
    table.virtuals(table.open([2; 32])).unwrap();
    let state = |all: &Machines| {
        let mut group = all.hub.snapshot(&all.manager);
        group.entries.push(all.virtuals.snapshot());
        group
    };
    let before = state(&table.desk.machines);
    assert!(table.desk.machines.virtuals.status(&[2; 32]).is_ok());
    // Two greetings, and the voucher of the first: the second goes with the next.
    let said: Vec<_> = std::iter::from_fn(|| messages.try_recv().ok()).collect();
    let is_virtual = |kind: &&wire::hub_frame::Kind| matches!(kind, wire::hub_frame::Kind::Virtual(_));
    assert_eq!((said.len(), said.iter().filter(is_virtual).count()), (3, 2), "{said:?}");
    let Table { desk, folder, network_id, .. } = table;
    drop(desk);
    let (committee, _) = TestCommittee::new(4, 1).build();
    let (_store, groups) = Store::open(&folder.path().join("channels"), &committee).unwrap();
    assert_eq!(groups.len(), 1, "it was not written anew");
    assert_eq!(state(&load(network_id, &groups)), before);
}
