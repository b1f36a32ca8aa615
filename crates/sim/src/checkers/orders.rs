//! Orders and batches as the checkers read them: with the generated decoders and sha256 alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use florin_core::{pbtx, wire};
use prost::Message as _;
use sha2::{Digest, Sha256};

/// An order's place. What holds of a place holds of all its orders together: at most one can be certified there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Its network.
    pub network: u64,
    /// Its actor.
    pub actor: u64,
    /// Its seqnum.
    pub seqnum: u32,
    /// Its own id, in networks without sequence numbers: there each order is alone at its place.
    pub id: Option<Id>,
}

impl Place {
    /// A place in a network with sequence numbers.
    pub fn new(network: u64, actor: u64, seqnum: u32) -> Place {
        Place { network, actor, seqnum, id: None }
    }

    /// The one before.
    pub fn before(self) -> Option<Place> {
        Some(Place { seqnum: self.seqnum.checked_sub(1)?, ..self })
    }
}

/// sha256 of an order's body.
pub type Id = [u8; 32];

/// What an order says.
#[derive(Clone, Debug)]
pub struct Known {
    /// Actor and seqnum.
    pub place: Place,
    /// Its id.
    pub id: Id,
    /// First 8 bytes of the id of the one before.
    pub prev_hash: u64,
    /// Addresses paid, minor units.
    pub outputs: Vec<([u8; 32], u64)>,
    /// Address of the account that it opens.
    pub opens: Option<[u8; 32]>,
    /// The permission with which it opens the account.
    pub first: Option<Bytes>,
    /// The permission from then on, if it changes the account's keys.
    pub keys: Option<Bytes>,
    /// What a CALL does.
    pub call: Option<wire::Call>,
    /// The account that a CALL or RECOVER names.
    pub account: Option<[u8; 32]>,
    /// What a CALL is debited, minor units.
    pub debit: u64,
    /// Whether it is a RECOVER.
    pub recover: bool,
    /// What it is in a PBTX network.
    pub foreign: Option<Foreign>,
    /// Notes that it asks for: tier and blinded nonce.
    pub asked: Vec<(u32, Bytes)>,
    /// Notes that it spends; only bearer orders do.
    pub spends: Vec<Spent>,
    /// What its outputs are worth less what its notes are, minor units: 0 in a bearer order that balances.
    pub short: i128,
}

/// A note that an order spends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spent {
    /// What is marked spent.
    pub nonce: Id,
    /// It is worth 2^tier minor units.
    pub tier: u32,
    /// How often the log has freed it, as the order says.
    pub recoveries: u32,
    /// If its sender takes it back: from when on it may.
    pub after_ms: Option<u64>,
}

impl Known {
    /// Whether it spends notes, and so has no account.
    pub fn is_bearer(&self) -> bool {
        !self.spends.is_empty()
    }

    /// Value of the notes that it issues less that of those that it spends, minor units.
    pub fn notes(&self) -> i128 {
        let issued: i128 = self.asked.iter().map(|(tier, _)| worth(*tier)).sum();
        issued - self.spends.iter().map(|note| worth(note.tier)).sum::<i128>()
    }
}

/// What a note of a tier is worth, minor units.
pub fn worth(tier: u32) -> i128 {
    1 << tier.min(62)
}

/// An order of a PBTX network.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Its type.
    pub kind: u32,
    /// Its content.
    pub content: Bytes,
    /// Who agrees.
    pub cosignors: Vec<u64>,
}

/// Every order that an honest authority has been shown.
pub struct Orders {
    /// The payment network.
    own: u64,
    /// Networks without sequence numbers.
    loose: BTreeSet<u64>,
    by_id: BTreeMap<Id, Known>,
    /// By envelope: its leaf and its id. Each is shown many times.
    read: HashMap<Bytes, (Id, Option<Id>)>,
    by_link: BTreeMap<(Place, u64), Id>,
    batches: BTreeMap<[u8; 32], Vec<Option<Id>>>,
    opened: BTreeMap<u64, [u8; 32]>,
    /// Permissions that open accounts, by actor.
    first: BTreeMap<u64, Bytes>,
    /// Changes of keys: seqnums by network and actor.
    rotations: BTreeMap<(u64, u64), BTreeSet<u32>>,
}

