//! Reissues over a committee of real processes, storage synced, beside plain payments in the same run. The cryptography of notes
//! is the wallet's own, on all cores as there; what the bar counts of it is the CPU of the same work on one thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_client::cash::cores::cores;
use florin_client::cash::shares::{Blind, by_note, unblind};
use florin_client::cash::store::Secrets;
use florin_client::network::{Network, Patience, Submission};
use florin_client::seed::Seed;
use florin_core::cash::blind::NoteSignature;
use florin_core::cash::dkg::PublicKeys;
use florin_core::cash::mint_keys::MintKeys;
use florin_core::cash::testing::{Asked, Note};
use florin_core::testing::{NETWORK_ID, Signer, to};
use florin_core::{Code, Error, Result};
use florin_node::meter::thread_cpu_ns;
use serde_json::{Value, json};

use super::super::cash_crypto::wrong;
use super::super::cpu::{Cpu, percentile};
use super::super::load::{Accounts, plan};
use super::super::transfers::cpu_of_all;
use super::{Args, authority, round2, rows};
use crate::commands::committee::dkg;
use crate::local::LocalCommittee;
use crate::output::Output;

const AUTHORITIES: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);
/// Notes that the orders spend, and ask for.
const SIZES: [usize; 3] = [1, 10, 100];
/// Batches at once when it is about CPU.
const ROUNDS: usize = 8;

/// Times of one size, ascending ms.
struct Size {
    notes: usize,
    /// From the notes in hand to the new ones in hand.
    all: Vec<f64>,
    /// The wallet's part of it: before the order is sent, and after its answers are in.
    wallet: Vec<f64>,
    /// CPU of the same on one thread.
    wallet_cpu: Vec<f64>,
}

/// Milliseconds that one reissue took, as in [`Size`].
struct Took {
    all: f64,
    wallet: f64,
    wallet_cpu: f64,
}

/// What was measured.
pub struct Measured {
    payments: Vec<f64>,
    sizes: Vec<Size>,
    /// CPU of an authority for one reissued note, us, and of it for storage.
    node_us: f64,
    storage_us: f64,
    /// CPU of the state machine for one reissued note, us.
    note_us: f64,
    cores: usize,
}

/// Runs it.
pub fn run(args: &Args, cost: &authority::Cost, out: Output) -> Result<Measured> {
    let temporary;
    let dir = match &args.dir {
        Some(dir) => dir.as_path(),
        None => {
            temporary = tempfile::tempdir().map_err(|e| Error::new(Code::Io, format!("a temporary folder: {e}")))?;
            temporary.path()
        }
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Error::new(Code::Io, e.to_string()))?;
    runtime.block_on(measure(args, cost, dir, out))
}

