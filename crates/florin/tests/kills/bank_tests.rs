//! What the checks of the history are worth: each rule broken in one place.

use std::collections::HashMap;

use florin_core::address::Address;
use florin_core::testing::Signer;

use super::bank::{Bank, Broken, Read, Said};
use crate::common::SIZE;

/// Two accounts, one order of the first that is final and one that is only signed; and reads by two clients.
fn history(change: impl FnOnce(&Bank, &[Address; 2])) -> Vec<Broken> {
    let at = [Signer::new(1).address, Signer::new(2).address];
    let bank = Bank::open(SIZE, at.map(|a| (a, Said { balance: 100, seqnum: 5 })));
    let says = |client, account, answers: &[(i128, u32)]| {
        let said = answers.iter().map(|(balance, seqnum)| Said { balance: *balance, seqnum: *seqnum });
        bank.read(Read { client, account, asked: bank.asks(), said: said.enumerate().collect() });
    };
    bank.signed(at[0], 6, at[1], 30);
    says(0, at[0], &[(100, 5), (70, 6), (100, 5)]);
    bank.is_final(at[0], 6);
    says(0, at[0], &[(70, 6), (70, 6), (100, 5)]);
    says(1, at[1], &[(130, 5), (100, 5), (100, 5), (100, 5)]);
    bank.signed(at[0], 7, at[1], 1);
    says(1, at[0], &[(69, 7), (70, 6), (100, 5)]);
    change(&bank, &at);
    bank.check()
}

#[test]
fn the_bank_notices_what_can_not_be() {
    let one = |client, account, asked, authority, balance, seqnum| Read {
        client,
        account,
        asked,
        said: vec![(authority, Said { balance, seqnum })],
    };
    assert_eq!(history(|_, _| ()), []);
    let found = history(|bank, at| bank.read(one(0, at[0], 9, 1, 100, 5)));
    assert!(matches!(found[..], [Broken::Backwards(_)]), "{found:?}");
    let found = history(|bank, at| bank.read(one(1, at[1], 9, 0, 100, 5)));
    assert!(matches!(found[..], [Broken::Backwards(_)]), "a payment that had come: {found:?}");
    let found = history(|bank, at| bank.read(one(0, at[0], 9, 0, 69, 8)));
    assert!(matches!(found[..], [Broken::Unsigned(_)]), "{found:?}");
    let found = history(|bank, at| bank.read(one(0, at[1], 9, 0, 132, 5)));
    assert!(matches!(found[..], [Broken::FromNothing(_)]), "{found:?}");
    let found = history(|bank, at| bank.read(one(2, at[0], 9, 0, 69, 6)));
    assert!(matches!(found[..], [Broken::Vanished(_), Broken::Backwards(_)]), "{found:?}");
    // Of three only one knows what was final before they were asked; before, it was not.
    let few = |asked| {
        move |bank: &Bank, at: &[Address; 2]| {
            let said = [(100, 5), (70, 6), (100, 5)].map(|(balance, seqnum)| Said { balance, seqnum });
            bank.read(Read { client: 9, account: at[0], asked, said: said.into_iter().enumerate().collect() });
        }
    };
    assert_eq!(history(few(2)), []);
    let found = history(few(3));
    assert!(matches!(found[..], [Broken::Lost(_)]), "{found:?}");

    let level = |changed: fn(&mut HashMap<Address, Said>, [Address; 2])| {
        let at = [Signer::new(1).address, Signer::new(2).address];
        let bank = Bank::open(SIZE, at.map(|a| (a, Said { balance: 100, seqnum: 5 })));
        bank.signed(at[0], 6, at[1], 30);
        let mut said = bank.expected();
        changed(&mut said, at);
        bank.check_level(0, &said)
    };
    assert_eq!(level(|_, _| ()), []);
    let found = level(|said, at| said.get_mut(&at[1]).unwrap().balance -= 30);
    assert!(matches!(found[..], [Broken::Total(_), Broken::Vanished(_)]), "{found:?}");
    let found = level(|said, at| said.get_mut(&at[0]).unwrap().balance += 30);
    assert!(matches!(found[..], [Broken::Total(_), Broken::FromNothing(_)]), "{found:?}");
    let found = level(|said, at| said.get_mut(&at[0]).unwrap().seqnum -= 1);
    assert!(matches!(found[..], [Broken::Lost(_)]), "{found:?}");
    let found = level(|said, at| said.get_mut(&at[0]).unwrap().seqnum += 1);
    assert!(matches!(found[..], [Broken::Unsigned(_)]), "{found:?}");
}
