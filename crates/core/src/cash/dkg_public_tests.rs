//! What all know of a run, phase by phase: who is waited for, what is refused, what is read back. Few authorities and tiers: quick.

use super::ceremony::Ceremony;
use super::dealing::{points, scalars};
use super::keys::{evaluate, evaluate_points};
use super::wire::Announce;
use super::*;
use crate::limits::COMMITTEE_MAX;

/// Some hand in what they have to hand in; nobody loses patience.
fn hand_in(world: &mut World, who: &[u32]) {
    let all = 0..world.parts.len() as u32;
    world.silent = all.filter(|i| !who.contains(i)).collect();
    world.round();
}

fn patient(world: &mut World, who: &[u32]) {
    for i in who {
        let vote = world.parts[*i as usize].go_on(&world.ceremony).unwrap();
        assert!(world.put(*i, vote).unwrap());
    }
}

fn confirm(world: &World) -> Kind {
    Kind::Confirm(Bytes::copy_from_slice(world.ceremony.keys_hash().unwrap()))
}

#[test]
fn in_each_phase_it_is_known_who_is_waited_for() {
    let mut world = World::new(4, 1);
    let found = |world: &World| (world.ceremony.phase(), world.ceremony.missing(), world.ceremony.waits_for());
    assert_eq!(found(&world), (Phase::Announce, vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
    hand_in(&mut world, &[1, 2]);
    assert_eq!(found(&world), (Phase::Announce, vec![0, 3], vec![0, 3]));
    hand_in(&mut world, &[0]);
    patient(&mut world, &[0, 1, 2]);
    // Whoever has announced nothing stays out, and deals all the same.
    assert_eq!(found(&world), (Phase::Deal, vec![3], vec![0, 1, 2, 3]));
    hand_in(&mut world, &[3]);
    assert_eq!(found(&world), (Phase::Deal, vec![3], vec![0, 1, 2]));
    hand_in(&mut world, &[0, 2]);
    assert_eq!(found(&world), (Phase::Verdict, vec![0, 1, 2, 3], vec![0, 1, 2]));
    hand_in(&mut world, &[1]);
    assert_eq!(found(&world), (Phase::Verdict, vec![0, 2, 3], vec![0, 2]));
    // Nobody speaks without a key of its own.
    assert_eq!(world.fault(3, Kind::Verdict(Verdict::default())), Code::BadContent);
    hand_in(&mut world, &[0, 2]);
    assert_eq!(found(&world), (Phase::Closed, vec![3], vec![0, 1, 2, 3]));
    assert_eq!(world.fault(3, confirm(&world)), Code::BadContent);
    let late = world.ceremony.dealt(3, 0, &world.store).unwrap().complain(&world.params, &seed(1, 3), 3);
    assert_eq!(world.fault(3, Kind::Late(late)), Code::BadContent);
    hand_in(&mut world, &[0, 1, 2]);
    assert_eq!(found(&world), (Phase::Active, vec![3], vec![3]));
    assert!(world.ceremony.is_settled() && world.ceremony.found_out().is_empty());
}

#[test]
fn shares_of_a_key_are_dealt_on_by_all_who_have_some_before_the_verdicts() {
    let mut first = World::new(4, 1);
    while first.round() {}
    let keys = Arc::new(first.keys.clone().unwrap());
    let mut world = World::of(params(4, 1, 2, Some(keys)), first.shares());
    hand_in(&mut world, &[0, 1, 2, 3]);
    for dealer in 0..4 {
        assert_eq!(world.ceremony.phase(), Phase::Deal, "before dealer {dealer}");
        hand_in(&mut world, &[dealer]);
    }
    assert_eq!(world.ceremony.phase(), Phase::Verdict);
}

#[test]
fn two_liars_of_four_are_named_and_leave_no_keys() {
    let mut world = World::new(4, 1);
    hand_in(&mut world, &[0, 1, 2, 3]);
    for liar in [0, 1] {
        world.lies.insert(liar, wrong_share(3));
    }
    hand_in(&mut world, &[0, 1]);
    hand_in(&mut world, &[2]);
    hand_in(&mut world, &[0, 1, 2, 3]);
    // One complaint a dealer, ascending.
    assert!(world.refused.is_empty());
    assert_eq!((world.ceremony.phase(), world.ceremony.caught()), (Phase::Failed, vec![0, 1]));
    assert_eq!(world.ceremony.found_out(), [0, 1]);
    assert!(world.keys.is_none() && world.ceremony.keys_hash().is_none());
    assert!(world.shares().iter().all(Option::is_none));
    assert_eq!((world.ceremony.waits_for(), world.round()), (vec![], false));
}

#[test]
fn a_late_complaint_counts_from_the_close_on() {
    let mut world = World::new(4, 1);
    hand_in(&mut world, &[0, 1, 2, 3]);
    world.lies.insert(0, wrong_share(3));
    hand_in(&mut world, &[0]);
    hand_in(&mut world, &[1, 2]);
    let dealt = world.ceremony.dealt(0, 0, &world.store).unwrap();
    let late = world.item(Kind::Late(dealt.complain(&world.params, &seed(1, 3), 3)));
    assert_eq!(world.ceremony.phase(), Phase::Verdict);
    assert!(!world.put(3, late.clone()).unwrap(), "it is not late yet");
    hand_in(&mut world, &[0, 1, 2]);
    patient(&mut world, &[0, 1, 2]);
    assert_eq!((world.ceremony.phase(), world.ceremony.caught()), (Phase::Closed, vec![]));
    assert!(world.put(3, late).unwrap());
    assert_eq!(world.ceremony.caught(), [0]);
    assert_eq!(world.ceremony.missing(), [3]);
}

#[test]
fn what_an_authority_has_lost_is_nobodys_fault() {
    let mut world = World::new(4, 1);
    hand_in(&mut world, &[0, 1, 2, 3]);
    world.lies.insert(0, wrong_share(3));
    hand_in(&mut world, &[0]);
    hand_in(&mut world, &[1, 2]);
    let items = world.parts[3].items(&world.ceremony, &world.store).unwrap();
    let store = std::mem::take(&mut world.store);
    assert_eq!(world.put(3, items[0].clone()).unwrap_err().code, Code::StorageCorrupt);
    assert!(world.ceremony.found_out().is_empty());
    world.store = store;
    world.log.clear();
    assert!(world.put(3, items[0].clone()).unwrap());
    assert_eq!(world.ceremony.found_out(), [0]);
}

#[test]
fn a_record_of_other_sizes_is_refused() {
    let world = World::new(4, 1);
    let load = |change: &dyn Fn(&mut wire::CeremonyRecord)| {
        let mut record = world.ceremony.record.clone();
        change(&mut record);
        let found = Ceremony::load(world.params.clone(), &record.encode_to_vec());
        found.map(|ceremony| ceremony.phase()).map_err(|e| e.code)
    };
    assert_eq!(load(&|_| {}), Ok(Phase::Announce));
    assert_eq!(load(&|r| (r.dealt, r.counted) = (vec![0, 3], vec![3])), Ok(Phase::Announce));
    assert_eq!(load(&|r| r.phase = 5), Ok(Phase::Failed));
    let wrong: [&dyn Fn(&mut wire::CeremonyRecord); 13] = [
        &|r| r.announced.truncate(3),
        &|r| r.verdicts.push(true),
        &|r| r.go_on.truncate(3),
        &|r| r.confirmed.push(true),
        &|r| r.dealers.truncate(3),
        &|r| r.dealers.push(r.dealers[0].clone()),
        &|r| r.dealers[2].reveals.truncate(3),
        &|r| r.dealt = vec![4],
        &|r| r.counted = vec![0, 4],
        &|r| r.counted = vec![u32::MAX],
        &|r| r.faulty.truncate(3),
        &|r| r.phase = 6,
        &|r| r.phase = u32::MAX,
    ];
    for (at, change) in wrong.into_iter().enumerate() {
        assert_eq!(load(change), Err(Code::StorageCorrupt), "change {at}");
    }
    assert_eq!(Ceremony::load(world.params.clone(), b"\xff").unwrap_err().code, Code::StorageCorrupt);
}

#[test]
fn a_dealing_with_false_proofs_or_lengths_is_not_taken() {
    let mut world = World::new(4, 2);
    hand_in(&mut world, &[0, 1, 2, 3]);
    let items = world.parts[0].items(&world.ceremony, &world.store).unwrap();
    let Some(Kind::Deal(deal)) = canonical::<DkgItem>(&items[0]).unwrap().kind else { panic!() };
    let fault = |deal: Deal| world.fault(0, Kind::Deal(deal));
    for at in [0, 33] {
        let secrets_proof = flip(&deal.secrets_proof, at + 30);
        assert_eq!(fault(Deal { secrets_proof, ..deal.clone() }), Code::BadProof);
        let ephemeral_proof = flip(&deal.ephemeral_proof, at + 30);
        assert_eq!(fault(Deal { ephemeral_proof, ..deal.clone() }), Code::BadProof);
    }
    let longer = |bytes: &Bytes, by: &[u8]| Bytes::from([&bytes[..], by].concat());
    let commitments = longer(&deal.commitments, &deal.commitments[..96]);
    assert_eq!(fault(Deal { commitments, ..deal.clone() }), Code::BadContent);
    let shares = longer(&deal.shares, &[0; 32]);
    assert_eq!(fault(Deal { shares, ..deal.clone() }), Code::BadContent);
    assert_eq!(fault(Deal { secrets_proof: longer(&deal.secrets_proof, &[0]), ..deal }), Code::BadProof);
}

#[test]
fn points_and_scalars_are_as_many_as_expected_and_nothing_else() {
    let point = G2::generator().to_bytes();
    let (one, two) = (point.to_vec(), [point, point].concat());
    let count = |bytes: &[u8], n| points("points", bytes, n).map(|all| all.len()).map_err(|e| e.code);
    assert_eq!((count(&one, 1), count(&two, 2), count(&[], 0)), (Ok(1), Ok(2), Ok(0)));
    for (bytes, n) in [(&one[..], 2), (&two[..], 1), (&two[..97], 1), (&two[..191], 2), (&[1][..], 0)] {
        assert_eq!(count(bytes, n), Err(Code::BadContent), "{} bytes for {n}", bytes.len());
    }
    let count = |bytes: &[u8], n| scalars("scalars", bytes, n).map(|all| all.len()).map_err(|e| e.code);
    assert_eq!((count(&[0; 32], 1), count(&[0; 64], 2)), (Ok(1), Ok(2)));
    for (bytes, n) in [(32, 2), (64, 1), (33, 1), (63, 2), (1, 0)] {
        assert_eq!(count(&[0; 64][..bytes], n), Err(Code::BadContent), "{bytes} bytes for {n}");
    }
}

#[test]
fn a_polynomial_in_the_exponent_has_the_values_of_its_scalars() {
    let coefficients: Vec<Scalar> = (3..6).map(Scalar::from_u64).collect();
    let hidden: Vec<G2> = coefficients.iter().map(|c| G2::generator().mul(c)).collect();
    for x in (0..=20).chain([63, 64, 127, 128]) {
        let expected = G2::generator().mul(&evaluate(&coefficients, x));
        assert_eq!(evaluate_points(&hidden, x), expected, "at {x}");
    }
}

#[test]
fn public_keys_are_read_within_their_limits() {
    let read = |tiers: usize, threshold: usize, holders: usize| {
        let tier = TierKeys { key: G2::generator(), shares: vec![G2::generator(); holders] };
        let keys = PublicKeys { threshold, tiers: vec![tier; tiers] };
        PublicKeys::decode(&keys.encode()).map(|read| read == keys).map_err(|e| e.code)
    };
    for (tiers, threshold, holders) in [(1, 1, 1), (TIERS_MAX, 1, 1), (1, 3, 4), (1, 4, 4), (1, 128, COMMITTEE_MAX)] {
        assert_eq!(read(tiers, threshold, holders), Ok(true), "{tiers} tiers, {threshold} of {holders}");
    }
    let wrong =
        [(0, 1, 1), (TIERS_MAX + 1, 1, 1), (1, 0, 4), (1, 5, 4), (1, 1, 0), (1, 3, COMMITTEE_MAX + 1), (1, 200, 200)];
    for (tiers, threshold, holders) in wrong {
        let found = read(tiers, threshold, holders);
        assert_eq!(found, Err(Code::BadContent), "{tiers} tiers, {threshold} of {holders}");
    }
    // All tiers have as many holders.
    let tier = |holders| TierKeys { key: G2::generator(), shares: vec![G2::generator(); holders] };
    let uneven = PublicKeys { threshold: 2, tiers: vec![tier(4), tier(5)] };
    assert_eq!(PublicKeys::decode(&uneven.encode()).unwrap_err().code, Code::BadContent);
}

#[test]
fn shares_are_stored_with_their_holder_and_never_shown() {
    let shares = KeyShares { index: 3, tiers: (1..=2).map(Scalar::from_u64).collect() };
    assert_eq!(format!("{shares:?}"), "KeyShares of 3");
    let stored = shares.encode();
    assert_eq!((stored.len(), &stored[..4]), (4 + 2 * 32, &[0, 0, 0, 3][..]));
    assert!(KeyShares::decode(&stored).unwrap() == shares);
    for length in [0, 3, 4, 35, 67, 69] {
        let bytes: Vec<u8> = stored.iter().copied().chain([0]).take(length).collect();
        assert_eq!(KeyShares::decode(&bytes).unwrap_err().code, Code::BadContent, "{length} bytes");
    }
    let many = |tiers: usize| KeyShares::decode(&vec![0; 4 + 32 * tiers]).map(|shares| shares.tiers.len());
    assert_eq!(many(TIERS_MAX).unwrap(), TIERS_MAX);
    assert_eq!(many(TIERS_MAX + 1).unwrap_err().code, Code::BadContent);
}

#[test]
fn what_comes_twice_or_in_another_phase_changes_nothing_and_is_no_fault() {
    let mut world = World::new(4, 1);
    let announce = world.parts[0].items(&world.ceremony, &world.store).unwrap().remove(0);
    let Some(Kind::Announce(key)) = canonical::<DkgItem>(&announce).unwrap().kind else { panic!() };
    let complaint = Complaint { dealer: 77, chunk: 9, ..Default::default() };
    // Of each kind one that would be a fault in its time.
    let junk = [
        (Phase::Announce, Kind::Announce(Announce { proof: Bytes::new(), ..key })),
        (Phase::Deal, Kind::Deal(Deal::default())),
        (Phase::Verdict, Kind::Verdict(Verdict { complaints: vec![complaint.clone()] })),
        (Phase::Closed, Kind::Late(complaint)),
        (Phase::Closed, Kind::Confirm(Bytes::new())),
    ];
    for phase in [Phase::Announce, Phase::Deal, Phase::Verdict, Phase::Closed] {
        assert_eq!(world.ceremony.phase(), phase);
        for (of, kind) in &junk {
            let item = world.item(kind.clone());
            let effects = world.ceremony.clone().handle(1, &item, &world.store).unwrap();
            assert_eq!(
                (effects.fault.is_some(), effects.changed),
                (*of == phase, *of == phase),
                "{kind:?} in {phase:?}"
            );
        }
        // Once it has done its part it is listened to no more.
        hand_in(&mut world, &[1]);
        let own = junk.iter().filter(|(of, kind)| *of == phase && !matches!(kind, Kind::Late(_)));
        for (_, kind) in own {
            let item = match kind {
                Kind::Deal(deal) => world.item(Kind::Deal(Deal { chunk: 0, ..deal.clone() })),
                kind => world.item(kind.clone()),
            };
            let effects = world.ceremony.clone().handle(1, &item, &world.store).unwrap();
            assert_eq!(effects, Effects::default(), "{kind:?} twice");
        }
        hand_in(&mut world, &[0, 2, 3]);
    }
    assert_eq!(world.ceremony.phase(), Phase::Active);
}

#[test]
fn shares_that_are_enough_are_shown_no_more() {
    let mut world = World::new(7, 1);
    hand_in(&mut world, &[0, 1, 2, 3, 4, 5, 6]);
    world.lies.insert(0, wrong_share(6));
    hand_in(&mut world, &[0, 1, 2, 3, 4]);
    hand_in(&mut world, &[0, 1, 2, 3, 4]);
    patient(&mut world, &[0, 1, 2, 3, 4]);
    assert_eq!(world.ceremony.phase(), Phase::Closed);
    let kinds = |world: &World, i: usize| -> Vec<Kind> {
        let items = world.parts[i].items(&world.ceremony, &world.store).unwrap();
        items.iter().map(|item| canonical::<DkgItem>(item).unwrap().kind.unwrap()).collect()
    };
    // Five and six come late; only six was lied to.
    assert!(matches!(kinds(&world, 5)[..], [Kind::Confirm(_)]));
    assert!(matches!(kinds(&world, 6)[..], [Kind::Late(_)]));
    hand_in(&mut world, &[6]);
    assert!(matches!(kinds(&world, 5)[..], [Kind::Reveal(_), Kind::Confirm(_)]));
    assert!(kinds(&world, 6).is_empty(), "it waits for the others");
    hand_in(&mut world, &[0, 1, 2, 3, 4]);
    assert!(matches!(kinds(&world, 5)[..], [Kind::Confirm(_)]), "a threshold is there");
    assert!(matches!(kinds(&world, 6)[..], [Kind::Confirm(_)]));
    assert_eq!(world.shares()[6].as_ref().map(|shares| shares.index), Some(6));
}

#[test]
fn a_participant_shows_its_place_and_no_seed() {
    let world = World::new(4, 1);
    assert_eq!(format!("{:?}", world.parts[2]), "Participant Member { dealer: Some(2), receiver: Some(2) }");
}

#[test]
fn a_run_tells_its_number_and_how_many_shares_make_a_signature() {
    for (n, threshold) in [(4, 3), (5, 4), (6, 5), (7, 5), (8, 6), (9, 7), (10, 7), (20, 14), (128, 86)] {
        let params = params(n, 3, 12, None);
        assert_eq!((params.run(), params.tiers(), params.threshold()), (12, 3, threshold), "{n} authorities");
    }
}
