//! Vouchers and permits: what one side of a channel signs for the other, outside of any order.
//!
//! What is signed is sha256(tag || encoded message), as an order's body hash would be: no body begins as the tags do (`f`
//! is no tag of a field), so neither can be taken for the other, and every kind of key signs both.

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::check_side;
use crate::address::Address;
use crate::content::{canonical, check_address};
use crate::error::{Code, Error, Result};
use crate::keys::SecretKey;
use crate::limits::{MERGES_MAX, SIGS_PER_AUTHORITY_MAX, VIRTUALS_MAX};
use crate::merkle::Hash;
use crate::permission::Permission;
use crate::signatures::{self, Job};
use crate::wire;

const VOUCHER_TAG: &[u8] = b"florin-voucher-v1";
const WITHDRAW_TAG: &[u8] = b"florin-channel-withdraw-v1";
const WATCH_TAG: &[u8] = b"florin-channel-watch-v1";
const VIRTUAL_TAG: &[u8] = b"florin-virtual-v1";
const CAP_TAG: &[u8] = b"florin-virtual-cap-v1";

/// A voucher of the right form. Whether it is worth something, [`super::rules`] says.
#[derive(Clone, PartialEq, Debug)]
pub struct Voucher {
    /// What it promises.
    pub terms: wire::Voucher,
    /// The terms as they are signed.
    pub bytes: Bytes,
    /// The side that it binds.
    pub signer: u32,
    /// By keys of that side, 66 bytes each.
    pub signatures: Vec<Bytes>,
}

impl Voucher {
    /// Checks the form. Errors: `BAD_CONTENT`, `NON_CANONICAL`, `LIMIT`.
    pub fn decode(signed: &wire::SignedVoucher) -> Result<Voucher> {
        let terms: wire::Voucher = canonical(&signed.voucher)?;
        check_address("voucher's channel", &terms.channel)?;
        check_side("payer of the voucher", terms.payer)?;
        check_side("signer of the voucher", signed.signer)?;
        if !matches!(terms.secret_hash.len(), 0 | 32) {
            let found = terms.secret_hash.len();
            return Err(Error::expected(Code::BadContent, "bytes of the voucher's secret hash", "0 or 32", found));
        }
        if terms.merges.len() > MERGES_MAX {
            let expected = format!("at most {MERGES_MAX}");
            return Err(Error::expected(Code::Limit, "lanes that the voucher merges", expected, terms.merges.len()));
        }
        if let Some(virtuals) = &terms.virtuals {
            check_address("root of the virtual channels", &virtuals.root)?;
            if !(1..=VIRTUALS_MAX).contains(&virtuals.count) {
                let expected = format!("1 to {VIRTUALS_MAX}");
                return Err(Error::expected(Code::Limit, "virtual channels of a lane", expected, virtuals.count));
            }
        }
        check_count(&signed.signatures)?;
        let bytes = signed.voucher.clone();
        Ok(Voucher { terms, bytes, signer: signed.signer, signatures: signed.signatures.clone() })
    }

    /// Signs terms for a side, with as many of its keys as its permission asks for.
    pub fn sign(terms: wire::Voucher, signer: u32, keys: &[&SecretKey]) -> Voucher {
        let bytes = Bytes::from(terms.encode_to_vec());
        let signatures = sign(VOUCHER_TAG, &bytes, keys);
        Voucher { terms, bytes, signer, signatures }
    }

    /// As it travels.
    pub fn signed(&self) -> wire::SignedVoucher {
        wire::SignedVoucher { voucher: self.bytes.clone(), signer: self.signer, signatures: self.signatures.clone() }
    }

    /// The side that gets what it moves.
    pub fn payee(&self) -> u32 {
        1 - self.terms.payer
    }

    /// What its signatures are over.
    pub fn digest(&self) -> Hash {
        digest(VOUCHER_TAG, &self.bytes)
    }

    /// The curve arithmetic that its signatures need, for [`signatures::Batch::push_job`].
    /// Errors: those of [`signatures::check_signed`].
    pub fn job(&self, permission: &Permission, address: &Address) -> Result<Job> {
        signatures::check_signed(&self.digest(), &self.signatures, permission, address.actor())
    }
}

/// A permit to withdraw, signed.
pub fn sign_withdraw(permit: &wire::WithdrawPermit, keys: &[&SecretKey]) -> wire::SignedPermit {
    let permit = Bytes::from(permit.encode_to_vec());
    wire::SignedPermit { signatures: sign(WITHDRAW_TAG, &permit, keys), permit }
}

/// A permit to redeem in a side's name, signed.
pub fn sign_watch(permit: &wire::WatchPermit, keys: &[&SecretKey]) -> wire::SignedPermit {
    let permit = Bytes::from(permit.encode_to_vec());
    wire::SignedPermit { signatures: sign(WATCH_TAG, &permit, keys), permit }
}

/// What a virtual channel has moved so far, signed by its payer.
pub fn sign_virtual(amount: &wire::VirtualAmount, keys: &[&SecretKey]) -> wire::SignedPermit {
    let permit = Bytes::from(amount.encode_to_vec());
    wire::SignedPermit { signatures: sign(VIRTUAL_TAG, &permit, keys), permit }
}

