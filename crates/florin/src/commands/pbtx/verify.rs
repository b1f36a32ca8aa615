//! `florin pbtx verify`: cases in, verdicts out, by the code that authorities run.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use florin_core::limits::ID_MAX;
use florin_core::network_flags;
use florin_core::permission::Permission;
use florin_core::verdict::{Actor, Network, Verdict};
use florin_core::{Code, Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::commands::support::{read_text, table};
use crate::output::Output;

/// One case; fields that are not listed here are the writer's own.
#[derive(Deserialize)]
struct Case {
    state_before: StateBefore,
    #[serde(flatten)]
    op: Op,
}

#[derive(Deserialize)]
struct StateBefore {
    network_id: Number,
    network_flags: Number,
    actors: Vec<ActorBefore>,
}

/// An actor without `permission_hex`, or with an empty one, was removed.
#[derive(Deserialize)]
struct ActorBefore {
    actor: Number,
    #[serde(default)]
    permission_hex: Option<String>,
    seqnum: Number,
    prev_hash: Number,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Op {
    ExecTrx { transaction_hex: String },
    RegActor { permission_hex: String },
}

/// A number, as a decimal string or as JSON has it.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "Value")]
struct Number(u64);

impl TryFrom<Value> for Number {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Number, String> {
        let number = match &value {
            Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        number.map(Number).ok_or_else(|| format!("expected a number below 2^64 in decimal, found {value}"))
    }
}

impl Number {
    fn as_u32(self, what: &str) -> Result<u32> {
        u32::try_from(self.0).map_err(|_| Error::expected(Code::BadFile, what, "below 2^32", self.0))
    }
}

/// `pbtx verify`.
pub fn run(file: &Path, out: Output) -> Result<()> {
    let text = match file.to_str() {
        Some("-") => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|e| Error::new(Code::BadFile, format!("stdin: {e}")))?;
            text
        }
        _ => read_text(file)?,
    };
    let bad = |e| Error::new(Code::BadFile, format!("{}: expected a JSON array of cases: {e}", file.display()));
    let cases: Vec<Value> = serde_json::from_str(&text).map_err(bad)?;
    let mut verdicts = Vec::with_capacity(cases.len());
    for (i, case) in cases.into_iter().enumerate() {
        let id = case.get("id").cloned().unwrap_or_default();
        if !id.is_string() && !id.is_number() {
            return Err(Error::expected(Code::BadFile, &format!("id of case #{i}"), "a string or a number", id));
        }
        let verdict = judge(case).map_err(|e| Error::new(Code::BadFile, format!("case {id}: {}", e.message)))?;
        verdicts.push((id, verdict));
    }
    let values: Vec<Value> = verdicts.iter().map(|(id, verdict)| value(id, verdict)).collect();
    out.data(people(&verdicts), &Value::Array(values));
    Ok(())
}

fn judge(case: Value) -> Result<Verdict> {
    let bad = |e| Error::new(Code::BadFile, format!("not a case: {e}"));
    let case: Case = serde_json::from_value(case).map_err(bad)?;
    let network = network(&case.state_before)?;
    Ok(match &case.op {
        Op::ExecTrx { transaction_hex } => network.judge_transaction(hex("transaction_hex", transaction_hex)?.into()),
        Op::RegActor { permission_hex } => network.judge_permission(&hex("permission_hex", permission_hex)?),
    })
}

fn network(state: &StateBefore) -> Result<Network> {
    let flags = state.network_flags.as_u32("network_flags")?;
    network_flags::check(flags)?;
    let mut actors = BTreeMap::new();
    for before in &state.actors {
        let id = before.actor.0;
        let about = |e: Error| Error::new(e.code, format!("actor {id}: {e}"));
        let actor = actor(before).map_err(about)?;
        if actors.insert(id, actor).is_some() {
            return Err(Error::new(Code::BadFile, format!("actor {id} is there twice")));
        }
    }
    Ok(Network { id: state.network_id.0, flags, actors })
}

fn actor(before: &ActorBefore) -> Result<Actor> {
    let text = before.permission_hex.as_deref().unwrap_or_default();
    // No transaction can name an actor above the largest id, so what it may do is of no matter.
    let permission = match text.is_empty() || before.actor.0 > ID_MAX {
        true => None,
        false => Some(Permission::decode_actor(&hex("permission_hex", text)?)?),
    };
    if let Some(other) = permission.as_ref().filter(|p| p.actor != before.actor.0) {
        return Err(Error::expected(Code::BadFile, "actor in permission_hex", before.actor.0, other.actor));
    }
    Ok(Actor { permission, seqnum: before.seqnum.as_u32("seqnum")?, prev_hash: before.prev_hash.0 })
}

fn hex(what: &str, text: &str) -> Result<Vec<u8>> {
    hex::decode(text).map_err(|e| Error::new(Code::BadFile, format!("{what}: expected hex digits: {e}")))
}

fn value(id: &Value, verdict: &Verdict) -> Value {
    match &verdict.next {
        Ok((seqnum, prev_hash)) => json!({"id": id, "verdict": "accept", "code": null, "seqnum": seqnum,
            "prev_hash": prev_hash.to_string()}),
        Err(e) => json!({"id": id, "verdict": "reject", "code": e.code.name(), "seqnum": null, "prev_hash": null}),
    }
}

fn people(verdicts: &[(Value, Verdict)]) -> String {
    let mut rows = vec![["case", "verdict", "seqnum", "prev_hash", ""].map(str::to_owned).to_vec()];
    for (id, verdict) in verdicts {
        let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        rows.push(match &verdict.next {
            Ok((seqnum, prev_hash)) => vec![id, "accept".into(), seqnum.to_string(), prev_hash.to_string()],
            Err(e) => {
                vec![id, e.code.name().into(), String::new(), String::new(), e.message.clone()]
            }
        });
    }
    let accepted = verdicts.iter().filter(|(_, verdict)| verdict.next.is_ok()).count();
    format!("{}\n\n{accepted} accepted, {} rejected", table(&rows), verdicts.len() - accepted)
}
