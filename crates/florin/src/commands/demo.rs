//! `florin demo`: the whole of it in a minute, with real processes, real disks and real keys.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use florin_client::keystore::{Keystore, Meta, new_entropy};
use florin_client::network::{Event, Network, Patience};
use florin_client::receipt_file;
use florin_client::seed::Seed;
use florin_client::wallet::Wallet;
use florin_core::address::Address;
use florin_core::amount::format_amount;
use florin_core::content::Credit;
use florin_core::keys::Curve;
use florin_core::permission::Permission;
use florin_core::receipt::verify;
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use super::bench::burst;
use crate::local::{LocalCommittee, Plan};
use crate::output::Output;

const AUTHORITIES: usize = 4;
const SHARDS: u32 = 2;
const CURRENCY: &str = "flr";
const DECIMALS: u8 = 2;
const PASSPHRASE: &str = "demo";
/// Authority that is stopped, by index.
const VICTIM: usize = 3;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Keep everything in this folder, which must be empty or not be there
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leave the committee running and print the commands to try
    #[arg(long)]
    keep: bool,
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    let temporary = tempfile::Builder::new().prefix("florin-demo-").tempdir();
    let temporary = temporary.map_err(|e| Error::new(Code::Io, format!("a temporary folder: {e}")))?;
    let dir = match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|e| Error::new(Code::Io, format!("{}: {e}", dir.display())))?;
            dir.clone()
        }
        None => temporary.path().to_owned(),
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Error::new(Code::Io, e.to_string()))?;
    let value = runtime.block_on(Demo::play(&dir, args.keep, out))?;
    if args.keep && args.dir.is_none() {
        // Whoever keeps the committee keeps its folder.
        let _ = temporary.keep();
    }
    if out.json {
        out.data("", &value);
    }
    Ok(())
}

struct Demo {
    out: Output,
    start: Instant,
    steps: Vec<Value>,
}

/// A wallet with its seed unlocked.
struct Person {
    wallet: Wallet,
    seed: Seed,
    address: Address,
}

impl Demo {
    fn step(&mut self, text: impl std::fmt::Display) {
        let at = self.start.elapsed().as_secs_f64();
        if !self.out.json {
            self.out.data(format_args!("[{at:>6.2} s] {text}"), &Value::Null);
        }
        self.steps.push(json!({"seconds": (at * 1e3).round() / 1e3, "step": text.to_string()}));
    }

    async fn play(dir: &Path, keep: bool, out: Output) -> Result<Value> {
        let mut demo = Demo { out, start: Instant::now(), steps: Vec::new() };
        let network_id = u64::from_be_bytes(new_entropy::<8>()?[..].try_into().unwrap_or([1; 8])) >> 1 | 1;
        let load = burst::Load::make(SHARDS, network_id);
        for name in ["issuer", "alice", "bob"] {
            let meta = Meta { network_id, currency: CURRENCY.into(), decimals: DECIMALS, curve: Curve::Ed25519 };
            Keystore::create(&wallet_path(dir, name), &new_entropy::<16>()?[..], PASSPHRASE, meta)?;
        }
        let issuer_key = Keystore::open(&wallet_path(dir, "issuer"))?.public_keys()[0];
        let mut local = LocalCommittee::create(
            dir,
            &Plan {
                authorities: AUTHORITIES,
                shards: SHARDS,
                network_id,
                currency: CURRENCY,
                decimals: DECIMALS,
                issuer: Permission::single(issuer_key).encode(),
                issuer_limit: 1_000_000_000_000,
                genesis: &load.genesis(CURRENCY, DECIMALS),
                bind: None,
            },
        )?;
        demo.step(format_args!("keys for {AUTHORITIES} authorities and 3 wallets in {}", dir.display()));
        local.start_all()?;
        demo.step(format_args!(
            "{AUTHORITIES} authorities of {SHARDS} shards run as processes of their own, TLS between them"
        ));

        let network = Network::new(local.committee.clone(), Patience { total: PATIENCE, ..Patience::default() });
        let keys =
            super::committee::dkg::wait(&network, Instant::now() + 3 * PATIENCE, |line| out.detail(line)).await?;
        demo.step(format_args!("they made the keys of e-cash together, with no dealer: {}", keys.summary()));
        load.wait_funded(&network).await?;
        let open = |name: &str| Person::open(dir, name, &local);
        let (mut issuer, mut alice, bob) = (open("issuer")?, open("alice")?, open("bob")?);
        demo.step(format_args!("alice is {}", alice.address.to_text(CURRENCY)));
        demo.step(format_args!("bob   is {}", bob.address.to_text(CURRENCY)));

        let gifts = [credit(&alice, 100_000), credit(&bob, 100_000)];
        demo.pay(&network, &mut issuer, &gifts, "welcome", "the issuer funds alice and bob with 1,000.00 each").await?;
        let receipt =
            demo.pay(&network, &mut alice, &[credit(&bob, 1_250)], "coffee beans", "alice pays bob 12.50").await?;
        let file = dir.join("coffee.receipt.json");
        receipt_file::save(&file, &receipt, &local.committee)?;
        verify(&local.committee, &receipt_file::load(&file)?)?;
        demo.step(format_args!(
            "receipt verified offline: {} votes, {} acknowledgements",
            receipt.votes.len(),
            receipt.acknowledgements.len()
        ));

        let victim = local.committee.authorities[VICTIM].name.clone();
        local.kill(VICTIM);
        demo.step(format_args!("{victim} killed with kill -9"));
        demo.pay(&network, &mut alice, &[credit(&bob, 750)], "without one", "alice pays bob 7.50 all the same").await?;
        local.start(VICTIM)?;
        demo.step(format_args!("{victim} started again"));
        demo.wait_level(&network, &bob.address, 2 + 1).await?;
        demo.step(format_args!("{victim} has caught up from its peers"));

        let burst = load.run(&network).await?;
        demo.step(format_args!(
            "{} payments settled durably, {:.0} a second, clients and authorities on this machine",
            burst.payments, burst.rate
        ));
        for (name, person) in [("alice", &alice), ("bob", &bob)] {
            let balance = Wallet::balance(&network, &person.address).await?;
            let text = format_amount(balance.minor, DECIMALS);
            demo.step(format_args!("{name} has {text}, say {} of {AUTHORITIES} authorities", balance.agreeing));
        }
        drop((issuer, alice, bob));
        demo.audit(dir, &mut local)?;
        if keep {
            local.start_all()?;
            demo.hints(dir, &local);
            local.leave_running();
        }
        let took = demo.start.elapsed().as_secs_f64();
        demo.step(format_args!("done in {took:.1} s"));
        Ok(json!({"steps": demo.steps, "seconds": took, "payments_per_second": burst.rate.round(), "audit": "sum 0",
            "dir": keep.then(|| dir.display().to_string())}))
    }

