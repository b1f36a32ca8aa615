//! PBTX networks as the log makes them, derived again from the commands and changes of keys that it has ordered: who
//! is registered, with what permission, and what each network's shard has been told, by the deliveries that told it.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::wire::history_row::Event;
use florin_core::wire::log_step::Kind as Told;
use florin_core::wire::network_command::Kind;
use florin_core::{pbtx, wire};
use prost::Message as _;

use super::orders::{Id, Known};
use super::rules::{HISTORY, ORDERED, ROTATE};

/// Entries of history and streams can be pruned when they are this old, ms.
const PRUNE_AGE_MS: u64 = 600_000;

/// An actor of a network.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Actor {
    /// Its permission; empty if it is removed.
    pub permission: Bytes,
    /// Whether its admin has frozen it.
    pub frozen: bool,
    /// Seqnum of its last change of keys that the log has decided.
    pub rotated: u32,
    /// How often its permission was changed.
    pub generation: u32,
    /// The order that its admin has admitted last; empty if none.
    pub admitted: Bytes,
}

/// A network.
#[derive(Clone, Default)]
pub struct Network {
    /// Address of its admin.
    pub admin: Bytes,
    offered: Bytes,
    /// Its flags.
    pub flags: u32,
    metadata: Bytes,
    /// Who else may set a precheck.
    pub listeners: Vec<Bytes>,
    /// Whether actors register themselves.
    pub open: bool,
    removed: bool,
    prechecks: BTreeMap<Bytes, wire::Precheck>,
    /// All that ever were.
    pub actors: BTreeMap<u64, Actor>,
}

/// An entry of a network's stream, as far as it is the same everywhere.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// What happened.
    pub event: i32,
    /// What belongs to it.
    pub data: Bytes,
    /// By what order.
    pub trx_id: Bytes,
}

/// What a network's shard has been told, each with the delivery that told it.
#[derive(Default)]
struct Heard {
    networks: Vec<(u64, wire::NetworkRecord)>,
    actors: BTreeMap<u64, Vec<(u64, Actor)>>,
    entries: Vec<(u64, Entry)>,
    prunes: u64,
}

/// All networks.
#[derive(Clone, Default)]
pub struct Networks(BTreeMap<u64, Network>);

/// Networks, and what is told of them.
#[derive(Default)]
pub struct Registry {
    /// After the newest unit.
    pub networks: Networks,
    ordered: BTreeMap<(u64, u64), u32>,
    heard: BTreeMap<u64, Heard>,
}

/// The newest that came with a delivery up to this one.
fn at<T>(all: &[(u64, T)], applied: u64) -> Option<&T> {
    let end = all.partition_point(|(sequence, _)| *sequence <= applied);
    end.checked_sub(1).map(|i| &all[i].1)
}

impl Networks {
    /// A network that is registered.
    pub fn get(&self, network: u64) -> Option<&Network> {
        self.0.get(&network).filter(|n| !n.removed)
    }

    /// An actor that is registered.
    pub fn actor(&self, network: u64, actor: u64) -> Option<&Actor> {
        self.get(network)?.actors.get(&actor).filter(|a| !a.permission.is_empty())
    }

    /// Runs a command. Returns what the network's shard must hear.
    pub(super) fn command(
        &mut self,
        command: &wire::NetworkCommand,
        (own, caller): (u64, &[u8]),
        now_ms: u64,
        order: &Id,
    ) -> Result<Vec<Told>, String> {
        let id = command.network_id;
        let kind = command.kind.as_ref().ok_or("no kind")?;
        if let Kind::Register(r) = kind {
            if self.0.contains_key(&id) || id == own {
                return Err("the id is taken".into());
            }
            let (flags, metadata, open) = (r.flags, r.metadata.clone(), r.open);
            let (listeners, admin) = (r.listeners.clone(), Bytes::copy_from_slice(caller));
            let network = Network { admin, flags, metadata, listeners, open, ..Default::default() };
            let told = network.told(id, !r.metadata.is_empty());
            self.0.insert(id, network);
            return Ok(vec![told]);
        }
        let network = self.0.get_mut(&id).filter(|n| !n.removed).ok_or("no such network")?;
        let is_admin = network.admin[..] == *caller;
        let may = match kind {
            Kind::Accept(_) => network.offered[..] == *caller,
            Kind::Open(_) => network.open,
            Kind::Precheck(_) => is_admin || network.listeners.iter().any(|l| l[..] == *caller),
            _ => is_admin,
        };
        if !may {
            return Err("that is for others to do".into());
        }
        network.run(id, kind, caller, now_ms, order)
    }
}

