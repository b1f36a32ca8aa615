//! A short burst of payments, for a figure in the demo.

use std::time::{Duration, Instant};

use florin_client::network::Network;
use florin_core::{Code, Error, Result};

use super::load::{Accounts, drive};

const ACCOUNTS_PER_SHARD: usize = 2_000;
const BATCH: usize = 1_000;
const IN_FLIGHT: usize = 2;
const PATIENCE: Duration = Duration::from_secs(30);

/// Accounts that are ready to pay.
pub struct Load {
    accounts: Accounts,
}

/// What it came to.
pub struct Burst {
    /// Payments that became final.
    pub payments: usize,
    /// A second.
    pub rate: f64,
}

impl Load {
    /// Makes the accounts.
    pub fn make(shards: u32, network_id: u64) -> Load {
        Load { accounts: Accounts::make(ACCOUNTS_PER_SHARD, shards, network_id) }
    }

    /// Genesis lines that fund them.
    pub fn genesis(&self, currency: &str, decimals: u8) -> String {
        self.accounts.genesis(currency, decimals)
    }

    /// Waits until every authority has loaded the genesis file.
    pub async fn wait_funded(&self, network: &Network) -> Result<()> {
        self.accounts.wait_funded(network, PATIENCE).await
    }

    /// Every account pays once to warm up and once for the figure.
    pub async fn run(mut self, network: &Network) -> Result<Burst> {
        drive(network, self.accounts.round(0), BATCH, IN_FLIGHT).await?;
        let round = self.accounts.round(1);
        let payments: usize = round.iter().map(Vec::len).sum();
        let start = Instant::now();
        drive(network, round, BATCH, IN_FLIGHT).await?;
        let seconds = start.elapsed().as_secs_f64();
        if seconds <= 0.0 {
            return Err(Error::new(Code::Io, "the clock stood still"));
        }
        Ok(Burst { payments, rate: payments as f64 / seconds })
    }
}
