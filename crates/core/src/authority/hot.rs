//! Accounts as they were last written, decoded: most that a step looks at were written by a step shortly before.
//!
//! It belongs to whoever keeps the tables, and stays true because nothing is ever in it but what has just been written: a step
//! takes an account out, and only what the step changed comes back, with [`Hot::written`], after its writes are applied. A step
//! that fails, or whose writes do, leaves nothing behind, and the account is read from the tables the next time. Whoever
//! changes the tables in another way (a crash that takes back what was not synced) begins with an empty one.
//!
//! Bytes in accounts are copies, never parts of a request: one small account would keep all of a message in memory.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::state::Account;

/// Accounts that are kept at most; some 30 MB if they are usual ones, [`ACCOUNT_BYTES`] each at most.
const ACCOUNTS_MAX: usize = 65_536;
/// Bytes of an account that is kept, beside its fixed size: with more it is unusual, and not worth the room.
const ACCOUNT_BYTES: usize = 1_024;

/// Network and actor. Money at further addresses of an actor is not kept.
type Key = (u64, u64);

/// Accounts of one generation. One that a step has taken leaves an empty place.
type Generation = HashMap<Key, Option<Box<Account>>, RandomState>;

/// Accounts of two generations: the older is dropped when the younger is full.
#[derive(Default, Debug)]
pub struct Hot {
    young: Generation,
    old: Generation,
}

/// Accounts that a step has changed, as its writes say.
#[derive(Clone, Default, Debug)]
pub struct Written(Vec<(Key, Box<Account>)>);

impl Hot {
    /// Takes in what a step has changed, after its writes are applied to the tables.
    pub fn written(&mut self, written: Written) {
        for (key, account) in written.0 {
            if self.young.len() >= ACCOUNTS_MAX / 2 && !self.young.contains_key(&key) {
                std::mem::swap(&mut self.young, &mut self.old);
                self.young.clear();
            }
            self.young.insert(key, Some(account));
        }
    }

    /// Whether it has had to drop accounts: then there are more than it holds, and many will not be here.
    pub(super) fn is_short(&self) -> bool {
        !self.old.is_empty()
    }

    /// As after so many accounts that the oldest were dropped.
    #[cfg(test)]
    pub(super) fn forget_some(&mut self) {
        self.old.insert((0, 0), None);
    }

    /// Takes an account out.
    pub(super) fn take(&mut self, key: Key) -> Option<Box<Account>> {
        // Both are emptied: what is put back is in the younger.
        let (young, old) = (self.young.get_mut(&key), self.old.get_mut(&key));
        let old = old.and_then(Option::take);
        young.and_then(Option::take).or(old)
    }
}

impl Written {
    /// Adds an account that is written.
    pub(super) fn push(&mut self, key: Key, account: Box<Account>) {
        let pending = |p: &crate::wire::PendingRecord| size_of_val(p) + p.order_id.len() + p.open.len();
        let size = account.permission.len()
            + account.holdings.len() * size_of::<super::state::Holding>()
            + account.pending.iter().map(pending).sum::<usize>();
        if size <= ACCOUNT_BYTES && account.early.is_empty() {
            self.0.push((key, account));
        }
    }

    /// Makes room for as many.
    pub(super) fn reserve(&mut self, count: usize) {
        self.0.reserve(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(accounts: impl IntoIterator<Item = (u64, u32)>) -> Written {
        let mut written = Written::default();
        for (actor, seqnum) in accounts {
            written.push((7, actor), Box::new(Account { seqnum, ..Account::default() }));
        }
        written
    }

    #[test]
    fn an_account_is_taken_once_and_as_it_was_last_written() {
        let mut hot = Hot::default();
        hot.written(written([(1, 1), (2, 1)]));
        hot.written(written([(1, 2)]));
        assert_eq!(hot.take((7, 1)).map(|account| account.seqnum), Some(2));
        assert_eq!(hot.take((7, 1)), None, "a step has it");
        assert_eq!(hot.take((8, 2)), None, "another network");
        assert_eq!(hot.take((7, 2)).map(|account| account.seqnum), Some(1));
    }

    #[test]
    fn an_older_generation_never_shows_what_was_written_since() {
        let mut hot = Hot::default();
        hot.written(written([(1, 1)]));
        hot.written(written((10..10 + ACCOUNTS_MAX as u64 / 2).map(|actor| (actor, 1))));
        assert!(hot.old.contains_key(&(7, 1)), "the generation has changed");
        hot.written(written([(1, 2)]));
        assert_eq!(hot.take((7, 1)).map(|account| account.seqnum), Some(2));
        assert_eq!(hot.take((7, 1)), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut hot = Hot::default();
        hot.written(written((0..3 * ACCOUNTS_MAX as u64).map(|actor| (actor, 1))));
        assert!(hot.young.len() + hot.old.len() <= ACCOUNTS_MAX);
        let large = Account { permission: vec![0; ACCOUNT_BYTES + 1].into(), ..Account::default() };
        let mut written = Written::default();
        written.push((7, u64::MAX), Box::new(large));
        hot.written(written);
        assert_eq!(hot.take((7, u64::MAX)), None);
    }
}
