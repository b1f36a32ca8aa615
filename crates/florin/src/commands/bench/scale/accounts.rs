//! Accounts of every number, and their payments, signed ahead of time. Those that pay have keys; the others only an address
//! and as many bytes, since nobody ever looks at their keys.

use std::sync::Arc;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::authority::state::{Account, Holding, TOTALS_KEY, Table, Totals, Write, account_key};
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{Promise, sign};
use florin_core::committee::Committee;
use florin_core::signatures::AuthorityKey;
use florin_core::testing::{NETWORK_ID, Signer, seed, to};
use florin_core::{Code, Error, Result, wire};
use florin_node::storage::Store;
use prost::Message as _;

/// Minor units of each account.
const START: i128 = 1_000_000;
/// What the first measured order of an account follows.
const FIRST: (u32, u64) = (1, 7);
/// Accounts in one write.
const CHUNK: usize = 20_000;
/// Threads that sign: two are what a small machine has.
const SIGNING: usize = 2;

/// An account that pays.
#[derive(Clone, Copy)]
struct Payer {
    seqnum: u32,
    prev_hash: u64,
    address: Address,
}

/// All accounts. The first ones pay, in turn; addresses are hashes, so they lie anywhere among the others.
pub struct Accounts {
    count: u64,
    /// The first so many are paid.
    paid: u64,
    shards: u32,
    payers: Vec<Payer>,
    /// Numbers of those that pay, by shard, and whose turn it is.
    by_shard: Vec<(Vec<u32>, usize)>,
    /// Percent of the payments to accounts of other shards; to anybody if `None`.
    cross_percent: Option<u32>,
    random: u64,
}

/// A batch with what makes a certificate of it.
pub struct Batch {
    pub shard: u32,
    pub orders: Vec<Bytes>,
    pub certificate: wire::Certificate,
}

impl Accounts {
    /// So many accounts, of which `active` are paid, and of those at most `payers` pay.
    pub fn make(count: u64, active: u64, payers: u64, shards: u32, cross_percent: Option<u32>) -> Accounts {
        let paid = count.min(active);
        let payers = paid.min(payers) as usize;
        let new = |number: usize| {
            let (seqnum, prev_hash) = FIRST;
            Payer { seqnum, prev_hash, address: signer(number).address }
        };
        let payers: Vec<Payer> = on_all(payers, |numbers| numbers.map(new).collect());
        let mut by_shard = vec![(Vec::new(), 0); shards as usize];
        for (number, payer) in payers.iter().enumerate() {
            by_shard[payer.address.shard(shards) as usize].0.push(number as u32);
        }
        Accounts { count, paid, shards, payers, by_shard, cross_percent, random: 1 }
    }

    /// The fewest accounts of a shard that pay in turn.
    pub fn payers_min(&self) -> usize {
        self.by_shard.iter().map(|(numbers, _)| numbers.len()).min().unwrap_or(0)
    }

    fn address(&self, number: u64) -> Address {
        match self.payers.get(number as usize) {
            Some(payer) => payer.address,
            None => Address::new(seed("idle", number)),
        }
    }

    /// Writes them all as accounts that have sent one order, each to the store of its shard.
    pub fn fill(&self, stores: &[Store]) -> Result<()> {
        let permission = signer(0).permission.encode();
        let mut totals = vec![Totals::default(); stores.len()];
        for first in (0..self.count).step_by(CHUNK) {
            let count = CHUNK.min((self.count - first) as usize);
            let account = |i: usize| self.account(first + i as u64, &permission);
            let made: Vec<(Address, Write)> = on_all(count, |numbers| numbers.map(account).collect());
            let mut writes = vec![Vec::new(); stores.len()];
            for (address, write) in made {
                let shard = address.shard(self.shards) as usize;
                totals[shard].accounts += START;
                totals[shard].genesis += START;
                writes[shard].push(write);
            }
            for (store, writes) in stores.iter().zip(writes) {
                store.write(&writes)?;
                store.sync()?;
            }
        }
        for (store, totals) in stores.iter().zip(totals) {
            store.write(&[Write::put(Table::Meta, TOTALS_KEY, totals.encode().encode_to_vec())])?;
            store.sync()?;
        }
        Ok(())
    }

    fn account(&self, number: u64, permission: &Bytes) -> (Address, Write) {
        let address = self.address(number);
        let (seqnum, prev_hash) = FIRST;
        let account = Account {
            holdings: vec![Holding { address, balance: START, credits: 1, newest: (0, 0) }],
            address: Some(address),
            permission: match (number as usize) < self.payers.len() {
                true => signer(number as usize).permission.encode(),
                false => permission.clone(),
            },
            seqnum,
            prev_hash,
            ..Account::default()
        };
        let key = account_key(NETWORK_ID, address.actor());
        (address, Write::put(Table::Accounts, key, account.encode()))
    }

