use proptest::prelude::*;

use super::*;

// Published: the keys and signatures of PBTX's own documents, and the development key of every EOSIO tutorial.
const K1_WIF: &str = "5KgBKkXDZf6u4RrRwQARZMTNNU7E5bnKm5ELrxnqXGWVQ1DtRE7";
const K1_KEY: &str = "0003716875cd7ebcb45ae275f0f638f5c94132eb18a892bed1153ad72cce302afab6";
const K1_SIG: &str = "00207fe441d2d1215f57f87256843877d07d0d5a34a9b61d3985bc934867441c93813fb37264303895ca2614105d4296f27518dfa601f3536c62a859af27b1de75de";
const R1_TEXT: &str = "PVT_R1_2B17RwGod27jJFMmDZdfYSKTjLsjiUvbEFLDTtDiK5rs8SBrh4";
const R1_KEY: &str = "0102028b54b9667baef61bf38c666140b92ea7e529d933cb57cc09ab60abc4c55330";
const R1_SIG: &str = "0120527fda9a6ab5bfa339d2d9a837b3e2f587e5b09d77cb2ef8df779d63f2a7d2075455c4fd330460e1303a06cfb70089c7613b2602dc81f59815a17b2770c47030";
const DEV_WIF: &str = "5KQwrPbwdL6PhXujxW37FSSQZ1JiwsST4cqQzDeyXtP79zkvFD3";
const DEV_PRIVATE: &str = "PVT_K1_2bfGi9rYsXQSXXTvJbDAPhHLQUojjaNLomdm3cEJ1XTzMqUt3V";
const DEV_LEGACY: &str = "EOS6MRyAjQq8ud7hVNYcfnVPJqcVpscN5So8BhtHuGYqET5GDW5CV";
const DEV_PUBLIC: &str = "PUB_K1_6MRyAjQq8ud7hVNYcfnVPJqcVpscN5So8BhtHuGYqET5BoDq63";

fn said<T: fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code, Code::BadKey, "{error}");
    error.message
}

#[test]
fn published_private_keys_sign_the_published_digest() {
    for (text, key, sig) in [(K1_WIF, K1_KEY, K1_SIG), (R1_TEXT, R1_KEY, R1_SIG)] {
        let private = PrivateKey::from_text(text).unwrap();
        assert_eq!(private.public().to_string(), key);
        let signature = private.signer().sign_body(&(1..=15).collect::<Vec<u8>>());
        assert_eq!(hex::encode(signature.as_bytes()), sig);
        let written = private.to_wif().unwrap_or_else(|| private.to_text());
        assert_eq!(*written, text);
    }
}

#[test]
fn the_old_and_the_new_form_are_the_same_key() {
    let old = PrivateKey::from_text(DEV_WIF).unwrap();
    let new = PrivateKey::from_text(DEV_PRIVATE).unwrap();
    assert_eq!((old.public(), old.to_text().as_str()), (new.public(), DEV_PRIVATE));
    assert_eq!(new.to_wif().as_deref().map(String::as_str), Some(DEV_WIF));
    let key = old.public();
    assert_eq!(public_to_legacy_text(&key).as_deref(), Some(DEV_LEGACY));
    assert_eq!(public_to_text(&key), DEV_PUBLIC);
    for text in [DEV_LEGACY, DEV_PUBLIC] {
        assert_eq!(public_from_text(text).unwrap(), key);
    }
}

#[test]
fn every_curve_goes_out_and_comes_back() {
    for curve in [Curve::K1, Curve::R1, Curve::Ed25519] {
        let private = PrivateKey::new(curve, Zeroizing::new([0x5a; 32])).unwrap();
        assert!(!format!("{private:?}").contains("5a5a5a"), "Debug shows the secret");
        let again = PrivateKey::from_text(&private.to_text()).unwrap();
        assert_eq!(again.public(), private.public());
        assert_eq!(private.to_wif().is_some(), curve == Curve::K1);
        let public = public_to_text(&private.public());
        assert_eq!(public_from_text(&public).unwrap(), private.public());
        assert_eq!(public_to_legacy_text(&private.public()).is_some(), curve == Curve::K1);
        let signature = private.signer().sign_body(b"body");
        let text = signature_to_text(&signature);
        assert_eq!(signature_from_text(&text).unwrap(), signature);
        let kinds = [&*private.to_text(), &public, &text].map(|text| Kind::of(text));
        assert_eq!(kinds, [Some(Kind::Private), Some(Kind::Public), Some(Kind::Signature)]);
    }
    assert_eq!([DEV_WIF, DEV_LEGACY, "00ab"].map(Kind::of), [Some(Kind::Private), Some(Kind::Public), None]);
    let (short, other) = (&DEV_WIF[..50], format!("6{}", &DEV_WIF[1..]));
    assert_eq!([short, &other].map(Kind::of), [None, None], "51 characters from 5 on");
}

