//! One step in memory: reads through to the state, keeps what changed, and turns it into writes.

mod ahead;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use prost::Message;

use super::encode::{encode_batch_record, encode_order_record, put_credit_record};
use super::hot::{Hot, Written};
use super::issued::Issued;
use super::progress::{Progress, load_progress, settled_entry};
use super::state::{
    Account, Holding, LOG, Link, State, TOTALS_KEY, Table, Totals, Write, account_key, get_record, get_u64,
    holding_key, link_key, outbox_key, stream_key,
};
use crate::address::Address;
use crate::bearer::NoteAsked;
use crate::bitmap::Bitmap;
use crate::cash::blind::Nonce;
use crate::envelope::Order;
use crate::error::Result;
use crate::limits::CREDITS_PER_RECORD;
use crate::merkle::Hash;
use crate::planted::{self, Bug};
use crate::wire;

/// Bytes of credits in one delivery, roughly: well below the largest message.
const DELIVERY_BYTES: usize = 1 << 20;

/// The changes of one step.
pub(crate) struct Changes<'a> {
    pub state: &'a dyn State,
    pub totals: Totals,
    before: Totals,
    /// Place in `slots` by (network, actor). Only looked up: what is written has the order of `slots`.
    accounts: HashMap<(u64, u64), usize, RandomState>,
    /// The same for further addresses of actors, which are rare.
    further: BTreeMap<SlotKey, usize>,
    slots: Vec<Slot>,
    /// What earlier steps have written, decoded.
    pub hot: Option<&'a mut Hot>,
    /// The two that were looked at last, an order's payer and payee: most looks are at one of them.
    recent: [Option<(SlotKey, usize)>; 2],
    progress: BTreeMap<u64, Progress>,
    /// Credits of this step: full `CreditsRecord`s, encoded, and how many there are in all.
    credits: (Vec<Vec<u8>>, usize),
    /// Batch and index of orders taken back.
    undone: Vec<(u64, usize)>,
    /// Orders that this step has settled or undone.
    orders: BTreeMap<[u8; 20], Option<wire::OrderRecord>>,
    /// Orders without sequence numbers that this step has settled or undone.
    by_id: BTreeMap<[u8; 48], Option<wire::OrderRecord>>,
    networks: BTreeMap<u64, Option<NetworkSlot>>,
    /// Whether a network's stream has grown.
    streamed: bool,
    /// The clock, us since 1970.
    pub now_us: u64,
    /// Notes that the step has looked at, and whether it has changed them.
    notes: BTreeMap<Nonce, (wire::NoteRecord, bool)>,
    /// What settled orders ask for, by blinded nonce.
    issued: BTreeMap<bytes::Bytes, Issued>,
    deliveries: BTreeMap<u32, Vec<wire::DeliveredCredit>>,
    calls: Vec<wire::LogCall>,
    writes: Vec<Write>,
    /// Orders settled because what they waited for has settled.
    pub followers: usize,
    /// Key and id of orders settled by a step that is not the log's.
    fresh: Vec<([u8; 20], bytes::Bytes)>,
    /// Whether this step is one of the log, which may look at orders that it has settled itself.
    pub of_log: bool,
    /// Batches that this step stores.
    added: BTreeMap<u64, Vec<bytes::Bytes>>,
    /// The batch that was read last: thousands of orders of a step may point into the same one.
    stored: Option<(u64, Vec<bytes::Bytes>)>,
}

/// Network, actor, and the address where a further one of the actor has a record of its own.
type SlotKey = (u64, u64, Option<Address>);

/// An account that the step has looked at.
struct Slot {
    key: SlotKey,
    account: Box<Account>,
    dirty: bool,
}

/// A PBTX network that the step has looked at.
pub(crate) struct NetworkSlot {
    /// Shared with the checks of all its orders.
    pub network: Arc<wire::NetworkRecord>,
    entries: u64,
    pruned: u64,
    dirty: bool,
}

impl NetworkSlot {
    fn new(record: wire::NetworkShardRecord) -> Self {
        let wire::NetworkShardRecord { network, entries, pruned } = record;
        NetworkSlot { network: Arc::new(network.unwrap_or_default()), entries, pruned, dirty: false }
    }
}

/// What a step leaves behind.
pub(crate) struct Outcome {
    pub writes: Vec<Write>,
    pub outbox: Vec<(u32, u64)>,
    pub settled_end: Option<u64>,
    pub accounts: Written,
}

