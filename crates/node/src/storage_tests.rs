//! What an operator may do to a shard's folder, and what a crash or a bad disk may: nothing acknowledged
//! is lost, and what can't be trusted is refused.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use florin_core::address::Address;
use florin_core::authority::state::{Account, Holding, account_key};
use tempfile::TempDir;

use super::*;

const COMMITTEE: [u8; 32] = [7; 32];
/// Set in a child: the folder that it is to write to.
const CHILD: &str = "FLORIN_TEST_STORE";

/// A child shares its parent's file locks until it executes, so no folder is opened in between.
static STARTING: RwLock<()> = RwLock::new(());

fn open(dir: &Path) -> Result<Store> {
    open_as(dir, 2, COMMITTEE, 3)
}

fn open_as(dir: &Path, shard: u32, committee: [u8; 32], authority: u32) -> Result<Store> {
    let _none = STARTING.read().unwrap();
    Store::open(dir, shard, committee, authority, true)
}

fn look(dir: &Path) -> Result<Store> {
    let _none = STARTING.read().unwrap();
    Store::open_read_only(dir)
}

fn put(table: Table, key: u64, value: &[u8]) -> Write {
    Write::put(table, key.to_be_bytes(), value)
}

fn code<T>(result: Result<T>) -> Code {
    result.err().expect("must fail").code
}

fn all(store: &Store, table: Table) -> Vec<(Bytes, Bytes)> {
    store.iterate(table).collect::<Result<_>>().unwrap()
}

/// A folder with one acknowledged write for each key below `count`.
fn folder(count: u64) -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    for key in 0..count {
        store.write(&[put(Table::Accounts, key, b"here")]).unwrap();
        store.sync().unwrap();
    }
    dir
}

fn newest_segment(dir: &Path) -> PathBuf {
    let log = dir.join("log");
    log.join(format!("{:012}.log", log::segments(&log).unwrap().last().unwrap()))
}

/// Bytes that look random, the same on every run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn reads_what_was_written_through_flushes_merges_and_reopening() {
    let dir = TempDir::new().unwrap();
    let mut model: BTreeMap<(usize, Vec<u8>), Vec<u8>> = BTreeMap::new();
    for round in 0..3u64 {
        let store = open(dir.path()).unwrap();
        for step in 0..120u64 {
            let mut writes = Vec::new();
            for n in 0..40u64 {
                let dice = noise(round * 1_000_000 + step * 1_000 + n, 8);
                let table = Table::ALL[dice[0] as usize % 3];
                // Of all lengths around 16, where keys are compared in two parts, and with zeros at the end.
                let mut key = vec![dice[1] % 3; dice[2] as usize % 20 + 1];
                key.extend(vec![0; dice[3] as usize % 3]);
                if dice[4] < 60 {
                    model.remove(&(table as usize, key.clone()));
                    writes.push(Write::delete(table, key));
                } else {
                    let value = noise(n + step, if dice[4] > 250 { 20_000 } else { dice[5] as usize });
                    model.insert((table as usize, key.clone()), value.clone());
                    writes.push(Write::put(table, key, value));
                }
            }
            store.write(&writes).unwrap();
            if step % 40 == 39 {
                check_against(&store, &model);
            }
        }
        store.sync().unwrap();
        assert!(store.disk_bytes() > 0);
    }
    check_against(&open(dir.path()).unwrap(), &model);
    let flushed = folder::read_checkpoint(dir.path()).unwrap();
    assert!(flushed > Some(10), "the test must have gone through flushes: {flushed:?}");
}

fn check_against(store: &Store, model: &BTreeMap<(usize, Vec<u8>), Vec<u8>>) {
    for table in Table::ALL {
        let expected: Vec<_> =
            model.iter().filter(|e| e.0.0 == table as usize).map(|(k, v)| (&k.1[..], &v[..])).collect();
        let entries = all(store, table);
        assert!(entries.iter().map(|(k, v)| (&k[..], &v[..])).eq(expected.iter().copied()), "{table:?}");
        for (key, value) in &expected {
            assert_eq!(store.get(table, key).unwrap().as_deref(), Some(*value));
        }
        if let [_, (from, _), .., (to, _)] = expected[..] {
            let range = store.range(table, from, Some(to), 5).unwrap();
            let end = (expected.len() - 1).min(6);
            assert!(range.iter().map(|e| &e.0[..]).eq(expected[1..end].iter().map(|e| e.0)));
        }
    }
    assert_eq!(store.get(Table::Accounts, b"unknown").unwrap(), None);
}

