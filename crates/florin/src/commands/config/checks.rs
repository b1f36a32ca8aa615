//! What can be wrong with each kind of file.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use florin_core::Code;
use florin_core::committee::Committee;
use florin_core::limits::{DECIMALS_MAX, ID_MAX};
use florin_core::permission::Permission;
use florin_core::signatures::{AuthorityKey, AuthorityPublicKey};
use florin_node::config::{AuthorityFile, secret};
use florin_node::genesis;
use toml::{Table, Value};

use crate::commands::committee::{assemble::Part, make::check_genesis};
use crate::commands::support::read_text;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Checked and right.
    Ok,
    /// Works, but should not be so.
    Warn,
    /// Wrong.
    Error,
}

impl Level {
    /// As printed.
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// One thing that was checked.
pub struct Line {
    /// How bad.
    pub level: Level,
    /// In which file.
    pub file: PathBuf,
    /// What.
    pub what: String,
    /// Of an error.
    pub code: Option<Code>,
}

/// All of it.
#[derive(Default)]
pub struct Report {
    /// In the order of the checks.
    pub lines: Vec<Line>,
    /// Files that were checked, and what they came to.
    checked: BTreeMap<PathBuf, Option<Committee>>,
}

impl Report {
    /// Checks a file of any kind, once. Gives the committee, if it is the file of one and nothing is wrong.
    pub fn check(&mut self, file: &Path) -> Option<Committee> {
        let path = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        if let Some(known) = self.checked.get(&path) {
            return known.clone();
        }
        let committee = self.check_new(file);
        self.checked.insert(path, committee.clone());
        committee
    }

    fn check_new(&mut self, file: &Path) -> Option<Committee> {
        let text = match read_text(file) {
            Ok(text) => text,
            Err(e) => {
                // The message names the file, and so will the line.
                let found = e.message.rsplit(": ").next().unwrap_or_default().to_owned();
                self.error(file, Code::BadFile, format!("expected a readable text file, found: {found}"));
                return None;
            }
        };
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(e) => {
                self.error(file, Code::BadConfig, format!("expected TOML: {}", one_line(&e)));
                return None;
            }
        };
        if table.contains_key("florin_authority") {
            self.part(file);
        } else if table.contains_key("network") || table.contains_key("authority") {
            return self.committee(file, &text, &table);
        } else if table.contains_key("committee") || table.contains_key("data") {
            self.authority(file, &text);
        } else {
            let found: Vec<&str> = table.keys().map(String::as_str).take(5).collect();
            let message =
                format!("expected a committee file, an authority file or a public part, found the fields {found:?}");
            self.error(file, Code::BadFile, message);
        }
        None
    }

    fn line(&mut self, level: Level, file: &Path, what: String, code: Option<Code>) {
        self.lines.push(Line { level, file: file.to_owned(), what, code });
    }

    fn ok(&mut self, file: &Path, what: impl Into<String>) {
        self.line(Level::Ok, file, what.into(), None);
    }

    fn warn(&mut self, file: &Path, what: impl Into<String>) {
        self.line(Level::Warn, file, what.into(), None);
    }

    fn error(&mut self, file: &Path, code: Code, what: impl Into<String>) {
        self.line(Level::Error, file, what.into(), Some(code));
    }

    fn errors(&self) -> usize {
        self.lines.iter().filter(|l| l.level == Level::Error).count()
    }

    fn expect(&mut self, file: &Path, what: &str, expected: &str, found: impl std::fmt::Display) {
        self.error(file, Code::BadConfig, format!("{what}: expected {expected}, found {found}"));
    }

    fn part(&mut self, file: &Path) {
        match Part::read(file) {
            Err(e) => self.error(file, e.code, one_line(&e.message)),
            Ok(part) => {
                let before = self.errors();
                part.addresses.iter().enumerate().for_each(|(i, a)| self.address(file, &format!("address {i}"), a));
                if self.errors() == before {
                    self.ok(file, format!("{}: {} shards, key {}", part.name, part.addresses.len(), part.key));
                }
            }
        }
    }

