//! Verifying what orders and authorities signed, many at a time, with one rule whether alone or in a batch.
//!
//! ed25519 follows ZIP-215 throughout, so a signature is true in a batch if and only if it is true alone; an
//! authority that batches and one that does not never disagree about an order.
//!
//! Batches need coefficients that whoever made the signatures could not foresee. The core draws no randomness: they come
//! from ChaCha20 seeded with sha256 over every key, signature and message of the batch, as in the Fiat-Shamir transform.
//! Changing anything to fit the 128-bit coefficients changes all of them, so a false batch passes with chance 2^-128 a try.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use ed25519_zebra::{SigningKey, VerificationKey, VerificationKeyBytes};
use florin_ed25519::{self as ed25519, KnownKeys};
use zeroize::Zeroizing;

use crate::bls;
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::keys::{Curve, POSSESSION_BYTE, Signature, order_message, tagged_point};
use crate::limits::{BLS_VERIFICATION_COST, VERIFICATIONS_PER_BATCH};
use crate::memo;
use crate::permission::Permission;
use crate::planted::{self, Bug};

/// The curve arithmetic that remains for one authority of an order once all cheap checks have passed.
#[derive(Debug)]
pub struct Job(JobKind);

#[derive(Debug)]
enum JobKind {
    /// The one ed25519 key that alone reaches the threshold, and one signature: fit for a batch.
    Single { actor: u64, key: [u8; 32], sig: [u8; 64], message: [u8; 42] },
    /// Anything else.
    Many(Box<Many>),
    /// The proof of possession of a key that an order sets.
    Possession(Box<Possession>),
}

#[derive(Debug)]
struct Possession {
    network_id: u64,
    actor: u64,
    key: bls::Key,
    proof: bls::SignatureBytes,
}

#[derive(Debug)]
struct Many {
    actor: u64,
    order_id: [u8; 32],
    permission: Permission,
    sigs: Vec<Signature>,
    /// What is wrong with the signature that comes after `sigs`, as far as it shows without curve arithmetic.
    then: Option<Error>,
}

/// The cheap checks of authority `index` of an order (0 is the actor's), which is that of account `actor`, without any
/// curve arithmetic: `AUTHORITY_COUNT` if it is missing, `KEY_TYPE`, `INSUFFICIENT_WEIGHT` for no signature at all, and of
/// the first signature `SIG_FORMAT`, `SIG_NOT_CANONICAL`, `KEY_MISMATCH` for a curve that no key has. PBTX judges one
/// signature after the other, so what shows of a later one is an error only if those before it are true.
pub fn check_authority(order: &Order, index: usize, permission: &Permission, actor: u64) -> Result<Job> {
    check_sigs(&order.id, sigs_of(order, index, actor)?, permission, actor)
}

fn sigs_of(order: &Order, index: usize, actor: u64) -> Result<&[Bytes]> {
    let Some(authority) = order.authorities.get(index) else {
        let expected = format!("at least {}", index + 1);
        return Err(Error::expected(Code::AuthorityCount, "authorities", expected, order.authorities.len()));
    };
    if authority.key_type != 0 {
        let what = format!("type of the authority of actor {actor}");
        return Err(Error::expected(Code::KeyType, &what, 0, authority.key_type));
    }
    Ok(&authority.sigs)
}

/// The cheap checks of signatures over the hash of something else than an order (what a voucher signs) by account `actor`,
/// without any curve arithmetic. Errors: as [`check_authority`]; `SIG_FORMAT` for BLS signatures, which cost too much
/// for what is checked many times over.
pub fn check_signed(hash: &[u8; 32], sigs: &[Bytes], permission: &Permission, actor: u64) -> Result<Job> {
    if let Some(i) = sigs.iter().position(|sig| sig.first() == Some(&Curve::Bls.byte())) {
        return Err(Error::new(Code::SigFormat, format!("#{i} of actor {actor}: BLS keys sign orders alone")));
    }
    check_sigs(hash, sigs, permission, actor)
}

