//! The registry of PBTX networks and their actors: who administers which network id, with what flags, and what each actor
//! may sign with. Network ids are never given twice; a removed actor leaves a tombstone, and its sequence goes on where
//! it was if it comes back.
//!
//! What voters need of it goes to the shard of the network in this order ([`crate::authority`]).

use bytes::Bytes;

use super::{Caller, Module};
use crate::authority::state::State;
use crate::content::{check_address, decode_rotate};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::keys::Signature;
use crate::limits::{
    ID_MAX, LISTENERS_MAX, METADATA_BYTES_MAX, PRECHECK_ACTORS_MAX, PRECHECK_TYPES_MAX, PRECHECKS_BYTES_MAX,
    PRUNE_AGE_MS, PRUNE_ROWS_MAX,
};
use crate::network_flags::{self, ORDERED, SKIP_SEQ_AND_PREVHASH};
use crate::ordered::book::Book;
use crate::ordered::step::{Object, Step, actor_key, object_key};
use crate::permission::Permission;
use crate::planted::{self, Bug};
use crate::registration::check_registration;
use crate::wire::{self, input, log_step, network_command::Kind, output};

/// The module `registry`.
pub struct Registry;

/// Key of a network.
pub fn network_key(network_id: u64) -> Vec<u8> {
    object_key(Object::Network, &[&network_id.to_be_bytes()])
}

impl Module for Registry {
    fn name(&self) -> &'static str {
        "registry"
    }

    fn check_input(&self, _: &input::Kind) -> Result<()> {
        Ok(())
    }

    fn check_output(&self, kind: &output::Kind) -> Result<u64> {
        let output::Kind::Network(command) = kind else { return Ok(0) };
        if command.network_id == 0 || command.network_id > ID_MAX {
            return Err(Error::expected(Code::Int63, "network id", "1 to 2^63 - 1", command.network_id));
        }
        match &command.kind {
            Some(Kind::Register(register)) => {
                check_flags(register.flags)?;
                check_listeners(&register.listeners)?;
                at_most("bytes of metadata", register.metadata.len(), METADATA_BYTES_MAX)?;
            }
            Some(Kind::Update(update)) => {
                check_flags(update.flags)?;
                check_listeners(&update.listeners)?;
            }
            Some(Kind::Metadata(metadata)) => {
                at_most("bytes of metadata", metadata.metadata.len(), METADATA_BYTES_MAX)?;
            }
            Some(Kind::Offer(offer)) if !offer.admin.is_empty() => {
                check_address("new admin's address", &offer.admin)?;
            }
            Some(Kind::Precheck(precheck)) => check_precheck(precheck)?,
            Some(Kind::Actor(permission)) => drop(Permission::decode_actor(permission)?),
            // Its signature is looked at in the log: nobody makes voters do that for nothing.
            Some(Kind::Open(open)) => {
                Permission::decode_actor(&open.permission)?;
                Signature::parse(&open.signature)?;
            }
            Some(Kind::Admit(admit)) if admit.order_id.len() != 32 => {
                return Err(Error::expected(Code::BadContent, "bytes of an order's id", 32, admit.order_id.len()));
            }
            Some(Kind::Admit(admit)) => check_actor(admit.actor)?,
            Some(Kind::RemoveActor(actor)) => check_actor(*actor)?,
            Some(Kind::FreezeActor(freeze)) => check_actor(freeze.actor)?,
            Some(Kind::Prune(prune)) if !(1..=PRUNE_ROWS_MAX).contains(&prune.max_rows) => {
                let expected = format!("1 to {PRUNE_ROWS_MAX}");
                return Err(Error::expected(Code::Limit, "rows to prune", expected, prune.max_rows));
            }
            Some(Kind::Offer(_) | Kind::Accept(_) | Kind::Remove(_) | Kind::Prune(_)) => {}
            None => return Err(Error::new(Code::BadContent, "the network command has no kind that is known")),
        }
        Ok(0)
    }

    fn apply_input(&self, _: &input::Kind, _: u64, _: &Caller, _: &mut Step<'_>) -> Result<()> {
        Ok(())
    }

    fn apply_output(&self, kind: &output::Kind, _: u32, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
        let output::Kind::Network(command) = kind else { return Ok(()) };
        let known: Option<wire::NetworkRecord> = step.get(&network_key(command.network_id))?;
        if let Some(Kind::Register(register)) = &command.kind {
            if known.is_some() || command.network_id == caller.network_id {
                let message = format!("network {} is, or was, registered", command.network_id);
                return Err(Error::new(Code::NetworkExists, message));
            }
            let record = wire::NetworkRecord {
                admin: Bytes::copy_from_slice(caller.account.as_bytes()),
                flags: register.flags,
                metadata: register.metadata.clone(),
                listeners: register.listeners.clone(),
                open: register.open,
                ..Default::default()
            };
            step.put(network_key(command.network_id), &record);
            tell_network(command.network_id, &record, !record.metadata.is_empty(), step);
            return Ok(());
        }
        let record = known.filter(|r| !r.removed).ok_or_else(|| {
            Error::new(Code::UnknownNetwork, format!("network {} is not registered", command.network_id))
        })?;
        let mut of = Of { network_id: command.network_id, record, caller };
        of.may(command.kind.as_ref())?;
        of.apply(command.kind.as_ref(), step)
    }

    fn held(&self, _: &dyn State) -> Result<i128> {
        Ok(0)
    }

    fn booked(&self, _: &Book) -> i128 {
        0
    }
}

