//! What a shard keeps: tables of bytes, their keys, and the records in them.
//!
//! The state machine reads through [`State`] and returns writes, so the same code runs over an
//! embedded engine and over the simulator's disk. `docs/wire.md` describes the records.

use bytes::Bytes;
use prost::Message;

use crate::address::Address;
use crate::canonical::{self as tag, Reader, put_bytes, put_fixed64, put_message, put_some, put_uint32, put_uint64};
use crate::error::{Code, Error, Result};
use crate::merkle::Hash;
use crate::wire;

/// A table of one shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// (network, actor) -> `AccountRecord`; (network, actor, address) for further addresses of an actor.
    Accounts,
    /// Batch number -> `BatchRecord`: the envelopes.
    Batches,
    /// Batch number -> `ProgressRecord`: certificates, and what is settled.
    Progress,
    /// Batch root -> batch number.
    Roots,
    /// (network, actor, seqnum) -> `OrderRecord` of the settled order.
    Orders,
    /// Credit batch number -> `CreditsRecord`.
    Credits,
    /// Position -> `SettledEntry`: the settled stream that peers follow.
    Settled,
    /// (to shard, sequence) -> `Delivery`: credits not yet acknowledged by their shard.
    Outbox,
    /// (direction, shard) -> sequence.
    Links,
    /// Authority -> position in its settled stream up to which this shard has everything.
    Cursors,
    /// Totals and whatever there is one of.
    Meta,
    /// PBTX network -> `NetworkShardRecord`, at the shard of its actors.
    Networks,
    /// (PBTX network, position) -> `StreamRecord`: what its listeners follow.
    Stream,
    /// Nonce of a note -> `NoteRecord`, on shard 0.
    Notes,
    /// Blinded nonce -> the tiers that settled orders of this shard have asked for it, a bit each (u64).
    Issued,
    /// Of the log: shared objects and all else that its state hash covers, by a letter and their key.
    Objects,
    /// Of the log: session -> `SessionRecord`.
    Sessions,
    /// Of the log: (session, position) -> `OrderedUnit`.
    Units,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 18] = [
        Table::Accounts,
        Table::Batches,
        Table::Progress,
        Table::Roots,
        Table::Orders,
        Table::Credits,
        Table::Settled,
        Table::Outbox,
        Table::Links,
        Table::Cursors,
        Table::Meta,
        Table::Networks,
        Table::Stream,
        Table::Notes,
        Table::Issued,
        Table::Objects,
        Table::Sessions,
        Table::Units,
    ];

    /// Name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Table::Accounts => "accounts",
            Table::Batches => "batches",
            Table::Progress => "progress",
            Table::Roots => "roots",
            Table::Orders => "orders",
            Table::Credits => "credits",
            Table::Settled => "settled",
            Table::Outbox => "outbox",
            Table::Links => "links",
            Table::Cursors => "cursors",
            Table::Meta => "meta",
            Table::Networks => "networks",
            Table::Stream => "stream",
            Table::Notes => "notes",
            Table::Issued => "issued",
            Table::Objects => "objects",
            Table::Sessions => "sessions",
            Table::Units => "units",
        }
    }
}

/// Reads of one shard's tables.
pub trait State {
    /// The value of a key. Errors: `STORAGE_FAILED`, `STORAGE_CORRUPT`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;
    /// Shows the value of a key where it lies, without a copy; whether there is one. Errors: as [`State::get`].
    fn look(&self, table: Table, key: &[u8], look: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.get(table, key)?.map(|value| look(&value)).is_some())
    }
    /// Shows the records of several accounts, in any order and by their place in `keys`; not those that there are none of.
    /// Errors: as [`State::get`].
    fn look_accounts(&self, keys: &[[u8; 16]], look: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        let mut each = keys.iter().enumerate();
        each.try_for_each(|(i, key)| self.look(Table::Accounts, key, &mut |record| look(i, record)).map(drop))
    }
    /// Entries with `from <= key`, ascending, at most `limit`.
    fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>>;
}

