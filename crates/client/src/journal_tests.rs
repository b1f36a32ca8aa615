//! Crashes at every byte, damage at every byte, two processes, a full disk.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Record {
    Signed { seqnum: u64, body: String },
    Settled(u64),
}

fn signed(seqnum: u64) -> Record {
    Record::Signed { seqnum, body: format!("line\nbreak \" é \u{0} {seqnum}") }
}

type Open = (Journal<Record>, Vec<Record>);

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wallet.journal");
    Place { _folder: folder, path }
}

impl Place {
    fn open(&self) -> Open {
        Journal::open(&self.path).unwrap()
    }

    fn records(&self) -> Vec<Record> {
        self.open().1
    }

    fn refusal(&self) -> Error {
        Journal::<Record>::open(&self.path).unwrap_err()
    }
}

#[test]
fn what_was_appended_is_there_again() {
    let place = place();
    let (mut journal, records) = place.open();
    assert!(records.is_empty());
    journal.append(&[]).unwrap();
    assert_eq!(journal.length(), 0);
    journal.append(&[signed(1), signed(2)]).unwrap();
    journal.append(&[Record::Settled(1)]).unwrap();
    drop(journal);
    let (mut journal, records) = place.open();
    assert_eq!(records, [signed(1), signed(2), Record::Settled(1)]);
    journal.append(&[signed(3)]).unwrap();
    drop(journal);
    assert_eq!(place.records(), [signed(1), signed(2), Record::Settled(1), signed(3)]);
    let text = fs::read_to_string(&place.path).unwrap();
    assert_eq!(text.lines().count(), 3);
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

/// The format on disk: another Florin must read it.
#[test]
fn lines_are_pinned() {
    let place = place();
    let (mut journal, _) = place.open();
    journal.append(&[Record::Settled(1), Record::Settled(2)]).unwrap();
    journal.append(&[Record::Settled(3)]).unwrap();
    let pinned = "{\"sum\":\"3c59c92a17d5af9dbd225434cb99872f\",\"records\":[{\"Settled\":1},{\"Settled\":2}]}\n\
                  {\"sum\":\"2e0ded6e0f3534f83365f439fef3bca6\",\"records\":[{\"Settled\":3}]}\n";
    assert_eq!(fs::read_to_string(&place.path).unwrap(), pinned);
}

#[test]
fn a_crash_at_any_byte_of_an_append_loses_that_append_alone() {
    let place = place();
    let (mut journal, _) = place.open();
    journal.append(&[signed(1), signed(2)]).unwrap();
    let before = journal.length() as usize;
    journal.append(&[signed(3), signed(4)]).unwrap();
    drop(journal);
    let whole = fs::read(&place.path).unwrap();
    for end in before..=whole.len() {
        // Cut, and with the unwritten rest as zeros, as file systems leave it; with or without its last byte.
        let mut zeros = whole.clone();
        zeros[end..].fill(0);
        let mut hole = whole.clone();
        hole[end..whole.len() - usize::from(end < whole.len())].fill(0);
        for (i, torn) in [&whole[..end], &zeros, &hole].into_iter().enumerate() {
            fs::write(&place.path, torn).unwrap();
            let (mut journal, records) = place.open();
            let complete = torn.len() >= whole.len() - 1 && torn[..whole.len() - 1] == whole[..whole.len() - 1];
            if complete && !torn[whole.len() - 1..].contains(&0) {
                assert_eq!(records, [signed(1), signed(2), signed(3), signed(4)], "{i} at {end}");
                assert_eq!(fs::read(&place.path).unwrap(), whole);
            } else {
                assert_eq!(records, [signed(1), signed(2)], "{i} at {end}");
                journal.append(&[signed(3)]).unwrap();
                drop(journal);
                assert_eq!(place.records(), [signed(1), signed(2), signed(3)]);
            }
        }
    }
}

#[test]
fn damage_anywhere_else_is_an_error_that_names_the_line_and_changes_nothing() {
    let place = place();
    let (mut journal, _) = place.open();
    for seqnum in 1..=3 {
        journal.append(&[signed(seqnum)]).unwrap();
    }
    drop(journal);
    let whole = fs::read(&place.path).unwrap();
    for i in 0..whole.len() - 1 {
        let mut damaged = whole.clone();
        damaged[i] ^= 1;
        if damaged[i] == 0 {
            continue;
        }
        fs::write(&place.path, &damaged).unwrap();
        let error = place.refusal();
        assert_eq!(error.code, Code::BadFile);
        let line = 1 + whole[..i].iter().filter(|b| **b == b'\n').count();
        assert!(error.message.contains(&format!("line {line}: ")), "{i}: {error}");
        assert_eq!(fs::read(&place.path).unwrap(), damaged);
    }
}

#[test]
fn removed_moved_and_repeated_lines_are_noticed() {
    let place = place();
    let (mut journal, _) = place.open();
    for seqnum in 1..=3 {
        journal.append(&[signed(seqnum)]).unwrap();
    }
    drop(journal);
    let text = fs::read_to_string(&place.path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for (order, line) in [(&[1, 2][..], 1), (&[0, 2], 2), (&[0, 2, 1], 2), (&[0, 0, 1, 2], 2), (&[0, 1, 2, 2], 4)] {
        fs::write(&place.path, order.iter().map(|i| lines[*i]).collect::<String>()).unwrap();
        let error = place.refusal();
        assert!(error.message.contains(&format!("line {line}: ")), "{order:?}: {error}");
    }
}

#[test]
fn records_of_a_newer_version_are_refused_and_kept() {
    let place = place();
    let (mut newer, _) = Journal::<serde_json::Value>::open(&place.path).unwrap();
    newer.append(&[serde_json::json!({"Settled": 1})]).unwrap();
    newer.append(&[serde_json::json!({"Refunded": 1})]).unwrap();
    drop(newer);
    let before = fs::read(&place.path).unwrap();
    let error = place.refusal();
    assert_eq!(error.code, Code::BadFile);
    assert!(error.message.contains("line 2: its records are unknown"), "{error}");
    assert_eq!(fs::read(&place.path).unwrap(), before);
}

#[test]
fn compact_keeps_only_what_it_is_given_and_goes_on() {
    let place = place();
    let (mut journal, _) = place.open();
    for seqnum in 1..=20 {
        journal.append(&[signed(seqnum), Record::Settled(seqnum)]).unwrap();
    }
    let before = journal.length();
    // A crash left something where the new file goes.
    fs::write(files::beside(&place.path, "new"), b"half").unwrap();
    journal.compact(&[signed(20), signed(21)]).unwrap();
    assert!(journal.length() < before);
    assert_eq!(journal.length(), fs::metadata(&place.path).unwrap().len());
    journal.append(&[Record::Settled(20)]).unwrap();
    assert_eq!(Journal::<Record>::open(&place.path).unwrap_err().code, Code::Busy);
    drop(journal);
    let (mut journal, records) = place.open();
    assert_eq!(records, [signed(20), signed(21), Record::Settled(20)]);
    journal.compact(&[]).unwrap();
    drop(journal);
    assert!(place.records().is_empty());
}

#[test]
fn a_missing_folder_is_named() {
    let place = place();
    let error = Journal::<Record>::open(&place.path.join("nowhere").join("j")).unwrap_err();
    assert_eq!(error.code, Code::BadFile);
    Journal::<Record>::open(Path::new("/")).unwrap_err();
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    let (mut journal, _) = place.open();
    let mode = || fs::metadata(&place.path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    journal.compact(&[signed(1)]).unwrap();
    assert_eq!(mode(), 0o600);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_spoils_nothing() {
    let place = place();
    std::os::unix::fs::symlink("/dev/full", &place.path).unwrap();
    // A device never shows what was written, so only the refusal can be seen here.
    let file = open_file(&place.path).unwrap();
    let lock = Lock::take(&place.path).unwrap();
    let mut journal: Journal<Record> = Journal {
        path: place.path.clone(),
        file,
        length: 0,
        sum: start(),
        broken: false,
        _lock: lock,
        _records: PhantomData,
    };
    let error = journal.append(&[signed(1)]).unwrap_err();
    assert_eq!(error.code, Code::Io);
    // A device cannot be cut back either, so nothing more may be written.
    let error = journal.append(&[signed(1)]).unwrap_err();
    assert!(error.message.contains("earlier write failed"), "{error}");
    journal.compact(&[signed(1)]).unwrap_err();
}

const HOLDER: &str = "FLORIN_TEST_JOURNAL_HOLDER";

/// Not a test by itself: the other process of the next one.
#[test]
fn holder() {
    let Some(path) = std::env::var_os(HOLDER) else { return };
    let (mut journal, _) = Journal::<Record>::open(Path::new(&path)).unwrap();
    journal.append(&[signed(1)]).unwrap();
    println!("\nholding");
    let _ = std::io::stdin().lines().next();
}

#[test]
fn two_processes_take_turns_and_a_killed_one_lets_go() {
    let place = place();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::tests::holder", "--nocapture", "--test-threads=1"])
        .env(HOLDER, &place.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "holding"));
    let error = place.refusal();
    assert_eq!(error.code, Code::Busy);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(place.records(), [signed(1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_appends_come_back(batches in vec(vec(any::<(u64, String)>(), 0..4), 0..6)) {
        let place = place();
        let (mut journal, _) = place.open();
        let mut all = Vec::new();
        for batch in batches {
            let batch: Vec<_> = batch.into_iter().map(|(seqnum, body)| Record::Signed { seqnum, body }).collect();
            journal.append(&batch).unwrap();
            all.extend(batch);
        }
        drop(journal);
        prop_assert_eq!(place.records(), all.clone());
        place.open().0.compact(&all).unwrap();
        prop_assert_eq!(place.records(), all);
    }

    #[test]
    fn any_file_is_answered(bytes: Vec<u8>) {
        let _ = read::<Record>(&bytes);
    }
}
