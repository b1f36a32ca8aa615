//! The load: accounts with money, and payments between them, signed ahead of time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_client::network::Network;
use florin_core::amount::format_amount;
use florin_core::batch::decode_batch;
use florin_core::committee::Committee;
use florin_core::distilled::round::Sealed;
use florin_core::testing::{NETWORK_ID, Signer, TestCommittee, to};
use florin_core::{Code, Error, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::local::Plan;

/// A committee of this machine for such accounts, with its issuer.
pub fn plan(authorities: usize, shards: u32, genesis: &str) -> Plan<'_> {
    Plan {
        authorities,
        shards,
        network_id: NETWORK_ID,
        currency: "flr",
        decimals: 2,
        issuer: TestCommittee::issuer().permission.encode(),
        issuer_limit: 1 << 60,
        genesis,
        bind: None,
    }
}

/// Accounts that pay each other.
pub struct Accounts {
    /// By shard.
    pub by_shard: Vec<Vec<Signer>>,
}

/// Minor units that each account starts with.
const START: i128 = 1_000_000;

impl Accounts {
    /// `per_shard` accounts on each of `shards`.
    pub fn make(per_shard: usize, shards: u32, network_id: u64) -> Accounts {
        Accounts::of(Signer::new, per_shard, shards, network_id)
    }

    /// The same, with BLS keys beside the others.
    pub fn distilled(per_shard: usize, shards: u32, network_id: u64) -> Accounts {
        Accounts::of(Signer::distilled, per_shard, shards, network_id)
    }

    fn of(signer: fn(u64) -> Signer, per_shard: usize, shards: u32, network_id: u64) -> Accounts {
        let mut by_shard: Vec<Vec<Signer>> = (0..shards).map(|_| Vec::with_capacity(per_shard)).collect();
        let mut number = 1;
        while by_shard.iter().any(|s| s.len() < per_shard) {
            let signer = signer(number).in_network(network_id);
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

    /// A round's orders in distilled batches of this size: each account has signed the root of its batch, and nothing else.
    pub fn distil(&self, round: Vec<Vec<Bytes>>, batch: usize, committee: &Committee) -> Result<Vec<Vec<Sealed>>> {
        let seal = |batch: &mut [(&Signer, Bytes)]| {
            batch.sort_by_key(|(signer, _)| signer.actor());
            let orders: Vec<Bytes> = batch.iter().map(|(_, order)| order.clone()).collect();
            let id = decode_batch(&orders)?.id;
            let shares = batch.iter().map(|(signer, _)| Some(signer.sign_root(committee, &id)));
            Sealed::new(&orders, shares.collect())
        };
        let shards = self.by_shard.iter().zip(round).map(|(signers, orders)| {
            let mut senders: Vec<(&Signer, Bytes)> = signers.iter().zip(orders).collect();
            senders.chunks_mut(batch).map(seal).collect()
        });
        shards.collect()
    }

    /// Waits until every authority has loaded the genesis file and has its keys of e-cash.
    pub async fn wait_funded(&self, network: &Network, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        // The genesis file is loaded in order, each shard by itself.
        for last in self.by_shard.iter().filter_map(|s| s.last()) {
            loop {
                let replies = network.account(&last.address).await;
                if replies.iter().flatten().filter(|r| r.credits > 0).count() == network.committee().size() {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(Error::new(
                        Code::Timeout,
                        format!("the genesis file is not loaded within {} s", patience.as_secs()),
                    ));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        // They make the keys of e-cash once, and what is measured is what comes after.
        loop {
            let replies = network.cash_keys_status().await;
            if replies.iter().flatten().filter(|reply| reply.holds_share).count() == network.committee().size() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let message = format!("the keys of e-cash are not made within {} s", patience.as_secs());
                return Err(Error::new(Code::Timeout, message));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A batch on its way to the authorities.
pub enum Batch {
    /// Each order with its own signature.
    Plain(Vec<Bytes>),
    /// Senders have signed its root.
    Distilled(Sealed),
}

/// Cuts orders by shard into batches.
pub fn batches(by_shard: Vec<Vec<Bytes>>, batch: usize) -> Vec<Vec<Batch>> {
    let cut = |orders: Vec<Bytes>| orders.chunks(batch).map(|part| Batch::Plain(part.to_vec())).collect();
    by_shard.into_iter().map(cut).collect()
}

/// Submits all orders, a few batches of each shard at a time; every single one must become final.
pub async fn drive(network: &Network, by_shard: Vec<Vec<Bytes>>, batch: usize, in_flight: usize) -> Result<()> {
    drive_batches(network, batches(by_shard, batch), in_flight).await
}

/// The same for batches by shard.
pub async fn drive_batches(network: &Network, by_shard: Vec<Vec<Batch>>, in_flight: usize) -> Result<()> {
    let mut running = JoinSet::new();
    for (shard, batches) in by_shard.into_iter().enumerate() {
        let slots = Arc::new(Semaphore::new(in_flight));
        for batch in batches {
            let (network, slots, shard) = (network.clone(), slots.clone(), shard as u32);
            running.spawn(async move {
                let _slot = slots.acquire_owned().await;
                let submission = match batch {
                    Batch::Plain(orders) => network.submit(shard, orders, |_| ()).await?,
                    Batch::Distilled(sealed) => network.submit_distilled(shard, sealed, |_| ()).await?,
                };
                submission.outcomes.into_iter().find_map(Result::err).map_or(Ok(()), Err)
            });
        }
    }
    while let Some(done) = running.join_next().await {
        done.map_err(|e| Error::new(Code::Io, format!("load generator: {e}")))??;
    }
    Ok(())
}
