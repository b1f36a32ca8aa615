//! What a world does for virtual channels: inputs, effects, and what payers and payees say to each other.

use florin_core::channel::manager::EndId;
use florin_core::channel::virtuals::{Effect, Event, Input, Reply};
use florin_core::error::{Code, Result};
use florin_core::wire::virtual_message::Kind as VirtualKind;
use florin_core::wire::virtual_peer::Kind as PeerKind;
use florin_core::wire::{self, VirtualPeer};
use prost::Message as _;

use super::facts::id;
use super::ledger::START;
use super::node::Manner;
use super::sets::State;
use super::world::{LOOK_MS, Mail, World};

/// A voucher with a set that a liar was sent.
#[derive(Clone)]
pub struct SentSet {
    /// The liar.
    pub node: usize,
    /// Its end.
    pub end: EndId,
    /// What it was sent.
    pub voucher: wire::SignedVoucher,
    /// What the voucher says.
    pub state: State,
}

fn virtual_letter(kind: &VirtualKind) -> u8 {
    match kind {
        VirtualKind::Hello(_) => 10,
        VirtualKind::Update(_) => 11,
        VirtualKind::Ack(_) => 12,
        VirtualKind::Opened(_) => 13,
        VirtualKind::Close(_) => 14,
    }
}

fn peer_letter(kind: &PeerKind) -> u8 {
    match kind {
        PeerKind::Paid(_) => 15,
        PeerKind::Ack(_) => 16,
        PeerKind::Close(_) => 17,
    }
}

impl World {
    /// A party takes an input about virtual channels. Whoever is down takes none.
    pub fn tell_virtual(&mut self, node: usize, input: Input) -> Result<Reply> {
        if !self.nodes[node].is_up() {
            return Err(florin_core::Error::new(Code::HubOffline, "it is down"));
        }
        let (now, shell) = (self.time(), self.shell);
        let of = &mut self.nodes[node];
        of.known_ms = of.known_ms.max(now - self.rng.below(LOOK_MS).min(now - START));
        let (reply, twice) = of.handle_virtual(now, input, shell);
        if let Some(what) = twice
            && self.nodes[node].is_honest()
        {
            self.violation(format!("party {node}: {what}"));
        }
        if reply.is_ok() {
            let ends: Vec<EndId> = self.nodes[node].ends.keys().copied().collect();
            self.check_after(node, &ends);
        }
        reply
    }

    /// Carries out an effect of the machine of virtual channels.
    pub(super) fn step_virtual(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Channel(_) => {}
            Effect::Send { end, connection, message } => {
                let Some(kind) = &message.kind else { return };
                if self.muted.get(&node).is_some_and(|muted| muted.contains(&virtual_letter(kind))) {
                    return self.mark("message that a liar kept to itself");
                }
                self.check_virtual_said(node, end, kind);
                if let VirtualKind::Update(update) = kind {
                    self.sent_set(node, end, update);
                }
                self.put(node, end, connection, Mail::Virtual(message));
            }
            Effect::Tell(message) => {
                let Some(kind) = &message.kind else { return };
                if self.muted.get(&node).is_some_and(|muted| muted.contains(&peer_letter(kind))) {
                    return self.mark("message that a liar kept to itself");
                }
                self.check_told(node, &message);
                let Some((payer, payee)) = self.parties.get(&id(&message.id)).copied() else { return };
                self.peers.push((if node == payer { payee } else { payer }, *message));
            }
            Effect::Event(event) => match event {
                Event::Opened(_) => self.mark("virtual channel open up to the payee"),
                Event::Acknowledged { .. } => self.mark("virtual payment acknowledged"),
                Event::Accepted(_) | Event::Over { .. } | Event::Diverged(_) => {}
            },
        }
    }

    /// What is to be looked at later, and what a liar may use.
    fn sent_set(&mut self, node: usize, end: EndId, update: &wire::VirtualUpdate) {
        for cap in update.opens.iter().filter_map(|open| open.cap.as_ref()) {
            self.lock_moments(end.channel, cap.not_after_ms);
        }
        let peer = self.nodes[node].ends.get(&end).copied().unwrap_or(node);
        let Some(voucher) = update.voucher.clone().filter(|_| self.nodes[peer].manner == Manner::Liar) else { return };
        let Ok(terms) = wire::Voucher::decode(&voucher.voucher[..]) else { return };
        let states = self.nodes[node].durable.sets.outs.get(&(end, terms.lane)).map(|all| &all[..]).unwrap_or_default();
        if let Some(state) = states.iter().find(|state| state.nonce == terms.nonce).cloned() {
            let end = EndId { side: 1 - end.side, ..end };
            self.sent_sets.push(SentSet { node: peer, end, voucher, state });
        }
    }

    /// What a payer or payee has said arrives.
    pub fn peer_arrives(&mut self, node: usize, message: VirtualPeer) {
        if let Err(e) = self.tell_virtual(node, Input::Peer(message)) {
            self.refusal(e.code);
        }
    }
}
