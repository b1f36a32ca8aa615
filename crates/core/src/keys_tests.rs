use super::*;

/// sha256 of 01..0f, and the published signatures over it.
const DIGEST: &str = "36030fcc7e566294905b49a720eb45bf962209d2ee1c9b73e2b7bc7ae8830376";
// 5KgBKkXDZf6u4RrRwQARZMTNNU7E5bnKm5ELrxnqXGWVQ1DtRE7 and PVT_R1_2B17RwGod27jJFMmDZdfYSKTjLsjiUvbEFLDTtDiK5rs8SBrh4
const K1_SECRET: &str = "f4fb744268222caddd53ca5a2020fa20a1b859a7a18444a68ca427fd69316aab";
const K1_KEY: &str = "0003716875cd7ebcb45ae275f0f638f5c94132eb18a892bed1153ad72cce302afab6";
const K1_SIG: &str = "00207fe441d2d1215f57f87256843877d07d0d5a34a9b61d3985bc934867441c93813fb37264303895ca2614105d4296f27518dfa601f3536c62a859af27b1de75de";
const R1_SECRET: &str = "9a681ac8d2e74cdb29557f269503d75256cd098e45931d7765d1c3a718079cb5";
const R1_KEY: &str = "0102028b54b9667baef61bf38c666140b92ea7e529d933cb57cc09ab60abc4c55330";
const R1_SIG: &str = "0120527fda9a6ab5bfa339d2d9a837b3e2f587e5b09d77cb2ef8df779d63f2a7d2075455c4fd330460e1303a06cfb70089c7613b2602dc81f59815a17b2770c47030";

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn code_of<T: fmt::Debug>(result: Result<T>) -> Code {
    result.unwrap_err().code
}

/// n - s for a 66-byte ECDSA signature, with n / 2 rounded down given.
fn mirror(sig: &mut [u8; 66], half: &[u8; 32]) {
    // n = 2 * half + 1, so n - s = half - s + half + 1, byte by byte from the right.
    let mut carry = 1i32;
    for i in (0..32).rev() {
        let digit = 2 * i32::from(half[i]) - i32::from(sig[34 + i]) + carry;
        sig[34 + i] = digit.rem_euclid(256) as u8;
        carry = digit.div_euclid(256);
    }
}

#[test]
fn published_signatures_are_reproduced() {
    let digest: [u8; 32] = Sha256::digest((1..=15).collect::<Vec<u8>>()).into();
    assert_eq!(hex::encode(digest), DIGEST);
    for (curve, secret, key, sig) in [(Curve::K1, K1_SECRET, K1_KEY, K1_SIG), (Curve::R1, R1_SECRET, R1_KEY, R1_SIG)] {
        let secret = SecretKey::from_seed(curve, array(secret)).unwrap();
        assert_eq!(secret.public().to_string(), key);
        assert_eq!(hex::encode(secret.sign_body_hash(&digest).as_bytes()), sig, "{curve:?}");
        assert_eq!(secret.sign_body(&(1..=15).collect::<Vec<u8>>()), secret.sign_body_hash(&digest));
        let parsed = Signature::parse(&array::<66>(sig)).unwrap();
        assert_eq!(parsed.recover(&digest), Some(key.parse().unwrap()));
    }
}

#[test]
fn every_signature_made_is_canonical_and_names_its_key() {
    for curve in [Curve::K1, Curve::R1] {
        for n in 1..=40u8 {
            let secret = SecretKey::from_seed(curve, [n; 32]).unwrap();
            let digest: [u8; 32] = Sha256::digest([n]).into();
            let sig = secret.sign_body_hash(&digest);
            assert_eq!(Signature::parse(sig.as_bytes()).unwrap(), sig);
            assert_eq!(sig.recover(&digest), Some(secret.public()));
            assert_ne!(sig.recover(&Sha256::digest([n, 0]).into()), Some(secret.public()));
        }
    }
}

