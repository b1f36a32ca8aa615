//! `florin authority`: an operator's key and files, and the server itself.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use florin_core::limits::SHARDS_MAX;
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Error, Result};
use florin_node::config::{AuthorityFile, Config, make_data, read_committee, rebuild_data, secret};
use florin_node::{genesis, node};
use rustix::process::{Resource, getrlimit, setrlimit, setsid};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::committee::assemble::Part;
use super::committee::make::{write_authority_file, write_key};
use super::support::{PUBLIC, host_port, make_folder, need_vacant, ports, random, seen_from, write_new};
use crate::output::Output;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Make an authority's key, and the public part for `florin committee assemble`
    Keygen(KeygenArgs),
    /// Write the authority file, once there is a committee file with this authority in it
    Init(InitArgs),
    /// Run an authority, or some of its shards, until SIGTERM or SIGINT
    ///
    /// Prints one line on stdout once it accepts connections; logs go to stderr (RUST_LOG chooses which).
    Run(RunArgs),
}

/// Options of `authority keygen`.
#[derive(clap::Args)]
pub struct KeygenArgs {
    /// Name in the committee: letters, digits, `.`, `-` and `_`
    #[arg(long)]
    name: String,
    /// Host name or IP that clients and authorities connect to
    #[arg(long)]
    host: String,
    /// Port of the first shard; the others follow. 0 picks free ports of this machine
    #[arg(long)]
    port: u16,
    /// Shards, the same for the whole committee
    #[arg(long, default_value_t = 1)]
    shards: u32,
    /// Folder for NAME.key (secret) and NAME.public.toml
    #[arg(long)]
    dir: PathBuf,
}

/// Options of `authority init`.
#[derive(clap::Args)]
pub struct InitArgs {
    /// The committee file
    #[arg(long, value_name = "FILE")]
    committee: PathBuf,
    /// The key that `florin authority keygen` made
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Folder for authority.toml and the data
    #[arg(long)]
    dir: PathBuf,
    /// The genesis file, if the committee was made with one
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// host:port for /metrics and /health
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Host to listen on instead of the committee file's (as 0.0.0.0 behind a NAT)
    #[arg(long, value_name = "HOST")]
    bind: Option<String>,
}

/// Options of `authority run`.
#[derive(clap::Args)]
pub struct RunArgs {
    /// The authority file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Run these shards only, as 0,2; other processes run the others
    #[arg(long, value_delimiter = ',')]
    shards: Vec<u32>,
    /// Make the data folder: once, for an authority that has never voted
    #[arg(long)]
    create: bool,
    /// Make the data folder for an authority that has voted before and lost it: it takes everything from its peers,
    /// settles and orders, but votes no more in this epoch
    #[arg(long, conflicts_with = "create")]
    rebuild: bool,
    /// Form of the log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Leave the terminal's session: for `florin devnet up`
    #[arg(long, hide = true)]
    own_session: bool,
}

/// Form of the log.
#[derive(Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object a line
    Json,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Keygen(args) => keygen(args, out),
        Command::Init(args) => init(args, out),
        Command::Run(args) => serve(args, out),
    }
}

fn keygen(args: KeygenArgs, out: Output) -> Result<()> {
    let name = &args.name;
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(good) {
        let expected = "1 to 64 letters, digits, `.`, `-` or `_`, no `.` first";
        return Err(Error::expected(Code::Usage, "--name", expected, format!("{name:?}")));
    }
    if !(1..=SHARDS_MAX).contains(&args.shards) {
        return Err(Error::expected(Code::Usage, "--shards", format!("1 to {SHARDS_MAX}"), args.shards));
    }
    let port = ports(&args.host, args.port, args.shards)?;
    make_folder(&args.dir)?;
    let (key, public) = (args.dir.join(format!("{name}.key")), args.dir.join(format!("{name}.public.toml")));
    need_vacant([&key, &public])?;
    let seed = random::<32>()?;
    let part = Part {
        florin_authority: 1,
        name: name.clone(),
        key: AuthorityKey::from_seed(*seed).public().to_string(),
        addresses: (0..args.shards).map(|shard| host_port(&args.host, port + shard as u16)).collect(),
    };
    let text = toml::to_string(&part).map_err(|e| Error::new(Code::BadConfig, format!("public part: {e}")))?;
    write_key(&key, &seed)?;
    write_new(&public, format!("# Public part of a Florin authority, for the others.\n{text}").as_bytes(), PUBLIC)?;
    let text = format!(
        "Made {} (secret: keep it, back it up) and {}.\npublic key {}\n\nNext: send {} to whoever runs `florin committee \
         assemble`, and tell the others the public key another way.",
        key.display(),
        public.display(),
        part.key,
        public.display(),
    );
    out.data(
        text,
        &json!({"name": name, "public_key": part.key, "addresses": part.addresses, "key": key, "public": public}),
    );
    Ok(())
}

