//! A wallet can pay whatever it has, with the least change, and keeps a spread that makes change rare.

use proptest::prelude::*;

use super::*;

fn counts() -> impl Strategy<Value = Counts> {
    let few = prop::collection::vec(0u32..5, TIERS);
    let low = prop::collection::vec(0u32..300, 6);
    prop_oneof![
        few.prop_map(|v| Counts(v.try_into().unwrap())),
        low.prop_map(|v| Counts(std::array::from_fn(|t| v.get(t).copied().unwrap_or(0)))),
    ]
}

/// Every sum that some choice of notes has.
fn sums(have: &Counts) -> Vec<u64> {
    let mut sums = vec![0u64];
    for tier in have.tiers() {
        let more: Vec<u64> = sums.iter().map(|s| s + value(tier)).collect();
        sums.extend(more);
        sums.sort_unstable();
        sums.dedup();
    }
    sums
}

proptest! {
    #[test]
    fn it_pays_whatever_it_has(have in counts(), part in 0.0f64..=1.0) {
        let total = have.total() as u64;
        prop_assume!(total > 0);
        let amount = ((total as f64 * part) as u64).clamp(1, total);
        let mut have = have;
        // Merging always makes notes fewer, so it ends.
        let plan = loop {
            match plan_spend(&have, amount, NOTES_PER_ORDER).unwrap() {
                Step::Pay(plan) => break plan,
                Step::Merge(notes) => {
                    prop_assert!(notes.notes() <= NOTES_PER_ORDER);
                    let made = plan_issue(notes.total() as u64, &have, TIERS, NOTES_IN_ORDER - notes.notes()).unwrap();
                    let made = if made.notes() < notes.notes() { made } else { fewest(notes.total() as u64, TIERS).unwrap() };
                    prop_assert!(made.notes() < notes.notes());
                    have = have.without(&notes).with(&made);
                }
            }
        };
        prop_assert_eq!(u128::from(total), have.total());
        prop_assert_eq!(plan.notes.total(), u128::from(amount) + u128::from(plan.change));
        prop_assert_eq!(plan.notes.with(&have.without(&plan.notes)), have, "only notes that there are");
        match plan.split {
            None => prop_assert_eq!(plan.change, 0),
            Some(tier) => {
                prop_assert!(plan.change > 0 && value(tier) > plan.change && plan.notes[tier] > 0);
                // The order that changes it fits.
                let rest = fewest(value(tier) - plan.change, TIERS).unwrap();
                let change = plan_issue(plan.change, &have, TIERS, NOTES_IN_ORDER - 1 - rest.notes()).unwrap();
                prop_assert_eq!(change.total(), u128::from(plan.change));
            }
        }
    }

    #[test]
    fn change_is_the_least_there_is(tiers in prop::collection::vec(0u32..9, 1..10), amount in 1u64..2_000) {
        let have = Counts::of(tiers);
        let amount = 1 + amount % have.total() as u64;
        let least = sums(&have).into_iter().find(|s| *s >= amount).unwrap() - amount;
        let Step::Pay(plan) = plan_spend(&have, amount, NOTES_PER_ORDER).unwrap() else { panic!() };
        prop_assert_eq!(plan.change, least);
        prop_assert_eq!(plan.split.is_some(), least > 0);
    }

    #[test]
    fn what_is_made_is_worth_the_amount(amount in 1u64..1 << 38, have in counts(), tiers in 1usize..=TIERS, room in 1u64..=256) {
        let Ok(made) = plan_issue(amount, &have, tiers, room) else {
            prop_assert!(fewest(amount, tiers).is_err() || fewest(amount, tiers).unwrap().notes() > room);
            return Ok(());
        };
        prop_assert_eq!(made.total(), u128::from(amount));
        prop_assert!(made.notes() <= room && made.0[tiers..].iter().all(|n| *n == 0));
    }
}

#[test]
fn more_than_there_is_and_nothing_are_refused() {
    let have = Counts::of([0, 1, 2]);
    assert_eq!(plan_spend(&have, 8, 128).unwrap_err().code, Code::InsufficientFunds);
    assert_eq!(plan_spend(&have, 0, 128).unwrap_err().code, Code::BadAmount);
    assert_eq!(plan_spend(&Counts::default(), 1, 128).unwrap_err().code, Code::InsufficientFunds);
    let mut tops = Counts::default();
    tops[31] = 200;
    let too_many = plan_spend(&tops, value(31) * 150, 128).unwrap_err();
    assert_eq!(too_many.code, Code::Limit);
    assert!(plan_issue(value(31) * 257, &have, TIERS, 256).is_err());
}

#[test]
fn a_wallet_with_a_spread_seldom_needs_change() {
    let mut have = plan_issue(100_000, &Counts::default(), TIERS, 256).unwrap();
    assert!(have.notes() <= 60, "{have:?}");
    let (mut changed, mut paid) = (0, 0);
    let mut next = 1u64;
    // Payments of up to a hundredth of it, each followed by one that comes in.
    for _ in 0..1_000 {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let amount = 1 + (next >> 33) % 1_000;
        let Step::Pay(plan) = plan_spend(&have, amount, NOTES_PER_ORDER).unwrap() else { panic!("{have:?}") };
        have = have.without(&plan.notes);
        have = have.with(&plan_issue(plan.change, &have, TIERS, 128).unwrap());
        changed += u32::from(plan.change > 0);
        paid += 1;
        let back = 1 + (next >> 20) % 1_000;
        have = have.with(&plan_issue(back, &have, TIERS, 128).unwrap());
    }
    assert!(changed * 5 < paid, "{changed} of {paid} payments needed change");
    assert!(have.notes() < 200, "notes pile up: {have:?}");
}
