//! What the log has for the shards of its authority, delivered in its order.

use std::sync::Arc;
use std::time::Duration;

use florin_core::authority::effect::Reply;
use florin_core::authority::input::Input;
use florin_core::ordered::input::Input as LogInput;
use florin_core::wire::{Delivery, DeliveryReply};
use florin_core::{Code, Error, Result};
use florin_rpc::errors::from_status;
use florin_rpc::services::peer_service_client::PeerServiceClient;
use futures::future::join_all;
use tonic::transport::Channel;
use tracing::{debug, warn};

use crate::log::LogShell;
use crate::shard::Shard;

/// Deliveries under way to one shard.
const WINDOW: u64 = 64;
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The way from the log to a shard of its authority.
pub enum StepRoute {
    /// In this process.
    Local(Arc<Shard>),
    /// In another process of the same operator.
    Remote(PeerServiceClient<Channel>),
}

impl StepRoute {
    async fn deliver(&self, delivery: Delivery) -> Result<DeliveryReply> {
        match self {
            StepRoute::Local(shard) => match shard.handle_own(Input::Deliver(delivery)).await? {
                Reply::Deliver(reply) => Ok(reply),
                other => Err(Error::expected(Code::Io, "reply to a delivery", "Deliver", format!("{other:?}"))),
            },
            StepRoute::Remote(client) => {
                client.clone().deliver(delivery).await.map(tonic::Response::into_inner).map_err(from_status)
            }
        }
    }
}

/// Delivers whatever the log has for a shard, for ever.
pub async fn pump(shell: Arc<LogShell>, to_shard: u32, route: StepRoute) {
    let mut changes = shell.outbox_changes();
    let mut delay = RETRY_MIN;
    loop {
        changes.mark_unchanged();
        match drain(&shell, to_shard, &route).await {
            Ok(()) => {
                delay = RETRY_MIN;
                if changes.changed().await.is_err() {
                    return;
                }
            }
            Err(e) => {
                match delay == RETRY_MAX {
                    true => warn!(to = to_shard, "steps of the log wait: {e}"),
                    false => debug!(to = to_shard, "steps of the log wait: {e}"),
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn drain(shell: &LogShell, to_shard: u32, route: &StepRoute) -> Result<()> {
    loop {
        let (next, sent) = shell.log().outbox_range(shell.store(), to_shard)?;
        if next > sent {
            return Ok(());
        }
        // Only what is durable leaves.
        shell.barrier().await?;
        let mut under_way = Vec::new();
        for sequence in next..=sent.min(next + WINDOW) {
            under_way.push(route.deliver(shell.log().outbox(shell.store(), to_shard, sequence)?));
        }
        // Polled in order, so they arrive in order at a shard of this process; elsewhere what overtakes is refused.
        let mut failed = None;
        let mut applied = 0;
        for reply in join_all(under_way).await {
            match reply {
                Ok(reply) => applied = applied.max(reply.applied),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        if applied >= next {
            shell.handle(LogInput::Delivered { to_shard, applied }).await?;
        } else if let Some(e) = failed {
            return Err(e);
        }
    }
}
