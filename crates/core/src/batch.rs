//! Batches: up to 4,096 orders under one Merkle root.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::certificate::BatchId;
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::limits::{MESSAGE_BYTES_MAX, ORDERS_PER_BATCH_MAX};
use crate::merkle::{self, Hash};

/// A batch of orders, decoded; the ids are there also for orders that did not decode.
pub struct DecodedBatch {
    /// Root and count.
    pub id: BatchId,
    /// Each order, or why it is none.
    pub orders: Vec<Result<Order>>,
}

/// Decodes a batch. Errors: `LIMIT` if it is empty or too large: with more than [`MESSAGE_BYTES_MAX`] of orders
/// it could not be shown to peers together with its certificates.
pub fn decode_batch(raw: &[Bytes]) -> Result<DecodedBatch> {
    if raw.is_empty() || raw.len() > ORDERS_PER_BATCH_MAX {
        return Err(Error::expected(
            Code::Limit,
            "orders in the batch",
            format!("1 to {ORDERS_PER_BATCH_MAX}"),
            raw.len(),
        ));
    }
    let bytes: usize = raw.iter().map(Bytes::len).sum();
    if bytes > MESSAGE_BYTES_MAX {
        return Err(Error::expected(Code::Limit, "bytes of the orders", format!("at most {MESSAGE_BYTES_MAX}"), bytes));
    }
    let orders: Vec<Result<Order>> = raw.iter().map(|bytes| Order::decode(bytes.clone())).collect();
    let ids: Vec<Hash> = raw.iter().zip(&orders).map(|(bytes, order)| leaf_id(bytes, order)).collect();
    Ok(DecodedBatch { id: BatchId { root: merkle::root(&ids), count: raw.len() }, orders })
}

/// The id that an order has in its batch: that of its body, or, where there is no body, a hash of its
/// bytes that no body can have. Without the tag a bare body, sent as if it were an envelope, would take
/// the place of the real order under the batch's root.
pub fn leaf_id(raw: &Bytes, order: &Result<Order>) -> Hash {
    match order {
        Ok(order) => order.id,
        Err(_) => Sha256::new().chain_update(b"florin-undecodable-v1").chain_update(raw).finalize().into(),
    }
}
