//! What is on disk, and what ordering engines say to each other.

use std::sync::LazyLock;

use bytes::Bytes;
use florin_client::{journal, keystore, receipt_file};
use florin_core::address::Address;
use florin_core::authority::issued::Issued;
use florin_core::authority::state::Account;
use florin_core::channel::{hub, manager, virtuals};
use florin_core::testing::TestCommittee;
use florin_core::wire;
use florin_node::ordering::inspect;
use prost::Message;
use serde_json::Value;

use crate::cursor::Cursor;

/// Records of the tables: read, written and read again they are the same.
pub fn disk_records(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    macro_rules! records {
        ($($number:literal: $kind:ident),*) => {
            match which % 24 {
                $($number => if let Ok(record) = wire::$kind::decode(rest) {
                    let again = record.encode_to_vec();
                    assert_eq!(again.len(), record.encoded_len());
                    assert_eq!(wire::$kind::decode(&again[..]).as_ref(), Ok(&record));
                },)*
                _ => {}
            }
        };
    }
    records!(1: BatchRecord, 2: ProgressRecord, 3: OrderRecord, 4: CreditsRecord, 5: SettledEntry, 6: Delivery,
        7: TotalsRecord, 8: NetworkShardRecord, 9: StreamRecord, 10: NoteRecord, 11: LogRecord, 12: SessionRecord,
        13: OrderedUnit, 14: CallerRecord, 15: OutcomeRecord, 16: ContractRecord, 17: ChannelRecord, 18: ActorRecord,
        19: NetworkRecord, 20: RecoveryRecord, 21: NoteRecoveryRecord, 22: PrimaryRecord, 23: UnitData);
    // What is no message has a number above those of all messages.
    if *which == u8::MAX
        && let Ok(issued) = Issued::decode(&[], rest)
    {
        assert_eq!(issued.encode().as_deref(), Some(rest), "one encoding for each value");
    }
    if which % 24 == 0
        && let Ok(record) = wire::AccountRecord::decode(rest)
        && let Ok(account) = Account::decode(record)
    {
        let again = account.encode();
        let back = wire::AccountRecord::decode(&again[..]).expect("the hand-made encoder writes records");
        assert_eq!(back.encode_to_vec(), again, "it writes what the generated one does");
        assert_eq!(Account::decode(back), Ok(account));
    }
}

/// Journals: what was read is what was written, and a cut takes the last lines alone.
pub fn journal(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    if how & 1 == 0 {
        let Ok((records, length)) = journal::inspect::<Value>(rest) else { return };
        assert!(length <= rest.len());
        let again = journal::inspect::<Value>(&rest[..length]).expect("whole lines are a journal");
        assert_eq!(again.0, records);
        return;
    }
    // A journal of real lines, cut or damaged at one place.
    let mut cursor = Cursor::new(rest);
    let (cut, at) = (cursor.byte(), cursor.number() as usize);
    let records: Vec<Value> =
        cursor.rest().split(|b| *b == b'\n').map(|line| String::from_utf8_lossy(line).into()).collect();
    let mut file = journal::write(&records).expect("texts are JSON");
    let whole = journal::inspect::<Value>(&file).expect("it was just written");
    assert_eq!((&whole.0, whole.1), (&records, file.len()));
    let at = at % file.len();
    if cut & 1 == 0 {
        file.truncate(at);
        let (left, _) = journal::inspect::<Value>(&file).expect("a torn file is no damaged one");
        assert_eq!(left[..], records[..left.len()], "a crash takes records from the end");
    } else {
        file[at] ^= 1 << (cut % 8);
        if let Ok((left, _)) = journal::inspect::<Value>(&file) {
            assert_eq!(left[..], records[..left.len()], "a changed record was believed");
        }
    }
}