impl Network {
    fn told(&self, network_id: u64, metadata: bool) -> Told {
        let prechecks = self.prechecks.iter();
        let network = wire::NetworkRecord {
            flags: self.flags,
            metadata: self.metadata.clone(),
            listeners: self.listeners.clone(),
            removed: self.removed,
            open: self.open,
            prechecks: prechecks
                .map(|(by, p)| wire::NetworkPrecheck { by: by.clone(), precheck: Some(p.clone()) })
                .collect(),
            ..Default::default()
        };
        Told::Network(wire::LogNetwork { network_id, network: Some(network), metadata })
    }

    fn told_actor(&self, network_id: u64, actor: u64, (rotated, admitted): (u32, &[u8]), order: &Id) -> Told {
        let kept = self.actors.get(&actor).cloned().unwrap_or_default();
        Told::Actor(wire::LogActor {
            network_id,
            actor,
            removed: kept.permission.is_empty(),
            permission: kept.permission,
            frozen: kept.frozen,
            generation: kept.generation,
            admitted: Bytes::copy_from_slice(admitted),
            rotated,
            order_id: Bytes::copy_from_slice(order),
        })
    }

    fn run(&mut self, id: u64, kind: &Kind, caller: &[u8], now_ms: u64, order: &Id) -> Result<Vec<Told>, String> {
        let registered = |n: &Network, actor: &u64| n.actors.get(actor).is_some_and(|a| !a.permission.is_empty());
        let mut metadata = false;
        let before = self.told(id, false);
        match kind {
            Kind::Register(_) => return Err("registered before".into()),
            Kind::Metadata(new) => {
                self.metadata = new.metadata.clone();
                metadata = true;
            }
            Kind::Offer(offer) => self.offered = offer.admin.clone(),
            Kind::Accept(_) => self.admin = std::mem::take(&mut self.offered),
            Kind::Update(new) => {
                if (new.flags ^ self.flags) & (ORDERED | super::rules::SKIP) != 0 {
                    return Err("these flags stay".into());
                }
                (self.flags, self.listeners, self.open) = (new.flags, new.listeners.clone(), new.open);
            }
            Kind::Precheck(precheck) => {
                self.prechecks.remove(caller);
                if *precheck != wire::Precheck::default() {
                    self.prechecks.insert(Bytes::copy_from_slice(caller), precheck.clone());
                }
            }
            Kind::Remove(_) => {
                if self.actors.keys().any(|actor| registered(self, actor)) {
                    return Err("it has actors".into());
                }
                let actors = std::mem::take(&mut self.actors);
                *self = Network { removed: true, flags: self.flags, actors, ..Default::default() };
            }
            Kind::Prune(prune) => {
                let before_us = prune.before_us.min(now_ms.saturating_sub(PRUNE_AGE_MS) * 1_000);
                return Ok(vec![Told::Prune(wire::LogPrune { network_id: id, before_us, max_rows: prune.max_rows })]);
            }
            Kind::Actor(permission) => return self.register(id, permission, true, order),
            Kind::Open(open) => return self.register(id, &open.permission, false, order),
            Kind::RemoveActor(actor) => {
                if !registered(self, actor) {
                    return Err("no such actor".into());
                }
                let kept = self.actors.entry(*actor).or_default();
                (kept.permission, kept.frozen, kept.generation) = (Bytes::new(), false, kept.generation + 1);
                return Ok(vec![self.told_actor(id, *actor, (0, &[]), order)]);
            }
            Kind::Admit(admit) => {
                if !registered(self, &admit.actor) {
                    return Err("no such actor".into());
                }
                self.actors.entry(admit.actor).or_default().admitted = admit.order_id.clone();
                return Ok(vec![self.told_actor(id, admit.actor, (0, &admit.order_id), order)]);
            }
            Kind::FreezeActor(freeze) => {
                if !registered(self, &freeze.actor) {
                    return Err("no such actor".into());
                }
                self.actors.entry(freeze.actor).or_default().frozen = freeze.frozen;
                return Ok(vec![self.told_actor(id, freeze.actor, (0, &[]), order)]);
            }
        }
        let (admin, listeners) = (&self.admin, &self.listeners);
        self.prechecks.retain(|by, _| by == admin || listeners.contains(by));
        // What its shard knows already it is not told again.
        let news = metadata || before != self.told(id, false);
        Ok(if news { vec![self.told(id, metadata)] } else { Vec::new() })
    }

