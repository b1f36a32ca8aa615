//! Admins: they register their network and its actors, and change everything about them while there is traffic. When
//! it is over they let everybody in again, so that what honest actors have signed can end.

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::network_flags::{HISTORY, RAW_NOTIFY};
use florin_core::wire::network_command::Kind;
use florin_core::wire::{self, output};

use super::Net;
use crate::world::{MS, Micros, SECOND, World};

/// The admin of one network.
pub struct Admin {
    net: Net,
    /// Networks and addresses of other admins, who may be listeners here.
    others: Vec<(u64, Address)>,
    registered: bool,
    /// Nothing before.
    pause: Micros,
}

impl Admin {
    /// Of a network that is not registered yet.
    pub fn new(net: Net, others: Vec<(u64, Address)>) -> Admin {
        Admin { net, others, registered: false, pause: 0 }
    }

    /// What it does next, if anything.
    pub fn next(&mut self, world: &mut World) -> Option<Vec<output::Kind>> {
        if world.now < self.pause {
            return None;
        }
        let commands = match (self.registered, world.calm) {
            (false, _) => self.register(world),
            (true, false) => vec![self.change(world)?],
            (true, true) => self.restore(world),
        };
        // The log needs some time; until then the registry says the same.
        self.pause = world.now + world.rng.between(300 * MS, 1_200 * MS);
        (!commands.is_empty()).then(|| {
            let of = |kind| wire::NetworkCommand { network_id: self.net.id, kind: Some(kind) };
            let one = |(network_id, kind)| match network_id {
                Some(network_id) => wire::NetworkCommand { network_id, kind: Some(kind) },
                None => of(kind),
            };
            commands.into_iter().map(|c| output::Kind::Network(one(c))).collect()
        })
    }

    fn register(&mut self, world: &mut World) -> Vec<(Option<u64>, Kind)> {
        self.registered = true;
        let register = wire::NetworkRegister {
            flags: self.net.flags,
            metadata: Bytes::from_static(b"a network"),
            open: world.rng.chance(500),
            ..Default::default()
        };
        let actors = self.net.first.values().map(|permission| (None, Kind::Actor(permission.clone())));
        std::iter::once((None, Kind::Register(register))).chain(actors).collect()
    }

    fn any_actor(&self, world: &mut World) -> u64 {
        let all: Vec<u64> = self.net.actors.iter().chain(&self.net.cheats).copied().collect();
        all[world.rng.index(all.len())]
    }

    /// One change, mostly of somebody who can sign nothing right now if there is such a one.
    fn change(&self, world: &mut World) -> Option<(Option<u64>, Kind)> {
        let network = world.checks.log.registry().networks.get(self.net.id)?;
        let (picky, open, listens) = (network.is_picky(), network.open, network.listeners.clone());
        let shut = |actor: &&u64| network.actors.get(actor).is_some_and(|a| a.permission.is_empty() || a.frozen);
        let shut: Vec<u64> = self.net.actors.iter().chain(&self.net.cheats).filter(shut).copied().collect();
        if picky && world.rng.chance(400) {
            return Some((None, Kind::Precheck(wire::Precheck::default())));
        }
        if !shut.is_empty() && world.rng.chance(500) {
            let actor = shut[world.rng.index(shut.len())];
            return Some((None, self.let_in(world, actor)));
        }
        if let Some(admit) = self.admit(world, &self.net.actors).filter(|_| world.rng.chance(300)) {
            return Some((None, admit));
        }
        // As a listener of another's network.
        if let Some((other, _)) = self.others.first().filter(|_| world.rng.chance(80)) {
            return Some((Some(*other), Kind::Precheck(self.precheck(world))));
        }
        let actor = self.any_actor(world);
        Some((
            None,
            match world.rng.below(12) {
                0..4 => {
                    let World { pbtx, rng, .. } = world;
                    Kind::Actor(pbtx.permission(rng, actor))
                }
                4 | 5 => Kind::FreezeActor(wire::ActorFreeze { actor, frozen: true }),
                6 | 7 => Kind::RemoveActor(actor),
                8 => Kind::Precheck(self.precheck(world)),
                9 => {
                    let flags = self.net.flags ^ if world.rng.chance(500) { HISTORY } else { RAW_NOTIFY };
                    let flags = if world.rng.chance(500) { self.net.flags } else { flags };
                    let other = self.others.last().map(|(_, a)| Bytes::copy_from_slice(a.as_bytes()));
                    let listeners = if listens.is_empty() { other.into_iter().collect() } else { Vec::new() };
                    Kind::Update(wire::NetworkUpdate { flags, listeners, open: !open })
                }
                10 => {
                    Kind::Metadata(wire::NetworkMetadata { metadata: Bytes::copy_from_slice(&world.rng.bytes()[..4]) })
                }
                _ => {
                    let max_rows = world.rng.between(1, 9) as u32;
                    Kind::Prune(wire::HistoryPrune { before_us: u64::MAX, max_rows })
                }
            },
        ))
    }

