//! Dealers and receivers that lie, and those that they lied to.

use super::*;

#[test]
fn dealers_that_lie_to_all_have_not_dealt() {
    let commitment = |change: fn(&mut Vec<u8>)| {
        dealing(move |_, deal| {
            let mut bytes = deal.commitments.to_vec();
            change(&mut bytes);
            deal.commitments = bytes.into();
        })
    };
    let lies: Vec<(&str, Code, Lie)> = vec![
        ("one coefficient more", Code::BadContent, commitment(|c| c.extend_from_within(..96))),
        ("one coefficient less", Code::BadContent, commitment(|c| c.truncate(c.len() - 96))),
        (
            "the highest coefficient nothing",
            Code::Decode,
            commitment(|c| c[2 * 96..3 * 96].copy_from_slice(&G2::identity().to_bytes())),
        ),
        ("no secret", Code::Decode, commitment(|c| c[..96].copy_from_slice(&G2::identity().to_bytes()))),
        ("no point", Code::Decode, commitment(|c| c[..96].fill(0xff))),
        ("a point outside of the subgroup", Code::Decode, commitment(|c| c[96..192].copy_from_slice(&stray_point()))),
        (
            "a secret that it does not know",
            Code::BadProof,
            commitment(|c| c[..96].copy_from_slice(&G2::generator().to_bytes())),
        ),
        ("secrets of two tiers swapped", Code::BadProof, commitment(|c| c.rotate_left(3 * 96))),
        ("shares for too many", Code::BadContent, dealing(|_, d| d.shares = [&d.shares[..], &[0; 64]].concat().into())),
        (
            "a part too many",
            Code::BadContent,
            Box::new(|_, _, kind| {
                let Kind::Deal(deal) = kind else { return vec![kind] };
                vec![Kind::Deal(deal.clone()), Kind::Deal(Deal { chunk: 1, ..deal })]
            }),
        ),
        ("a false proof", Code::BadProof, dealing(|_, d| d.secrets_proof = flip(&d.secrets_proof, 63))),
        ("no proof", Code::BadProof, dealing(|_, d| d.ephemeral_proof = Bytes::new())),
        ("no ephemeral key", Code::BadContent, dealing(|_, d| d.ephemeral = Bytes::new())),
        (
            "the identity as ephemeral key",
            Code::Decode,
            dealing(|_, d| d.ephemeral = Bytes::copy_from_slice(&G1::identity().to_bytes())),
        ),
    ];
    for (what, code, lie) in lies {
        let mut world = World::new(4, 2);
        world.lies.insert(1, lie);
        // The others are waited for, so that the liar's is not just too late.
        while world.ceremony.phase() == Phase::Announce {
            world.round();
        }
        let items = world.parts[1].items(&world.ceremony, &world.store).unwrap();
        let kinds: Vec<Kind> = items.iter().filter_map(|i| canonical::<DkgItem>(i).unwrap().kind).collect();
        let lied: Vec<Kind> = kinds.into_iter().flat_map(|k| (world.lies[&1])(&world, 1, k)).collect();
        let results: Vec<Result<bool>> = lied
            .into_iter()
            .map(|k| {
                let i = world.item(k);
                world.put(1, i)
            })
            .collect();
        if what != "a part too many" {
            assert_eq!(results[0].as_ref().unwrap_err().code, code, "{what}");
            assert!(world.ceremony.record.dealt.is_empty(), "{what}");
        } else {
            // A part is taken once; more of a whole dealing is refused or changes nothing.
            assert!(results[0].as_ref().unwrap() & !results[1].as_ref().is_ok_and(|changed| *changed));
        }
        world.run();
        world.check(&[]);
    }
}

/// On the curve, but not of the order.
fn stray_point() -> [u8; 96] {
    for x in 1u8.. {
        let mut bytes = [0; 96];
        bytes[0] = 0x80;
        bytes[95] = x;
        if G2::from_bytes(&bytes).is_err_and(|e| e.message.contains("subgroup")) {
            return bytes;
        }
    }
    unreachable!("half of all x have points")
}

#[test]
fn a_dealing_of_another_is_nobodys_twice() {
    // Sent again as it was, or with its ephemeral key and shares only: receivers would open the honest one's in their
    // complaints about it.
    for all in [true, false] {
        let mut world = World::new(4, 1);
        while world.ceremony.phase() == Phase::Announce {
            world.round();
        }
        let deal_of = |world: &World, i: usize| {
            let items = world.parts[i].items(&world.ceremony, &world.store).unwrap();
            match canonical::<DkgItem>(&items[0]).unwrap().kind {
                Some(Kind::Deal(deal)) => deal,
                other => panic!("{other:?}"),
            }
        };
        let (honest, own) = (deal_of(&world, 0), deal_of(&world, 1));
        let Deal { ephemeral, ephemeral_proof, shares, .. } = honest.clone();
        let copy = if all { honest } else { Deal { ephemeral, ephemeral_proof, shares, ..own } };
        let copy = world.item(Kind::Deal(copy));
        assert_eq!(world.put(1, copy).unwrap_err().code, Code::BadProof);
    }
}

