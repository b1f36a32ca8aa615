//! `florin wallet status`: what became of an order, and the state of an account.

use std::time::Duration;

use florin_client::network::Network;
use florin_client::wallet::{Status, Wallet, is_decided, state_name};
use florin_core::address::Address;
use florin_core::committee::Committee;
use florin_core::envelope::Order;
use florin_core::wire::{self, order_status::State};
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use super::place::{Place, block_on};
use crate::commands::support::fields;
use crate::output::Output;
use florin_client::time::utc;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(500);
/// How often authorities that say different things are asked again, when nobody watches.
const TRIES: usize = 5;

/// Options of `wallet status`.
#[derive(clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    place: Place,
    /// The order's sequence number, or the id of an order that this wallet signed. Without it: the account
    #[arg(value_name = "ORDER|SEQNUM")]
    which: Option<String>,
    /// Account that sent it
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// For an order of somebody else: the actor number or address
    #[arg(long, value_name = "ACTOR|ADDRESS", conflicts_with = "account", requires = "which")]
    from: Option<String>,
    /// Go on until nothing more can happen to the order
    #[arg(long, requires = "which")]
    watch: bool,
}

/// `wallet status`.
pub fn status(args: StatusArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let wallet = args.place.open(&committee)?;
    let own = wallet.address(args.account)?;
    let Some(which) = &args.which else { return account(&args, wallet, &own, out) };
    let actor = match &args.from {
        Some(text) => match text.parse::<u64>() {
            Ok(actor) => actor,
            Err(_) => Address::from_text(text, &committee.network.currency)?.actor(),
        },
        None => own.actor(),
    };
    let mine = args.from.is_none();
    let seqnum = match which.parse::<u32>() {
        Ok(seqnum) => seqnum,
        Err(_) if mine => seqnum_of(&wallet, args.account, which)?,
        Err(_) => return Err(Error::expected(Code::Usage, "order", "a sequence number", format!("{which:?}"))),
    };
    if mine && let Some(said) = wallet.known_status(args.account, seqnum) {
        show(seqnum, &Status { said, agreeing: 0, rivals: Vec::new(), others: Vec::new() }, &committee, out);
        return Ok(());
    }
    // Others may use the wallet while this one watches.
    drop(wallet);
    let status = block_on(async {
        let network = args.place.network(&committee);
        let mut last = None;
        loop {
            let status = ask(&network, actor, seqnum, args.watch, out).await?;
            let now = (status.said.state, status.agreeing);
            if args.watch && last.replace(now) != Some(now) {
                let of = committee.size();
                out.note(format_args!("{}, say {} of {of}", state_name(status.said.state()), status.agreeing));
            }
            if is_decided(&status.said) || !args.watch {
                if mine
                    && let Ok(mut wallet) = args.place.open(&committee)
                    && wallet.account(args.account).unordered.contains(&seqnum)
                {
                    wallet.ordered(&network, args.account, seqnum, |_| ()).await?;
                }
                return Ok(status);
            }
            tokio::time::sleep(PAUSE).await;
        }
    })?;
    show(seqnum, &status, &committee, out);
    Ok(())
}

/// Authorities may be at different points for a moment.
async fn ask(network: &Network, actor: u64, seqnum: u32, watch: bool, out: Output) -> Result<Status> {
    let mut tried = 0;
    loop {
        tried += 1;
        match Wallet::status(network, actor, seqnum).await {
            Err(e) if e.code == Code::Undecided && (watch || tried < TRIES) => out.detail(e),
            Err(e) if e.code == Code::QuorumUnreachable && watch => out.detail(e),
            answer => return answer,
        }
        tokio::time::sleep(PAUSE / 2).await;
    }
}

fn seqnum_of(wallet: &Wallet, account: u32, id: &str) -> Result<u32> {
    let account = wallet.account(account);
    let sent = account.sent.iter().filter_map(|s| Order::decode(s.receipt.transaction.clone()).ok());
    let pending = account.pending.iter().filter_map(|p| p.order().ok());
    let found = sent.chain(pending).find(|o| hex::encode(o.id).eq_ignore_ascii_case(id));
    found.map(|o| o.seqnum).ok_or_else(|| {
        let expected = "a sequence number, or the id of an order that this account has signed";
        Error::expected(Code::Usage, "order", expected, format!("{id:?}"))
    })
}

