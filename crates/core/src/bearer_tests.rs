use super::*;

fn input(n: u8) -> wire::NoteInput {
    wire::NoteInput { tier: 3, nonce: Bytes::copy_from_slice(&[n; 32]), ..Default::default() }
}

fn credit(amount: u64) -> wire::Output {
    crate::content::credit_output(&Credit { address: Address::new([9; 32]), amount })
}

fn note(tier: u32) -> wire::Output {
    let request = wire::NoteRequest { tier, blinded: Bytes::from_static(&[1; 48]) };
    wire::Output { kind: Some(output::Kind::Note(request)) }
}

fn fund(amount: u64) -> wire::Output {
    let bytes = |n| Bytes::copy_from_slice(&[n; 32]);
    let fund = wire::ContractFund { amount, hash: bytes(1), expiry_ms: 5, receiver: bytes(2), sender: bytes(3) };
    wire::Output { kind: Some(output::Kind::ContractFund(fund)) }
}

fn code(message: &wire::Bearer) -> Option<Code> {
    Bearer::check(message, false).err().map(|e| e.code)
}

#[test]
fn value_of_notes_is_value_of_outputs_in_their_order() {
    let good =
        wire::Bearer { notes: vec![input(1), input(2)], outputs: vec![credit(12), note(2)], ..Default::default() };
    assert_eq!(code(&good), None);
    let with = |outputs: Vec<wire::Output>| wire::Bearer { outputs, ..good.clone() };
    for (outputs, expected) in [
        (vec![note(2), credit(12)], Code::BadContent),
        (vec![credit(12), note(1)], Code::BadAmount),
        (vec![credit(0), note(4)], Code::BadAmount),
        (vec![note(63)], Code::BadContent),
        (vec![credit(1 << 62), credit(1 << 62)], Code::BadAmount),
        (vec![fund(12), note(2)], Code::BadContent),
        (vec![fund(16)], Code::BadContent),
        (vec![wire::Output::default()], Code::BadContent),
        (vec![], Code::Limit),
        ((0..255).map(|_| note(0)).collect(), Code::Limit),
    ] {
        assert_eq!(code(&with(outputs.clone())), Some(expected), "{outputs:?}");
    }
    let refund = Bytes::from_static(&[4; 32]);
    let shared = wire::Bearer { refund: refund.clone(), ..with(vec![credit(4), note(2), fund(8)]) };
    let checked = Bearer::check(&shared, false).unwrap();
    assert_eq!((checked.shared_value, checked.call().0), (8, 2));
    for outputs in [vec![credit(4), fund(8), note(2)], vec![note(2), fund(8), credit(4)]] {
        let message = wire::Bearer { refund: refund.clone(), ..with(outputs) };
        let error = Bearer::check(&message, false).unwrap_err();
        assert!(error.message.ends_with("out of place"), "what the log settles comes last: {error}");
    }
    assert_eq!(code(&wire::Bearer { refund, ..good.clone() }), Some(Code::BadContent), "nothing to refund");
    let command =
        wire::NetworkCommand { network_id: 5, kind: Some(wire::network_command::Kind::Remove(wire::NetworkRemove {})) };
    let acts = wire::Output { kind: Some(output::Kind::Network(command)) };
    let acts = wire::Bearer { refund: Bytes::from_static(&[4; 32]), ..with(vec![credit(16), acts]) };
    assert_eq!(code(&acts), Some(Code::BadContent), "in nobody's name");
}

