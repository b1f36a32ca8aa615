//! `florin log`: the ordered log, as its quorum has signed it.

use bytes::Bytes;
use clap::Subcommand;
use florin_client::log::Session;
use florin_core::cash::dkg::wire::{self as dkg, DkgItem};
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::wire;
use florin_core::{Code, Error, Result};
use prost::Message;
use serde_json::{Value, json};

use super::support::{fields, table};
use super::wallet::{Question, block_on};
use crate::output::Output;
use florin_client::time::utc;

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Closed sessions, each checked: signatures of a quorum, every unit, and the one before
    Show(ShowArgs),
    /// How far each authority's log is
    Status(StatusArgs),
}

/// Options of `log show`.
#[derive(clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    question: Question,
    /// Only this session
    #[arg(long, value_name = "N")]
    session: Option<u64>,
    /// The newest ones, this many
    #[arg(long, value_name = "K", default_value_t = 5, conflicts_with = "session",
        value_parser = clap::value_parser!(u32).range(1..=256))]
    last: u32,
    /// Show what is in each unit
    #[arg(long)]
    units: bool,
}

/// Options of `log status`.
#[derive(clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    question: Question,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Show(args) => show(args, out),
        Command::Status(args) => status(args, out),
    }
}

/// What one item of a unit says.
enum Content {
    Order { order: Order },
    Report(wire::RecoveryReport),
    NoteReport(wire::NoteReport),
    Dkg(&'static str),
    Unknown,
}

fn contents(unit: &wire::OrderedUnit) -> (u64, Vec<Content>) {
    let Ok(data) = wire::UnitData::decode(unit.data.clone()) else { return (0, vec![Content::Unknown]) };
    let mut found = Vec::new();
    for item in &data.items {
        match wire::Item::decode(item.clone()).ok().and_then(|i| i.kind) {
            Some(wire::item::Kind::Orders(orders)) => {
                for body in orders.bodies {
                    found.push(Order::decode_body(body).map_or(Content::Unknown, |order| Content::Order { order }));
                }
            }
            Some(wire::item::Kind::Report(report)) => found.push(Content::Report(report)),
            Some(wire::item::Kind::Dkg(item)) => found.push(Content::Dkg(step_of(item))),
            Some(wire::item::Kind::NoteReport(report)) => found.push(Content::NoteReport(report)),
            None => found.push(Content::Unknown),
        }
    }
    (data.clock_ms, found)
}

/// What an item of the key generation is.
fn step_of(item: Bytes) -> &'static str {
    match DkgItem::decode(item).ok().and_then(|item| item.kind) {
        Some(dkg::Kind::Announce(_)) => "announce",
        Some(dkg::Kind::Deal(_)) => "deal",
        Some(dkg::Kind::Verdict(_)) => "verdict",
        Some(dkg::Kind::GoOn(_)) => "go on",
        Some(dkg::Kind::Late(_)) => "late complaint",
        Some(dkg::Kind::Reveal(_)) => "reveal",
        Some(dkg::Kind::Confirm(_)) => "confirm",
        None => "nothing",
    }
}

impl Content {
    fn text(&self) -> String {
        match self {
            Content::Order { order } => {
                let kind = match order.transaction_type {
                    florin_core::content::TYPE_CALL => "call",
                    florin_core::content::TYPE_RECOVER => "recover",
                    _ => "order",
                };
                format!("{kind} of actor {}, seqnum {}: {}", order.actor, order.seqnum, hex::encode(order.id))
            }
            Content::Report(r) => format!("report on actor {}, seqnum {}", r.actor, r.seqnum),
            Content::NoteReport(r) => format!("report on note {}", hex::encode(&r.nonce)),
            Content::Dkg(step) => format!("keys of e-cash: {step}"),
            Content::Unknown => "not decodable".into(),
        }
    }

    fn value(&self) -> Value {
        match self {
            Content::Order { order } => json!({"kind": "order", "type": order.transaction_type,
                "actor": order.actor.to_string(), "seqnum": order.seqnum, "order_id": hex::encode(order.id)}),
            Content::Report(r) => json!({"kind": "report", "actor": r.actor.to_string(), "seqnum": r.seqnum}),
            Content::NoteReport(r) => json!({"kind": "note-report", "nonce": hex::encode(&r.nonce)}),
            Content::Dkg(step) => json!({"kind": "dkg", "step": step}),
            Content::Unknown => json!({"kind": "unknown"}),
        }
    }
}

