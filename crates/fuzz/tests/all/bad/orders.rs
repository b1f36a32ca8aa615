//! Envelopes, bodies, permissions, keys and signatures.

use bytes::Bytes;
use florin_core::Code::{self, *};
use florin_core::cash::curve::{G1, G2};
use florin_core::content::encode_rotate;
use florin_core::envelope::{Authority, Body, encode_body, encode_envelope};
use florin_core::keys::Curve;
use florin_core::pbtx;
use florin_core::permission::Permission;
use florin_core::registration::sign_registration;
use florin_core::testing::{Signer, secret};
use prost::Message;

use super::Cases;
use super::proto::{break_message, bytes, fields, fixed, number, varint};
use crate::made::golden;

/// All cases of this file.
pub fn add(cases: &mut Cases) {
    envelopes(cases);
    bodies(cases);
    counts(cases);
    permissions(cases);
    keys(cases);
    bls_keys(cases);
    signed(cases);
    points(cases);
}

fn body() -> Body {
    let content = Bytes::from_static(b"content");
    Body { network_id: 5, actor: 6, cosignors: vec![7, 8], seqnum: 9, prev_hash: 10, transaction_type: 11, content }
}

fn authority(sigs: usize, length: usize) -> Authority {
    Authority { key_type: 0, sigs: vec![Bytes::from(vec![7; length]); sigs] }
}

fn envelopes(cases: &mut Cases) {
    let good = encode_body(&body());
    let one = encode_envelope(&good, &[authority(1, 66), authority(1, 66), authority(1, 66)]);
    break_message(cases, ("envelope", "envelope"), &one, (Decode, NonCanonical), |b| b.to_vec());
    let mut bad = |code, rule: &str, bytes: Vec<u8>| cases.bad("envelope", code, rule, bytes);
    bad(EmptyBody, "no bytes at all", vec![]);
    bad(EmptyBody, "an empty body", vec![0x0a, 0]);
    bad(EmptyBody, "signatures without a body", encode_envelope(&[], &[authority(1, 66)]).to_vec());
    bad(Limit, "a body of 65,001 bytes", encode_envelope(&[7; 65_001], &[]).to_vec());
    bad(Limit, "nine authorities", encode_envelope(&good, &vec![authority(1, 1); 9]).to_vec());
    bad(Limit, "seventeen signatures of one authority", encode_envelope(&good, &[authority(17, 1)]).to_vec());
    bad(Limit, "a signature of 129 bytes", encode_envelope(&good, &[authority(1, 129)]).to_vec());
    let inner = |inner: Vec<u8>| [bytes(1, &good), bytes(2, inner)].concat();
    bad(NonCanonical, "a key type of 0 that is written out", inner(number(1, 0)));
    bad(NonCanonical, "a key type above 32 bits", inner(number(1, 1 << 40)));
    bad(NonCanonical, "a signature before its key type", inner([bytes(2, [7; 66]), number(1, 1)].concat()));
    bad(NonCanonical, "an unknown field in an authority", inner(number(3, 1)));
    bad(Decode, "an authority that is cut", [bytes(1, &good), vec![0x12, 9, 0x12, 66]].concat());
    bad(Decode, "a body as a number", number(1, 5));
    bad(Decode, "signatures as a number", [bytes(1, &good), bytes(2, number(2, 5))].concat());
    bad(NonCanonical, "authorities before the body", [bytes(2, bytes(2, [7; 66])), bytes(1, &good)].concat());
    bad(NonCanonical, "two bodies", [bytes(1, &good), bytes(1, &good)].concat());
    bad(Decode, "a body that is no message", encode_envelope(&[0xff], &[]).to_vec());
}