/// Writes one number after the other to two tables and says which ones are durable. Runs in a child.
fn write_until_stopped(dir: &Path) -> Error {
    let store = open(dir).unwrap();
    let first = store.iterate(Table::Accounts).count() as u64;
    for number in first.. {
        let writes = [put(Table::Accounts, number, &[1; 300]), put(Table::Meta, number, &[2; 300])];
        if let Err(error) = store.write(&writes).and_then(|()| store.sync()) {
            // Whatever is tried then fails the same way, and what is there can still be read.
            assert_eq!(store.write(&writes), Err(error.clone()));
            assert_eq!(store.sync(), Err(error.clone()));
            assert!(number == 0 || store.get(Table::Meta, &(number - 1).to_be_bytes()).unwrap().is_some());
            return error;
        }
        println!("durable {number}");
    }
    unreachable!("until stopped")
}

/// This test binary again, running one test that then acts as the child; `prefix` is shell that comes first.
fn child(test: &str, dir: &Path, prefix: &str) -> Child {
    let exe = std::env::current_exe().unwrap();
    let _starting = STARTING.write().unwrap();
    Command::new("sh")
        .args(["-c", &format!("{prefix} exec \"$0\" \"$@\"")])
        .arg(exe)
        .args(["--exact", "--nocapture", "--test-threads=1", &format!("storage::tests::{test}")])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn durable_lines(child: &mut Child) -> impl Iterator<Item = u64> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(|l| l.ok());
    lines.filter_map(|l| l.split_once("durable ")?.1.parse().ok())
}

/// Both tables hold the same numbers, from 0 on, up to the last durable one at least.
fn assert_nothing_lost(dir: &Path, last_durable: u64) {
    let store = open(dir).unwrap();
    let keys = |table| all(&store, table).into_iter().map(|e| e.0).collect::<Vec<_>>();
    let accounts = keys(Table::Accounts);
    assert_eq!(accounts, keys(Table::Meta), "half a write is visible");
    assert!(accounts.len() as u64 > last_durable, "{last_durable} was acknowledged, {} are there", accounts.len());
    assert!(accounts.iter().enumerate().all(|(at, key)| key[..] == (at as u64).to_be_bytes()));
}

#[test]
fn kill_9_loses_nothing_that_sync_acknowledged() {
    if let Ok(dir) = std::env::var(CHILD) {
        panic!("{}", write_until_stopped(Path::new(&dir)));
    }
    let dir = TempDir::new().unwrap();
    // Enough for several flushes: the kill hits at any of their steps.
    for stop_after in [1, 130, 65, 200, 3, 111] {
        let mut child = child("kill_9_loses_nothing_that_sync_acknowledged", dir.path(), "");
        let mut lines = durable_lines(&mut child);
        let mut last = lines.by_ref().nth(stop_after).expect("the child writes");
        child.kill().unwrap();
        last = lines.last().unwrap_or(last);
        child.wait().unwrap();
        assert_nothing_lost(dir.path(), last);
    }
}

#[test]
fn full_disk_stops_writing_and_loses_nothing() {
    if let Ok(dir) = std::env::var(CHILD) {
        let error = write_until_stopped(Path::new(&dir));
        println!("\nfailed with {}", error.code.name());
        return;
    }
    // The largest size of a file, in blocks of 512 or 1,024 bytes, stands for the size of the disk: too
    // small for the log, and large enough for the log but not for what merges make of it.
    for blocks in [40, 160] {
        let dir = TempDir::new().unwrap();
        drop(open(dir.path()).unwrap());
        let limit = format!("trap '' XFSZ; ulimit -f {blocks};");
        let output = child("full_disk_stops_writing_and_loses_nothing", dir.path(), &limit).wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("failed with STORAGE_FULL"), "{text}");
        let last = text.lines().filter_map(|l| l.split_once("durable ")?.1.parse().ok()).next_back();
        assert_nothing_lost(dir.path(), last.expect("some fit"));
    }
}