impl<'a> Changes<'a> {
    pub fn new(now_us: u64, state: &'a dyn State) -> Result<Self> {
        let totals = Totals::load(state)?;
        Ok(Changes {
            state,
            now_us,
            by_id: BTreeMap::new(),
            networks: BTreeMap::new(),
            streamed: false,
            before: totals.clone(),
            totals,
            accounts: HashMap::default(),
            further: BTreeMap::new(),
            slots: Vec::new(),
            hot: None,
            recent: [None; 2],
            progress: BTreeMap::new(),
            credits: (Vec::new(), 0),
            undone: Vec::new(),
            orders: BTreeMap::new(),
            notes: BTreeMap::new(),
            issued: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            calls: Vec::new(),
            writes: Vec::new(),
            followers: 0,
            fresh: Vec::new(),
            of_log: false,
            added: BTreeMap::new(),
            stored: None,
        })
    }

    /// An account to look at.
    pub fn account(&mut self, network_id: u64, actor: u64) -> Result<&Account> {
        Ok(&self.slot((network_id, actor, None))?.account)
    }

    /// An account to change.
    pub fn account_mut(&mut self, network_id: u64, actor: u64) -> Result<&mut Account> {
        let slot = self.slot((network_id, actor, None))?;
        slot.dirty = true;
        Ok(&mut slot.account)
    }

    /// Balance of an address, minor units.
    pub fn balance(&mut self, network_id: u64, address: &Address) -> Result<i128> {
        let key = self.keeper(network_id, address)?;
        Ok(self.slot(key)?.account.holding(address).map_or(0, |h| h.balance))
    }

    /// Money at an address, to change it.
    pub fn holding_mut(&mut self, network_id: u64, address: &Address) -> Result<&mut Holding> {
        let key = self.keeper(network_id, address)?;
        let slot = self.slot(key)?;
        slot.dirty = true;
        Ok(slot.account.holding_mut(address))
    }

    /// The record that keeps the money of an address.
    fn keeper(&mut self, network_id: u64, address: &Address) -> Result<SlotKey> {
        let own = (network_id, address.actor(), None);
        let keeps = self.slot(own)?.account.keeps(address);
        Ok(if keeps { own } else { (network_id, address.actor(), Some(*address)) })
    }

    fn slot(&mut self, key: SlotKey) -> Result<&mut Slot> {
        if let Some((_, place)) = self.recent.iter().flatten().find(|(recent, _)| *recent == key) {
            return Ok(&mut self.slots[*place]);
        }
        let found = match key.2 {
            None => self.accounts.get(&(key.0, key.1)),
            Some(_) => self.further.get(&key),
        };
        let place = match found {
            Some(place) => *place,
            None => self.load_slot(key)?,
        };
        self.recent = [Some((key, place)), self.recent[0]];
        Ok(&mut self.slots[place])
    }

    fn load_slot(&mut self, key: SlotKey) -> Result<usize> {
        let account = match key {
            (network_id, actor, None) => match self.hot.as_mut().and_then(|hot| hot.take((network_id, actor))) {
                Some(account) => account,
                None => Box::new(Account::load(self.state, network_id, actor)?),
            },
            (network_id, _, Some(address)) => {
                Box::new(Account::find(self.state, &holding_key(network_id, &address))?.unwrap_or_default())
            }
        };
        let place = self.slots.len();
        self.slots.push(Slot { key, account, dirty: false });
        match key.2 {
            None => self.accounts.insert((key.0, key.1), place),
            Some(_) => self.further.insert(key, place),
        };
        Ok(place)
    }

    /// Makes room for as many accounts.
    pub fn expect_accounts(&mut self, count: usize) {
        self.accounts.reserve(count);
        self.slots.reserve(count);
    }

    /// Takes the newest lock of an account back, in a step that has changed nothing else of it.
    pub fn unlock(&mut self, network_id: u64, actor: u64) -> Result<()> {
        let slot = self.slot((network_id, actor, None))?;
        slot.account.pending.pop();
        slot.dirty = false;
        Ok(())
    }