#[test]
fn the_last_dealer_makes_nobodys_share_nothing() {
    let mut world = World::new(4, 1);
    while world.ceremony.phase() == Phase::Announce {
        world.round();
    }
    world.silent = vec![1, 3];
    world.round();
    // The receiver 1 tells the dealer 1 its shares of all that was dealt before.
    let secret = encryption_secret(&world.params, &seed(1, 1));
    let announced = world.ceremony.record.announced.clone();
    let value = |world: &World, dealer: u32| {
        let dealt = world.ceremony.dealt(dealer, 0, &world.store).unwrap();
        dealt.open(&world.params, &announced, 1, &secret).unwrap().remove(0)
    };
    let chosen = |constant: Scalar| deal(&world.params, &seed(1, 1), 1, 0, &announced, Some(&[constant])).unwrap();
    let own = Dealt::read(&world.params, 1, &chosen(Scalar::one()), &announced).unwrap();
    let own = own.open(&world.params, &announced, 1, &secret).unwrap().remove(0);
    let others = value(&world, 0).add(&value(&world, 2));
    let last = world.item(Kind::Deal(chosen(Scalar::one().sub(&own).sub(&others))));
    assert!(world.put(1, last).unwrap());
    assert!((0..3).fold(Scalar::zero(), |sum, dealer| sum.add(&value(&world, dealer))).is_zero());
    world.silent.clear();
    world.run();
    assert!(!world.check(&[]).tiers[0].shares[1].is_identity());
}

#[test]
fn nobody_announces_anothers_key_or_two() {
    let mut world = World::new(4, 1);
    let announce = world.parts[0].items(&world.ceremony, &world.store).unwrap().remove(0);
    assert_eq!(world.put(1, announce.clone()).unwrap_err().code, Code::BadProof);
    assert!(world.put(0, announce.clone()).unwrap());
    assert!(!world.put(0, announce).unwrap(), "the first counts");
    let nobody = world.item(Kind::Verdict(Verdict::default()));
    assert_eq!(world.put(9, nobody).unwrap_err().code, Code::UnknownAuthority);
}

#[test]
fn dealers_that_lie_to_one_are_caught_and_do_not_count() {
    for n in [4, 7, 10] {
        for bad in [31, 0] {
            let mut world = World::new(n, 2);
            // Liars deal first: otherwise a quorum may be there without them.
            let liars: Vec<u32> = (0..faults(n) as u32).collect();
            for liar in &liars {
                let lie = dealing(move |_, deal| {
                    let per_receiver = deal.shares.len() / n;
                    // A share that differs, or one that may be no scalar.
                    let mut bytes = deal.shares.to_vec();
                    bytes[(n - 1) * per_receiver + bad] ^= 0x80;
                    deal.shares = bytes.into();
                });
                world.lies.insert(*liar, lie);
            }
            while world.ceremony.phase() == Phase::Announce {
                world.round();
            }
            world.silent = (faults(n) as u32..n as u32).collect();
            world.round();
            world.silent.clear();
            world.run();
            assert_eq!(world.ceremony.caught(), liars);
            assert!(world.refused.is_empty());
            world.check(&[]);
        }
    }
}

#[test]
fn false_complaints_are_found_out() {
    let complain = |world: &World, creator: u32| {
        let dealer = *world.ceremony.record.dealt.iter().find(|d| **d != creator).unwrap();
        let dealt = world.ceremony.dealt(dealer, 0, &world.store).unwrap();
        dealt.complain(&world.params, &seed(1, creator), creator)
    };
    let lies: Vec<(Code, Lie)> = vec![
        // What the dealer sent was right.
        (Code::BadProof, verdict(move |w, c, v| v.complaints = vec![complain(w, c)])),
        // Another secret than the one that the two share.
        (
            Code::BadProof,
            verdict(move |w, c, v| {
                let secret = Bytes::copy_from_slice(&G1::generator().to_bytes());
                v.complaints = vec![Complaint { secret, ..complain(w, c) }];
            }),
        ),
        (
            Code::BadProof,
            verdict(move |w, c, v| {
                let proof = flip(&complain(w, c).proof, 5);
                v.complaints = vec![Complaint { proof, ..complain(w, c) }];
            }),
        ),
        (Code::BadContent, verdict(move |w, c, v| v.complaints = vec![complain(w, c); 2])),
        (Code::BadContent, verdict(move |w, c, v| v.complaints = vec![Complaint { chunk: 9, ..complain(w, c) }])),
        (Code::BadContent, verdict(move |w, c, v| v.complaints = vec![Complaint { dealer: 77, ..complain(w, c) }])),
        // The victim's own words, from another's mouth.
        (
            Code::BadProof,
            verdict(move |w, c, v| {
                let dealer = *w.ceremony.record.dealt.iter().find(|d| **d != c).unwrap();
                let other = (0..4).find(|r| *r != c && *r != dealer).unwrap();
                let dealt = w.ceremony.dealt(dealer, 0, &w.store).unwrap();
                v.complaints = vec![dealt.complain(&w.params, &seed(1, other), other)];
            }),
        ),
    ];
    for (at, (code, lie)) in lies.into_iter().enumerate() {
        let mut world = World::new(4, 2);
        world.lies.insert(2, lie);
        world.run();
        assert_eq!(world.refusals(), BTreeMap::from([(2, code)]), "lie {at}");
        assert!(world.ceremony.caught().is_empty());
        world.check(&[]);
    }
}

