//! Virtual channels: claimed at one hop, and then at the other.

use super::*;

/// Virtual channels over one lane, each of its own payer.
fn virtuals(caps: &[wire::VirtualCap]) -> (wire::VirtualSet, crate::merkle::Tree) {
    let leaves: Vec<_> = caps.iter().map(crate::channel::voucher::virtual_leaf).collect();
    let tree = crate::merkle::Tree::new(&leaves);
    let root = Bytes::copy_from_slice(&tree.root());
    (wire::VirtualSet { root, count: caps.len() as u32 }, tree)
}

fn virtual_of(payer: &Signer, number: u8, cap: u64, not_after_ms: u64) -> wire::VirtualCap {
    let (id, permission) = (Bytes::copy_from_slice(&[number; 32]), payer.permission.encode());
    wire::VirtualCap { id, permission, cap, not_after_ms }
}

fn virtual_amount(cap: &wire::VirtualCap, payer: &Signer, amount: u64) -> wire::SignedPermit {
    let amount = wire::VirtualAmount { id: cap.id.clone(), amount };
    crate::channel::voucher::sign_virtual(&amount, &payer.keys.iter().collect::<Vec<_>>())
}

/// Alice pays Bob over a hub that sees nothing of it until the end, with two others beside on the same lane. Bob shows at
/// his channel what Alice has signed, and the hub shows the same at hers.
#[test]
fn a_virtual_channel_is_claimed_at_one_hop_and_then_with_the_same_evidence_at_the_other() {
    let (mut cluster, mut alice, mut hub, incoming) = with_channel(300, false);
    let mut bob = Signer::new(3);
    cluster.fund(bob.address, 10);
    let order = hub.call(vec![], vec![output::Kind::ChannelOpen(opening(&hub, &bob, 300, false))]);
    let id = channel_id(cluster.committee.id(), &id_of(&order), 0);
    cluster.run_ordered(&[order]);
    let outgoing = Open { id, sides: [hub.clone(), bob.clone()] };
    // The hub has longer to show it than Bob.
    let (near, far) = (virtual_of(&alice, 1, 100, 20_000), virtual_of(&alice, 1, 100, 10_000));
    let others = [virtual_of(&bob, 2, 100, 9_000), virtual_of(&hub, 3, 50, 9_000)];
    let all = [others[0].clone(), far.clone(), others[1].clone()];
    let ((set_in, tree_in), (set_out, tree_out)) = (virtuals(std::slice::from_ref(&near)), virtuals(&all));
    let with = |open: &Open, set, amount| {
        let terms = wire::Voucher { virtuals: Some(set), ..open.terms(OPENER, 0, 1, amount) };
        open.sign(terms, OPENER)
    };
    let claim = |open: &Open, cap: &wire::VirtualCap, index: u32, tree: &crate::merkle::Tree, amount| {
        let path = tree.path(index as usize).iter().map(|h| Bytes::copy_from_slice(h)).collect();
        let channel = Bytes::copy_from_slice(&open.id);
        wire::VirtualClaim {
            channel,
            payer: OPENER,
            lane: 0,
            cap: Some(cap.clone()),
            index,
            path,
            amount: Some(amount),
            watch: None,
        }
    };
    let claims = |claims| output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions: vec![], claims });
    let signed = virtual_amount(&far, &alice, 70);
    let mine = claim(&outgoing, &far, 1, &tree_out, signed.clone());
    assert_eq!(does(&mut cluster, &mut bob, claims(vec![mine.clone()])), Some(Code::VirtualUnknown));
    let ledger = outgoing.redeem(&[(with(&outgoing, set_out, 5), b"")]);
    assert_eq!(does(&mut cluster, &mut bob, ledger), None);
    // Whatever is not just so moves nothing.
    let changed = |change: fn(&mut wire::VirtualClaim)| {
        let mut other = mine.clone();
        change(&mut other);
        claims(vec![other])
    };
    let higher = virtual_amount(&far, &alice, 101);
    let not_hers = virtual_amount(&far, &bob, 70);
    let another = virtual_amount(&others[0], &alice, 70);
    for (kind, code) in [
        (changed(|c| c.cap.as_mut().unwrap().cap = 101), Code::VirtualProof),
        (changed(|c| c.index = 0), Code::VirtualProof),
        (changed(|c| c.index = 7), Code::VirtualProof),
        (changed(|c| c.path.truncate(1)), Code::VirtualProof),
        (changed(|c| c.payer = OTHER), Code::VoucherSigner),
        (changed(|c| c.lane = 1), Code::VirtualUnknown),
        (claims(vec![claim(&outgoing, &far, 1, &tree_out, another)]), Code::VirtualProof),
        (claims(vec![claim(&outgoing, &far, 1, &tree_out, higher)]), Code::VirtualCap),
        (claims(vec![claim(&outgoing, &far, 1, &tree_out, not_hers)]), Code::KeyMismatch),
    ] {
        assert_eq!(does(&mut cluster, &mut bob, kind), Some(code));
    }
    assert_eq!(does(&mut cluster, &mut hub, claims(vec![mine.clone()])), Some(Code::VoucherSigner));
    assert_eq!(does(&mut cluster, &mut bob, claims(vec![mine.clone()])), None);
    assert_eq!(does(&mut cluster, &mut bob, claims(vec![mine])), Some(Code::VirtualClaimed));
    let record = outgoing.record(&cluster);
    assert_eq!((rules::shares(&record), record.lanes[0].redeemed), ([225, 75], 75));
    // The hub finds Alice's word in the record.
    let evidence = record.lanes[0].claimed[0].amount.clone().unwrap();
    assert_eq!(evidence, signed);
    let ledger = incoming.redeem(&[(with(&incoming, set_in, 0), b"")]);
    assert_eq!(does(&mut cluster, &mut hub, ledger), None);
    cluster.set_time(20_000);
    let same = claim(&incoming, &near, 0, &tree_in, evidence);
    assert_eq!(does(&mut cluster, &mut hub, claims(vec![same])), None);
    assert_eq!(rules::shares(&incoming.record(&cluster)), [230, 70]);
    // The others' time is over.
    let late = claim(&outgoing, &others[0], 0, &tree_out, virtual_amount(&others[0], &bob, 1));
    assert_eq!(does(&mut cluster, &mut bob, claims(vec![late])), Some(Code::VoucherExpired));
    // A newer voucher with what was claimed in its amount takes the set's place and moves nothing again.
    let newer = outgoing.redeem(&[(outgoing.voucher(OPENER, 0, 2, 75), b"")]);
    assert_eq!(does(&mut cluster, &mut bob, newer), None);
    assert_eq!(rules::shares(&outgoing.record(&cluster)), [225, 75]);
    assert_eq!(does(&mut cluster, &mut alice, incoming.settle()), None);
    check(&cluster, &[(&alice, 700), (&hub, 700), (&bob, 10)]);
}
