//! What a wallet's journal of cash says, and what follows from it.
//!
//! A note is in one of four states ([`State`]) until it is spent. An order is prepared, which says which notes it spends and
//! which numbers the new ones have, before it is sent; it is open until it has settled and the new notes are made, or is sure
//! never to settle. So whatever crashes, what was promised can be finished, and no number makes two notes.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use florin_core::cash::blind::Nonce;
use florin_core::{Code, Error, Result, wire};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::amounts::{Counts, TIERS, value};

/// Numbers of notes that are locked to somebody begin here: their nonces are not found again by number, and a search must
/// not stop at them.
pub const LENT: u64 = 1 << 62;
/// Numbers that orders which came to nothing may leave unused; after that they are used again.
const SKIPPED_MAX: u64 = 512;

/// 32 bytes, hex in the journal: a nonce or a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex32(pub [u8; 32]);

impl Serialize for Hex32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Hex32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Hex32, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = hex::decode(&text).ok().and_then(|b| b.try_into().ok());
        bytes.map(Hex32).ok_or_else(|| serde::de::Error::custom("expected 64 hex digits"))
    }
}

impl fmt::Debug for Hex32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl From<Nonce> for Hex32 {
    fn from(nonce: Nonce) -> Hex32 {
        Hex32(nonce.0)
    }
}

/// The lock of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Who can spend it at any time.
    pub receiver: Hex32,
    /// Who can take it back.
    pub sender: Hex32,
    /// When, milliseconds since 1970.
    pub after_ms: u64,
}

impl Lock {
    /// As it is on the wire.
    pub fn wire(&self) -> wire::NoteLock {
        let bytes = |key: &Hex32| Bytes::copy_from_slice(&key.0);
        wire::NoteLock { receiver: bytes(&self.receiver), sender: bytes(&self.sender), after_ms: self.after_ms }
    }

    /// Errors: `DECODE` for keys of another length.
    pub fn read(lock: &wire::NoteLock) -> Result<Lock> {
        let key = |bytes: &[u8]| {
            let key = <[u8; 32]>::try_from(bytes).map(Hex32);
            key.map_err(|_| Error::expected(Code::Decode, "bytes of a lock's key", 32, bytes.len()))
        };
        Ok(Lock { receiver: key(&lock.receiver)?, sender: key(&lock.sender)?, after_ms: lock.after_ms })
    }
}

/// Where the secret of a note is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "origin")]
pub enum Origin {
    /// It follows from the seed.
    Own {
        /// Number of the note.
        counter: u64,
    },
    /// Somebody gave it; encrypted.
    Given {
        /// The box, hex.
        sealed: String,
    },
    /// Somebody has locked it to a key of this wallet.
    Locked {
        /// Which one-time key.
        index: u64,
        /// The lock.
        lock: Lock,
    },
    /// This wallet has locked it to somebody.
    Lent {
        /// Number of the note.
        counter: u64,
        /// The lock.
        lock: Lock,
    },
}

impl Origin {
    /// Its lock, if it has one.
    pub fn lock(&self) -> Option<&Lock> {
        match self {
            Origin::Locked { lock, .. } | Origin::Lent { lock, .. } => Some(lock),
            Origin::Own { .. } | Origin::Given { .. } => None,
        }
    }
}

/// A note that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteRecord {
    /// Its nonce.
    pub nonce: Hex32,
    /// It is worth 2^tier minor units.
    pub tier: u32,
    /// The committee's signature, hex.
    pub signature: String,
    /// How often the log has freed it, which an order that spends it must say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recoveries: u32,
    /// Where its secret is.
    #[serde(flatten)]
    pub origin: Origin,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A note that an order asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its number: secrets and blinding follow from it.
    pub counter: u64,
    /// It is worth 2^tier minor units.
    pub tier: u32,
    /// Its nonce.
    pub nonce: Hex32,
    /// Whether it is given away as soon as it exists.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub send: bool,
    /// To whom it is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
}