/// A dealer that counts lied to a receiver that came too late to say so.
pub(super) fn late_victim(n: usize) -> World {
    let mut world = World::new(n, 2);
    let victim = n as u32 - 1;
    for liar in 0..faults(n) as u32 {
        world.lies.insert(liar, wrong_share(n - 1));
    }
    while world.ceremony.phase() == Phase::Announce {
        world.round();
    }
    world.silent = vec![victim];
    world.run();
    assert!(world.ceremony.caught().is_empty());
    assert!(world.ceremony.phase() == Phase::Active && world.shares()[victim as usize].is_none());
    assert!(!world.ceremony.is_settled());
    world
}

#[test]
fn who_comes_late_and_was_lied_to_gets_its_shares_from_the_others() {
    for n in [4, 7] {
        let mut world = late_victim(n);
        let (keys, liars) = (world.keys.clone(), world.ceremony.record.counted.clone());
        world.silent.clear();
        world.run();
        let liars: Vec<u32> = liars.into_iter().filter(|d| *d < faults(n) as u32).collect();
        assert!(!liars.is_empty());
        let mut caught = world.ceremony.caught();
        caught.sort_unstable();
        assert_eq!(caught, {
            let mut l = liars;
            l.sort_unstable();
            l
        });
        assert_eq!(Some(world.check(&[])), keys);
        assert!(world.ceremony.is_settled());
    }
}

#[test]
fn shares_are_shown_of_caught_dealers_only_and_must_be_right() {
    let mut world = late_victim(4);
    let honest = *world.ceremony.record.counted.iter().find(|d| **d != 0).unwrap();
    let shares_of = |world: &World, dealer: u32, receiver: u32| -> Bytes {
        let secret = encryption_secret(&world.params, &seed(1, receiver));
        let dealt = world.ceremony.dealt(dealer, 0, &world.store).unwrap();
        let shares = dealt.open(&world.params, &world.ceremony.record.announced, receiver, &secret).unwrap();
        shares.iter().flat_map(|s| *s.to_bytes()).collect::<Vec<u8>>().into()
    };
    // A receiver that has given its verdict cannot complain again, nor anyone without ground.
    let dealt = world.ceremony.dealt(0, 0, &world.store).unwrap();
    let again = dealt.complain(&world.params, &seed(1, 1), 1);
    assert_eq!(world.fault(1, Kind::Late(again)), Code::BadContent);
    let right = world.ceremony.dealt(honest, 0, &world.store).unwrap();
    let groundless = right.complain(&world.params, &seed(1, 3), 3);
    assert_eq!(world.fault(3, Kind::Late(groundless)), Code::BadProof);
    let early = world.item(Kind::Reveal(Reveal { dealer: 0, shares: shares_of(&world, 0, 1) }));
    assert!(!world.put(1, early.clone()).unwrap());

    let late = world.item(Kind::Late(dealt.complain(&world.params, &seed(1, 3), 3)));
    assert!(world.put(3, late.clone()).unwrap() && !world.put(3, late).unwrap());
    let anothers = Reveal { dealer: 0, shares: shares_of(&world, 0, 2) };
    assert_eq!(world.fault(1, Kind::Reveal(anothers)), Code::BadProof);
    let honests = world.item(Kind::Reveal(Reveal { dealer: honest, shares: shares_of(&world, honest, 1) }));
    assert!(!world.put(1, honests).unwrap());
    assert!(world.put(1, early).unwrap());
    assert!(world.shares()[3].is_none(), "one is not enough");
    world.silent.clear();
    world.run();
    world.check(&[]);
}
