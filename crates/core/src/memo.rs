//! A memory of what pure curve arithmetic came to, for the simulator, where one thread is all authorities.
//!
//! There each signature is verified by everybody, often several times. The bytes of a question (key, signature and message in
//! full; no hash of them) are looked up before the arithmetic, and what it answers is kept under them. So every answer has been
//! computed from exactly these bytes in this thread, true and false ones alike: making a signature makes no verdict, and
//! nothing that is asked gets another answer than without the memory. That is why it may be here, in a core
//! without hidden state: it can be seen by the clock alone.
//!
//! Off unless [`remember`] is called, in its thread only; then the price is a look at one thread-local flag. No node calls
//! it. Memory is bounded: two generations of [`GENERATION`] answers of each kind, the older dropped when the younger is full.
//! Signatures made are kept by public key and message (both ed25519 and RFC 6979 sign without chance); secrets are never in it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;

use florin_ed25519::KnownKeys;

use crate::cash::curve::{G1, G2};
use crate::error::Result;
use crate::keys::{PublicKey, Signature};

/// Answers of one kind in one generation.
const GENERATION: usize = 32_768;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// What is remembered, by kind of question.
#[derive(Default)]
pub(crate) struct Memory {
    /// Key, signature, message: whether it is true by ZIP-215.
    pub ed25519: Table<bool>,
    /// ECDSA signature, hash: whose it is.
    pub signers: Table<Option<PublicKey>>,
    /// Encoded key: whether it is a point.
    pub keys: Table<bool>,
    /// Public key, message: an authority's signature.
    pub signed: Table<[u8; 64]>,
    /// Public key, hash: an order's signature.
    pub bodies: Table<Signature>,
    /// Encoded point.
    pub g1: Table<Result<G1>>,
    /// Encoded point.
    pub g2: Table<Result<G2>>,
    /// Length of the tag, tag, message: the point that they hash to.
    pub hashes: Table<G1>,
    /// Key, base, signature: whether the pairings are equal.
    pub claims: Table<bool>,
    /// BLS key, signature, tag, message: whether it is true.
    pub bls: Table<bool>,
    /// BLS key, tag, message: its signature.
    pub bls_signed: Table<[u8; 96]>,
    /// Points of ed25519 keys.
    points: Rc<KnownKeys>,
}

/// Answers to questions of one kind.
pub(crate) struct Table<V>([HashMap<Box<[u8]>, V>; 2]);

impl<V> Default for Table<V> {
    fn default() -> Self {
        Table([HashMap::new(), HashMap::new()])
    }
}

impl<V: Clone> Table<V> {
    fn get(&self, question: &[u8]) -> Option<V> {
        self.0.iter().find_map(|generation| generation.get(question)).cloned()
    }

    fn put(&mut self, question: Box<[u8]>, answer: V) {
        if self.0[0].len() >= GENERATION {
            self.0.swap(0, 1);
            self.0[0].clear();
        }
        self.0[0].insert(question, answer);
    }
}

/// While this lives, its thread remembers; see the module.
pub struct Remembering(PhantomData<*const ()>);

/// Makes this thread remember, until the value is dropped, which forgets everything.
#[must_use = "it ends when dropped"]
pub fn remember() -> Remembering {
    ON.set(true);
    Remembering(PhantomData)
}

impl Drop for Remembering {
    fn drop(&mut self) {
        ON.set(false);
        MEMORY.take();
    }
}

/// Whether this thread remembers.
pub(crate) fn is_on() -> bool {
    ON.get()
}

/// This thread's points of ed25519 keys.
pub(crate) fn points() -> Rc<KnownKeys> {
    MEMORY.with_borrow(|memory| memory.points.clone())
}

/// What is remembered of a question.
pub(crate) fn recall<V: Clone>(table: fn(&mut Memory) -> &mut Table<V>, question: &[u8]) -> Option<V> {
    MEMORY.with_borrow_mut(|memory| table(memory).get(question))
}

/// Remembers what was computed.
pub(crate) fn note<V: Clone>(table: fn(&mut Memory) -> &mut Table<V>, question: Box<[u8]>, answer: V) {
    MEMORY.with_borrow_mut(|memory| table(memory).put(question, answer));
}

/// What `compute` gives, which depends on nothing but the `question`, whose parts can't be taken for others.
pub(crate) fn of<V: Clone>(
    table: fn(&mut Memory) -> &mut Table<V>,
    question: &[&[u8]],
    compute: impl FnOnce() -> V,
) -> V {
    if !is_on() {
        return compute();
    }
    let question = question.concat();
    recall(table, &question).unwrap_or_else(|| {
        let answer = compute();
        note(table, question.into(), answer.clone());
        answer
    })
}

#[cfg(test)]
#[path = "memo_tests.rs"]
mod tests;
