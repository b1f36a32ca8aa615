//! PBTX's strict rules, as an authority and `florin pbtx verify` apply them: the published values, the one order of all
//! checks, and the ways in which the original is weak, each refused by its code.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::Code;
use florin_core::envelope::{Authority, Body, encode_body, encode_envelope};
use florin_core::eosio::PrivateKey;
use florin_core::keys::{Curve, SecretKey, Signature};
use florin_core::network_flags::{HISTORY, RAW_NOTIFY, SKIP_SEQ_AND_PREVHASH};
use florin_core::permission::Permission;
use florin_core::testing::secret;
use florin_core::verdict::{Actor, Network, check_chain};

const NETWORK: u64 = 10;
const ACTOR: u64 = 55;
const COSIGNOR: u64 = 66;
const CURVES: [Curve; 3] = [Curve::K1, Curve::R1, Curve::Ed25519];
/// The actor's last seqnum and prev_hash.
const LAST: (u32, u64) = (4, u64::MAX - 1);

fn permission(actor: u64, threshold: u32, keys: &[(&SecretKey, u32)]) -> Permission {
    Permission { actor, threshold, keys: keys.iter().map(|(key, weight)| (key.public(), *weight)).collect() }
}

/// A network with these actors, all after `LAST`.
fn network(permissions: Vec<Permission>) -> Network {
    let actor = |p: Permission| (p.actor, Actor { permission: Some(p), seqnum: LAST.0, prev_hash: LAST.1 });
    Network { id: NETWORK, flags: 0, actors: permissions.into_iter().map(actor).collect() }
}

/// The actor with one key of each curve, any of which is enough, and a cosignor.
fn usual() -> Network {
    let keys = CURVES.map(|curve| secret(curve, 1));
    let actor = permission(ACTOR, 1, &keys.each_ref().map(|key| (key, 1)));
    network(vec![actor, permission(COSIGNOR, 1, &[(&secret(Curve::K1, 2), 1)])])
}

fn body() -> Body {
    Body { network_id: NETWORK, actor: ACTOR, seqnum: LAST.0 + 1, prev_hash: LAST.1, ..Body::default() }
}

/// The body, signed by each key as one authority.
fn signed(body: &Body, authorities: &[&[&SecretKey]]) -> Bytes {
    let bytes = encode_body(body);
    let of = |keys: &&[&SecretKey]| Authority::of(&keys.iter().map(|key| key.sign_body(&bytes)).collect::<Vec<_>>());
    encode_envelope(&bytes, &authorities.iter().map(of).collect::<Vec<_>>())
}

/// The code, and what it cost in curve operations.
fn judge(network: &Network, raw: impl Into<Bytes>) -> (Result<(u32, u64), Code>, usize) {
    let verdict = network.judge_transaction(raw.into());
    (verdict.next.map_err(|e| e.code), verdict.verifications)
}

fn code(network: &Network, raw: impl Into<Bytes>) -> Option<Code> {
    judge(network, raw).0.err()
}

#[test]
fn published_bodies_lead_to_the_published_prev_hashes() {
    for (text, expected) in [
        ("09010000000000000011010000000000000020013063", 5_123_866_026_275_952_426),
        ("090a0000000000000011370000000000000020013a0e0813120a0a08626c6168626c6168", 66_433_744_244_149_695),
    ] {
        let body = hex::decode(text).unwrap();
        let network_id = u64::from(body[1]);
        let actor = u64::from(body[10]);
        for name in [
            "5KgBKkXDZf6u4RrRwQARZMTNNU7E5bnKm5ELrxnqXGWVQ1DtRE7",
            "PVT_R1_2B17RwGod27jJFMmDZdfYSKTjLsjiUvbEFLDTtDiK5rs8SBrh4",
        ] {
            let key = PrivateKey::from_text(name).unwrap().signer();
            let permission = Some(permission(actor, 1, &[(&key, 1)]));
            let network = Network {
                id: network_id,
                flags: 0,
                actors: BTreeMap::from([(actor, Actor { permission, seqnum: 0, prev_hash: 0 })]),
            };
            let raw = encode_envelope(&body, &[Authority::of(&[key.sign_body(&body)])]);
            assert_eq!(judge(&network, raw), (Ok((1, expected)), 1));
        }
    }
}

