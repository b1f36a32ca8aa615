//! One note from nonce to spending, byte for byte; what is refused; and that nobody can tell whose note it was.

use blst::BLST_ERROR;

use super::*;
use crate::cash::combine::combine;
use crate::cash::derive::CashSeed;
use crate::cash::testing::{deal, scalar};

/// A note of a key that is not shared.
fn note(label: &str, nonce: &Nonce) -> (TierKey, NoteSignature) {
    let (keys, shares) = deal(1, 1, label);
    let factor = BlindingFactor::new(scalar("factor")).unwrap();
    let blinded = nonce.blind(&factor);
    let signed = combine(&keys, &blinded, &[(1, shares[0].sign(&blinded))]).unwrap();
    (*keys.key(), factor.unblind(&signed.signature.unwrap()))
}

/// Every byte that wallets, authorities and the disk agree on. If this changes, all notes in circulation are void.
#[test]
fn golden() {
    let secrets = CashSeed::new(&[7; 32], 42).note(3);
    let (keys, shares) = deal(3, 4, "golden");
    let blinded = secrets.blinded();
    let answers: Vec<_> = shares.iter().map(|share| (share.index(), share.sign(&blinded))).collect();
    let signed = combine(&keys, &blinded, &answers).unwrap().signature.unwrap();
    let signature = secrets.blinding().unblind(&signed);
    assert!(keys.key().verifies(&secrets.nonce(), &signature));
    let found = [
        ("nonce", hex::encode(secrets.nonce().0)),
        ("H(nonce)", hex::encode(secrets.nonce().hash().to_bytes())),
        ("blinded", blinded.to_string()),
        ("share 2", answers[1].1.to_string()),
        ("public share 2", keys.shares()[1].to_string()),
        ("key", keys.key().to_string()),
        ("blind signature", signed.to_string()),
        ("note", signature.to_string()),
    ];
    let text: String = found.iter().map(|(name, hex)| format!("{name} {hex}\n")).collect();
    assert_eq!(text, include_str!("golden.txt"));
    // Nonce and factor, computed with another HKDF.
    let mut factor = [0; 32];
    hex::decode_to_slice("156bdeddd088140d63825dd173d6fe4bad91f51f2ab343e61585e17297a5b70a", &mut factor).unwrap();
    let factor = BlindingFactor::new(Scalar::from_bytes(&factor).unwrap()).unwrap();
    assert_eq!(secrets.nonce().blind(&factor), blinded);
}

/// The library's own verification, of the plain BLS scheme with signatures in G1, takes our notes and refuses what we refuse.
#[test]
fn the_library_agrees() {
    use blst::min_sig::{PublicKey, Signature};
    for n in 0..8u8 {
        let nonce = Nonce([n; 32]);
        let (key, signature) = note("plain", &nonce);
        let plain = |nonce: &Nonce, signature: &NoteSignature| {
            let key = PublicKey::from_bytes(&key.to_bytes()).unwrap();
            let signature = Signature::from_bytes(&signature.to_bytes()).unwrap();
            signature.verify(true, &nonce.0, NONCE_TAG, &[], &key, true) == BLST_ERROR::BLST_SUCCESS
        };
        assert!(plain(&nonce, &signature) && key.verifies(&nonce, &signature));
        let other = Nonce([n + 1; 32]);
        assert!(!plain(&other, &signature) && !key.verifies(&other, &signature));
        let negative = NoteSignature(signature.0.neg());
        assert!(!plain(&nonce, &negative) && !key.verifies(&nonce, &negative));
    }
}

/// And the other way round: what the library signs is a note.
#[test]
fn a_signature_of_the_library_is_a_note() {
    use blst::min_sig::SecretKey;
    let secret = SecretKey::from_bytes(&scalar("secret").to_bytes()[..]).unwrap();
    let key = TierKey::parse(&secret.sk_to_pk().to_bytes()).unwrap();
    let nonce = Nonce([9; 32]);
    let signature = NoteSignature::parse(&secret.sign(&nonce.0, NONCE_TAG, &[]).to_bytes()).unwrap();
    assert!(key.verifies(&nonce, &signature));
}