/// Receipt files.
pub fn receipt_file(bytes: &[u8]) {
    if let Ok(receipt) = receipt_file::parse(bytes) {
        let form = format!(r#"{{"florin_receipt":1,"receipt":"{}"}}"#, hex::encode(receipt.encode_to_vec()));
        assert_eq!(receipt_file::parse(form.as_bytes()), Ok(receipt));
    }
}

/// Wallet files, without what needs the passphrase.
pub fn wallet_file(bytes: &[u8]) {
    if let Ok((meta, keys)) = keystore::inspect(bytes) {
        assert!((1..=1_000).contains(&keys.len()) && meta.decimals <= 18 && meta.network_id < 1 << 63);
        assert!(keys.iter().all(|key| key.curve() == meta.curve));
    }
}

fn groups<M: Message + Default>(bytes: &[u8]) -> Vec<M> {
    let mut cursor = Cursor::new(bytes);
    let mut all = Vec::new();
    while !cursor.is_empty() {
        all.extend(M::decode(cursor.long()));
    }
    all
}

/// The accounts of a manager whose journal is read.
pub fn own_accounts() -> manager::Config {
    static ACCOUNTS: LazyLock<std::collections::BTreeMap<Address, Bytes>> = LazyLock::new(|| {
        let of = |number| {
            let signer = florin_core::testing::Signer::new(number);
            (signer.address, signer.permission.encode())
        };
        [1, 2].map(of).into()
    });
    manager::Config { committee_id: [1; 32], accounts: ACCOUNTS.clone(), policy: manager::Policy::default() }
}

/// Journals of a channel manager: refused, or the state that it writes anew is the same.
pub fn manager_journal(bytes: &[u8]) {
    let records: Vec<wire::ManagerRecord> = groups(bytes);
    let Ok(loaded) = manager::Manager::load(own_accounts(), &records) else { return };
    let written = loaded.snapshot();
    let again = manager::Manager::load(own_accounts(), &written).expect("what a manager writes it can read");
    assert_eq!(again.snapshot(), written);
}

/// Journals of hubs and of virtual channels.
pub fn hub_journal(bytes: &[u8]) {
    let groups: Vec<wire::HubGroup> = groups(bytes);
    let channels = manager::Policy::default();
    let config = hub::Config { network_id: 77, channels: channels.clone(), policy: hub::Policy::default() };
    if let Ok((loaded, of)) = hub::Hub::load(config.clone(), own_accounts(), &groups) {
        let written = [loaded.snapshot(&of)];
        let (again, of) = hub::Hub::load(config, own_accounts(), &written).expect("what a hub writes it can read");
        assert_eq!([again.snapshot(&of)], written);
    }
    let config = virtuals::Config { channels, policy: virtuals::Policy::default() };
    if let Ok(loaded) = virtuals::Virtuals::load(config.clone(), &groups) {
        let written = [wire::HubGroup { entries: vec![loaded.snapshot()] }];
        let again = virtuals::Virtuals::load(config, &written).expect("what it writes it can read");
        assert_eq!(again.snapshot(), written[0].entries[0]);
    }
}

/// Frames of a peer: whole messages come out as they went in, and what strangers put between them does no harm to later ones.
pub fn ordering_frames(bytes: &[u8]) {
    const MAX: usize = 1 << 16;
    let mut cursor = Cursor::new(bytes);
    let mut frames = Vec::new();
    while !cursor.is_empty() {
        frames.push(cursor.long());
    }
    let raw: Vec<_> = inspect::join(MAX, &frames).into_iter().flatten().flatten().collect();
    assert!(raw.iter().all(|message| message.len() <= MAX));
    let message = Bytes::copy_from_slice(bytes);
    frames.extend(inspect::cut(&message));
    let last = inspect::join(MAX, &frames).pop();
    if !message.is_empty() && message.len() < MAX {
        assert_eq!(last, Some(Ok(Some(message))), "an honest message after strange ones");
    }
}

/// Messages of the ordering engine: read in one way, and the gate lets nothing through that is in the name of another.
pub fn ordering_message(bytes: &[u8]) {
    let Some((from, rest)) = bytes.split_first() else { return };
    let (committee, keys) = TestCommittee::default().build();
    match inspect::pass(&committee, (0, &keys[0]), (5, u32::from(from % 4)), rest) {
        Ok((again, units)) => {
            assert_eq!(again, rest);
            assert!(units <= 4, "units that nobody has signed");
        }
        Err((_, Some(again))) => assert_eq!(again, rest, "a message has one encoding"),
        Err((_, None)) => {}
    }
}
