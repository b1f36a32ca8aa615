//! An actor's change of its own keys: a transaction like any other, which takes effect when the log has it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_client::network::Network;
use florin_client::pbtx::{Pushed, actor_state, next_sequence};
use florin_core::content::{TYPE_ROTATE, encode_rotate};
use florin_core::envelope::{Authority, Body, Order, encode_body, encode_envelope};
use florin_core::eosio::PrivateKey;
use florin_core::permission::Permission;
use florin_core::{Code, Error, Result};
use serde_json::json;

use crate::commands::network::IdArgs;
use crate::commands::pbtx::{describe_permission, exit, pushed};
use crate::commands::support::fields;
use crate::commands::wallet::block_on;
use crate::output::Output;

const PAUSE: Duration = Duration::from_millis(50);

/// Signs and sends it, and waits for the log.
pub fn rotate(id: &IdArgs, permission: &Permission, keys: &[PrivateKey], out: Output) -> Result<()> {
    let (network_id, actor) = (id.network_id, permission.actor);
    let committee = id.call.place.committee()?;
    block_on(async {
        let network = id.call.place.network(&committee);
        let (seqnum, prev_hash) = next_sequence(&network, network_id, actor).await?;
        let generation = actor_state(&network, network_id, actor).await?.0.generation;
        let body = encode_body(&Body {
            network_id,
            actor,
            cosignors: Vec::new(),
            seqnum,
            prev_hash,
            transaction_type: TYPE_ROTATE,
            content: encode_rotate(permission.encode(), generation),
        });
        let signatures: Vec<_> = keys.iter().map(|key| key.signer().sign_body(&body)).collect();
        let order = Order::decode(encode_envelope(&body, &[Authority::of(&signatures)]))?;
        let orders = [order];
        let outcomes = pushed(&network, &id.call.way, id.call.place.timeout(), &orders).await?;
        if !matches!(outcomes[0], Pushed::Settled(_)) {
            exit(&orders, &outcomes, out);
        }
        wait(&network, network_id, &orders[0], &permission.encode(), id.call.wait.wait).await?;
        let (text, described) = describe_permission(permission);
        let rows = [("transaction", format!("seqnum {seqnum}")), ("sha256", hex::encode(orders[0].id))];
        let value = json!({"network_id": network_id.to_string(), "actor": actor.to_string(), "seqnum": seqnum,
            "sha256": hex::encode(orders[0].id), "status": "ordered", "permission": described});
        out.data(format!("{}\n{text}", fields(&rows)), &value);
        Ok(())
    })
}

async fn wait(network: &Network, network_id: u64, order: &Order, new: &Bytes, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let (state, _) = actor_state(network, network_id, order.actor).await?;
        if state.seqnum >= order.seqnum && state.rotating == 0 {
            return match state.permission == new {
                true => Ok(()),
                false => {
                    let message = format!(
                        "the change is settled, and the keys of actor {} are others by now: its admin, or a later \
                         transaction, has changed them",
                        order.actor
                    );
                    Err(Error::new(Code::Undecided, message))
                }
            };
        }
        if Instant::now() >= deadline {
            let message = format!("seqnum {} is settled, and not ordered after {patience:?}; it will be", order.seqnum);
            return Err(Error::new(Code::Timeout, message));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