    /// Orders of so many payments, evenly over the shards, in batches that a quorum has voted for.
    pub fn batches(
        &mut self,
        payments: usize,
        batch: usize,
        committee: &Arc<Committee>,
        keys: &[Arc<AuthorityKey>],
    ) -> Result<Vec<Vec<Batch>>> {
        let each = payments / self.shards as usize;
        let orders: Vec<Vec<Bytes>> = (0..self.shards).map(|shard| self.orders(shard, each)).collect::<Result<_>>()?;
        let certify = |(shard, orders): (usize, Vec<Bytes>)| -> Result<Vec<Batch>> {
            orders.chunks(batch).map(|orders| certified(shard as u32, orders, committee, keys)).collect()
        };
        orders.into_iter().enumerate().map(certify).collect()
    }

    /// The next payments of a shard's accounts, in turn.
    fn orders(&mut self, shard: u32, count: usize) -> Result<Vec<Bytes>> {
        let mut orders = Vec::with_capacity(count);
        while orders.len() < count {
            let (numbers, turn) = &mut self.by_shard[shard as usize];
            if numbers.is_empty() {
                return Err(Error::expected(Code::Usage, &format!("accounts of shard {shard} that pay"), "some", 0));
            }
            // At most one lap at once: what an account signs next follows what it has signed.
            let lap = numbers.len().min(count - orders.len());
            let numbers: Vec<u32> = (0..lap).map(|i| numbers[(*turn + i) % numbers.len()]).collect();
            *turn += lap;
            let jobs: Vec<(u32, Payer, Address)> = numbers
                .into_iter()
                .map(|number| (number, self.payers[number as usize], self.recipient(shard)))
                .collect();
            let signed: Vec<(Bytes, u64)> = on_all(jobs.len(), |range| jobs[range].iter().map(pay).collect());
            for ((number, ..), (order, prev_hash)) in jobs.into_iter().zip(signed) {
                let payer = &mut self.payers[number as usize];
                (payer.seqnum, payer.prev_hash) = (payer.seqnum + 1, prev_hash);
                orders.push(order);
            }
        }
        Ok(orders)
    }

    /// Any account, or one of this shard or of another.
    fn recipient(&mut self, shard: u32) -> Address {
        let random = self.next();
        let Some(percent) = self.cross_percent.filter(|_| self.shards > 1) else {
            return self.address(random % self.paid);
        };
        let cross = random % 100 < u64::from(percent);
        loop {
            let number = self.next() % self.paid;
            let address = self.address(number);
            if (address.shard(self.shards) != shard) == cross {
                return address;
            }
        }
    }

    /// splitmix64: the same load in every run.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Keys are made anew each time: those of a million accounts would be most of what is resident.
fn signer(number: usize) -> Signer {
    Signer::new(1 + number as u64)
}

fn pay((number, payer, recipient): &(u32, Payer, Address)) -> (Bytes, u64) {
    let mut signer = Signer { seqnum: payer.seqnum, prev_hash: payer.prev_hash, ..signer(*number as usize) };
    (signer.pay(&[to(*recipient, 1)], ""), signer.prev_hash)
}

/// Splits work over the threads that sign, in order.
fn on_all<T: Send>(count: usize, work: impl Fn(std::ops::Range<usize>) -> Vec<T> + Sync) -> Vec<T> {
    let (half, work) = (count.div_ceil(SIGNING), &work);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..SIGNING)
            .map(|i| scope.spawn(move || work((i * half).min(count)..((i + 1) * half).min(count))))
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("signing does not panic")).collect()
    })
}

/// As parts of one message, as an authority gets them, with the votes of a quorum.
fn certified(shard: u32, orders: &[Bytes], committee: &Arc<Committee>, keys: &[Arc<AuthorityKey>]) -> Result<Batch> {
    let message = Bytes::from(orders.concat());
    let mut at = 0;
    let orders: Vec<Bytes> = orders
        .iter()
        .map(|order| {
            at += order.len();
            message.slice(at - order.len()..at)
        })
        .collect();
    let id = decode_batch(&orders)?.id;
    let all = Bitmap::full(orders.len());
    let vote = |i: usize| sign(Promise::Vote, committee, i as u32, &keys[i], &id, &all);
    let certificate = wire::Certificate {
        epoch: committee.epoch,
        root: Bytes::copy_from_slice(&id.root),
        count: id.count as u32,
        votes: (0..committee.quorum()).map(vote).collect(),
    };
    Ok(Batch { shard, orders, certificate })
}
