//! A note string means what it says or nothing: every damage to it is found.

use florin_core::cash::blind::Nonce;
use florin_core::testing::TestCommittee;
use proptest::prelude::*;

use super::*;

fn committee() -> Committee {
    (*TestCommittee::new(4, 1).build().0).clone()
}

fn point() -> Bytes {
    Bytes::copy_from_slice(&Nonce([7; 32]).hash().to_bytes())
}

fn notes(committee: &Committee, tiers: &[u32], memo: &str) -> wire::CashNotes {
    let note = |(i, tier): (usize, &u32)| {
        let lock = (i % 3 == 2).then(|| wire::NoteLock {
            receiver: Bytes::from_static(&[1; 32]),
            sender: Bytes::from(vec![i as u8; 32]),
            after_ms: 1_700_000_000_000,
        });
        let secret = if lock.is_some() { Bytes::new() } else { Bytes::from(vec![i as u8 + 1; 32]) };
        wire::CashNote { tier: *tier, secret, signature: point(), lock }
    };
    wire::CashNotes {
        network_id: committee.network.id,
        committee_id: Bytes::copy_from_slice(committee.id()),
        notes: tiers.iter().enumerate().map(note).collect(),
        memo: memo.into(),
    }
}

#[test]
fn the_text_of_notes_does_not_change() {
    let committee = committee();
    let mut notes = notes(&committee, &[3, 0], "lunch");
    // The committee's id depends on its addresses; the golden text must not.
    notes.committee_id = Bytes::from_static(&[9; 32]);
    let text = encode(Kind::Notes, "flr", &notes.encode_to_vec());
    let golden = include_str!("text_golden.txt").trim();
    assert_eq!(text, golden, "strings that people have must stay valid");
    assert_eq!(decode(Kind::Notes, "flr", golden).unwrap(), notes.encode_to_vec());
}

#[test]
fn texts_of_something_else_are_refused() {
    let committee = committee();
    let good = encode_notes(&notes(&committee, &[0], ""), &committee);
    assert!(good.starts_with("flrcash1"), "{good}");
    let refusal = |text: &str| decode_notes(text, &committee).unwrap_err().message;
    assert!(refusal("").contains("flrcash1"));
    assert!(refusal(&good.replace("flr", "eur")).contains("flrcash1"));
    assert!(refusal(&good[..good.len() - 1]).contains("checksum"));
    assert!(refusal(&good.replacen('f', "F", 1)).contains("case"));
    assert!(refusal(&encode_key(&[3; 32], &committee)).contains("flrcash1"));
    let mut other = notes(&committee, &[0], "");
    other.committee_id = Bytes::from_static(&[9; 32]);
    assert_eq!(decode_notes(&encode_notes(&other, &committee), &committee).unwrap_err().code, Code::WrongCommittee);
    let wrong = |change: fn(&mut wire::CashNote)| {
        let mut notes = notes(&committee, &[0, 1, 2], "");
        change(&mut notes.notes[1]);
        decode_notes(&encode_notes(&notes, &committee), &committee).unwrap_err()
    };
    let errors = [
        wrong(|n| n.tier = 32),
        wrong(|n| n.secret = Bytes::new()),
        wrong(|n| n.signature = Bytes::from_static(&[0xc0; 48])),
        wrong(|n| n.lock = Some(wire::NoteLock::default())),
    ];
    for error in errors {
        assert!(error.code == Code::Decode && error.message.starts_with("note 2: "), "{error}");
    }
    let none = encode_notes(&wire::CashNotes { notes: vec![], ..notes(&committee, &[0], "") }, &committee);
    assert_eq!(decode_notes(&none, &committee).unwrap_err().code, Code::Limit);
    // Bytes that decode to the same notes, but are not theirs.
    let long = [notes(&committee, &[0], "").encode_to_vec(), vec![0x22, 0]].concat();
    let error = decode_notes(&encode(Kind::Notes, "flr", &long), &committee).unwrap_err();
    assert_eq!(error.code, Code::NonCanonical);
}

#[test]
fn keys_go_around_as_text() {
    let committee = committee();
    let text = encode_key(&[3; 32], &committee);
    assert!(text.starts_with("flrkey1"));
    assert_eq!(decode_key(&text.to_uppercase(), &committee).unwrap(), [3; 32]);
    let mut other = committee.clone();
    other.network.id += 1;
    assert_eq!(decode_key(&text, &other).unwrap_err().code, Code::UnknownNetwork);
}

#[test]
fn every_changed_character_is_found() {
    let committee = committee();
    let text = encode_notes(&notes(&committee, &[0, 5, 7], "memo"), &committee);
    for at in 0..text.len() {
        for c in (0x20u8..0x7f).filter(|c| *c != text.as_bytes()[at]) {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = c;
            let damaged = String::from_utf8(damaged).unwrap();
            assert!(decode_notes(&damaged, &committee).is_err(), "character {at} as {:?}", c as char);
        }
    }
}

proptest! {
    #[test]
    fn it_comes_back_as_it_was(tiers in prop::collection::vec(0u32..32, 1..20), memo in "\\PC{0,60}", frame in 30usize..400, order in any::<u64>()) {
        let committee = committee();
        let notes = notes(&committee, &tiers, &memo);
        let text = encode_notes(&notes, &committee);
        prop_assert!(text.to_uppercase().bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()), "QR alphanumeric");
        prop_assert_eq!(&decode_notes(&text, &committee).unwrap(), &notes);
        let broken = format!(" {}\n{}\n", &text[..text.len() / 2], &text[text.len() / 2..]);
        prop_assert_eq!(&decode_notes(&broken.to_uppercase(), &committee).unwrap(), &notes);
        // Frames in another order, some of them twice.
        let mut parts = frames(&text, frame);
        let n = parts.len();
        parts.rotate_left(order as usize % n);
        parts.insert(0, parts[n / 2].clone());
        let mut seen = Frames::default();
        let whole = parts.iter().find_map(|part| seen.take(&format!("QR-Code:{part}")).unwrap()).unwrap();
        prop_assert_eq!(&decode_notes(&whole, &committee).unwrap(), &notes);
    }

    #[test]
    fn whatever_comes_is_no_panic(text in "(FLRCASH/|flrcash1|FLRCASH1)?[ -~]{0,80}") {
        let committee = committee();
        let _ = decode_notes(&text, &committee);
        let _ = decode_key(&text, &committee);
        let _ = Frames::default().take(&text);
    }
}
