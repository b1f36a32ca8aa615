//! The memory of accounts beside a plain map: what it shows is what was put last, whatever it forgets.

use std::collections::HashMap;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::authority::state::{Account, Holding, account_key};
use florin_core::testing::Signer;
use proptest::prelude::*;

use super::*;

/// Enough for all of a test.
const AMPLE: usize = 64 << 20;

/// An account as it is once its orders have settled.
fn settled(number: u64, balance: i128, newest: u64) -> ([u8; 16], Vec<u8>) {
    let signer = Signer::new(number);
    let account = Account {
        holdings: vec![Holding { address: signer.address, balance, credits: 3, newest: (newest, 7) }],
        address: Some(signer.address),
        permission: signer.permission.encode(),
        seqnum: 2,
        prev_hash: u64::MAX - number,
        ..Account::default()
    };
    (account_key(1_000_000 + number % 3, signer.address.actor()), account.encode())
}

impl Accounts {
    /// Takes in one account.
    fn put(&self, key: &[u8], record: Option<&[u8]>) {
        let Ok(key) = <&[u8; 16]>::try_from(key) else { return };
        let (part, hash) = self.part(key);
        self.put_into(&mut lock(&self.parts[part]), key, hash, record);
    }
}

/// What is shown of a key.
fn shown(accounts: &Accounts, key: &[u8]) -> Option<Vec<u8>> {
    accounts.look(key, <[u8]>::to_vec)
}

#[test]
fn a_usual_account_is_kept_in_less_than_its_record_takes() {
    let accounts = Accounts::new(AMPLE);
    for newest in [0, 1, 300, 70_000, 10_000_000] {
        let (key, record) = settled(7, 5_000_000_000, newest);
        let mut slot = [0; SLOT_MAX];
        let len = Part::default().pack(&key, &record, &mut slot).expect("usual");
        assert!(len <= 112 && record.len() + key.len() > len + 48, "{len} of {}", record.len());
        accounts.put(&key, Some(&record));
        assert_eq!(shown(&accounts, &key), Some(record));
    }
    let numbers = accounts.numbers();
    assert_eq!((numbers.accounts, numbers.found, numbers.missed), (1, 5, 0));
}

#[test]
fn unusual_records_are_left_to_the_trees_and_take_the_place_of_none() {
    let accounts = Accounts::new(AMPLE);
    let (key, record) = settled(7, 1, 2);
    let long = [&record[..], &[8; 300]].concat();
    let mut of_another = key;
    of_another[15] ^= 1;
    for (key, record) in
        [(&key[..], &long[..]), (&key, b""), (&key, &record[..54]), (&of_another, &record), (b"short", &record)]
    {
        accounts.put(&settled(7, 1, 2).0, Some(&settled(7, 1, 2).1));
        accounts.put(key, Some(record));
        assert_eq!(shown(&accounts, key), None);
    }
    accounts.put(&key, Some(&record));
    assert!(shown(&accounts, &key).is_some());
    accounts.put(&key, None);
    assert_eq!(shown(&accounts, &key), None);
}

#[test]
fn every_network_is_told_apart() {
    let accounts = Accounts::new(AMPLE);
    let (_, record) = settled(7, 1, 2);
    let actor = Signer::new(7).address.actor();
    // So many that some part has more of them than it can number.
    let networks = (PARTS * NETWORKS * 2) as u64;
    for network in 0..networks {
        let record = [&record[..], &network.to_be_bytes()].concat();
        accounts.put(&account_key(network, actor), Some(&record));
    }
    assert!(accounts.parts.iter().any(|part| lock(part).networks.len() == NETWORKS));
    for network in 0..networks {
        let found = shown(&accounts, &account_key(network, actor)).expect("kept");
        assert_eq!(found[found.len() - 8..], network.to_be_bytes());
    }
}

#[test]
fn it_forgets_when_it_is_full_and_stays_in_its_bounds() {
    let bytes_max = 4 << 20;
    let accounts = Accounts::new(bytes_max);
    let count = 80_000;
    let key = |n: u64| {
        let mut address = [0; 32];
        address[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        Address::new(address)
    };
    let record = |n: u64, grown: usize| {
        let holding = Holding { address: key(n), balance: n.into(), credits: 1, newest: (0, 0) };
        let permission = Bytes::from(vec![1; 40 + grown]);
        Account { holdings: vec![holding], permission, ..Account::default() }.encode()
    };
    let mut kept = Vec::new();
    // The last round has only records of another size: the pages of the first ones must come free for them.
    for (round, grown) in [0, 0, 50].into_iter().enumerate() {
        for n in 0..count {
            accounts.put(&account_key(1, key(n).actor()), Some(&record(n, grown)));
        }
        let found = (0..count).filter(|n| match shown(&accounts, &account_key(1, key(*n).actor())) {
            Some(found) => found == record(*n, grown),
            None => false,
        });
        kept.push(found.count());
        let numbers = accounts.numbers();
        assert_eq!(numbers.accounts, kept[round] as u64, "what is there is what was put last");
        assert!(numbers.bytes <= bytes_max as u64 * 5 / 4, "{numbers:?}");
        let used: usize =
            accounts.parts.iter().map(|part| lock(part).pages.iter().map(|page| page.used).sum::<usize>()).sum();
        assert_eq!(used as u64, numbers.accounts);
    }
    assert!(kept.iter().all(|kept| *kept > 15_000 && *kept < count as usize), "{kept:?}");
    // With no room at all it keeps nothing that could be outdated.
    accounts.limit(0);
    for n in 0..count {
        accounts.put(&account_key(1, key(n).actor()), Some(&record(n, 0)));
    }
    assert_eq!(accounts.numbers().accounts, 0);
}

proptest! {
    /// Records of many kinds, damaged ones among them, of few accounts in little room.
    #[test]
    fn it_shows_what_was_put_last_or_nothing(
        ops in prop::collection::vec((0..300u64, 0..8u8, any::<i64>(), 0..200usize, any::<prop::sample::Index>(), any::<u8>()), 1..400),
        pages in 0..3usize,
    ) {
        let accounts = Accounts::new(pages * PARTS * (PAGE + 512));
        let mut model: HashMap<[u8; 16], Option<Vec<u8>>> = HashMap::new();
        for (number, kind, balance, permission, at, byte) in ops {
            let mut bytes = [number as u8; 32];
            bytes[6] = (number >> 8) as u8;
            let address = Address::new(bytes);
            let holding = |address| Holding { address, balance: balance.into(), credits: number, newest: (number, 1) };
            let mut account = Account {
                holdings: vec![holding(address)],
                address: (kind != 1).then_some(address),
                permission: vec![1; permission].into(),
                seqnum: kind.into(),
                ..Account::default()
            };
            match kind {
                2 => account.holdings.push(holding(Address::new([1; 32]))),
                3 => account.address = Some(Address::new([1; 32])),
                4 => account.holdings.clear(),
                _ => {}
            }
            let mut record = account.encode();
            if kind == 5 {
                let at = at.index(record.len());
                record[at] = byte;
            }
            let record = (kind != 6).then_some(record);
            let key = account_key(number % 3, address.actor());
            accounts.put(&key, record.as_deref());
            model.insert(key, record);
            for (key, record) in &model {
                if let Some(found) = shown(&accounts, key) {
                    prop_assert_eq!(Some(&found), record.as_ref());
                }
            }
        }
    }
}