#[test]
fn a_note_is_named_once_and_in_one_way() {
    let with = |notes: Vec<wire::NoteInput>| {
        let amount = 8 * notes.len().max(1) as u64;
        wire::Bearer { notes, outputs: vec![credit(amount)], ..Default::default() }
    };
    let lock =
        wire::NoteLock { receiver: Bytes::from_static(&[1; 32]), sender: Bytes::from_static(&[2; 32]), after_ms: 7 };
    let locked = wire::NoteInput { tier: 3, lock: Some(lock.clone()), ..Default::default() };
    assert_eq!(code(&with(vec![input(1), locked.clone()])), None);
    let same = wire::NoteInput { returned: true, ..locked.clone() };
    for notes in [
        vec![],
        vec![input(1), input(1)],
        vec![locked.clone(), same],
        vec![wire::NoteInput { returned: true, ..input(1) }],
        vec![wire::NoteInput { nonce: Bytes::from_static(&[1; 32]), ..locked.clone() }],
        vec![wire::NoteInput { nonce: Bytes::from_static(&[1; 31]), ..input(1) }],
        vec![wire::NoteInput { lock: Some(wire::NoteLock { sender: Bytes::new(), ..lock.clone() }), ..locked.clone() }],
        (0..=128).map(|i| wire::NoteInput { nonce: Bytes::copy_from_slice(&[i; 32]), ..input(1) }).collect(),
    ] {
        assert!(matches!(code(&with(notes.clone())), Some(Code::BadContent | Code::Limit)), "{notes:?}");
    }
    // Another date, another note.
    assert_ne!(lock_nonce(&lock), lock_nonce(&wire::NoteLock { after_ms: 8, ..lock }));
}

#[test]
fn a_recovery_names_notes_and_nothing_else() {
    let bare = wire::Bearer { notes: vec![input(1)], ..Default::default() };
    assert!(Bearer::check(&bare, true).is_ok());
    for message in [
        wire::Bearer { outputs: vec![credit(8)], ..bare.clone() },
        wire::Bearer { memo: "m".into(), ..bare.clone() },
        wire::Bearer { refund: Bytes::from_static(&[4; 32]), ..bare },
    ] {
        assert_eq!(Bearer::check(&message, true).unwrap_err().code, Code::BadContent);
    }
}

#[test]
fn bearer_orders_are_told_at_a_glance() {
    let spend = |n| Spend { input: input(n), signature: [0; 48], sign: Box::new(|_| [0; 64]) };
    for notes in [1, 2, 90] {
        let notes: Vec<Spend> = (0..notes).map(spend).collect();
        assert!(may_be(&build(1 << 62, &notes, vec![credit(1)], "", None)));
    }
    let account = crate::testing::Signer::new(1).pay(&[crate::testing::to(Address::new([1; 32]), 1)], "memo");
    assert!(!may_be(&account));
    assert!((0..12).all(|length| !may_be(&account[..length])), "too short to be one");
}

/// Distinct notes of one tier.
fn inputs(count: usize, tier: u32) -> Vec<wire::NoteInput> {
    let nonce = |i: usize| Bytes::from([[9; 30].as_slice(), &(i as u16).to_be_bytes()].concat());
    (0..count).map(|i| wire::NoteInput { tier, nonce: nonce(i), ..Default::default() }).collect()
}