#[test]
fn ed25519_signs_a_tagged_digest_only() {
    let secret = SecretKey::from_seed(Curve::Ed25519, [7; 32]).unwrap();
    let body = b"a body";
    let hash: [u8; 32] = Sha256::digest(body).into();
    let sig = secret.sign_body(body);
    assert_eq!(&sig.as_bytes()[..2], [0x10, 0]);
    let key = ed25519_zebra::VerificationKey::try_from(secret.public().ed25519_bytes().unwrap()).unwrap();
    let zebra_sig = sig.ed25519_bytes().unwrap().into();
    assert!(key.verify(&zebra_sig, &[&b"PBTX-TX-v1"[..], &hash].concat()).is_ok());
    assert!(key.verify(&zebra_sig, &hash).is_err());
    assert_eq!(sig.recover(&hash), None);
}

#[test]
fn other_forms_of_a_signature_are_refused() {
    let k1: [u8; 66] = array(K1_SIG);
    let r1: [u8; 66] = array(R1_SIG);
    assert_eq!(code_of(Signature::parse(&k1[..65])), Code::SigFormat);
    assert_eq!(code_of(Signature::parse(&[&k1[..], &[0]].concat())), Code::SigFormat);
    assert_eq!(code_of(Signature::parse(&[])), Code::SigFormat);
    for curve in [2, 3, 0x0f, 0x11, 0xff] {
        let mut sig = k1;
        sig[0] = curve;
        assert_eq!(code_of(Signature::parse(&sig)), Code::SigFormat);
    }
    for header in [0, 27, 30, 35, 255] {
        for mut sig in [k1, r1] {
            sig[1] = header;
            assert_eq!(code_of(Signature::parse(&sig)), Code::SigFormat, "header {header}");
        }
    }
    let mut ed25519 = [0; 66];
    ed25519[0] = 0x10;
    assert!(Signature::parse(&ed25519).is_ok());
    ed25519[1] = 31;
    assert_eq!(code_of(Signature::parse(&ed25519)), Code::SigFormat);

    for (sig, half) in [(k1, K1_LOW_S_MAX), (r1, R1_LOW_S_MAX)] {
        let mut high_s = sig;
        mirror(&mut high_s, &half);
        assert_eq!(code_of(Signature::parse(&high_s)), Code::SigNotCanonical);
        mirror(&mut high_s, &half);
        assert_eq!(high_s, sig);
        let mut border = sig;
        border[34..].copy_from_slice(&half);
        assert!(Signature::parse(&border).is_ok());
        border[65] += 1;
        assert_eq!(code_of(Signature::parse(&border)), Code::SigNotCanonical);
    }
    // EOSIO's rule for r and s; R1 has none.
    for (at, bytes) in [(2, [0x80, 0]), (2, [0, 0x7f]), (34, [0x80, 0]), (34, [0, 0x7f])] {
        let mut sig = k1;
        sig[at..at + 2].copy_from_slice(&bytes);
        assert_eq!(code_of(Signature::parse(&sig)), Code::SigNotCanonical, "{bytes:?} at {at}");
        sig[at..at + 2].copy_from_slice(&[0, 0x80]);
        assert!(Signature::parse(&sig).is_ok());
    }
    let mut small_r = r1;
    small_r[2..4].copy_from_slice(&[0, 0]);
    assert!(Signature::parse(&small_r).is_ok());
}

#[test]
fn a_flipped_recovery_id_is_another_key_or_none() {
    let digest: [u8; 32] = array(DIGEST);
    for (sig, key) in [(K1_SIG, K1_KEY), (R1_SIG, R1_KEY)] {
        let right: [u8; 66] = array(sig);
        for header in 31..=34 {
            let mut sig = right;
            sig[1] = header;
            let signer = Signature::parse(&sig).unwrap().recover(&digest);
            assert_eq!(signer == Some(key.parse().unwrap()), header == right[1], "header {header}");
        }
    }
}

