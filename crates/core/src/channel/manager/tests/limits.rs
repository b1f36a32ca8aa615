//! Limits of nonces, and of what goes into one message to the log.

use super::world::*;
use crate::channel::manager::redeem::fit;
use crate::channel::manager::{Conditions, Input, Issue, issue};
use crate::channel::voucher::Voucher;
use crate::error::Code;
use crate::limits::{REDEMPTIONS_MAX, VOUCHER_NONCE_MAX};
use crate::wire;

#[test]
fn nonces_end_below_2_to_the_63() {
    let next = |nonce| issue::next_nonce(nonce).map_err(|e| e.code);
    assert_eq!(next(VOUCHER_NONCE_MAX - 1), Ok(VOUCHER_NONCE_MAX));
    for nonce in [VOUCHER_NONCE_MAX, VOUCHER_NONCE_MAX + 1, u64::MAX] {
        assert_eq!(next(nonce), Err(Code::VoucherNonce));
    }
    let mut world = World::new();
    let (end, bobs) = world.channel(100);
    let good = world.pay(end, 0, 10);
    let terms = Voucher::decode(&good).unwrap().terms;
    let signed = |nonce| {
        let terms = wire::Voucher { nonce, amount: 20, ..terms.clone() };
        Voucher::sign(terms, 0, &[&account(1).0]).signed()
    };
    for nonce in [VOUCHER_NONCE_MAX + 1, u64::MAX] {
        assert_eq!(world.code(BOB, Input::VoucherAdd(incoming(bobs, &signed(nonce)))), Code::VoucherNonce);
    }
    let last = signed(VOUCHER_NONCE_MAX);
    world.take(BOB, bobs, &last).unwrap();
    // Whoever signed it, and sees that it is known, signs nothing more in that lane.
    world.ask(ALICE, Input::VoucherAdd(incoming(end, &last))).unwrap();
    let more = Issue { end, lane: 0, amount: 30, conditions: Conditions::default() };
    assert!(world.ask(ALICE, Input::VoucherCreate(more)).is_err());
}

#[test]
fn a_message_has_no_more_redemptions_than_its_limit() {
    let sizes =
        |n: usize| fit(vec![wire::Redemption::default(); n], usize::MAX).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(REDEMPTIONS_MAX), [REDEMPTIONS_MAX]);
    assert_eq!(sizes(REDEMPTIONS_MAX + 1), [REDEMPTIONS_MAX, 1]);
    assert_eq!(sizes(64 * REDEMPTIONS_MAX), [REDEMPTIONS_MAX; 64]);
}
