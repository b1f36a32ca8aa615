//! Certificates of bearer orders that are none, for an authority that has the orders.

use bytes::Bytes;
use florin_core::authority::NoMeter;
use florin_core::authority::input::Input;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{BatchId, Promise, batch_id, sign};
use florin_core::committee::Committee;
use florin_core::signatures::AuthorityKey;
use florin_core::testing::{NOW_US, TestCommittee, seed};
use florin_core::{Code, wire};
use prost::Message;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use crate::notes::World;
use crate::points::below;
use crate::{Kind, Tally, draw};

/// Orders in the batch.
const ORDERS: usize = 10;

/// A batch that is certified, another one, and other committees of the same authorities.
struct Case<'a> {
    world: &'a World,
    /// The votes of three, which is just a quorum.
    good: wire::Certificate,
    /// The same for another batch of as many orders.
    other: wire::Certificate,
    batch: BatchId,
    next_epoch: Committee,
    elsewhere: Committee,
}

impl Case<'_> {
    /// The votes of three, over something else.
    fn signed(
        &self,
        promise: Promise,
        committee: &Committee,
        batch: &BatchId,
        of: impl Fn(usize) -> Bitmap,
    ) -> wire::Certificate {
        let sign = |i: usize| sign(promise, committee, i as u32, &self.world.cluster.keys[i], batch, &of(i));
        wire::Certificate { votes: (0..3).map(sign).collect(), ..self.good.clone() }
    }
}

