//! Data folders: accounts, orders, outboxes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use florin_core::address::{Address, hrp_of};
use florin_core::authority::state::{Account, LOG, State, Table, get_record, need_record, order_key};
use florin_core::bitmap::Bitmap;
use florin_core::envelope::Order;
use florin_core::{Code, Error, Result, wire};
use florin_node::storage::Store;
use prost::Message;
use serde_json::json;

use super::WithCommittee;
use super::order::{Money, describe, keys};
use crate::commands::support::{fields, table};
use crate::output::Output;

/// Options of `inspect order`.
#[derive(clap::Args)]
pub struct OrderArgs {
    /// An authority's data folder, or one shard's
    dir: PathBuf,
    /// The payer's actor id
    #[arg(long, requires = "seqnum", required_unless_present = "id")]
    actor: Option<u64>,
    /// Number in the payer's chain
    #[arg(long, requires = "actor")]
    seqnum: Option<u32>,
    /// The order's id, 64 hex digits; looks at all orders
    #[arg(long, conflicts_with_all = ["actor", "seqnum"])]
    id: Option<String>,
    #[command(flatten)]
    with: WithCommittee,
}

/// The folder of the log in an authority's data folder.
const LOG_FOLDER: &str = "log";
/// A file of every shard's folder and of the log's.
const MARK: &str = "florin-shard.toml";

/// The log's folder in an authority's data folder, if it is there.
pub fn log_folder(dir: &Path) -> Option<PathBuf> {
    let folder = dir.join(LOG_FOLDER);
    folder.join(MARK).exists().then_some(folder)
}

/// The shards' folders in an authority's data folder, or the one that was given. Errors: `BAD_FILE`.
pub fn shard_folders(dir: &Path) -> Result<Vec<PathBuf>> {
    if dir.join(MARK).exists() {
        return Ok(vec![dir.to_owned()]);
    }
    let entries = std::fs::read_dir(dir).map_err(|e| Error::new(Code::BadFile, format!("{}: {e}", dir.display())))?;
    let shard = |p: &PathBuf| p.join(MARK).exists() && p.file_name() != Some(OsStr::new(LOG_FOLDER));
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(shard).collect();
    if found.is_empty() {
        let message =
            format!("{}: expected an authority's data folder or one of its shards, found no shard", dir.display());
        return Err(Error::new(Code::BadFile, message));
    }
    // shard-2 before shard-10.
    found.sort_by_key(|p| (p.as_os_str().len(), p.clone()));
    Ok(found)
}

/// The network of the records in a folder; `None` if there are no accounts.
fn network_id(store: &Store) -> Result<Option<u64>> {
    let first = store.scan(Table::Accounts, &[], 1)?;
    Ok(first.first().and_then(|(key, _)| key.first_chunk().map(|id| u64::from_be_bytes(*id))))
}

