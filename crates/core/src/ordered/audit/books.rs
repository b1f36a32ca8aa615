//! What the units of the log come to: which orders applied is what their outcomes say, and what an order does then
//! follows from its content.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::channels::Channels;
use super::dkg::Runs;
use super::{Audit, NEWEST_MAX};
use crate::address::Address;
use crate::authority::audit::{Flow, read};
use crate::authority::mint::is_bearer;
use crate::authority::state::Table;
use crate::bearer::Bearer;
use crate::certificate::check_certificate;
use crate::content::{Action, Content, TYPE_CALL, TYPE_ROTATE};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::merkle::{Hash, root_from_parts};
use crate::network_flags::ORDERED;
use crate::ordered::bearers::{bearer_key, note_key};
use crate::ordered::modules::bridge::redeem_key;
use crate::ordered::modules::contracts::{contract_id, contract_key};
use crate::ordered::modules::primary::{deposit_key, redeem_hash};
use crate::ordered::orders::outcome_key;
use crate::permission::Permission;
use crate::wire::{self, contract_reply::State as S, credit_entry::Kind, input, network_command, output};

#[derive(Default)]
pub(super) struct Books {
    pub time_ms: u64,
    pub clocks: Vec<u64>,
    /// Held by open contracts, minor units.
    pub contracts: i128,
    pub contracts_made: u64,
    pub contracts_open: u64,
    pub channels: Channels,
    /// By address of the embedded primary.
    pub primary: BTreeMap<Bytes, i128>,
    pub deposits: u64,
    pub redeems: u64,
    pub last_redeem: Bytes,
    pub networks: BTreeMap<u64, wire::NetworkRecord>,
    pub runs: Runs,
    /// Bearer orders that the unit at hand has applied.
    pub bearers: BTreeSet<Hash>,
    /// Bearer orders with an outcome, and those of them that settle.
    pub bearers_made: u64,
    pub bearers_applied: u64,
    /// Notes that these spend.
    pub spent: Flow,
    /// By nonce: 1 more than the highest number of recoveries that an order to free it names.
    pub recovered: BTreeMap<[u8; 32], u32>,
    /// By (network, actor).
    pub actors: BTreeMap<(u64, u64), wire::ActorRecord>,
}

impl Books {
    pub fn new(authorities: usize) -> Books {
        Books { clocks: vec![0; authorities], ..Books::default() }
    }
}

/// An order that has applied.
pub(super) struct Applied {
    pub order: Order,
    pub account: Address,
    inputs: Vec<wire::Input>,
    outputs: Vec<wire::Output>,
    /// Outputs of the order before them.
    first: u32,
    memo: String,
    pub at: String,
}

impl Applied {
    pub fn credit(&self, output: u32, amount: u64, kind: Kind) -> wire::CreditEntry {
        wire::CreditEntry {
            network_id: self.order.network_id,
            actor: self.order.actor,
            seqnum: self.order.seqnum,
            output,
            order_id: Bytes::copy_from_slice(&self.order.id),
            amount,
            memo: self.memo.clone(),
            kind: kind as i32,
        }
    }
}

