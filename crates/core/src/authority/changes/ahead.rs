//! Accounts of a batch, looked for together. With millions of accounts the two thousand that a thousand orders name lie all over
//! the memory: to wait for one after the other is most of what a look costs, and together their cache misses overlap.
//!
//! Nothing rests on it: an account that was not loaded ahead is found when it is needed.

use std::collections::hash_map::Entry;

use super::{Changes, Slot};
use crate::authority::state::{Account, Table, account_key, corrupt};
use crate::error::Result;

impl Changes<'_> {
    /// Loads accounts, by network and actor; none if those last written are likely all that are needed.
    ///
    /// Errors: as [`State::get`](crate::authority::state::State::get). Then the step has failed, as accounts that were not read stand
    /// empty in it.
    pub fn load_accounts(&mut self, wanted: impl Iterator<Item = (u64, u64)>) -> Result<()> {
        if self.hot.as_ref().is_some_and(|hot| !hot.is_short()) {
            return Ok(());
        }
        let (mut keys, mut places) = (Vec::new(), Vec::new());
        for key in wanted {
            let Entry::Vacant(entry) = self.accounts.entry(key) else { continue };
            let place = *entry.insert(self.slots.len());
            let hot = self.hot.as_mut().and_then(|hot| hot.take(key));
            if hot.is_none() {
                keys.push(account_key(key.0, key.1));
                places.push(place);
            }
            self.slots.push(Slot { key: (key.0, key.1, None), account: hot.unwrap_or_default(), dirty: false });
        }
        let mut damaged = None;
        self.state.look_accounts(&keys, &mut |i, record| match Account::read(record) {
            Ok(account) => *self.slots[places[i]].account = account,
            Err(e) => damaged = Some(corrupt(Table::Accounts, &keys[i], &e.message)),
        })?;
        damaged.map_or(Ok(()), Err)
    }
}