/// `inspect account`.
pub fn account(dir: &Path, address: &str, money: &Money, out: Output) -> Result<()> {
    let currency = match &money.0 {
        Some(network) => network.currency.clone(),
        None => hrp_of(address)?,
    };
    let text = address;
    let address = Address::from_text(address, &currency)?;
    for folder in shard_folders(dir)? {
        let store = Store::open_read_only(&folder)?;
        let Some(network) = network_id(&store)? else { continue };
        let (account, holding) = Account::load_with_holding(&store, network, &address)?;
        let owns = account.address == Some(address);
        if holding.is_none() && !owns {
            continue;
        }
        let (balance, credits) = holding.map_or((0, 0), |h| (h.balance, h.credits));
        let mut rows = vec![
            ("address", text.to_owned()),
            ("actor", address.actor().to_string()),
            ("shard", store.identity().shard.to_string()),
            ("balance", money.amount(balance)),
            ("credits received", credits.to_string()),
        ];
        // The spending state is that of the address which opened the actor.
        let account = if owns || account.address.is_none() { account } else { Account::default() };
        rows.push(("orders settled", account.seqnum.to_string()));
        rows.push(("prev_hash of the next", format!("{:016x}", account.next_prev_hash())));
        match owns {
            true => rows.push(("permission", keys(&account.permission))),
            false => rows.push(("permission", "not opened yet".into())),
        }
        let pending: Vec<_> = account.pending.iter().zip(account.seqnum + 1..).collect();
        for (p, seqnum) in &pending {
            let order = format!("{seqnum}: {} for {}", hex::encode(&p.order_id), money.amount(p.amount.into()));
            rows.push(("voted for, not settled", order));
        }
        account.early.iter().for_each(|e| rows.push(("certified, waits", e.seqnum.to_string())));
        let value = json!({"address": text, "actor": address.actor().to_string(), "shard": store.identity().shard,
            "balance_minor": balance.to_string(), "credits": credits, "seqnum": account.seqnum,
            "prev_hash": format!("{:016x}", account.next_prev_hash()), "permission": hex::encode(&account.permission),
            "pending": pending.iter().map(|(p, seqnum)| json!({"seqnum": seqnum,
                "order_id": hex::encode(&p.order_id), "amount_minor": p.amount.to_string()})).collect::<Vec<_>>(),
            "waiting": account.early.iter().map(|e| e.seqnum).collect::<Vec<_>>()});
        out.data(fields(&rows), &value);
        return Ok(());
    }
    Err(Error::new(Code::UnknownActor, format!("{}: nothing is known of {text} there", dir.display())))
}

