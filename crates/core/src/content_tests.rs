//! The reader of usual payments, held to the general one.

use proptest::prelude::*;

use super::*;

fn credits() -> impl Strategy<Value = Vec<Credit>> {
    let amount = prop_oneof![Just(0), Just(1), Just(AMOUNT_MAX), Just(AMOUNT_MAX + 1), any::<u64>(), 1..1_000u64];
    let credit =
        (any::<[u8; 32]>(), amount).prop_map(|(address, amount)| Credit { address: Address::new(address), amount });
    prop::collection::vec(credit, 0..4)
}

/// Bytes to put in, take out or change.
fn changes() -> impl Strategy<Value = Vec<(u8, prop::sample::Index, u8)>> {
    prop::collection::vec((0..3u8, any::<prop::sample::Index>(), any::<u8>()), 0..3)
}

fn changed(bytes: &[u8], changes: &[(u8, prop::sample::Index, u8)]) -> Bytes {
    let mut bytes = bytes.to_vec();
    for (kind, at, byte) in changes {
        let at = at.index(bytes.len() + 1);
        match kind {
            0 => bytes.insert(at, *byte),
            _ if at == bytes.len() => {}
            1 => bytes[at] = *byte,
            _ => drop(bytes.remove(at)),
        }
    }
    bytes.into()
}

proptest! {
    #[test]
    fn both_readers_of_payments_agree(
        credits in credits(),
        memo in "[a-zé]{0,200}",
        open in prop::option::of(prop::collection::vec(any::<u8>(), 1..60)),
        changes in changes(),
    ) {
        let encoded = encode_pay(&credits, &memo, open.map(Bytes::from));
        let content = changed(&encoded, &changes);
        let mut notes = Vec::new();
        let general = check_pay(&content, &mut notes);
        match read_pay(&content) {
            Some(pay) => prop_assert_eq!(general, Ok(pay)),
            None => prop_assert!(general.is_err() || !notes.is_empty(), "what is right and has no notes is read"),
        }
    }
}