/// What an order is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for")]
pub enum Purpose {
    /// An account pays for notes; the order is in the account's journal, under this id.
    Withdraw {
        /// Account of the wallet.
        account: u32,
        /// Id of the payment there.
        payment: String,
    },
    /// To have the right notes to give away.
    Send {
        /// Those that there are already.
        notes: Vec<Hex32>,
        /// For the receiver.
        memo: String,
    },
    /// To own what came in.
    Receive {
        /// Its number.
        received: u64,
    },
    /// To have again what was sent.
    Cancel {
        /// Its number.
        sent: u64,
    },
    /// To an address.
    Deposit {
        /// The address, hex.
        address: Hex32,
        /// Minor units.
        amount: u64,
    },
    /// Many small ones into few.
    Merge,
}

/// One fact about the cash of a wallet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Record {
    /// Whose journal this is; the first record.
    Owner {
        /// Address of account 0, hex.
        address: String,
    },
    /// The committee's keys of cash, which `f + 1` authorities say are in use.
    Keys {
        /// Encoded, hex.
        keys: String,
    },
    /// The authorities were asked for the notes of the seed.
    Found {
        /// The first number that none was made of.
        next: u64,
        /// What is there that the journal did not know.
        notes: Vec<NoteRecord>,
    },
    /// A key was given out to which notes may be locked.
    Requested {
        /// Which.
        index: u64,
    },
    /// A note string came in.
    Received {
        /// Its number.
        number: u64,
        /// Its notes.
        notes: Vec<NoteRecord>,
        /// The sender's.
        memo: String,
        /// Milliseconds since 1970.
        time: u64,
    },
    /// Notes were given away as they are.
    Sent {
        /// Its number.
        number: u64,
        /// Which.
        notes: Vec<Hex32>,
        /// For the receiver.
        memo: String,
        /// The user's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Milliseconds since 1970.
        time: u64,
    },
    /// An order may be anywhere from here on.
    Prepared {
        /// Its number.
        number: u64,
        /// What it is for.
        purpose: Purpose,
        /// The user's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Notes that it spends.
        inputs: Vec<Hex32>,
        /// Notes that it asks for, in the order of its outputs.
        outputs: Vec<Made>,
        /// The envelope of a bearer order, hex.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        envelope: String,
        /// Milliseconds since 1970.
        time: u64,
    },
    /// It is final, and the new notes are made.
    Settled {
        /// Number of the order.
        number: u64,
        /// The committee's signatures of the new notes, hex, in the order of the outputs.
        signatures: Vec<String>,
    },
    /// It is sure that it never settles.
    Failed {
        /// Number of the order.
        number: u64,
        /// Code of the reason.
        code: u32,
        /// What happened.
        message: String,
    },
    /// Somebody else has spent notes.
    Spent {
        /// Which.
        notes: Vec<Hex32>,
        /// Id of the order that did, hex; empty if it is not known.
        by: String,
    },
    /// The log has freed notes.
    Freed {
        /// Which.
        notes: Vec<Hex32>,
        /// How often by now.
        recoveries: u32,
    },
}

/// Where a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The wallet can spend it.
    Free,
    /// Somebody gave it, and still knows it.
    Received(u64),
    /// It was given away, and nobody was seen to spend it.
    Sent(u64),
    /// An open order spends it, or gives it away.
    Held(u64),
}

/// A note that exists and is not known to be spent.
#[derive(Clone, Debug)]
pub struct Note {
    /// What it is.
    pub note: NoteRecord,
    /// Where it is.
    pub state: State,
}

/// How a note went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// This wallet spent it.
    Here,
    /// Somebody else, by the order with this id, hex.
    Elsewhere(String),
}

/// An order that is not settled.
#[derive(Clone, Debug)]
pub struct Open {
    /// What it is for.
    pub purpose: Purpose,
    /// The user's.
    pub id: Option<String>,
    /// Notes that it spends, and where they were.
    pub inputs: Vec<(Hex32, State)>,
    /// Notes that it asks for.
    pub outputs: Vec<Made>,
    /// The envelope of a bearer order.
    pub envelope: Bytes,
    /// Milliseconds since 1970.
    pub time: u64,
}

/// Something that was sent or came in.
#[derive(Clone, Debug)]
pub struct Handed {
    /// Its notes with their tiers.
    pub notes: Vec<(Hex32, u32)>,
    /// From the sender to the receiver.
    pub memo: String,
    /// The user's.
    pub id: Option<String>,
    /// Milliseconds since 1970.
    pub time: u64,
}

