//! The form of what is signed beside orders: each limit at it and one over, and what each signature is good for.

use super::*;
use crate::keys::Curve;
use crate::testing::{NETWORK_ID, secret};

fn key() -> SecretKey {
    secret(Curve::Ed25519, 1)
}

fn id(byte: u8) -> Bytes {
    Bytes::copy_from_slice(&[byte; 32])
}

fn terms() -> wire::Voucher {
    wire::Voucher { channel: id(7), payer: 1, lane: 3, nonce: 4, amount: 5, ..Default::default() }
}

fn decoded(terms: wire::Voucher) -> std::result::Result<Voucher, Code> {
    Voucher::decode(&Voucher::sign(terms, 1, &[&key()]).signed()).map_err(|e| e.code)
}

#[test]
fn a_voucher_is_read_as_it_was_signed() {
    for payer in [0, 1] {
        let signed = Voucher::sign(wire::Voucher { payer, ..terms() }, 1, &[&key(), &secret(Curve::Ed25519, 2)]);
        assert_eq!((signed.payee(), signed.signer, signed.signatures.len()), (1 - payer, 1, 2));
        assert_eq!(Voucher::decode(&signed.signed()).unwrap(), signed);
        let tagged: Hash = Sha256::digest([&b"florin-voucher-v1"[..], &signed.bytes].concat()).into();
        assert_eq!(signed.digest(), tagged);
    }
}

