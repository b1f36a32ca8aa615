//! `florin pbtx status`: an actor and its transactions, as enough authorities agree.

use florin_client::pbtx::{actor_state, order_status};
use florin_client::wallet::{Status, is_decided, state_name};
use florin_core::eosio::public_to_text;
use florin_core::permission::Permission;
use florin_core::wire;
use florin_core::wire::order_status::State;
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use crate::commands::support::fields;
use crate::commands::wallet::{Question, block_on};
use crate::output::Output;

/// Options of `pbtx status`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    question: Question,
    /// Network
    #[arg(value_name = "NETWORK")]
    network_id: u64,
    /// Who acts
    #[arg(value_name = "ACTOR")]
    actor: u64,
    /// Number of a transaction; without it, where the actor's sequence is
    #[arg(value_name = "SEQNUM")]
    seqnum: Option<u32>,
}

/// `pbtx status`.
pub fn run(args: &Args, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    block_on(async {
        let network = args.question.network(&committee);
        // Also says that there is no such network.
        let (actor, agreeing) = actor_state(&network, args.network_id, args.actor).await?;
        let Some(seqnum) = args.seqnum else {
            if !actor.known {
                return Err(unknown(args.network_id, args.actor));
            }
            let mut rows = actor_rows(args.network_id, args.actor, &actor);
            rows.retain(|(name, _)| !matches!(*name, "threshold" | "key"));
            rows.push(("agreeing", format!("{agreeing} of {} authorities", committee.size())));
            let mut value = actor_value(args.network_id, args.actor, &actor);
            (value["agreeing"], value["authorities"]) = (agreeing.into(), committee.size().into());
            out.data(fields(&rows), &value);
            return Ok(());
        };
        let status = order_status(&network, args.network_id, args.actor, seqnum).await?;
        let (rows, mut value) = order(&status);
        (value["network_id"], value["actor"]) = (args.network_id.to_string().into(), args.actor.to_string().into());
        (value["seqnum"], value["authorities"]) = (seqnum.into(), committee.size().into());
        for (name, said) in &status.others {
            out.detail(format_args!("{name}: {said}"));
        }
        let mut all =
            vec![("transaction", format!("network {}, actor {}, seqnum {seqnum}", args.network_id, args.actor))];
        all.extend(rows);
        all.push(("agreeing", format!("{} of {} authorities", status.agreeing, committee.size())));
        out.data(fields(&all), &value);
        Ok(())
    })
}

/// Who was never registered.
pub fn unknown(network_id: u64, actor: u64) -> Error {
    Error::new(Code::UnknownActor, format!("actor {actor} was never registered in network {network_id}"))
}

fn order(status: &Status) -> (Vec<(&'static str, String)>, Value) {
    let said = &status.said;
    let mut rows = vec![("state", state_name(said.state()).to_owned())];
    if !said.order_id.is_empty() {
        rows.push(("sha256", hex::encode(&said.order_id)));
    }
    if matches!(said.state(), State::Ordered | State::Failed) {
        rows.push(("ordered", format!("session {}, unit {}", said.session, said.index)));
    }
    if said.state() == State::Settled && said.calls {
        rows.push(("ordered", "not yet".to_owned()));
    }
    let value = json!({"state": state_name(said.state()), "sha256": hex::encode(&said.order_id),
        "decided": is_decided(said), "session": said.session, "unit": said.index, "agreeing": status.agreeing});
    (rows, value)
}

/// An actor for people.
pub fn actor_rows(network_id: u64, actor: u64, reply: &wire::ActorReply) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("actor", format!("{actor} of network {network_id}")),
        ("state", state(reply).to_owned()),
        ("last seqnum", reply.seqnum.to_string()),
        ("next prev_hash", reply.prev_hash.to_string()),
    ];
    if reply.rotating != 0 {
        rows.push(("new keys", format!("by seqnum {}, when the log has it", reply.rotating)));
    }
    if !reply.pending.is_empty() {
        rows.push(("voted for", format!("{} after that, says one authority", reply.pending.len())));
    }
    if let Ok(permission) = Permission::decode(&reply.permission) {
        rows.push(("threshold", permission.threshold.to_string()));
        let key = |(key, weight): &(_, u32)| format!("{} (weight {weight})", public_to_text(key));
        rows.extend(permission.keys.iter().map(|k| ("key", key(k))));
    }
    rows
}

fn state(reply: &wire::ActorReply) -> &'static str {
    match (reply.known, reply.removed, reply.frozen) {
        (false, _, _) => "unknown",
        (_, true, _) => "removed",
        (_, _, true) => "frozen",
        _ => "registered",
    }
}

/// An actor for programs.
pub fn actor_value(network_id: u64, actor: u64, reply: &wire::ActorReply) -> Value {
    let permission = Permission::decode(&reply.permission).ok();
    let keys: Vec<Value> = (permission.iter().flat_map(|p| &p.keys))
        .map(|(key, weight)| json!({"key": public_to_text(key), "pbtx": key.to_string(), "weight": weight}))
        .collect();
    json!({"network_id": network_id.to_string(), "actor": actor.to_string(), "state": state(reply),
        "seqnum": reply.seqnum, "prev_hash": reply.prev_hash.to_string(), "frozen": reply.frozen,
        "removed": reply.removed, "rotating": reply.rotating, "pending": reply.pending.len(),
        "permission": hex::encode(&reply.permission), "threshold": permission.as_ref().map(|p| p.threshold),
        "keys": keys})
}