fn init(args: InitArgs, out: Output) -> Result<()> {
    let committee = read_committee(&args.committee)?;
    let seed = secret(&format!("file:{}", args.key.display()), Path::new("."))?;
    let public = AuthorityKey::from_seed(*seed).public();
    let index = committee.index_of(&public).ok_or_else(|| {
        Error::expected(Code::BadConfig, "public key of this authority", "one of the committee file", public)
    })?;
    let expected = committee.network.genesis_hash;
    if args.genesis.is_none() && expected != genesis::hash(None)? {
        let message = "the committee was made with a genesis file: give it with --genesis";
        return Err(Error::new(Code::BadConfig, message));
    }
    let found = genesis::hash(args.genesis.as_deref())?;
    if found != expected {
        let (expected, found) = (hex::encode(expected), hex::encode(found));
        return Err(Error::expected(Code::BadConfig, "sha256 of the genesis file", expected, found));
    }
    let path = args.dir.join("authority.toml");
    need_vacant([&path])?;
    make_folder(&args.dir)?;
    let file = AuthorityFile {
        committee: seen_from(&args.dir, &args.committee)?,
        key: format!("file:{}", seen_from(&args.dir, &args.key)?.display()),
        data: "data".into(),
        genesis: args.genesis.map(|genesis| seen_from(&args.dir, &genesis)).transpose()?,
        http: args.http,
        bind: args.bind,
        accounts_memory_mib: None,
    };
    write_authority_file(&path, &file)?;
    let name = &committee.authorities[index as usize].name;
    let id = hex::encode(committee.id());
    let file = path.display();
    let text = format!(
        "Wrote {file} for {name}, authority {index} of committee\nid {id}\n\nNext: compare the id with the other \
         operators, then\n  florin config check {file}\n  florin authority run --config {file}"
    );
    out.data(text, &json!({"name": name, "authority": index, "committee_id": id, "file": path}));
    Ok(())
}

fn serve(args: RunArgs, out: Output) -> Result<()> {
    if args.own_session {
        // Fails only if it leads a session or group already.
        let _ = setsid();
    }
    start_log(args.log_format, out.verbose)?;
    raise_open_files();
    let config = Config::read(&args.config)?;
    if args.create {
        make_data(&config.data)?;
    }
    if args.rebuild {
        rebuild_data(&config.data)?;
    }
    let name = config.name().to_owned();
    let mut shards = if args.shards.is_empty() { (0..config.committee.shards).collect() } else { args.shards.clone() };
    shards.sort_unstable();
    shards.dedup();
    let known = shards.iter().filter(|shard| **shard < config.committee.shards);
    let mut addresses = known.map(|shard| config.listen_address(*shard)).collect::<Result<Vec<_>>>()?;
    addresses.dedup();
    let ready = move || {
        let numbers: Vec<String> = shards.iter().map(u32::to_string).collect();
        let text = format!("ready {name} shards {} at {}", numbers.join(","), addresses.join(","));
        out.data(text, &json!({"ready": name, "shards": shards, "addresses": addresses}));
    };
    let runtime = runtime().map_err(|e| Error::new(Code::Io, format!("cannot start threads: {e}")))?;
    runtime.block_on(async {
        let stop = |kind| signal(kind).map_err(|e| Error::new(Code::Io, format!("cannot wait for signals: {e}")));
        let (mut term, mut int) = (stop(SignalKind::terminate())?, stop(SignalKind::interrupt())?);
        let shutdown = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            tracing::info!("stopping");
        };
        node::run(config, &args.shards, ready, shutdown).await
    })
}

/// Threads for connections: half as many as cores, since shards and the log have threads of their own, and more of them wake
/// each other more than they do. `TOKIO_WORKER_THREADS` sets another number.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        builder.worker_threads(cores.div_ceil(2));
    }
    builder.enable_all().build()
}

fn start_log(format: LogFormat, verbose: bool) -> Result<()> {
    let default = if verbose { "info,florin=debug,florin_node=debug,florin_rpc=debug" } else { "info" };
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => EnvFilter::try_new(&text).map_err(|e| {
            Error::new(Code::Usage, format!("RUST_LOG: expected as info,florin_node=debug, found {text:?}: {e}"))
        })?,
        Err(_) => EnvFilter::new(default),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|e| Error::new(Code::Io, format!("cannot start the log: {e}")))
}

/// Every connection and every file of the store is an open file; many systems start with 1,024.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // It works with fewer; the store's own limits are far below.
    let _ = setrlimit(Resource::Nofile, limit);
}