#[test]
fn the_form_of_a_voucher_has_limits() {
    let good = terms();
    assert!(decoded(good.clone()).is_ok());
    assert_eq!(decoded(wire::Voucher { channel: Bytes::from_static(&[7; 31]), ..good.clone() }), Err(Code::BadContent));
    assert_eq!(decoded(wire::Voucher { payer: 2, ..good.clone() }), Err(Code::BadContent));
    for (bytes, taken) in [(0, true), (1, false), (31, false), (32, true), (33, false)] {
        let found = decoded(wire::Voucher { secret_hash: vec![1; bytes].into(), ..good.clone() });
        assert_eq!(found.map(drop), if taken { Ok(()) } else { Err(Code::BadContent) }, "{bytes}");
    }
    for (merges, taken) in [(1, true), (MERGES_MAX, true), (MERGES_MAX + 1, false), (2 * MERGES_MAX, false)] {
        let found = decoded(wire::Voucher { merges: vec![Default::default(); merges], ..good.clone() });
        assert_eq!(found.map(drop), if taken { Ok(()) } else { Err(Code::Limit) }, "{merges}");
    }
    let of = |count| Some(wire::VirtualSet { root: id(1), count });
    for (count, taken) in [(0, false), (1, true), (VIRTUALS_MAX, true), (VIRTUALS_MAX + 1, false)] {
        let found = decoded(wire::Voucher { virtuals: of(count), ..good.clone() });
        assert_eq!(found.map(drop), if taken { Ok(()) } else { Err(Code::Limit) }, "{count}");
    }
    let root = Some(wire::VirtualSet { root: Bytes::from_static(&[1; 33]), count: 1 });
    assert_eq!(decoded(wire::Voucher { virtuals: root, ..good.clone() }), Err(Code::BadContent));
    let signed = Voucher::sign(good, 1, &[&key()]).signed();
    let decode = |signed: wire::SignedVoucher| Voucher::decode(&signed).map(drop).map_err(|e| e.code);
    assert_eq!(decode(wire::SignedVoucher { signer: 2, ..signed.clone() }), Err(Code::BadContent));
    assert_eq!(decode(wire::SignedVoucher { signer: 0, ..signed.clone() }), Ok(()));
    let many = |n: usize| wire::SignedVoucher { signatures: vec![signed.signatures[0].clone(); n], ..signed.clone() };
    assert_eq!([0, 1, SIGS_PER_AUTHORITY_MAX].map(|n| decode(many(n))), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(decode(many(SIGS_PER_AUTHORITY_MAX + 1)), Err(Code::Limit));
    // A field that says nothing: the same voucher in other bytes.
    let voucher = [&signed.voucher[..], &[0x20, 4]].concat().into();
    assert_eq!(decode(wire::SignedVoucher { voucher, ..signed }), Err(Code::NonCanonical));
}

#[test]
fn a_permit_is_good_for_what_it_says_and_by_its_own_key() {
    let withdraw = wire::WithdrawPermit { channel: id(7), side: 1, withdrawn: 50, not_after_ms: 9 };
    let watch = wire::WatchPermit { channel: id(7), side: 1, watcher: id(3) };
    let (leaves, watches) = (sign_withdraw(&withdraw, &[&key()]), sign_watch(&watch, &[&key()]));
    assert_eq!((withdraw_permit(&leaves), watch_permit(&watches)), (Ok(withdraw.clone()), Ok(watch.clone())));
    let permission = Permission::single(key().public());
    let address = permission.address(NETWORK_ID);
    let other = Permission::single(secret(Curve::Ed25519, 2).public());
    assert_eq!(verify_withdraw(&leaves, &permission, &address), Ok(()));
    assert_eq!(verify_watch(&watches, &permission, &address), Ok(()));
    assert_eq!(verify_withdraw(&leaves, &other, &address).unwrap_err().code, Code::KeyMismatch);
    assert_eq!(verify_watch(&watches, &other, &address).unwrap_err().code, Code::KeyMismatch);
    // Neither signature is one of the other kind over the same bytes, nor of a voucher.
    let voucher = Voucher::sign(terms(), 1, &[&key()]).signed();
    for signed in [&leaves, &watches, &wire::SignedPermit { permit: voucher.voucher, signatures: voucher.signatures }] {
        let taken = [
            verify_withdraw(signed, &permission, &address).is_ok(),
            verify_watch(signed, &permission, &address).is_ok(),
            verify_virtual(signed, &permission).is_ok(),
        ];
        assert_eq!(taken, [signed == &leaves, signed == &watches, false]);
    }
    let code = |permit: &wire::WithdrawPermit| withdraw_permit(&sign_withdraw(permit, &[])).unwrap_err().code;
    assert_eq!(code(&wire::WithdrawPermit { side: 2, ..withdraw.clone() }), Code::BadContent);
    assert_eq!(code(&wire::WithdrawPermit { channel: Bytes::new(), ..withdraw }), Code::BadContent);
    let code = |permit: &wire::WatchPermit| watch_permit(&sign_watch(permit, &[])).unwrap_err().code;
    assert_eq!(code(&wire::WatchPermit { side: 2, ..watch.clone() }), Code::BadContent);
    assert_eq!(code(&wire::WatchPermit { channel: Bytes::new(), ..watch.clone() }), Code::BadContent);
    assert_eq!(code(&wire::WatchPermit { watcher: Bytes::new(), ..watch }), Code::BadContent);
    let many = |signed: &wire::SignedPermit| wire::SignedPermit {
        signatures: vec![signed.signatures[0].clone(); SIGS_PER_AUTHORITY_MAX + 1],
        ..signed.clone()
    };
    assert_eq!(withdraw_permit(&many(&leaves)).unwrap_err().code, Code::Limit);
    assert_eq!(watch_permit(&many(&watches)).unwrap_err().code, Code::Limit);
}

#[test]
fn what_a_virtual_channel_has_moved_is_signed_by_its_own_keys() {
    let amount = wire::VirtualAmount { id: id(1), amount: 30 };
    let signed = sign_virtual(&amount, &[&key()]);
    assert_eq!(virtual_amount(&signed), Ok(amount.clone()));
    let permission = Permission::single(key().public());
    let other = Permission::single(secret(Curve::Ed25519, 2).public());
    assert_eq!(verify_virtual(&signed, &permission), Ok(()));
    assert_eq!(verify_virtual(&signed, &other).unwrap_err().code, Code::KeyMismatch);
    let short = wire::VirtualAmount { id: Bytes::from_static(&[1; 31]), amount: 30 };
    assert_eq!(virtual_amount(&sign_virtual(&short, &[])).unwrap_err().code, Code::BadContent);
    let many = vec![signed.signatures[0].clone(); SIGS_PER_AUTHORITY_MAX + 1];
    let many = wire::SignedPermit { signatures: many, ..signed };
    assert_eq!(virtual_amount(&many).unwrap_err().code, Code::Limit);
}

#[test]
fn a_claim_has_a_form() {
    let cap = wire::VirtualCap {
        id: id(1),
        permission: Permission::single(key().public()).encode(),
        cap: 100,
        not_after_ms: 5,
    };
    let tagged: Hash = Sha256::digest([&b"florin-virtual-cap-v1"[..], &cap.encode_to_vec()].concat()).into();
    assert_eq!(virtual_leaf(&cap), tagged);
    let amount = wire::VirtualAmount { id: id(1), amount: 30 };
    let watch = wire::WatchPermit { channel: id(7), side: 1, watcher: id(3) };
    let good = wire::VirtualClaim {
        channel: id(7),
        payer: 0,
        lane: 2,
        cap: Some(cap.clone()),
        index: 1,
        path: vec![id(4), id(5)],
        amount: Some(sign_virtual(&amount, &[&key()])),
        watch: Some(sign_watch(&watch, &[&key()])),
    };
    assert_eq!(virtual_claim(&good), Ok((amount, vec![[4; 32], [5; 32]])));
    let many = vec![Bytes::new(); SIGS_PER_AUTHORITY_MAX + 1];
    let signed = |signatures: Vec<Bytes>| wire::SignedPermit { signatures, ..good.amount.clone().unwrap() };
    for (bad, code) in [
        (wire::VirtualClaim { channel: Bytes::new(), ..good.clone() }, Code::BadContent),
        (wire::VirtualClaim { payer: 2, ..good.clone() }, Code::BadContent),
        (wire::VirtualClaim { cap: None, ..good.clone() }, Code::BadContent),
        (
            wire::VirtualClaim { cap: Some(wire::VirtualCap { id: Bytes::new(), ..cap.clone() }), ..good.clone() },
            Code::BadContent,
        ),
        (wire::VirtualClaim { amount: None, ..good.clone() }, Code::BadContent),
        (wire::VirtualClaim { amount: Some(signed(many)), ..good.clone() }, Code::Limit),
        (wire::VirtualClaim { path: vec![Bytes::from_static(&[4; 31])], ..good.clone() }, Code::BadContent),
        (
            wire::VirtualClaim {
                watch: Some(sign_watch(&wire::WatchPermit { side: 2, ..watch.clone() }, &[])),
                ..good.clone()
            },
            Code::BadContent,
        ),
    ] {
        assert_eq!(virtual_claim(&bad).unwrap_err().code, code, "{bad:?}");
    }
    let keyless = wire::VirtualCap { permission: Bytes::new(), ..cap };
    assert!(virtual_claim(&wire::VirtualClaim { cap: Some(keyless), ..good }).is_err());
}
