//! `florin worker`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use florin_client::keystore::Keystore;
use florin_client::network::{Network, Patience};
use florin_client::pbtx_http::{self, Credentials, Gateway, Registering, Registrar};
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

use super::wallet::{Passphrase, duration, log_to_stderr};
use crate::output::Output;

/// How long a request of PBTX's RPC may take.
const RPC_PATIENCE: Duration = Duration::from_secs(30);

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Take orders of many wallets over gRPC, batch them, drive the committee, answer with receipts
    ///
    /// A worker needs no key that the committee knows, and wallets verify what it says. It keeps what is not finished on
    /// disk. Prints one line with its URL on stdout once it accepts connections, and with --pbtx-http a second one with that
    /// URL; stops at SIGTERM or SIGINT.
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
    /// How long a batch waits for senders with BLS keys to sign its root, as 250ms; 0ms asks nobody
    #[arg(long, value_name = "DURATION", default_value = "250ms", value_parser = duration)]
    sign: Duration,
    /// Serve TLS with this key: file:PATH, env:NAME or 64 hex digits. Without it plain text, on loopback only
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    pbtx: PbtxArgs,
}

/// Options of PBTX's RPC.
#[derive(clap::Args)]
struct PbtxArgs {
    /// Speak PBTX's RPC over HTTP here too; port 0 picks a free one. TLS as with --key
    #[arg(long, value_name = "HOST:PORT", requires = "pbtx_network")]
    pbtx_http: Option<String>,
    /// The PBTX network that it serves
    #[arg(long, value_name = "ID", requires = "pbtx_http")]
    pbtx_network: Option<u64>,
    /// Register actors with account 0 of this wallet file: the network's admin, or any if the network is open
    #[arg(long, value_name = "FILE", requires = "pbtx_http")]
    pbtx_wallet: Option<PathBuf>,
    /// Register only who shows credentials of this file: one on each line, text or hex: and digits
    #[arg(long, value_name = "FILE", requires = "pbtx_http")]
    pbtx_credentials: Option<PathBuf>,
    #[command(flatten)]
    passphrase: Passphrase,
}

/// The RPC that is about to be served.
struct Pbtx {
    listener: TcpListener,
    gateway: Gateway,
}

impl PbtxArgs {
    async fn open(&self, network: &Network, worker: &Worker) -> Result<Option<Pbtx>> {
        let (Some(address), Some(network_id)) = (&self.pbtx_http, self.pbtx_network) else { return Ok(None) };
        let credentials = self.pbtx_credentials.as_deref().map(Credentials::read).transpose()?.unwrap_or_default();
        let registrar = match &self.pbtx_wallet {
            Some(wallet) => {
                let keystore = pbtx_http::patiently(|| Keystore::open(wallet)).await?;
                let seed = self.passphrase.unlock(&keystore)?;
                drop(keystore);
                let registering = Registering { wallet: wallet.clone(), seed };
                Some(Registrar::start(network.clone(), network_id, registering).await?)
            }
            None => None,
        };
        let config = pbtx_http::Config { network_id, registrar, credentials, patience: RPC_PATIENCE };
        let gateway = Gateway::new(network.clone(), worker.clone(), config);
        Ok(Some(Pbtx { listener: bind(address).await?, gateway }))
    }
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
    let listener = bind(&args.listen).await?;
    let local = local(&listener)?;
    if tls.is_none() && !local.ip().is_loopback() {
        let found = format!("{local}; give --key to serve TLS");
        return Err(Error::expected(Code::BadConfig, "--listen without --key", "a loopback address", found));
    }
    let patience = Patience::default();
    let network = Network::new(committee, patience);
    let batching = Batching { orders: args.batch, linger: args.linger, sign: args.sign };
    let worker = Worker::start(network.clone(), &args.journal, batching)?;
    let pbtx = args.pbtx.open(&network, &worker).await?;
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
    let (mut ready, mut value) = (Vec::new(), json!({"unfinished": worker.unfinished()}));
    let known_by = seed.as_ref().map(|seed| AuthorityKey::from_seed(**seed).public());
    let url = match known_by {
        Some(key) => format!("https://{key}@{local}"),
        None => format!("http://{local}"),
    };
    ready.push(format!("ready {url}"));
    value["ready"] = url.into();
    if let Some(pbtx) = &pbtx {
        let url = format!("{}://{}", if seed.is_some() { "https" } else { "http" }, self::local(&pbtx.listener)?);
        ready.push(format!("pbtx {url}"));
        value["pbtx"] = url.into();
    }
    out.data(ready.join("\n"), &value);
    let (stop_rpc, mut stopping) = tokio::sync::watch::channel(());
    let rpc = async {
        let Some(Pbtx { listener, gateway }) = pbtx else { return Ok(()) };
        let limits = pbtx_http::Limits { drain: limits.drain, ..pbtx_http::Limits::default() };
        let stopped = async move {
            let _ = stopping.changed().await;
        };
        pbtx_http::serve(listener, seed.as_deref(), gateway, limits, stopped).await
    };
    let grpc = serve(listener, tls, routes.routes(), limits, async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping");
        drop(stop_rpc);
    });
    tokio::try_join!(grpc, rpc)?;
    tracing::info!(unfinished = worker.unfinished(), distilled = worker.distilled(), "stopped");
    Ok(())
}

async fn bind(address: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|e| Error::new(Code::Io, format!("listening on {address}: {e}")))
}

fn local(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|e| Error::new(Code::Io, e.to_string()))
}