fn show(seqnum: u32, status: &Status, committee: &Committee, out: Output) {
    let said = &status.said;
    let state = said.state();
    let mut rows = vec![("seqnum", seqnum.to_string())];
    if !said.order_id.is_empty() && (state != State::Pending || status.rivals.len() == 1) {
        rows.push(("order", hex::encode(&said.order_id)));
    }
    rows.push(("state", meaning(said)));
    if matches!(state, State::Ordered | State::Failed) {
        rows.push(("place", format!("session {}, unit {}", said.session, said.index)));
    }
    let failure = Code::from_number(said.code).filter(|_| state == State::Failed);
    if let Some(code) = failure {
        rows.push(("failure", Error::new(code, said.message.clone()).to_string()));
    }
    if status.rivals.len() > 1 {
        rows.push(("locked", "different orders hold the number; if it stays so: florin wallet recover".into()));
        rows.extend(status.rivals.iter().map(|id| ("holds", hex::encode(id))));
    }
    let agreeing = match status.agreeing {
        0 => "as this wallet's journal has it".into(),
        n => format!("{n} of {} authorities", committee.size()),
    };
    rows.push(("agreeing", agreeing));
    for (name, says) in &status.others {
        out.detail(format_args!("{name}: {says}"));
    }
    let others: Vec<Value> = status.others.iter().map(|(n, s)| json!({"authority": n, "says": s})).collect();
    let rivals: Vec<String> = status.rivals.iter().map(hex::encode).collect();
    let value = json!({"seqnum": seqnum, "order_id": hex::encode(&said.order_id), "state": state_name(state),
        "decided": is_decided(said), "calls": said.calls, "session": said.session, "unit": said.index,
        "code": said.code, "name": failure.map(Code::name), "message": said.message, "rivals": rivals,
        "agreeing": status.agreeing, "authorities": committee.size(), "others": others});
    out.data(fields(&rows), &value);
}

fn meaning(said: &wire::OrderStatus) -> String {
    let rest = match said.state() {
        State::Unknown => ": no such order is known",
        State::Pending => ": voted for, not certified",
        State::Certified => ": waits for an earlier order of the account",
        State::Settled if said.calls => ": what it takes has left the account; waits for the log",
        State::Settled => "",
        State::Ordered => ": the log has done it",
        State::Failed => ": the log has refused it, and what it took is refunded",
        State::Void => ": a recovery has voided the number; nothing of it moved",
    };
    format!("{}{rest}", state_name(said.state()))
}

fn account(args: &StatusArgs, wallet: Wallet, address: &Address, out: Output) -> Result<()> {
    let committee = wallet.committee().clone();
    let state = block_on(async { Wallet::account_state(&args.place.network(&committee), address).await })?;
    let known = wallet.account(args.account);
    let list = |numbers: Vec<u32>| match numbers.is_empty() {
        true => "none".to_owned(),
        false => numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    };
    let pending: Vec<u32> = known.pending.iter().map(|p| p.seqnum).collect();
    let until = known.recovery.as_ref().and_then(|r| r.until_ms);
    let mut rows = vec![
        ("address", address.to_text(&committee.network.currency)),
        ("seqnum", state.seqnum.to_string()),
        ("pending", list(pending.clone())),
        ("wait for the log", list(known.unordered.clone())),
        (
            "last call",
            state.last_call.map_or("they don't agree".into(), |c| if c == 0 { "none".into() } else { c.to_string() }),
        ),
    ];
    let frozen = match (state.frozen, &known.recovery, until) {
        (0, None, _) => "no".to_owned(),
        (0, Some(r), _) => format!("a recovery of seqnum {} is signed: florin wallet recover", r.seqnum),
        (from, _, Some(until)) => {
            format!("from seqnum {from}, until {} of log time: florin wallet recover", utc(until))
        }
        (from, _, None) => format!("from seqnum {from}: florin wallet recover"),
    };
    rows.push(("frozen", frozen));
    if !known.voided.is_empty() {
        rows.push(("void", list(known.voided.clone())));
    }
    rows.push(("agreeing", format!("{} of {} authorities", state.agreeing, committee.size())));
    let value = json!({"account": args.account, "address": address.to_text(&committee.network.currency),
        "seqnum": state.seqnum, "prev_hash": state.prev_hash.to_string(), "pending": pending,
        "unordered": known.unordered, "last_call": state.last_call, "frozen": state.frozen,
        "recovering": known.recovery.as_ref().map(|r| r.seqnum), "until_ms": until, "void": known.voided,
        "agreeing": state.agreeing, "authorities": committee.size()});
    out.data(fields(&rows), &value);
    Ok(())
}
