//! A party: the hub and manager of core, and the shell around them: a journal with group commit, effects, orders, crashes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::channel::hub::{Config, Effect, Effects, Event, Hub, Input, Policy, Reply};
use florin_core::channel::manager::{self, EndId, Manager, Now, Signer};
use florin_core::channel::virtuals::{self, VirtualSigner, Virtuals};
use florin_core::channel::voucher::{self, Voucher};
use florin_core::envelope::{Order, next_hash};
use florin_core::error::Result;
use florin_core::keys::{Curve, SecretKey};
use florin_core::merkle::Hash;
use florin_core::permission::Permission;
use florin_core::testing::{NETWORK_ID, secret};
use florin_core::wire::{self, hub_entry, manager_record};
use prost::Message as _;

use super::Shell;
use super::facts::{Facts, Key as Place, Money};
use super::ledger::{Ledger, START, Tip};

/// How a party goes about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// It passes on, and is never away for longer than its grace.
    Hub,
    /// A user who looks as often as a hub.
    Watchful,
    /// A user who follows the rules, and is away for hours.
    Sleeper,
    /// It takes what it can get.
    Liar,
}

/// Signs for one account.
pub struct Key(pub SecretKey);

impl Signer for Key {
    fn voucher(&self, _: &Address, terms: wire::Voucher, side: u32) -> Result<Voucher> {
        Ok(Voucher::sign(terms, side, &[&self.0]))
    }
    fn withdraw(&self, _: &Address, permit: &wire::WithdrawPermit) -> Result<wire::SignedPermit> {
        Ok(voucher::sign_withdraw(permit, &[&self.0]))
    }
    fn watch(&self, _: &Address, permit: &wire::WatchPermit) -> Result<wire::SignedPermit> {
        Ok(voucher::sign_watch(permit, &[&self.0]))
    }
}

impl VirtualSigner for Key {
    fn virtual_amount(&self, _: &Bytes, amount: &wire::VirtualAmount) -> Result<wire::SignedPermit> {
        Ok(voucher::sign_virtual(amount, &[&self.0]))
    }
}

/// Something to do, for one of the two machines.
pub enum Deed {
    /// The hub's, or the manager's.
    Hub(Effect),
    /// Of virtual channels.
    Virtual(virtuals::Effect),
}

/// What waits for a sync.
struct Unsynced {
    group: wire::HubGroup,
    deeds: Vec<Deed>,
    reply: Reply,
    at_ms: u64,
    wish: Wish,
}

impl Unsynced {
    fn of_hub(fx: Effects, at_ms: u64, wish: Wish) -> Unsynced {
        let deeds = fx.effects.into_iter().map(Deed::Hub).collect();
        Unsynced { group: fx.group, deeds, reply: fx.reply, at_ms, wish }
    }

    fn of_virtuals(fx: virtuals::Effects, at_ms: u64) -> Unsynced {
        let deed = |effect| match effect {
            virtuals::Effect::Channel(of_manager) => Deed::Hub(Effect::Channel(of_manager)),
            other => Deed::Virtual(other),
        };
        let deeds = fx.effects.into_iter().map(deed).collect();
        Unsynced { group: fx.group, deeds, reply: Reply::Done, at_ms, wish: Wish::None }
    }
}

/// For whom a reply is.
#[derive(Clone, Debug, Default)]
pub enum Wish {
    /// For nobody.
    #[default]
    None,
    /// A voucher, to be passed by hand.
    Voucher(EndId),
    /// A permit for the other side to take this much out.
    Permit(EndId, u64),
}

/// A party.
pub struct Node {
    /// How it goes about it.
    pub manner: Manner,
    /// Its hub.
    pub hub: Hub,
    /// Its virtual channels, over the same manager and journal.
    pub virtuals: Virtuals,
    /// Its manager.
    pub manager: Manager,
    config: Config,
    virtual_config: virtuals::Config,
    channels: manager::Config,
    /// Its keys.
    pub key: Key,
    /// Its account.
    pub account: Address,
    /// Its encoded permission.
    pub permission: Bytes,
    /// Durable.
    pub journal: Vec<wire::HubGroup>,
    unsynced: Vec<Unsynced>,
    /// To be carried out.
    pub effects: VecDeque<Deed>,
    /// What the durable journal says.
    pub durable: Facts,
    /// And with what is not synced.
    pub memory: Facts,
    /// Vouchers that it has sent or acknowledged.
    pub said: BTreeSet<Place>,
    /// Orders whose outcome it waits for.
    pub waiting: BTreeMap<manager::OpId, Hash>,
    /// What orders under way will take from the account, minor units.
    pub costs: BTreeMap<Hash, i128>,
    tip: Tip,
    /// Of its ends, the other party.
    pub ends: BTreeMap<EndId, usize>,
    /// Revisions that it has seen since its start.
    pub looked: BTreeMap<Hash, u64>,
    /// The latest log time that it knows, ms.
    pub known_ms: u64,
    /// Log time at which it looks at the latest, ms.
    pub look_due: u64,
    /// It does nothing until this log time, ms.
    pub down_until: Option<u64>,
    /// A backup was restored.
    pub restored: bool,
    /// It polls until then, ms, for something of its was refused.
    pub retry_until: u64,
    /// Minor units that it was told it has been paid.
    pub told: u64,
    /// It falls over at this entry of its journal, which is kept or lost.
    pub crash_at: Option<(usize, bool)>,
    /// How often it has started.
    starts: u64,
    /// Replies that are out.
    pub replies: Vec<(Wish, Reply)>,
}

