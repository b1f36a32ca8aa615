//! Options that the wallet's commands share, and what they open.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use florin_client::cash::CashWallet;
use florin_client::keystore::Keystore;
use florin_client::network::{Network, Patience};
use florin_client::seed::Seed;
use florin_client::wallet::Wallet;
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result};
use florin_node::config::read_committee;

use super::secrets;

/// The wallet file.
#[derive(clap::Args)]
pub struct WalletFile {
    /// The wallet file
    #[arg(long, env = "FLORIN_WALLET", value_name = "FILE")]
    pub wallet: PathBuf,
}

/// Where the passphrase is.
#[derive(clap::Args)]
pub struct Passphrase {
    /// File whose first line is the wallet's passphrase; `-` is stdin. Without it the passphrase is asked for
    #[arg(long, env = "FLORIN_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl Passphrase {
    /// The seed of a wallet. Errors: `WRONG_PASSPHRASE`, those of reading it.
    pub fn unlock(&self, keystore: &Keystore) -> Result<Seed> {
        let passphrase = secrets::passphrase(self.passphrase_file.as_deref(), keystore.path())?;
        keystore.unlock(&passphrase)
    }
}

/// The committee file.
#[derive(clap::Args)]
pub struct CommitteeFile {
    /// The committee file
    #[arg(long, env = "FLORIN_COMMITTEE", value_name = "FILE", default_value = "committee.toml")]
    pub committee: PathBuf,
}

impl CommitteeFile {
    /// Reads it. Errors: `BAD_FILE`, `BAD_CONFIG`.
    pub fn read(&self) -> Result<Arc<Committee>> {
        read_committee(&self.committee).map(Arc::new)
    }
}

/// A wallet and its committee.
#[derive(clap::Args)]
pub struct Place {
    #[command(flatten)]
    wallet: WalletFile,
    #[command(flatten)]
    committee: CommitteeFile,
    /// How long to wait for the committee, as 500ms, 10s or 2m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,
}

/// A question to a committee that takes no wallet.
#[derive(clap::Args)]
pub struct Question {
    #[command(flatten)]
    committee: CommitteeFile,
    /// How long to wait for the committee, as 500ms, 10s or 2m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,
}

impl Question {
    /// The committee. Errors: `BAD_FILE`, `BAD_CONFIG`.
    pub fn committee(&self) -> Result<Arc<Committee>> {
        self.committee.read()
    }

    /// The way to the committee. Needs a tokio runtime.
    pub fn network(&self, committee: &Arc<Committee>) -> Network {
        network(committee, self.timeout)
    }

    /// How long to wait.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl Place {
    /// The committee. Errors: `BAD_FILE`, `BAD_CONFIG`.
    pub fn committee(&self) -> Result<Arc<Committee>> {
        self.committee.read()
    }

    /// Where the wallet file is.
    pub fn wallet(&self) -> &std::path::Path {
        &self.wallet.wallet
    }

    /// The wallet file alone. Errors: as of [`Keystore::open`].
    pub fn keystore(&self) -> Result<Keystore> {
        Keystore::open(&self.wallet.wallet)
    }

    /// The wallet with its journal. Errors: as of [`Wallet::open`].
    pub fn open(&self, committee: &Arc<Committee>) -> Result<Wallet> {
        Wallet::open(&self.wallet.wallet, committee.clone())
    }

    /// The wallet with its cash. Errors: as of [`CashWallet::open`].
    pub fn cash(&self, committee: &Arc<Committee>) -> Result<CashWallet> {
        CashWallet::open(&self.wallet.wallet, committee.clone())
    }

    /// How long to wait.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The way to the committee. Needs a tokio runtime.
    pub fn network(&self, committee: &Arc<Committee>) -> Network {
        network(committee, self.timeout)
    }
}

/// The way to a committee. Needs a tokio runtime.
pub fn network(committee: &Arc<Committee>, timeout: Duration) -> Network {
    let patience = Patience::default();
    Network::new(committee.clone(), Patience { total: timeout, request: patience.request.min(timeout), ..patience })
}

/// Runs a command's network part.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Error::new(Code::Io, format!("cannot start the runtime: {e}")))?.block_on(future)
}

/// Reads a duration such as 5ms, 10s or 2m.
pub fn duration(text: &str) -> std::result::Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("expected as 5ms, 10s or 2m, found {text:?}"))?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" if number <= 86_400 => Ok(Duration::from_secs(number)),
        "m" if number <= 1_440 => Ok(Duration::from_secs(number * 60)),
        "s" | "m" => Err(format!("expected at most a day, found {text:?}")),
        _ => Err(format!("expected the unit ms, s or m, found {text:?}")),
    }
}

/// Starts the log of a server, on stderr. RUST_LOG chooses what is in it.
pub fn log_to_stderr() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    log.try_init().map_err(|e| Error::new(Code::Io, format!("cannot start the log: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("5ms").unwrap(), Duration::from_millis(5));
        assert_eq!(duration("10s").unwrap(), Duration::from_secs(10));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for bad in ["", "s", "10", "10 s", "-1s", "1h", "99999999999999999999s", "18446744073709551615m", "1é"] {
            duration(bad).unwrap_err();
        }
    }
}
