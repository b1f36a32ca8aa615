//! `florin wallet new`, `import`, `backup`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use florin_client::keystore::{ACCOUNTS_MAX, Keystore, Meta, new_entropy};
use florin_client::seed::Seed;
use florin_client::wallet::{Wallet, journal_path};
use florin_core::amount::{format_amount, parse_amount};
use florin_core::keys::Curve;
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use super::place::{CommitteeFile, Passphrase, WalletFile, block_on, network};
use super::secrets;
use crate::commands::support::need_vacant;
use crate::output::Output;

const ADVICE: &str = "Write the seed words down, in their order, and keep them where nobody else looks: whoever has them \
has the money, and they are all it takes to restore it (`florin wallet import`). They are not shown again unless you ask \
(`florin wallet backup`).";

/// What a new wallet is for.
#[derive(clap::Args)]
pub struct Purpose {
    #[command(flatten)]
    wallet: WalletFile,
    #[command(flatten)]
    committee: CommitteeFile,
    #[command(flatten)]
    passphrase: Passphrase,
    /// Accounts, 1 to 1000
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(ACCOUNTS_MAX)))]
    count: u32,
    /// Kind of the accounts' keys
    #[arg(long, value_enum, default_value_t = CurveArg::Ed25519)]
    curve: CurveArg,
    /// Without a committee file: the payment network's id
    #[arg(long, requires_all = ["currency", "decimals"])]
    network_id: Option<u64>,
    /// Without a committee file: the currency code
    #[arg(long, requires_all = ["network_id", "decimals"])]
    currency: Option<String>,
    /// Without a committee file: digits after the point
    #[arg(long, requires_all = ["network_id", "currency"])]
    decimals: Option<u8>,
}

/// Options of `wallet new`.
#[derive(clap::Args)]
pub struct NewArgs {
    #[command(flatten)]
    purpose: Purpose,
    /// How many seed words
    #[arg(long, default_value = "12", value_parser = ["12", "24"])]
    words: String,
    /// Print lines for a genesis file, this amount for each account; the words go to stderr then
    #[arg(long, value_name = "AMOUNT")]
    genesis_amount: Option<String>,
}

/// Options of `wallet import`.
#[derive(clap::Args)]
pub struct ImportArgs {
    #[command(flatten)]
    purpose: Purpose,
    /// File with the seed words; `-` is a line of stdin. Without it they are asked for
    #[arg(long, value_name = "FILE")]
    words_file: Option<PathBuf>,
}

/// Options of `wallet backup`.
#[derive(clap::Args)]
pub struct BackupArgs {
    #[command(flatten)]
    wallet: WalletFile,
    #[command(flatten)]
    passphrase: Passphrase,
}

/// Kind of keys.
#[derive(Clone, Copy, ValueEnum)]
pub enum CurveArg {
    /// The default
    Ed25519,
    /// secp256k1
    K1,
    /// P-256, as in phones' secure elements
    R1,
}

impl Purpose {
    fn meta(&self) -> Result<Meta> {
        let curve = match self.curve {
            CurveArg::Ed25519 => Curve::Ed25519,
            CurveArg::K1 => Curve::K1,
            CurveArg::R1 => Curve::R1,
        };
        if let (Some(network_id), Some(currency), Some(decimals)) = (self.network_id, &self.currency, self.decimals) {
            return Ok(Meta { network_id, currency: currency.to_ascii_lowercase(), decimals, curve });
        }
        let committee = self.committee.read().map_err(|e| {
            let message =
                format!("{}; before there is a committee, give --network-id, --currency and --decimals", e.message);
            Error::new(e.code, message)
        })?;
        let network = &committee.network;
        Ok(Meta { network_id: network.id, currency: network.currency.clone(), decimals: network.decimals, curve })
    }

