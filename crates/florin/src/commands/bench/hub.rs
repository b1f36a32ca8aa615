//! What a payment over a hub costs the hub and the two others: a payer, a hub and a payee in one thread, their
//! messages encoded and decoded as on a line, and their groups written and synced before anything leaves.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use florin_client::channel::Store;
use florin_core::channel::hub::{
    Ask, Config, Effect, Hub, Input, Pay, PaymentState, Policy, Reply, Step, plan, read_invoice,
};
use florin_core::channel::manager::{self, EndId, Manager};
use florin_core::channel::{OPENER, OTHER};
use florin_core::committee::Committee;
use florin_core::merkle::Hash;
use florin_core::wire::{self, ChannelRecord};
use florin_core::{Code, Error, Result};
use florin_node::meter::thread_cpu_ns;
use prost::Message as _;

use super::channels::{NETWORK, Party, TIME_MS, now, record};

const AMOUNT: u64 = 1_000;
const ALICE: usize = 0;
const HUB: usize = 1;
const BOB: usize = 2;

/// CPU of one payment, us.
pub struct Cost {
    /// Of the hub.
    pub hub: f64,
    /// Of payer, hub and payee.
    pub all: f64,
}

/// A wallet's channels, as the client runs them: hub, manager and journal.
pub struct Node {
    pub party: Party,
    config: Config,
    hub: Hub,
    manager: Manager,
    store: Store,
    /// Waiting to be durable.
    groups: Vec<wire::HubGroup>,
    /// What is said to other sides then.
    sends: Vec<(EndId, Vec<u8>)>,
    inbox: VecDeque<(EndId, Vec<u8>)>,
    cpu_ns: u64,
}

impl Node {
    /// With an empty journal.
    pub fn new(number: u8, journal: &Path, committee: &Committee) -> Result<Node> {
        let (party, channels) = (Party::new(number)?, manager::Policy::default());
        let config = Config { network_id: NETWORK, channels, policy: Policy::default() };
        Ok(Node {
            manager: party.manager()?,
            hub: Hub::new(config.clone()),
            store: Store::open(journal, committee)?.0,
            party,
            config,
            groups: Vec::new(),
            sends: Vec::new(),
            inbox: VecDeque::new(),
            cpu_ns: 0,
        })
    }

    /// What is due to others waits for [`Node::sync`].
    pub fn handle(&mut self, input: Input) -> Result<Reply> {
        let done = self.hub.handle(now(), input, &mut self.manager, &self.party)?;
        self.groups.push(done.group);
        for effect in done.effects {
            if let Effect::Send { end, message, .. } = effect {
                self.sends.push((end, message.encode_to_vec()));
            }
        }
        Ok(done.reply)
    }

    /// The same for the manager.
    pub fn channel(&mut self, input: manager::Input) -> Result<manager::Reply> {
        match self.handle(Input::Channel(Box::new(input)))? {
            Reply::Channel(reply) => Ok(reply),
            Reply::Failed(e) => Err(e),
            _ => Err(odd("the manager's answer")),
        }
    }

    /// Groups that are not durable.
    pub fn waiting(&self) -> usize {
        self.groups.len()
    }

    /// Makes all durable.
    pub fn sync(&mut self) -> Result<()> {
        self.store.append(&std::mem::take(&mut self.groups))
    }

    /// Shows it a channel of its own.
    pub fn see(&mut self, channel: Hash, record: &ChannelRecord) -> Result<()> {
        self.channel(manager::Input::Seen { channel, record: Box::new(record.clone()), time_ms: TIME_MS }).map(drop)
    }

    /// All that has come, then one sync; gives what is to be sent.
    fn turn(&mut self) -> Result<Vec<(EndId, Vec<u8>)>> {
        for (end, bytes) in std::mem::take(&mut self.inbox) {
            let message = wire::HubMessage::decode(&bytes[..]).map_err(|e| Error::new(Code::Decode, e.to_string()))?;
            self.handle(Input::Message { end, message: Box::new(message) })?;
        }
        self.sync()?;
        Ok(std::mem::take(&mut self.sends))
    }
}

