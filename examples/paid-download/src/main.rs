//! An HTTP file server that is paid by the chunk, and its client. The README tells how it works.

mod get;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use florin_client::channel::{Channels, Running, of_wallet};
use florin_client::network::{Network, Patience};
use florin_client::wallet::Wallet;
use florin_core::address::Address;
use florin_core::amount::{format_amount, parse_amount};
use florin_core::channel::manager::Policy;
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result};

/// Bytes that are paid at a time.
const CHUNK: u64 = 256 << 10;
/// Header with a voucher.
const VOUCHER: &str = "florin-voucher";
/// Header with the price of a chunk.
const PRICE: &str = "florin-price";
/// Header with the bytes of a chunk.
const CHUNK_BYTES: &str = "florin-chunk";
/// Header with the server's address.
const ADDRESS: &str = "florin-address";
/// Log time between settle and collect of the channels that the client opens.
const DELAY: Duration = Duration::from_secs(24 * 3_600);

/// An HTTP file server that is paid by the chunk, and its client.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the files of a folder
    Serve(serve::Args),
    /// Download a file, and pay for it
    Get(get::Args),
}

/// The wallet that pays or is paid.
#[derive(clap::Args)]
struct Purse {
    /// The wallet file; its first account is used
    #[arg(long, env = "FLORIN_WALLET", value_name = "FILE")]
    wallet: PathBuf,
    /// The committee file
    #[arg(long, env = "FLORIN_COMMITTEE", value_name = "FILE", default_value = "committee.toml")]
    committee: PathBuf,
    /// File whose first line is the wallet's passphrase
    #[arg(long, env = "FLORIN_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: PathBuf,
}

/// An open wallet with its channels.
struct Open {
    channels: Channels,
    running: Running,
    address: Address,
    committee: Arc<Committee>,
}

impl Purse {
    fn open(&self) -> Result<Open> {
        let committee = Arc::new(florin_node::config::read_committee(&self.committee)?);
        let wallet = Wallet::open(&self.wallet, committee.clone())?;
        let text = std::fs::read_to_string(&self.passphrase_file)
            .map_err(|e| Error::new(Code::BadFile, format!("cannot read {}: {e}", self.passphrase_file.display())))?;
        let seed = wallet.keystore().unlock(text.lines().next().unwrap_or_default())?;
        let address = wallet.address(0)?;
        let network = Network::new(committee.clone(), Patience::default());
        let (channels, running) = of_wallet(wallet, seed, network, Policy::default())?;
        Ok(Open { channels, running, address, committee })
    }
}

fn parse(committee: &Committee, text: &str) -> Result<u64> {
    if text == "0" || text == plain(committee, 0) {
        return Ok(0);
    }
    parse_amount(text, committee.network.decimals)
}

fn plain(committee: &Committee, minor: u64) -> String {
    format_amount(minor.into(), committee.network.decimals)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("cannot start the runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Get(args) => get::run(args).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error {} {}: {}", e.code as u32, e.code.name(), e.message);
            eprintln!("  next: {}", e.code.next_step());
            ExitCode::FAILURE
        }
    }
}
