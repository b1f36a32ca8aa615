//! What a payment over a hub costs the hub and the two others: a payer, a hub and a payee in one thread, their
//! messages encoded and decoded as on a line, and their groups written and synced before anything leaves.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use florin_core::channel::hub::{
    Ask, Config, Effect, Effects, Hub, Input, Pay, Policy, Reply, Step, plan, read_invoice,
};
use florin_core::channel::manager::{self, EndId, Manager};
use florin_core::channel::{OPENER, OTHER};
use florin_core::wire::{self, ChannelRecord};
use florin_core::{Code, Error, Result};
use florin_node::meter::thread_cpu_ns;
use prost::Message as _;

use super::channels::{NETWORK, Party, TIME_MS, now, record};
use crate::commands::support::io;

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

struct Node {
    party: Party,
    config: Config,
    hub: Hub,
    manager: Manager,
    journal: File,
    /// Waiting to be durable.
    unsynced: Vec<Effects>,
    inbox: VecDeque<(EndId, Vec<u8>)>,
    cpu_ns: u64,
}

impl Node {
    fn new(number: u8, dir: &Path) -> Result<Node> {
        let (party, policy) = (Party::new(number)?, manager::Policy::default());
        let config = Config { network_id: NETWORK, channels: policy, policy: Policy::default() };
        let path = dir.join(format!("hub-{number}"));
        Ok(Node {
            manager: party.manager()?,
            hub: Hub::new(config.clone()),
            journal: File::create(&path).map_err(|e| io("make", &path, &e))?,
            party,
            config,
            unsynced: Vec::new(),
            inbox: VecDeque::new(),
            cpu_ns: 0,
        })
    }

    fn handle(&mut self, input: Input) -> Result<Reply> {
        let done = self.hub.handle(now(), input, &mut self.manager, &self.party)?;
        let reply = done.reply.clone();
        self.unsynced.push(done);
        Ok(reply)
    }

    fn see(&mut self, end: EndId, record: &ChannelRecord) -> Result<()> {
        let seen = manager::Input::Seen { channel: end.channel, record: Box::new(record.clone()), time_ms: TIME_MS };
        self.handle(Input::Channel(Box::new(seen)))?;
        self.handle(Input::Connected(end)).map(drop)
    }

    /// All that has come, then one sync; gives what is to be sent.
    fn turn(&mut self) -> Result<Vec<(EndId, Vec<u8>)>> {
        for (end, bytes) in std::mem::take(&mut self.inbox) {
            let message = wire::HubMessage::decode(&bytes[..]).map_err(|e| Error::new(Code::Decode, e.to_string()))?;
            self.handle(Input::Message { end, message: Box::new(message) })?;
        }
        let (mut bytes, mut sent) = (Vec::new(), Vec::new());
        for done in self.unsynced.drain(..) {
            done.group.encode_length_delimited(&mut bytes).map_err(|e| Error::new(Code::Decode, e.to_string()))?;
            for effect in done.effects {
                if let Effect::Send { end, message } = effect {
                    sent.push((end, message.encode_to_vec()));
                }
            }
        }
        if !bytes.is_empty() {
            let written = self.journal.write_all(&bytes).and_then(|()| self.journal.sync_data());
            written.map_err(|e| Error::new(Code::Io, format!("a journal: {e}")))?;
        }
        Ok(sent)
    }
}

/// Makes `count` payments, `group` of them at once.
pub fn measure(count: usize, group: usize, dir: &Path) -> Result<Cost> {
    let mut nodes = [Node::new(1, dir)?, Node::new(2, dir)?, Node::new(3, dir)?];
    let links = [[1; 32], [2; 32]];
    for (at, channel) in links.into_iter().enumerate() {
        let record = record(&nodes[at].party, &nodes[at + 1].party);
        nodes[at].see(EndId { channel, side: OPENER }, &record)?;
        nodes[at + 1].see(EndId { channel, side: OTHER }, &record)?;
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
            if !matches!(state, Ok(florin_core::channel::hub::PaymentState::Paid(_))) {
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