    fn committee(&mut self, file: &Path, text: &str, table: &Table) -> Option<Committee> {
        let before = self.errors();
        if let Some(Value::Table(network)) = table.get("network") {
            self.network(file, network);
        }
        let shards = table.get("shards").and_then(Value::as_integer);
        let mut listeners: BTreeMap<&str, usize> = BTreeMap::new();
        let authorities = table.get("authority").and_then(Value::as_array);
        for (i, authority) in authorities.into_iter().flatten().enumerate() {
            let name = authority.get("name").and_then(Value::as_str).unwrap_or("?");
            let at = format!("authority {i} ({name})");
            if let Some(Err(e)) = authority.get("key").and_then(Value::as_str).map(str::parse::<AuthorityPublicKey>) {
                self.error(file, Code::BadConfig, format!("{at}: {}", e.message));
            }
            let Some(addresses) = authority.get("addresses").and_then(Value::as_array) else { continue };
            if shards.is_some_and(|shards| shards != addresses.len() as i64) {
                let expected = format!("one for each of {} shards", shards.unwrap_or_default());
                self.expect(file, &format!("{at}: addresses"), &expected, addresses.len());
            }
            for (shard, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
                self.address(file, &format!("{at}: address of shard {shard}"), address);
                let first = *listeners.entry(address).or_insert(i);
                if first != i {
                    let expected = format!("another than authority {first} has");
                    self.expect(file, &format!("{at}: address of shard {shard}"), &expected, address);
                }
            }
        }
        if self.errors() > before {
            return None;
        }
        match Committee::from_toml(text) {
            Err(e) => {
                self.error(file, e.code, one_line(&e.message));
                None
            }
            Ok(committee) => {
                let (n, f) = (committee.size(), committee.faults());
                let id = hex::encode(committee.id());
                self.ok(file, format!("committee {id}: {n} authorities, survives {f}, {} shards", committee.shards));
                Some(committee)
            }
        }
    }

    fn network(&mut self, file: &Path, network: &Table) {
        let text = |name: &str| network.get(name).and_then(Value::as_str);
        if let Some(id) = text("id")
            && !id.parse::<u64>().is_ok_and(|id| (1..=ID_MAX).contains(&id))
        {
            self.expect(file, "network id", "1 to 2^63 - 1", id);
        }
        if let Some(currency) = text("currency")
            && !((2..=12).contains(&currency.len()) && currency.bytes().all(|b| b.is_ascii_lowercase()))
        {
            self.expect(file, "currency", "2 to 12 letters a-z", format!("{currency:?}"));
        }
        if let Some(decimals) = network.get("decimals").and_then(Value::as_integer)
            && !(0..=i64::from(DECIMALS_MAX)).contains(&decimals)
        {
            self.expect(file, "decimals", &format!("0 to {DECIMALS_MAX}"), decimals);
        }
        if let Some(limit) = text("issuer_limit")
            && !limit.parse::<u64>().is_ok_and(|limit| limit <= ID_MAX)
        {
            self.expect(file, "issuer_limit", "at most 2^63 - 1 minor units", limit);
        }
        if let Some(issuer) = text("issuer") {
            match hex::decode(issuer).map_err(|e| e.to_string()) {
                Err(e) => self.expect(file, "issuer", "hex digits of a permission", e),
                Ok(bytes) => {
                    if let Err(e) = Permission::decode_account(&bytes) {
                        self.error(file, Code::BadConfig, format!("issuer: {e}"));
                    }
                }
            }
        }
        if let Some(hash) = text("genesis_sha256")
            && hex::decode(hash).map_or(0, |h| h.len()) != 32
        {
            self.expect(file, "genesis_sha256", "64 hex digits", hash);
        }
    }

    fn authority(&mut self, file: &Path, text: &str) {
        let parsed: AuthorityFile = match toml::from_str(text) {
            Ok(parsed) => parsed,
            Err(e) => return self.error(file, Code::BadConfig, one_line(&e)),
        };
        let before = self.errors();
        let base = file.parent().unwrap_or(Path::new("."));
        let committee_file = base.join(&parsed.committee);
        let committee = self.check(&committee_file);
        if committee.is_none() && self.errors() == before {
            self.expect(file, "committee", "the path of a committee file", committee_file.display());
        }
        let index = self.key(file, &parsed.key, base, committee.as_ref());
        if let Some(http) = &parsed.http {
            self.address(file, "http", http);
        }
        if let Some(bind) = &parsed.bind
            && (bind.is_empty() || bind.contains(char::is_whitespace) || (bind.contains(':') && !bind.starts_with('[')))
        {
            self.expect(file, "bind", "a host without a port, IPv6 in brackets", format!("{bind:?}"));
        }
        if let Some(committee) = &committee {
            self.genesis(file, parsed.genesis.map(|g| base.join(g)).as_deref(), committee);
            self.data(&base.join(&parsed.data), committee, index);
            if self.errors() == before
                && let Some(index) = index
            {
                let name = &committee.authorities[index as usize].name;
                self.ok(file, format!("{name}, authority {index} of {}", committee.size()));
            }
        }
    }

