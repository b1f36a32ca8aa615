//! The readers and writers made by hand, held to the generated ones.

use super::*;

#[test]
fn an_account_is_encoded_as_the_generated_code_would() {
    let pending = wire::PendingRecord {
        order_id: Bytes::from_static(&[7; 32]),
        batch: 3,
        index: 1,
        amount: 5,
        ..Default::default()
    };
    let holding =
        |byte, balance, credits| Holding { address: Address::new([byte; 32]), balance, credits, newest: (credits, 9) };
    let full = Account {
        holdings: vec![holding(1, -5, 3), holding(2, 0, 0)],
        address: Some(Address::new([1; 32])),
        permission: Bytes::from_static(b"permission"),
        seqnum: 300,
        prev_hash: u64::MAX,
        pending: vec![
            pending.clone(),
            wire::PendingRecord { set_permission: true, open: Bytes::from_static(b"open"), call: true, ..pending },
        ],
        early: vec![wire::EarlyRecord { seqnum: 302, batch: 8, prev_hash: 5, call: true, ..Default::default() }],
        last_call: 299,
        frozen: 301,
        voided: 7,
        recovering: 301,
        barred: true,
        rotation: (300, 299),
        generation: 300,
        admitted: Bytes::from_static(&[7; 32]),
    };
    let long = Bytes::from(vec![8; 200]);
    let usual = Account { early: Vec::new(), frozen: 0, voided: 0, recovering: 0, barred: false, ..full.clone() };
    let usual = Account { rotation: (0, 0), generation: 0, admitted: Bytes::new(), permission: long, ..usual };
    assert!(read_account(&usual.encode()).is_some() && read_account(&full.encode()).is_none());
    for account in [Account::default(), full, usual] {
        let bytes = account.encode();
        let record = wire::AccountRecord::decode(&bytes[..]).unwrap();
        assert_eq!(record.encode_to_vec(), bytes, "canonical");
        assert_eq!(Account::decode(record).unwrap(), account, "complete");
        assert_eq!(Account::read(&bytes).unwrap(), account, "read by hand, or left to the generated code");
    }
}

#[test]
fn what_an_account_s_next_order_must_say() {
    let order = |byte: u8, amount, call| wire::PendingRecord {
        order_id: vec![byte; 32].into(),
        amount,
        call,
        ..Default::default()
    };
    let mut account = Account { seqnum: 7, prev_hash: 5, last_call: 3, ..Account::default() };
    let next = |account: &Account| {
        (account.next_seqnum(), account.next_prev_hash(), account.newest_call(), account.reserved())
    };
    assert_eq!(next(&account), (8, 5, 3, 0));
    account.pending = vec![order(1, 10, false), order(2, 20, true), order(3, 40, false)];
    assert_eq!(next(&account), (11, 0x0303_0303_0303_0303, 9, 70));
    account.pending[2].call = true;
    assert_eq!(next(&account).2, 10);
    account.seqnum = u32::MAX;
    account.pending.clear();
    assert_eq!(account.next_seqnum(), 1 << 32);
    assert_eq!(
        [0, 7, 8, 9].map(|seqnum| Account { frozen: 8, ..account.clone() }.is_frozen(seqnum)),
        [false, false, true, true]
    );
    assert!(!account.is_frozen(u32::MAX));
}

#[test]
fn each_table_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<&str> = Table::ALL.iter().map(|table| table.name()).collect();
    assert_eq!(names.len(), Table::ALL.len());
    assert!(names.iter().all(|name| name.len() > 3 && name.bytes().all(|b| b.is_ascii_lowercase())), "{names:?}");
}

proptest::proptest! {
    #[test]
    fn an_account_is_read_by_hand_as_by_the_generated_code(
        balance in proptest::arbitrary::any::<i128>(),
        numbers in proptest::array::uniform6(proptest::arbitrary::any::<u32>()),
        pending in 0..3usize,
        at in proptest::arbitrary::any::<proptest::sample::Index>(),
        byte in proptest::option::of(proptest::arbitrary::any::<u8>()),
    ) {
        let [credits, newest, seqnum, prev_hash, amount, last_call] = numbers;
        let newest = (newest.into(), credits);
        let holding = Holding { address: Address::new([3; 32]), balance, credits: credits.into(), newest };
        let record = wire::PendingRecord { amount: amount.into(), call: pending > 1, ..Default::default() };
        let account = Account {
            holdings: vec![holding],
            address: Some(Address::new([3; 32])),
            permission: Bytes::from_static(b"permission"),
            seqnum,
            prev_hash: prev_hash.into(),
            pending: vec![wire::PendingRecord { order_id: Bytes::from_static(&[7; 32]), ..record }; pending],
            last_call,
            ..Account::default()
        };
        let mut bytes = account.encode();
        proptest::prop_assert_eq!(read_account(&bytes), Some(account));
        if let Some(byte) = byte {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(read) = read_account(&bytes) {
            let general = Account::decode(wire::AccountRecord::decode(&bytes[..]).unwrap());
            proptest::prop_assert_eq!(general.unwrap(), read);
        }
    }
}