/// A virtual channel as a leaf of its set.
pub fn virtual_leaf(cap: &wire::VirtualCap) -> Hash {
    digest(CAP_TAG, &cap.encode_to_vec())
}

/// The form of a claim: the amount that it shows, and the path. Errors: `BAD_CONTENT`, `NON_CANONICAL`, `LIMIT`,
/// those of a permission.
pub fn virtual_claim(claim: &wire::VirtualClaim) -> Result<(wire::VirtualAmount, Vec<Hash>)> {
    let missing = |what: &str| Error::new(Code::BadContent, format!("a claim of a virtual channel without {what}"));
    check_address("claim's channel", &claim.channel)?;
    check_side("payer of the claim", claim.payer)?;
    let cap = claim.cap.as_ref().ok_or_else(|| missing("a cap"))?;
    check_address("virtual channel's id", &cap.id)?;
    Permission::decode_account(&cap.permission)?;
    let signed = claim.amount.as_ref().ok_or_else(|| missing("an amount"))?;
    let amount: wire::VirtualAmount = canonical(&signed.permit)?;
    check_count(&signed.signatures)?;
    claim.watch.as_ref().map_or(Ok(()), |permit| watch_permit(permit).map(drop))?;
    let path = claim.path.iter().map(|hash| check_address("hash of the path", hash).map(|a| *a.as_bytes()));
    Ok((amount, path.collect::<Result<_>>()?))
}

/// What a virtual channel has moved, of the right form. Errors: `BAD_CONTENT`, `NON_CANONICAL`, `LIMIT`.
pub fn virtual_amount(signed: &wire::SignedPermit) -> Result<wire::VirtualAmount> {
    let amount: wire::VirtualAmount = canonical(&signed.permit)?;
    check_address("virtual channel's id", &amount.id)?;
    check_count(&signed.signatures)?;
    Ok(amount)
}

/// The curve arithmetic that what a virtual channel has moved needs, for [`signatures::Batch::push_job`].
pub fn virtual_job(signed: &wire::SignedPermit, permission: &Permission) -> Result<Job> {
    let digest = digest(VIRTUAL_TAG, &signed.permit);
    signatures::check_signed(&digest, &signed.signatures, permission, 0)
}

/// Verifies the signatures of what a virtual channel has moved.
pub fn verify_virtual(signed: &wire::SignedPermit, permission: &Permission) -> Result<()> {
    virtual_job(signed, permission)?.verify()
}

/// The permit in these bytes. Errors: `BAD_CONTENT`, `NON_CANONICAL`, `LIMIT`.
pub fn withdraw_permit(signed: &wire::SignedPermit) -> Result<wire::WithdrawPermit> {
    let permit: wire::WithdrawPermit = canonical(&signed.permit)?;
    check_address("permit's channel", &permit.channel)?;
    check_side("side of the permit", permit.side)?;
    check_count(&signed.signatures)?;
    Ok(permit)
}

/// The permit in these bytes. Errors: `BAD_CONTENT`, `NON_CANONICAL`, `LIMIT`.
pub fn watch_permit(signed: &wire::SignedPermit) -> Result<wire::WatchPermit> {
    let permit: wire::WatchPermit = canonical(&signed.permit)?;
    check_address("permit's channel", &permit.channel)?;
    check_address("watcher's address", &permit.watcher)?;
    check_side("side of the permit", permit.side)?;
    check_count(&signed.signatures)?;
    Ok(permit)
}

/// Verifies the signatures of a permit to withdraw.
pub fn verify_withdraw(signed: &wire::SignedPermit, permission: &Permission, address: &Address) -> Result<()> {
    verify(WITHDRAW_TAG, signed, permission, address)
}

/// Verifies the signatures of a permit to redeem.
pub fn verify_watch(signed: &wire::SignedPermit, permission: &Permission, address: &Address) -> Result<()> {
    verify(WATCH_TAG, signed, permission, address)
}

fn verify(tag: &[u8], signed: &wire::SignedPermit, permission: &Permission, address: &Address) -> Result<()> {
    let digest = digest(tag, &signed.permit);
    signatures::check_signed(&digest, &signed.signatures, permission, address.actor())?.verify()
}

fn digest(tag: &[u8], bytes: &[u8]) -> Hash {
    Sha256::new().chain_update(tag).chain_update(bytes).finalize().into()
}

fn sign(tag: &[u8], bytes: &[u8], keys: &[&SecretKey]) -> Vec<Bytes> {
    let digest = digest(tag, bytes);
    keys.iter().map(|key| Bytes::copy_from_slice(key.sign_body_hash(&digest).as_bytes())).collect()
}

fn check_count(signatures: &[Bytes]) -> Result<()> {
    if signatures.len() > SIGS_PER_AUTHORITY_MAX {
        let expected = format!("at most {SIGS_PER_AUTHORITY_MAX}");
        return Err(Error::expected(Code::Limit, "signatures", expected, signatures.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