type Make = fn(&Case<'_>, &mut ChaCha20Rng) -> Option<wire::Certificate>;

fn kind(weight: u64, name: &'static str, make: Make) -> Kind<Make> {
    Kind { name, weight, make }
}

/// The good one, changed.
fn changed(case: &Case<'_>, change: impl FnOnce(&mut wire::Certificate)) -> Option<wire::Certificate> {
    let mut certificate = case.good.clone();
    change(&mut certificate);
    Some(certificate)
}

fn full(_: usize) -> Bitmap {
    Bitmap::full(ORDERS)
}

fn kinds() -> Vec<Kind<Make>> {
    vec![
        kind(40, "a bit of the message", |case, rng| {
            let mut bytes = case.good.encode_to_vec();
            let bit = below(rng, bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            wire::Certificate::decode(&bytes[..]).ok()
        }),
        kind(10, "a bit of a signature", |case, rng| {
            changed(case, |c| {
                let vote = &mut c.votes[below(rng, 3)];
                let mut signature = vote.signature.to_vec();
                signature[below(rng, 64)] ^= 1 << below(rng, 8);
                vote.signature = signature.into();
            })
        }),
        kind(10, "bits of a bitmap", |case, rng| {
            changed(case, |c| {
                let bitmap = (rng.next_u32() as u16).to_be_bytes();
                c.votes[below(rng, 3)].bitmap = Bytes::copy_from_slice(&bitmap);
            })
        }),
        kind(5, "a vote dropped", |case, rng| changed(case, |c| drop(c.votes.remove(below(rng, 3))))),
        kind(5, "a vote twice", |case, rng| {
            changed(case, |c| {
                let at = below(rng, 3);
                c.votes[at] = c.votes[(at + 1) % 3].clone();
            })
        }),
        kind(5, "a vote twice, as two authorities'", |case, rng| {
            changed(case, |c| {
                let at = below(rng, 3);
                let (from, authority) = (c.votes[(at + 1) % 3].clone(), [c.votes[at].authority, 3][below(rng, 2)]);
                c.votes[at] = wire::Signed { authority, ..from };
            })
        }),
        kind(5, "signatures exchanged", |case, rng| {
            changed(case, |c| {
                let at = below(rng, 3);
                let signature = c.votes[(at + 1) % 3].signature.clone();
                c.votes[at].signature = signature;
            })
        }),
        kind(5, "a stranger's vote", |case, rng| {
            changed(case, |c| {
                let (at, key) = (below(rng, 3), AuthorityKey::from_seed(seed("stranger", rng.next_u64())));
                let authority = [at as u32, 3, 4, u32::MAX][below(rng, 4)];
                let committee = &case.world.cluster.committee;
                c.votes[at] = sign(Promise::Vote, committee, authority, &key, &case.batch, &Bitmap::full(ORDERS));
            })
        }),
        kind(5, "another root", |case, rng| {
            changed(case, |c| c.root = Bytes::copy_from_slice(&seed("root", rng.next_u64())))
        }),
        kind(5, "another batch's root", |case, _| changed(case, |c| c.root = case.other.root.clone())),
        kind(5, "another batch's votes", |case, rng| {
            changed(case, |c| {
                let first = below(rng, 3);
                c.votes[first..].clone_from_slice(&case.other.votes[first..]);
            })
        }),
        kind(5, "another count", |case, rng| {
            changed(case, |c| c.count = [0, 9, 11, 16, 4_096, 4_097, u32::MAX][below(rng, 7)])
        }),
        kind(5, "another epoch", |case, rng| changed(case, |c| c.epoch = rng.next_u64() | 2)),
        kind(3, "votes of the next epoch", |case, rng| {
            let epoch = [case.good.epoch, case.next_epoch.epoch][below(rng, 2)];
            let votes = case.signed(Promise::Vote, &case.next_epoch, &case.batch, full);
            Some(wire::Certificate { epoch, ..votes })
        }),
        kind(3, "votes of the same authorities elsewhere", |case, _| {
            Some(case.signed(Promise::Vote, &case.elsewhere, &case.batch, full))
        }),
        kind(3, "acknowledgements as votes", |case, _| {
            Some(case.signed(Promise::Settled, &case.world.cluster.committee, &case.batch, full))
        }),
        kind(3, "true votes for different orders", |case, rng| {
            // Authority 0 lies and signs all, the others what they have locked: no order has three.
            let split = 1 + below(rng, ORDERS - 1);
            let part = |i: usize| {
                let mut bitmap = Bitmap::empty(ORDERS);
                (0..ORDERS).filter(|at| i == 0 || (*at < split) == (i == 1)).for_each(|at| bitmap.set(at));
                bitmap
            };
            Some(case.signed(Promise::Vote, &case.world.cluster.committee, &case.batch, part))
        }),
    ]
}

/// Draws certificates and hands them in, with the orders. Nothing of the state changes.
pub fn forge(world: &mut World, count: usize, rng: &mut ChaCha20Rng) -> Tally {
    let mut batches = (0..2).map(|part| {
        let known = &world.known[part * ORDERS..][..ORDERS];
        known.iter().map(|known| world.deposit(&[known.note.spend()])).collect::<Vec<Bytes>>()
    });
    let (orders, others) = (batches.next().unwrap(), batches.next().unwrap());
    drop(batches);
    let mut certify = |orders: &[Bytes]| {
        let mut certificate = world.cluster.certify(0, orders);
        certificate.votes.truncate(3);
        certificate
    };
    let (good, other) = (certify(&orders), certify(&others));
    let batch = batch_id(&good.root, good.count).unwrap();
    let with = |committee: TestCommittee| (*committee.build().0).clone();
    let case = Case {
        world,
        good,
        other,
        batch,
        next_epoch: with(TestCommittee { epoch: 2, ..TestCommittee::new(4, 1) }),
        elsewhere: with(TestCommittee { genesis_hash: [1; 32], ..TestCommittee::new(4, 1) }),
    };
    let (kinds, mut tally) = (kinds(), Tally::default());
    let settle = |at: usize, certificate: wire::Certificate| {
        let node = &case.world.cluster.nodes[at % 4][0];
        let input = Input::Settle { certificate, orders: orders.clone() };
        node.authority.handle(NOW_US, input, &node.state, &mut NoMeter)
    };
    while tally.total() < count {
        let kind = draw(&kinds, rng);
        let Some(forged) = (kind.make)(&case, rng).filter(|forged| *forged != case.good) else { continue };
        match settle(tally.total(), forged.clone()) {
            Ok(effects) => panic!("FORGED, {}: {forged:?}: {effects:?}", kind.name),
            Err(e) => assert_ne!(e.code, Code::Busy, "{}: {e}", kind.name),
        }
        tally.refused(kind.name);
    }
    for at in 0..4 {
        assert!(!settle(at, case.good.clone()).unwrap().writes.is_empty(), "the true one settles");
    }
    tally
}

/// With a true certificate that has settled long ago, anything may come along in place of its orders.
#[test]
fn a_certificate_gives_shares_for_its_own_orders_alone() {
    let mut world = World::new();
    let orders: Vec<Bytes> = world.known[..2].iter().map(|known| world.deposit(&[known.note.spend()])).collect();
    let reissues: Vec<Bytes> = world.known[2..4].iter().map(|known| world.reissue(known)).collect();
    let certificates = [&orders, &reissues].map(|orders| world.cluster.certify(0, orders));
    for (certificate, orders) in certificates.iter().zip([&orders, &reissues]) {
        world.cluster.settle(0, certificate, orders).into_iter().for_each(|reply| drop(reply.unwrap()));
    }
    let node = &world.cluster.nodes[0][0];
    let all = Bitmap::full(2);
    let shares = |at: usize, given: &[Bytes]| {
        let batch = batch_id(&certificates[at].root, certificates[at].count).unwrap();
        node.authority.settled_shares(&node.state, &batch, given, &all).unwrap()
    };
    assert!(shares(0, &reissues).is_empty(), "deposits make no notes, whatever comes along");
    let own = shares(1, &[]);
    assert_eq!((own.len(), own[0].shares.len()), (2, 1));
    let unpaid: Vec<Bytes> = world.known[4..6].iter().map(|known| world.reissue(known)).collect();
    for given in [&reissues, &unpaid, &orders, &vec![Bytes::from_static(b"?"); 2]] {
        assert_eq!(shares(1, given), own);
    }
    // A batch that is not stored, as it is when all of it had settled in others.
    let batch = |orders: &[Bytes]| florin_core::batch::decode_batch(orders).unwrap().id;
    let given = |named: &[Bytes], given: &[Bytes]| {
        node.authority.settled_shares(&node.state, &batch(named), given, &all).unwrap()
    };
    let turned: Vec<Bytes> = reissues.iter().rev().cloned().collect();
    assert_eq!(given(&turned, &turned)[0].shares, own[1].shares);
    assert!(given(&turned, &unpaid).is_empty() && given(&turned, &[]).is_empty());
}