#[test]
fn a_share_is_of_one_authority_and_one_request() {
    let (keys, shares) = deal(3, 4, "shares");
    let blinded = Nonce([1; 32]).blind(&BlindingFactor::new(scalar("a")).unwrap());
    let other = Nonce([1; 32]).blind(&BlindingFactor::new(scalar("b")).unwrap());
    for (signer, public) in shares.iter().zip(keys.shares()) {
        let share = signer.sign(&blinded);
        assert!(public.verifies(&blinded, &share));
        assert!(!public.verifies(&other, &share));
        assert!(!public.verifies(&blinded, &SignatureShare(share.0.neg())));
        for another in keys.shares().iter().filter(|k| *k != public) {
            assert!(!another.verifies(&blinded, &share));
        }
    }
}

#[test]
fn nothing_unchecked_parses() {
    let identity = [&[0xc0][..], &[0; 47]].concat();
    // x = 0 is a point of order 3.
    let order_3 = [&[0x80][..], &[0; 47]].concat();
    for (bytes, what) in [(identity, "identity"), (order_3, "subgroup"), (vec![0; 47], "47"), (vec![0; 96], "96")] {
        let errors = [
            BlindedNonce::parse(&bytes).unwrap_err(),
            SignatureShare::parse(&bytes).unwrap_err(),
            BlindSignature::parse(&bytes).unwrap_err(),
            NoteSignature::parse(&bytes).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code, Code::Decode);
            assert!(error.message.contains(what), "{error}");
        }
    }
    let identity = [&[0xc0][..], &[0; 95]].concat();
    assert!(TierKey::parse(&identity).unwrap_err().message.contains("identity"));
    assert!(PublicShare::parse(&identity).is_err());
    assert!(TierKey::new(G2::identity()).is_err() && BlindedNonce::new(G1::identity()).is_err());
    assert_eq!(BlindingFactor::new(Scalar::zero()).unwrap_err().code, Code::BadKey);
    assert_eq!(KeyShare::new(1, Scalar::zero()).unwrap_err().code, Code::BadKey);
    for index in [0, COMMITTEE_MAX as u32 + 1, u32::MAX] {
        assert_eq!(KeyShare::new(index, scalar("x")).unwrap_err().code, Code::BadKey);
    }
}

/// Notes and shares with one byte or bit changed, in every place: none is true.
#[test]
fn changed_bytes_make_no_note() {
    let nonce = Nonce([5; 32]);
    let (key, signature) = note("changed", &nonce);
    let bytes = signature.to_bytes();
    let (mut tried, mut parsed) = (0, 0);
    let mut try_one = |bytes: &[u8]| {
        tried += 1;
        if let Ok(changed) = NoteSignature::parse(bytes) {
            parsed += 1;
            assert!(!key.verifies(&nonce, &changed), "{changed}");
        }
    };
    for at in 0..bytes.len() {
        for change in 1..=255u8 {
            let mut bytes = bytes;
            bytes[at] ^= change;
            try_one(&bytes);
        }
    }
    for length in 0..bytes.len() {
        try_one(&bytes[..length]);
    }
    // Only the other sign is a point of the subgroup.
    assert_eq!((tried, parsed), (48 * 255 + 48, 1));
    for bit in 0..256 {
        let mut other = nonce;
        other.0[bit / 8] ^= 1 << (bit % 8);
        assert!(!key.verifies(&other, &signature));
    }
}

#[test]
fn secrets_are_never_printed() {
    let secret = scalar("secret");
    let hex = hex::encode(*secret.to_bytes());
    let (factor, share) = (BlindingFactor::new(secret.clone()).unwrap(), KeyShare::new(3, secret).unwrap());
    let seed = CashSeed::new(&[7; 32], 1);
    let text = format!("{factor:?} {share:?} {share:#?} {seed:?} {:?}", seed.note(0));
    assert!(!text.contains(&hex) && !text.contains(&hex::encode([7; 32])));
    assert_eq!(
        text,
        format!("BlindingFactor KeyShare 3 KeyShare 3 CashSeed NoteSecrets of {:?}", seed.note(0).nonce())
    );
}