impl Node {
    /// The party with this number.
    pub fn new(number: u64, manner: Manner, policy: Policy, shell: Shell) -> Node {
        let key = secret(Curve::Ed25519, 1_000 + number);
        let permission = Permission::single(key.public());
        let (account, permission) = (permission.address(NETWORK_ID), permission.encode());
        let accounts = BTreeMap::from([(account, permission.clone())]);
        let mut times = manager::Policy { superseded_max: 32, ..manager::Policy::default() };
        let mut policy = policy;
        if shell == Shell::SmallMargin && manner == Manner::Hub {
            (times.submit_ms, times.margin_ms, policy.grace_ms, policy.terms.margin_ms) = (1, 1, 1, 30_000);
        }
        let channels = manager::Config { committee_id: [0; 32], accounts, policy: times.clone() };
        let (grace_ms, margin_ms) = (policy.grace_ms, policy.terms.margin_ms);
        let of_virtuals = virtuals::Policy { grace_ms, margin_ms, cap_min: 5, ..virtuals::Policy::default() };
        let virtual_config = virtuals::Config { channels: times.clone(), policy: of_virtuals };
        let config = Config { network_id: NETWORK_ID, channels: times, policy };
        Node {
            manner,
            hub: Hub::new(config.clone()),
            virtuals: Virtuals::new(virtual_config.clone()),
            manager: Manager::new(channels.clone()),
            config,
            virtual_config,
            channels,
            key: Key(key),
            account,
            permission,
            journal: Vec::new(),
            unsynced: Vec::new(),
            effects: VecDeque::new(),
            durable: Facts::default(),
            memory: Facts::default(),
            said: BTreeSet::new(),
            waiting: BTreeMap::new(),
            costs: BTreeMap::new(),
            tip: Tip::default(),
            ends: BTreeMap::new(),
            looked: BTreeMap::new(),
            known_ms: START,
            look_due: u64::MAX,
            down_until: None,
            restored: false,
            retry_until: 0,
            told: 0,
            crash_at: None,
            starts: 0,
            replies: Vec::new(),
        }
    }

    /// Names the log's committee, before anything else.
    pub fn of_committee(&mut self, id: Hash) {
        self.channels.committee_id = id;
        self.manager = Manager::new(self.channels.clone());
    }