impl Audit<'_> {
    pub(super) fn unit(&mut self, unit: &wire::OrderedUnit, place: (u64, u32)) -> Result<()> {
        let Some(clock) = self.books.clocks.get_mut(unit.creator as usize) else {
            self.out.find(format!("unit {place:?}: expected an authority of the committee, found {}", unit.creator));
            return Ok(());
        };
        let Ok(data) = wire::UnitData::decode(unit.data.clone()) else { return Ok(()) };
        if data.clock_ms != 0 {
            *clock = data.clock_ms;
        }
        let mut sorted = self.books.clocks.clone();
        sorted.sort_unstable();
        // The lower median: as many clocks say this or more as there are honest ones.
        self.books.time_ms = self.books.time_ms.max(sorted[(sorted.len() - 1) / 2]);
        self.books.bearers.clear();
        for item in data.items {
            match wire::Item::decode(item).ok().and_then(|item| item.kind) {
                Some(wire::item::Kind::Orders(orders)) => self.item(&orders, place)?,
                Some(wire::item::Kind::Dkg(item)) => self.dkg_item(unit.creator, &item, place)?,
                _ => {}
            }
        }
        if data.clock_ms != 0 {
            let quorum = self.log.committee().quorum();
            self.books.channels.begin(quorum, &self.books.clocks, self.books.time_ms);
        }
        self.books.channels.unit_ends();
        Ok(())
    }

    fn item(&mut self, item: &wire::CertifiedOrders, place: (u64, u32)) -> Result<()> {
        let mut applied = false;
        let orders: Result<Vec<Order>> = item.bodies.iter().cloned().map(Order::decode_body).collect();
        let Ok(mut orders) = orders else { return Ok(()) };
        orders.sort_by_key(|order| order.seqnum);
        for order in orders {
            if order.network_id != self.log.committee().network.id {
                applied |= self.pbtx_order(&order, place)?;
            } else if order.transaction_type == TYPE_CALL {
                applied |= self.order(order, place)?;
            } else if is_bearer(&order) {
                applied |= self.bearer_order(order, place)?;
            }
        }
        if let (true, true, Err(e)) = (applied, self.signatures, self.proved(item)) {
            self.out.find(format!("unit {place:?}: orders of it applied, expected their certificate, found {e}"));
        }
        Ok(())
    }

    /// Whether the certificate is one of all these orders.
    fn proved(&self, item: &wire::CertifiedOrders) -> Result<()> {
        let (batch, certified) =
            check_certificate(self.log.committee(), &item.certificate.clone().unwrap_or_default())?;
        let ids = item.bodies.iter().map(|b| Sha256::digest(b).into());
        let placed: Vec<(usize, Hash)> = item.indices.iter().map(|i| *i as usize).zip(ids).collect();
        let proof: Vec<Hash> = item.proof.iter().filter_map(|h| h.as_ref().try_into().ok()).collect();
        if root_from_parts(&placed, batch.count, &proof) != Some(batch.root) || proof.len() != item.proof.len() {
            return Err(Error::new(Code::BadRoot, "other orders"));
        }
        match placed.iter().all(|(i, _)| certified.get(*i)) {
            true => Ok(()),
            false => Err(Error::new(Code::NoQuorum, "an order without a quorum")),
        }
    }

    /// Books an order, if this is where it has applied.
    fn order(&mut self, order: Order, place: (u64, u32)) -> Result<bool> {
        let key = outcome_key(order.network_id, order.actor, order.seqnum);
        let Some(outcome) = read::<wire::OutcomeRecord>(self.state, Table::Objects, &key)? else { return Ok(false) };
        let Ok(Content { action: Action::Call { account, call }, total: debit, .. }) = Content::decode(&order) else {
            return Ok(false);
        };
        let id = (order.network_id, order.actor);
        let last = self.out.callers.get(&id).map_or(0, |c| c.calls.last);
        let here = outcome.order_id == order.id[..] && (outcome.session, outcome.index) == place;
        if !here || order.seqnum <= last {
            return Ok(false);
        }
        if call.previous_call != last {
            // It came too early here, and again in the same unit.
            return Ok(false);
        }
        let at = format!("order {} (actor {}, seqnum {})", hex::encode(order.id), order.actor, order.seqnum);
        let flow = Flow::call(order.network_id, order.actor, order.seqnum, &order.id, debit);
        self.out.orders += 1;
        self.out.received += i128::from(debit);
        let caller = self.out.callers.entry(id).or_default();
        caller.calls.last = order.seqnum;
        caller.calls.settled.merge(&flow);
        caller.newest.push_back((order.seqnum, flow));
        if caller.newest.len() > NEWEST_MAX {
            caller.newest.pop_front();
        }
        let wire::Call { inputs, outputs, memo, .. } = *call;
        self.came_to(&outcome, Applied { order, account, inputs, outputs, first: 0, memo, at }, debit)?;
        Ok(true)
    }

    /// Books what an order came to.
    fn came_to(&mut self, outcome: &wire::OutcomeRecord, applied: Applied, debit: u64) -> Result<()> {
        if (outcome.code == 0) != outcome.message.is_empty()
            || Code::from_number(outcome.code).is_none() && outcome.code != 0
        {
            self.out.find(format!("{}: expected a code with a message or neither, found {outcome:?}", applied.at));
        }
        match outcome.code {
            0 => self.settled(&applied)?,
            _ if debit > 0 => self.credit(&applied.account, applied.credit(0, debit, Kind::Refund)),
            _ => {}
        }
        Ok(())
    }

    /// Books a bearer order, if this is where it has come to something.
    fn bearer_order(&mut self, order: Order, place: (u64, u32)) -> Result<bool> {
        let key = bearer_key(&order.id);
        let Some(outcome) = read::<wire::OutcomeRecord>(self.state, Table::Objects, &key)? else { return Ok(false) };
        if (outcome.session, outcome.index) != place || !self.books.bearers.insert(order.id) {
            return Ok(false);
        }
        let at = format!("bearer order {}", hex::encode(order.id));
        self.out.expect(format!("{at}: order of its outcome"), hex::encode(order.id), hex::encode(&outcome.order_id));
        self.books.bearers_made += 1;
        let bearer = match Content::decode(&order).map(|content| content.action) {
            Ok(Action::Bearer(bearer)) => bearer,
            Ok(Action::RecoverNotes(bearer)) => {
                self.out.expect(format!("{at}: code"), 0, outcome.code);
                for note in &bearer.notes {
                    let named = self.books.recovered.entry(note.nonce.0).or_default();
                    *named = note.recoveries.saturating_add(1).max(*named);
                }
                return Ok(true);
            }
            _ => return Ok(false),
        };
        if outcome.code == Code::NoteFreed as u32 {
            self.void_bearer(&order, &bearer, &at)?;
            return Ok(true);
        }
        self.out.orders += 1;
        self.books.bearers_applied += 1;
        for note in &bearer.notes {
            self.books.spent.merge(&Flow::note(&note.nonce.0, &order.id));
        }
        let worth = bearer.shared_value;
        let (first, outputs) = bearer.call();
        let (first, outputs) = (first as u32, outputs.to_vec());
        // One without shared outputs, which a recovery has found.
        let Some(account) = bearer.refund else { return Ok(true) };
        self.out.received += i128::from(worth);
        self.out.bearers.merge(&Flow::call(order.network_id, order.actor, order.seqnum, &order.id, worth));
        let applied = Applied { order, account, inputs: Vec::new(), outputs, first, memo: bearer.memo, at };
        self.came_to(&outcome, applied, worth)?;
        Ok(true)
    }

    /// An order that came when one of its notes was freed: what is freed stays so.
    fn void_bearer(&mut self, order: &Order, bearer: &Bearer, at: &str) -> Result<()> {
        let mut void = false;
        for note in &bearer.notes {
            let record: Option<wire::NoteRecoveryRecord> = read(self.state, Table::Objects, &note_key(&note.nonce.0))?;
            let other = |r: wire::NoteRecoveryRecord| {
                r.recoveries > note.recoveries || !r.spent_by.is_empty() && r.spent_by != order.id[..]
            };
            void |= record.is_some_and(other);
        }
        if !void || bearer.shared.is_empty() {
            self.out.find(format!("{at}: expected shared outputs, and a note that is freed, found it void without"));
        }
        Ok(())
    }

    /// Books an order of a PBTX network, if this is where it has applied.
    fn pbtx_order(&mut self, order: &Order, place: (u64, u32)) -> Result<bool> {
        let key = outcome_key(order.network_id, order.actor, order.seqnum);
        let Some(outcome) = read::<wire::OutcomeRecord>(self.state, Table::Objects, &key)? else { return Ok(false) };
        let id = (order.network_id, order.actor);
        let last = self.out.callers.get(&id).map_or(0, |c| c.calls.last);
        let here = outcome.order_id == order.id[..] && (outcome.session, outcome.index) == place;
        if !here || order.seqnum <= last {
            return Ok(false);
        }
        let at = format!("order {} (actor {}, seqnum {})", hex::encode(order.id), order.actor, order.seqnum);
        let flags = self.books.networks.get(&id.0).map_or(0, |n| n.flags);
        let rotates = order.transaction_type == TYPE_ROTATE;
        match flags & ORDERED != 0 {
            true => self.out.expect(format!("{at}: seqnum in a network with ORDERED"), last + 1, order.seqnum),
            false => self.out.expect(format!("{at}: change of keys in a network without ORDERED"), true, rotates),
        }
        self.out.expect(format!("{at}: outcome"), (0, ""), (outcome.code, &outcome.message));
        self.out.callers.entry(id).or_default().calls.last = order.seqnum;
        self.out.orders += 1;
        if let Some(actor) = self.books.actors.get_mut(&id).filter(|actor| rotates && !actor.removed)
            && let Ok(rotate) = wire::Rotate::decode(order.content.clone())
            && rotate.generation == actor.generation
        {
            actor.permission = rotate.permission;
            actor.generation += 1;
        }
        Ok(true)
    }

    pub(super) fn credit(&mut self, address: &Address, entry: wire::CreditEntry) {
        let shard = address.shard(self.log.committee().shards);
        self.out.sent.entry(shard).or_default().add(address.as_bytes(), entry.amount, &entry);
    }

    fn settled(&mut self, applied: &Applied) -> Result<()> {
        for input in &applied.inputs {
            match &input.kind {
                Some(input::Kind::ContractClaim(c)) => {
                    self.close(&c.contract, input.amount, Some(&c.preimage), applied)?
                }
                Some(input::Kind::ContractRefund(r)) => self.close(&r.contract, input.amount, None, applied)?,
                Some(input::Kind::ChannelWithdraw(w)) => self.channel_withdraw(w, input.amount, applied),
                None => {}
            }
        }
        for (i, out) in (applied.first..).zip(&applied.outputs) {
            match &out.kind {
                Some(output::Kind::Credit(credit)) => {
                    let address = Address::from_slice(&credit.address)?;
                    self.credit(&address, applied.credit(i, credit.amount, Kind::Call));
                }
                Some(output::Kind::ContractFund(fund)) => self.fund(i, fund, applied)?,
                Some(output::Kind::PrimaryRedeem(redeem)) => self.redeem(redeem, applied)?,
                Some(output::Kind::PrimaryDeposit(deposit)) => self.deposit(deposit, applied)?,
                Some(output::Kind::Network(command)) => self.network(command, applied),
                Some(output::Kind::Note(_)) | None => {}
                Some(kind) => self.channel_output(kind, i, applied)?,
            }
        }
        Ok(())
    }

    fn fund(&mut self, output: u32, fund: &wire::ContractFund, applied: &Applied) -> Result<()> {
        self.books.contracts += i128::from(fund.amount);
        self.books.contracts_made += 1;
        self.books.contracts_open += 1;
        let key = contract_key(&contract_id(&applied.order.id, output));
        let record: Option<wire::ContractRecord> = read(self.state, Table::Objects, &key)?;
        let found = record.and_then(|r| r.fund);
        self.out.expect(format!("{}: contract of output {output}", applied.at), Some(fund), found.as_ref());
        if fund.expiry_ms <= self.books.time_ms {
            self.out.find(format!("{}: expected contracts that expire later, found {}", applied.at, fund.expiry_ms));
        }
        Ok(())
    }

    /// A contract that was claimed with a preimage or taken back. That it happens once shows in how many are closed.
    fn close(&mut self, id: &[u8], amount: u64, preimage: Option<&Bytes>, applied: &Applied) -> Result<()> {
        let at = format!("{}: contract {}", applied.at, hex::encode(id));
        self.books.contracts -= i128::from(amount);
        self.books.contracts_open = self.books.contracts_open.saturating_sub(1);
        let record: wire::ContractRecord = read(self.state, Table::Objects, &contract_key(id))?.unwrap_or_default();
        let state = if preimage.is_some() { S::Claimed } else { S::Refunded };
        self.out.expect(format!("{at}: state"), state, record.state());
        self.out.expect(format!("{at}: preimage"), &preimage.cloned().unwrap_or_default(), &record.preimage);
        let fund = record.fund.unwrap_or_default();
        self.out.expect(format!("{at}: amount"), fund.amount, amount);
        let in_time = (self.books.time_ms < fund.expiry_ms) == preimage.is_some();
        let party = if preimage.is_some() { &fund.receiver } else { &fund.sender };
        let known = preimage.is_none_or(|p| fund.hash == Sha256::digest(p)[..]);
        if !in_time || party[..] != applied.account.as_bytes()[..] || !known {
            self.out.find(format!("{at}: expected its party, in time, with its preimage, found otherwise"));
        }
        Ok(())
    }

    fn redeem(&mut self, redeem: &wire::PrimaryRedeem, applied: &Applied) -> Result<()> {
        let entry = wire::RedeemEntry {
            index: self.books.redeems,
            address: redeem.address.clone(),
            amount: redeem.amount,
            order_id: Bytes::copy_from_slice(&applied.order.id),
            previous: self.books.last_redeem.clone(),
        };
        let found: Option<wire::RedeemEntry> = read(self.state, Table::Objects, &redeem_key(entry.index))?;
        self.out.expect(format!("{}: entry of the redeem log", applied.at), Some(&entry), found.as_ref());
        self.books.redeems += 1;
        self.books.last_redeem = Bytes::copy_from_slice(&redeem_hash(&entry));
        *self.books.primary.entry(entry.address).or_default() += i128::from(redeem.amount);
        Ok(())
    }

    fn deposit(&mut self, deposit: &wire::PrimaryDeposit, applied: &Applied) -> Result<()> {
        let entry = wire::DepositEntry {
            index: self.books.deposits,
            address: deposit.address.clone(),
            amount: deposit.amount,
            from: Bytes::copy_from_slice(applied.account.as_bytes()),
        };
        let found: Option<wire::DepositEntry> = read(self.state, Table::Objects, &deposit_key(entry.index))?;
        self.out.expect(format!("{}: entry of the deposit log", applied.at), Some(&entry), found.as_ref());
        self.books.deposits += 1;
        let left = self.books.primary.entry(entry.from).or_default();
        *left -= i128::from(deposit.amount);
        if *left < 0 {
            self.out.find(format!("{}: expected it to deposit what it has on the primary, found more", applied.at));
        }
        let address = Address::from_slice(&deposit.address)?;
        self.credit(&address, applied.credit(entry.index as u32, deposit.amount, Kind::Deposit));
        Ok(())
    }

    fn registered(&mut self, network_id: u64, permission: &Bytes) {
        let Ok(actor) = Permission::decode_actor(permission).map(|p| p.actor) else { return };
        let known = self.books.actors.get(&(network_id, actor)).cloned();
        let generation = known.as_ref().map_or(0, |a| a.generation) + 1;
        let known = known.filter(|a| !a.removed);
        if known.as_ref().is_some_and(|a| a.permission == *permission) {
            return;
        }
        let frozen = known.as_ref().is_some_and(|a| a.frozen);
        if known.is_none()
            && let Some(network) = self.books.networks.get_mut(&network_id)
        {
            network.actors += 1;
        }
        let record = wire::ActorRecord { permission: permission.clone(), removed: false, frozen, generation };
        self.books.actors.insert((network_id, actor), record);
    }

    fn network(&mut self, command: &wire::NetworkCommand, applied: &Applied) {
        use network_command::Kind as K;
        let own = Bytes::copy_from_slice(applied.account.as_bytes());
        let known = self.books.networks.get(&command.network_id).is_some_and(|r| !r.removed);
        let record = self.books.networks.entry(command.network_id).or_default();
        let may = match &command.kind {
            Some(K::Register(_)) => *record == wire::NetworkRecord::default(),
            Some(K::Accept(_)) => known && record.offered == own,
            Some(K::Open(_)) => known && (record.open || record.admin == own),
            Some(K::Precheck(_)) => known && (record.admin == own || record.listeners.contains(&own)),
            _ => known && record.admin == own,
        };
        match &command.kind {
            Some(K::Register(r)) => {
                (record.admin, record.flags) = (own, r.flags);
                (record.metadata, record.listeners) = (r.metadata.clone(), r.listeners.clone());
                record.open = r.open;
            }
            Some(K::Update(u)) => {
                (record.flags, record.listeners, record.open) = (u.flags, u.listeners.clone(), u.open);
            }
            Some(K::Precheck(precheck)) => {
                record.prechecks.retain(|p| p.by != own);
                if precheck.encoded_len() > 0 {
                    let at = record.prechecks.partition_point(|p| p.by < own);
                    let precheck = wire::NetworkPrecheck { by: own, precheck: Some(precheck.clone()) };
                    record.prechecks.insert(at, precheck);
                }
            }
            Some(K::Actor(permission)) => self.registered(command.network_id, permission),
            Some(K::Open(open)) => self.registered(command.network_id, &open.permission),
            Some(K::RemoveActor(actor)) => {
                record.actors = record.actors.saturating_sub(1);
                let known = self.books.actors.entry((command.network_id, *actor)).or_default();
                let generation = known.generation + 1;
                *known = wire::ActorRecord { removed: true, generation, ..Default::default() };
            }
            Some(K::FreezeActor(freeze)) => {
                let id = (command.network_id, freeze.actor);
                self.books.actors.entry(id).or_default().frozen = freeze.frozen;
            }
            Some(K::Prune(_) | K::Admit(_)) => {}
            Some(K::Metadata(m)) => record.metadata = m.metadata.clone(),
            Some(K::Offer(offer)) => record.offered = offer.admin.clone(),
            Some(K::Accept(_)) => (record.admin, record.offered) = (own, Bytes::new()),
            Some(K::Remove(_)) => {
                *record = wire::NetworkRecord { removed: true, flags: record.flags, ..Default::default() };
            }
            None => {}
        }
        if let Some(record) = self.books.networks.get_mut(&command.network_id) {
            let (admin, listeners) = (record.admin.clone(), record.listeners.clone());
            record.prechecks.retain(|p| p.by == admin || listeners.contains(&p.by));
        }
        if !may {
            self.out
                .find(format!("{}: expected the admin of network {}, found another", applied.at, command.network_id));
        }
    }
}
