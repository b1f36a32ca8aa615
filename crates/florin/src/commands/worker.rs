//! `florin worker`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use florin_client::network::{Network, Patience};
use florin_client::worker::{Batching, Worker};
use florin_core::limits::MESSAGE_BYTES_MAX;
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Error, Result};
use florin_node::config::{read_committee, secret};
use florin_rpc::server::{self, serve};
use florin_rpc::services::worker_service_server::WorkerServiceServer;
use florin_rpc::tls;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::wallet::{duration, log_to_stderr};
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Take orders of many wallets over gRPC, batch them, drive the committee, answer with receipts
    ///
    /// A worker needs no key that the committee knows, and wallets verify what it says. It keeps what is not finished on
    /// disk. Prints one line with its URL on stdout once it accepts connections; stops at SIGTERM or SIGINT.
    Run(RunArgs),
}

/// Options of `worker run`.
#[derive(clap::Args)]
pub struct RunArgs {
    /// The committee file
    #[arg(long, env = "FLORIN_COMMITTEE", value_name = "FILE", default_value = "committee.toml")]
    committee: PathBuf,
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7400")]
    listen: String,
    /// Where to keep unfinished orders
    #[arg(long, value_name = "FILE", default_value = "worker.journal")]
    journal: PathBuf,
    /// Orders in a batch at most, 1 to 4096
    #[arg(long, value_name = "ORDERS", default_value_t = Batching::default().orders)]
    batch: usize,
    /// How long the first order of a batch waits for others, as 5ms
    #[arg(long, value_name = "DURATION", default_value = "5ms", value_parser = duration)]
    linger: Duration,
    /// Serve TLS with this key: file:PATH, env:NAME or 64 hex digits. Without it plain text, on loopback only
    #[arg(long)]
    key: Option<String>,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    let Command::Run(args) = command;
    log_to_stderr()?;
    let runtime =
        tokio::runtime::Runtime::new().map_err(|e| Error::new(Code::Io, format!("cannot start threads: {e}")))?;
    runtime.block_on(run_worker(args, out))
}

async fn run_worker(args: RunArgs, out: Output) -> Result<()> {
    let committee = std::sync::Arc::new(read_committee(&args.committee)?);
    let seed = args.key.as_deref().map(|text| secret(text, Path::new("."))).transpose()?;
    let tls = seed.as_deref().map(tls::server_config).transpose()?;
    let listener = TcpListener::bind(&args.listen).await;
    let listener = listener.map_err(|e| Error::new(Code::Io, format!("listening on {}: {e}", args.listen)))?;
    let local = listener.local_addr().map_err(|e| Error::new(Code::Io, e.to_string()))?;
    if tls.is_none() && !local.ip().is_loopback() {
        let found = format!("{local}; give --key to serve TLS");
        return Err(Error::expected(Code::BadConfig, "--listen without --key", "a loopback address", found));
    }
    let patience = Patience::default();
    let network = Network::new(committee, patience);
    let worker = Worker::start(network, &args.journal, Batching { orders: args.batch, linger: args.linger })?;
    let (health, reflection) = server::extras();
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(WorkerServiceServer::new(worker.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(health)
        .add_service(reflection);
    // Whoever waits for an answer gets it, unless the committee is too slow; the orders are on disk.
    let limits = server::Limits { drain: patience.total + Duration::from_secs(1), ..server::Limits::default() };
    let stop = |kind| signal(kind).map_err(|e| Error::new(Code::Io, format!("cannot wait for signals: {e}")));
    let (mut term, mut int) = (stop(SignalKind::terminate())?, stop(SignalKind::interrupt())?);
    let url = match &seed {
        Some(seed) => format!("https://{}@{local}", AuthorityKey::from_seed(**seed).public()),
        None => format!("http://{local}"),
    };
    out.data(format_args!("ready {url}"), &json!({"ready": url, "unfinished": worker.unfinished()}));
    serve(listener, tls, routes.routes(), limits, async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping");
    })
    .await?;
    tracing::info!(unfinished = worker.unfinished(), "stopped");
    Ok(())
}
