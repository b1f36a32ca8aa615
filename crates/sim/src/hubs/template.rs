//! What all lives begin with: a log with channels in it, and what parties have seen of them. Made once.

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::channel::channel_id;
use florin_core::channel::hub::{Input, Policy};
use florin_core::channel::manager::{self, Message};
use florin_core::merkle::Hash;
use florin_core::wire::{self, output};

use super::Shell;
use super::ledger::{Committed, Ledger, Snapshot};
use super::node::{Manner, Node, Wish};

/// What each side of a channel puts in, minor units.
pub const FUNDS: u64 = 10_000;
/// What users have beside.
const OUTSIDE: u64 = 8_000;
/// What hubs have beside.
const HUB_OUTSIDE: u64 = 40_000;
/// Log time between settle and collect, ms.
const DELAYS: [u64; 2] = [3 * 3_600_000, 6 * 3_600_000];

/// The beginning.
pub struct Template {
    /// What signs for the log.
    pub of: Committed,
    /// The log.
    pub snapshot: Snapshot,
    /// Address, permission and first money of each party.
    pub accounts: Vec<(Address, Bytes, u64)>,
    /// Journals by party.
    pub journals: Vec<Vec<wire::HubGroup>>,
    channels: Vec<Hash>,
}

/// A channel to open: by whom, with whom, how.
struct Wanted {
    from: usize,
    to: usize,
    two_way: bool,
    delay_ms: u64,
}

impl Template {
    /// A hub with so many channels, of which two lead to a second hub with a few users of its own.
    pub fn new(channels: usize) -> Template {
        let of = Committed::new();
        let users = channels.saturating_sub(2).max(2);
        let others = (channels / 5).max(2);
        let parties = 2 + users + others;
        let mut nodes: Vec<Node> =
            (0..parties).map(|i| Node::new(i as u64, Manner::Watchful, Policy::default(), Shell::Sound)).collect();
        nodes.iter_mut().for_each(|node| node.of_committee(*of.committee.id()));
        let wanted = wanted(users, others);
        let takes = |i: usize| {
            let puts = wanted.iter().filter(|w| w.from == i || w.two_way && w.to == i).count() as u64;
            puts * FUNDS + if i < 2 { HUB_OUTSIDE } else { OUTSIDE }
        };
        let accounts: Vec<(Address, Bytes, u64)> =
            nodes.iter().enumerate().map(|(i, node)| (node.account, node.permission.clone(), takes(i))).collect();
        let mut ledger = Ledger::new(&of, &accounts);
        let mut opened = Vec::new();
        for one in &wanted {
            let (from, to) = (&nodes[one.from], &nodes[one.to]);
            let open = wire::ChannelOpen {
                opener: Bytes::copy_from_slice(from.account.as_bytes()),
                other: Bytes::copy_from_slice(to.account.as_bytes()),
                opener_permission: from.permission.clone(),
                other_permission: to.permission.clone(),
                delay_ms: one.delay_ms,
                two_way: one.two_way,
                amount: FUNDS,
            };
            let order = apply(&mut ledger, from.account, output::Kind::ChannelOpen(open));
            let id = channel_id(of.committee.id(), &order, 0);
            if one.two_way {
                let channel = Bytes::copy_from_slice(&id);
                let deposit = wire::ChannelDeposit { channel, side: 1, amount: FUNDS };
                apply(&mut ledger, to.account, output::Kind::ChannelDeposit(deposit));
            }
            opened.push(id);
        }
        assert!(ledger.broken.is_empty(), "the beginning is sound: {:?}", ledger.broken);
        let now = ledger.time_ms();
        for (one, channel) in wanted.iter().zip(&opened) {
            for node in [one.from, one.to] {
                let record = Box::new(ledger.record(channel).cloned().unwrap_or_default());
                let seen = manager::Input::Seen { channel: *channel, record, time_ms: now };
                let (reply, _) = nodes[node].handle(now, Input::Channel(Box::new(seen)), Wish::None, Shell::Sound);
                assert!(reply.is_ok(), "the log's record is good");
                nodes[node].sync();
            }
        }
        let journals = nodes.into_iter().map(|node| node.journal).collect();
        Template { of, snapshot: ledger.snapshot(), accounts, journals, channels: opened }
    }

    /// The channels that there are at the beginning.
    pub fn snapshot_channels(&self) -> Vec<Hash> {
        self.channels.clone()
    }
}

fn wanted(users: usize, others: usize) -> Vec<Wanted> {
    let of = |from, to, i: usize, two_way| Wanted { from, to, two_way, delay_ms: DELAYS[i % 2] };
    let mut all = vec![of(0, 1, 0, true), of(1, 0, 1, true)];
    for i in 0..users + others {
        let (user, hub) = (2 + i, if i < users { 0 } else { 1 });
        all.push(match i % 8 {
            3 => of(user, hub, i, false),
            7 => of(hub, user, i, false),
            _ => of(hub, user, i, true),
        });
    }
    all
}

fn apply(ledger: &mut Ledger, account: Address, kind: output::Kind) -> Hash {
    let message = Message { account, inputs: Vec::new(), outputs: vec![kind] };
    let (id, body, _) = ledger.draft(&message, ledger.tip(account.actor()));
    ledger.submit(&body, 0);
    ledger.order(|_| true);
    assert_eq!(ledger.decided(&id), Some(&None), "the beginning is sound: {:?}", ledger.broken);
    id
}
