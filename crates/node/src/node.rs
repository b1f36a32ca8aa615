//! A running authority, or some of its shards: opens the folders, serves, delivers, follows, and stops
//! without losing anything.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use florin_core::authority::Authority;
use florin_core::authority::state::LOG;
use florin_core::limits::{CERTIFICATES_BYTES_MAX, MESSAGE_BYTES_MAX};
use florin_core::ordered::OrderedLog;
use florin_core::signatures::AuthorityKey;
use florin_core::wire::Signed;
use florin_core::{Code, Error, Result};
use florin_rpc::client::{self, connect_lazy};
use florin_rpc::server::{self, serve};
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use florin_rpc::services::authority_service_server::AuthorityServiceServer;
use florin_rpc::services::peer_service_client::PeerServiceClient;
use florin_rpc::services::peer_service_server::PeerServiceServer;
use florin_rpc::tls;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tracing::{error, info};

use crate::calls::{self, LogRoute};
use crate::cash::{self, Mint};
use crate::config::{Config, check_data, open_shard};
use crate::consensus::{self, Consensus, Queues};
use crate::follow::{self, Lags};
use crate::log::{LogShell, LogThreads};
use crate::ordering::{Aleph, EngineConfig};
use crate::outbox::{self, Route};
use crate::participation::Participation;
use crate::peers::{Clients, Peers};
use crate::service::{LISTENERS, LogPart, Services, Shards, WATCHERS};
use crate::shard::{NoteWork, Shard, ShardThreads};
use crate::steps::{self, StepRoute};
use crate::{genesis, http};

/// Runs the given shards (all if none are given) until `shutdown`, then stops in order: no new requests,
/// running ones end, everything synced. `ready` is called once all listeners accept.
pub async fn run(
    config: Config,
    shards: &[u32],
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let numbers = chosen(&config, shards)?;
    check_data(&config.data)?;
    let mut opened = BTreeMap::new();
    let mut threads: Vec<ShardThreads> = Vec::new();
    let key = Arc::new(config.key());
    let note_work = NoteWork::new();
    for number in &numbers {
        let store = open_shard(&config, *number)?;
        // Accounts lie evenly over all shards.
        store.keep_accounts(config.accounts_bytes / numbers.len());
        let authority = Authority::new(config.committee.clone(), config.index, *number, key.clone());
        let (shard, thread) = Shard::start(authority, store, note_work.clone())?;
        shard.keep_evidence_in(&config.data);
        opened.insert(*number, shard);
        threads.push(thread);
    }
    let shards = Arc::new(opened);
    // The log runs beside shard 0.
    let mut log_threads = Vec::new();
    let (mut task, mut mint_keys) = (None, None);
    let log = match numbers.contains(&0) {
        true => {
            let log = OrderedLog::new(config.committee.clone(), config.index, key.clone());
            let (shell, threads) = LogShell::start(log, open_shard(&config, LOG)?)?;
            let (threads, closed) = threads.split();
            log_threads = threads;
            let (consensus, queues) = Consensus::new(config.committee.size());
            let (cash, mint, go_on) = cash::open(&config.data, &shell, &consensus)?;
            task = Some((queues, closed, cash));
            mint_keys = Some(mint);
            Some(LogPart { shell, consensus, go_on })
        }
        false => None,
    };
    let lags = Arc::new(Lags::default());
    let (stop, stopping) = watch::channel(false);
    let mut background = JoinSet::new();
    let mint = mint_keys.unwrap_or_else(|| {
        let (ask, mint) = cash::remote(connect(&config, config.index as usize, 0));
        background.spawn(ask);
        mint
    });
    background.spawn(give_keys(mint.clone(), shards.clone()));
    let services = Services {
        stopping,
        mint,
        shards: shards.clone(),
        committee: config.committee.clone(),
        index: config.index,
        rebuilt: config.is_rebuilt(),
        watchers: Arc::new(Semaphore::new(WATCHERS)),
        listeners: Arc::new(Semaphore::new(LISTENERS)),
        lags: lags.clone(),
        door: Arc::default(),
        log_elsewhere: log.is_none().then(|| AuthorityServiceClient::new(channel(&config, config.index as usize, 0))),
        log,
    };

    if let (Some(log), Some((queues, closed, cash))) = (&services.log, task) {
        let participation = Participation::read(&config)?;
        background.spawn(cash.run());
        start_log(&config, &key, &services, log, queues, closed, participation, &mut background);
    }
    load_genesis(&config, &services, &mut background);
    start_background(&config, &services, &mut background);
    let served = serve_all(&config, &services, &mut background, ready, shutdown, &stop).await;
    background.shutdown().await;
    drop(services);
    drop(shards);
    // The last handles are gone, so the threads end once everything queued is durable.
    let join = move || {
        threads.into_iter().for_each(ShardThreads::join);
        LogThreads::join(log_threads);
    };
    tokio::task::spawn_blocking(join)
        .await
        .map_err(|e| Error::new(Code::Io, format!("waiting for the shards: {e}")))?;
    info!("stopped");
    served
}