#[test]
fn the_published_permission_registers_its_actor() {
    let bytes = hex::decode(
        "09030000000000000010021a280a2412220003a1a62f15551e5a4989abec133b404caa6a40d783b8f47e26be95f4dc48ecfc0d10011a280a24122201020b849e7b995aec840911fc25a7769c54a4e8d9e5adfd37bf0c81c79c037ab89610011a280a241222010271e79e42adaee0001bbafbd2366d84b1972fff3bbe9082bfe3ccd7517e5b87811001",
    )
    .unwrap();
    assert_eq!(Permission::decode_actor(&bytes).unwrap().encode(), bytes);
    assert_eq!(usual().judge_permission(&bytes).next, Ok((0, 0)));
    assert_eq!(network(vec![permission(3, 1, &[(&secret(Curve::K1, 1), 1)])]).judge_permission(&bytes).next, Ok(LAST));
}

#[test]
fn what_follows_the_rules_is_accepted() {
    let network = usual();
    for curve in CURVES {
        let raw = signed(&body(), &[&[&secret(curve, 1)]]);
        let (next, cost) = judge(&network, raw.clone());
        assert_eq!(next.unwrap().0, LAST.0 + 1);
        assert_eq!(cost, 1);
        // What an accepted transaction leaves is what the next one must name.
        let hash = florin_core::envelope::Order::decode(raw).unwrap().next_hash();
        assert_eq!(next.unwrap().1, hash);
    }
    let keys = CURVES.map(|curve| secret(curve, 1));
    let with_cosignor = Body { cosignors: vec![COSIGNOR], ..body() };
    let raw = signed(&with_cosignor, &[&keys.each_ref()[..], &[&secret(Curve::K1, 2)]]);
    assert_eq!(code(&network, raw), None);
}

/// Each row breaks the check that it names and every later one: the first one is reported.
#[test]
fn the_first_check_that_fails_gives_the_code() {
    let network = usual();
    let wrong =
        |authorities: usize| vec![Authority { key_type: 1, sigs: vec![Bytes::from_static(&[9; 5])] }; authorities];
    let of = |body: &Body, authorities: usize| encode_envelope(&encode_body(body), &wrong(authorities)).to_vec();
    let with = |change: fn(&mut Body)| {
        let mut body =
            Body { network_id: 11, actor: 77, cosignors: vec![88, 88], seqnum: 99, prev_hash: 1, ..Body::default() };
        change(&mut body);
        body
    };
    // The outer message, with a body that is no message.
    let garbage = [0xff; 3];
    let outer = |count: usize, sig: usize| {
        let authority = Authority { key_type: 1, sigs: vec![vec![0; sig].into()] };
        encode_envelope(&garbage, &vec![authority; count]).to_vec()
    };
    let unknown = [&outer(1, 1)[..], &[0x18, 1]].concat();
    let unknown_inner = |body: &Body| {
        let bytes = [&encode_body(body)[..], &[0x40, 1]].concat();
        encode_envelope(&bytes, &wrong(1)).to_vec()
    };
    let rows: Vec<(Code, Vec<u8>)> = vec![
        (Code::Decode, [&outer(9, 129)[..], &[0xff]].concat()),
        (Code::Limit, [&outer(9, 1)[..], &[0x18, 1]].concat()),
        (Code::Limit, [&outer(1, 129)[..], &[0x18, 1]].concat()),
        (Code::EmptyBody, [&encode_envelope(&[], &wrong(1))[..], &[0x18, 1]].concat()),
        (Code::NonCanonical, unknown),
        (Code::Decode, outer(1, 1)),
        (Code::Limit, unknown_inner(&with(|b| b.cosignors = vec![1 << 63; 5]))),
        (Code::NonCanonical, unknown_inner(&with(|b| b.actor = 1 << 63))),
        (Code::Int63, of(&with(|b| b.network_id = 1 << 63), 1)),
        (Code::Int63, of(&with(|b| b.actor = 1 << 63), 1)),
        (Code::Int63, of(&with(|b| b.cosignors[1] = 1 << 63), 1)),
        (Code::UnknownNetwork, of(&with(|_| ()), 1)),
        (Code::UnknownActor, of(&with(|b| b.network_id = NETWORK), 1)),
        (Code::DuplicateCosignor, of(&Body { cosignors: vec![88, 88], seqnum: 99, prev_hash: 1, ..body() }, 1)),
        (Code::DuplicateCosignor, of(&Body { cosignors: vec![ACTOR], seqnum: 99, prev_hash: 1, ..body() }, 1)),
        (Code::AuthorityCount, of(&Body { cosignors: vec![88], seqnum: 99, prev_hash: 1, ..body() }, 1)),
        (Code::AuthorityCount, of(&Body { cosignors: vec![88], seqnum: 99, prev_hash: 1, ..body() }, 3)),
        (Code::BadSeq, of(&Body { cosignors: vec![88], seqnum: 99, prev_hash: 1, ..body() }, 2)),
        (Code::BadPrevHash, of(&Body { cosignors: vec![88], prev_hash: 1, ..body() }, 2)),
        (Code::KeyType, of(&Body { cosignors: vec![88], ..body() }, 2)),
    ];
    for (i, (expected, raw)) in rows.into_iter().enumerate() {
        assert_eq!(judge(&network, raw), (Err(expected), 0), "row {i}");
    }
}