fn check_sigs(hash: &[u8; 32], sigs: &[Bytes], permission: &Permission, actor: u64) -> Result<Job> {
    let parse = |(i, bytes): (usize, &Bytes)| {
        Signature::parse(bytes).map_err(|e| Error::new(e.code, format!("#{i} of actor {actor}: {}", e.message)))
    };
    if let ([bytes], Some(key)) = (sigs, lone_ed25519_key(permission))
        && let Some(sig) = parse((0, bytes))?.ed25519_bytes()
    {
        let message = order_message(hash);
        return Ok(Job(JobKind::Single { actor, key, sig, message }));
    }
    let screen = |(i, bytes): (usize, &Bytes)| {
        let sig = parse((i, bytes))?;
        let has_key = permission.keys.iter().any(|(key, _)| key.curve() == sig.curve());
        if has_key { Ok(sig) } else { Err(mismatch(i, actor)) }
    };
    let mut parsed = Vec::with_capacity(sigs.len());
    let mut then = None;
    for one in sigs.iter().enumerate() {
        match screen(one) {
            Ok(sig) => parsed.push(sig),
            Err(e) if parsed.is_empty() => return Err(e),
            Err(e) => {
                then = Some(e);
                break;
            }
        }
    }
    if parsed.is_empty() {
        return Err(insufficient(permission.threshold, 0, actor));
    }
    Ok(Job(JobKind::Many(Box::new(Many {
        actor,
        order_id: *hash,
        permission: permission.clone(),
        sigs: parsed,
        then,
    }))))
}

/// The permission's only ed25519 key, if its weight alone is enough.
fn lone_ed25519_key(permission: &Permission) -> Option<[u8; 32]> {
    let mut keys = permission.keys.iter().filter(|(key, _)| key.curve() == Curve::Ed25519);
    match (keys.next(), keys.next()) {
        (Some((key, weight)), None) if *weight >= permission.threshold => key.ed25519_bytes(),
        _ => None,
    }
}

fn mismatch(index: usize, actor: u64) -> Error {
    Error::new(Code::KeyMismatch, format!("signature #{index} does not match any keys of actor #{actor}"))
}

fn insufficient(threshold: u32, found: u64, actor: u64) -> Error {
    Error::expected(Code::InsufficientWeight, &format!("weight for actor #{actor}"), threshold, found)
}

fn over_budget() -> Error {
    let what = "the orders of several keys before this one took all curve operations of a batch";
    Error::new(Code::Busy, format!("{what} ({VERIFICATIONS_PER_BATCH}); ask again with fewer of them"))
}

impl Job {
    /// Verifies this one alone: `KEY_MISMATCH`, `DUPLICATE_SIG`, what a cheap check found after that,
    /// `INSUFFICIENT_WEIGHT`.
    pub fn verify(&self) -> Result<()> {
        match &self.0 {
            JobKind::Single { actor, key, sig, message } => {
                if verify_one(key, message, sig) {
                    Ok(())
                } else {
                    Err(mismatch(0, *actor))
                }
            }
            JobKind::Many(many) => many.verify(&mut 0),
            JobKind::Possession(possession) => possession.verify(),
        }
    }
}

impl Possession {
    fn verify(&self) -> Result<()> {
        let proved = || bls::possesses(&self.key, self.network_id, self.actor, &self.proof);
        if planted::is(Bug::PossessionUnchecked) || proved() {
            return Ok(());
        }
        Err(Error::new(Code::Possession, format!("the proof is not of actor {} for the BLS key", self.actor)))
    }
}

impl Many {
    /// Finds each signature's key. A key counts once: its second signature is an error, as is one of no key.
    fn verify(&self, verifications: &mut usize) -> Result<()> {
        let mut used = vec![false; self.permission.keys.len()];
        let mut weight: u64 = 0;
        for (i, sig) in self.sigs.iter().enumerate() {
            let Some(at) = self.find_key(sig, &used, verifications) else {
                return Err(mismatch(i, self.actor));
            };
            let (key, key_weight) = &self.permission.keys[at];
            if std::mem::replace(&mut used[at], true) {
                let message = format!("signature #{i} of actor #{} is another one of key {key}", self.actor);
                return Err(Error::new(Code::DuplicateSig, message));
            }
            weight += u64::from(*key_weight);
        }
        if let Some(e) = &self.then {
            return Err(e.clone());
        }
        if weight + planted::when(Bug::WeightOffByOne, 1, 0) < u64::from(self.permission.threshold) {
            return Err(insufficient(self.permission.threshold, weight, self.actor));
        }
        Ok(())
    }

