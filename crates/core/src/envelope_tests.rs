use proptest::prelude::*;

use super::*;
use crate::keys::{Curve, SecretKey};

/// `pbtx.TransactionBody` with the cosignors packed, as the published protocol has them.
#[derive(Clone, PartialEq, ::prost::Message)]
struct ReferenceBody {
    #[prost(fixed64, tag = "1")]
    network_id: u64,
    #[prost(fixed64, tag = "2")]
    actor: u64,
    #[prost(fixed64, repeated, tag = "3")]
    cosignors: Vec<u64>,
    #[prost(uint32, tag = "4")]
    seqnum: u32,
    #[prost(fixed64, tag = "5")]
    prev_hash: u64,
    #[prost(uint32, tag = "6")]
    transaction_type: u32,
    #[prost(bytes = "bytes", tag = "7")]
    content: Bytes,
}

/// The rule: decode, check limits, encode again, compare.
fn reference(raw: &Bytes) -> std::result::Result<(pbtx::Transaction, ReferenceBody), Code> {
    let envelope = pbtx::Transaction::decode(raw.clone()).map_err(|_| Code::Decode)?;
    let too_many = envelope.authorities.iter().any(|a| a.sigs.len() > 16 || a.sigs.iter().any(|s| s.len() > 128));
    if envelope.body.len() > 65_000 || envelope.authorities.len() > 8 || too_many {
        return Err(Code::Limit);
    }
    if envelope.body.is_empty() {
        return Err(Code::EmptyBody);
    }
    if envelope.encode_to_vec() != *raw {
        return Err(Code::NonCanonical);
    }
    let body = ReferenceBody::decode(envelope.body.clone()).map_err(|_| Code::Decode)?;
    if body.cosignors.len() > 4 || body.content.len() > 16_384 {
        return Err(Code::Limit);
    }
    if body.encode_to_vec() != envelope.body {
        return Err(Code::NonCanonical);
    }
    if [body.network_id, body.actor].iter().chain(&body.cosignors).any(|id| id >> 63 == 1) {
        return Err(Code::Int63);
    }
    Ok((envelope, body))
}

/// Decoder and rule say the same, down to the code and every field.
fn agree(raw: Vec<u8>) -> std::result::Result<(), TestCaseError> {
    let raw = Bytes::from(raw);
    match (Order::decode(raw.clone()), reference(&raw)) {
        (Ok(order), Ok((envelope, body))) => {
            let fields = ReferenceBody {
                network_id: order.network_id,
                actor: order.actor,
                cosignors: order.cosignors.clone(),
                seqnum: order.seqnum,
                prev_hash: order.prev_hash,
                transaction_type: order.transaction_type,
                content: order.content.clone(),
            };
            prop_assert_eq!(fields, body);
            prop_assert_eq!(&order.body, &envelope.body);
            let authorities =
                order.authorities.iter().map(|a| pbtx::Authority { r#type: a.key_type, sigs: a.sigs.clone() });
            prop_assert_eq!(authorities.collect::<Vec<_>>(), envelope.authorities);
            prop_assert_eq!(encode_envelope(&order.body, &order.authorities), raw.clone());
            prop_assert_eq!(order.raw, raw);
        }
        (Err(error), Err(code)) => prop_assert_eq!(error.code, code),
        (ours, rule) => prop_assert!(false, "decoder: {:?}, rule: {:?}", ours, rule),
    }
    Ok(())
}

fn any_id() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(ID_MAX), Just(ID_MAX + 1), 0..=ID_MAX]
}

fn any_body() -> impl Strategy<Value = Body> {
    let content = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (CONTENT_BYTES_MAX - 1..=CONTENT_BYTES_MAX + 1).prop_map(|len| vec![7; len]),
    ];
    let cosignors = prop::collection::vec(any_id(), 0..=5);
    let small = || prop_oneof![Just(0), Just(u32::MAX), any::<u32>(), 0..300u32];
    (any_id(), any_id(), cosignors, small(), any::<u64>(), small(), content).prop_map(
        |(network_id, actor, cosignors, seqnum, prev_hash, transaction_type, content)| Body {
            network_id,
            actor,
            cosignors,
            seqnum,
            prev_hash,
            transaction_type,
            content: content.into(),
        },
    )
}

fn any_authority() -> impl Strategy<Value = Authority> {
    let key_type = prop_oneof![4 => Just(0), 1 => Just(-1), 1 => any::<i32>()];
    let sig = prop_oneof![Just(66), 0..130usize].prop_map(|len| Bytes::from(vec![0x5a; len]));
    (key_type, prop::collection::vec(sig, 0..=17)).prop_map(|(key_type, sigs)| Authority { key_type, sigs })
}