async fn measure(args: &Args, cost: &authority::Cost, dir: &std::path::Path, out: Output) -> Result<Measured> {
    let mut accounts = Accounts::make(2, 1, NETWORK_ID);
    let mut local = LocalCommittee::create(dir, &plan(AUTHORITIES, 1, &accounts.genesis("flr", 2)))?;
    local.start_all()?;
    let network =
        Network::new(local.committee.clone(), Patience { total: PATIENCE, request: PATIENCE, ..Patience::default() });
    accounts.wait_funded(&network, PATIENCE).await?;
    dkg::wait(&network, Instant::now() + PATIENCE, |line| out.detail(line)).await?;
    let keys = public_keys(&network).await?;
    let secrets = Secrets::new(Seed::from_entropy(&[7; 16])?, NETWORK_ID);
    let mut shop = Shop { network, secrets, next: 0, keys };
    let mut payers = accounts.by_shard.remove(0);
    let (mut payer, mut rich) = (payers.remove(0), payers.remove(0));
    let mut held = Vec::new();
    for notes in SIZES {
        held.push(shop.withdraw(&mut rich, notes).await?);
    }
    out.note(format_args!("{} payments, and as many orders that reissue {SIZES:?} notes", args.singles));
    let mut payments = Vec::new();
    let mut sizes: Vec<Size> =
        SIZES.iter().map(|notes| Size { notes: *notes, all: vec![], wallet: vec![], wallet_cpu: vec![] }).collect();
    // One more of each, to warm up, is not counted.
    for i in 0..=args.singles {
        let took = pay(&shop.network, &mut payer).await?;
        if i > 0 {
            payments.push(took);
        }
        for (size, held) in sizes.iter_mut().zip(&mut held) {
            let (notes, took) = shop.reissue(held).await?;
            *held = notes;
            if i > 0 {
                size.all.push(took.all);
                size.wallet.push(took.wallet);
                size.wallet_cpu.push(took.wallet_cpu);
            }
        }
    }
    payments.sort_by(f64::total_cmp);
    for size in &mut sizes {
        for times in [&mut size.all, &mut size.wallet, &mut size.wallet_cpu] {
            times.sort_by(f64::total_cmp);
        }
    }
    let cpu = shop.load(args, &mut rich, &local, out).await?;
    let per_note = |seconds: f64| seconds * 1e6 / (ROUNDS * args.orders * args.notes * AUTHORITIES) as f64;
    Ok(Measured {
        payments,
        sizes,
        node_us: per_note(cpu.total),
        storage_us: per_note(*cpu.kinds.get("storage").unwrap_or(&0.0)),
        note_us: cost.reissued(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
    })
}

/// The committee's keys; a benchmark believes the first that answers.
async fn public_keys(network: &Network) -> Result<MintKeys> {
    let replies = network.cash_keys_status().await;
    let reply = replies.into_iter().flatten().find(|reply| !reply.keys.is_empty());
    let reply = reply.ok_or_else(|| Error::new(Code::CashNotReady, "no authority has keys of e-cash"))?;
    MintKeys::new(PublicKeys::decode(&reply.keys)?, None)
}

/// Milliseconds from handing in a payment to its being final.
async fn pay(network: &Network, payer: &mut Signer) -> Result<f64> {
    let address = payer.address;
    let order = payer.pay(&[to(address, 1)], "");
    let start = Instant::now();
    network.submit(0, vec![order], |_| ()).await?.outcomes.remove(0)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// A committee and a wallet's secrets.
struct Shop {
    network: Network,
    secrets: Secrets,
    /// The number of the next note.
    next: u64,
    keys: MintKeys,
}

impl Shop {
    /// Tiers of so many notes.
    fn tiers(notes: usize) -> Vec<u32> {
        (0..notes).map(|i| (i % 8) as u32).collect()
    }

    /// Numbers for notes of these tiers.
    fn number(&mut self, tiers: impl Iterator<Item = u32>) -> Vec<(u64, u32)> {
        let numbered: Vec<(u64, u32)> = (self.next..).zip(tiers).collect();
        self.next += numbered.len() as u64;
        numbered
    }

    fn blind(&self, threads: usize, numbered: &[(u64, u32)]) -> Vec<Blind> {
        Blind::own(threads, &self.secrets, numbered)
    }

    fn order(notes: &[Note], asked: &[Blind]) -> Bytes {
        authority::reissue(NETWORK_ID, notes, asked.iter().map(|blind| (blind.tier, blind.blinded)))
    }

    async fn submit(&self, order: Vec<Bytes>) -> Result<Submission> {
        let mut submission = self.network.submit_for_notes(0, order, |_| ()).await?;
        match submission.outcomes.iter().position(Result::is_err) {
            Some(at) => Err(submission.outcomes.swap_remove(at).err().unwrap_or_else(wrong)),
            None => Ok(submission),
        }
    }

    /// The notes' signatures, of what authorities answered.
    fn sign(&self, threads: usize, asked: &[Blind], answers: &[(usize, Vec<Bytes>)]) -> Result<Vec<NoteSignature>> {
        let made = unblind(threads, &self.keys, asked, &by_note(answers, asked.len()))?;
        made.signatures.into_iter().collect::<Option<_>>().ok_or_else(wrong)
    }

    fn take(asked: Vec<Blind>, signatures: Vec<NoteSignature>) -> Vec<Note> {
        let note = |(blind, signature): (Blind, NoteSignature)| Note {
            tier: blind.tier,
            secrets: Arc::new(blind.into_secrets()),
            signature,
            recoveries: 0,
        };
        asked.into_iter().zip(signatures).map(note).collect()
    }

    async fn withdraw(&mut self, payer: &mut Signer, notes: usize) -> Result<Vec<Note>> {
        let numbered = self.number(Shop::tiers(notes).into_iter());
        let asked =
            |(number, tier): &(u64, u32)| Asked { tier: *tier, secrets: Arc::new(self.secrets.notes.note(*number)) };
        let order = payer.withdraw(&numbered.iter().map(asked).collect::<Vec<_>>());
        let submission = self.submit(vec![order]).await?;
        let asked = self.blind(cores(), &numbered);
        let signatures = self.sign(cores(), &asked, &submission.shares[0])?;
        Ok(Shop::take(asked, signatures))
    }

    /// The new notes, and what it took.
    async fn reissue(&mut self, notes: &[Note]) -> Result<(Vec<Note>, Took)> {
        let start = Instant::now();
        let numbered = self.number(notes.iter().map(|note| note.tier));
        let asked = self.blind(cores(), &numbered);
        let order = Shop::order(notes, &asked);
        let before = start.elapsed();
        let submission = self.submit(vec![order]).await?;
        let answered = Instant::now();
        let signatures = self.sign(cores(), &asked, &submission.shares[0])?;
        let (all, wallet) = (start.elapsed(), before + answered.elapsed());
        // Once more on this thread alone, when nobody waits for it.
        let cpu = thread_cpu_ns();
        let again = self.blind(1, &numbered);
        Shop::order(notes, &again);
        let same = self.sign(1, &again, &submission.shares[0])? == signatures;
        let wallet_cpu = (thread_cpu_ns() - cpu) as f64 / 1e6;
        if !same {
            return Err(wrong());
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Ok((Shop::take(asked, signatures), Took { all: ms(all), wallet: ms(wallet), wallet_cpu }))
    }

    /// What all authorities spend on batches of reissues.
    async fn load(&mut self, args: &Args, payer: &mut Signer, local: &LocalCommittee, out: Output) -> Result<Cpu> {
        out.note(format_args!("{ROUNDS} batches of {} orders that reissue {} notes", args.orders, args.notes));
        let mut held = Vec::with_capacity(args.orders);
        for _ in 0..args.orders {
            held.push(self.withdraw(payer, args.notes).await?);
        }
        let mut sum = Cpu::default();
        for _ in 0..ROUNDS {
            let asked: Vec<Vec<Blind>> = (held.iter())
                .map(|notes| self.number(notes.iter().map(|note| note.tier)))
                .collect::<Vec<_>>()
                .iter()
                .map(|numbered| self.blind(cores(), numbered))
                .collect();
            let orders = held.iter().zip(&asked).map(|(notes, asked)| Shop::order(notes, asked)).collect();
            let before = cpu_of_all(local)?;
            let submission = self.submit(orders).await?;
            // Those that are not needed for a quorum have as much to do.
            tokio::time::sleep(Duration::from_millis(300)).await;
            sum.add(&cpu_of_all(local)?.since(&before));
            let made = |(asked, answers): (Vec<Blind>, &Vec<_>)| {
                let signatures = self.sign(cores(), &asked, answers)?;
                Ok(Shop::take(asked, signatures))
            };
            held = asked.into_iter().zip(&submission.shares).map(made).collect::<Result<_>>()?;
        }
        Ok(sum)
    }
}

impl Measured {
    /// What the notes' cryptography takes of the time, ms: the wallet's on one thread, and that of all authorities, which share
    /// this machine's cores.
    fn cryptography(&self, size: &Size) -> (f64, f64) {
        let share = AUTHORITIES as f64 / self.cores.min(AUTHORITIES) as f64;
        (percentile(&size.wallet_cpu, 50.0), self.note_us * size.notes as f64 * share / 1e3)
    }

    /// Three plain payments, and the cryptography.
    fn bar(&self, size: &Size) -> f64 {
        let (wallet, authorities) = self.cryptography(size);
        3.0 * percentile(&self.payments, 50.0) + wallet + authorities
    }

    /// For people.
    pub fn text(&self) -> String {
        let ms = |value: f64| format!("{value:.1}");
        let p = |all: &[f64], percent| ms(percentile(all, percent));
        let payment = vec![p(&self.payments, 50.0), p(&self.payments, 99.0)];
        let mut lines = vec![("plain payment".to_owned(), [payment, vec![String::new(); 5]].concat())];
        for size in &self.sizes {
            let (wallet, authorities) = self.cryptography(size);
            let bar = self.bar(size);
            let ratio = format!("{:.2}", percentile(&size.all, 50.0) / bar);
            let took = p(&size.wallet, 50.0);
            let cells = vec![p(&size.all, 50.0), p(&size.all, 99.0), took, ms(wallet), ms(authorities), ms(bar), ratio];
            lines.push((format!("reissue of {}", size.notes), cells));
        }
        let head =
            ["latency, ms", "p50", "p99", "in the wallet", "wallet's CPU", "authorities' CPU", "bar", "p50 by bar"];
        format!(
            "{}\n\nbar: three payments and the cryptography: the wallet's as one thread does it, though it uses all cores, and that of \
             {AUTHORITIES} authorities on {} cores\n\
             a process with disk and network spends {:.0} us on a reissued note, {:.1} of it for storage",
            rows(&head, lines),
            self.cores,
            self.node_us,
            self.storage_us,
        )
    }

    /// For programs.
    pub fn value(&self) -> Value {
        let latency =
            |all: &[f64]| json!({"p50_ms": round2(percentile(all, 50.0)), "p99_ms": round2(percentile(all, 99.0))});
        let size = |size: &Size| {
            let (wallet, authorities) = self.cryptography(size);
            json!({
                "notes": size.notes, "latency": latency(&size.all), "wallet_ms": round2(percentile(&size.wallet, 50.0)),
                "wallet_cpu_ms": round2(wallet),
                "authorities_cpu_ms": round2(authorities), "bar_ms": round2(self.bar(size)),
                "ratio": round2(percentile(&size.all, 50.0) / self.bar(size)),
            })
        };
        json!({
            "payment": latency(&self.payments), "reissue": self.sizes.iter().map(size).collect::<Vec<_>>(),
            "process_cpu_us": round2(self.node_us), "process_storage_us": round2(self.storage_us), "cores": self.cores,
        })
    }
}