/// Makes `count` payments, `group` of them at once.
pub fn measure(count: usize, group: usize, journal: impl Fn(&str) -> PathBuf, committee: &Committee) -> Result<Cost> {
    let node = |number: u8, wallet: &str| Node::new(number, &journal(wallet), committee);
    let mut nodes = [node(1, "alice")?, node(2, "hub")?, node(3, "bob")?];
    let links = [[1; 32], [2; 32]];
    for (at, channel) in links.into_iter().enumerate() {
        let record = record(&nodes[at].party, &nodes[at + 1].party);
        for (node, side) in [(at, OPENER), (at + 1, OTHER)] {
            nodes[node].see(channel, &record)?;
            nodes[node].handle(Input::Connected(EndId { channel, side }, 1))?;
        }
    }
    settle(&mut nodes, links)?;
    nodes.iter_mut().for_each(|node| node.cpu_ns = 0);
    let mut made = 0u64;
    while (made as usize) < count {
        for _ in 0..group.min(count - made as usize) {
            made += 1;
            pay(&mut nodes, links, made)?;
        }
        settle(&mut nodes, links)?;
        for payment in made.saturating_sub(group as u64)..made {
            let state = nodes[ALICE].hub.payment(payment + 1);
            if !matches!(state, Ok(PaymentState::Paid(_))) {
                return Err(Error::new(Code::UnknownPayment, format!("a payment was not made: {state:?}")));
            }
        }
    }
    let each = |ns: u64| ns as f64 / 1e3 / made.max(1) as f64;
    Ok(Cost { hub: each(nodes[HUB].cpu_ns), all: each(nodes.iter().map(|node| node.cpu_ns).sum()) })
}

/// Bob asks, Alice begins to pay.
fn pay(nodes: &mut [Node; 3], links: [[u8; 32]; 2], number: u64) -> Result<()> {
    let began = thread_cpu_ns();
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    let end = EndId { channel: links[1], side: OTHER };
    let ask = Ask { end, amount: AMOUNT, secret, expires_ms: TIME_MS + 3_600_000, memo: String::new() };
    let Reply::Invoice(invoice, _) = nodes[BOB].handle(Input::Ask(ask))? else { return Err(odd("an invoice")) };
    let asked = thread_cpu_ns();
    nodes[BOB].cpu_ns += asked - began;
    let step = Step { channel: links[1], terms: nodes[HUB].config.terms() };
    let terms = read_invoice(&invoice)?;
    let end = EndId { channel: links[0], side: OPENER };
    let route = plan(&nodes[ALICE].config, TIME_MS, &terms, end, &[step])?;
    let key = Bytes::copy_from_slice(&number.to_be_bytes());
    let Reply::Payment(_) = nodes[ALICE].handle(Input::Pay(Pay { key, invoice, route }))? else {
        return Err(odd("a payment"));
    };
    nodes[ALICE].cpu_ns += thread_cpu_ns() - asked;
    Ok(())
}

fn odd(what: &str) -> Error {
    Error::new(Code::Decode, format!("expected {what} in the answer of the hub"))
}

/// Until nobody has anything to say.
fn settle(nodes: &mut [Node; 3], links: [[u8; 32]; 2]) -> Result<()> {
    loop {
        let mut quiet = true;
        for at in 0..nodes.len() {
            let began = thread_cpu_ns();
            let sent = nodes[at].turn()?;
            nodes[at].cpu_ns += thread_cpu_ns() - began;
            for (end, bytes) in sent {
                quiet = false;
                let link = usize::from(end.channel == links[1]);
                let to = if at == link { link + 1 } else { link };
                nodes[to].inbox.push_back((EndId { side: 1 - end.side, ..end }, bytes));
            }
        }
        if quiet {
            return Ok(());
        }
    }
}