    /// ECDSA signatures name their key, and there is one BLS key at most. An ed25519 signature is tried with each such key, in the permission's order,
    /// those without a signature first: signatures in the order of their keys need one try each.
    fn find_key(&self, sig: &Signature, used: &[bool], verifications: &mut usize) -> Option<usize> {
        let keys = &self.permission.keys;
        if let Some(sig_bytes) = sig.bls() {
            *verifications += BLS_VERIFICATION_COST;
            let message = order_message(&self.order_id);
            return keys.iter().position(|(key, _)| key.bls().is_some_and(|k| bls::verifies(&k, &message, &sig_bytes)));
        }
        let Some(sig_bytes) = sig.ed25519_bytes() else {
            *verifications += 1;
            let signer = sig.recover(&self.order_id)?;
            return keys.iter().position(|(key, _)| *key == signer);
        };
        let message = order_message(&self.order_id);
        let mut signed_by = |at: usize| {
            keys[at].0.ed25519_bytes().is_some_and(|key| {
                *verifications += 1;
                verify_one(&key, &message, &sig_bytes)
            })
        };
        let unused = (0..keys.len()).filter(|at| !used[*at]);
        let rest = (0..keys.len()).filter(|at| used[*at]);
        unused.chain(rest).find(|at| signed_by(*at))
    }
}

/// Signatures of many orders, verified together.
#[derive(Default)]
pub struct Batch {
    jobs: Vec<(usize, Job)>,
    /// By tag, ascending: Ok so far, or the error of a cheap check, which counts if all of the tag's `jobs` are true.
    results: Vec<(usize, Result<()>)>,
}

/// What a batch came to.
#[derive(Debug)]
pub struct Outcome {
    /// For each tag, in ascending order: whether all that was pushed under it is signed as it should be, or what is
    /// wrong with the first signature or authority that is not.
    pub results: Vec<(usize, Result<()>)>,
    /// Curve operations that it took: verifications and key recoveries. A signature in an ed25519 batch counts once.
    pub verifications: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds one authority of an order: 0 is the actor's, i + 1 that of cosignor i; `permission` is that account's. All
    /// authorities of an order go under one tag. Cheap checks ([`check_authority`]) happen here; curve arithmetic
    /// waits for [`Batch::verify`], and what comes after a failed check costs none.
    pub fn push(&mut self, tag: usize, order: &Order, authority: usize, permission: &Permission) {
        if self.result(tag).is_err() {
            return;
        }
        let cosignor = || authority.checked_sub(1).and_then(|i| order.cosignors.get(i));
        let actor = cosignor().copied().unwrap_or(order.actor);
        match check_authority(order, authority, permission, actor) {
            Ok(job) => self.jobs.push((tag, job)),
            Err(error) => *self.result(tag) = Err(error),
        }
    }