    /// The authority's index.
    fn key(&mut self, file: &Path, key: &str, base: &Path, committee: Option<&Committee>) -> Option<u32> {
        let holder = match key.strip_prefix("file:") {
            Some(path) => Some(base.join(path)),
            None => (!key.starts_with("env:")).then(|| file.to_owned()),
        };
        if let Some(holder) = holder
            && let Ok(metadata) = holder.metadata()
            && metadata.permissions().mode() & 0o077 != 0
        {
            let mode = metadata.permissions().mode() & 0o777;
            self.warn(&holder, format!("mode of the file with the key: expected 600, found {mode:o}: run chmod 600"));
        }
        let seed = match secret(key, base) {
            Ok(seed) => seed,
            Err(e) => {
                self.error(file, e.code, e.message);
                return None;
            }
        };
        let public = AuthorityKey::from_seed(*seed).public();
        let index = committee?.index_of(&public);
        if index.is_none() {
            self.expect(file, "public key of this authority", "one of the committee file", public);
        }
        index
    }

    fn genesis(&mut self, file: &Path, path: Option<&Path>, committee: &Committee) {
        let expected = committee.network.genesis_hash;
        let none = genesis::hash(None).is_ok_and(|hash| hash == expected);
        let found = match (path, none) {
            (None, true) => return,
            (None, false) => return self.expect(file, "genesis", "the path of the committee's genesis file", "none"),
            (Some(_), true) => {
                return self.warn(file, "genesis: the committee has no genesis file, so this one is not read");
            }
            (Some(path), false) => match genesis::hash(Some(path)) {
                Ok(found) if found != expected => {
                    let expected = hex::encode(expected);
                    return self.expect(path, "sha256 of the genesis file", &expected, hex::encode(found));
                }
                Ok(_) => check_genesis(path, &committee.network).map(|_| path),
                Err(e) => Err(e),
            },
        };
        match found {
            Ok(path) => self.ok(path, "genesis file: the committee's, all lines good"),
            Err(e) => self.error(file, e.code, e.message),
        }
    }

    /// Folders that are there already must be this authority's.
    fn data(&mut self, data: &Path, committee: &Committee, index: Option<u32>) {
        for shard in 0..committee.shards {
            let path = data.join(format!("shard-{shard}/florin-shard.toml"));
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let Ok(table) = text.parse::<Table>() else {
                self.error(&path, Code::StorageCorrupt, "expected TOML, found something else");
                continue;
            };
            let found = table.get("committee").and_then(Value::as_str).unwrap_or("none");
            if found != hex::encode(committee.id()) {
                let what = format!("committee of the folder: expected {}, found {found}", hex::encode(committee.id()));
                self.error(&path, Code::StorageCorrupt, what);
            }
            let found = table.get("authority").and_then(Value::as_integer);
            if let Some(index) = index
                && found != Some(index.into())
            {
                let found = found.map_or("none".into(), |i| i.to_string());
                self.error(
                    &path,
                    Code::StorageCorrupt,
                    format!("authority of the folder: expected {index}, found {found}"),
                );
            }
        }
    }

    fn address(&mut self, file: &Path, what: &str, address: &str) {
        if let Err(e) = check_address(address) {
            self.expect(file, what, e, format!("{address:?}"));
        }
    }
}

/// `host:port` with a port that can be connected to. The error is what is expected instead.
fn check_address(address: &str) -> std::result::Result<(), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("host:port")?;
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err("host:port, an IPv6 host in brackets");
    }
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "/@".contains(c)) {
        return Err("host:port");
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        _ => Err("host:port with a port from 1 to 65535"),
    }
}

/// An error of several lines (as TOML's, with the place) on one.
fn one_line(e: &dyn std::fmt::Display) -> String {
    let text = e.to_string();
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
}