fn show(args: ShowArgs, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    let sessions = block_on(async {
        let network = args.question.network(&committee);
        if let Some(session) = args.session {
            return network.sessions(session, 1).await;
        }
        let replies = network.log_status().await;
        let mut ends: Vec<u64> = replies.iter().flatten().map(|r| r.signed_sessions).collect();
        if ends.is_empty() {
            let message = "no authority says how far its log is";
            return Err(replies.into_iter().find_map(Result::err).unwrap_or(Error::new(Code::Unreachable, message)));
        }
        // Whoever claims more than there is shows nothing there.
        ends.sort_unstable_by(|a, b| b.cmp(a));
        for end in ends {
            let from = end.saturating_sub(args.last.into());
            let sessions = network.sessions(from, args.last).await?;
            if !sessions.is_empty() || end == 0 {
                return Ok(sessions);
            }
        }
        Ok(Vec::new())
    })?;
    if let (Some(session), true) = (args.session, sessions.is_empty()) {
        let expected = "one that is closed and signed by a quorum, see florin log status";
        return Err(Error::expected(Code::Usage, "session", expected, session));
    }
    let text: Vec<String> = sessions.iter().map(|s| text(s, &committee, args.units)).collect();
    let values: Vec<Value> = sessions.iter().map(|s| value(s, &committee, args.units)).collect();
    let text = match text.is_empty() {
        true => "no session is closed and signed by a quorum yet: florin log status".into(),
        false => text.join("\n\n"),
    };
    out.data(text, &json!({"sessions": values}));
    Ok(())
}

fn signers(session: &Session, committee: &Committee) -> Vec<String> {
    let name = |s: &u32| committee.authorities.get(*s as usize).map_or_else(|| s.to_string(), |a| a.name.clone());
    session.signers.iter().map(name).collect()
}

fn counts(session: &Session) -> (usize, usize) {
    let all: Vec<Content> = session.units.iter().flat_map(|u| contents(u).1).collect();
    (all.len(), all.iter().filter(|c| matches!(c, Content::Order { .. })).count())
}

fn text(session: &Session, committee: &Committee, units: bool) -> String {
    let header = &session.header;
    let (items, orders) = counts(session);
    let names = signers(session, committee);
    let rows = [
        ("session", header.session.to_string()),
        ("units", header.units.to_string()),
        ("items", format!("{items}, {orders} of them orders")),
        ("log time", utc(header.time_ms)),
        ("state", hex::encode(&header.state_hash)),
        ("header", hex::encode(session.hash)),
        ("signed by", format!("{} of {}: {}", names.len(), committee.size(), names.join(", "))),
    ];
    let mut text = fields(&rows);
    for (i, unit) in session.units.iter().enumerate().filter(|_| units) {
        let (clock, items) = contents(unit);
        let clock = if clock == 0 { "no clock".into() } else { utc(clock) };
        text.push_str(&format!("\n  unit {i} by authority {}, {clock}", unit.creator));
        items.iter().for_each(|item| text.push_str(&format!("\n    {}", item.text())));
    }
    text
}

fn value(session: &Session, committee: &Committee, units: bool) -> Value {
    let header = &session.header;
    let (items, orders) = counts(session);
    let mut value = json!({"session": header.session, "epoch": header.epoch, "units": header.units, "items": items,
        "orders": orders, "time_ms": header.time_ms, "state_hash": hex::encode(&header.state_hash),
        "header": hex::encode(session.hash), "previous": hex::encode(&header.previous),
        "signers": signers(session, committee), "verified": true});
    if units {
        let all = session.units.iter().map(|unit| {
            let (clock_ms, items) = contents(unit);
            let items: Vec<Value> = items.iter().map(Content::value).collect();
            json!({"creator": unit.creator, "clock_ms": clock_ms, "items": items})
        });
        value["unit_list"] = all.collect();
    }
    value
}

fn status(args: StatusArgs, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    let replies = block_on(async { Ok(args.question.network(&committee).log_status().await) })?;
    let head = ["authority", "session", "units", "signed", "log time", "queued", "state", "fault"];
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).into()];
    let mut values = Vec::new();
    for (authority, reply) in committee.authorities.iter().zip(&replies) {
        let name = authority.name.clone();
        match reply {
            Ok(r) => {
                let state: String = hex::encode(&r.state_hash).chars().take(16).collect();
                rows.push(vec![
                    name.clone(),
                    r.session.to_string(),
                    r.units.to_string(),
                    r.signed_sessions.to_string(),
                    utc(r.time_ms),
                    r.queued.to_string(),
                    state,
                    r.fault.clone(),
                ]);
                values.push(json!({"authority": name, "session": r.session, "units": r.units,
                    "signed_sessions": r.signed_sessions, "time_ms": r.time_ms, "queued": r.queued,
                    "state_hash": hex::encode(&r.state_hash), "last_header": hex::encode(&r.last_header),
                    "peers": r.peers, "fault": r.fault}));
            }
            Err(e) => {
                rows.push(vec![
                    name.clone(),
                    "-".into(),
                    "-".into(),
                    "-".into(),
                    "-".into(),
                    "-".into(),
                    "-".into(),
                    e.to_string(),
                ]);
                values.push(json!({"authority": name, "error": e.to_string()}));
            }
        }
    }
    out.data(table(&rows), &json!({"authorities": values}));
    if replies.iter().all(Result::is_err) {
        return Err(Error::new(Code::QuorumUnreachable, "no authority answers"));
    }
    Ok(())
}