    /// The same for an order that sets permissions with these BLS keys. A proof of possession for each comes after the
    /// signatures, in this order: `POSSESSION` if not.
    pub fn push_setting(&mut self, tag: usize, order: &Order, permission: &Permission, keys: &[bls::Key]) {
        if keys.is_empty() {
            return self.push(tag, order, 0, permission);
        }
        let checked = sigs_of(order, 0, order.actor).and_then(|sigs| {
            let (sigs, proofs) = sigs.split_at(sigs.len().saturating_sub(keys.len()));
            let proofs: Vec<_> = proofs.iter().filter_map(|proof| tagged_point(POSSESSION_BYTE, proof)).collect();
            if proofs.len() != keys.len() {
                let what = "proofs of possession after the signatures";
                return Err(Error::expected(Code::Possession, what, keys.len(), proofs.len()));
            }
            Ok((check_sigs(&order.id, sigs, permission, order.actor)?, proofs))
        });
        let (job, proofs) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.refuse(tag, error),
        };
        self.push_job(tag, Ok(job));
        for (key, proof) in keys.iter().zip(proofs) {
            let (network_id, actor) = (order.network_id, order.actor);
            let possession = Box::new(Possession { network_id, actor, key: *key, proof });
            self.push_job(tag, Ok(Job(JobKind::Possession(possession))));
        }
    }

    /// What is known of a tag. Tags mostly come in their order.
    fn result(&mut self, tag: usize) -> &mut Result<()> {
        let at = match self.results.last() {
            Some((last, _)) if *last == tag => self.results.len() - 1,
            Some((last, _)) if *last > tag => {
                let found = self.results.binary_search_by_key(&tag, |(tag, _)| *tag);
                found.inspect_err(|at| self.results.insert(*at, (tag, Ok(())))).unwrap_or_else(|at| at)
            }
            _ => {
                self.results.push((tag, Ok(())));
                self.results.len() - 1
            }
        };
        &mut self.results[at].1
    }

    /// Adds the signatures of something else than an order, by [`check_signed`].
    pub fn push_job(&mut self, tag: usize, job: Result<Job>) {
        match job {
            _ if self.result(tag).is_err() => {}
            Ok(job) => self.jobs.push((tag, job)),
            Err(error) => *self.result(tag) = Err(error),
        }
    }

    /// Refuses an order for `error`, unless something is wrong with what was pushed under its tag before.
    pub fn refuse(&mut self, tag: usize, error: Error) {
        let result = self.result(tag);
        if result.is_ok() {
            *result = Err(error);
        }
    }

    /// Verifies all. One bad order spoils no other, but orders of several keys share `VERIFICATIONS_PER_BATCH`
    /// curve operations: the rest of them are `BUSY`.
    pub fn verify(self) -> Outcome {
        self.verify_knowing(&KnownKeys::default())
    }

    /// The same, with a memory of keys.
    pub fn verify_knowing(self, known: &KnownKeys) -> Outcome {
        self.verify_within(&mut { VERIFICATIONS_PER_BATCH }, known)
    }

    /// [`Batch::verify`] with what is left of a budget of curve operations, and takes from it what orders of several
    /// keys or accounts need. Once it is 0 they are `BUSY`; the one that uses it up is still judged. Orders of one
    /// ed25519 key neither need nor touch it.
    pub fn verify_within(self, budget: &mut usize, known: &KnownKeys) -> Outcome {
        let Batch { jobs, mut results } = self;
        let mut verifications = 0;
        let mut failed = BTreeMap::new();
        let mut batch = Together::default();
        let mut left_out = vec![false; jobs.len()];
        let mut before = None;
        for ((tag, job), left_out) in jobs.iter().zip(&mut left_out) {
            let cosigns = before.replace(*tag) == Some(*tag);
            if let JobKind::Single { key, sig, message, .. } = &job.0 {
                *left_out = cosigns && *budget == 0;
                *budget -= usize::from(cosigns && *budget > 0);
                if !*left_out {
                    batch.push(key, sig, message);
                }
            }
        }
        let mut singles = batch.verify(known, &mut verifications).into_iter();
        for ((tag, job), left_out) in jobs.into_iter().zip(left_out) {
            let outcome = match job.0 {
                JobKind::Single { .. } if left_out => Err(over_budget()),
                JobKind::Single { actor, .. } => {
                    let is_true = singles.next().expect("each single job is in the batch");
                    if is_true { Ok(()) } else { Err(mismatch(0, actor)) }
                }
                JobKind::Many(_) | JobKind::Possession(_) if failed.contains_key(&tag) => continue,
                JobKind::Many(_) | JobKind::Possession(_) if *budget == 0 => Err(over_budget()),
                JobKind::Possession(possession) => {
                    verifications += BLS_VERIFICATION_COST;
                    *budget = budget.saturating_sub(BLS_VERIFICATION_COST);
                    possession.verify()
                }
                JobKind::Many(many) => {
                    let mut spent = 0;
                    let outcome = many.verify(&mut spent);
                    verifications += spent;
                    *budget = budget.saturating_sub(spent);
                    outcome
                }
            };
            if let Err(e) = outcome {
                failed.entry(tag).or_insert(Err(e));
            }
        }
        for (tag, result) in &mut results {
            if let Some(error) = failed.remove(tag) {
                *result = error;
            }
        }
        Outcome { results, verifications }
    }
}

/// One ed25519 verification by ZIP-215.
fn verify_one(key: &[u8; 32], message: &[u8], sig: &[u8; 64]) -> bool {
    verify_with(key, || VerificationKey::try_from(*key).ok(), message, sig)
}

fn verify_with(key: &[u8; 32], point: impl Fn() -> Option<VerificationKey>, message: &[u8], sig: &[u8; 64]) -> bool {
    memo::of(
        |m| &mut m.ed25519,
        &[key, sig, message],
        || point().is_some_and(|point| point.verify(&(*sig).into(), message).is_ok()),
    )
}

/// Signatures to verify together, less those whose verdict the simulator remembers.
#[derive(Default)]
struct Together {
    batch: ed25519::Batch,
    /// If it remembers, by signature: the verdict, or what is in the batch.
    recalled: Vec<std::result::Result<bool, Box<[u8]>>>,
}