    /// An order of a batch that was stored before this step; `None` if it is not there.
    pub fn stored_order(&mut self, batch: u64, index: u32) -> Result<Option<Order>> {
        if let Some(orders) = self.added.get(&batch) {
            return orders.get(index as usize).cloned().map(Order::decode).transpose();
        }
        if self.stored.as_ref().is_none_or(|(number, _)| *number != batch) {
            let record: Option<wire::BatchRecord> = get_record(self.state, Table::Batches, &batch.to_be_bytes())?;
            self.stored = Some((batch, record.unwrap_or_default().orders));
        }
        let orders = self.stored.as_ref().map_or(&[][..], |(_, orders)| orders);
        orders.get(index as usize).cloned().map(Order::decode).transpose()
    }

    /// The settled order at a key, as this step sees it.
    pub fn order_record(&self, key: &[u8; 20]) -> Result<Option<wire::OrderRecord>> {
        match self.orders.get(key) {
            Some(record) => Ok(record.clone()),
            None => get_record(self.state, Table::Orders, key),
        }
    }

    /// Settles an order.
    pub fn put_order_record(&mut self, key: [u8; 20], record: wire::OrderRecord) {
        match self.of_log {
            true => drop(self.orders.insert(key, Some(record))),
            // Thousands of orders a step, of which hardly any is looked at again.
            false => {
                self.put(Table::Orders, key, encode_order_record(&record));
                self.fresh.push((key, record.order_id));
            }
        }
    }

    /// Whether this step has settled the order with this id at a key.
    pub fn has_settled(&self, key: &[u8; 20], id: &Hash) -> bool {
        self.fresh.iter().any(|(k, order_id)| k == key && order_id[..] == id[..])
    }

    /// The settled order without a sequence number, as this step sees it.
    pub fn order_by_id(&self, key: &[u8; 48]) -> Result<Option<wire::OrderRecord>> {
        match self.by_id.get(key) {
            Some(record) => Ok(record.clone()),
            None => get_record(self.state, Table::Orders, key),
        }
    }

    /// Settles an order without a sequence number.
    pub fn put_order_by_id(&mut self, key: [u8; 48], record: wire::OrderRecord) {
        self.by_id.insert(key, Some(record));
    }

    /// Undoes one.
    pub fn delete_order_by_id(&mut self, key: [u8; 48]) {
        self.by_id.insert(key, None);
    }

