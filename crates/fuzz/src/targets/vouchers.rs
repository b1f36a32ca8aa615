//! Vouchers, permits and invoices, and what a voucher does to a channel.

use std::sync::LazyLock;

use bytes::Bytes;
use florin_core::channel::hub::read_invoice;
use florin_core::channel::rules::{self, At};
use florin_core::channel::voucher::{self, Voucher};
use florin_core::keys::SecretKey;
use florin_core::merkle::{Hash, Tree};
use florin_core::testing::Signer;
use florin_core::{limits, wire};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::cursor::Cursor;

/// Vouchers of the right form go on as they came.
pub fn voucher(bytes: &[u8]) {
    let Ok(signed) = wire::SignedVoucher::decode(bytes) else { return };
    let Ok(voucher) = Voucher::decode(&signed) else { return };
    assert_eq!(voucher.signed(), signed);
    assert_eq!(voucher.terms.encode_to_vec(), signed.voucher, "one voucher has one encoding");
    assert!(voucher.terms.payer < 2 && voucher.signer < 2 && voucher.payee() == 1 - voucher.terms.payer);
    assert!(voucher.terms.merges.len() <= limits::MERGES_MAX && voucher.signatures.len() <= 16);
    let signer = Signer::new(1);
    let job = voucher.job(&signer.permission, &signer.address);
    if job.is_ok_and(|job| job.verify().is_ok()) {
        let own = Voucher::sign(voucher.terms.clone(), voucher.signer, &[&signer.keys[0]]);
        assert_eq!(own.signatures, voucher.signatures, "a signature that the key never made");
    }
}

/// Permits and claims.
pub fn permits(bytes: &[u8]) {
    if let Ok(signed) = wire::SignedPermit::decode(bytes) {
        if let Ok(permit) = voucher::withdraw_permit(&signed) {
            assert_eq!(permit.encode_to_vec(), signed.permit);
            assert!(permit.side < 2 && permit.channel.len() == 32);
        }
        if let Ok(permit) = voucher::watch_permit(&signed) {
            assert_eq!(permit.encode_to_vec(), signed.permit);
            let signer = Signer::new(1);
            if voucher::verify_watch(&signed, &signer.permission, &signer.address).is_ok() {
                assert_eq!(voucher::sign_watch(&permit, &[&signer.keys[0]]), signed);
                let other = voucher::verify_withdraw(&signed, &signer.permission, &signer.address);
                assert!(other.is_err(), "a permit to watch is none to withdraw");
            }
        }
        if let Ok(amount) = voucher::virtual_amount(&signed) {
            assert_eq!(amount.encode_to_vec(), signed.permit);
        }
    }
    if let Ok(claim) = wire::VirtualClaim::decode(bytes)
        && let Ok((amount, path)) = voucher::virtual_claim(&claim)
    {
        assert_eq!(amount.encode_to_vec(), claim.amount.as_ref().expect("it has one").permit);
        assert_eq!(path.len(), claim.path.len());
    }
}

/// Invoices.
pub fn invoice(bytes: &[u8]) {
    let raw = Bytes::copy_from_slice(bytes);
    if let Ok(invoice) = read_invoice(&raw) {
        assert_eq!(invoice.encode_to_vec(), bytes);
        assert!((1..=limits::AMOUNT_MAX).contains(&invoice.amount) && invoice.memo.len() <= limits::MEMO_BYTES_MAX);
    }
}

/// Two sides, and a channel that they have.
struct Sides {
    signers: [Signer; 2],
    caps: Vec<wire::VirtualCap>,
    tree: Tree,
}

const CHANNEL: Hash = [6; 32];
const NOW: u64 = 1_000_000;

static SIDES: LazyLock<Sides> = LazyLock::new(|| {
    let signers = [1, 2].map(Signer::new);
    let cap = |number: u8| wire::VirtualCap {
        id: Bytes::from(vec![number; 32]),
        permission: signers[0].permission.encode(),
        cap: 100 * u64::from(number),
        not_after_ms: NOW + 1_000,
    };
    let caps: Vec<_> = (1..=3).map(cap).collect();
    let tree = Tree::new(&caps.iter().map(voucher::virtual_leaf).collect::<Vec<_>>());
    Sides { signers, caps, tree }
});

fn opened(two_way: bool, deposits: [u64; 2]) -> wire::ChannelRecord {
    let side = |side: usize| {
        let of = &SIDES.signers[side];
        let address = Bytes::copy_from_slice(of.address.as_bytes());
        let permission = of.permission.encode();
        Some(wire::ChannelSide { address, permission, deposited: deposits[side], ..Default::default() })
    };
    wire::ChannelRecord { opener: side(0), other: side(1), delay_ms: 1_000, two_way, ..Default::default() }
}