/// All that authorities together ever see: at issue B and everybody's shares, at spending the nonce and the note.
///
/// For every issue i and every spend j there is a factor r that explains them as one: B_i = r·H_j, and with the same
/// r the signature and each authority's share unblind to what they are for note j. It is the only one, and each is
/// as likely as any other. So the view says nothing about which issue belongs to which spend.
///
/// Here discrete logarithms are known, by a hash that is a multiple of the generator, so r can be shown.
#[test]
fn every_issue_explains_every_spend() {
    const NOTES: usize = 12;
    let (keys, shares) = deal(5, 7, "unlinkable");
    let g = G1::generator();
    let hashes: Vec<Scalar> = (0..NOTES).map(|j| scalar(&format!("hash {j}"))).collect();
    let factors: Vec<Scalar> = (0..NOTES).map(|j| scalar(&format!("factor {j}"))).collect();
    let (mut issues, mut notes) = (Vec::new(), Vec::new());
    for (h, r) in hashes.iter().zip(&factors) {
        let blinded = BlindedNonce::new(g.mul(h).mul(r)).unwrap();
        let answers: Vec<_> = shares.iter().map(|share| (share.index(), share.sign(&blinded))).collect();
        let signed = combine(&keys, &blinded, &answers).unwrap().signature.unwrap();
        notes.push(BlindingFactor::new(r.clone()).unwrap().unblind(&signed));
        issues.push((blinded, answers, signed));
    }
    for (i, (blinded, answers, signed)) in issues.iter().enumerate() {
        for (j, note) in notes.iter().enumerate() {
            let hash = g.mul(&hashes[j]);
            let r = hashes[i].mul(&factors[i]).mul(&hashes[j].inverse().unwrap());
            assert_eq!(hash.mul(&r), blinded.0);
            let r = BlindingFactor::new(r).unwrap();
            assert_eq!(r.unblind(signed), *note, "issue {i}, spend {j}");
            for (share, (_, answer)) in shares.iter().zip(answers) {
                let of_note = share.sign(&BlindedNonce(hash));
                assert_eq!(r.unblind(&BlindSignature(answer.0)).0, of_note.0);
            }
        }
    }
}

/// The same with the real hash, where nobody knows logarithms: every pairing of an issue and a spend
/// has both of its sides under the one key, which is all that anybody can test; and unblinding an issue with the wrong factor makes no
/// note of any recorded nonce, so no other test tells pairs apart either.
#[test]
fn recorded_issues_and_spends_all_fit() {
    let (keys, shares) = deal(3, 4, "record");
    let seed = CashSeed::new(&[1; 32], 1);
    let record: Vec<_> = (0..6)
        .map(|i| {
            let secrets = seed.note(i);
            let blinded = secrets.blinded();
            let answers: Vec<_> = shares.iter().map(|share| (share.index(), share.sign(&blinded))).collect();
            let signed = combine(&keys, &blinded, &answers).unwrap().signature.unwrap();
            (secrets.nonce(), blinded, signed, secrets.blinding().unblind(&signed))
        })
        .collect();
    for (_, blinded, signed, _) in &record {
        for (nonce, _, _, note) in &record {
            assert!(keys.key().verifies_blind(blinded, signed) && keys.key().verifies(nonce, note));
            // Sums of an issue and a spend are signed as well: the pair is one more pair of that key.
            let sum = BlindedNonce::new(blinded.0.add(&nonce.hash())).unwrap();
            assert!(keys.key().verifies_blind(&sum, &BlindSignature(signed.0.add(&note.0))));
        }
    }
}

/// A committee that signed each wallet's notes with another key could tell them apart. The wallet takes no such signature.
#[test]
fn a_committee_cannot_mark_notes() {
    let (keys, _) = deal(3, 4, "published");
    let (_, marked) = deal(3, 4, "for this customer");
    let blinded = CashSeed::new(&[2; 32], 1).note(0).blinded();
    let answers: Vec<_> = marked.iter().map(|share| (share.index(), share.sign(&blinded))).collect();
    let combined = combine(&keys, &blinded, &answers).unwrap();
    assert_eq!((combined.signature, combined.liars), (None, vec![1, 2, 3, 4]));
}

#[test]
fn a_nonce_is_shown_as_its_bytes() {
    assert_eq!(format!("{:?}", Nonce([0xab; 32])), "ab".repeat(32));
}