/// Signatures one by one, authorities one by one: the first thing wrong in that order gives the code, and nothing
/// after it is worked on.
#[test]
fn signatures_are_judged_in_their_order() {
    let network = usual();
    let cosigned = encode_body(&Body { cosignors: vec![COSIGNOR, 88], ..body() });
    let keys = CURVES.map(|curve| secret(curve, 1));
    let [k1, r1, ed] = &keys;
    let (cosignor, stranger) = (secret(Curve::K1, 2), secret(Curve::R1, 9));
    let sig = |key: &SecretKey| key.sign_body(&cosigned);
    let raw = |sig: Signature| Bytes::copy_from_slice(sig.as_bytes());
    let short = raw(sig(k1)).slice(..65);
    let mut not_canonical = sig(k1).as_bytes().to_vec();
    not_canonical[34] |= 0x80;
    let not_canonical = Bytes::copy_from_slice(&not_canonical);
    let good = || Authority::of(&[sig(ed)]);
    let others = |first: Authority, second: Authority| {
        judge(&network, encode_envelope(&cosigned, &[first, second, Authority { key_type: 1, sigs: vec![] }]))
    };
    let own = |sigs: Vec<Bytes>| {
        let (next, cost) = others(Authority { key_type: 0, sigs }, Authority { key_type: 1, sigs: vec![] });
        (next.unwrap_err(), cost)
    };
    assert_eq!(own(vec![]), (Code::InsufficientWeight, 0));
    assert_eq!(own(vec![short.clone(), raw(sig(&stranger))]), (Code::SigFormat, 0));
    assert_eq!(own(vec![not_canonical.clone(), short.clone()]), (Code::SigNotCanonical, 0));
    assert_eq!(own(vec![raw(sig(&stranger)), short.clone()]).0, Code::KeyMismatch);
    assert_eq!(own(vec![raw(sig(k1)), raw(sig(k1)), short.clone()]).0, Code::DuplicateSig);
    assert_eq!(own(vec![raw(sig(k1)), short.clone(), raw(sig(&stranger))]), (Code::SigFormat, 1));
    assert_eq!(own(vec![raw(sig(k1)), not_canonical, raw(sig(&stranger))]), (Code::SigNotCanonical, 1));
    assert_eq!(own(vec![raw(sig(k1)), raw(sig(r1)), raw(sig(ed))]).0, Code::KeyType, "then the cosignor's");
    // The actor's authority comes before everything of the cosignors.
    assert_eq!(others(Authority::of(&[sig(&stranger)]), good()).0, Err(Code::KeyMismatch));
    assert_eq!(others(good(), Authority { key_type: 0, sigs: vec![short] }).0, Err(Code::SigFormat));
    assert_eq!(others(good(), Authority::of(&[])).0, Err(Code::InsufficientWeight));
    assert_eq!(others(good(), Authority::of(&[sig(k1)])).0, Err(Code::KeyMismatch));
    assert_eq!(others(good(), Authority::of(&[sig(&cosignor), sig(&cosignor)])).0, Err(Code::DuplicateSig));
    // Cosignor 88 is unknown, and its authority's type is not even looked at.
    assert_eq!(others(good(), Authority::of(&[sig(&cosignor)])).0, Err(Code::UnknownCosignor));
}