    fn register(&mut self, id: u64, permission: &Bytes, by_admin: bool, order: &Id) -> Result<Vec<Told>, String> {
        let actor = pbtx::Permission::decode(permission.clone()).map_err(|e| e.to_string())?.actor;
        let known = self.actors.get(&actor);
        if known.is_some_and(|k| k.permission == *permission) {
            return Ok(Vec::new());
        }
        if known.is_some() && !by_admin {
            return Err("the id is taken".into());
        }
        let kept = self.actors.entry(actor).or_default();
        (kept.permission, kept.generation) = (permission.clone(), kept.generation + 1);
        Ok(vec![self.told_actor(id, actor, (0, &[]), order)])
    }

    /// Whether a precheck lets an order pass.
    fn takes(&self, order: &Known, kind: u32, content: usize) -> bool {
        self.prechecks.values().all(|p| {
            let of_type = p.types.is_empty() || p.types.iter().any(|t| t.first <= kind && kind <= t.last);
            let short = p.content_max == 0 || content <= p.content_max as usize;
            of_type && short && (p.actors.is_empty() || p.actors.contains(&order.place.actor))
        })
    }

    /// Whether listeners or the admin ask for anything.
    pub fn is_picky(&self) -> bool {
        !self.prechecks.is_empty()
    }
}

impl Registry {
    /// A certified order of a network that the log may place now. `None` if it has nothing to do here.
    pub(super) fn place(&mut self, order: &Known, body: &Bytes) -> Option<Vec<Told>> {
        let (place, foreign) = (order.place, order.foreign.as_ref()?);
        let network = self.networks.0.get_mut(&place.network)?;
        let last = self.ordered.entry((place.network, place.actor)).or_default();
        let (ordered, rotates) = (network.flags & ORDERED != 0, foreign.kind == ROTATE);
        let due = if ordered { place.seqnum == *last + 1 } else { rotates && place.seqnum > *last };
        if !due {
            return None;
        }
        *last = place.seqnum;
        let mut told = vec![Told::Settle(wire::LogSettle { bodies: vec![body.clone()] })];
        if rotates && let Some(actor) = network.actors.get_mut(&place.actor) {
            // It names the permission that it replaces.
            let rotate = wire::Rotate::decode(foreign.content.clone()).unwrap_or_default();
            if !actor.permission.is_empty() && actor.generation == rotate.generation {
                (actor.permission, actor.generation) = (rotate.permission, actor.generation + 1);
            }
            actor.rotated = place.seqnum;
            told.push(network.told_actor(place.network, place.actor, (place.seqnum, &[]), &order.id));
        }
        if ordered {
            let (network_id, actor, seqnum) = (place.network, place.actor, place.seqnum);
            let order_id = Bytes::copy_from_slice(&order.id);
            told.push(Told::Stream(wire::LogStream { network_id, actor, seqnum, order_id }));
        }
        Some(told)
    }

    /// A network's shard hears something by its delivery with this number.
    pub(super) fn tell(&mut self, sequence: u64, told: Told) {
        match told {
            Told::Network(step) => {
                let heard = self.heard.entry(step.network_id).or_default();
                let network = step.network.unwrap_or_default();
                let entry =
                    Entry { event: Event::Netmetadata as i32, data: network.metadata.clone(), trx_id: Bytes::new() };
                if step.metadata && network.flags & HISTORY != 0 {
                    heard.entries.push((sequence, entry));
                }
                heard.networks.push((sequence, network));
            }
            Told::Actor(step) => {
                let heard = self.heard.entry(step.network_id).or_default();
                let history = heard.networks.last().is_some_and(|(_, n)| n.flags & HISTORY != 0);
                let actors = heard.actors.entry(step.actor).or_default();
                let before = actors.last().map(|(_, a)| a.clone()).unwrap_or_default();
                let rotated = before.rotated.max(step.rotated);
                let permission = step.permission.clone();
                let admitted = if step.admitted.is_empty() { before.admitted } else { step.admitted };
                if history && before.permission != permission {
                    let (event, data) = match step.removed {
                        true => (Event::Unregactor, Bytes::copy_from_slice(&step.actor.to_be_bytes())),
                        false => (Event::Regactor, permission.clone()),
                    };
                    heard.entries.push((sequence, Entry { event: event as i32, data, trx_id: step.order_id }));
                }
                let (frozen, generation) = (step.frozen, step.generation);
                actors.push((sequence, Actor { permission, frozen, rotated, generation, admitted }));
            }
            Told::Stream(step) => {
                let entry = Entry { event: Event::Exectrx as i32, data: Bytes::new(), trx_id: step.order_id };
                self.heard.entry(step.network_id).or_default().entries.push((sequence, entry));
            }
            Told::Prune(step) => self.heard.entry(step.network_id).or_default().prunes += u64::from(step.max_rows),
            Told::Settle(_) | Told::Freeze(_) | Told::Resolve(_) => {}
            Told::FreezeNote(_) | Told::ResolveNote(_) => {}
        }
    }