#[test]
fn numbers_out_of_range_recover_nothing() {
    let mut sig = [0; 66];
    (sig[0], sig[1]) = (1, 31);
    assert_eq!(Signature::parse(&sig).unwrap().recover(&[1; 32]), None);
    sig[2..34].fill(0xff);
    sig[65] = 1;
    for header in 31..=34 {
        sig[1] = header;
        assert_eq!(Signature::parse(&sig).unwrap().recover(&[1; 32]), None);
    }
}

#[test]
fn keys_are_points_in_their_one_form() {
    for (curve, secret) in [(Curve::K1, [1; 32]), (Curve::R1, [1; 32]), (Curve::Ed25519, [1; 32])] {
        let key = SecretKey::from_seed(curve, secret).unwrap().public();
        assert_eq!(key.curve(), curve);
        assert_eq!(PublicKey::parse(key.as_bytes()).unwrap(), key);
        assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
        assert_eq!(code_of(PublicKey::parse(&key.as_bytes()[..33])), Code::BadPermission);
        assert_eq!(code_of(PublicKey::parse(&[key.as_bytes(), &[0][..]].concat())), Code::BadPermission);
        // 4 to 7: uncompressed, compact and hybrid points; none of them here.
        for second in [1, 4, 5, 6, 7, 0x80] {
            let mut other = key.as_bytes().to_vec();
            other[1] = second;
            assert_eq!(code_of(PublicKey::parse(&other)), Code::BadPermission, "{curve:?} {second}");
        }
        let mut other = key.as_bytes().to_vec();
        other[0] = 2;
        assert_eq!(code_of(PublicKey::parse(&other)), Code::BadPermission);
    }
    // x of no point: above the field, and y = 2 on ed25519.
    for curve in [0, 1] {
        let mut no_point = [0xff; 34];
        (no_point[0], no_point[1]) = (curve, 2);
        assert_eq!(code_of(PublicKey::parse(&no_point)), Code::BadPermission);
    }
    let mut no_point = [0; 34];
    (no_point[0], no_point[2]) = (0x10, 2);
    assert_eq!(code_of(PublicKey::parse(&no_point)), Code::BadPermission);
    // ZIP-215 takes a point whose encoding is not canonical: y = 1 with the sign of x set.
    let mut identity = [0; 34];
    (identity[0], identity[2], identity[33]) = (0x10, 1, 0x80);
    assert!(PublicKey::parse(&identity).is_ok());
    assert_eq!(code_of("00zz".parse::<PublicKey>()), Code::BadKey);
}

#[test]
fn secrets_are_in_range_and_never_printed() {
    for curve in [Curve::K1, Curve::R1] {
        assert_eq!(code_of(SecretKey::from_seed(curve, [0; 32])), Code::BadKey);
        assert_eq!(code_of(SecretKey::from_seed(curve, [0xff; 32])), Code::BadKey);
    }
    for curve in [Curve::K1, Curve::R1, Curve::Ed25519] {
        let secret = SecretKey::from_seed(curve, [0x5a; 32]).unwrap();
        assert!(!format!("{secret:?}").contains("5a5a5a5a"));
    }
}

#[test]
fn what_is_printed_of_keys_is_what_is_public() {
    let secret = SecretKey::from_seed(Curve::K1, array(K1_SECRET)).unwrap();
    assert_eq!(format!("{:?} {}", secret.public(), secret.public()), format!("{K1_KEY} {K1_KEY}"));
    assert_eq!(format!("{secret:?}"), format!("SecretKey of {K1_KEY}"));
    let sig = hex::decode(K1_SIG).unwrap();
    assert_eq!(format!("{:?}", Signature::parse(&sig).unwrap()), K1_SIG);
    let authority = crate::signatures::AuthorityKey::from_seed([7; 32]);
    let public = hex::encode(authority.public().as_bytes());
    assert_eq!(format!("{:?} {}", authority.public(), authority.public()), format!("{public} {public}"));
    assert_eq!(format!("{authority:?}"), format!("AuthorityKey of {public}"));
    let prepared = authority.public().prepared();
    let signature = authority.sign(b"message");
    assert!(prepared.verifies(b"message", &signature) && !prepared.verifies(b"another", &signature));
}