fn bodies(cases: &mut Cases) {
    let good = encode_body(&body());
    break_message(cases, ("body", "body"), &good, (Decode, NonCanonical), |b| b.to_vec());
    let parts = fields(&good);
    let mut bad = |code, rule: String, bytes: Vec<u8>| cases.bad("body", code, rule, bytes);
    const NAMES: [&str; 7] = ["network", "actor", "cosignors", "seqnum", "prev_hash", "type", "content"];
    let join = |parts: &[(u64, Vec<u8>)]| parts.iter().flat_map(|(_, b)| b.clone()).collect::<Vec<u8>>();
    for (i, name) in NAMES.iter().enumerate() {
        let field = i as u64 + 1;
        let mut twice = parts.clone();
        twice.insert(i, parts[i].clone());
        // Packed numbers join, so that there are four cosignors in two pieces.
        bad(NonCanonical, format!("{name} twice"), join(&twice));
        let replaced = |with: Vec<u8>| {
            let mut parts = parts.clone();
            parts[i].1 = with;
            join(&parts)
        };
        let other_type = if matches!(field, 3 | 7) { number(field, 1) } else { bytes(field, [1]) };
        bad(Decode, format!("{name} of another wire type"), replaced(other_type));
        let default = match field {
            1 | 2 | 5 => fixed(field, 0),
            4 | 6 => number(field, 0),
            _ => bytes(field, []),
        };
        bad(NonCanonical, format!("{name} with its default written out"), replaced(default));
        if i > 0 {
            let mut swapped = parts.clone();
            swapped.swap(i, i - 1);
            bad(NonCanonical, format!("{name} before {}", NAMES[i - 1]), join(&swapped));
        }
        if matches!(field, 4 | 6) {
            bad(NonCanonical, format!("{name} above 32 bits"), replaced(number(field, 1 << 32)));
            let long = [varint(field << 3), vec![0x89, 0]].concat();
            bad(NonCanonical, format!("{name} not in its shortest form"), replaced(long));
        }
    }
    let mut with = |code, rule: &str, change: fn(&mut Body)| {
        let mut body = body();
        change(&mut body);
        bad(code, rule.to_owned(), encode_body(&body).to_vec());
    };
    with(Int63, "network with its top bit set", |b| b.network_id = 1 << 63);
    with(Int63, "actor with its top bit set", |b| b.actor = u64::MAX);
    with(Int63, "cosignor with its top bit set", |b| b.cosignors[1] = 1 << 63);
    with(Limit, "five cosignors", |b| b.cosignors = vec![1, 2, 3, 4, 5]);
    with(Limit, "content of 16,385 bytes", |b| b.content = Bytes::from(vec![7; 16_385]));
    bad(Decode, "cosignors of 12 bytes".into(), [fixed(1, 5), fixed(2, 6), bytes(3, [1; 12])].concat());
    bad(
        NonCanonical,
        "cosignors that are not packed".into(),
        [fixed(1, 5), fixed(2, 6), fixed(3, 7), fixed(3, 8)].concat(),
    );
}

fn counts(cases: &mut Cases) {
    let envelope = |cosignors: &[u64], authorities: usize| {
        let body = encode_body(&Body { cosignors: cosignors.to_vec(), ..body() });
        encode_envelope(&body, &vec![authority(1, 66); authorities])
    };
    cases.whole("order", "three accounts", envelope(&[7, 8], 3));
    cases.bad("order", DuplicateCosignor, "the actor as its own cosignor", envelope(&[6], 2));
    cases.bad("order", DuplicateCosignor, "a cosignor twice", envelope(&[7, 7], 3));
    cases.bad("order", DuplicateCosignor, "a cosignor twice, apart", envelope(&[7, 8, 7], 4));
    cases.bad("order", AuthorityCount, "no authority", envelope(&[7, 8], 0));
    cases.bad("order", AuthorityCount, "one authority too few", envelope(&[7, 8], 2));
    cases.bad("order", AuthorityCount, "one authority too many", envelope(&[7, 8], 4));
}