/// One change: `None` deletes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// Table.
    pub table: Table,
    /// Key.
    pub key: Vec<u8>,
    /// New value.
    pub value: Option<Vec<u8>>,
}

impl Write {
    /// Sets a key.
    pub fn put(table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Write { table, key: key.into(), value: Some(value.into()) }
    }

    /// Removes a key.
    pub fn delete(table: Table, key: impl Into<Vec<u8>>) -> Self {
        Write { table, key: key.into(), value: None }
    }
}

/// The log's number where a shard's number is asked for: in deliveries and links.
pub const LOG: u32 = u32::MAX;

/// Key of an account.
pub fn account_key(network_id: u64, actor: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&network_id.to_be_bytes());
    key[8..].copy_from_slice(&actor.to_be_bytes());
    key
}

/// Key of the money at an address that is not the first seen of its actor.
pub fn holding_key(network_id: u64, address: &Address) -> [u8; 48] {
    let mut key = [0; 48];
    key[..16].copy_from_slice(&account_key(network_id, address.actor()));
    key[16..].copy_from_slice(address.as_bytes());
    key
}

/// Key of a settled order.
pub fn order_key(network_id: u64, actor: u64, seqnum: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&account_key(network_id, actor));
    key[16..].copy_from_slice(&seqnum.to_be_bytes());
    key
}

/// Key of a settled order of a network without sequence numbers.
pub fn order_id_key(network_id: u64, actor: u64, id: &Hash) -> [u8; 48] {
    let mut key = [0; 48];
    key[..16].copy_from_slice(&account_key(network_id, actor));
    key[16..].copy_from_slice(id);
    key
}

/// Key of an entry of a network's stream.
pub fn stream_key(network_id: u64, position: u64) -> [u8; 16] {
    account_key(network_id, position)
}

/// Key of an outbox entry.
pub fn outbox_key(to_shard: u32, sequence: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&to_shard.to_be_bytes());
    key[4..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// A counter of the links between shards of one authority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// Last sequence put into the outbox for the shard.
    Sent,
    /// Last sequence that the shard acknowledged.
    Acknowledged,
    /// Last sequence applied from the shard.
    Applied,
}

/// Key of a link's counter.
pub fn link_key(link: Link, shard: u32) -> [u8; 5] {
    let mut key = [0; 5];
    key[0] = match link {
        Link::Sent => b's',
        Link::Acknowledged => b'k',
        Link::Applied => b'a',
    };
    key[1..].copy_from_slice(&shard.to_be_bytes());
    key
}

/// Key of the one totals record.
pub const TOTALS_KEY: &[u8] = b"totals";

/// A u64 value.
pub fn get_u64(state: &dyn State, table: Table, key: &[u8]) -> Result<Option<u64>> {
    let Some(bytes) = state.get(table, key)? else { return Ok(None) };
    let bytes = <[u8; 8]>::try_from(bytes.as_ref()).map_err(|_| corrupt(table, key, "not 8 bytes"))?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

/// A record.
pub fn get_record<M: Message + Default>(state: &dyn State, table: Table, key: &[u8]) -> Result<Option<M>> {
    match state.get(table, key)? {
        None => Ok(None),
        Some(bytes) => M::decode(bytes).map(Some).map_err(|e| corrupt(table, key, &e.to_string())),
    }
}

/// A record that must be there because another one points to it.
pub fn need_record<M: Message + Default>(state: &dyn State, table: Table, key: &[u8]) -> Result<M> {
    get_record(state, table, key)?.ok_or_else(|| corrupt(table, key, "missing"))
}

pub(crate) fn corrupt(table: Table, key: &[u8], what: &str) -> Error {
    Error::new(Code::StorageCorrupt, format!("{} {}: {what}", table.name(), hex::encode(key)))
}

/// An i128 of a record; empty bytes are 0.
pub fn i128_of(bytes: &[u8]) -> Result<i128> {
    if bytes.is_empty() {
        return Ok(0);
    }
    <[u8; 16]>::try_from(bytes)
        .map(i128::from_le_bytes)
        .map_err(|_| Error::expected(Code::StorageCorrupt, "bytes of a balance", 16, bytes.len()))
}

/// The bytes of an i128 in a record.
pub fn i128_bytes(value: i128) -> Bytes {
    Bytes::copy_from_slice(&value.to_le_bytes())
}

/// Money at one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holding {
    /// The address.
    pub address: Address,
    /// Minor units; below zero for the issuer, or for a while where this authority lags.
    pub balance: i128,
    /// Credits received so far.
    pub credits: u64,
    /// The newest credit: key of its `CreditsRecord` plus 1, and its place there; 0 if none.
    pub newest: (u64, u32),
}

