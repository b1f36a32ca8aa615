//! Any threshold of shares makes the one signature, fewer make none, and who lies is named.

use proptest::prelude::*;

use super::*;
use crate::cash::blind::{BlindingFactor, KeyShare, Nonce};
use crate::cash::testing::{deal, scalar};

type Answers = Vec<(u32, SignatureShare)>;

fn blinded(label: &str) -> BlindedNonce {
    Nonce([3; 32]).blind(&BlindingFactor::new(scalar(label)).unwrap())
}

fn answers(shares: &[KeyShare], blinded: &BlindedNonce) -> Answers {
    shares.iter().map(|share| (share.index(), share.sign(blinded))).collect()
}

/// Something else than the share, as a liar might send it.
fn lie(share: &SignatureShare, kind: usize) -> SignatureShare {
    let point = match kind % 4 {
        0 => share.0.neg(),
        1 => share.0.add(&G1::generator()),
        2 => G1::generator(),
        _ => share.0.add(&share.0),
    };
    SignatureShare(point)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_threshold_makes_the_one_signature(
        (f, order) in (1u32..5).prop_flat_map(|f| (Just(f), Just((0..3 * f as usize + 1).collect::<Vec<_>>()).prop_shuffle())),
        label in any::<u64>(),
    ) {
        let (n, t) = (3 * f + 1, 2 * f + 1);
        let (keys, shares) = deal(t, n, &label.to_string());
        prop_assert_eq!((keys.threshold(), keys.shares().len()), (t, n as usize));
        let blinded = blinded("factor");
        let answers = answers(&shares, &blinded);
        let all = combine(&keys, &blinded, &answers).unwrap();
        prop_assert!(keys.key().verifies_blind(&blinded, &all.signature.unwrap()));
        let chosen: Vec<_> = order.iter().take(t as usize).map(|i| answers[*i]).collect();
        prop_assert_eq!(combine(&keys, &blinded, &chosen).unwrap(), all);
        // One fewer is nothing, whatever is made of them.
        let fewer = &chosen[1..];
        let nothing = Combined { signature: None, liars: vec![] };
        prop_assert_eq!(combine(&keys, &blinded, fewer).unwrap(), nothing);
        let indices: Vec<u32> = fewer.iter().map(|(i, _)| *i).collect();
        let points: Vec<G1> = fewer.iter().map(|(_, share)| share.0).collect();
        let sum = G1::msm(&points, &lagrange_at_zero(&indices).unwrap());
        prop_assert!(!keys.key().verifies_blind(&blinded, &BlindSignature(sum)));
    }

    /// f liars, wherever they stand in the list, are named, and the note is made; with f + 1 it is not, and they are named.
    #[test]
    fn liars_are_named(
        (f, order) in (1u32..5).prop_flat_map(|f| (Just(f), Just((0..3 * f as usize + 1).collect::<Vec<_>>()).prop_shuffle())),
        kind in 0usize..4,
    ) {
        let (n, t) = (3 * f + 1, 2 * f + 1);
        let (keys, shares) = deal(t, n, "liars");
        let blinded = blinded("factor");
        let honest = answers(&shares, &blinded);
        for liars in [f, f + 1] {
            let mut given: Vec<_> = order.iter().map(|i| honest[*i]).collect();
            for (k, (_, share)) in given.iter_mut().take(liars as usize).enumerate() {
                *share = lie(share, kind + k);
            }
            let mut named: Vec<u32> = given[..liars as usize].iter().map(|(i, _)| *i).collect();
            named.sort_unstable();
            let combined = combine(&keys, &blinded, &given).unwrap();
            prop_assert_eq!(&combined.liars, &named);
            prop_assert_eq!(combined.signature.is_some(), liars == f);
            if let Some(signature) = combined.signature {
                prop_assert!(keys.key().verifies_blind(&blinded, &signature));
            }
            // Liars after the first threshold of shares cost nothing: nobody looks.
            given.reverse();
            let combined = combine(&keys, &blinded, &given).unwrap();
            let looked = liars > f;
            prop_assert_eq!(combined.signature.is_some(), !looked);
            prop_assert_eq!(combined.liars, if looked { named } else { vec![] });
        }
    }
}