#[test]
fn eighty_signatures_after_a_bad_seqnum_cost_nothing() {
    for curve in CURVES {
        let keys: Vec<SecretKey> = (1..=16).map(|n| secret(curve, n)).collect();
        let all: Vec<&SecretKey> = keys.iter().collect();
        let weights: Vec<(&SecretKey, u32)> = keys.iter().map(|key| (key, 1)).collect();
        let cosignors = vec![66, 67, 68, 69];
        let accounts = std::iter::once(ACTOR).chain(cosignors.iter().copied());
        let network = network(accounts.map(|actor| permission(actor, 16, &weights)).collect());
        let judged = |body: Body| judge(&network, signed(&body, &[&all[..]; 5]));
        let good = Body { cosignors, ..body() };
        assert_eq!(judged(Body { seqnum: 9, ..good.clone() }), (Err(Code::BadSeq), 0));
        assert_eq!(judged(Body { prev_hash: 9, ..good.clone() }), (Err(Code::BadPrevHash), 0));
        assert_eq!(judged(Body { cosignors: vec![66, 67, 68, 66], ..good.clone() }), (Err(Code::DuplicateCosignor), 0));
        let (next, cost) = judged(good);
        assert_eq!((next.map(|next| next.0), cost), (Ok(5), 80));
    }
}

// Where the original is weak, row by row.

#[test]
fn weakness_1_one_key_repeated_does_not_reach_a_threshold() {
    for curve in CURVES {
        let (a, b) = (secret(curve, 1), secret(curve, 2));
        let network = network(vec![permission(ACTOR, 2, &[(&a, 1), (&b, 1)])]);
        assert_eq!(code(&network, signed(&body(), &[&[&a, &b]])), None);
        assert_eq!(code(&network, signed(&body(), &[&[&a]])), Some(Code::InsufficientWeight));
        assert_eq!(code(&network, signed(&body(), &[&[&a, &a]])), Some(Code::DuplicateSig));
        assert_eq!(code(&network, signed(&body(), &[&[&a, &b, &a]])), Some(Code::DuplicateSig));
    }
    // Another signature of the same key and body, which anyone with the key can make, is no other key.
    let (a, b) = (SecretKey::from_seed(Curve::K1, [7; 32]).unwrap(), secret(Curve::K1, 2));
    let network = network(vec![permission(ACTOR, 2, &[(&a, 1), (&b, 1)])]);
    let bytes = encode_body(&body());
    let other = signature_with_other_nonce(&bytes);
    assert_ne!(other, a.sign_body(&bytes));
    let raw = encode_envelope(&bytes, &[Authority::of(&[a.sign_body(&bytes), other])]);
    assert_eq!(code(&network, raw), Some(Code::DuplicateSig));
}

/// The K1 key 0707... signs with RFC 6979 and other additional data than Florin's tries use.
fn signature_with_other_nonce(body: &[u8]) -> Signature {
    use k256::ecdsa::SigningKey;
    use sha2::Digest;
    let key = SigningKey::from_slice(&[7; 32]).unwrap();
    let digest: [u8; 32] = sha2::Sha256::digest(body).into();
    (0..=u8::MAX)
        .find_map(|n| {
            let scalar = key.as_nonzero_scalar();
            let (sig, id) = ecdsa::hazmat::sign_prehashed_rfc6979::<k256::Secp256k1, k256::sha2::Sha256>(
                scalar,
                &digest,
                &[n, 1, 2, 3],
            );
            Signature::parse(&[&[0, 31 + id.to_byte()][..], &sig.to_bytes()].concat()).ok()
        })
        .unwrap()
}