#[test]
fn folder_of_another_is_refused() {
    let dir = folder(1);
    let other = |shard, committee, authority| open_as(dir.path(), shard, committee, authority).err().expect("refused");
    let error = other(2, [8; 32], 3);
    assert_eq!(error.code, Code::StorageCorrupt);
    assert!(error.message.contains(&"08".repeat(32)) && error.message.contains(&"07".repeat(32)), "{error}");
    assert!(other(1, COMMITTEE, 3).message.contains("another shard: expected 1, found 2"));
    assert!(other(2, COMMITTEE, 0).message.contains("another authority: expected 0, found 3"));
    assert_nothing_lost_in(dir.path(), 1);
}

/// All numbers below `count` are there.
fn assert_nothing_lost_in(dir: &Path, count: u64) {
    let store = open(dir).unwrap();
    assert!((0..count).all(|key| store.get(Table::Accounts, &key.to_be_bytes()).unwrap().is_some()));
}

#[test]
fn newer_format_is_refused() {
    let dir = folder(1);
    let path = dir.path().join("florin-shard.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("format = 3", "format = 4").replace("shard = 2", "shard = \"new\"")).unwrap();
    let error = open(dir.path()).err().expect("refused");
    assert_eq!(error.code, Code::StorageVersion);
    assert!(error.message.contains("expected 3, found 4"));
    fs::write(&path, "nonsense").unwrap();
    assert_eq!(code(open(dir.path())), Code::StorageCorrupt);
}

#[test]
fn folder_in_use_is_refused() {
    let dir = folder(1);
    let store = open(dir.path()).unwrap();
    let clone = store.clone();
    drop(store);
    assert_eq!(code(open(dir.path())), Code::StorageBusy);
    assert_eq!(code(look(dir.path())), Code::StorageBusy);
    drop(clone);
    assert_nothing_lost_in(dir.path(), 1);
}

#[test]
fn what_is_no_shard_is_refused() {
    let dir = TempDir::new().unwrap();
    assert_eq!(code(Store::open(dir.path(), 0, COMMITTEE, 0, false)), Code::BadFile);
    assert_eq!(code(look(dir.path())), Code::BadFile);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "looking left something");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(code(open(&file)), Code::StorageFailed);
}

#[test]
fn read_only_sees_everything_and_changes_nothing() {
    let dir = folder(2);
    let segment = newest_segment(dir.path());
    fs::OpenOptions::new().append(true).open(&segment).unwrap().write_all(b"torn").unwrap();
    let before = fs::read(&segment).unwrap();
    let store = look(dir.path()).unwrap();
    assert_eq!(store.identity(), Identity { committee_id: COMMITTEE, authority: 3, shard: 2 });
    assert_eq!(all(&store, Table::Accounts).len(), 2);
    assert_eq!(code(store.write(&[put(Table::Accounts, 9, b"")])), Code::StorageFailed);
    assert_eq!(code(store.merge_accounts()), Code::StorageFailed);
    drop(store);
    assert_eq!(fs::read(&segment).unwrap(), before);
}

#[test]
fn limits_of_a_write_leave_the_store_usable() {
    let dir = folder(0);
    let store = open(dir.path()).unwrap();
    for key in [Vec::new(), vec![1; 65_536]] {
        let writes = [put(Table::Meta, 1, b""), Write::put(Table::Meta, key, "")];
        assert_eq!(code(store.write(&writes)), Code::Limit);
    }
    assert_eq!(all(&store, Table::Meta), []);
    let twice = [put(Table::Meta, 1, b"a"), put(Table::Meta, 1, b"b"), Write::put(Table::Meta, vec![9; 65_535], "")];
    store.write(&twice).unwrap();
    store.sync().unwrap();
    assert_eq!(store.get(Table::Meta, &1u64.to_be_bytes()).unwrap().as_deref(), Some(&b"b"[..]));
}