impl Handed {
    /// Minor units.
    pub fn total(&self) -> u128 {
        self.notes.iter().map(|(_, tier)| u128::from(value(*tier))).sum()
    }
}

/// All that a journal of cash says.
#[derive(Default, Debug)]
pub struct Book {
    pub(super) owner: Option<String>,
    /// The committee's keys, encoded.
    pub keys: Option<Bytes>,
    /// Whether the authorities were asked for the notes of the seed.
    pub searched: bool,
    /// Notes that are not known to be spent.
    pub notes: BTreeMap<Hex32, Note>,
    /// Those that are.
    pub gone: BTreeMap<Hex32, Gone>,
    /// Orders that are not settled, by number.
    pub open: BTreeMap<u64, Open>,
    /// What was sent, by number.
    pub sent: BTreeMap<u64, Handed>,
    /// What came in, by number.
    pub received: BTreeMap<u64, Handed>,
    /// What the user's ids stand for: numbers of orders and of what was sent.
    pub ids: BTreeMap<String, u64>,
    /// One-time keys given out.
    pub requests: u64,
    /// Number of the next order or string.
    pub next: u64,
    /// First number of notes that none was made of.
    issued: u64,
    /// First number of notes that no order has used.
    used: u64,
    lent: u64,
}

impl Book {
    /// Notes in a state.
    pub fn in_state(&self, wanted: impl Fn(State) -> bool) -> impl Iterator<Item = &Note> {
        self.notes.values().filter(move |note| wanted(note.state))
    }

    /// How many free notes of each tier.
    pub fn free(&self) -> Counts {
        Counts::of(self.in_state(|s| s == State::Free).map(|n| n.note.tier))
    }

    /// The first number for new notes.
    pub fn next_counter(&self) -> u64 {
        let open = self.open.values().flat_map(|o| &o.outputs).map(|m| m.counter).filter(|c| *c < LENT);
        let needed = open.map(|c| c + 1).max().unwrap_or(0).max(self.issued);
        if self.used - needed > SKIPPED_MAX { needed } else { self.used.max(needed) }
    }

    /// The first number behind those that notes were made of.
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// The first number for new notes that are locked to somebody.
    pub fn next_lent(&self) -> u64 {
        LENT + self.lent
    }