#[test]
fn weakness_2_one_order_has_one_encoding() {
    let network = usual();
    let key = secret(Curve::K1, 1);
    let bytes = encode_body(&body());
    let sig = key.sign_body(&bytes).as_bytes().to_vec();
    let with = |sig: &[u8], key_type| {
        let sigs = vec![Bytes::copy_from_slice(sig)];
        code(&network, encode_envelope(&bytes, &[Authority { key_type, sigs }]))
    };
    assert_eq!(with(&sig, 0), None);
    // Any Authority.type.
    for key_type in [1, 2, -1, i32::MAX] {
        assert_eq!(with(&sig, key_type), Some(Code::KeyType));
    }
    // Trailing bytes; headers of uncompressed keys; curves that nobody knows.
    assert_eq!(with(&[&sig[..], &[0]].concat(), 0), Some(Code::SigFormat));
    for header in [0, 27, 28, 29, 30, 35, 255] {
        let mut other = sig.clone();
        other[1] = header;
        assert_eq!(with(&other, 0), Some(Code::SigFormat), "header {header}");
    }
    for curve in [2, 3, 0x0f, 0x11] {
        let mut other = sig.clone();
        other[0] = curve;
        assert_eq!(with(&other, 0), Some(Code::SigFormat), "curve {curve}");
    }
    // A flipped recovery id.
    for header in (31..=34).filter(|header| *header != sig[1]) {
        let mut other = sig.clone();
        other[1] = header;
        assert_eq!(with(&other, 0), Some(Code::KeyMismatch), "header {header}");
    }
    // Unknown fields, defaults that are written out, fields twice: inside and outside.
    let raw = signed(&body(), &[&[&key]]);
    let of = |body: &[u8]| encode_envelope(body, &[Authority::of(&[key.sign_body(body)])]);
    for extra in [&[0x40, 1][..], &[0x30, 0], &[0x20, 5]] {
        assert_eq!(code(&network, of(&[&bytes[..], extra].concat())), Some(Code::NonCanonical));
    }
    for extra in [&[0x18, 1][..], &[0x0a, 2, 8, 1]] {
        assert_eq!(code(&network, [&raw[..], extra].concat()), Some(Code::NonCanonical));
    }
    // seqnum as a longer number that is the same in 32 bits.
    let at = bytes.iter().position(|byte| *byte == 0x20).unwrap();
    assert_eq!(bytes[at + 1], 5);
    let wrapped = [&bytes[..at + 1], &[0x85, 0x80, 0x80, 0x80, 0x10], &bytes[at + 2..]].concat();
    assert_eq!(code(&network, of(&wrapped)), Some(Code::NonCanonical));
}