#[test]
fn torn_tail_is_cut_off_and_writing_goes_on() {
    let dir = folder(2);
    let segment = newest_segment(dir.path());
    let whole = fs::read(&segment).unwrap();
    open(dir.path()).unwrap().write(&[put(Table::Accounts, 2, b"not synced")]).unwrap();
    let more = fs::read(&segment).unwrap();
    assert!(more.starts_with(&whole) && more.len() > whole.len());
    for len in whole.len()..more.len() {
        // The end missing, or the file long enough and the end never written.
        let mut zeros = more[..len].to_vec();
        zeros.resize(more.len() + 4_096, 0);
        for torn in [&more[..len], &zeros[..]] {
            fs::write(&segment, torn).unwrap();
            // Zeros may also be the padding that belongs there.
            let expected = if torn.starts_with(&more) { 3 } else { 2 };
            assert_eq!(all(&look(dir.path()).unwrap(), Table::Accounts).len(), expected);
        }
    }
    fs::write(&segment, &more[..more.len() - 9]).unwrap();
    let store = open(dir.path()).unwrap();
    store.write(&[put(Table::Accounts, 2, b"again")]).unwrap();
    store.sync().unwrap();
    drop(store);
    assert_nothing_lost_in(dir.path(), 3);
}

#[test]
fn unsynced_frames_may_reach_the_disk_in_any_order() {
    let dir = folder(1);
    let store = open(dir.path()).unwrap();
    let segment = newest_segment(dir.path());
    let at = fs::metadata(&segment).unwrap().len() as usize;
    store.write(&[put(Table::Accounts, 1, b"lost")]).unwrap();
    store.write(&[put(Table::Accounts, 2, b"there, but its predecessor isn't")]).unwrap();
    drop(store);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[at..at + 40].fill(0);
    fs::write(&segment, bytes).unwrap();
    assert_eq!(all(&open(dir.path()).unwrap(), Table::Accounts).len(), 1);
}

#[test]
fn damage_to_acknowledged_frames_is_never_taken_for_a_torn_tail() {
    let dir = folder(3);
    let segment = newest_segment(dir.path());
    let intact = fs::read(&segment).unwrap();
    // The frame after them that tells that they were durable.
    let store = open(dir.path()).unwrap();
    store.write(&[put(Table::Meta, 0, b"")]).unwrap();
    drop(store);
    let whole = fs::read(&segment).unwrap();
    for at in 0..intact.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&segment, bytes).unwrap();
        match look(dir.path()) {
            Err(e) => assert_eq!(e.code, Code::StorageCorrupt, "byte {at}"),
            // A byte of padding.
            Ok(store) => assert_eq!(all(&store, Table::Accounts).len(), 3, "byte {at}"),
        }
    }
    fs::write(&segment, &whole).unwrap();
    assert_nothing_lost_in(dir.path(), 3);
    fs::remove_file(&segment).unwrap();
    assert_eq!(code(open(dir.path())), Code::StorageCorrupt);
}

/// A folder whose data is mostly in the trees.
fn flushed_folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    for key in 0..400 {
        store.write(&[put(Table::Accounts, key, &noise(key, 400))]).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    assert!(folder::read_checkpoint(dir.path()).unwrap() > Some(0));
    dir
}

#[test]
fn damage_in_the_trees_is_an_error_and_never_a_wrong_value() {
    let dir = flushed_folder();
    let tables = dir.path().join("tables/accounts/tables");
    let file = fs::read_dir(tables).unwrap().next().unwrap().unwrap().path();
    let intact = fs::read(&file).unwrap();
    let mut noticed = 0;
    for at in (0..intact.len()).step_by(intact.len() / 40) {
        let mut bytes = intact.clone();
        bytes[at] ^= 0x55;
        fs::write(&file, bytes).unwrap();
        let read = look(dir.path()).and_then(|s| s.iterate(Table::Accounts).collect::<Result<Vec<_>>>());
        match read {
            Err(e) => {
                assert_eq!(e.code, Code::StorageCorrupt, "byte {at}: {e}");
                noticed += 1;
            }
            Ok(entries) => {
                assert_eq!(entries.len(), 400);
                let right = |(at, entry): (usize, &(Bytes, Bytes))| entry.1[..] == noise(at as u64, 400)[..];
                assert!(entries.iter().enumerate().all(right), "byte {at}");
            }
        }
    }
    assert!(noticed > 20, "{noticed}");
    fs::write(&file, &intact).unwrap();
    assert_nothing_lost_in(dir.path(), 400);
}