/// Whole weights are those of the field, for all thresholds of small committees and for a committee too large for them.
#[test]
fn small_weights_are_the_same_weights() {
    let same = |indices: &[u32]| {
        let points: Vec<G1> = indices.iter().map(|i| G1::generator().mul(&scalar(&i.to_string()))).collect();
        let expected = G1::msm(&points, &lagrange_at_zero(indices).unwrap());
        assert_eq!(Interpolation::of(indices).sum(&points), expected, "{indices:?}");
        matches!(Interpolation::of(indices), Interpolation::Small(..))
    };
    for n in [4u32, 7] {
        let threshold = n - (n - 1) / 3;
        for chosen in (0..1u32 << n).filter(|chosen| chosen.count_ones() == threshold) {
            let mut indices: Vec<u32> = (1..=n).filter(|i| chosen >> (i - 1) & 1 == 1).collect();
            assert!(same(&indices));
            indices.reverse();
            assert!(same(&indices));
        }
    }
    assert_eq!(small_weights(&[1, 2, 3]), Some((vec![3, -3, 1], 1)));
    assert_eq!(small_weights(&[4, 1, 2]), Some((vec![1, 8, -6], 3)));
    assert!(same(&[16, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15]));
    assert!(same(&[1]) && same(&[128]) && same(&[127, 128]));
    assert!(!same(&(1..=128).filter(|i| i % 3 > 0).collect::<Vec<_>>()));
}

/// Four thousand requests with shares changed in one bit, or by arithmetic: none gives anything but the true signature.
#[test]
fn no_changed_share_gets_in() {
    let (keys, shares) = deal(3, 4, "changed");
    let blinded = blinded("factor");
    let honest = answers(&shares, &blinded);
    let truth = combine(&keys, &blinded, &honest).unwrap().signature;
    let (mut refused, mut requests) = (0, Vec::new());
    for case in 0..4_000 {
        let mut given = honest.clone();
        let (index, share) = given[case % 4];
        let changed = if case < 1_536 {
            let mut bytes = share.to_bytes();
            bytes[case / 4 / 8] ^= 1 << (case / 4 % 8);
            SignatureShare::parse(&bytes)
        } else if case % 40 == 0 {
            Ok(lie(&share, case / 40))
        } else {
            // x = 2, 3, ...: points of the curve or not, none of the subgroup.
            let mut bytes = [0; 48];
            bytes[0] = 0x80;
            bytes[46..].copy_from_slice(&(case as u16).to_be_bytes());
            SignatureShare::parse(&bytes)
        };
        match changed {
            Err(error) => {
                assert_eq!(error.code, Code::Decode);
                refused += 1;
            }
            Ok(changed) => {
                given[case % 4] = (index, changed);
                requests.push((index, Request { keys: &keys, blinded, shares: given }));
            }
        }
    }
    assert_eq!((refused, requests.len()), (3_935, 65));
    let (liars, requests): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
    for (liar, combined) in liars.into_iter().zip(combine_all(&requests).unwrap()) {
        assert_eq!(combined.signature, truth);
        // Authority 4 comes after the first threshold of shares.
        assert_eq!(combined.liars, if liar == 4 { vec![] } else { vec![liar] });
    }
}

/// Lies that cancel each other in the sum are no lies: the signature is the true one.
#[test]
fn lies_that_cancel_leave_the_signature_true() {
    let (keys, shares) = deal(3, 4, "cancel");
    let blinded = blinded("factor");
    let mut given = answers(&shares, &blinded);
    let honest = combine(&keys, &blinded, &given).unwrap();
    let weights = lagrange_at_zero(&[1, 2, 3]).unwrap();
    let shift = G1::generator();
    given[0].1 = SignatureShare(given[0].1.0.add(&shift.mul(&weights[0].inverse().unwrap())));
    given[1].1 = SignatureShare(given[1].1.0.add(&shift.neg().mul(&weights[1].inverse().unwrap())));
    assert_eq!(combine(&keys, &blinded, &given).unwrap(), honest);
}