/// An account in memory: money by address, and the spending state of the actor.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// That of the first address seen of the actor. Anyone may pay addresses that share its 63 bits, so
    /// each further one has a record of its own, at [`holding_key`]: with its one holding and nothing else.
    pub holdings: Vec<Holding>,
    /// The address that the first settled order bound to the actor.
    pub address: Option<Address>,
    /// Current permission, encoded; empty before the first order settles.
    pub permission: Bytes,
    /// Last settled.
    pub seqnum: u32,
    /// Of the last settled order.
    pub prev_hash: u64,
    /// Orders voted for and not settled, consecutive from `seqnum + 1`.
    pub pending: Vec<wire::PendingRecord>,
    /// Certified orders that wait for an earlier one.
    pub early: Vec<wire::EarlyRecord>,
    /// Seqnum of the last settled CALL; 0 if there is none.
    pub last_call: u32,
    /// Seqnum from which a recovery has frozen it; 0 if none has.
    pub frozen: u32,
    /// Last seqnum that a recovery has voided; 0 if none has.
    pub voided: u32,
    /// Seqnum of the last RECOVER that went to the log; 0 if none did.
    pub recovering: u32,
    /// Of an actor of a PBTX network: whether the admin has frozen it.
    pub barred: bool,
    /// Of an actor of a PBTX network: seqnum of its last settled change of keys, and of the last that the log has
    /// decided.
    pub rotation: (u32, u32),
    /// Of an actor of a PBTX network: generation of its permission.
    pub generation: u32,
    /// Of an actor of a PBTX network: id of an order that its admin has admitted, empty if none.
    pub admitted: Bytes,
}

impl Account {
    /// From its record.
    pub fn decode(record: wire::AccountRecord) -> Result<Account> {
        let address = |bytes: &Bytes| {
            <[u8; 32]>::try_from(bytes.as_ref())
                .map(Address::new)
                .map_err(|_| Error::expected(Code::StorageCorrupt, "bytes of an address", 32, bytes.len()))
        };
        let mut holdings = Vec::with_capacity(record.holdings.len());
        for h in &record.holdings {
            holdings.push(Holding {
                address: address(&h.address)?,
                balance: i128_of(&h.balance)?,
                credits: h.credits,
                newest: (h.credit_batch, h.credit_index),
            });
        }
        Ok(Account {
            holdings,
            address: if record.address.is_empty() { None } else { Some(address(&record.address)?) },
            permission: record.permission,
            seqnum: record.seqnum,
            prev_hash: record.prev_hash,
            pending: record.pending,
            early: record.early,
            last_call: record.last_call,
            frozen: record.frozen,
            voided: record.voided,
            recovering: record.recovering,
            barred: record.barred,
            rotation: (record.rotating, record.rotated),
            generation: record.generation,
            admitted: record.admitted,
        })
    }

    /// From an encoded record, as [`Account::decode`]. By hand, as this is done three times a transfer; whatever is unusual
    /// is left to the generated decoder, and a test holds this one to it.
    pub(super) fn read(bytes: &[u8]) -> Result<Account> {
        let decode =
            |bytes| wire::AccountRecord::decode(bytes).map_err(|e| Error::new(Code::StorageCorrupt, e.to_string()));
        read_account(bytes).map_or_else(|| Account::decode(decode(bytes)?), Ok)
    }