    /// What a shard that has applied deliveries up to this one knows of a network.
    pub(super) fn network_at(&self, network: u64, applied: u64) -> Option<&wire::NetworkRecord> {
        at(&self.heard.get(&network)?.networks, applied)
    }

    /// The same of an actor.
    pub(super) fn actor_at(&self, network: u64, actor: u64, applied: u64) -> Option<&Actor> {
        at(self.heard.get(&network)?.actors.get(&actor)?, applied)
    }

    /// The entry of a network's stream that the log puts there: of all in ORDERED networks, of all that are no order
    /// in others.
    pub(super) fn entry(&self, network: u64, place: usize, applied: u64) -> Option<&Entry> {
        self.heard.get(&network)?.entries.get(place).filter(|(s, _)| *s <= applied).map(|(_, entry)| entry)
    }

    /// How many of these there are.
    pub(super) fn entries(&self, network: u64) -> usize {
        self.heard.get(&network).map_or(0, |h| h.entries.len())
    }

    /// Rows that may have been pruned of a network's stream.
    pub(super) fn prunes(&self, network: u64) -> u64 {
        self.heard.get(&network).map_or(0, |h| h.prunes)
    }

    /// Why a shard that has applied deliveries up to this one must not vote for an order that these keys have signed,
    /// by authority.
    pub(super) fn refuses(&self, order: &Known, signers: Option<&Vec<Vec<Bytes>>>, applied: u64) -> Option<String> {
        let foreign = order.foreign.as_ref()?;
        let place = order.place;
        let Some(network) = self.network_at(place.network, applied).filter(|n| !n.removed) else {
            return Some("its network is not registered there".into());
        };
        let known = |id: &u64| self.actor_at(place.network, *id, applied).filter(|a| !a.permission.is_empty());
        let Some(actor) = known(&place.actor) else { return Some("its actor is not registered there".into()) };
        if actor.admitted[..] == order.id {
            return None;
        }
        if foreign.kind == ROTATE {
            let replaces = wire::Rotate::decode(foreign.content.clone()).map(|r| r.generation);
            if replaces != Ok(actor.generation) {
                return Some("it replaces another permission".into());
            }
        }
        let prechecks = network.prechecks.iter().map(|p| (p.by.clone(), p.precheck.clone().unwrap_or_default()));
        let network = Network { prechecks: prechecks.collect(), ..Default::default() };
        if foreign.kind != ROTATE && !network.takes(order, foreign.kind, foreign.content.len()) {
            return Some("a precheck refuses it".into());
        }
        let Some(signers) = signers else { return Some("nobody has signed it like that".into()) };
        for (i, id) in std::iter::once(&place.actor).chain(&foreign.cosignors).enumerate() {
            let Some(actor) = known(id) else {
                return Some(format!("actor {id} is not registered there"));
            };
            if actor.frozen {
                return Some(format!("actor {id} is frozen there"));
            }
            let permission = pbtx::Permission::decode(actor.permission.clone()).unwrap_or_default();
            let none = Vec::new();
            let signed = signers.get(i).unwrap_or(&none);
            let has = |k: &&pbtx::KeyWeight| k.key.as_ref().is_some_and(|key| signed.contains(&key.key_bytes));
            let weight: u64 = permission.keys.iter().filter(has).map(|k| u64::from(k.weight)).sum();
            if weight < u64::from(permission.threshold) {
                return Some(format!("the keys that actor {id} has there have not signed it"));
            }
        }
        None
    }
}
