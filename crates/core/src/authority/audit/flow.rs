//! What moved, as multisets that fit into a few bytes.

use prost::Message;
use sha2::{Digest, Sha256};

use crate::wire::{self, credit_entry::Kind};

/// A multiset of credits or CALLs, by count, sum and a commutative hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// Members.
    pub count: u64,
    /// Minor units; what is taken back counts below zero.
    pub amount: i128,
    /// Sum of the members' hashes modulo 2^128.
    pub hash: u128,
}

impl Flow {
    /// Adds one credit: to whom, and all that is remembered of where it came from.
    pub(crate) fn add(&mut self, address: &[u8], amount: u64, source: &wire::CreditEntry) {
        let moved = match source.kind() {
            Kind::Reversed => -i128::from(amount),
            Kind::Payment | Kind::Refund | Kind::Deposit | Kind::Call => i128::from(amount),
        };
        self.merge(&Flow::one(&[address, &amount.to_be_bytes(), &source.encode_to_vec()], moved));
    }

    /// A CALL that has settled, with what its account was debited.
    pub(crate) fn call(network_id: u64, actor: u64, seqnum: u32, order_id: &[u8], debit: u64) -> Flow {
        let key = [network_id.to_be_bytes(), actor.to_be_bytes()];
        Flow::one(&[&key[0], &key[1], &seqnum.to_be_bytes(), order_id, &debit.to_be_bytes()], i128::from(debit))
    }

    /// A note that the log knows to be spent.
    pub(crate) fn note(nonce: &[u8], spent_by: &[u8]) -> Flow {
        Flow::one(&[nonce, spent_by], 0)
    }

    fn one(parts: &[&[u8]], amount: i128) -> Flow {
        let mut h = Sha256::new();
        for part in parts {
            h.update((part.len() as u64).to_be_bytes());
            h.update(part);
        }
        let hash: [u8; 32] = h.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        Flow { count: 1, amount, hash: u128::from_be_bytes(first) }
    }

    /// Adds all members of another.
    pub(crate) fn merge(&mut self, other: &Flow) {
        self.count += other.count;
        self.amount += other.amount;
        self.hash = self.hash.wrapping_add(other.hash);
    }

    /// What is left without the members of another.
    pub(crate) fn without(&self, other: &Flow) -> Flow {
        Flow {
            count: self.count.wrapping_sub(other.count),
            amount: self.amount - other.amount,
            hash: self.hash.wrapping_sub(other.hash),
        }
    }

    pub(crate) fn shown(&self, what: &str) -> String {
        format!("{} {what} of {} minor units (set {:032x})", self.count, self.amount, self.hash)
    }
}