/// Many requests at once, of two tiers: each comes out as it would alone.
#[test]
fn many_requests_are_judged_one_by_one() {
    let tiers = [deal(3, 4, "tier 0"), deal(3, 4, "tier 1")];
    let request = |i: usize, with: &dyn Fn(&mut Answers)| {
        let (keys, shares) = &tiers[i % 2];
        let blinded = blinded(&i.to_string());
        let mut shares = answers(shares, &blinded);
        with(&mut shares);
        Request { keys, blinded, shares }
    };
    let requests: Vec<Request<'_>> = (0..24)
        .map(|i| match i % 6 {
            4 => request(i, &|shares| shares[1].1 = lie(&shares[1].1, i)),
            5 => request(i, &|shares| shares.truncate(2)),
            3 => request(i, &|shares| shares.swap(0, 3)),
            // Somebody else's shares.
            2 if i > 12 => request(i, &|shares| shares.iter_mut().for_each(|(_, share)| *share = lie(share, i))),
            _ => request(i, &|_| {}),
        })
        .collect();
    let together = combine_all(&requests).unwrap();
    for (i, (request, combined)) in requests.iter().zip(&together).enumerate() {
        assert_eq!(*combined, combine(request.keys, &request.blinded, &request.shares).unwrap(), "{i}");
        let (signed, liars) = match i % 6 {
            4 => (true, vec![2]),
            5 => (false, vec![]),
            2 if i > 12 => (false, vec![1, 2, 3, 4]),
            _ => (true, vec![]),
        };
        assert_eq!((combined.signature.is_some(), &combined.liars), (signed, &liars), "{i}");
    }
    assert_eq!(combine_all(&[]).unwrap(), []);
}

#[test]
fn indices_are_checked() {
    let (keys, shares) = deal(3, 4, "indices");
    let blinded = blinded("factor");
    let good = answers(&shares, &blinded);
    for index in [0, 5, 129, u32::MAX] {
        let mut given = good.clone();
        given[3].0 = index;
        assert_eq!(combine(&keys, &blinded, &given).unwrap_err().code, Code::UnknownAuthority, "{index}");
    }
    let mut twice = good.clone();
    twice[3] = twice[0];
    assert_eq!(combine(&keys, &blinded, &twice).unwrap_err().code, Code::DuplicateSigner);
    for indices in [&[0, 1][..], &[1, 2, 1], &[2, 2]] {
        assert_eq!(lagrange_at_zero(indices).unwrap_err().code, Code::BadKey);
    }
}

/// Keys that do not belong together would let honest authorities look like liars, or true shares make no note.
#[test]
fn keys_must_belong_together() {
    for (t, n) in [(1, 1), (1, 4), (3, 4), (4, 4), (5, 7), (86, 128)] {
        let (keys, _) = deal(t, n, "one");
        let (other, _) = deal(t, n, "other");
        let refused = |t: u32, key: &TierKey, shares: Vec<PublicShare>| {
            let error = SharedKey::new(t, *key, shares).unwrap_err();
            assert_eq!(error.code, Code::BadKey, "{t} of {n}: {error}");
        };
        refused(t, other.key(), keys.shares().to_vec());
        for at in [0, n as usize / 2, n as usize - 1] {
            let mut shares = keys.shares().to_vec();
            shares[at] = other.shares()[at];
            refused(t, keys.key(), shares);
        }
        if t > 1 {
            refused(t - 1, keys.key(), keys.shares().to_vec());
            let mut swapped = keys.shares().to_vec();
            swapped.swap(0, 1);
            refused(t, keys.key(), swapped);
        }
        refused(0, keys.key(), keys.shares().to_vec());
        refused(n + 1, keys.key(), keys.shares().to_vec());
        refused(t, keys.key(), vec![keys.shares()[0]; 129]);
    }
}

/// The first and the last authority of the largest committee count once each.
#[test]
fn each_of_the_largest_committee_signs_once() {
    let n = COMMITTEE_MAX as u32;
    let (keys, shares) = deal(1, n, "largest");
    let blinded = blinded("factor");
    let answer = |i: u32| (i, shares[i as usize - 1].sign(&blinded));
    let code = |shares: Answers| Request { keys: &keys, blinded, shares }.check().map_err(|e| e.code);
    assert_eq!(code(vec![answer(n), answer(n - 1), answer(2), answer(1)]), Ok(()));
    for i in [1, 2, n - 1, n] {
        assert_eq!(code(vec![answer(i), answer(i)]), Err(Code::DuplicateSigner), "{i}");
    }
    for i in [0, n + 1, u32::MAX] {
        assert_eq!(code(vec![(i, answer(1).1)]), Err(Code::UnknownAuthority), "{i}");
    }
}