    /// Its `AccountRecord`, encoded. By hand, as this is written three times a transfer; a test holds it to
    /// the generated encoder.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(176 + 80 * self.pending.len());
        for h in &self.holdings {
            put_message(&mut out, tag::bytes(1), |out| {
                put_bytes(out, tag::bytes(1), h.address.as_bytes());
                put_bytes(out, tag::bytes(2), &h.balance.to_le_bytes());
                put_uint64(out, tag::varint(3), h.credits);
                put_uint64(out, tag::varint(4), h.newest.0);
                put_uint32(out, tag::varint(5), h.newest.1);
            });
        }
        put_some(&mut out, tag::bytes(2), self.address.as_ref().map_or(&[][..], |a| a.as_bytes()));
        put_some(&mut out, tag::bytes(3), &self.permission);
        put_uint32(&mut out, tag::varint(4), self.seqnum);
        put_fixed64(&mut out, tag::fixed64(5), self.prev_hash);
        for p in &self.pending {
            put_message(&mut out, tag::bytes(6), |out| {
                put_some(out, tag::bytes(1), &p.order_id);
                put_uint64(out, tag::varint(2), p.batch);
                put_uint32(out, tag::varint(3), p.index);
                put_uint64(out, tag::varint(4), p.amount);
                put_uint32(out, tag::varint(5), p.set_permission.into());
                put_some(out, tag::bytes(6), &p.open);
                put_uint32(out, tag::varint(7), p.call.into());
            });
        }
        self.early.iter().for_each(|e| prost::encoding::message::encode(7, e, &mut out));
        put_uint32(&mut out, tag::varint(8), self.last_call);
        put_uint32(&mut out, tag::varint(9), self.frozen);
        put_uint32(&mut out, tag::varint(10), self.voided);
        put_uint32(&mut out, tag::varint(11), self.recovering);
        put_uint32(&mut out, tag::varint(12), self.barred.into());
        put_uint32(&mut out, tag::varint(13), self.rotation.0);
        put_uint32(&mut out, tag::varint(14), self.rotation.1);
        put_uint32(&mut out, tag::varint(15), self.generation);
        if !self.admitted.is_empty() {
            prost::encoding::bytes::encode(16, &self.admitted, &mut out);
        }
        out
    }

    /// Reads an account; one that nothing is known of is empty.
    pub fn load(state: &dyn State, network_id: u64, actor: u64) -> Result<Account> {
        Ok(Account::find(state, &account_key(network_id, actor))?.unwrap_or_default())
    }

    /// The account at a key of [`Table::Accounts`].
    pub(crate) fn find(state: &dyn State, key: &[u8]) -> Result<Option<Account>> {
        let mut found = None;
        state.look(Table::Accounts, key, &mut |bytes| found = Some(Account::read(bytes)))?;
        found.transpose().map_err(|e| corrupt(Table::Accounts, key, &e.message))
    }

    /// Whether money at this address is kept in this record.
    pub fn keeps(&self, address: &Address) -> bool {
        self.holdings.first().is_none_or(|h| h.address == *address)
    }

    /// Money at an address, as far as this record keeps it.
    pub fn holding(&self, address: &Address) -> Option<&Holding> {
        self.holdings.iter().find(|h| h.address == *address)
    }

    /// Reads the money at an address, wherever it is kept.
    pub fn load_holding(state: &dyn State, network_id: u64, address: &Address) -> Result<Option<Holding>> {
        Ok(Account::load_with_holding(state, network_id, address)?.1)
    }

    /// The account of an address and the money there, both of one moment: a step may be written between two reads.
    pub fn load_with_holding(
        state: &dyn State,
        network_id: u64,
        address: &Address,
    ) -> Result<(Account, Option<Holding>)> {
        let mut account = Account::load(state, network_id, address.actor())?;
        loop {
            if account.keeps(address) {
                let holding = account.holding(address).cloned();
                return Ok((account, holding));
            }
            let other = Account::find(state, &holding_key(network_id, address))?;
            let again = Account::load(state, network_id, address.actor())?;
            if again == account {
                return Ok((account, other.and_then(|other| other.holding(address).cloned())));
            }
            account = again;
        }
    }

    /// Money at an address, made if there is none yet.
    pub fn holding_mut(&mut self, address: &Address) -> &mut Holding {
        let at = match self.holdings.iter().position(|h| h.address == *address) {
            Some(at) => at,
            None => {
                self.holdings.push(Holding { address: *address, balance: 0, credits: 0, newest: (0, 0) });
                self.holdings.len() - 1
            }
        };
        &mut self.holdings[at]
    }

    /// What pending orders reserve, minor units.
    pub fn reserved(&self) -> i128 {
        self.pending.iter().map(|p| p.amount as i128).sum()
    }

    /// Whether a recovery holds this seqnum back.
    pub fn is_frozen(&self, seqnum: u32) -> bool {
        self.frozen != 0 && seqnum >= self.frozen
    }

    /// Seqnum of the last CALL, pending ones included.
    pub fn newest_call(&self) -> u32 {
        match self.pending.iter().rposition(|p| p.call) {
            Some(at) => self.seqnum + 1 + at as u32,
            None => self.last_call,
        }
    }

    /// Sequence number that the next order must have, after all pending ones.
    pub fn next_seqnum(&self) -> u64 {
        self.seqnum as u64 + self.pending.len() as u64 + 1
    }

    /// prev_hash that the next order must have.
    pub fn next_prev_hash(&self) -> u64 {
        self.pending.last().map_or(self.prev_hash, |p| short_hash(&p.order_id))
    }
}