    fn precheck(&self, world: &mut World) -> wire::Precheck {
        let rng = &mut world.rng;
        let first = rng.below(6) as u32;
        wire::Precheck {
            types: if rng.chance(500) { vec![wire::TypeRange { first, last: first + 4 }] } else { Vec::new() },
            content_max: if rng.chance(500) { rng.between(4, 20) as u32 } else { 0 },
            actors: if rng.chance(300) { self.net.actors[1..].to_vec() } else { Vec::new() },
        }
    }

    /// Registers a removed actor again, with other keys or the old ones; or thaws it.
    fn let_in(&self, world: &mut World, actor: u64) -> Kind {
        if world.checks.log.registry().networks.actor(self.net.id, actor).is_some() {
            return Kind::FreezeActor(wire::ActorFreeze { actor, frozen: false });
        }
        let World { pbtx, rng, .. } = world;
        let old = self.net.first.get(&actor).cloned().filter(|_| rng.chance(500));
        Kind::Actor(old.unwrap_or_else(|| pbtx.permission(rng, actor)))
    }

    /// Admits what one of these actors has waited for long: some authorities hold votes for it that it needs no more,
    /// or it replaces keys that were replaced before.
    fn admit(&self, world: &World, actors: &[u64]) -> Option<Kind> {
        actors.iter().find_map(|actor| {
            let (id, since) = world.pbtx.fronts.get(&(self.net.id, *actor))?;
            let known = world.checks.log.registry().networks.actor(self.net.id, *actor)?;
            let due = world.now > since + 2 * SECOND && known.admitted[..] != *id;
            due.then(|| Kind::Admit(wire::ActorAdmit { actor: *actor, order_id: Bytes::copy_from_slice(id) }))
        })
    }

    /// All that lets honest actors in again.
    fn restore(&self, world: &mut World) -> Vec<(Option<u64>, Kind)> {
        let Some(network) = world.checks.log.registry().networks.get(self.net.id) else { return Vec::new() };
        let mut commands = Vec::new();
        if network.is_picky() {
            // Without listeners their prechecks are gone too.
            let (flags, open) = (network.flags, network.open);
            commands.push((None, Kind::Update(wire::NetworkUpdate { flags, listeners: Vec::new(), open })));
            commands.push((None, Kind::Precheck(wire::Precheck::default())));
        }
        let shut = |actor: &&u64| network.actors.get(actor).is_none_or(|a| a.permission.is_empty() || a.frozen);
        let shut: Vec<u64> = self.net.actors.iter().filter(shut).copied().collect();
        let free: Vec<u64> = self.net.actors.iter().filter(|actor| !shut.contains(actor)).copied().collect();
        commands.extend(free.iter().filter_map(|actor| Some((None, self.admit(world, &[*actor])?))));
        commands.extend(shut.into_iter().map(|actor| (None, self.let_in(world, actor))));
        commands
    }
}