/// One command for a network that is registered.
struct Of<'a> {
    network_id: u64,
    record: wire::NetworkRecord,
    caller: &'a Caller,
}

impl Of<'_> {
    /// Whether the caller may do that.
    fn may(&self, kind: Option<&Kind>) -> Result<()> {
        let own = self.caller.account.as_bytes();
        let (what, who) = match kind {
            Some(Kind::Accept(_)) => ("offered admin of the network", &self.record.offered),
            // The admin too, who registers without replacing anybody that way.
            Some(Kind::Open(_)) if self.record.open || self.record.admin[..] == own[..] => return Ok(()),
            Some(Kind::Open(_)) => {
                let message = format!("network {}: only its admin registers actors", self.network_id);
                return Err(Error::new(Code::NetworkClosed, message));
            }
            Some(Kind::Precheck(_)) if self.record.listeners.iter().any(|l| l[..] == own[..]) => return Ok(()),
            _ => ("admin of the network", &self.record.admin),
        };
        if who[..] != own[..] {
            return Err(Error::expected(Code::NotAdmin, what, hex::encode(who), hex::encode(own)));
        }
        Ok(())
    }

    fn apply(&mut self, kind: Option<&Kind>, step: &mut Step<'_>) -> Result<()> {
        let own = Bytes::copy_from_slice(self.caller.account.as_bytes());
        let record = &mut self.record;
        let mut metadata = false;
        let before = record.clone();
        match kind {
            Some(Kind::Metadata(new)) => {
                metadata = true;
                record.metadata = new.metadata.clone();
            }
            Some(Kind::Offer(offer)) => record.offered = offer.admin.clone(),
            Some(Kind::Accept(_)) => record.admin = std::mem::take(&mut record.offered),
            Some(Kind::Update(update)) => {
                let fixed = SKIP_SEQ_AND_PREVHASH | ORDERED;
                if (update.flags ^ record.flags) & fixed != 0 {
                    let (expected, found) = (record.flags & fixed, update.flags & fixed);
                    let what = "SKIP_SEQ_AND_PREVHASH and ORDERED, which stay as they are registered";
                    return Err(Error::expected(Code::BadContent, what, expected, found));
                }
                record.flags = update.flags;
                record.listeners = update.listeners.clone();
                record.open = update.open;
            }
            Some(Kind::Precheck(precheck)) => {
                record.prechecks.retain(|p| p.by != own);
                if *precheck != wire::Precheck::default() {
                    record.prechecks.push(wire::NetworkPrecheck { by: own, precheck: Some(precheck.clone()) });
                    record.prechecks.sort_by(|a, b| a.by.cmp(&b.by));
                    let bytes = record.prechecks.iter().map(prost::Message::encoded_len).sum();
                    at_most("bytes of all prechecks of the network", bytes, PRECHECKS_BYTES_MAX)?;
                }
            }
            Some(Kind::Remove(_)) if record.actors > 0 => {
                return Err(Error::expected(Code::NetworkInUse, "actors of the network", 0, record.actors));
            }
            Some(Kind::Remove(_)) => {
                // How its orders settle stays known: some may still be under way.
                *record = wire::NetworkRecord { removed: true, flags: record.flags, ..Default::default() };
            }
            Some(Kind::Prune(prune)) => {
                let until = step.time_ms().saturating_sub(PRUNE_AGE_MS).saturating_mul(1_000);
                let (network_id, before_us) = (self.network_id, prune.before_us.min(until));
                let prune = wire::LogPrune { network_id, before_us, max_rows: prune.max_rows };
                step.tell((network_id, 0), log_step::Kind::Prune(prune));
                return Ok(());
            }
            Some(Kind::Actor(permission)) => return self.register(permission, true, step),
            Some(Kind::Open(open)) => {
                check_registration(&open.permission, &open.signature)?;
                return self.register(&open.permission, false, step);
            }
            Some(Kind::Admit(admit)) => {
                let record = self.actor(admit.actor, step)?;
                let admitted = admit.order_id.clone();
                let place = Place { rotated: 0, admitted, order_id: &self.caller.order_id };
                tell_actor((self.network_id, admit.actor), &record, place, step);
                return Ok(());
            }
            Some(Kind::RemoveActor(actor)) => return self.remove_actor(*actor, step),
            Some(Kind::FreezeActor(freeze)) => {
                let mut actor = self.actor(freeze.actor, step)?;
                actor.frozen = freeze.frozen;
                self.put_actor(freeze.actor, &actor, step);
                return Ok(());
            }
            Some(Kind::Register(_)) | None => {}
        }
        // Prechecks are those of the admin and the listeners of now.
        let (admin, listeners) = (record.admin.clone(), record.listeners.clone());
        record.prechecks.retain(|p| p.by == admin || listeners.contains(&p.by));
        step.put(network_key(self.network_id), record);
        if metadata || for_shard(&before) != for_shard(record) {
            tell_network(self.network_id, record, metadata, step);
        }
        Ok(())
    }

    fn register(&mut self, permission: &Bytes, by_admin: bool, step: &mut Step<'_>) -> Result<()> {
        let actor = Permission::decode_actor(permission)?.actor;
        let known: Option<wire::ActorRecord> = step.get(&actor_key(Object::Actor, self.network_id, actor))?;
        let same = known.as_ref().is_some_and(|k| !k.removed && k.permission == permission);
        if known.is_some() && !by_admin && !same {
            let message = format!("actor {actor} is, or was, registered with another permission");
            return Err(Error::new(Code::ActorExists, message));
        }
        if same {
            return Ok(());
        }
        let mut record = known.unwrap_or_else(|| wire::ActorRecord { removed: true, ..Default::default() });
        if std::mem::take(&mut record.removed) {
            self.record.actors += 1;
            step.put(network_key(self.network_id), &self.record);
        }
        record.permission = permission.clone();
        record.generation = record.generation.saturating_add(1);
        self.put_actor(actor, &record, step);
        Ok(())
    }

    fn remove_actor(&mut self, actor: u64, step: &mut Step<'_>) -> Result<()> {
        let known = self.actor(actor, step)?;
        self.record.actors -= 1;
        step.put(network_key(self.network_id), &self.record);
        let generation = known.generation.saturating_add(1);
        self.put_actor(actor, &wire::ActorRecord { removed: true, generation, ..Default::default() }, step);
        Ok(())
    }

    fn actor(&self, actor: u64, step: &Step<'_>) -> Result<wire::ActorRecord> {
        let known: Option<wire::ActorRecord> = step.get(&actor_key(Object::Actor, self.network_id, actor))?;
        known.filter(|k| !k.removed).ok_or_else(|| {
            let message = format!("actor {actor} is not registered in network {}", self.network_id);
            Error::new(Code::UnknownActor, message)
        })
    }

    fn put_actor(&self, actor: u64, record: &wire::ActorRecord, step: &mut Step<'_>) {
        let id = (self.network_id, actor);
        step.put(actor_key(Object::Actor, id.0, id.1), record);
        tell_actor(id, record, Place { rotated: 0, admitted: Bytes::new(), order_id: &self.caller.order_id }, step);
    }
}

