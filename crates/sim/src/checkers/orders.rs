//! Orders and batches as the checkers read them: with the generated decoders and sha256 alone.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::{pbtx, wire};
use prost::Message as _;
use sha2::{Digest, Sha256};

/// An order's place: (actor, seqnum).
pub type Place = (u64, u32);
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
}

/// Every order that an honest authority has been shown.
#[derive(Default)]
pub struct Orders {
    by_id: BTreeMap<Id, Known>,
    by_link: BTreeMap<(u64, u32, u64), Id>,
    batches: BTreeMap<[u8; 32], Vec<Option<Id>>>,
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
    /// An order by its id.
    pub fn get(&self, id: &Id) -> Option<&Known> {
        self.by_id.get(id)
    }

    /// The order that this one is chained to.
    pub fn parent(&self, order: &Known) -> Option<&Known> {
        let (actor, seqnum) = order.place;
        self.by_id.get(self.by_link.get(&(actor, seqnum.checked_sub(1)?, order.prev_hash))?)
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
            let body = body_of(envelope);
            let known = body.as_ref().and_then(read);
            leaves.push(Sha256::digest(body.as_ref().unwrap_or(envelope)).into());
            ids.push(known.as_ref().map(|k| k.id));
            if let Some(known) = known {
                self.by_link.insert((known.place.0, known.place.1, short(&known.id)), known.id);
                self.by_id.entry(known.id).or_insert(known);
            }
        }
        let root = tree(&leaves);
        self.batches.entry(root).or_insert(ids);
        root
    }
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

fn read(bytes: &Bytes) -> Option<Known> {
    let body = pbtx::TransactionBody::decode(bytes.clone()).ok()?;
    let mut known = Known {
        place: (body.actor, body.seqnum),
        id: Sha256::digest(bytes).into(),
        prev_hash: body.prev_hash,
        outputs: Vec::new(),
        opens: None,
    };
    let content = body.transaction_content;
    let open = match body.transaction_type {
        1 => {
            let pay = wire::Pay::decode(content).ok()?;
            for output in pay.outputs {
                let Some(wire::output::Kind::Credit(credit)) = output.kind else { return None };
                known.outputs.push((<[u8; 32]>::try_from(credit.address.as_ref()).ok()?, credit.amount));
            }
            pay.open
        }
        _ => wire::SetPermission::decode(content).ok()?.open,
    };
    if !open.is_empty() {
        let hash = Sha256::new().chain_update(b"florin-account-v1").chain_update(body.network_id.to_be_bytes());
        known.opens = Some(hash.chain_update(&open).finalize().into());
    }
    Some(known)
}