    async fn pay(
        &mut self,
        network: &Network,
        from: &mut Person,
        outputs: &[Credit],
        memo: &str,
        what: &str,
    ) -> Result<florin_core::wire::Receipt> {
        let start = Instant::now();
        let ms = |at: Instant| at.duration_since(start).as_secs_f64() * 1e3;
        from.wallet.sign_pay(&from.seed, 0, outputs, memo)?;
        let signed = ms(Instant::now());
        let mut certified = 0.0;
        let events = |event: Event| {
            if let Event::Certified = event {
                certified = ms(Instant::now());
            }
        };
        let submission = from.wallet.finish(network, 0, events).await?;
        let outcome = submission.and_then(|mut s| s.outcomes.pop());
        let receipt = outcome.unwrap_or_else(|| Err(Error::new(Code::Undecided, "nothing was sent")))?;
        let final_after = ms(Instant::now());
        self.step(format_args!(
            "{what}: signed and on disk after {signed:.1} ms, certified {certified:.1} ms, final {final_after:.1} ms"
        ));
        Ok(receipt)
    }

    /// Waits until every authority has the same credits for an address.
    async fn wait_level(&mut self, network: &Network, address: &Address, credits: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let replies = network.account(address).await;
            let level = replies.iter().flatten().filter(|r| r.credits >= credits).count();
            if level == AUTHORITIES {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::expected(Code::Timeout, "authorities that are level", AUTHORITIES, level));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops the committee in order and recomputes every balance of every authority from its disk.
    fn audit(&mut self, dir: &Path, local: &mut LocalCommittee) -> Result<()> {
        for authority in 0..AUTHORITIES {
            local.stop(authority)?;
        }
        for authority in 0..AUTHORITIES {
            let config = dir.join(format!("authority-{}.toml", authority + 1));
            let audit =
                local.command(["audit".as_ref(), "--json".as_ref(), "--config".as_ref(), config.as_os_str()])?;
            let orders: u64 =
                audit["shards"].as_array().into_iter().flatten().filter_map(|s| s["orders"].as_u64()).sum();
            let name = &local.committee.authorities[authority].name;
            self.step(format_args!(
                "audit of {name}: {orders} orders recomputed from disk, sum {}",
                audit["sum"].as_str().unwrap_or("?")
            ));
        }
        Ok(())
    }

    fn hints(&self, dir: &Path, local: &LocalCommittee) {
        let dir = dir.display();
        let pids: Vec<String> = (0..AUTHORITIES).filter_map(|i| local.pid(i)).map(|pid| pid.to_string()).collect();
        let pids = pids.join(" ");
        self.out.note(format_args!(
            "The committee keeps running. Try (the passphrase of all wallets is `{PASSPHRASE}`):\n  \
             export FLORIN_COMMITTEE={dir}/committee.toml\n  \
             florin wallet balance --wallet {dir}/alice.wallet\n  \
             florin wallet pay --wallet {dir}/alice.wallet $(florin wallet address --wallet {dir}/bob.wallet) 1.50 --memo tea\n  \
             florin wallet history --wallet {dir}/bob.wallet\n  \
             florin receipt verify {dir}/coffee.receipt.json\n\
             Stop it with: kill {pids}"
        ));
    }
}

impl Person {
    fn open(dir: &Path, name: &str, local: &LocalCommittee) -> Result<Person> {
        let wallet = Wallet::open(&wallet_path(dir, name), local.committee.clone())?;
        let seed = wallet.keystore().unlock(PASSPHRASE)?;
        let address = wallet.address(0)?;
        Ok(Person { wallet, seed, address })
    }
}

fn wallet_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.wallet"))
}

fn credit(to: &Person, amount: u64) -> Credit {
    Credit { address: to.address, amount }
}