#[test]
fn each_limit_of_a_bearer_order_at_it_and_one_over() {
    let order = |notes: usize, outputs: usize, memo: usize| {
        let mut outputs: Vec<_> = (0..outputs).map(|_| credit(1)).collect();
        let rest = notes as u64 - (outputs.len() as u64 - 1);
        *outputs.last_mut().unwrap() = credit(rest);
        code(&wire::Bearer { notes: inputs(notes, 0), outputs, memo: "m".repeat(memo), ..Default::default() })
    };
    assert_eq!([order(128, 128, 256), order(128, 1, 0), order(127, 127, 1)], [None; 3]);
    assert_eq!([order(129, 100, 0), order(128, 128, 257), order(1, 1, 258)], [Some(Code::Limit); 3]);
    // 256 notes and outputs in all.
    let many = |outputs: usize| {
        let outputs = (0..outputs).map(|_| credit(1)).collect();
        code(&wire::Bearer { notes: inputs(100, 1), outputs, ..Default::default() })
    };
    assert_eq!([many(156), many(157)], [Some(Code::BadAmount), Some(Code::Limit)]);
    let over = wire::Bearer { notes: inputs(100, 1), outputs: vec![credit(1); 157], ..Default::default() };
    let error = Bearer::check(&over, false).unwrap_err();
    assert_eq!(error.message, "notes and outputs: expected at most 256, found 257");
    let worth = |tiers: &[u32], amount: u64| {
        let notes = inputs(tiers.len(), 0).into_iter().zip(tiers);
        let notes = notes.map(|(note, tier)| wire::NoteInput { tier: *tier, ..note }).collect();
        code(&wire::Bearer { notes, outputs: vec![credit(amount)], ..Default::default() })
    };
    let all: Vec<u32> = (0..=62).collect();
    assert_eq!(worth(&all, AMOUNT_MAX), None);
    assert_eq!(worth(&[62, 62], AMOUNT_MAX), Some(Code::BadAmount));
    assert_eq!([worth(&[62], 1 << 62), worth(&[63], 1)], [None, Some(Code::BadContent)]);
    let asks = |tier| code(&wire::Bearer { notes: inputs(1, 62), outputs: vec![note(tier)], ..Default::default() });
    assert_eq!([asks(62), asks(63)], [None, Some(Code::BadContent)]);
    let blinded = |length: usize| {
        let request = wire::NoteRequest { tier: 0, blinded: vec![1; length].into() };
        let outputs = vec![wire::Output { kind: Some(output::Kind::Note(request)) }];
        code(&wire::Bearer { notes: inputs(1, 0), outputs, ..Default::default() })
    };
    assert_eq!([47, 48, 49].map(blinded), [Some(Code::BadContent), None, Some(Code::BadContent)]);
}

#[test]
fn each_note_has_its_signatures_in_the_order_of_the_notes() {
    let order = |notes: usize| {
        let spend = |(i, input): (usize, wire::NoteInput)| Spend {
            input,
            signature: [i as u8; 48],
            sign: Box::new(move |_| [i as u8; 64]),
        };
        let spends: Vec<Spend> = inputs(notes, 0).into_iter().enumerate().map(spend).collect();
        let order = Order::decode(build(77, &spends, vec![credit(notes as u64)], "", None)).unwrap();
        let crate::content::Action::Bearer(bearer) = crate::content::Content::decode(&order).unwrap().action else {
            panic!("a bearer order")
        };
        (order, bearer)
    };
    let per = SIGS_PER_AUTHORITY_MAX;
    for notes in [1, per - 1, per, per + 1, 2 * per, 2 * per + 3, NOTES_IN_MAX] {
        let (order, bearer) = order(notes);
        assert_eq!(order.authorities.len(), notes.div_ceil(per));
        let found = signatures(&order, &bearer).unwrap();
        assert!(found.iter().map(|sig| **sig).eq((0..notes).map(|i| [i as u8; SIGNATURE_BYTES])), "{notes} notes");
    }
    let (good, bearer) = order(per + 3);
    let refused = |change: fn(&mut Order)| {
        let mut order = good.clone();
        change(&mut order);
        signatures(&order, &bearer).unwrap_err().code
    };
    assert_eq!(refused(|o| drop(o.authorities.pop())), Code::AuthorityCount);
    assert_eq!(refused(|o| o.authorities.push(Authority::default())), Code::AuthorityCount);
    assert_eq!(refused(|o| o.authorities[1].key_type = 1), Code::KeyType);
    assert_eq!(refused(|o| drop(o.authorities[0].sigs.pop())), Code::SigFormat);
    assert_eq!(refused(|o| o.authorities[1].sigs.push(vec![0; SIGNATURE_BYTES].into())), Code::SigFormat);
    assert_eq!(refused(|o| o.authorities[1].sigs[0] = vec![0; SIGNATURE_BYTES - 1].into()), Code::SigFormat);
    // Its frame names no account.
    assert_eq!(refused(|o| o.actor = 1), Code::BadContent);
    assert_eq!(refused(|o| o.seqnum = 1), Code::BadContent);
    assert_eq!(refused(|o| o.prev_hash = 1), Code::BadContent);
    assert_eq!(refused(|o| o.cosignors.push(1)), Code::BadContent);
}
