//! A watchtower: an account of its own that redeems vouchers for others when the other side of their channel closes it.
//! It has what it was given, in files, and no key of those it watches for; it can't pay, sign vouchers or take money out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use florin_core::address::Address;
use florin_core::channel::manager::{EndId, Message, OpId, Outcome, Watcher};
use florin_core::{Code, Error, Result, wire};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::chain::Chain;
use super::shell::may_pass;
use crate::files;

/// Log time, ms, after which what was refused is tried again.
const RETRY_MS: u64 = 5_000;
/// Between two looks at the channels in the log.
const POLL: Duration = Duration::from_secs(1);

/// What a tower has seen or done.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A file is watched for, in place of what was watched for the same end.
    Watches(EndId),
    /// So many vouchers were redeemed, and virtual channels claimed.
    Redeemed {
        /// For whom.
        end: EndId,
        /// Their number.
        vouchers: usize,
        /// Number of virtual channels.
        claims: usize,
    },
    /// The log has refused them; they are tried again.
    Refused {
        /// For whom.
        end: EndId,
        /// Why.
        error: Error,
    },
    /// A file that can't be read, or is none of this tower's.
    BadFile(Error),
}

/// Writes what a tower needs, in a new file or in place of an old one, whole or not at all. Errors: `IO`.
pub fn write(path: &Path, watched: &wire::WatchedChannel) -> Result<()> {
    let staged = files::stage(path, &watched.encode_to_vec())?;
    files::publish(&staged, path)
}

fn read(path: &Path) -> Result<wire::WatchedChannel> {
    let bad = |e: &dyn std::fmt::Display| Error::new(Code::BadFile, format!("{}: {e}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| bad(&e))?;
    wire::WatchedChannel::decode(&bytes[..]).map_err(|e| bad(&e))
}

/// Watches until `tell` says no. Files are read again whenever they have changed. `account` pays nothing for it.
pub async fn run(chain: &dyn Chain, account: Address, paths: &[PathBuf], mut tell: impl FnMut(Seen) -> bool) {
    let mut watcher = Watcher::new(account, RETRY_MS);
    let mut read_before: Vec<Option<wire::WatchedChannel>> = vec![None; paths.len()];
    loop {
        for (path, before) in paths.iter().zip(&mut read_before) {
            let said = match read(path) {
                Ok(watched) if before.as_ref() == Some(&watched) => continue,
                Ok(watched) => match watcher.add(&watched) {
                    Ok(end) => {
                        *before = Some(watched);
                        Seen::Watches(end)
                    }
                    Err(e) => Seen::BadFile(Error { message: format!("{}: {}", path.display(), e.message), ..e }),
                },
                Err(e) => Seen::BadFile(e),
            };
            if !tell(said) {
                return;
            }
        }
        let ends: Vec<EndId> = watcher.channels().copied().collect();
        for end in ends {
            // What can't be asked now is asked again.
            let Ok((Some(record), time_ms)) = chain.channel(&end.channel).await else { continue };
            for message in watcher.seen(&end.channel, &record, time_ms) {
                let (vouchers, claims) = count(&message);
                let said = match send(chain, &end, &message, time_ms).await {
                    Ok(Outcome::Confirmed { .. }) => Seen::Redeemed { end, vouchers, claims },
                    Ok(Outcome::Failed { code, message }) => {
                        let code = Code::from_number(code).unwrap_or(Code::Decode);
                        Seen::Refused { end, error: Error::new(code, message) }
                    }
                    Err(e) => Seen::Refused { end, error: e },
                };
                if !tell(said) {
                    return;
                }
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

fn count(message: &Message) -> (usize, usize) {
    let redeems = message.outputs.iter().map(|output| match output {
        wire::output::Kind::ChannelRedeem(redeem) => (redeem.redemptions.len(), redeem.claims.len()),
        _ => (0, 0),
    });
    redeems.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// Signs and sends; tries again while that may help.
async fn send(chain: &dyn Chain, end: &EndId, message: &Message, time_ms: u64) -> Result<Outcome> {
    let op = number(message, time_ms);
    loop {
        let sent = async {
            let signed = chain.prepare(op, message).await?;
            chain.broadcast(op, Some(end.channel), &signed.order).await
        };
        match sent.await {
            Err(e) if may_pass(&e) => tokio::time::sleep(POLL).await,
            other => return other,
        }
    }
}

/// The same for the same message at the same time of the log; a later try is another order.
fn number(message: &Message, time_ms: u64) -> OpId {
    let mut hash = Sha256::new().chain_update(b"florin-tower-v1").chain_update(time_ms.to_be_bytes());
    for kind in &message.outputs {
        hash.update(wire::Output { kind: Some(kind.clone()) }.encode_to_vec());
    }
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}