/// First 8 bytes of an id, big-endian.
pub fn short(id: &Id) -> u64 {
    id[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether bit `i` is set, little-endian within bytes.
pub fn bit(bitmap: &[u8], i: usize) -> bool {
    bitmap.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1)
}

impl Orders {
    /// None yet, of this payment network and these networks without sequence numbers.
    pub fn new(own: u64, loose: BTreeSet<u64>) -> Self {
        let (by_id, by_link) = (BTreeMap::new(), BTreeMap::new());
        let (batches, opened, rotations) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let read = HashMap::new();
        Orders { own, loose, by_id, read, by_link, batches, opened, first: BTreeMap::new(), rotations }
    }

    /// An order by its id.
    pub fn get(&self, id: &Id) -> Option<&Known> {
        self.by_id.get(id)
    }

    /// All orders.
    pub fn all(&self) -> impl Iterator<Item = &Known> {
        self.by_id.values()
    }

    /// The order that this one is chained to.
    pub fn parent(&self, order: &Known) -> Option<&Known> {
        self.by_id.get(self.by_link.get(&(order.place.before()?, order.prev_hash))?)
    }

    /// The address of an actor, of whom some order was shown that opens its account.
    pub fn address_of(&self, actor: u64) -> Option<[u8; 32]> {
        self.opened.get(&actor).copied()
    }

    /// The permission that has opened an actor's account, if some order was shown that does.
    pub fn first_keys(&self, actor: u64) -> Option<&Bytes> {
        self.first.get(&actor)
    }

    /// Seqnums at which an actor may have changed its keys.
    pub fn rotations(&self, network: u64, actor: u64) -> impl Iterator<Item = u32> {
        self.rotations.get(&(network, actor)).into_iter().flatten().copied()
    }

    /// The orders of a batch that was shown.
    pub fn batch(&self, root: &[u8]) -> Option<&[Option<Id>]> {
        self.batches.get(root).map(Vec::as_slice)
    }

    /// Learns a batch, and returns its root.
    pub fn learn(&mut self, raw: &[Bytes]) -> [u8; 32] {
        let mut leaves = Vec::with_capacity(raw.len());
        let mut ids = Vec::with_capacity(raw.len());
        for envelope in raw {
            let (leaf, id) = match self.read.get(envelope) {
                Some(read) => *read,
                None => self.learn_one(envelope),
            };
            leaves.push(leaf);
            ids.push(id);
        }
        let root = tree(&leaves);
        self.batches.entry(root).or_insert(ids);
        root
    }

    /// Learns an order: its leaf, and its id if it is one.
    fn learn_one(&mut self, envelope: &Bytes) -> (Id, Option<Id>) {
        let body = body_of(envelope);
        let known = body.as_ref().and_then(|body| self.read(body));
        let read = (Sha256::digest(body.as_ref().unwrap_or(envelope)).into(), known.as_ref().map(|k| k.id));
        if let Some(known) = known {
            if let Some(address) = known.opens
                && super::number(&address[..8]) & (u64::MAX >> 1) == known.place.actor
            {
                self.opened.insert(known.place.actor, address);
                self.first.extend(known.first.clone().map(|keys| (known.place.actor, keys)));
            }
            if known.keys.is_some() || known.foreign.as_ref().is_some_and(|f| f.kind == super::rules::ROTATE) {
                let actor = (known.place.network, known.place.actor);
                self.rotations.entry(actor).or_default().insert(known.place.seqnum);
            }
            self.by_link.insert((known.place, short(&known.id)), known.id);
            self.by_id.entry(known.id).or_insert(known);
        }
        self.read.insert(envelope.clone(), read);
        read
    }

    fn read(&self, bytes: &Bytes) -> Option<Known> {
        let body = pbtx::TransactionBody::decode(bytes.clone()).ok()?;
        let id = Sha256::digest(bytes).into();
        let place = Place::new(body.network_id, body.actor, body.seqnum);
        let mut known = Known {
            place: Place { id: self.loose.contains(&body.network_id).then_some(id), ..place },
            id,
            prev_hash: body.prev_hash,
            outputs: Vec::new(),
            opens: None,
            first: None,
            keys: None,
            call: None,
            account: None,
            debit: 0,
            recover: false,
            foreign: None,
            asked: Vec::new(),
            spends: Vec::new(),
            short: 0,
        };
        if body.network_id != self.own {
            let (kind, content, cosignors) = (body.transaction_type, body.transaction_content, body.cosignors);
            known.foreign = Some(Foreign { kind, content, cosignors });
            return Some(known);
        }
        let content = body.transaction_content;
        let open = match body.transaction_type {
            1 => {
                let pay = wire::Pay::decode(content).ok()?;
                for output in pay.outputs {
                    match output.kind? {
                        wire::output::Kind::Credit(credit) => {
                            known.outputs.push((<[u8; 32]>::try_from(credit.address.as_ref()).ok()?, credit.amount));
                        }
                        wire::output::Kind::Note(note) => known.asked.push((note.tier, note.blinded)),
                        _ => return None,
                    }
                }
                pay.open
            }
            kind @ (5 | 6) => {
                let bearer = wire::Bearer::decode(content).ok()?;
                known.place = Place { id: Some(id), ..place };
                known.recover = kind == 6;
                known.short = bearer.outputs.iter().map(taken).sum();
                for output in bearer.outputs {
                    match output.kind? {
                        wire::output::Kind::Credit(credit) => {
                            known.outputs.push((<[u8; 32]>::try_from(credit.address.as_ref()).ok()?, credit.amount));
                        }
                        wire::output::Kind::Note(note) => known.asked.push((note.tier, note.blinded)),
                        // What the log settles.
                        _ => {}
                    }
                }
                for note in bearer.notes {
                    known.short -= worth(note.tier);
                    known.spends.push(spent(&note)?);
                }
                return (!known.spends.is_empty()).then_some(known);
            }
            3 => {
                let call = wire::Call::decode(content).ok()?;
                known.account = Some(<[u8; 32]>::try_from(call.account.as_ref()).ok()?);
                let takes: i128 = call.outputs.iter().map(taken).sum();
                let brings: i128 = call.inputs.iter().map(|i| i128::from(i.amount)).sum();
                known.debit = u64::try_from(takes - brings).ok()?;
                let open = call.open.clone();
                known.call = Some(call);
                open
            }
            4 => {
                let recover = wire::Recover::decode(content).ok()?;
                known.account = Some(<[u8; 32]>::try_from(recover.account.as_ref()).ok()?);
                known.recover = true;
                recover.open
            }
            _ => {
                let set = wire::SetPermission::decode(content).ok()?;
                known.keys = Some(set.permission);
                set.open
            }
        };
        if !open.is_empty() {
            let hash = Sha256::new().chain_update(b"florin-account-v1").chain_update(body.network_id.to_be_bytes());
            known.opens = Some(hash.chain_update(&open).finalize().into());
            known.first = Some(open);
        }
        Some(known)
    }
}

/// The id of an order in its envelope.
pub fn id_of(envelope: &Bytes) -> Option<Id> {
    body_of(envelope).map(|body| Sha256::digest(body).into())
}

/// RFC 6962, as it is written there.
fn tree(ids: &[Id]) -> [u8; 32] {
    if let [one] = ids {
        return Sha256::new().chain_update([0]).chain_update(one).finalize().into();
    }
    let split = ids.len().next_power_of_two() / 2;
    Sha256::new()
        .chain_update([1])
        .chain_update(tree(&ids[..split]))
        .chain_update(tree(&ids[split..]))
        .finalize()
        .into()
}

/// The body of an envelope, if both are in their one encoding: else its leaf is the hash of the whole.
fn body_of(envelope: &Bytes) -> Option<Bytes> {
    let transaction = pbtx::Transaction::decode(envelope.clone()).ok()?;
    let body = pbtx::TransactionBody::decode(transaction.body.clone()).ok()?;
    let canonical = transaction.encode_to_vec() == envelope[..] && body.encode_to_vec() == transaction.body[..];
    let ids_fit = (body.cosignors.iter().chain([&body.actor, &body.network_id])).all(|id| id >> 63 == 0);
    (canonical && ids_fit && !transaction.body.is_empty()).then_some(transaction.body)
}

/// A note that a bearer order spends. The nonce of a locked one is a hash of its lock.
fn spent(note: &wire::NoteInput) -> Option<Spent> {
    let (nonce, after_ms) = match &note.lock {
        None => (Id::try_from(note.nonce.as_ref()).ok()?, None),
        Some(lock) => {
            let hash = Sha256::new().chain_update(b"florin-cash-lock-v1").chain_update(&lock.receiver);
            let hash = hash.chain_update(&lock.sender).chain_update(lock.after_ms.to_be_bytes());
            (hash.finalize().into(), note.returned.then_some(lock.after_ms))
        }
    };
    Some(Spent { nonce, tier: note.tier, recoveries: note.recoveries, after_ms })
}

/// The value that an output takes.
fn taken(output: &wire::Output) -> i128 {
    use wire::output::Kind;
    match &output.kind {
        Some(Kind::Credit(credit)) => i128::from(credit.amount),
        Some(Kind::ContractFund(fund)) => i128::from(fund.amount),
        Some(Kind::PrimaryRedeem(redeem)) => i128::from(redeem.amount),
        Some(Kind::Note(note)) => worth(note.tier),
        Some(Kind::ChannelOpen(open)) => i128::from(open.amount),
        Some(Kind::ChannelDeposit(deposit)) => i128::from(deposit.amount),
        Some(_) | None => 0,
    }
}