#[test]
fn weakness_2_high_s_is_refused() {
    let network = usual();
    let bytes = encode_body(&body());
    let orders = [
        (Curve::K1, "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"),
        (Curve::R1, "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
    ];
    for (curve, order) in orders {
        let order = hex::decode(order).unwrap();
        let mut sig = secret(curve, 1).sign_body(&bytes).as_bytes().to_vec();
        // n - s, with the other recovery id: as true as the first one for those who ask for the equation alone.
        let mut borrow = 0i32;
        for i in (0..32).rev() {
            let digit = i32::from(order[i]) - i32::from(sig[34 + i]) - borrow;
            sig[34 + i] = digit.rem_euclid(256) as u8;
            borrow = i32::from(digit < 0);
        }
        sig[1] = 31 + ((sig[1] - 31) ^ 1);
        let sigs = vec![Bytes::copy_from_slice(&sig)];
        let raw = encode_envelope(&bytes, &[Authority { key_type: 0, sigs }]);
        assert_eq!(judge(&network, raw), (Err(Code::SigNotCanonical), 0), "{curve:?}");
    }
}

#[test]
fn weakness_3_removing_and_adding_an_actor_replays_nothing() {
    let key = secret(Curve::K1, 1);
    let own = permission(ACTOR, 1, &[(&key, 1)]);
    let mut network = network(vec![own.clone()]);
    let first = signed(&Body { seqnum: 1, prev_hash: 0, ..body() }, &[&[&key]]);
    assert_eq!(code(&network, first.clone()), Some(Code::BadSeq));
    network.actors.get_mut(&ACTOR).unwrap().permission = None;
    assert_eq!(code(&network, first.clone()), Some(Code::UnknownActor));
    let (seqnum, prev_hash) = network.judge_permission(&own.encode()).next.unwrap();
    assert_eq!((seqnum, prev_hash), LAST);
    network.actors.insert(ACTOR, Actor { permission: Some(own), seqnum, prev_hash });
    assert_eq!(code(&network, first), Some(Code::BadSeq));
}

#[test]
fn weakness_4_duplicates_and_wraps_are_refused() {
    let (a, b) = (secret(Curve::K1, 1), secret(Curve::R1, 1));
    let network = usual();
    let registered = |p: &Permission| network.judge_permission(&p.encode()).next.map_err(|e| e.code);
    assert_eq!(registered(&permission(1, 1, &[(&a, 1), (&b, 1)])), Ok((0, 0)));
    for bad in [
        permission(1, 2, &[(&a, 1), (&a, 1)]),
        permission(0, 1, &[(&a, 1)]),
        permission(1, 0, &[(&a, 1)]),
        permission(1, 1, &[(&a, 1), (&b, 0)]),
        permission(1, 3, &[(&a, 1), (&b, 1)]),
        permission(1, 1, &[]),
    ] {
        assert_eq!(registered(&bad), Err(Code::BadPermission), "{bad:?}");
    }
    assert_eq!(registered(&permission(1 << 63, 1, &[(&a, 1)])), Err(Code::Int63));
    // 2^32 - 1 + 2 is 1 in 32 bits; here it is enough for the largest threshold, and neither key alone is.
    let heavy = permission(ACTOR, u32::MAX, &[(&a, u32::MAX - 1), (&b, 3)]);
    assert_eq!(registered(&heavy), Ok(LAST));
    let network = self::network(vec![heavy]);
    assert_eq!(code(&network, signed(&body(), &[&[&a, &b]])), None);
    assert_eq!(code(&network, signed(&body(), &[&[&a]])), Some(Code::InsufficientWeight));
    // A cosignor twice, and the actor as its own cosignor.
    for cosignors in [vec![COSIGNOR, COSIGNOR], vec![ACTOR]] {
        let own = [&a];
        let authorities = vec![&own[..]; cosignors.len() + 1];
        let raw = signed(&Body { cosignors, ..body() }, &authorities);
        assert_eq!(code(&usual(), raw), Some(Code::DuplicateCosignor));
    }
}

#[test]
fn weakness_4_sequence_numbers_end_and_do_not_wrap() {
    let key = secret(Curve::K1, 1);
    let mut network = network(vec![permission(ACTOR, 1, &[(&key, 1)])]);
    let at = |network: &mut Network, seqnum| network.actors.get_mut(&ACTOR).unwrap().seqnum = seqnum;
    let order = |seqnum| signed(&Body { seqnum, ..body() }, &[&[&key]]);
    at(&mut network, u32::MAX - 1);
    assert_eq!(judge(&network, order(u32::MAX)).0.unwrap().0, u32::MAX);
    at(&mut network, u32::MAX);
    for seqnum in [0, 1, u32::MAX] {
        assert_eq!(judge(&network, order(seqnum)), (Err(Code::SeqExhausted), 0));
    }
}

#[test]
fn ids_end_at_63_bits_and_prev_hash_does_not() {
    let key = secret(Curve::K1, 1);
    let id = (1 << 63) - 1;
    let mut network = network(vec![permission(id, 1, &[(&key, 1)])]);
    network.id = id;
    let raw = |body: &Body| signed(body, &[&[&key]]);
    let largest = Body { network_id: id, actor: id, ..body() };
    assert_eq!(code(&network, raw(&largest)), None);
    assert!(largest.prev_hash > id);
    for body in [
        Body { network_id: 1 << 63, ..largest.clone() },
        Body { actor: u64::MAX, ..largest.clone() },
        Body { cosignors: vec![1 << 63], ..largest },
    ] {
        assert_eq!(code(&network, raw(&body)), Some(Code::Int63));
    }
}

#[test]
fn networks_that_skip_the_sequence_leave_it_as_it_was() {
    let mut network = usual();
    let key = secret(Curve::K1, 1);
    let odd = signed(&Body { seqnum: 0, prev_hash: 3, ..body() }, &[&[&key]]);
    for flags in [0, RAW_NOTIFY | HISTORY, 0xfff0_0000] {
        network.flags = flags;
        assert_eq!(code(&network, odd.clone()), Some(Code::BadSeq), "{flags:#x}");
    }
    network.flags = SKIP_SEQ_AND_PREVHASH | 0x1_0000;
    assert_eq!(judge(&network, odd.clone()).0, Ok(LAST));
    network.actors.get_mut(&ACTOR).unwrap().seqnum = u32::MAX;
    assert_eq!(judge(&network, odd).0, Ok((u32::MAX, LAST.1)));
    // The rest is checked as ever.
    let unsigned = signed(&body(), &[&[&secret(Curve::K1, 7)]]);
    assert_eq!(code(&network, unsigned), Some(Code::KeyMismatch));
}

#[test]
fn a_chain_is_followed_link_by_link() {
    let key = secret(Curve::Ed25519, 1);
    let (mut seqnum, mut prev_hash) = (0, 0);
    for n in 1..=5 {
        let bytes = signed(&Body { seqnum: n, prev_hash, ..body() }, &[&[&key]]);
        let order = florin_core::envelope::Order::decode(bytes).unwrap();
        (seqnum, prev_hash) = check_chain(0, seqnum, prev_hash, &order).unwrap();
        assert_eq!((seqnum, prev_hash), (n, order.next_hash()));
        // Once more is not next.
        assert_eq!(check_chain(0, seqnum, prev_hash, &order).unwrap_err().code, Code::BadSeq);
    }
}