    /// A PBTX network; `None` if this shard has not heard of it.
    pub fn network(&mut self, network_id: u64) -> Result<Option<&mut NetworkSlot>> {
        use std::collections::btree_map::Entry;
        let slot = match self.networks.entry(network_id) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => {
                let record = get_record(self.state, Table::Networks, &network_id.to_be_bytes())?;
                e.insert(record.map(NetworkSlot::new))
            }
        };
        Ok(slot.as_mut())
    }

    /// Sets what is known of a PBTX network; its stream stays.
    pub fn set_network(&mut self, network_id: u64, network: wire::NetworkRecord) -> Result<()> {
        self.network(network_id)?;
        let slot = self.networks.entry(network_id).or_default();
        let slot = slot.get_or_insert_with(|| NetworkSlot::new(wire::NetworkShardRecord::default()));
        (slot.network, slot.dirty) = (Arc::new(network), true);
        Ok(())
    }

    /// Appends to a network's stream.
    pub fn stream(&mut self, network_id: u64, entry: wire::StreamRecord) -> Result<()> {
        let Some(slot) = self.network(network_id)? else { return Ok(()) };
        slot.entries += 1;
        slot.dirty = true;
        let position = slot.entries;
        let record = wire::StreamRecord { time_us: self.now_us, ..entry };
        self.streamed = true;
        self.put(Table::Stream, stream_key(network_id, position), record.encode_to_vec());
        Ok(())
    }

    /// Forgets the first entries of a network's stream.
    pub fn prune(&mut self, network_id: u64, before_us: u64, max_rows: u32) -> Result<()> {
        let Some(slot) = self.network(network_id)? else { return Ok(()) };
        let (mut pruned, end) = (slot.pruned, slot.entries);
        for _ in 0..max_rows {
            let key = stream_key(network_id, pruned + 1);
            // An entry of this very step is younger.
            let entry: Option<wire::StreamRecord> = get_record(self.state, Table::Stream, &key)?;
            if pruned >= end || entry.is_none_or(|e| e.time_us >= before_us) {
                break;
            }
            self.delete(Table::Stream, key);
            pruned += 1;
        }
        if let Some(slot) = self.network(network_id)? {
            slot.dirty |= slot.pruned != pruned;
            slot.pruned = pruned;
        }
        Ok(())
    }

    /// Undoes an order.
    pub fn delete_order_record(&mut self, key: [u8; 20]) {
        self.orders.insert(key, None);
    }

    /// Notes that an order is taken back.
    pub fn undo(&mut self, batch: u64, index: usize) -> Result<()> {
        self.progress(batch)?.clear(index);
        self.undone.push((batch, index));
        Ok(())
    }

    /// Progress of a batch that is stored.
    pub fn progress(&mut self, batch: u64) -> Result<&mut Progress> {
        use std::collections::btree_map::Entry;
        Ok(match self.progress.entry(batch) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => e.insert(load_progress(self.state, batch)?),
        })
    }

    /// The batch with a root, stored before or by this step.
    pub fn batch_of(&self, root: &Hash) -> Result<Option<u64>> {
        let added = self.progress.iter().find(|(number, p)| p.root == *root && self.added.contains_key(number));
        match added {
            Some((number, _)) => Ok(Some(*number)),
            None => get_u64(self.state, Table::Roots, root),
        }
    }

    /// Stores a new batch and returns its number.
    pub fn add_batch(&mut self, root: Hash, orders: &[bytes::Bytes]) -> u64 {
        let number = self.totals.next.0;
        if self.of_log {
            self.added.insert(number, orders.to_vec());
        }
        self.totals.next.0 += 1;
        self.put(Table::Batches, number.to_be_bytes(), encode_batch_record(orders));
        self.put(Table::Roots, root, number.to_be_bytes());
        let mut progress = Progress::new(root, orders.len());
        progress.dirty = true;
        self.progress.insert(number, progress);
        number
    }

    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push(Write::put(table, key, value));
    }

    pub fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.writes.push(Write::delete(table, key));
    }

    /// Credits an address of this shard and remembers where the money came from.
    pub fn credit(&mut self, network_id: u64, address: &Address, amount: u64, entry: wire::CreditEntry) -> Result<()> {
        let batch = self.totals.next.2 + (self.credits.1 / CREDITS_PER_RECORD) as u64;
        let index = (self.credits.1 % CREDITS_PER_RECORD) as u32;
        let holding = self.holding_mut(network_id, address)?;
        let previous = std::mem::replace(&mut holding.newest, (batch + 1, index));
        holding.balance += amount as i128;
        holding.credits += 1;
        self.totals.accounts += planted::when(Bug::CreditUnposted, 0, amount as i128);
        if index == 0 {
            self.credits.0.push(Vec::new());
        }
        let record = self.credits.0.last_mut().expect("one is begun for the first credit");
        put_credit_record(record, address, &entry, previous);
        self.credits.1 += 1;
        Ok(())
    }

    /// Takes a credit back, of an order that a recovery has voided. The balance may go below zero for a while.
    pub fn take_back(
        &mut self,
        network_id: u64,
        address: &Address,
        amount: u64,
        entry: wire::CreditEntry,
    ) -> Result<()> {
        self.credit(network_id, address, 0, entry)?;
        self.holding_mut(network_id, address)?.balance -= amount as i128;
        self.totals.accounts -= amount as i128;
        Ok(())
    }

    /// A note, as this step sees it.
    pub fn note(&mut self, nonce: &Nonce) -> Result<&wire::NoteRecord> {
        use std::collections::btree_map::Entry;
        Ok(match self.notes.entry(*nonce) {
            Entry::Occupied(e) => &e.into_mut().0,
            Entry::Vacant(e) => {
                let record = get_record(self.state, Table::Notes, &nonce.0)?.unwrap_or_default();
                &e.insert((record, false)).0
            }
        })
    }

    /// Changes a note.
    pub fn put_note(&mut self, nonce: Nonce, record: wire::NoteRecord) {
        self.notes.insert(nonce, (record, true));
    }

    /// Takes all changes of notes back, in a step that has only locked some.
    pub fn forget_notes(&mut self) {
        self.notes.clear();
    }

    /// Posts that a note is spent.
    pub fn spend(&mut self, tier: u32) {
        self.notes_of(tier).1 += 1;
    }

    /// Takes back that a note was spent, as its order is void.
    pub fn take_back_spend(&mut self, tier: u32) {
        self.notes_of(tier).1 -= 1;
    }

    /// Issues a note, with its posting.
    pub fn issue(&mut self, asked: &NoteAsked) -> Result<()> {
        self.notes_of(asked.tier).0 += 1;
        self.issued(asked)?.add(asked.tier);
        Ok(())
    }

    /// Takes back that a note was issued, as its order is void.
    pub fn take_back_note(&mut self, asked: &NoteAsked) -> Result<()> {
        self.notes_of(asked.tier).0 -= 1;
        self.issued(asked)?.remove(asked.tier);
        Ok(())
    }

    fn notes_of(&mut self, tier: u32) -> &mut (u64, u64) {
        let tier = tier as usize;
        if self.totals.notes.len() <= tier {
            self.totals.notes.resize(tier + 1, (0, 0));
        }
        &mut self.totals.notes[tier]
    }

    fn issued(&mut self, asked: &NoteAsked) -> Result<&mut Issued> {
        use std::collections::btree_map::Entry;
        Ok(match self.issued.entry(asked.blinded.clone()) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => e.insert(Issued::load(self.state, &asked.blinded)?),
        })
    }

    /// Puts a credit for another shard in flight, or the order to take it back.
    pub fn send(&mut self, to_shard: u32, credit: wire::DeliveredCredit) {
        self.totals.sent += signed_amount(&credit);
        self.deliveries.entry(to_shard).or_default().push(credit);
    }

    /// Hands something to the log.
    pub fn call(&mut self, call: wire::LogCall) {
        self.calls.push(call);
    }

    /// Everything that changed, as writes.
    ///
    /// # Panics
    /// If the postings do not sum to zero: then this code is wrong, and nothing may be written.
    pub fn finish(mut self, shard: u32) -> Result<Outcome> {
        let mut outbox = Vec::new();
        for (to_shard, credits) in std::mem::take(&mut self.deliveries) {
            outbox.push((to_shard, self.write_deliveries(shard, to_shard, credits)?));
        }
        if !self.calls.is_empty() {
            outbox.push((LOG, self.write_calls(shard)?));
        }
        for record in std::mem::take(&mut self.credits).0 {
            let number = self.totals.next.2;
            self.totals.next.2 += 1;
            self.put(Table::Credits, number.to_be_bytes(), record);
        }
        let mut settled_end = None;
        for (number, index) in std::mem::take(&mut self.undone) {
            let progress = self.progress(number)?;
            let mut bits = Bitmap::empty(progress.count);
            bits.set(index);
            let entry = settled_entry(progress, &bits, true);
            self.put_settled(entry);
            self.totals.orders -= 1;
            settled_end = Some(self.totals.next.1);
        }
        for (number, progress) in std::mem::take(&mut self.progress) {
            if !progress.dirty {
                continue;
            }
            if !progress.fresh.is_empty() {
                self.totals.orders += progress.fresh.ones() as u64;
                let by_log: Vec<usize> = progress.fresh.iter().filter(|i| progress.by_log.get(*i)).collect();
                let mut said = Bitmap::empty(progress.count);
                by_log.into_iter().for_each(|i| said.set(i));
                for (orders, by_log) in [(progress.fresh.without(&said), false), (said, true)] {
                    if !orders.is_empty() {
                        self.put_settled(wire::SettledEntry { by_log, ..settled_entry(&progress, &orders, false) });
                    }
                }
                settled_end = Some(self.totals.next.1);
            }
            let record = wire::ProgressRecord {
                root: bytes::Bytes::copy_from_slice(&progress.root),
                count: progress.count as u32,
                settled: progress.settled.to_bytes(),
                certificates: progress.certificates,
                by_log: if progress.by_log.is_empty() { Default::default() } else { progress.by_log.to_bytes() },
            };
            self.put(Table::Progress, number.to_be_bytes(), record.encode_to_vec());
        }
        for (key, record) in std::mem::take(&mut self.orders) {
            match record {
                Some(record) => self.put(Table::Orders, key, record.encode_to_vec()),
                None => self.delete(Table::Orders, key),
            }
        }
        for (key, record) in std::mem::take(&mut self.by_id) {
            match record {
                Some(record) => self.put(Table::Orders, key, record.encode_to_vec()),
                None => self.delete(Table::Orders, key),
            }
        }
        for (nonce, (record, changed)) in std::mem::take(&mut self.notes) {
            if changed {
                self.put(Table::Notes, nonce.0, record.encode_to_vec());
            }
        }
        for (blinded, issued) in std::mem::take(&mut self.issued) {
            match issued.encode() {
                None => self.delete(Table::Issued, &blinded[..]),
                Some(value) => self.put(Table::Issued, &blinded[..], value),
            }
        }
        for (network_id, slot) in std::mem::take(&mut self.networks) {
            if let Some(slot) = slot.filter(|slot| slot.dirty) {
                let (network, entries, pruned) = (Some((*slot.network).clone()), slot.entries, slot.pruned);
                let record = wire::NetworkShardRecord { network, entries, pruned };
                self.put(Table::Networks, network_id.to_be_bytes(), record.encode_to_vec());
            }
        }
        if self.streamed {
            // Whoever waits for news looks.
            settled_end = Some(self.totals.next.1);
        }
        self.writes.reserve(self.slots.len() + 1);
        let mut accounts = Written::default();
        accounts.reserve(self.slots.len());
        for slot in std::mem::take(&mut self.slots).into_iter().filter(|slot| slot.dirty) {
            self.put(Table::Accounts, record_key(&slot.key), slot.account.encode());
            if let (network_id, actor, None) = slot.key {
                accounts.push((network_id, actor), slot.account);
            }
        }
        assert_eq!(self.totals.sum(), 0, "the postings of a step sum to zero");
        if self.totals != self.before {
            let record = self.totals.encode().encode_to_vec();
            self.put(Table::Meta, TOTALS_KEY, record);
        }
        Ok(Outcome { writes: self.writes, outbox, settled_end, accounts })
    }

    fn put_settled(&mut self, mut entry: wire::SettledEntry) {
        let position = self.totals.next.1;
        self.totals.next.1 += 1;
        entry.position = position;
        self.put(Table::Settled, position.to_be_bytes(), entry.encode_to_vec());
    }

    /// One delivery a call: each leaves the outbox when the log has it.
    fn write_calls(&mut self, from_shard: u32) -> Result<u64> {
        let key = link_key(Link::Sent, LOG);
        let mut sequence = get_u64(self.state, Table::Links, &key)?.unwrap_or(0);
        for call in std::mem::take(&mut self.calls) {
            sequence += 1;
            let part = wire::Delivery { from_shard, to_shard: LOG, sequence, calls: vec![call], ..Default::default() };
            self.put(Table::Outbox, outbox_key(LOG, sequence), part.encode_to_vec());
        }
        self.put(Table::Links, key, sequence.to_be_bytes());
        Ok(sequence)
    }

    fn write_deliveries(&mut self, from_shard: u32, to_shard: u32, credits: Vec<wire::DeliveredCredit>) -> Result<u64> {
        let key = link_key(Link::Sent, to_shard);
        let mut sequence = get_u64(self.state, Table::Links, &key)?.unwrap_or(0);
        let empty = |sequence| wire::Delivery { from_shard, to_shard, sequence, ..Default::default() };
        let mut part = empty(sequence + 1);
        let mut size = 0;
        let mut parts = Vec::new();
        for credit in credits {
            size += credit.encoded_len() + 8;
            part.credits.push(credit);
            if size >= DELIVERY_BYTES {
                sequence += 1;
                parts.push(std::mem::replace(&mut part, empty(sequence + 1)));
                size = 0;
            }
        }
        if !part.credits.is_empty() {
            sequence += 1;
            parts.push(part);
        }
        for part in parts {
            self.put(Table::Outbox, outbox_key(to_shard, part.sequence), part.encode_to_vec());
        }
        self.put(Table::Links, key, sequence.to_be_bytes());
        Ok(sequence)
    }
}

/// What a delivered credit moves: below zero if it is taken back.
pub(crate) fn signed_amount(credit: &wire::DeliveredCredit) -> i128 {
    let reversed = credit.source.as_ref().is_some_and(|s| s.kind() == wire::credit_entry::Kind::Reversed);
    if reversed && !planted::is(Bug::ReversalCredits) { -(credit.amount as i128) } else { credit.amount as i128 }
}

fn record_key(key: &SlotKey) -> Vec<u8> {
    match key {
        (network_id, actor, None) => account_key(*network_id, *actor).to_vec(),
        (network_id, _, Some(address)) => holding_key(*network_id, address).to_vec(),
    }
}
