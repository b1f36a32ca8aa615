//! Asks the authorities how they are.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::committee::{AuthorityInfo, Committee};
use florin_core::wire::{AccountRequest, InfoRequest, ShardStatus};
use florin_core::{Code, Error, Result};
use florin_rpc::client::{Limits, connect_lazy};
use florin_rpc::errors::from_status;
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use tonic::transport::Channel;

use super::process::Member;

const LIMITS: Limits = Limits { connect: Duration::from_secs(1), request: Duration::from_secs(3), from: None };
const PAUSE: Duration = Duration::from_millis(50);

fn client(authority: &AuthorityInfo, shard: u32) -> AuthorityServiceClient<Channel> {
    let address = &authority.addresses[shard as usize];
    AuthorityServiceClient::new(connect_lazy(address, *authority.key.as_bytes(), None, LIMITS))
}

/// State of all shards of each authority, or why one of them doesn't say.
pub async fn info(committee: &Committee) -> Vec<Result<Vec<ShardStatus>>> {
    let mut asked = Vec::new();
    for authority in committee.authorities.clone() {
        let shards = committee.shards;
        asked.push(tokio::spawn(async move { shards_of(&authority, shards).await }));
    }
    let mut out = Vec::with_capacity(asked.len());
    for answer in asked {
        let failed = |e| Error::new(Code::Io, format!("asking an authority: {e}"));
        out.push(answer.await.map_err(failed).and_then(|answer| answer));
    }
    out
}

async fn shards_of(authority: &AuthorityInfo, shards: u32) -> Result<Vec<ShardStatus>> {
    let mut known: Vec<ShardStatus> = Vec::new();
    for shard in 0..shards {
        if known.iter().any(|s| s.shard == shard) {
            continue;
        }
        let reply = client(authority, shard).info(InfoRequest {}).await.map_err(from_status)?.into_inner();
        // A process tells of all its shards.
        known.extend(reply.status.into_iter().filter(|s| s.shard < shards));
    }
    known.sort_by_key(|s| s.shard);
    known.dedup_by_key(|s| s.shard);
    Ok(known)
}

/// Waits until every authority answers and has credited what the genesis file says.
/// Errors: `UNREACHABLE` with the end of the log if a process ended, `TIMEOUT` at the deadline.
pub async fn until_ready(
    dir: &Path,
    committee: &Committee,
    members: &[Member],
    funded: &[(Address, u64)],
    deadline: Instant,
) -> Result<()> {
    for member in members {
        let authority = &committee.authorities[member.authority - 1];
        loop {
            let missing = match ready(committee, authority, funded).await {
                Ok(()) => break,
                Err(e) => e,
            };
            if !member.is_running() {
                let message = format!("{} ended: {}", authority.name, end_of_log(dir, member.authority));
                return Err(Error::new(Code::Unreachable, message));
            }
            if Instant::now() > deadline {
                return Err(Error::new(Code::Timeout, format!("{} is not ready: {missing}", authority.name)));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn ready(committee: &Committee, authority: &AuthorityInfo, funded: &[(Address, u64)]) -> Result<()> {
    let status = shards_of(authority, committee.shards).await?;
    if let Some(faulty) = status.iter().find(|s| !s.fault.is_empty()) {
        return Err(Error::new(Code::StorageFailed, format!("shard {}: {}", faulty.shard, faulty.fault)));
    }
    for (address, _) in funded {
        let request =
            AccountRequest { network_id: committee.network.id, address: Bytes::copy_from_slice(address.as_bytes()) };
        let shard = address.shard(committee.shards);
        let account = client(authority, shard).account(request).await.map_err(from_status)?.into_inner();
        if account.credits == 0 {
            return Err(Error::new(Code::Busy, format!("shard {shard}: the genesis file is being loaded")));
        }
    }
    Ok(())
}

fn end_of_log(dir: &Path, number: usize) -> String {
    let path = dir.join(format!("logs/authority-{number}.log"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    format!("{} ends with: {}", path.display(), lines.into_iter().rev().collect::<Vec<_>>().join(" | "))
}