#[test]
fn missing_parts_are_noticed() {
    for part in ["tables/accounts/current", "tables/orders", "log", "checkpoint"] {
        let dir = flushed_folder();
        let path = dir.path().join(part);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        assert_eq!(code(open(dir.path())), Code::StorageCorrupt, "without {part}");
    }
    let dir = flushed_folder();
    fs::write(dir.path().join("checkpoint"), "flushed 999 0123456789abcdef\n").unwrap();
    assert_eq!(code(open(dir.path())), Code::StorageCorrupt);
}

#[test]
fn several_threads_write_sync_and_read() {
    let dir = folder(0);
    let store = open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let store = store.clone();
            scope.spawn(move || {
                for n in 0..100 {
                    let key = n * 4 + thread;
                    store.write(&[put(Table::Accounts, key, &noise(key, 500))]).unwrap();
                    store.sync().unwrap();
                    assert_eq!(
                        store.get(Table::Accounts, &key.to_be_bytes()).unwrap().as_deref(),
                        Some(&noise(key, 500)[..])
                    );
                }
            });
        }
    });
    drop(store);
    assert_nothing_lost_in(dir.path(), 400);
}

/// An account of a usual shape: its balance is the number that is written.
fn account(actor: u64, balance: u64) -> Write {
    let mut address = [9; 32];
    address[..8].copy_from_slice(&actor.to_be_bytes());
    let address = Address::new(address);
    let holdings = vec![Holding { address, balance: balance.into(), credits: 1, newest: (balance, 0) }];
    let account = Account { holdings, address: Some(address), permission: vec![7; 40].into(), ..Account::default() };
    Write::put(Table::Accounts, account_key(1, actor), account.encode())
}

/// Through both ways of reading, which must agree.
fn balance(store: &Store, actor: u64) -> Option<u64> {
    let key = account_key(1, actor);
    let mut looked = None;
    assert_eq!(
        store.look(Table::Accounts, &key, &mut |bytes| looked = Some(bytes.to_vec())).unwrap(),
        looked.is_some()
    );
    assert_eq!(store.get(Table::Accounts, &key).unwrap().as_deref(), looked.as_deref());
    let account = Account::load(store, 1, actor).unwrap();
    account.holdings.first().map(|holding| holding.balance as u64)
}

/// Each account alone, and all at once with some that nobody has.
fn check_balances(store: &Store, model: &BTreeMap<u64, Option<u64>>) {
    assert!(model.iter().all(|(actor, expected)| balance(store, *actor) == *expected));
    let keys: Vec<[u8; 16]> = model.keys().copied().chain(5_000..5_100).map(|actor| account_key(1, actor)).collect();
    let mut found = vec![None; keys.len()];
    let mut look = |i: usize, record: &[u8]| assert_eq!(found[i].replace(record.to_vec()), None, "shown once");
    store.look_accounts(&keys, &mut look).unwrap();
    for (key, found) in keys.iter().zip(found) {
        assert_eq!(store.get(Table::Accounts, key).unwrap().map(Vec::from), found);
    }
}

#[test]
fn accounts_in_memory_are_those_of_the_tables() {
    for bytes in [ACCOUNTS_BYTES, (64 * 17) << 10, 0] {
        let dir = TempDir::new().unwrap();
        let mut model = BTreeMap::new();
        let mut numbers = AccountsMemory::default();
        for round in 0..3u64 {
            let store = open(dir.path()).unwrap();
            store.keep_accounts(bytes);
            for step in 0..200u64 {
                let dice =
                    |n: u64| u64::from_be_bytes(noise(round * 1_000_000 + step * 100 + n, 8).try_into().unwrap());
                let writes: Vec<Write> = (0..20)
                    .map(|n| {
                        let (actor, balance) = (dice(n) % 1_500, step + 1);
                        if dice(n).is_multiple_of(31) {
                            model.insert(actor, None);
                            return Write::delete(Table::Accounts, account_key(1, actor));
                        }
                        model.insert(actor, Some(balance));
                        account(actor, balance)
                    })
                    .collect();
                store.write(&writes).unwrap();
                if step % 40 == 39 {
                    check_balances(&store, &model);
                }
            }
            numbers = store.accounts_memory();
        }
        // However slow flushes are: writers wait for them once the log has grown to four times as much.
        assert!(folder::read_checkpoint(dir.path()).unwrap() > Some(4), "the test must have gone through flushes");
        assert_eq!(numbers.found > 0 && numbers.accounts > 0, bytes > 0, "{numbers:?}");
        let store = look(dir.path()).unwrap();
        check_balances(&store, &model);
    }
}

