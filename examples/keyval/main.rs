//! PBTX's example listener: key/value pairs that the actors of a network set and delete. `README.md` shows it.
//!
//! Pairs and the listener's cursor are entries of one file, and a transaction's pair is stored with what says that the
//! transaction is done, in one write. So each counts once, wherever this or an authority crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use florin_client::listener::{APPLICATION, Change, Cursor, FileCursor, Listener, Options};
use florin_client::network::{Network, Patience};
use florin_node::config::read_committee;
use prost::Message;

/// Bytes of a value.
const VALUE_MAX: usize = 1_024;
const USAGE: &str = "usage: keyval content set KEY VALUE | content del KEY | run COMMITTEE NETWORK FILE | show FILE";

#[derive(Clone, PartialEq, Message)]
struct Command {
    #[prost(uint32, tag = "1")]
    key: u32,
    #[prost(oneof = "Cmd", tags = "2, 3")]
    cmd: Option<Cmd>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Cmd {
    #[prost(message, tag = "2")]
    Set(SetEntry),
    #[prost(message, tag = "3")]
    Del(DelEntry),
}

#[derive(Clone, PartialEq, Message)]
struct SetEntry {
    #[prost(string, tag = "1")]
    val: String,
}

#[derive(Clone, PartialEq, Message)]
struct DelEntry {}

type Pairs = BTreeMap<u32, String>;
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Does what a content says; returns the key, and what was done in words. Its errors are those of the original.
fn apply(content: &[u8], pairs: &mut Pairs) -> Result<(u32, String)> {
    if content.is_empty() {
        return Err("empty transaction_content".into());
    }
    let command = Command::decode(content)?;
    let key = command.key;
    match command.cmd {
        Some(Cmd::Set(SetEntry { val })) if val.len() > VALUE_MAX => {
            Err(format!("a value has at most {VALUE_MAX} bytes, this one {}", val.len()).into())
        }
        Some(Cmd::Set(SetEntry { val })) => {
            let done = format!("set {key} {val:?}");
            pairs.insert(key, val);
            Ok((key, done))
        }
        Some(Cmd::Del(_)) => {
            pairs.remove(&key).ok_or("Entry does not exist")?;
            Ok((key, format!("del {key}")))
        }
        None => Err("Invalid command: 0".into()),
    }
}

/// A pair as an entry of the file, whose empty value takes the key away; so a value begins with `=`.
fn entry(key: u32, pairs: &Pairs) -> Change {
    let value = pairs.get(&key).map(|value| format!("={value}").into_bytes()).unwrap_or_default();
    Change { key: [&[APPLICATION][..], &key.to_be_bytes()].concat(), value }
}

fn pair(change: &Change) -> Option<(u32, String)> {
    let key = change.key.strip_prefix(&[APPLICATION])?.try_into().ok()?;
    let value = String::from_utf8(change.value.strip_prefix(b"=")?.to_vec()).ok()?;
    Some((u32::from_be_bytes(key), value))
}

async fn run(committee: &Path, network_id: u64, file: &Path) -> Result<()> {
    let network = Network::new(Arc::new(read_committee(committee)?), Patience::default());
    let mut cursor = FileCursor::open(file)?;
    let stored = cursor.load()?;
    let mut pairs: Pairs = stored.iter().filter_map(pair).collect();
    let mut listener = Listener::start(network.clone(), network_id, &stored, Options::default()).await?;
    cursor.store(&listener.changes())?;
    println!("ready");
    loop {
        let news = listener.next(256).await;
        news.events.iter().for_each(|event| eprintln!("{}", event.describe(network.committee())));
        let (mut changes, mut keys, mut lines) = (Vec::new(), BTreeSet::new(), Vec::new());
        for delivery in news.deliveries {
            let key = delivery.key();
            // It has settled, and nothing can be done about what is wrong in it.
            let done = apply(&delivery.order.content, &mut pairs).map(|(key, done)| {
                keys.insert(key);
                done
            });
            let done = done.unwrap_or_else(|e| format!("error: {e}"));
            lines.push(format!("{} {}: {done}", key.actor, key.seqnum));
            changes.extend(delivery.changes);
        }
        changes.extend(keys.into_iter().map(|key| entry(key, &pairs)));
        cursor.store(&changes)?;
        lines.iter().for_each(|line| println!("{line}"));
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let content = |key: &str, cmd| Result::Ok(Command { key: key.parse()?, cmd: Some(cmd) }.encode_to_vec());
    match args[..] {
        ["content", "set", _, value] if value.len() > VALUE_MAX => Err("the value is too long".into()),
        ["content", "set", key, value] => {
            println!("{}", hex::encode(content(key, Cmd::Set(SetEntry { val: value.into() }))?));
            Ok(())
        }
        ["content", "del", key] => {
            println!("{}", hex::encode(content(key, Cmd::Del(DelEntry {}))?));
            Ok(())
        }
        ["run", committee, network_id, file] => run(Path::new(committee), network_id.parse()?, Path::new(file)).await,
        ["show", file] => {
            let stored = FileCursor::open(Path::new(file))?.load()?;
            stored.iter().filter_map(pair).for_each(|(key, value)| println!("{key} {value:?}"));
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}