/// An actor's own change of its keys, certified, has its place: from now on the new ones count, everywhere. It does
/// nothing if the permission that it was to replace has been replaced, or its actor removed, before: whoever had a key
/// then may have held it back.
pub(in crate::ordered) fn rotate(order: &Order, step: &mut Step<'_>) -> Result<()> {
    let id = (order.network_id, order.actor);
    let key = actor_key(Object::Actor, id.0, id.1);
    let Some(mut record) = step.get::<wire::ActorRecord>(&key)? else { return Ok(()) };
    // Whatever it is: its shard waits for the decision.
    if let Ok(rotate) = decode_rotate(order)
        && !record.removed
        && (record.generation == rotate.generation || planted::is(Bug::GenerationIgnored))
    {
        record.permission = rotate.permission;
        record.generation = record.generation.saturating_add(1);
        step.put(key, &record);
    }
    let place = Place { rotated: order.seqnum, admitted: Bytes::new(), order_id: &order.id };
    tell_actor(id, &record, place, step);
    Ok(())
}

/// What else an actor's shard is told.
struct Place<'a> {
    rotated: u32,
    admitted: Bytes,
    order_id: &'a [u8],
}

fn tell_actor(id: (u64, u64), record: &wire::ActorRecord, place: Place<'_>, step: &mut Step<'_>) {
    let actor = wire::LogActor {
        network_id: id.0,
        actor: id.1,
        permission: record.permission.clone(),
        removed: record.removed,
        frozen: record.frozen,
        generation: record.generation,
        rotated: place.rotated,
        admitted: place.admitted,
        order_id: Bytes::copy_from_slice(place.order_id),
    };
    step.tell(id, log_step::Kind::Actor(actor));
}

