//! The reader of usual payments, held to the general one; limits of contents, and what they say of themselves.

use proptest::prelude::*;

use super::*;

fn credits() -> impl Strategy<Value = Vec<Credit>> {
    let amount = prop_oneof![Just(0), Just(1), Just(AMOUNT_MAX), Just(AMOUNT_MAX + 1), any::<u64>(), 1..1_000u64];
    let credit =
        (any::<[u8; 32]>(), amount).prop_map(|(address, amount)| Credit { address: Address::new(address), amount });
    prop::collection::vec(credit, 0..4)
}

/// Bytes to put in, take out or change.
fn changes() -> impl Strategy<Value = Vec<(u8, prop::sample::Index, u8)>> {
    prop::collection::vec((0..3u8, any::<prop::sample::Index>(), any::<u8>()), 0..3)
}

fn changed(bytes: &[u8], changes: &[(u8, prop::sample::Index, u8)]) -> Bytes {
    let mut bytes = bytes.to_vec();
    for (kind, at, byte) in changes {
        let at = at.index(bytes.len() + 1);
        match kind {
            0 => bytes.insert(at, *byte),
            _ if at == bytes.len() => {}
            1 => bytes[at] = *byte,
            _ => drop(bytes.remove(at)),
        }
    }
    bytes.into()
}

proptest! {
    #[test]
    fn both_readers_of_payments_agree(
        credits in credits(),
        memo in "[a-zé]{0,200}",
        open in prop::option::of(prop::collection::vec(any::<u8>(), 1..60)),
        changes in changes(),
    ) {
        let encoded = encode_pay(&credits, &memo, open.map(Bytes::from));
        let content = changed(&encoded, &changes);
        let mut notes = Vec::new();
        let general = check_pay(&content, &mut notes);
        match read_pay(&content) {
            Some(pay) => {
                let Action::Pay { outputs, .. } = &pay.0 else { panic!("{pay:?}") };
                prop_assert!(addresses(&content).eq(outputs.iter().map(|credit| credit.address)));
                prop_assert_eq!(general, Ok(pay));
            }
            None => prop_assert!(general.is_err() || !notes.is_empty(), "what is right and has no notes is read"),
        }
    }
}

fn codes(content: &Bytes) -> (bool, Option<Code>) {
    (read_pay(content).is_some(), check_pay(content, &mut Vec::new()).err().map(|e| e.code))
}

#[test]
fn each_limit_of_a_payment_at_it_and_one_over() {
    let pay = |amounts: &[u64], memo: usize| {
        let credit = |amount: &u64| Credit { address: Address::new([1; 32]), amount: *amount };
        let outputs: Vec<Credit> = amounts.iter().map(credit).collect();
        codes(&encode_pay(&outputs, &"m".repeat(memo), None))
    };
    let good = (true, None);
    let refused = |code| (false, Some(code));
    assert_eq!([pay(&[1], 0), pay(&[1], 256)], [good; 2]);
    assert_eq!(pay(&[1], 257), refused(Code::Limit));
    assert_eq!(pay(&[1; 256], 0), good);
    assert_eq!([pay(&[1; 257], 0), pay(&[], 0)], [refused(Code::Limit); 2]);
    assert_eq!([pay(&[AMOUNT_MAX], 0), pay(&[AMOUNT_MAX - 1, 1], 0)], [good; 2]);
    for amounts in [&[0][..], &[AMOUNT_MAX + 1], &[AMOUNT_MAX, 1], &[1, 0], &[u64::MAX, 1]] {
        assert_eq!(pay(amounts, 0), refused(Code::BadAmount), "{amounts:?}");
    }
    // What is there and empty is not in its one form.
    let plain = encode_pay(&[Credit { address: Address::new([1; 32]), amount: 1 }], "", None);
    for empty in [tag::bytes(2), tag::bytes(15)] {
        let content = Bytes::from([&plain[..], &[empty, 0]].concat());
        assert_eq!(codes(&content), refused(Code::NonCanonical), "field {}", empty >> 3);
    }
}

#[test]
fn what_is_signed_has_one_form() {
    let plain = encode_pay(&[Credit { address: Address::new([1; 32]), amount: 1 }], "memo", None);
    let (outputs, memo) = plain.split_at(plain.len() - 6);
    assert_eq!(memo, [&[tag::bytes(2), 4][..], b"memo"].concat());
    assert_eq!(codes(&plain), (true, None));
    // As long, and with the same fields.
    let twisted = Bytes::from([memo, outputs].concat());
    assert_eq!(codes(&twisted), (false, Some(Code::NonCanonical)));
    assert_eq!(codes(&Bytes::from_static(&[0xff])), (false, Some(Code::BadContent)));
}

#[test]
fn notes_come_after_credits() {
    let credit = credit_output(&Credit { address: Address::new([1; 32]), amount: 5 });
    let request = wire::NoteRequest { tier: 3, blinded: vec![1; 48].into() };
    let note = wire::Output { kind: Some(wire::output::Kind::Note(request)) };
    let check = |outputs: &[&wire::Output]| {
        let outputs = outputs.iter().map(|output| (*output).clone()).collect();
        let mut notes = Vec::new();
        let content = Bytes::from(wire::Pay { outputs, ..Default::default() }.encode_to_vec());
        check_pay(&content, &mut notes).map(|(_, _, total)| (total, notes.len())).map_err(|e| e.code)
    };
    assert_eq!(check(&[&credit, &note, &note]), Ok((21, 2)));
    assert_eq!(check(&[&note]), Ok((8, 1)));
    let twisted = wire::Pay { outputs: vec![note.clone(), credit.clone()], ..Default::default() };
    let error = check_pay(&Bytes::from(twisted.encode_to_vec()), &mut Vec::new()).unwrap_err();
    assert_eq!((error.code, &error.message[..]), (Code::BadContent, "output 1 is a credit after a note"));
    assert_eq!(check(&[&credit, &wire::Output::default()]), Err(Code::BadContent));
}

