//! The load: accounts with money, and payments between them, signed ahead of time.

use bytes::Bytes;
use florin_core::amount::format_amount;
use florin_core::testing::{Signer, to};

/// Accounts that pay each other.
pub struct Accounts {
    /// By shard.
    pub by_shard: Vec<Vec<Signer>>,
}

/// Minor units that each account starts with.
const START: i128 = 1_000_000;

impl Accounts {
    /// `per_shard` accounts on each of `shards`, numbered from `from` on.
    pub fn make(per_shard: usize, shards: u32, from: u64) -> Accounts {
        let mut by_shard: Vec<Vec<Signer>> = (0..shards).map(|_| Vec::with_capacity(per_shard)).collect();
        let mut number = from;
        while by_shard.iter().any(|s| s.len() < per_shard) {
            let signer = Signer::new(number);
            number += 1;
            let shard = &mut by_shard[signer.address.shard(shards) as usize];
            if shard.len() < per_shard {
                shard.push(signer);
            }
        }
        Accounts { by_shard }
    }

    /// Lines of a genesis file that give each its start.
    pub fn genesis(&self, currency: &str, decimals: u8) -> String {
        let amount = format_amount(START, decimals);
        self.by_shard.iter().flatten().map(|s| format!("{} {amount}\n", s.address.to_text(currency))).collect()
    }

    /// One more payment of every account, to another one anywhere, by shard.
    pub fn round(&mut self, salt: usize) -> Vec<Vec<Bytes>> {
        let addresses: Vec<_> = self.by_shard.iter().flatten().map(|s| s.address).collect();
        // A stride that has no factor in common with most counts spreads recipients over all shards.
        let stride = 7_919 * (salt + 1) + 1;
        let mut next = salt;
        let mut orders = Vec::with_capacity(self.by_shard.len());
        for shard in &mut self.by_shard {
            let mut of_shard = Vec::with_capacity(shard.len());
            for signer in shard {
                next = (next + stride) % addresses.len();
                of_shard.push(signer.pay(&[to(addresses[next], 1)], ""));
            }
            orders.push(of_shard);
        }
        orders
    }
}