    /// Draws the consequences of one record. Errors: `BAD_FILE` for what can't have happened.
    pub fn apply(&mut self, record: Record) -> Result<()> {
        match record {
            Record::Owner { address } => self.owner = Some(address),
            Record::Keys { keys } => {
                self.keys = Some(hex::decode(keys).map_err(|_| bad("keys that are not hex"))?.into());
            }
            Record::Found { next, notes } => {
                self.searched = true;
                self.issued = self.issued.max(next);
                self.used = self.used.max(next);
                notes.into_iter().try_for_each(|note| self.add(note, State::Free))?;
            }
            Record::Requested { index } => self.requests = self.requests.max(index + 1),
            Record::Received { number, notes, memo, time } => {
                self.count(number);
                let listed = notes.iter().map(|n| (n.nonce, n.tier)).collect();
                self.received.insert(number, Handed { notes: listed, memo, id: None, time });
                notes.into_iter().try_for_each(|note| self.add(note, State::Received(number)))?;
            }
            Record::Sent { number, notes, memo, id, time } => self.send(number, notes, memo, id, time)?,
            Record::Prepared { number, purpose, id, inputs, outputs, envelope, time } => {
                self.prepare(number, purpose, id, inputs, outputs, &envelope, time)?;
            }
            Record::Settled { number, signatures } => self.settle(number, signatures)?,
            Record::Failed { number, .. } => self.fail(number)?,
            Record::Spent { notes, by } => notes.into_iter().for_each(|nonce| {
                self.notes.remove(&nonce);
                self.gone.insert(nonce, Gone::Elsewhere(by.clone()));
            }),
            Record::Freed { notes, recoveries } => {
                for nonce in notes {
                    self.notes.get_mut(&nonce).ok_or_else(unknown)?.note.recoveries = recoveries;
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, number: u64) {
        self.next = self.next.max(number + 1);
    }

    fn add(&mut self, note: NoteRecord, state: State) -> Result<()> {
        if note.tier as usize >= TIERS {
            return Err(bad("a note of an unknown tier"));
        }
        if let Origin::Own { counter } = note.origin {
            self.issued = self.issued.max(counter + 1);
        }
        self.notes.insert(note.nonce, Note { note, state });
        Ok(())
    }

    fn send(&mut self, number: u64, nonces: Vec<Hex32>, memo: String, id: Option<String>, time: u64) -> Result<()> {
        self.count(number);
        let mut notes = Vec::with_capacity(nonces.len());
        for nonce in nonces {
            let note = self.notes.get_mut(&nonce).ok_or_else(unknown)?;
            note.state = State::Sent(number);
            notes.push((nonce, note.note.tier));
        }
        if let Some(id) = &id {
            self.ids.insert(id.clone(), number);
        }
        self.sent.insert(number, Handed { notes, memo, id, time });
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn prepare(
        &mut self,
        number: u64,
        purpose: Purpose,
        id: Option<String>,
        inputs: Vec<Hex32>,
        outputs: Vec<Made>,
        envelope: &str,
        time: u64,
    ) -> Result<()> {
        self.count(number);
        let envelope = hex::decode(envelope).map_err(|_| bad("an order that is not hex"))?.into();
        let direct = if let Purpose::Send { notes, .. } = &purpose { notes.clone() } else { Vec::new() };
        let mut held = Vec::with_capacity(inputs.len());
        for (nonce, spends) in inputs.iter().map(|n| (*n, true)).chain(direct.into_iter().map(|n| (n, false))) {
            let note = self.notes.get_mut(&nonce).ok_or_else(unknown)?;
            if spends {
                held.push((nonce, note.state));
            }
            note.state = State::Held(number);
        }
        for made in &outputs {
            if made.tier as usize >= TIERS {
                return Err(bad("a note of an unknown tier"));
            }
            match made.counter.checked_sub(LENT) {
                Some(lent) => self.lent = self.lent.max(lent + 1),
                None => self.used = self.used.max(made.counter + 1),
            }
        }
        if let Some(id) = &id {
            self.ids.insert(id.clone(), number);
        }
        self.open.insert(number, Open { purpose, id, inputs: held, outputs, envelope, time });
        Ok(())
    }

    fn settle(&mut self, number: u64, signatures: Vec<String>) -> Result<()> {
        let open = self.open.remove(&number).ok_or_else(|| bad("the end of an order that it does not know"))?;
        if signatures.len() != open.outputs.len() {
            return Err(bad("an order with more or fewer notes than it asked for"));
        }
        for (nonce, _) in open.inputs {
            self.notes.remove(&nonce);
            self.gone.insert(nonce, Gone::Here);
        }
        let mut given = Vec::new();
        for (made, signature) in open.outputs.into_iter().zip(signatures) {
            let Made { counter, tier, nonce, send, lock } = made;
            let origin = match lock {
                Some(lock) => Origin::Lent { counter, lock },
                None => Origin::Own { counter },
            };
            self.add(NoteRecord { nonce, tier, signature, recoveries: 0, origin }, State::Free)?;
            if send {
                given.push(nonce);
            }
        }
        if let Purpose::Send { notes, memo } = open.purpose {
            given.extend(notes);
            self.send(number, given, memo, open.id, open.time)?;
        }
        Ok(())
    }

    fn fail(&mut self, number: u64) -> Result<()> {
        let open = self.open.remove(&number).ok_or_else(|| bad("the end of an order that it does not know"))?;
        for (nonce, was) in open.inputs {
            // Unless somebody else has spent it, which may be why.
            if let Some(note) = self.notes.get_mut(&nonce) {
                note.state = was;
            }
        }
        if let Purpose::Send { notes, .. } = &open.purpose {
            for nonce in notes {
                if let Some(note) = self.notes.get_mut(nonce) {
                    note.state = State::Free;
                }
            }
        }
        if let Some(id) = open.id {
            self.ids.remove(&id);
        }
        Ok(())
    }
}

fn bad(what: &str) -> Error {
    Error::new(Code::BadFile, format!("the wallet's journal of cash holds {what}"))
}

fn unknown() -> Error {
    bad("something about a note that it does not know")
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