fn message() -> pbtx::Permission {
    let key = |n| {
        let key_bytes = Bytes::copy_from_slice(secret(Curve::K1, n).public().as_bytes());
        pbtx::KeyWeight { key: Some(pbtx::PublicKey { r#type: 0, key_bytes }), weight: 2 }
    };
    pbtx::Permission { actor: 0, threshold: 3, keys: vec![key(1), key(2)] }
}

/// Permissions that break a rule, with their codes: also for where they stand in contents.
pub fn bad_permissions() -> Vec<(Code, &'static str, Vec<u8>)> {
    let with = |change: &dyn Fn(&mut pbtx::Permission)| {
        let mut permission = message();
        change(&mut permission);
        permission.encode_to_vec()
    };
    let key = |bytes: Vec<u8>| {
        with(&|p: &mut pbtx::Permission| {
            p.keys[0].key = Some(pbtx::PublicKey { r#type: 0, key_bytes: bytes.clone().into() });
        })
    };
    let of = |curve| secret(curve, 5).public().as_bytes().to_vec();
    let changed = |curve, at: usize, to: u8| {
        let mut bytes = of(curve);
        bytes[at] = to;
        key(bytes)
    };
    let not_points = [[0xff; 32], [0; 32]];
    vec![
        (BadPermission, "threshold 0", with(&|p| p.threshold = 0)),
        (BadPermission, "threshold above the weights", with(&|p| p.threshold = 5)),
        (BadPermission, "a weight of 0", with(&|p| p.keys[1].weight = 0)),
        (BadPermission, "a key twice", with(&|p| p.keys[1].key = p.keys[0].key.clone())),
        (BadPermission, "no keys", with(&|p| p.keys.clear())),
        (BadPermission, "a weight without a key", with(&|p| p.keys[0].key = None)),
        (Limit, "seventeen keys", with(&|p| p.keys = vec![p.keys[0].clone(); 17])),
        (Limit, "a key of 98 bytes", key(vec![0; 98])),
        (Int63, "an actor with its top bit set", with(&|p| p.actor = 1 << 63)),
        (KeyType, "a key of type 1", with(&|p| p.keys[0].key.iter_mut().for_each(|k| k.r#type = 1))),
        (BadPermission, "a key of 33 bytes", key(of(Curve::K1)[..33].to_vec())),
        (BadPermission, "a key of 35 bytes", key([of(Curve::K1), vec![0]].concat())),
        (BadPermission, "a key of curve 2", changed(Curve::K1, 0, 2)),
        (BadPermission, "a key of curve 0 with an R1 point's first byte 4", changed(Curve::K1, 1, 4)),
        (BadPermission, "an R1 key with first byte 0", changed(Curve::R1, 1, 0)),
        (BadPermission, "an ed25519 key with first byte 2", changed(Curve::Ed25519, 1, 2)),
        (BadPermission, "a K1 key that is no point", key([&[0, 2][..], &not_points[0]].concat())),
        (BadPermission, "an R1 key that is no point", key([&[1, 3][..], &not_points[0]].concat())),
        (BadPermission, "an ed25519 key that is no point", key([&[0x10, 0, 2][..], &not_points[1][1..]].concat())),
    ]
}

fn permissions(cases: &mut Cases) {
    let good = message().encode_to_vec();
    break_message(cases, ("permission", "permission"), &good, (Decode, NonCanonical), |b| b.to_vec());
    cases.bad("permission", BadPermission, "no bytes at all", []);
    for (code, rule, bytes) in bad_permissions() {
        cases.bad("permission", code, rule, bytes);
    }
    let with_actor = pbtx::Permission { actor: 7, ..message() }.encode_to_vec();
    cases.bad("permission", BadPermission, "an account with an actor's id", &with_actor);
    cases.whole("actor-permission", "of actor 7", &with_actor);
    cases.bad("actor-permission", BadPermission, "actor 0", &good);
    cases.bad("actor-permission", NonCanonical, "actor 0 that is written out", [fixed(1, 0), good].concat());
    // A change of an actor's keys, in its body.
    let rotate = |permission: Vec<u8>, actor: u64| {
        let content = encode_rotate(permission.into(), 3);
        encode_body(&Body {
            network_id: 5,
            actor,
            seqnum: 1,
            transaction_type: 0x464c_0002,
            content,
            ..Body::default()
        })
    };
    let content = encode_rotate(with_actor.clone().into(), 3);
    let in_body = |content: &[u8]| {
        let content = Bytes::copy_from_slice(content);
        encode_body(&Body { network_id: 5, actor: 7, seqnum: 1, content, ..Body::default() }).to_vec()
    };
    break_message(cases, ("rotate", "rotate"), &content, (BadContent, NonCanonical), in_body);
    cases.bad("rotate", BadPermission, "keys of another actor", rotate(with_actor, 8));
    cases.bad("rotate", BadPermission, "keys of an account", rotate(message().encode_to_vec(), 7));
    cases.bad("rotate", BadPermission, "no keys", rotate(Vec::new(), 7));
    for (code, rule, bytes) in bad_permissions() {
        let mut with_actor = pbtx::Permission::decode(&bytes[..]).expect("a message");
        if with_actor.actor == 0 {
            with_actor.actor = 7;
            cases.bad("rotate", code, format!("keys with {rule}"), rotate(with_actor.encode_to_vec(), 7));
        }
    }
}

fn bls_keys(cases: &mut Cases) {
    let key = secret(Curve::Bls, 5).public().as_bytes().to_vec();
    cases.whole("public-key", "BLS", &key);
    let mut bad = |rule: &str, bytes: &[u8]| cases.bad("public-key", BadPermission, format!("BLS key {rule}"), bytes);
    bad("cut", &key[..96]);
    bad("with a byte more", &[&key[..], &[0]].concat());
    bad("that is compressed", &[&key[..1], &[key[1] | 0x80], &key[2..49]].concat());
    bad("with a flag", &[&key[..1], &[key[1] | 0x20], &key[2..]].concat());
    bad("that is the identity", &[&key[..1], &[0x40], &[0; 95]].concat());
    bad("that is no point", &[&key[..96], &[key[96] ^ 1]].concat());
    let signature = secret(Curve::Bls, 5).sign_body(b"body").as_bytes().to_vec();
    cases.whole("signature", "BLS", &signature);
    cases.bad("signature", SigFormat, "BLS signature cut".to_owned(), &signature[..96]);
    cases.bad("signature", SigFormat, "BLS signature with a byte more".to_owned(), [&signature[..], &[0]].concat());
    cases.bad("signature", SigFormat, "a mark of a signed root".to_owned(), [0x22]);
}

fn keys(cases: &mut Cases) {
    for (name, curve) in [("K1", Curve::K1), ("R1", Curve::R1), ("ed25519", Curve::Ed25519)] {
        let key = secret(curve, 5).public().as_bytes().to_vec();
        cases.whole("public-key", name, &key);
        cases.bad("public-key", BadPermission, format!("{name} key cut"), &key[..33]);
        cases.bad("public-key", BadPermission, format!("{name} key with a byte more"), [&key[..], &[0]].concat());
        cases.bad(
            "public-key",
            BadPermission,
            format!("{name} key with its form byte 5"),
            [&key[..1], &[5], &key[2..]].concat(),
        );
        let no_point = if curve == Curve::Ed25519 { [&[2][..], &[0; 31]].concat() } else { vec![0xff; 32] };
        cases.bad("public-key", BadPermission, format!("{name} key that is no point"), [&key[..2], &no_point].concat());
        let text = hex::encode(&key);
        cases.whole("key-text", name, &text);
        cases.bad("key-text", BadKey, format!("{name} key with an odd digit"), &text[1..]);
        cases.bad("key-text", BadKey, format!("{name} key with a letter that is no digit"), text.replacen('0', "g", 1));
        cases.bad("key-text", BadPermission, format!("{name} key without its last byte"), &text[2..]);
        let signature = secret(curve, 5).sign_body(b"body").as_bytes().to_vec();
        cases.whole("signature", name, &signature);
        let mut bad =
            |code, rule: &str, bytes: Vec<u8>| cases.bad("signature", code, format!("{name} signature {rule}"), bytes);
        let changed = |at: usize, to: u8| {
            let mut bytes = signature.clone();
            bytes[at] = to;
            bytes
        };
        bad(SigFormat, "cut", signature[..65].to_vec());
        bad(SigFormat, "with a byte more", [&signature[..], &[0]].concat());
        bad(SigFormat, "of curve 2", [&[2], &signature[1..]].concat());
        if curve == Curve::Ed25519 {
            bad(SigFormat, "with header 31", changed(1, 31));
            continue;
        }
        bad(SigFormat, "with header 30", changed(1, 30));
        bad(SigFormat, "with header 35", changed(1, 35));
        bad(SigNotCanonical, "with a high s", changed(34, 0xf0));
        if curve == Curve::K1 {
            bad(SigNotCanonical, "with a negative r", changed(2, 0x80));
            bad(SigNotCanonical, "with a padded r", [&signature[..2], &[0, 1], &signature[4..]].concat());
            bad(SigNotCanonical, "with a padded s", [&signature[..34], &[0, 1], &signature[36..]].concat());
        }
    }
    cases.bad("public-key", BadPermission, "no bytes at all", []);
    cases.bad("signature", SigFormat, "no bytes at all", []);
    cases.bad("public-key", BadPermission, "a key of curve 2", [&[2, 2][..], &[1; 32]].concat());
}

/// An order of account 1, whose signatures are looked at.
fn signed(cases: &mut Cases) {
    let signer = Signer::new(1);
    let body = encode_body(&Body { cosignors: Vec::new(), ..body() });
    let own = Bytes::copy_from_slice(signer.keys[0].sign_body(&body).as_bytes());
    let with = |key_type, sigs: Vec<Bytes>| encode_envelope(&body, &[Authority { key_type, sigs }]);
    cases.whole("signatures", "of its key", with(0, vec![own.clone()]));
    let mut bad = |code, rule: &str, bytes: Bytes| cases.bad("signatures", code, rule, bytes);
    bad(KeyType, "an authority of type 1", with(1, vec![own.clone()]));
    bad(KeyType, "an authority of a type below 0", with(-1, vec![own.clone()]));
    bad(InsufficientWeight, "no signature", with(0, vec![]));
    bad(SigFormat, "a signature of 65 bytes", with(0, vec![own.slice(..65)]));
    bad(SigFormat, "an empty signature", with(0, vec![Bytes::new()]));
    bad(DuplicateSig, "a signature twice", with(0, vec![own.clone(), own.clone()]));
    let other = Bytes::copy_from_slice(Signer::new(2).keys[0].sign_body(&body).as_bytes());
    bad(KeyMismatch, "a signature of another key", with(0, vec![other]));
    let elsewhere = Bytes::copy_from_slice(signer.keys[0].sign_body(b"another body").as_bytes());
    bad(KeyMismatch, "a signature of another body", with(0, vec![elsewhere]));
    let k1 = Bytes::copy_from_slice(secret(Curve::K1, 1).sign_body(&body).as_bytes());
    bad(KeyMismatch, "a signature of another curve", with(0, vec![k1]));
    // Who registers by itself.
    let key = secret(Curve::K1, 5);
    let permission = Permission { actor: 7, ..Permission::single(key.public()) }.encode();
    let shown = |permission: &[u8], signature: &[u8]| [&[signature.len() as u8], signature, permission].concat();
    let signature = sign_registration(&permission, &key);
    cases.whole("registration", "by its own key", shown(&permission, signature.as_bytes()));
    let mut bad = |code, rule: &str, bytes: Vec<u8>| cases.bad("registration", code, rule, bytes);
    let foreign = sign_registration(&permission, &secret(Curve::K1, 6));
    bad(KeyMismatch, "by a key that is not in the permission", shown(&permission, foreign.as_bytes()));
    bad(SigFormat, "with a signature of 65 bytes", shown(&permission, &signature.as_bytes()[..65]));
    let account = Permission::single(key.public()).encode();
    bad(BadPermission, "of an account", shown(&account, sign_registration(&account, &key).as_bytes()));
    let cut = &permission[..permission.len() - 1];
    bad(Decode, "of a permission that is cut", shown(cut, sign_registration(cut, &key).as_bytes()));
    let padded = [&permission[..], &number(9, 1)].concat();
    bad(
        NonCanonical,
        "of a permission with an unknown field",
        shown(&padded, sign_registration(&padded, &key).as_bytes()),
    );
}

fn points(cases: &mut Cases) {
    let (g1, g2) = (G1::generator().to_bytes(), G2::generator().to_bytes());
    let all: [(&'static str, &[u8]); 3] = [("blinded-nonce", &g1), ("note-signature", &g1), ("tier-key", &g2)];
    for (of, good) in all {
        cases.whole(of, "the generator", good);
        let mut identity = vec![0; good.len()];
        identity[0] = 0xc0;
        let changed = |at: usize, by: u8| {
            let mut bytes = good.to_vec();
            bytes[at] ^= by;
            bytes
        };
        cases.bad(of, Decode, "no bytes at all", []);
        cases.bad(of, Decode, "cut by a byte", &good[1..]);
        cases.bad(of, Decode, "with a byte more", [good, &[0]].concat());
        cases.bad(of, Decode, "the identity", identity);
        cases.bad(of, Decode, "not marked as compressed", changed(0, 0x80));
        cases.bad(of, Decode, "an x above the field's size", [&[0x9f][..], &vec![0xff; good.len() - 1]].concat());
        cases.bad(of, Decode, "the identity with a sign", {
            let mut bytes = vec![0; good.len()];
            bytes[0] = 0xe0;
            bytes
        });
    }
    // Of x = 4 there is a point of the curve, which is not in the subgroup.
    let mut outside = [0; 48];
    (outside[0], outside[47]) = (0x80, 4);
    for of in ["blinded-nonce", "note-signature"] {
        cases.bad(of, Decode, "a point outside of the subgroup", outside);
    }
    let envelope = golden("pay_envelope");
    let mut long = (envelope.len() as u16).to_le_bytes().to_vec();
    long.extend(&envelope);
    cases.whole("batch", "one order", &long);
    cases.bad("batch", Limit, "no orders", []);
    cases.bad("batch", Limit, "4,097 orders", vec![0; 2 * 4_097]);
    cases.whole("bitmap", "nine", [9, 0, 0xff, 1]);
    for (rule, bytes) in [
        ("a byte too few", vec![9, 0, 0xff]),
        ("a byte too many", vec![9, 0, 0xff, 1, 0]),
        ("a bit beyond the orders", vec![9, 0, 0xff, 2]),
        ("the last spare bit", vec![1, 0, 0x80]),
        ("none for eight orders", vec![8, 0]),
        ("bytes for no orders", vec![0, 0, 0]),
    ] {
        cases.bad("bitmap", BadBitmap, rule, bytes);
    }
}