#[test]
fn each_fault_is_named() {
    for text in [DEV_PUBLIC, DEV_LEGACY] {
        let mistyped = text.replace("Qq8", "Qq9");
        assert!(said(public_from_text(&mistyped)).starts_with("checksum"));
        assert!(said(public_from_text(&text[..text.len() - 2])).contains("33 and a checksum of 4, found 35"));
        assert!(said(public_from_text(&text.replace("Qq8", "Q08"))).contains("base58"));
        assert!(said(public_from_text(&text.replace("Qq8", "Qé8"))).contains("base58"));
        assert!(said(public_from_text(&(text.to_owned() + &"z".repeat(10_000)))).contains("10"));
    }
    assert!(said(PrivateKey::from_text(&DEV_WIF.replace("PbwdL", "PbwdM"))).starts_with("checksum"));
    assert!(said(PrivateKey::from_text(&DEV_WIF[..49])).contains("bytes in the text"));
    assert!(said(PrivateKey::from_text(&DEV_PRIVATE[..50])).contains("bytes in the text"));
    // The checksum covers the curve, so another curve's name does not pass.
    assert!(said(PrivateKey::from_text(&DEV_PRIVATE.replace("K1", "R1"))).contains("another curve"));
    assert!(said(public_from_text(&DEV_PUBLIC.replace("K1", "WA"))).contains("WebAuthn"));
    assert!(said(public_from_text(&DEV_PUBLIC.replace("K1", "X9"))).contains("curve of the public key"));
    assert!(said(public_from_text(DEV_WIF)).contains("found private key"));
    assert!(said(PrivateKey::from_text(DEV_PUBLIC)).contains("found public key"));
    assert!(said(PrivateKey::from_text("")).contains("PVT_"));
    // A right checksum around what is no key.
    assert!(said(PrivateKey::from_text(&write(Kind::Private, Curve::K1, &[0; 32]))).contains("secret key"));
    assert!(said(public_from_text(&write(Kind::Public, Curve::R1, &[0xff; 33]))).contains("point"));
    let no_version = bs58::encode([&[0x81][..], &[1; 32], &[0; 4]].concat()).into_string();
    assert!(PrivateKey::from_text(&no_version).is_err());
    let signature = signature_from_text(&write(Kind::Signature, Curve::K1, &[27; 65]));
    assert_eq!(signature.unwrap_err().code, Code::SigFormat);
}

#[test]
fn no_error_repeats_a_secret() {
    for text in [DEV_WIF, DEV_PRIVATE, R1_TEXT] {
        let secret = &text[12..30];
        for wrong in [text.to_owned() + "1", text.replace(secret, &secret.replace('1', "2")) + "2", format!("x{text}")]
        {
            assert!(!said(PrivateKey::from_text(&wrong)).contains(secret));
            assert!(!said(public_from_text(&wrong)).contains(secret));
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_a_key_or_an_error(text in "(EOS|PUB_|PVT_|SIG_|5)?(K1_|R1_|ED_|WA_)?[1-9A-Za-z]{0,110}") {
        let _ = (PrivateKey::from_text(&text), public_from_text(&text), signature_from_text(&text));
    }

    /// One other character somewhere is noticed.
    #[test]
    fn one_wrong_character_is_noticed(at in 7usize..57, to in "[1-9A-HJ-NP-Za-km-z]") {
        let mut wrong = DEV_PUBLIC.to_owned();
        wrong.replace_range(at..at + 1, &to);
        prop_assert_eq!(public_from_text(&wrong).is_ok(), wrong == DEV_PUBLIC);
    }
}

#[test]
fn a_private_key_is_printed_as_its_public_one() {
    let private = PrivateKey::from_text(K1_WIF).unwrap();
    assert_eq!(format!("{private:?}"), format!("PrivateKey of {K1_KEY}"));
}

#[test]
fn a_mistyped_character_is_pointed_at() {
    for (digits, place) in [("0abc", "another at 1"), ("abcI", "another at 4"), ("ab\u{e9}", "another at 3")] {
        let message = said(public_from_text(&format!("EOS{digits}")));
        assert!(message.ends_with(place), "{message}");
    }
}

#[test]
fn a_text_that_is_too_long_is_not_decoded_at_all() {
    let message = |digits: usize| said(public_from_text(&format!("EOS{}", "z".repeat(digits))));
    assert!(!message(98).contains("characters"), "{}", message(98));
    assert!(message(99).contains("found 99 characters, which are more"), "{}", message(99));
}
