//! Notes that different orders of their owner, or of two people who both know them, have locked, so that none gets a quorum of votes.
//!
//! The log frees them: asked by a RECOVER_NOTES, it freezes them for ten minutes, and either an order that was certified settles or
//! the notes are free again, with one recovery more, which voids all orders that were signed before. All notes of an order are
//! named together, as decision 17 asks. What waits is the open order itself: asked again after any crash, it goes on waiting.

use florin_core::bearer::build;
use florin_core::wire::note_state::State as Seen;
use florin_core::{Code, Error, Result};

use super::records::{Hex32, Purpose};
use super::states::{NOTES_SHARD, states};
use super::store::Secrets;
use super::{CashWallet, Events};
use crate::network::Network;

impl CashWallet {
    /// Open orders that can't go on because other orders hold their notes, or because the log has frozen them. Errors: `IO`.
    pub async fn stuck(&mut self, network: &Network, secrets: &Secrets, on_event: Events<'_>) -> Result<Vec<u64>> {
        let open: Vec<u64> = (self.book().open.iter())
            .filter(|(_, open)| !matches!(open.purpose, Purpose::Withdraw { .. }))
            .map(|(number, _)| *number)
            .collect();
        let mut stuck = Vec::new();
        for number in open {
            match self.drive(network, secrets, number, on_event).await {
                Err(e) if matches!(e.code, Code::NoteLocked | Code::Recovering) => stuck.push(number),
                Err(e) if e.code == Code::Io => return Err(e),
                _ => {}
            }
        }
        Ok(stuck)
    }

    /// Asks the log to free the notes of an open order. That it is doing so is no error. Errors: as of sending an order.
    pub async fn ask_to_free(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        number: u64,
        on_event: Events<'_>,
    ) -> Result<()> {
        let nonces = self.inputs(number)?;
        let seen = states(network, &nonces).await?;
        // Those that are frozen are asked for already, and would keep the others from it.
        let left = nonces.iter().zip(seen).filter(|(_, seen)| matches!(seen.state, Seen::Locked | Seen::Free));
        let left: Vec<Hex32> = left.map(|(nonce, _)| *nonce).collect();
        let spends = self.spends(secrets, &left)?;
        if spends.is_empty() {
            return Ok(());
        }
        let envelope = build(network.committee().network.id, &spends, Vec::new(), "", None);
        match network.submit(NOTES_SHARD, vec![envelope], on_event).await?.outcomes.remove(0) {
            Err(e) if e.code != Code::Recovering => Err(e),
            _ => Ok(()),
        }
    }

    /// Whether the log has not decided about all notes of an open order. Errors: as of asking for their states.
    pub async fn waits_for_log(&self, network: &Network, number: u64) -> Result<bool> {
        let nonces = self.inputs(number)?;
        let seen = states(network, &nonces).await?;
        Ok(seen.iter().any(|seen| matches!(seen.state, Seen::Locked | Seen::Frozen)))
    }

    fn inputs(&self, number: u64) -> Result<Vec<Hex32>> {
        let open = self.book().open.get(&number);
        let open = open.ok_or_else(|| Error::expected(Code::Usage, "number", "of an open order", number))?;
        Ok(open.inputs.iter().map(|(nonce, _)| *nonce).collect())
    }
}