impl Together {
    fn push(&mut self, key: &[u8; 32], sig: &[u8; 64], message: &[u8]) {
        if memo::is_on() {
            let question = [key, &sig[..], message].concat();
            let verdict = memo::recall(|m| &mut m.ed25519, &question).ok_or_else(|| question.into());
            let is_known = verdict.is_ok();
            self.recalled.push(verdict);
            if is_known {
                return;
            }
        }
        self.batch.push(key, sig, message);
    }

    /// As [`ed25519::Batch::verify`].
    fn verify(self, known: &KnownKeys, verifications: &mut usize) -> Vec<bool> {
        if self.recalled.is_empty() {
            return self.batch.verify(known, verifications);
        }
        let mut verdicts = self.batch.verify(&memo::points(), verifications).into_iter();
        let mut verdict = |recalled: std::result::Result<bool, Box<[u8]>>| match recalled {
            Ok(verdict) => {
                *verifications += 1;
                verdict
            }
            Err(question) => {
                let verdict = verdicts.next().expect("what is not recalled is in the batch");
                memo::note(|m| &mut m.ed25519, question, verdict);
                verdict
            }
        };
        self.recalled.into_iter().map(&mut verdict).collect()
    }
}

/// For each (key, signature, message), whether it is true by ZIP-215; in a batch or one by one, all the same.
pub(crate) fn verify_keys<'a>(signed: impl IntoIterator<Item = (&'a [u8; 32], &'a [u8; 64], &'a [u8])>) -> Vec<bool> {
    let mut batch = Together::default();
    signed.into_iter().for_each(|(key, sig, message)| batch.push(key, sig, message));
    batch.verify(&KnownKeys::default(), &mut 0)
}

/// An authority's signing key (ed25519); wiped when dropped, never printed.
pub struct AuthorityKey(Box<Zeroizing<SigningKey>>);

impl AuthorityKey {
    /// The key of this seed.
    pub fn from_seed(seed: [u8; 32]) -> AuthorityKey {
        let seed = Zeroizing::new(seed);
        AuthorityKey(Box::new(Zeroizing::new(SigningKey::from(*seed))))
    }

    /// The public key.
    pub fn public(&self) -> AuthorityPublicKey {
        AuthorityPublicKey(VerificationKeyBytes::from(&**self.0).into())
    }

    /// Signs a message, which must start with a domain tag.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let public = VerificationKeyBytes::from(&**self.0);
        memo::of(|m| &mut m.signed, &[public.as_ref(), message], || self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityKey of {}", self.public())
    }
}

/// An authority's public key (ed25519). Bytes that are no point verify nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthorityPublicKey(pub [u8; 32]);

impl AuthorityPublicKey {
    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's for `message`, by ZIP-215.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        verify_one(&self.0, message, signature)
    }

    /// For whoever verifies many signatures of it, one by one.
    pub fn prepared(&self) -> PreparedKey {
        PreparedKey { key: self.0, point: VerificationKey::try_from(self.0).ok() }
    }
}

/// An authority's public key with its point, whose square root is a sixth of a verification.
#[derive(Clone, Copy, Debug)]
pub struct PreparedKey {
    key: [u8; 32],
    point: Option<VerificationKey>,
}

impl PreparedKey {
    /// As [`AuthorityPublicKey::verifies`].
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        verify_with(&self.key, || self.point, message, signature)
    }
}

impl fmt::Display for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AuthorityPublicKey {
    type Err = Error;

    /// From 64 hex digits of a point; `BAD_KEY` otherwise.
    fn from_str(text: &str) -> Result<AuthorityPublicKey> {
        let mut key = [0; 32];
        let is_point = hex::decode_to_slice(text, &mut key).is_ok() && VerificationKey::try_from(key).is_ok();
        if !is_point {
            return Err(Error::expected(Code::BadKey, "authority key", "64 hex digits of an ed25519 key", text));
        }
        Ok(AuthorityPublicKey(key))
    }
}

/// Verifies signatures of authorities together. The error is the index of the first bad one.
pub fn verify_all<M: AsRef<[u8]>>(
    items: &[(AuthorityPublicKey, M, [u8; 64])],
    known: &KnownKeys,
) -> std::result::Result<(), usize> {
    let mut batch = Together::default();
    items.iter().for_each(|(key, message, sig)| batch.push(&key.0, sig, message.as_ref()));
    match batch.verify(known, &mut 0).iter().position(|is_true| !is_true) {
        None => Ok(()),
        Some(first_bad) => Err(first_bad),
    }
}

#[cfg(test)]
#[path = "signatures_tests.rs"]
mod tests;
