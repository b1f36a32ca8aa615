//! Notes that two orders of their owner have locked, for example of two copies of a wallet: the log frees them.

use florin_core::bearer::{Spend, build};
use florin_core::{Code, Error, Result};

use super::records::{Hex32, Purpose};
use super::states::NOTES_SHARD;
use super::store::Secrets;
use super::{CashWallet, Events};
use crate::network::Network;

/// What asking for notes to be freed came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freeing {
    /// The log looks for a certified order of them from now on.
    Begun,
    /// It does already.
    Going,
}

impl CashWallet {
    /// Open orders that spend notes, by number.
    pub fn open_bearers(&self) -> Vec<u64> {
        let bearers = self.book().open.iter().filter(|(_, open)| !matches!(open.purpose, Purpose::Withdraw { .. }));
        bearers.map(|(number, _)| *number).collect()
    }

    /// Asks the log to free the notes of an open order. Where a certified order spends them it settles; else they are free after ten
    /// minutes, and the order is void. What it came to the next command finds out, as of every open order.
    /// Errors: `USAGE` for another number; those of the authorities.
    pub async fn free(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        number: u64,
        on_event: Events<'_>,
    ) -> Result<Freeing> {
        let numbers = self.open_bearers();
        if !numbers.contains(&number) {
            return Err(Error::expected(Code::Usage, "number", format!("of an open order: {numbers:?}"), number));
        }
        let inputs: Vec<Hex32> = self.book().open[&number].inputs.iter().map(|(nonce, _)| *nonce).collect();
        let spends: Vec<Spend> =
            inputs.iter().map(|nonce| self.spend(secrets, nonce, self.note(nonce)?)).collect::<Result<_>>()?;
        let order = build(self.wallet.committee().network.id, &spends, Vec::new(), "", None);
        let mut submission = network.submit(NOTES_SHARD, vec![order], on_event).await?;
        match submission.outcomes.remove(0) {
            Ok(_) => Ok(Freeing::Begun),
            Err(e) if e.code == Code::Recovering => Ok(Freeing::Going),
            Err(e) => Err(e),
        }
    }
}
