//! The gate: what peers send is read, bounded and checked here before AlephBFT sees any of it.
//!
//! AlephBFT 0.45 trusts indices inside messages. One request with an index out of range panics it; an alert whose proof
//! is signed but not valid does so on every honest authority; anybody may ask in another's name. So the gate lets through
//! only messages in which every index is of the committee, every name of a requester is that of the peer that
//! sent it, and every unit, alone or in an answer or alert, is signed and valid by AlephBFT's own rules.
//!
//! The types repeat AlephBFT's messages, whose fields are private; the tests read all that engines send with both.

use std::collections::HashSet;

use parity_scale_codec::{Decode, Encode};

use super::keys::{Hash, Item, Keys, Sha, Sig};
use super::{ROUNDS_MAX, UNIT_BYTES_MAX};

/// A unit.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Unit {
    pub(super) round: u16,
    pub(super) creator: u64,
    /// By creator, the round of the parent if there is one.
    pub(super) parents: Vec<Option<u16>>,
    pub(super) parents_hash: Hash,
    pub(super) data: Option<Item>,
    pub(super) session: u64,
}

/// A unit and its creator's signature.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct SignedUnit {
    pub(super) unit: Unit,
    pub(super) signature: Sig,
}

impl Unit {
    pub(super) fn hash(&self) -> Hash {
        self.using_encoded(<Sha as aleph_bft::Hasher>::hash)
    }
}

/// `NetworkData` of AlephBFT.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) enum Message {
    Units(UnitMessage),
    Alert(AlertMessage),
}

/// Of units. `Newest...` is never sent nor taken: see [`super::link`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) enum UnitMessage {
    Unit(SignedUnit),
    /// Requester, round, creator.
    CoordRequest(u64, u16, u64),
    ParentsRequest(u64, Hash),
    ParentsResponse(Hash, Vec<SignedUnit>),
    /// Requester, salt.
    NewestRequest(u64, u64),
    NewestResponse(NewestResponse),
}

/// The newest unit that `responder` has of `requester`.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct NewestResponse {
    pub(super) requester: u64,
    pub(super) responder: u64,
    pub(super) unit: Option<SignedUnit>,
    pub(super) salt: u64,
    pub(super) signature: Sig,
}

/// Of forks.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) enum AlertMessage {
    ForkAlert(Box<Alert>, Sig),
    /// Sender, message.
    Rmc(u64, Rmc),
    /// Requester, hash of the alert.
    AlertRequest(u64, Hash),
}

/// "I saw these two units, and these are the forker's units that I built upon."
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct Alert {
    pub(super) sender: u64,
    pub(super) proof: (SignedUnit, SignedUnit),
    pub(super) units: Vec<SignedUnit>,
}

/// Reliable broadcast of an alert's hash.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) enum Rmc {
    /// Hash, signer, signature.
    Signed(Hash, u64, Sig),
    Multisigned(Hash, Vec<Option<Sig>>),
}

/// Bytes of the largest unit: its data, and for each authority a parent's round.
pub(super) const fn unit_bytes_max(authorities: usize) -> usize {
    UNIT_BYTES_MAX + 256 + 3 * authorities
}

/// Bytes of the largest message: an alert with a unit of each round, or an answer with a unit of each authority.
pub(super) const fn message_bytes_max(authorities: usize) -> usize {
    let units = if authorities > ROUNDS_MAX as usize { authorities } else { ROUNDS_MAX as usize };
    (units + 4) * unit_bytes_max(authorities)
}

/// What a checked message means to the engine.
pub(super) struct Checked {
    /// The units in it.
    pub(super) units: Vec<SignedUnit>,
    /// An alert's hash.
    pub(super) alert: Option<Hash>,
}

/// Why a message was refused.
pub(super) type Refused = &'static str;

impl Message {
    /// Reads a message; memory is bounded by a few times the length of the bytes.
    pub(super) fn read(mut bytes: &[u8]) -> Result<Message, Refused> {
        let message = Message::decode(&mut bytes).map_err(|_| "not a message")?;
        if bytes.is_empty() { Ok(message) } else { Err("bytes after the message") }
    }

    /// How many signatures are to be verified for it.
    pub(super) fn signatures(&self) -> usize {
        match self {
            Message::Units(UnitMessage::Unit(_)) | Message::Alert(AlertMessage::Rmc(_, Rmc::Signed(..))) => 1,
            Message::Units(UnitMessage::ParentsResponse(_, units)) => units.len(),
            Message::Units(_) | Message::Alert(AlertMessage::AlertRequest(..)) => 0,
            Message::Alert(AlertMessage::Rmc(_, Rmc::Multisigned(_, signatures))) => signatures.len(),
            Message::Alert(AlertMessage::ForkAlert(alert, _)) => 3 + alert.units.len(),
        }
    }

    /// Whether it asks for an answer.
    pub(super) fn is_request(&self) -> bool {
        matches!(
            self,
            Message::Units(UnitMessage::CoordRequest(..) | UnitMessage::ParentsRequest(..))
                | Message::Alert(AlertMessage::AlertRequest(..))
        )
    }
}