#[test]
fn few_that_pay_leave_the_accounts_of_many_alone() {
    const MANY: u64 = 3_000;
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    let mut model = BTreeMap::new();
    let mut pay = |actors: std::ops::Range<u64>, balance: u64| {
        for chunk in actors.collect::<Vec<_>>().chunks(100) {
            model.extend(chunk.iter().map(|actor| (*actor, Some(balance))));
            store.write(&chunk.iter().map(|actor| account(*actor, balance)).collect::<Vec<_>>()).unwrap();
        }
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let files = |level: usize| store.0.shared.trees.files(Table::Accounts as usize, level);
    let mut balance = 0;
    let mut until = |payers: u64, done: &dyn Fn() -> bool| {
        while !done() {
            assert!(Instant::now() < deadline, "levels: {:?}", (0..=trees::LAST).map(files).collect::<Vec<_>>());
            balance += 1;
            pay(0..payers, balance);
        }
    };
    let flushed = || folder::read_checkpoint(dir.path()).unwrap();
    until(MANY, &|| flushed() > Some(8));
    let before = flushed().map(|segment| segment + 2);
    until(20, &|| flushed() > before);
    store.merge_accounts().unwrap();
    let large = files(trees::LAST);
    let few_merged = || files(trees::LAST - 1);
    until(20, &|| !few_merged().is_empty());
    let first = few_merged();
    until(20, &|| !few_merged().is_empty() && few_merged() != first);
    assert_eq!(files(trees::LAST), large, "twenty accounts that pay have no other rewritten");
    until(MANY, &|| files(trees::LAST) != large);
    check_balances(&store, &model);
}

/// What a reader has seen of an account, or was told that it is written, it never sees undone, whatever is flushed meanwhile.
#[test]
fn readers_of_accounts_never_see_an_older_one() {
    const ACTORS: u64 = 300;
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    let written: Vec<AtomicU64> = (0..ACTORS).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3u64 {
            let (store, written, done) = (store.clone(), &written, &done);
            scope.spawn(move || {
                let mut n = reader;
                while !done.load(Ordering::Acquire) {
                    n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let actor = (n >> 33) % ACTORS;
                    let known = written[actor as usize].load(Ordering::Acquire);
                    let found =
                        Account::load(&store, 1, actor).unwrap().holdings.first().map_or(0, |h| h.balance as u64);
                    assert!(found >= known, "account {actor}: {known} was written, {found} is read");
                    written[actor as usize].fetch_max(found, Ordering::AcqRel);
                }
            });
        }
        for round in 1..60u64 {
            // A part of them each time, so that others are read from below the log's memory, which is 512 KiB at most.
            let actors: Vec<u64> = (0..ACTORS).filter(|actor| (actor + round) % 31 < 2).collect();
            for _ in 0..16 {
                store.write(&actors.iter().map(|actor| account(*actor, round)).collect::<Vec<_>>()).unwrap();
            }
            for actor in actors {
                written[actor as usize].fetch_max(round, Ordering::AcqRel);
            }
        }
        done.store(true, Ordering::Release);
    });
    for (actor, written) in written.iter().enumerate() {
        assert_eq!(balance(&store, actor as u64).unwrap_or(0), written.load(Ordering::Acquire));
    }
    assert!(store.accounts_memory().found > 0, "some were read from memory");
}

/// Numbers of tables are in the log, their names in the folder.
#[test]
fn tables_keep_their_numbers() {
    assert!(Table::ALL.iter().enumerate().all(|(number, table)| *table as usize == number));
    let names = "accounts batches progress roots orders credits settled outbox links cursors meta networks stream notes issued objects sessions units";
    assert_eq!(Table::ALL.map(Table::name).join(" "), names, "a change needs a new format");
}
