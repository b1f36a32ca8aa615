//! Votes, certificates and acknowledgements: what is signed, and when a set of signatures proves something.
//!
//! Safety: an honest authority signs bit `i` of a vote only for the one order that it locked for that
//! (network, actor, seqnum). Two certificates need `2 (n - f)` votes of `n` authorities, so at least
//! `n - 2f >= f + 1` signed both, one of them honest: of two conflicting orders at most one is certified.

use bytes::Bytes;

use crate::bitmap::Bitmap;
use crate::committee::Committee;
use crate::error::{Code, Error, Result};
use crate::limits::ORDERS_PER_BATCH_MAX;
use crate::merkle::Hash;
use crate::planted::{self, Bug};
use crate::signatures::{AuthorityKey, verify_all};
use crate::wire;

/// What a signature over a batch promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// "I locked these orders and will vote for no other in their place."
    Vote,
    /// "I settled these orders, on disk."
    Settled,
}

impl Promise {
    fn tag(self) -> &'static [u8] {
        match self {
            Promise::Vote => b"florin-vote-v1",
            Promise::Settled if planted::is(Bug::OneTag) => Promise::Vote.tag(),
            Promise::Settled => b"florin-settled-v1",
        }
    }
}

/// A batch, by what its votes name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct BatchId {
    /// Merkle root over the order ids.
    pub root: Hash,
    /// Orders in it, 1 to 4,096.
    pub count: usize,
}

/// The signed bytes: tag, committee id, epoch, root, count (big-endian), bitmap.
pub fn signed_bytes(promise: Promise, committee: &Committee, batch: &BatchId, bitmap: &Bitmap) -> Vec<u8> {
    let mut out = Vec::with_capacity(100 + bitmap.as_bytes().len());
    out.extend_from_slice(promise.tag());
    out.extend_from_slice(committee.id());
    out.extend_from_slice(&committee.epoch.to_be_bytes());
    out.extend_from_slice(&batch.root);
    out.extend_from_slice(&(batch.count as u32).to_be_bytes());
    out.extend_from_slice(bitmap.as_bytes());
    out
}

/// Signs a promise over a batch.
pub fn sign(
    promise: Promise,
    committee: &Committee,
    index: u32,
    key: &AuthorityKey,
    batch: &BatchId,
    bitmap: &Bitmap,
) -> wire::Signed {
    let signature = key.sign(&signed_bytes(promise, committee, batch, bitmap));
    wire::Signed { authority: index, bitmap: bitmap.to_bytes(), signature: Bytes::copy_from_slice(&signature) }
}

/// Checks signatures over one batch: known and distinct signers, exact bitmaps, signatures that verify.
/// Returns the bitmaps in the same order. Errors: `UNKNOWN_AUTHORITY`, `DUPLICATE_SIGNER`, `BAD_BITMAP`, `BAD_VOTE`.
pub fn check_signed(
    promise: Promise,
    committee: &Committee,
    batch: &BatchId,
    signed: &[wire::Signed],
) -> Result<Vec<Bitmap>> {
    let mut seen = vec![false; committee.size()];
    let mut bitmaps = Vec::with_capacity(signed.len());
    let mut jobs = Vec::with_capacity(signed.len());
    for s in signed {
        let index = s.authority as usize;
        let Some(authority) = committee.authorities.get(index) else {
            return Err(Error::expected(
                Code::UnknownAuthority,
                "signer",
                format!("below {}", committee.size()),
                index,
            ));
        };
        if std::mem::replace(&mut seen[index], true) && !planted::is(Bug::SignerTwice) {
            return Err(Error::new(
                Code::DuplicateSigner,
                format!("{} (authority {index}) signed twice", authority.name),
            ));
        }
        let bitmap = Bitmap::parse(&s.bitmap, batch.count)?;
        let signature = <[u8; 64]>::try_from(s.signature.as_ref())
            .map_err(|_| Error::expected(Code::BadVote, "bytes of a signature", 64, s.signature.len()))?;
        jobs.push((authority.key, signed_bytes(promise, committee, batch, &bitmap), signature));
        bitmaps.push(bitmap);
    }
    if planted::is(Bug::VotesUnverified) {
        jobs.clear();
    }
    verify_all(&jobs, committee.points()).map_err(|bad| {
        let index = signed[bad].authority;
        Error::new(
            Code::BadVote,
            format!(
                "the signature of {} (authority {index}) does not verify",
                committee.authorities[index as usize].name
            ),
        )
    })?;
    Ok(bitmaps)
}

/// Root and count of a certificate, after the checks that need no cryptography.
/// Errors: `WRONG_EPOCH`, `DECODE`, `LIMIT`, `NO_QUORUM`, `DUPLICATE_SIGNER` for more votes than authorities.
pub fn check_shape(committee: &Committee, certificate: &wire::Certificate) -> Result<BatchId> {
    if certificate.epoch != committee.epoch && !planted::is(Bug::EpochUnchecked) {
        return Err(Error::expected(Code::WrongEpoch, "epoch of the certificate", committee.epoch, certificate.epoch));
    }
    let batch = batch_id(&certificate.root, certificate.count)?;
    if certificate.votes.len() < committee.quorum() {
        return Err(Error::expected(
            Code::NoQuorum,
            "votes in the certificate",
            format!("at least {}", committee.quorum()),
            certificate.votes.len(),
        ));
    }
    if certificate.votes.len() > committee.size() {
        return Err(Error::expected(
            Code::DuplicateSigner,
            "votes in the certificate",
            format!("at most {}", committee.size()),
            certificate.votes.len(),
        ));
    }
    Ok(batch)
}

/// A batch id from the wire. Errors: `DECODE`, `LIMIT`.
pub fn batch_id(root: &[u8], count: u32) -> Result<BatchId> {
    let root = <Hash>::try_from(root).map_err(|_| Error::expected(Code::Decode, "bytes of a root", 32, root.len()))?;
    let count = count as usize;
    if count == 0 || count > ORDERS_PER_BATCH_MAX {
        return Err(Error::expected(Code::Limit, "orders in the batch", format!("1 to {ORDERS_PER_BATCH_MAX}"), count));
    }
    Ok(BatchId { root, count })
}

/// The orders that a certificate certifies: those with a quorum of votes, each verified.
/// Errors: those of [`check_shape`] and [`check_signed`], and `NO_QUORUM` if no order has a quorum.
pub fn check_certificate(committee: &Committee, certificate: &wire::Certificate) -> Result<(BatchId, Bitmap)> {
    let batch = check_shape(committee, certificate)?;
    let bitmaps = check_signed(Promise::Vote, committee, &batch, &certificate.votes)?;
    let needed = planted::when(Bug::CertifiedByFew, committee.validity(), committee.quorum());
    let certified = Bitmap::at_least(&bitmaps, needed, batch.count);
    if certified.is_empty() {
        return Err(Error::new(Code::NoQuorum, format!("no order of the batch has {} votes", committee.quorum())));
    }
    Ok((batch, certified))
}