/// An envelope that a client could make, and some that break a limit.
fn any_envelope() -> impl Strategy<Value = Vec<u8>> {
    let authorities = prop_oneof![
        4 => prop::collection::vec(any_authority(), 0..=2),
        1 => prop::collection::vec(Just(Authority::default()), 7..=9),
    ];
    (any_body(), authorities)
        .prop_map(|(body, authorities)| encode_envelope(&encode_body(&body), &authorities).to_vec())
}

/// Changes bytes of a message: sets, removes or inserts one, swaps or repeats a part, lengthens a varint.
fn mutate(bytes: &mut Vec<u8>, kind: u8, at: prop::sample::Index, to: u8, length: usize) {
    if bytes.is_empty() {
        return;
    }
    let at = at.index(bytes.len());
    let end = (at + length).min(bytes.len());
    match kind {
        0 => bytes[at] = to,
        1 => drop(bytes.remove(at)),
        2 => bytes.insert(at, to),
        3 => bytes.truncate(at),
        4 => bytes.rotate_left(at),
        5 => bytes.extend_from_within(at..end),
        6 => {
            bytes[at] |= 0x80;
            bytes.insert(at + 1, 0);
        }
        _ => bytes.extend([to, to]),
    }
}

type Change = (u8, prop::sample::Index, u8, usize);
fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((0..8u8, any::<prop::sample::Index>(), any::<u8>(), 0..80usize), 1..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_decode_by_the_rule(raw in prop::collection::vec(any::<u8>(), 0..60)) {
        agree(raw)?;
    }

    /// Tags, small lengths and zeros: random bytes that get deep.
    #[test]
    fn likely_bytes_decode_by_the_rule(
        raw in prop::collection::vec(prop::sample::select(&[0u8, 1, 2, 4, 8, 9, 0x0a, 0x0d, 0x11, 0x12, 0x1a, 0x19, 0x20, 0x29,
            0x30, 0x3a, 0x80, 0xff][..]), 0..40),
        wrap in any::<bool>(),
    ) {
        agree(if wrap { encode_envelope(&raw, &[Authority::default()]).to_vec() } else { raw })?;
    }

    #[test]
    fn envelopes_decode_by_the_rule(raw in any_envelope()) {
        agree(raw)?;
    }

    #[test]
    fn changed_envelopes_decode_by_the_rule(mut raw in any_envelope(), changes in changes()) {
        for (kind, at, to, length) in changes {
            mutate(&mut raw, kind, at, to, length);
        }
        agree(raw)?;
    }

    #[test]
    fn changed_bodies_decode_by_the_rule(body in any_body(), changes in changes()) {
        let mut body = encode_body(&body).to_vec();
        for (kind, at, to, length) in changes {
            mutate(&mut body, kind, at, to, length);
        }
        agree(encode_envelope(&body, &[Authority::default()]).to_vec())?;
    }
}

#[test]
fn published_bodies_have_the_published_hashes() {
    for (body, hash, content) in [
        ("09010000000000000011010000000000000020013063", 5_123_866_026_275_952_426, ""),
        (
            "090a0000000000000011370000000000000020013a0e0813120a0a08626c6168626c6168",
            66_433_744_244_149_695,
            "0813120a0a08626c6168626c6168",
        ),
    ] {
        let body = hex::decode(body).unwrap();
        let order = Order::decode(encode_envelope(&body, &[Authority::default()])).unwrap();
        assert_eq!(order.next_hash(), hash);
        assert_eq!(hex::encode(&order.content), content);
        assert_eq!(order.seqnum, 1);
        let fields = Body {
            network_id: order.network_id,
            actor: order.actor,
            cosignors: order.cosignors,
            seqnum: order.seqnum,
            prev_hash: order.prev_hash,
            transaction_type: order.transaction_type,
            content: order.content,
        };
        assert_eq!(encode_body(&fields), body);
    }
}

fn code_of(raw: &[u8]) -> Code {
    Order::decode(Bytes::copy_from_slice(raw)).unwrap_err().code
}

fn body() -> Body {
    Body { network_id: 1, actor: 2, cosignors: vec![3, 4], seqnum: 5, prev_hash: u64::MAX, ..Body::default() }
}

fn wrap(body: &[u8]) -> Vec<u8> {
    encode_envelope(body, &[]).to_vec()
}