    /// What it publishes.
    pub fn terms(&self) -> wire::HubTerms {
        self.config.terms()
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its configuration for virtual channels.
    pub fn virtual_config(&self) -> &virtuals::Config {
        &self.virtual_config
    }

    /// Whether it keeps to what is needed for its money to be safe.
    pub fn is_diligent(&self) -> bool {
        matches!(self.manner, Manner::Hub | Manner::Watchful)
    }

    /// Whether it follows the rules.
    pub fn is_honest(&self) -> bool {
        self.manner != Manner::Liar
    }

    /// Whether it has signed or holds anything in a channel.
    pub fn uses(&self, channel: &Hash) -> bool {
        let of = &self.durable;
        Facts::of(&of.signed, *channel).next().is_some() || Facts::of(&of.held, *channel).next().is_some()
    }

    /// Whether it made the invoice with this hash.
    pub fn knows_invoice(&self, hash: &Hash) -> bool {
        self.durable.invoices.contains(hash)
    }

    /// What its manager counts for lanes of virtual channels.
    pub fn virtual_money(&self, end: EndId) -> Money {
        let (all, mut money) = ((end, 0)..=(end, u32::MAX), Money::default());
        for ((_, lane), _) in self.memory.sets.outs.range(all.clone()) {
            let (Ok(view), Ok(of)) =
                (self.manager.virtual_lane(&end, end.side, *lane), self.manager.out_lane(&end, *lane))
            else {
                continue;
            };
            money.committed += i128::from(of.paid);
            money.locked += i128::from(view.exposed.most.saturating_sub(of.paid));
        }
        for ((_, lane), _) in self.memory.sets.ins.range(all) {
            let payer = 1 - end.side;
            let (Ok(view), Ok(of)) =
                (self.manager.virtual_lane(&end, payer, *lane), self.manager.paid_lane(&end, *lane))
            else {
                continue;
            };
            money.received += i128::from(of.paid) - view.chain.map_or(0, |chain| i128::from(chain.redeemed));
        }
        money
    }

    /// Whether it is there.
    pub fn is_up(&self) -> bool {
        self.down_until.is_none()
    }

    /// What it goes by.
    pub fn now(&self, log_ms: u64, shell: Shell) -> Now {
        let ahead = if shell == Shell::ClockAhead && self.manner == Manner::Hub { 2_700_000 } else { 0 };
        Now { log_ms: self.known_ms + ahead, clock_ms: log_ms - START }
    }

    /// Takes an input; what comes of it waits for a sync. What is wrong with the group is returned beside the reply.
    pub fn handle(&mut self, log_ms: u64, input: Input, wish: Wish, shell: Shell) -> (Result<Reply>, Option<String>) {
        let now = self.now(log_ms, shell);
        let deaf = shell == Shell::NeverLooks && self.manner == Manner::Hub;
        let too = also(&input).filter(|too| !deaf || !matches!(too, virtuals::Input::Look));
        match self.hub.handle(now, input, &mut self.manager, &self.key) {
            Err(e) => (Err(e), None),
            Ok(fx) => {
                let reply = fx.reply.clone();
                let mut twice = self.add(Unsynced::of_hub(fx, log_ms, wish), shell);
                if let Some(input) = too {
                    // Both machines hear of it; each makes an entry of its own.
                    let (told, again) = self.handle_virtual(log_ms, input, shell);
                    twice = twice.or(again).or(told.err().map(|e| format!("virtual channels: {e}")));
                }
                (Ok(reply), twice)
            }
        }
    }

    /// The same for the machine of virtual channels.
    pub fn handle_virtual(
        &mut self,
        log_ms: u64,
        input: virtuals::Input,
        shell: Shell,
    ) -> (Result<virtuals::Reply>, Option<String>) {
        let now = self.now(log_ms, shell);
        match self.virtuals.handle(now, input, &mut self.manager, &self.key) {
            Err(e) => (Err(e), None),
            Ok(fx) => {
                let reply = fx.reply.clone();
                let twice = self.add(Unsynced::of_virtuals(fx, log_ms), shell);
                (Ok(reply), twice)
            }
        }
    }

    fn add(&mut self, mut new: Unsynced, shell: Shell) -> Option<String> {
        let twice = self.memory.learn(&new.group, new.at_ms);
        if shell == Shell::SendsBeforeDurable {
            self.effects.extend(new.deeds.drain(..));
        }
        self.unsynced.push(new);
        twice
    }

    /// Groups that wait for a sync.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Whether something waits for a sync or to be carried out.
    pub fn has_work(&self) -> bool {
        !self.unsynced.is_empty() || !self.effects.is_empty()
    }

    /// Makes what it has done durable; its effects may follow. Whether it has fallen over meanwhile.
    pub fn sync(&mut self) -> bool {
        let mut all = std::mem::take(&mut self.unsynced).into_iter();
        while let Some(one) = all.next() {
            if let Some((at, kept)) = self.crash_at
                && self.journal.len() + 1 == at
                && !one.group.entries.is_empty()
            {
                self.crash_at = None;
                self.unsynced = std::iter::once(one).chain(all).collect();
                self.crash(usize::from(kept), false);
                return true;
            }
            self.replies.push((one.wish, one.reply));
            self.write(one.group, one.at_ms);
            for deed in one.deeds {
                if let Deed::Hub(Effect::Event(Event::InvoicePaid { amount, .. })) = &deed {
                    self.told += amount;
                }
                self.effects.push_back(deed);
            }
        }
        self.replies.retain(|(wish, _)| !matches!(wish, Wish::None));
        false
    }

    fn write(&mut self, group: wire::HubGroup, at_ms: u64) {
        if !group.entries.is_empty() {
            self.durable.learn(&group, at_ms);
            self.journal.push(group);
        }
    }

    /// Falls over: the first `kept` groups that were not synced are durable all the same, nothing of what they asked for
    /// is done, and the rest is gone.
    pub fn crash(&mut self, kept: usize, lose_durable: bool) -> usize {
        let mut unsynced = std::mem::take(&mut self.unsynced);
        let lost = unsynced.len().saturating_sub(kept);
        unsynced.truncate(kept);
        for one in unsynced {
            self.write(one.group, one.at_ms);
        }
        if lose_durable {
            self.journal.pop();
        }
        self.effects.clear();
        self.replies.clear();
        self.waiting.clear();
        self.looked.clear();
        lost
    }

    /// Its journal as it was some groups ago.
    pub fn restore(&mut self, groups: usize) {
        self.crash(0, false);
        self.journal.truncate(groups);
        self.restored = true;
    }

    /// Starts from its journal, over the disk and back. What it has said and forgotten is returned.
    pub fn start(&mut self, log_ms: u64, ledger: Tip, shell: Shell) -> Result<Vec<String>> {
        for group in &mut self.journal {
            *group = wire::HubGroup::decode(&group.encode_to_vec()[..]).unwrap_or_default();
        }
        (self.hub, self.manager) = Hub::load(self.config.clone(), self.channels.clone(), &self.journal)?;
        self.virtuals = Virtuals::load(self.virtual_config.clone(), &self.journal)?;
        let mut forgotten = Vec::new();
        self.starts += 1;
        if self.starts.is_multiple_of(2) {
            forgotten.extend(self.write_anew()?);
        }
        let before = std::mem::take(&mut self.durable);
        for group in &self.journal {
            forgotten.extend(self.durable.learn(group, 0));
        }
        self.durable.keep_times(&before);
        self.memory = self.durable.clone();
        if !self.restored {
            let knows = |key: &&Place| self.durable.signed.contains_key(*key) || self.durable.held.contains_key(*key);
            let lost = self.said.iter().filter(|key| !knows(key));
            forgotten.extend(lost.map(|key| format!("said and forgotten: {key:?}")));
        }
        self.tip = ledger;
        let signed = self.journal.iter().flat_map(|group| &group.entries).filter_map(|entry| match &entry.kind {
            Some(hub_entry::Kind::Channel(record)) => match &record.kind {
                Some(manager_record::Kind::Prepared(prepared)) => Order::decode_body(prepared.order.clone()).ok(),
                _ => None,
            },
            _ => None,
        });
        for order in signed {
            if order.seqnum > self.tip.seqnum {
                self.tip = Tip { seqnum: order.seqnum, prev_hash: next_hash(&order.id) };
            }
        }
        let now = self.now(log_ms, shell);
        let fx = self.hub.resume(now, &mut self.manager, &self.key);
        forgotten.extend(self.add(Unsynced::of_hub(fx, log_ms, Wish::None), Shell::Sound));
        let fx = self.virtuals.resume(now, &mut self.manager, &self.key);
        forgotten.extend(self.add(Unsynced::of_virtuals(fx, log_ms), Shell::Sound));
        self.sync();
        Ok(forgotten)
    }

    /// Goes on as if its journal had been written anew. The whole one is kept, for the checks. What differs is returned.
    fn write_anew(&mut self) -> Result<Option<String>> {
        let mut group = self.hub.snapshot(&self.manager);
        group.entries.push(self.virtuals.snapshot());
        let group = wire::HubGroup::decode(&group.encode_to_vec()[..]).unwrap_or_default();
        let (hub, manager) = Hub::load(self.config.clone(), self.channels.clone(), [&group])?;
        let virtuals = Virtuals::load(self.virtual_config.clone(), [&group])?;
        let mut again = hub.snapshot(&manager);
        again.entries.push(virtuals.snapshot());
        let same = again == group;
        (self.hub, self.manager, self.virtuals) = (hub, manager, virtuals);
        Ok((!same).then(|| "a journal that was written anew says something else".to_owned()))
    }

    /// What its orders under way will still take from its account, minor units.
    pub fn spent(&self, ledger: &Ledger) -> i128 {
        self.costs.iter().filter(|(id, _)| ledger.decided(id).is_none()).map(|(_, cost)| *cost).sum()
    }

    /// Where its next order goes, given what the network knows of its account.
    pub fn tip(&self, ledger: Tip) -> Tip {
        if ledger.seqnum > self.tip.seqnum { ledger } else { self.tip }
    }

    /// It has signed an order.
    pub fn advance(&mut self, tip: Tip) {
        self.tip = tip;
    }
}

/// What the machine of virtual channels is told when the hub is told something.
fn also(input: &Input) -> Option<virtuals::Input> {
    match input {
        Input::Connected(end, connection) => Some(virtuals::Input::Connected(*end, *connection)),
        Input::Disconnected(end) => Some(virtuals::Input::Disconnected(*end)),
        Input::Channel(input) => {
            use manager::Input as Of;
            let news = matches!(**input, Of::Seen { .. } | Of::Outcome { .. } | Of::Settle(_) | Of::Tick);
            news.then_some(virtuals::Input::Look)
        }
        _ => None,
    }
}