    fn create(&self, entropy: &[u8], meta: Meta) -> Result<(Keystore, Seed)> {
        let path = &self.wallet.wallet;
        need_vacant([path])?;
        let passphrase = secrets::new_passphrase(self.passphrase.passphrase_file.as_deref(), path)?;
        let seed = Seed::from_entropy(entropy)?;
        let mut keystore = Keystore::create(path, entropy, &passphrase, meta)?;
        keystore.set_accounts(self.count, &seed)?;
        Ok((keystore, seed))
    }
}

fn addresses(keystore: &Keystore) -> Result<Vec<String>> {
    let currency = &keystore.meta().currency;
    (0..keystore.accounts()).map(|account| Ok(keystore.address(account)?.to_text(currency))).collect()
}

/// `wallet new`.
pub fn new(args: NewArgs, out: Output) -> Result<()> {
    let meta = args.purpose.meta()?;
    let decimals = meta.decimals;
    let amount = args.genesis_amount.as_deref().map(|text| parse_amount(text, decimals)).transpose()?;
    let amount = amount.map(|minor| format_amount(minor.into(), decimals));
    // One that stayed behind tells of another wallet's orders.
    need_vacant([&journal_path(&args.purpose.wallet.wallet)])?;
    let (keystore, seed) = match args.words.as_str() {
        "24" => args.purpose.create(&new_entropy::<32>()?[..], meta)?,
        _ => args.purpose.create(&new_entropy::<16>()?[..], meta)?,
    };
    Wallet::note_unused(&keystore, 0..keystore.accounts())?;
    let addresses = addresses(&keystore)?;
    let words = seed.words();
    out.note(ADVICE);
    let mut value = json!({"wallet": keystore.path(), "words": *words, "accounts": keystore.accounts(),
        "addresses": addresses});
    let Some(amount) = amount else {
        let text = format!("{}\n{}", *words, addresses[0]);
        out.data(text, &value);
        return Ok(());
    };
    if !out.json {
        out.note(&*words);
    }
    let lines: Vec<String> = addresses.iter().map(|address| format!("{address} {amount}")).collect();
    value["genesis"] = lines.clone().into();
    out.data(lines.join("\n"), &value);
    Ok(())
}

/// `wallet import`.
pub fn import(args: ImportArgs, out: Output) -> Result<()> {
    let meta = args.purpose.meta()?;
    need_vacant([&args.purpose.wallet.wallet])?;
    let seed = Seed::from_words(&secrets::words(args.words_file.as_deref())?)?;
    let (keystore, _) = args.purpose.create(&seed.entropy(), meta)?;
    let (path, addresses) = (keystore.path().to_owned(), addresses(&keystore)?);
    drop(keystore);
    let caught_up = match args.purpose.committee.read() {
        Ok(committee) => block_on(async {
            let network = network(&committee, Duration::from_secs(10));
            let mut wallet = Wallet::open(&path, committee)?;
            for account in 0..wallet.keystore().accounts() {
                wallet.catch_up(&network, account).await?;
            }
            Ok((0..wallet.keystore().accounts()).map(|a| wallet.account(a).next_seqnum() - 1).collect::<Vec<u32>>())
        }),
        Err(e) => Err(e),
    };
    let orders = match caught_up {
        Ok(orders) => orders,
        Err(e) if matches!(e.code, Code::BadFile | Code::QuorumUnreachable) => {
            out.note(format_args!(
                "The committee was not asked what these accounts have done; the first payment will: {e}"
            ));
            Vec::new()
        }
        Err(e) => return Err(e),
    };
    let value = json!({"wallet": path, "accounts": addresses.len(), "addresses": addresses,
        "orders": (!orders.is_empty()).then_some(orders)});
    out.data(&addresses[0], &value);
    Ok(())
}

/// `wallet backup`.
pub fn backup(args: BackupArgs, out: Output) -> Result<()> {
    let keystore = Keystore::open(&args.wallet.wallet)?;
    let words = args.passphrase.unlock(&keystore)?.words();
    out.note("Whoever sees these words has the money.");
    let value: Value = json!({"words": *words});
    out.data(&*words, &value);
    Ok(())
}
