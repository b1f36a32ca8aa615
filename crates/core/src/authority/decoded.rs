//! Batches that were voted on lately, decoded: most certificates come for one of them, and decoding and hashing its orders
//! again would give the same.
//!
//! A memory of what a function of the bytes gave, compared with the stored bytes in full before it is used: it decides nothing.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::batch::DecodedBatch;
use crate::canonical::{self as tag, Reader};
use crate::limits::{MESSAGE_BYTES_MAX, ORDERS_PER_BATCH_MAX};
use crate::merkle::Hash;

/// Batches that are kept at most. Their orders are parts of the messages that they came in, and one keeps all of a message in
/// memory: with what the largest message has, 64 MiB for all.
const BATCHES_MAX: usize = 16;
/// Orders that are kept at most, some 400 bytes each beside their own.
const ORDERS_MAX: usize = 4 * ORDERS_PER_BATCH_MAX;
/// Bytes of orders that are kept at most.
const BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;

/// A batch and the bytes that it was decoded from.
struct Kept {
    raw: Vec<Bytes>,
    batch: DecodedBatch,
}

/// The batches, oldest first; bounded by [`BATCHES_MAX`], [`ORDERS_MAX`] and [`BYTES_MAX`].
#[derive(Default)]
pub(super) struct Decoded(Mutex<VecDeque<Kept>>);

impl Decoded {
    /// Keeps a batch, in the place of the oldest if there are too many.
    pub(super) fn keep(&self, raw: Vec<Bytes>, batch: DecodedBatch) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(Kept { raw, batch });
        let size = |of: fn(&Kept) -> usize| kept.iter().map(of).sum::<usize>();
        let (mut orders, mut bytes) = (size(|k| k.raw.len()), size(bytes_of));
        while kept.len() > BATCHES_MAX || orders > ORDERS_MAX || bytes > BYTES_MAX {
            let Some(oldest) = kept.pop_front() else { return };
            (orders, bytes) = (orders - oldest.raw.len(), bytes - bytes_of(&oldest));
        }
    }

    /// Takes out the batch with this root if it was decoded from exactly the orders of this `BatchRecord`.
    pub(super) fn take(&self, root: &Hash, record: &[u8]) -> Option<DecodedBatch> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|k| k.batch.id.root == *root && is_record_of(record, &k.raw))?;
        kept.remove(at).map(|k| k.batch)
    }
}

fn bytes_of(kept: &Kept) -> usize {
    kept.raw.iter().map(Bytes::len).sum()
}

/// Whether a record holds exactly these orders.
fn is_record_of(record: &[u8], orders: &[Bytes]) -> bool {
    let mut reader = Reader::new(record);
    let mut next = || reader.bytes_field(tag::bytes(1), record.len()).flatten();
    orders.iter().all(|order| next().is_some_and(|range| record[range] == order[..])) && reader.is_done()
}

#[cfg(test)]
mod tests {
    use super::super::encode::encode_batch_record;
    use super::*;
    use crate::batch::decode_batch;
    use crate::testing::{Signer, to};

    fn order(number: u64) -> Bytes {
        let mut signer = Signer::new(number);
        let address = signer.address;
        signer.pay(&[to(address, 1)], "")
    }

    #[test]
    fn a_batch_is_taken_once_and_for_its_very_bytes_only() {
        let decoded = Decoded::default();
        let raw = vec![order(1), order(2)];
        let record = encode_batch_record(&raw);
        let root = decode_batch(&raw).unwrap().id.root;
        let keep = || decoded.keep(raw.clone(), decode_batch(&raw).unwrap());

        keep();
        assert!(decoded.take(&[0; 32], &record).is_none(), "another root");
        for other in [vec![order(1)], vec![order(1), order(3)], vec![order(1), order(2), order(3)], Vec::new()] {
            assert!(decoded.take(&root, &encode_batch_record(&other)).is_none(), "other orders");
        }
        let mut longer = record.clone();
        longer.push(0);
        assert!(decoded.take(&root, &longer).is_none());
        assert_eq!(decoded.take(&root, &record).unwrap().id, decode_batch(&raw).unwrap().id);
        assert!(decoded.take(&root, &record).is_none(), "it is taken");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let decoded = Decoded::default();
        let raw = vec![Bytes::from_static(b"none"); ORDERS_PER_BATCH_MAX];
        for _ in 0..6 {
            decoded.keep(raw.clone(), decode_batch(&raw).unwrap());
        }
        assert_eq!(decoded.0.lock().unwrap().len(), 4);
        let small = vec![Bytes::from_static(b"none")];
        for _ in 0..2 * BATCHES_MAX {
            decoded.keep(small.clone(), decode_batch(&small).unwrap());
        }
        assert_eq!(decoded.0.lock().unwrap().len(), BATCHES_MAX);
        let large = vec![Bytes::from(vec![0; MESSAGE_BYTES_MAX])];
        for _ in 0..6 {
            decoded.keep(large.clone(), decode_batch(&large).unwrap());
        }
        assert_eq!(decoded.0.lock().unwrap().len(), 4);
    }

    #[test]
    fn as_many_of_the_oldest_go_as_must() {
        let decoded = Decoded::default();
        let keep = |orders: usize, bytes: usize| {
            let raw = vec![Bytes::from(vec![0; bytes]); orders];
            decoded.keep(raw.clone(), decode_batch(&raw).unwrap());
        };
        let sizes = || decoded.0.lock().unwrap().iter().map(|kept| kept.raw.len()).collect::<Vec<_>>();
        [2, 100].into_iter().for_each(|orders| keep(orders, 1));
        (0..4).for_each(|_| keep(ORDERS_PER_BATCH_MAX, 1));
        assert_eq!(sizes(), [ORDERS_PER_BATCH_MAX; 4], "both are in the way");
        keep(1, 1);
        assert_eq!(sizes(), [ORDERS_PER_BATCH_MAX, ORDERS_PER_BATCH_MAX, ORDERS_PER_BATCH_MAX, 1]);
        // The same for bytes.
        let decoded = Decoded::default();
        let keep = |bytes: usize| {
            let raw = vec![Bytes::from(vec![0; bytes])];
            decoded.keep(raw.clone(), decode_batch(&raw).unwrap());
        };
        [2, 100, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX].into_iter().for_each(keep);
        assert_eq!(decoded.0.lock().unwrap().iter().map(bytes_of).collect::<Vec<_>>(), [MESSAGE_BYTES_MAX; 4]);
    }
}