fn terms(cursor: &mut Cursor<'_>) -> wire::Voucher {
    let mut terms = wire::Voucher {
        channel: Bytes::copy_from_slice(&CHANNEL),
        payer: u32::from(cursor.flag()),
        lane: cursor.byte() as u32 % 5,
        nonce: cursor.byte().into(),
        amount: cursor.amount(),
        ..Default::default()
    };
    match cursor.byte() % 8 {
        1 => terms.not_before_ms = cursor.time(NOW),
        2 => terms.not_after_ms = cursor.time(NOW),
        3 => terms.secret_hash = Bytes::copy_from_slice(&Sha256::digest(b"secret")),
        4 => {
            let merge = |c: &mut Cursor<'_>| wire::LaneMerge { lane: c.byte() as u32 % 5, nonce: c.byte().into() };
            terms.merges = (0..cursor.below(4)).map(|_| merge(cursor)).collect();
        }
        5 => {
            let root = Bytes::copy_from_slice(&SIDES.tree.root());
            terms.virtuals = Some(wire::VirtualSet { root, count: 3 });
        }
        6 => terms.lane = cursor.number() as u32,
        7 => terms.nonce = cursor.number(),
        _ => {}
    }
    terms
}

fn claim(cursor: &mut Cursor<'_>) -> wire::VirtualClaim {
    let index = cursor.below(3);
    let cap = SIDES.caps[index].clone();
    let amount = wire::VirtualAmount { id: cap.id.clone(), amount: cursor.amount() };
    let key: &SecretKey = &SIDES.signers[cursor.byte() as usize / 128].keys[0];
    wire::VirtualClaim {
        channel: Bytes::copy_from_slice(&CHANNEL),
        payer: u32::from(cursor.flag()),
        lane: cursor.byte() as u32 % 5,
        amount: Some(voucher::sign_virtual(&amount, &[key])),
        cap: Some(cap),
        index: if cursor.byte() == 0xff { cursor.byte().into() } else { index as u32 },
        path: SIDES.tree.path(index).iter().map(|h| Bytes::copy_from_slice(h)).collect(),
        watch: None,
    }
}

/// A channel under vouchers and claims of both sides, true and false ones: nothing is made, nothing lost, nothing is paid twice, and
/// what is refused changes nothing.
pub fn channel_rules(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut record = opened(cursor.flag(), [cursor.amount() >> 1, cursor.amount() >> 1]);
    let held = rules::held(&record);
    let mut now_ms = NOW;
    while !cursor.is_empty() {
        let before = record.clone();
        let what = cursor.byte();
        let side = u32::from(what >> 7);
        let at = At { channel: &CHANNEL, side, now_ms, verify: true };
        let moved = match what % 4 {
            0 => {
                now_ms = now_ms.saturating_add(cursor.byte().into());
                continue;
            }
            1 => rules::claim(&mut record, &claim(&mut cursor), at).map(i128::from),
            _ => {
                let terms = terms(&mut cursor);
                let signer = u32::from(cursor.flag());
                let key = &SIDES.signers[cursor.byte() as usize / 128].keys[0];
                let signed = Voucher::sign(terms, signer, &[key]);
                let secret: &[u8] = if cursor.flag() { b"secret" } else { b"" };
                let moved = rules::redeem(&mut record, &signed, secret, at);
                let true_one = key.public() == SIDES.signers[signer as usize].keys[0].public();
                assert!(moved.is_err() || true_one && signer != side, "a voucher that its side has not signed");
                moved
            }
        };
        match moved {
            Err(_) => assert_eq!(record, before, "what is refused changes nothing"),
            Ok(moved) => {
                let sent = |r: &wire::ChannelRecord| {
                    [rules::side(r, 0), rules::side(r, 1)].map(|s| i128::from(s.sent)).iter().sum::<i128>()
                };
                assert_eq!(sent(&record), sent(&before) + moved);
            }
        }
        let in_lanes = |payer| record.lanes.iter().filter(|l| l.payer == payer).map(|l| u128::from(l.redeemed)).sum();
        for payer in [0, 1] {
            let total: u128 = in_lanes(payer);
            assert_eq!(u128::from(rules::side(&record, payer).sent), total, "lanes add up");
        }
        let shares = rules::shares(&record);
        assert_eq!(rules::held(&record), held);
        assert_eq!(i128::from(shares[0]) + i128::from(shares[1]), held, "all of it is somebody's");
    }
}
