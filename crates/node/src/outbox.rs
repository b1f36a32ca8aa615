//! Delivering a shard's credits to the other shards of the same authority, in this process or another.

use std::sync::Arc;
use std::time::Duration;

use florin_core::authority::effect::Reply;
use florin_core::authority::input::Input;
use florin_core::wire::{Delivery, DeliveryReply};
use florin_core::{Code, Error, Result};
use florin_rpc::errors::from_status;
use florin_rpc::services::peer_service_client::PeerServiceClient;
use tonic::transport::Channel;
use tracing::{debug, warn};

use crate::shard::Shard;

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The way to another shard of this authority.
pub enum Route {
    /// In this process.
    Local(Arc<Shard>),
    /// In another process of the same operator.
    Remote(PeerServiceClient<Channel>),
}

impl Route {
    async fn deliver(&mut self, delivery: Delivery) -> Result<DeliveryReply> {
        match self {
            Route::Local(shard) => match shard.handle_own(Input::Deliver(delivery)).await? {
                Reply::Deliver(reply) => Ok(reply),
                other => Err(Error::expected(Code::Io, "reply to a delivery", "Deliver", format!("{other:?}"))),
            },
            Route::Remote(client) => {
                client.deliver(delivery).await.map(tonic::Response::into_inner).map_err(from_status)
            }
        }
    }
}

/// Delivers whatever is in the outbox for `to_shard`, for ever.
pub async fn pump(shard: Arc<Shard>, to_shard: u32, mut route: Route) {
    let mut changes = shard.outbox_changes();
    let mut delay = RETRY_MIN;
    loop {
        changes.mark_unchanged();
        match drain(&shard, to_shard, &mut route).await {
            Ok(()) => {
                delay = RETRY_MIN;
                if changes.changed().await.is_err() {
                    return;
                }
            }
            Err(e) => {
                if delay == RETRY_MAX {
                    warn!(from = shard.authority().shard(), to = to_shard, "credits wait: {e}");
                } else {
                    debug!(from = shard.authority().shard(), to = to_shard, "credits wait: {e}");
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn drain(shard: &Shard, to_shard: u32, route: &mut Route) -> Result<()> {
    // A step may have written entries that are not durable yet. Passing through the queue once waits for
    // the sync that covers everything that is visible now.
    let (mut next, sent) = shard.authority().outbox_range(shard.store(), to_shard)?;
    if next > sent {
        return Ok(());
    }
    shard.barrier().await?;
    while next <= sent {
        let delivery = shard.authority().outbox(shard.store(), to_shard, next)?;
        let applied = route.deliver(delivery).await?.applied;
        if applied < next {
            return Err(Error::expected(
                Code::OutOfOrder,
                &format!("sequence applied by shard {to_shard}"),
                format!("at least {next}"),
                applied,
            ));
        }
        // One that has applied more than was ever sent is refused there: then this folder is an old one.
        shard.handle_own(Input::Delivered { to_shard, applied }).await?;
        next = applied + 1;
    }
    Ok(())
}