/// The checks of one session.
pub(super) struct Gate {
    keys: Keys,
    session: u64,
}

impl Gate {
    pub(super) fn new(keys: Keys, session: u64) -> Gate {
        Gate { keys, session }
    }

    /// Checks a message of a peer, whose index is of the committee.
    pub(super) fn check(&self, from: u32, message: Message) -> Result<Checked, Refused> {
        let from = u64::from(from);
        let own_name = |name: u64| if name == from { Ok(()) } else { Err("in the name of another") };
        let mut checked = Checked { units: Vec::new(), alert: None };
        match message {
            Message::Units(UnitMessage::Unit(unit)) => {
                self.check_unit(&unit)?;
                checked.units.push(unit);
            }
            Message::Units(UnitMessage::CoordRequest(requester, _, creator)) => {
                own_name(requester)?;
                self.member(creator)?;
            }
            Message::Units(UnitMessage::ParentsRequest(requester, _))
            | Message::Alert(AlertMessage::AlertRequest(requester, _)) => {
                own_name(requester)?;
            }
            Message::Units(UnitMessage::ParentsResponse(_, units)) => {
                if units.len() > self.keys.size() {
                    return Err("more parents than authorities");
                }
                units.iter().try_for_each(|unit| self.check_unit(unit))?;
                checked.units = units;
            }
            Message::Units(UnitMessage::NewestRequest(..) | UnitMessage::NewestResponse(_)) => {
                return Err("about newest units");
            }
            Message::Alert(AlertMessage::Rmc(sender, Rmc::Signed(hash, signer, signature))) => {
                own_name(sender)?;
                own_name(signer)?;
                self.signed(&hash, &signature, signer)?;
            }
            Message::Alert(AlertMessage::Rmc(sender, Rmc::Multisigned(_, signatures))) => {
                own_name(sender)?;
                if signatures.len() != self.keys.size() {
                    return Err("signatures for another committee");
                }
            }
            Message::Alert(AlertMessage::ForkAlert(alert, signature)) => {
                let hash = alert.using_encoded(<Sha as aleph_bft::Hasher>::hash);
                self.member(alert.sender)?;
                self.signed(&hash, &signature, alert.sender)?;
                self.check_alert(&alert)?;
                checked.alert = Some(hash);
                checked.units = alert.units;
                checked.units.extend([alert.proof.0, alert.proof.1]);
            }
        }
        Ok(checked)
    }

    fn member(&self, index: u64) -> Result<(), Refused> {
        if index < self.keys.size() as u64 { Ok(()) } else { Err("an index that no authority has") }
    }

    fn signed(&self, hash: &Hash, signature: &Sig, index: u64) -> Result<(), Refused> {
        if self.keys.verifies(hash, signature, index as usize) { Ok(()) } else { Err("a false signature") }
    }

    /// AlephBFT's rules for a unit by itself.
    fn check_unit(&self, SignedUnit { unit, signature }: &SignedUnit) -> Result<(), Refused> {
        self.member(unit.creator)?;
        if unit.session != self.session {
            return Err("a unit of another session");
        }
        if unit.round > ROUNDS_MAX {
            return Err("a unit of a round beyond the session's end");
        }
        if unit.parents.len() != self.keys.size() {
            return Err("a unit for another committee");
        }
        let parents = || unit.parents.iter().flatten();
        match unit.round.checked_sub(1) {
            None if parents().next().is_some() => return Err("parents before the first round"),
            None => {
                // What the hash of no parents comes to: AlephBFT takes a parent as hash and round.
                let none: Vec<Option<(Hash, u16)>> = vec![None; self.keys.size()];
                if unit.parents_hash != none.using_encoded(<Sha as aleph_bft::Hasher>::hash) {
                    return Err("a hash of parents that there are not");
                }
            }
            Some(before) => {
                let direct = parents().filter(|round| **round == before).count();
                let is_chained = unit.parents[unit.creator as usize] == Some(before);
                if !is_chained || direct < self.keys.size() * 2 / 3 + 1 || parents().any(|round| *round > before) {
                    return Err("a unit with impossible parents");
                }
            }
        }
        self.signed(&unit.hash(), signature, unit.creator)
    }

    fn check_alert(&self, alert: &Alert) -> Result<(), Refused> {
        let (first, second) = &alert.proof;
        self.check_unit(first)?;
        self.check_unit(second)?;
        let forker = first.unit.creator;
        let is_fork =
            second.unit.creator == forker && second.unit.round == first.unit.round && second.unit != first.unit;
        if !is_fork {
            return Err("an alert without a fork");
        }
        let mut rounds = HashSet::new();
        for unit in &alert.units {
            if unit.unit.creator != forker || !rounds.insert(unit.unit.round) {
                return Err("an alert with units that do not belong there");
            }
            self.check_unit(unit)?;
        }
        Ok(())
    }
}