/// A usual account: canonical, with neither early orders nor anything of PBTX networks.
fn read_account(bytes: &[u8]) -> Option<Account> {
    let mut reader = Reader::new(bytes);
    let mut account = Account::default();
    while let Some(part) = reader.bytes_field(tag::bytes(1), bytes.len())? {
        let mut holding = Reader::within(bytes, part);
        if account.holdings.is_empty() {
            account.holdings.reserve_exact(1);
        }
        account.holdings.push(Holding {
            address: Address::new(holding.array(tag::bytes(1))?),
            balance: i128::from_le_bytes(holding.array(tag::bytes(2))?),
            credits: holding.uint64_field(tag::varint(3))?,
            newest: (holding.uint64_field(tag::varint(4))?, holding.uint32_field(tag::varint(5))?),
        });
        if !holding.is_done() {
            return None;
        }
    }
    if let Some(address) = reader.bytes_field(tag::bytes(2), 32)? {
        account.address = Some(Address::new(bytes[address].try_into().ok()?));
    }
    account.permission = Bytes::copy_from_slice(reader.slice(tag::bytes(3))?);
    account.seqnum = reader.uint32_field(tag::varint(4))?;
    account.prev_hash = reader.fixed64_field(tag::fixed64(5))?;
    while let Some(part) = reader.bytes_field(tag::bytes(6), bytes.len())? {
        let mut pending = Reader::within(bytes, part);
        if account.pending.is_empty() {
            account.pending.reserve_exact(1);
        }
        account.pending.push(wire::PendingRecord {
            order_id: Bytes::copy_from_slice(pending.slice(tag::bytes(1))?),
            batch: pending.uint64_field(tag::varint(2))?,
            index: pending.uint32_field(tag::varint(3))?,
            amount: pending.uint64_field(tag::varint(4))?,
            set_permission: pending.flag(tag::varint(5))?,
            open: Bytes::copy_from_slice(pending.slice(tag::bytes(6))?),
            call: pending.flag(tag::varint(7))?,
        });
        if !pending.is_done() {
            return None;
        }
    }
    account.last_call = reader.uint32_field(tag::varint(8))?;
    reader.is_done().then_some(account)
}