#[test]
fn every_strict_check_has_its_code() {
    let good = encode_body(&body());
    let sigs = |count, length| Authority { key_type: 0, sigs: vec![vec![0; length].into(); count] };
    let with = |authorities: Vec<Authority>| encode_envelope(&good, &authorities).to_vec();
    assert!(Order::decode(with(vec![sigs(16, 128); 8]).into()).is_ok());

    assert_eq!(code_of(&[]), Code::EmptyBody);
    assert_eq!(code_of(&[0x0a, 0]), Code::EmptyBody);
    assert_eq!(code_of(&[0x0a, 5, 1]), Code::Decode);
    assert_eq!(code_of(&with(vec![sigs(1, 1); 9])), Code::Limit);
    assert_eq!(code_of(&with(vec![sigs(17, 1)])), Code::Limit);
    assert_eq!(code_of(&with(vec![sigs(1, 129)])), Code::Limit);
    assert_eq!(code_of(&wrap(&[0; 65_001])), Code::Limit);
    // An unknown field, the default of a known one, a field twice: other bytes for the same order.
    for extra in [&[0x18, 1][..], &[0x12, 2, 8, 0], &[0x0a, 2, 8, 1]] {
        assert_eq!(code_of(&[&with(vec![]), extra].concat()), Code::NonCanonical);
    }
    assert_eq!(code_of(&wrap(&[0x09, 1])), Code::Decode);
    assert_eq!(code_of(&wrap(&encode_body(&Body { cosignors: vec![3; 5], ..body() }))), Code::Limit);
    let content = vec![0; CONTENT_BYTES_MAX + 1].into();
    assert_eq!(code_of(&wrap(&encode_body(&Body { content, ..body() }))), Code::Limit);
    for extra in [&[0x20, 5][..], &[0x40, 1], &[0x3a, 0]] {
        assert_eq!(code_of(&wrap(&[&good[..], extra].concat())), Code::NonCanonical);
    }
    let unpacked = [&[0x09, 1, 0, 0, 0, 0, 0, 0, 0][..], &[0x19, 1, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(code_of(&wrap(&unpacked)), Code::NonCanonical);
    for body in [
        Body { network_id: 1 << 63, ..body() },
        Body { actor: u64::MAX, ..body() },
        Body { cosignors: vec![1, 1 << 63], ..body() },
    ] {
        assert_eq!(code_of(&wrap(&encode_body(&body))), Code::Int63);
    }
}

#[test]
fn counts_and_duplicates_are_screened() {
    let screen = |cosignors: &[u64], authorities| {
        let body = encode_body(&Body { cosignors: cosignors.to_vec(), ..body() });
        let order = Order::decode(encode_envelope(&body, &vec![Authority::default(); authorities])).unwrap();
        order.screen_counts().map_err(|e| e.code)
    };
    assert_eq!(screen(&[], 1), Ok(()));
    assert_eq!(screen(&[3, 4, 5, 6], 5), Ok(()));
    assert_eq!(screen(&[3, 4, 3], 4), Err(Code::DuplicateCosignor));
    assert_eq!(screen(&[3, 2], 3), Err(Code::DuplicateCosignor));
    for count in [0, 1, 3] {
        assert_eq!(screen(&[3], count), Err(Code::AuthorityCount));
    }
}

#[test]
fn a_decoded_order_copies_nothing() {
    let key = SecretKey::from_seed(Curve::Ed25519, [1; 32]).unwrap();
    let body = encode_body(&Body { content: vec![9; 100].into(), ..body() });
    let raw = encode_envelope(&body, &[Authority::of(&[key.sign_body(&body)])]);
    let order = Order::decode(raw.clone()).unwrap();
    let inside = raw.as_ptr_range();
    for part in [&order.raw, &order.body, &order.content, &order.authorities[0].sigs[0]] {
        assert!(inside.contains(&part.as_ptr()));
    }
}

#[test]
fn the_type_of_a_key_is_read_and_written_as_the_general_encoder_does() {
    let body = encode_body(&Body { network_id: 1, ..Body::default() });
    for key_type in [0, 1, 2, 127, 128, i32::MAX, -1, i32::MIN] {
        let sigs = vec![Bytes::from_static(b"sig")];
        let authority = pbtx::Authority { r#type: key_type, sigs: sigs.clone() };
        let general = pbtx::Transaction { body: body.clone(), authorities: vec![authority] }.encode_to_vec();
        let order = Order::decode(general.clone().into()).unwrap();
        assert_eq!(order.authorities, [Authority { key_type, sigs }]);
        assert_eq!(encode_envelope(&order.body, &order.authorities), general);
    }
}