#[test]
fn each_limit_of_a_call_at_it_and_one_over() {
    let credit = |amount| credit_output(&Credit { address: Address::new([1; 32]), amount });
    let input = |amount| wire::Input {
        amount,
        kind: Some(wire::input::Kind::ContractRefund(wire::ContractRefund { contract: vec![1; 32].into() })),
    };
    let check = |inputs: &[u64], outputs: &[u64], memo: usize, bytes: usize| {
        let call = wire::Call {
            inputs: inputs.iter().map(|amount| input(*amount)).collect(),
            outputs: outputs.iter().map(|amount| credit(*amount)).collect(),
            memo: "m".repeat(memo),
            ..Default::default()
        };
        check_call(&call, bytes).map_err(|e| e.code)
    };
    assert_eq!(check(&[], &[7, 8], 256, 8_192), Ok(15));
    assert_eq!(check(&[], &[7], 257, 0), Err(Code::Limit));
    assert_eq!(check(&[], &[7], 0, 8_193), Err(Code::Limit));
    assert_eq!(check(&[], &[], 0, 0), Err(Code::BadContent));
    assert_eq!(check(&[1; 256], &[300], 0, 0), Ok(44));
    assert_eq!(check(&[1; 257], &[300], 0, 0), Err(Code::Limit));
    assert_eq!(check(&[], &[1; 256], 0, 0), Ok(256));
    assert_eq!(check(&[], &[1; 257], 0, 0), Err(Code::Limit));
    // What goes out is at least what comes in.
    assert_eq!([check(&[5], &[5], 0, 0), check(&[5, 1], &[9], 0, 0)], [Ok(0), Ok(3)]);
    assert_eq!([check(&[5], &[4], 0, 0), check(&[5], &[], 0, 0)], [Err(Code::BadAmount); 2]);
    assert_eq!(check(&[], &[AMOUNT_MAX], 0, 0), Ok(AMOUNT_MAX));
    assert_eq!(check(&[], &[AMOUNT_MAX, 1], 0, 0), Err(Code::BadAmount));
    assert_eq!(check(&[1], &[AMOUNT_MAX, 1], 0, 0), Ok(AMOUNT_MAX));
    assert_eq!([check(&[0], &[1], 0, 0), check(&[AMOUNT_MAX + 1], &[1], 0, 0)], [Err(Code::BadAmount); 2]);
}

#[test]
fn an_order_says_what_it_does_and_whose_keys_it_sets() {
    use crate::bearer::{Spend, build};
    use crate::testing::{NETWORK_ID, Signer, to};
    let (mut alice, other) = (Signer::distilled(1), Signer::distilled(2));
    let key = |signer: &Signer| signer.bls[0].public().bls().unwrap();
    let decode = |raw: Bytes| Content::decode(&Order::decode(raw).unwrap()).unwrap();
    let address = alice.address;
    let credit = credit_output(&Credit { address, amount: 1 });

    let content = decode(alice.clone().set_permission(&other.permission, vec![]));
    assert_eq!((content.action.name(), content.memo(), content.credits().len()), ("set-permission", "", 0));
    assert_eq!(content.sets_bls_keys().unwrap(), [key(&alice), key(&other)]);
    let content = decode(alice.pay(&[to(address, 1)], "thanks"));
    assert_eq!((content.action.name(), content.memo(), content.credits().len()), ("pay", "thanks", 1));
    assert_eq!((content.sets_bls_keys().unwrap(), content.claimed_account()), (vec![key(&alice)], None));
    let account = Bytes::copy_from_slice(address.as_bytes());
    let call = wire::Call { account, outputs: vec![credit.clone()], memo: "m".into(), ..Default::default() };
    let content = decode(alice.order(TYPE_CALL, encode_call(&call)));
    assert_eq!((content.action.name(), content.memo(), content.credits().len()), ("call", "m", 0));
    assert_eq!((content.sets_bls_keys().unwrap(), content.claimed_account()), (vec![], Some(&address)));
    let content = decode(alice.recover());
    assert_eq!((content.action.name(), content.memo(), content.claimed_account()), ("recover", "", Some(&address)));
    for (outputs, memo, name, credits) in [(vec![credit], "b", "bearer", 1), (vec![], "", "recover-notes", 0)] {
        let input = wire::NoteInput { nonce: vec![1; 32].into(), ..Default::default() };
        let spend = Spend { input, signature: [0; 48], sign: Box::new(|_| [0; 64]) };
        let content = decode(build(NETWORK_ID, &[spend], outputs, memo, None));
        assert_eq!((content.action.name(), content.memo(), content.credits().len()), (name, memo, credits));
        assert_eq!((content.sets_bls_keys().unwrap(), content.claimed_account(), content.total), (vec![], None, 1));
    }
}