/// First 8 bytes of a body's hash, big-endian: what the next order's prev_hash must be.
pub fn short_hash(order_id: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&order_id[..8]);
    u64::from_be_bytes(first)
}

/// Sums of all postings of one shard, ever. Every step keeps [`Totals::sum`] at zero.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Sum of all balances here, the issuer's negative one included.
    pub accounts: i128,
    /// Debited here for accounts of other shards.
    pub sent: i128,
    /// Credited here from other shards.
    pub received: i128,
    /// Credited here by the genesis file.
    pub genesis: i128,
    /// Debited from the issuer for the whole genesis file, at its shard.
    pub issued: i128,
    /// Orders settled.
    pub orders: u64,
    /// Number of the next batch, settled entry, credit batch.
    pub next: (u64, u64, u64),
    /// Lines of the genesis file looked at.
    pub genesis_lines: u64,
    /// Whether the whole genesis file is loaded.
    pub genesis_done: bool,
    /// Certified orders that wait for an earlier one.
    pub waiting: u64,
    /// Sequence numbers that recoveries have voided.
    pub voided: u64,
    /// Notes issued and spent here, by tier; empty if there are none.
    pub notes: Vec<(u64, u64)>,
}

impl Totals {
    /// Reads them.
    pub fn load(state: &dyn State) -> Result<Totals> {
        let Some(r) = get_record::<wire::TotalsRecord>(state, Table::Meta, TOTALS_KEY)? else {
            return Ok(Totals::default());
        };
        Ok(Totals {
            accounts: i128_of(&r.accounts)?,
            sent: i128_of(&r.sent)?,
            received: i128_of(&r.received)?,
            genesis: i128_of(&r.genesis)?,
            issued: i128_of(&r.issued)?,
            orders: r.orders,
            next: (r.next_batch, r.next_settled, r.next_credits),
            genesis_lines: r.genesis_lines,
            genesis_done: r.genesis_done,
            waiting: r.waiting,
            voided: r.voided,
            notes: r.notes_issued.into_iter().zip(r.notes_spent).collect(),
        })
    }

    /// Their record.
    pub fn encode(&self) -> wire::TotalsRecord {
        wire::TotalsRecord {
            accounts: i128_bytes(self.accounts),
            sent: i128_bytes(self.sent),
            received: i128_bytes(self.received),
            genesis: i128_bytes(self.genesis),
            issued: i128_bytes(self.issued),
            orders: self.orders,
            next_batch: self.next.0,
            next_settled: self.next.1,
            next_credits: self.next.2,
            genesis_lines: self.genesis_lines,
            genesis_done: self.genesis_done,
            waiting: self.waiting,
            voided: self.voided,
            notes_issued: self.notes.iter().map(|(issued, _)| *issued).collect(),
            notes_spent: self.notes.iter().map(|(_, spent)| *spent).collect(),
        }
    }

    /// Worth of the notes issued here less those spent here, minor units: what this shard adds to what is outstanding.
    pub fn outstanding(&self) -> i128 {
        let worth = |(tier, (issued, spent)): (usize, &(u64, u64))| (*issued as i128 - *spent as i128) << tier;
        self.notes.iter().enumerate().map(worth).sum()
    }

    /// Zero, always. What left for other shards is money in flight until they have it; what came in
    /// and what genesis credited is owed by whoever was debited for it.
    pub fn sum(&self) -> i128 {
        self.accounts + self.sent + self.outstanding() - self.received - self.genesis + self.issued
    }
}

/// A hash from a record.
pub(crate) fn hash_of(bytes: &[u8]) -> Result<Hash> {
    Hash::try_from(bytes).map_err(|_| Error::expected(Code::StorageCorrupt, "bytes of a hash", 32, bytes.len()))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