/// Where an order is: batch, place in it, and what it waits for.
type Place = (u64, u32, &'static str);

/// `inspect order`.
pub fn order(args: OrderArgs, out: Output) -> Result<()> {
    let money = args.with.money()?;
    let id = args.id.as_deref().map(hex::decode).transpose();
    let id = id.map_err(|e| Error::new(Code::Usage, format!("--id: expected 64 hex digits: {e}")))?;
    if id.as_ref().is_some_and(|id| id.len() != 32) {
        return Err(Error::new(Code::Usage, "--id: expected 64 hex digits"));
    }
    for folder in shard_folders(&args.dir)? {
        let store = Store::open_read_only(&folder)?;
        let place = match (&id, args.actor, args.seqnum) {
            (Some(id), ..) => by_id(&store, id)?,
            (None, Some(actor), Some(seqnum)) => by_number(&store, actor, seqnum)?,
            _ => None,
        };
        if let Some(place) = place {
            return show(&store, place, &money, out);
        }
    }
    Err(Error::new(Code::BadFile, format!("{}: there is no such order there", args.dir.display())))
}

fn by_number(store: &Store, actor: u64, seqnum: u32) -> Result<Option<Place>> {
    let Some(network) = network_id(store)? else { return Ok(None) };
    let settled: Option<wire::OrderRecord> = get_record(store, Table::Orders, &order_key(network, actor, seqnum))?;
    if let Some(record) = settled {
        return Ok(Some((record.batch, record.index, "settled")));
    }
    let account = Account::load(store, network, actor)?;
    if let Some(early) = account.early.iter().find(|e| e.seqnum == seqnum) {
        return Ok(Some((early.batch, early.index, "certified, waits for an earlier order")));
    }
    let ahead = seqnum.checked_sub(account.seqnum + 1).and_then(|i| account.pending.get(i as usize));
    Ok(ahead.map(|p| (p.batch, p.index, "voted for, not settled")))
}

fn by_id(store: &Store, id: &[u8]) -> Result<Option<Place>> {
    let corrupt =
        |table: Table, e: prost::DecodeError| Error::new(Code::StorageCorrupt, format!("{}: {e}", table.name()));
    for entry in store.iterate(Table::Orders) {
        let record = wire::OrderRecord::decode(entry?.1).map_err(|e| corrupt(Table::Orders, e))?;
        if record.order_id.as_ref() == id {
            return Ok(Some((record.batch, record.index, "settled")));
        }
    }
    for entry in store.iterate(Table::Accounts) {
        let record = wire::AccountRecord::decode(entry?.1).map_err(|e| corrupt(Table::Accounts, e))?;
        if let Some(p) = record.pending.iter().find(|p| p.order_id.as_ref() == id) {
            return Ok(Some((p.batch, p.index, "voted for, not settled")));
        }
    }
    Ok(None)
}

fn show(store: &Store, (batch, index, state): Place, money: &Money, out: Output) -> Result<()> {
    let orders: wire::BatchRecord = need_record(store, Table::Batches, &batch.to_be_bytes())?;
    let raw = orders.orders.get(index as usize).cloned().ok_or_else(|| {
        Error::expected(
            Code::StorageCorrupt,
            &format!("orders in batch {batch}"),
            format!("more than {index}"),
            orders.orders.len(),
        )
    })?;
    let progress: Option<wire::ProgressRecord> = get_record(store, Table::Progress, &batch.to_be_bytes())?;
    let progress = progress.unwrap_or_default();
    let has = |bitmap: &[u8]| Bitmap::parse(bitmap, orders.orders.len()).is_ok_and(|b| b.get(index as usize));
    let votes = progress.certificates.iter().flat_map(|c| &c.votes).filter(|v| has(&v.bitmap)).map(|v| v.authority);
    let mut votes: Vec<u32> = votes.collect();
    votes.sort_unstable();
    votes.dedup();
    let (text, mut value) = describe(&Order::decode(raw)?, money);
    let head = fields(&[
        ("state", state.into()),
        ("shard", store.identity().shard.to_string()),
        ("batch", format!("{batch}, root {}", hex::encode(&progress.root))),
        ("place in it", format!("{index} of {}", orders.orders.len())),
        ("votes of authorities", format!("{votes:?}")),
    ]);
    value["state"] = state.into();
    value["shard"] = store.identity().shard.into();
    value["batch"] = json!({"number": batch, "root": hex::encode(&progress.root), "index": index,
        "count": orders.orders.len(), "votes": votes});
    out.data(format_args!("{head}\n\n{text}"), &value);
    Ok(())
}

/// `inspect outbox`.
pub fn outbox(dir: &Path, money: &Money, out: Output) -> Result<()> {
    let mut rows = vec![["from", "to", "sequence", "credits", "amount", "calls and steps"].map(str::to_owned).to_vec()];
    let mut values = Vec::new();
    for folder in shard_folders(dir)?.into_iter().chain(log_folder(dir)) {
        let store = Store::open_read_only(&folder)?;
        let from = store.identity().shard;
        for entry in store.iterate(Table::Outbox) {
            let (key, value) = entry?;
            let delivery = wire::Delivery::decode(value)
                .map_err(|e| Error::new(Code::StorageCorrupt, format!("outbox {}: {e}", hex::encode(&key))))?;
            let amount: i128 = delivery.credits.iter().map(|c| i128::from(c.amount)).sum();
            let name = |shard: u32| if shard == LOG { "log".to_owned() } else { shard.to_string() };
            let numbers = [name(from), name(delivery.to_shard), delivery.sequence.to_string()];
            let more = (delivery.calls.len() + delivery.steps.len()).to_string();
            let sums = [delivery.credits.len().to_string(), money.amount(amount), more];
            rows.push(numbers.into_iter().chain(sums).collect());
            values.push(json!({"from": from, "to": delivery.to_shard, "sequence": delivery.sequence,
                "credits": delivery.credits.len(), "calls": delivery.calls.len(), "steps": delivery.steps.len(), "amount_minor": amount.to_string()}));
        }
    }
    let text = if values.is_empty() { "nothing is on its way".into() } else { table(&rows) };
    out.data(text, &json!({"deliveries": values}));
    Ok(())
}