/// Gives the shards the keys of e-cash, when they are made and whenever they change.
async fn give_keys(mut mint: Mint, shards: Shards) {
    loop {
        if let Some(keys) = mint.borrow_and_update().clone() {
            shards.values().for_each(|shard| shard.authority().set_mint(keys.clone()));
        }
        if mint.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn chosen(config: &Config, shards: &[u32]) -> Result<Vec<u32>> {
    let all = config.committee.shards;
    if let Some(wrong) = shards.iter().find(|s| **s >= all) {
        return Err(Error::expected(Code::Usage, "--shards", format!("numbers below {all}"), wrong));
    }
    let mut numbers = if shards.is_empty() { (0..all).collect() } else { shards.to_vec() };
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn load_genesis(config: &Config, services: &Services, background: &mut JoinSet<()>) {
    for shard in services.shards.values() {
        let (shard, path) = (shard.clone(), config.genesis.clone());
        background.spawn(async move {
            if let Err(e) = genesis::load(&shard, path.as_deref()).await {
                error!(shard = shard.authority().shard(), "genesis: {e}; this shard votes for nothing");
            }
        });
    }
}

fn channel(config: &Config, authority: usize, shard: u32) -> Channel {
    let info = &config.committee.authorities[authority];
    let address = &info.addresses[shard as usize];
    connect_lazy(address, *info.key.as_bytes(), Some(&config.seed), client::Limits::default())
}

fn connect(config: &Config, authority: usize, shard: u32) -> PeerServiceClient<Channel> {
    let limit = MESSAGE_BYTES_MAX + CERTIFICATES_BYTES_MAX;
    PeerServiceClient::new(channel(config, authority, shard))
        .max_encoding_message_size(limit)
        .max_decoding_message_size(limit)
}

/// The same shard of each peer.
fn clients(config: &Config, shard: u32) -> Clients {
    let own = config.index as usize;
    (0..config.committee.size()).map(|peer| (peer != own).then(|| connect(config, peer, shard))).collect()
}

/// The log's own tasks: frames, consensus, steps for the shards.
#[allow(clippy::too_many_arguments)]
fn start_log(
    config: &Config,
    key: &Arc<AuthorityKey>,
    services: &Services,
    log: &LogPart,
    queues: Queues,
    closed: mpsc::UnboundedReceiver<(u64, Signed)>,
    participation: Participation,
    background: &mut JoinSet<()>,
) {
    // Frames have connections of their own: a batch that is being fetched must not hold them up.
    let (peers, runs) = Peers::new(clients(config, 0));
    for run in runs {
        background.spawn(run);
    }
    let engine = EngineConfig {
        committee: config.committee.clone(),
        index: config.index,
        key: key.clone(),
        folder: config.ordering_dir(),
        pace: config.pace,
    };
    let own = config.index as usize;
    let reads = (0..config.committee.size())
        .map(|peer| {
            let client = AuthorityServiceClient::new(channel(config, peer, 0));
            (peer != own).then(|| client.max_decoding_message_size(MESSAGE_BYTES_MAX + CERTIFICATES_BYTES_MAX))
        })
        .collect();
    let task = consensus::Task {
        shell: log.shell.clone(),
        aleph: Aleph::new(engine, peers.clone()),
        peers,
        clients: reads,
        handle: log.consensus.clone(),
        queues,
        closed,
        participation,
    };
    background.spawn(task.run());
    for to in 0..config.committee.shards {
        let route = match services.shards.get(&to) {
            Some(shard) => StepRoute::Local(shard.clone()),
            None => StepRoute::Remote(connect(config, own, to)),
        };
        background.spawn(steps::pump(log.shell.clone(), to, route));
    }
}

fn start_background(config: &Config, services: &Services, background: &mut JoinSet<()>) {
    let connect = |authority: usize, shard: u32| connect(config, authority, shard);
    let own = config.index as usize;
    for (number, shard) in services.shards.iter() {
        for to in (0..config.committee.shards).filter(|to| to != number) {
            let route = match services.shards.get(&to) {
                Some(local) => Route::Local(local.clone()),
                None => Route::Remote(connect(own, to)),
            };
            background.spawn(outbox::pump(shard.clone(), to, route));
        }
        let route = match &services.log {
            Some(log) => LogRoute::Local(log.shell.clone(), log.consensus.clone()),
            None => LogRoute::Remote(connect(own, 0)),
        };
        background.spawn(calls::pump(shard.clone(), route));
        for peer in (0..config.committee.size()).filter(|peer| *peer != own) {
            background.spawn(follow::follow(shard.clone(), peer as u32, connect(peer, *number), services.lags.clone()));
        }
    }
}

async fn serve_all(
    config: &Config,
    services: &Services,
    background: &mut JoinSet<()>,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
    stop: &watch::Sender<bool>,
) -> Result<()> {
    let bind = |address: String| async move {
        let bound = TcpListener::bind(&address).await;
        bound.map_err(|e| Error::new(Code::Io, format!("listening on {address}: {e}")))
    };
    // Shards may share an address.
    let mut addresses: Vec<String> =
        services.shards.keys().map(|s| config.listen_address(*s)).collect::<Result<_>>()?;
    addresses.sort();
    addresses.dedup();
    let tls = tls::server_config(&config.seed)?;
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(bind(address).await?);
    }
    let web = match &config.http {
        Some(address) => Some(bind(address.clone()).await?),
        None => None,
    };
    let stopped = |mut stopping: watch::Receiver<bool>| async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let mut servers = JoinSet::new();
    for listener in listeners {
        let limit = MESSAGE_BYTES_MAX + CERTIFICATES_BYTES_MAX;
        let (health, reflection) = server::extras();
        let mut routes = tonic::service::Routes::builder();
        routes
            .add_service(AuthorityServiceServer::new(services.clone()).max_decoding_message_size(limit))
            .add_service(PeerServiceServer::new(services.clone()).max_decoding_message_size(limit))
            .add_service(health)
            .add_service(reflection);
        servers.spawn(serve(
            listener,
            Some(tls.clone()),
            routes.routes(),
            server::Limits::default(),
            stopped(stop.subscribe()),
        ));
    }
    if let Some(listener) = web {
        background.spawn(http::serve(listener, services.clone()));
    }
    info!(name = config.name(), shards = services.shards.len(), "serving");
    ready();
    tokio::pin!(shutdown);
    let result = tokio::select! {
        () = &mut shutdown => Ok(()),
        Some(end) = servers.join_next() => {
            end.map_err(|e| Error::new(Code::Io, format!("server: {e}"))).and_then(|r| r)
        }
        e = panicked(background) => Err(e),
    };
    stop.send_replace(true);
    while servers.join_next().await.is_some() {}
    result
}

/// Waits for a background task to panic: without it the authority would go on and silently no longer deliver or
/// follow. Those that just end, as loading genesis does, are fine.
async fn panicked(background: &mut JoinSet<()>) -> Error {
    while let Some(end) = background.join_next().await {
        if let Err(e) = end
            && e.is_panic()
        {
            return Error::new(Code::Io, format!("a background task: {e}"));
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_the_background_is_noticed_and_an_end_is_not() {
        let mut background = JoinSet::new();
        background.spawn(async {});
        background.spawn(std::future::pending());
        background.spawn(std::future::pending()).abort();
        background.spawn(async {
            tokio::task::yield_now().await;
            panic!("out of luck");
        });
        let error = panicked(&mut background).await;
        assert!(error.message.contains("out of luck"), "{error}");
        assert_eq!(background.len(), 1);
    }
}
