//! What users of virtual channels ask. The shell answers after the records before are durable.

use bytes::Bytes;

use super::state::{Channel, Stage};
use super::{VirtualId, Virtuals};
use crate::address::Address;
use crate::channel::hub::LinkState;
use crate::channel::manager::{EndId, Manager, Signer};
use crate::error::Result;
use crate::wire::{VirtualClaim, WatchPermit};

/// Who a wallet is in a virtual channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It pays.
    Payer,
    /// It is paid.
    Payee,
    /// It has passed it on.
    Hub,
}

/// How a virtual channel is doing. Amounts are minor units.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Who this wallet is in it.
    pub role: Role,
    /// The end that it pays on, if it does.
    pub out: Option<EndId>,
    /// The end that it is paid on.
    pub inc: Option<EndId>,
    /// The most that it can move on this wallet's ends.
    pub cap: u64,
    /// The earliest end of a leaf, log time in ms.
    pub not_after_ms: u64,
    /// Encoded permission of the keys that sign its payments.
    pub permission: Bytes,
    /// Address of the payee, if the payer has named it.
    pub payee: Option<Address>,
    /// What its payer has signed so far, as far as this wallet knows.
    pub amount: u64,
    /// Open up to the payee: it can be paid over.
    pub opened: bool,
    /// It is being closed or claimed.
    pub closing: bool,
    /// Number of the code, if it did not come to be; 0 = none.
    pub code: u32,
    /// What the end that the own side pays on has cost in the end; none if there is none, or it is not over.
    pub cost: Option<u64>,
    /// What the end that the own side is paid on has brought in the end.
    pub brought: Option<u64>,
    /// Both ends that there are, are over.
    pub over: bool,
}

/// What virtual channels bind: their number and the sum of their caps, minor units.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Bound {
    /// How many.
    pub channels: usize,
    /// Their caps.
    pub amount: u64,
}

impl Bound {
    fn add(&mut self, cap: u64) {
        self.channels += 1;
        self.amount = self.amount.saturating_add(cap);
    }
}

impl Channel {
    fn outgoing(&self) -> Option<u64> {
        self.out.as_ref().filter(|out| !matches!(out.stage, Stage::Over(_))).map(|out| out.cap.cap)
    }
}

impl Virtuals {
    /// How a virtual channel is doing. `VIRTUAL_CHANNEL`.
    pub fn status(&self, id: &VirtualId) -> Result<Status> {
        let one = self.channel(id)?;
        let role = match (&one.out, &one.inc) {
            (Some(_), Some(_)) => Role::Hub,
            (Some(_), None) => Role::Payer,
            (None, _) => Role::Payee,
        };
        let caps = || one.out.iter().map(|out| &out.cap).chain(one.inc.iter().map(|inc| &inc.cap));
        let stage = one.out.as_ref().map(|out| out.stage);
        Ok(Status {
            role,
            out: one.out.as_ref().map(|out| out.key.0),
            inc: one.inc.as_ref().map(|inc| inc.key.0),
            cap: caps().map(|cap| cap.cap).min().unwrap_or(0),
            not_after_ms: caps().map(|cap| cap.not_after_ms).min().unwrap_or(0),
            permission: caps().next().map_or(Bytes::new(), |cap| cap.permission.clone()),
            payee: one.out.as_ref().and_then(|out| Address::from_slice(&out.hops.last()?.party).ok()),
            amount: one.paid.max(one.best()),
            opened: one.opened,
            closing: matches!(stage, Some(Stage::Leaving(_)))
                || one.inc.as_ref().is_some_and(|inc| inc.closing.is_some()),
            code: one.out.as_ref().map_or(0, |out| out.code),
            cost: stage.and_then(|stage| match stage {
                Stage::Over(paid) => Some(paid),
                _ => None,
            }),
            brought: one.inc.as_ref().and_then(|inc| inc.over),
            over: one.is_over(),
        })
    }

    /// The virtual channels that are known, over or not.
    pub fn ids(&self) -> impl Iterator<Item = &VirtualId> {
        self.channels.keys()
    }

    /// The connection of an end, for virtual channels.
    pub fn link(&self, end: &EndId) -> LinkState {
        match self.links.get(end).map(|link| &link.connection) {
            _ if self.diverged.contains(end) => LinkState::Diverged,
            Some(connection) if connection.number.is_some() => match connection.compared {
                true => LinkState::Ready,
                false => LinkState::Comparing,
            },
            _ => LinkState::Away,
        }
    }

    /// What those that are passed on bind of the own money, in all channels.
    pub fn backed(&self) -> Bound {
        let mut all = Bound::default();
        self.channels
            .values()
            .filter(|one| one.inc.is_some())
            .filter_map(Channel::outgoing)
            .for_each(|cap| all.add(cap));
        all
    }

    /// What is open on an end: paid by the own side, and by the other.
    pub fn open_on(&self, end: &EndId) -> (Bound, Bound) {
        let (mut outgoing, mut incoming) = (Bound::default(), Bound::default());
        for one in self.channels.values() {
            if one.out.as_ref().is_some_and(|out| out.key.0 == *end) {
                one.outgoing().into_iter().for_each(|cap| outgoing.add(cap));
            }
            let inc = one.inc.as_ref().filter(|inc| inc.key.0 == *end && inc.over.is_none());
            inc.into_iter().for_each(|inc| incoming.add(inc.cap.cap));
        }
        (outgoing, incoming)
    }

    /// What a watcher with this address needs to claim for an end, beside [`Manager::watch`]: the last amounts, where what is passed on
    /// is over. `UNKNOWN_CHANNEL`, those of the signer.
    pub fn watch(
        &self,
        end: &EndId,
        watcher: &Address,
        manager: &Manager,
        signer: &dyn Signer,
    ) -> Result<Vec<VirtualClaim>> {
        let channel = Bytes::copy_from_slice(&end.channel);
        let watcher = Bytes::copy_from_slice(watcher.as_bytes());
        let permit = signer.watch(&manager.status(end)?.control, &WatchPermit { channel, side: end.side, watcher })?;
        let mut claims = Vec::new();
        for (key, set) in self.ins.range((*end, 0)..=(*end, u32::MAX)) {
            let wanted = set.leaves.keys().filter(|id| {
                let Some(one) = self.channels.get(*id) else { return false };
                let done = one.out.as_ref().is_none_or(|out| matches!(out.stage, Stage::Over(_)));
                let open = one.inc.as_ref().is_some_and(|inc| inc.key == *key && inc.over.is_none());
                open && done && one.best() > 0
            });
            let wanted: Vec<VirtualId> = wanted.copied().collect();
            claims.extend(self.claims_of(key, set, &wanted));
        }
        claims.iter_mut().for_each(|claim| claim.watch = Some(permit.clone()));
        Ok(claims)
    }
}