/// What the shard of a network needs of it.
pub(in crate::ordered) fn for_shard(record: &wire::NetworkRecord) -> wire::NetworkRecord {
    wire::NetworkRecord { admin: Bytes::new(), offered: Bytes::new(), actors: 0, ..record.clone() }
}

fn tell_network(network_id: u64, record: &wire::NetworkRecord, metadata: bool, step: &mut Step<'_>) {
    let network = wire::LogNetwork { network_id, network: Some(for_shard(record)), metadata };
    step.tell((network_id, 0), log_step::Kind::Network(network));
}

fn check_flags(flags: u32) -> Result<()> {
    network_flags::check(flags)?;
    if flags & SKIP_SEQ_AND_PREVHASH != 0 && flags & ORDERED != 0 {
        let message = "ORDERED needs sequence numbers, and SKIP_SEQ_AND_PREVHASH has none";
        return Err(Error::new(Code::BadContent, message));
    }
    Ok(())
}

fn check_listeners(listeners: &[Bytes]) -> Result<()> {
    at_most("listeners", listeners.len(), LISTENERS_MAX)?;
    listeners.iter().try_for_each(|listener| check_address("listener's address", listener).map(drop))
}

fn check_precheck(precheck: &wire::Precheck) -> Result<()> {
    at_most("type ranges", precheck.types.len(), PRECHECK_TYPES_MAX)?;
    at_most("actors of a precheck", precheck.actors.len(), PRECHECK_ACTORS_MAX)?;
    if let Some(range) = precheck.types.iter().find(|range| range.first > range.last) {
        let expected = format!("at least {}", range.first);
        return Err(Error::expected(Code::BadContent, "last type of a range", expected, range.last));
    }
    if precheck.actors.windows(2).any(|w| w[0] >= w[1]) {
        return Err(Error::new(Code::BadContent, "actors of a precheck: expected in ascending order, each once"));
    }
    Ok(())
}

fn check_actor(actor: u64) -> Result<()> {
    if actor == 0 || actor > ID_MAX {
        return Err(Error::expected(Code::Int63, "actor", "1 to 2^63 - 1", actor));
    }
    Ok(())
}

fn at_most(what: &str, found: usize, max: usize) -> Result<()> {
    match found > max {
        true => Err(Error::expected(Code::Limit, what, format!("at most {max}"), found)),
        false => Ok(()),
    }
}
