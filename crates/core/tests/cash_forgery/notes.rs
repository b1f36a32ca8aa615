//! Notes that are none, as requests to vote.

use std::sync::Arc;

use bytes::Bytes;
use florin_core::authority::NoMeter;
use florin_core::authority::effect::Reply;
use florin_core::authority::input::Input;
use florin_core::bearer::{NoteAsked, Spend, build};
use florin_core::bitmap::Bitmap;
use florin_core::cash::blind::{BlindSignature, BlindedNonce, SignatureShare};
use florin_core::cash::combine::{combine, lagrange_at_zero};
use florin_core::cash::curve::{G1, Scalar};
use florin_core::cash::mint_keys::MintKeys;
use florin_core::cash::testing::{Asked, Note, Purse, mint};
use florin_core::content::credit_output;
use florin_core::testing::{Cluster, NETWORK_ID, NOW_US, Signer, TestCommittee, to};
use florin_core::{Code, wire};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use crate::points::{self, Encoded, Torsion, below};
use crate::{Kind, Tally, draw};

/// Tiers of the network.
const TIERS: usize = 6;
/// Notes that the forger has; it spends none of them.
const NOTES: usize = 96;
/// Forgeries in one request.
const REQUEST: usize = 400;

/// A note with all that was seen when it was made.
pub struct Known {
    pub note: Note,
    pub blinded: BlindedNonce,
    pub blind_signature: BlindSignature,
    /// By authority.
    pub shares: Vec<SignatureShare>,
}

/// A committee, and what the forger has.
pub struct World {
    pub cluster: Cluster,
    pub keys: Vec<Arc<MintKeys>>,
    pub known: Vec<Known>,
    /// True notes that stand among the forgeries of a request.
    pub honest: Vec<Note>,
    pub torsion: Torsion,
    purse: Purse,
    alice: Signer,
}

impl World {
    /// Makes all of it through a committee of four.
    pub fn new() -> World {
        let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
        let mut alice = Signer::new(1);
        cluster.fund(alice.address, 100_000);
        let mut purse = cluster.make_cash(TIERS);
        let keys = mint(4, TIERS);
        let tiers: Vec<u32> = (0..NOTES).map(|i| (i % TIERS) as u32).collect();
        let asked = purse.ask(&tiers);
        let answers = cluster.run_cash(&alice.withdraw(&asked));
        let notes = purse.take(&asked, &answers);
        let know = |(i, (asked, note)): (usize, (&Asked, Option<Note>))| {
            let share = |(_, shares): &(u32, Vec<Bytes>)| SignatureShare::parse(&shares[i]).unwrap();
            let shares: Vec<SignatureShare> = answers.iter().map(share).collect();
            let blinded = asked.secrets.blinded();
            let numbered: Vec<_> = (1..).zip(shares.iter().copied()).collect();
            let combined = combine(keys[0].shared(asked.tier).unwrap(), &blinded, &numbered).unwrap();
            Known { note: note.unwrap(), blinded, blind_signature: combined.signature.unwrap(), shares }
        };
        let known = asked.iter().zip(notes).enumerate().map(know).collect();
        let honest = cluster.withdraw(&mut alice, &mut purse, &[0, 1, 2, 3]);
        World { cluster, keys, known, honest, torsion: Torsion::new(), purse, alice }
    }

    pub fn any(&self, rng: &mut ChaCha20Rng) -> &Known {
        &self.known[below(rng, self.known.len())]
    }

    /// Two different ones of one tier.
    pub fn two(&self, rng: &mut ChaCha20Rng) -> (&Known, &Known) {
        let (at, ahead) = (below(rng, NOTES), TIERS * (1 + below(rng, NOTES / TIERS - 1)));
        (&self.known[at], &self.known[(at + ahead) % NOTES])
    }

    /// An order that turns notes into money.
    pub fn deposit(&self, spends: &[Spend]) -> Bytes {
        let worth = spends.iter().map(|spend| 1 << spend.input.tier).sum();
        build(NETWORK_ID, spends, vec![credit_output(&to(self.alice.address, worth))], "", None)
    }

    /// An order that turns a note into another.
    pub fn reissue(&self, known: &Known) -> Bytes {
        let request = NoteAsked::request(known.note.tier, &known.blinded);
        let output = wire::Output { kind: Some(wire::output::Kind::Note(request)) };
        build(NETWORK_ID, &[known.note.spend()], vec![output], "", None)
    }

    fn signed(&self, note: &Note, signature: Encoded) -> Option<Bytes> {
        (signature != note.signature.to_bytes()).then(|| self.deposit(&[Spend { signature, ..note.spend() }]))
    }
}

type Make = fn(&mut World, &mut ChaCha20Rng) -> Option<Bytes>;

/// A true note's nonce and tier, with another signature.
fn with(
    world: &World,
    rng: &mut ChaCha20Rng,
    make: impl Fn(&Known, &mut ChaCha20Rng) -> Option<Encoded>,
) -> Option<Bytes> {
    let known = world.any(rng);
    make(known, rng).and_then(|signature| world.signed(&known.note, signature))
}

fn kind(weight: u64, name: &'static str, make: Make) -> Kind<Make> {
    Kind { name, weight, make }
}

fn kinds() -> Vec<Kind<Make>> {
    let encodings: [Kind<Make>; 8] = [
        kind(60, "a bit of the signature", |w, rng| with(w, rng, |k, rng| Some(points::flipped(&truth(k), rng)))),
        kind(60, "bytes of two signatures", |w, rng| {
            let (a, b) = w.two(rng);
            w.signed(&a.note, points::mixed(&truth(a), &truth(b), rng))
        }),
        kind(10, "of small order", |w, rng| with(w, rng, |_, rng| Some(w.torsion.one(rng)))),
        kind(40, "with a point of small order added", |w, rng| {
            with(w, rng, |k, rng| Some(w.torsion.added(&truth(k), rng)))
        }),
        kind(10, "the identity, or nearly", |w, rng| with(w, rng, |k, rng| Some(points::identity(&truth(k), rng)))),
        kind(10, "x of p or more", |w, rng| with(w, rng, |k, _| points::above_p(&truth(k)))),
        kind(50, "any x", |w, rng| with(w, rng, |_, rng| Some(points::random(rng)))),
        kind(60, "a bit of the order", |w, rng| {
            let mut order = w.deposit(&[w.any(rng).note.spend()]).to_vec();
            let bit = below(rng, order.len() * 8);
            order[bit / 8] ^= 1 << (bit % 8);
            Some(order.into())
        }),
    ];
    let points: [Kind<Make>; 7] = [
        kind(8, "negated", |w, rng| with(w, rng, |k, _| Some(points::negated(&truth(k))))),
        kind(8, "sum of two", |w, rng| {
            let (a, b) = w.two(rng);
            w.signed(&a.note, a.note.signature.point().add(b.note.signature.point()).to_bytes())
        }),
        kind(8, "a multiple", |w, rng| {
            with(w, rng, |k, rng| Some(k.note.signature.point().mul(&Scalar::from_u64(rng.next_u64() | 2)).to_bytes()))
        }),
        kind(8, "still blinded", |w, rng| with(w, rng, |k, _| Some(k.blind_signature.to_bytes()))),
        kind(8, "another note's", |w, rng| {
            let (a, b) = w.two(rng);
            w.signed(&a.note, truth(b))
        }),
        kind(6, "any point of the group", |w, rng| {
            with(w, rng, |_, rng| Some(G1::hash(&rng.next_u64().to_be_bytes(), b"forgery").to_bytes()))
        }),
        kind(8, "shares of too few", too_few),
    ];
    let orders: [Kind<Make>; 6] = [
        kind(8, "another tier", |w, rng| {
            let mut spend = w.any(rng).note.spend();
            spend.input.tier = (spend.input.tier + 1 + below(rng, TIERS - 1) as u32) % TIERS as u32;
            Some(w.deposit(&[spend]))
        }),
        kind(8, "another nonce", |w, rng| {
            let fresh = w.purse.ask(&[0]).remove(0).secrets;
            let known = w.any(rng);
            Some(w.deposit(&[Note { secrets: fresh, ..known.note.clone() }.spend()]))
        }),
        kind(8, "errors that cancel", cancelling),
        kind(10, "another's key signs", |w, rng| {
            let (a, b) = w.two(rng);
            Some(w.deposit(&[Spend { sign: b.note.spend().sign, ..a.note.spend() }]))
        }),
        kind(10, "signed for another order", |w, rng| {
            let note = &w.any(rng).note;
            let message = florin_core::bearer::order_message(&florin_core::testing::seed("another", rng.next_u64()));
            let signed = note.secrets.sign(&message);
            Some(w.deposit(&[Spend { sign: Box::new(move |_| signed), ..note.spend() }]))
        }),
        kind(20, "asks for a point that is none", bad_request),
    ];
    encodings.into_iter().chain(points).chain(orders).collect()
}

fn truth(known: &Known) -> Encoded {
    known.note.signature.to_bytes()
}

/// One or two authorities of four sign the nonce itself.
fn too_few(world: &mut World, rng: &mut ChaCha20Rng) -> Option<Bytes> {
    with(world, rng, |known, rng| {
        let nonce = BlindedNonce::new(known.note.secrets.nonce().hash()).unwrap();
        let indices: &[u32] = [&[1][..], &[2, 4], &[3, 1]][below(rng, 3)];
        let sign = |i: &u32| *world.keys[*i as usize - 1].share(known.note.tier).unwrap().sign(&nonce).point();
        let points: Vec<G1> = indices.iter().map(sign).collect();
        Some(G1::msm(&points, &lagrange_at_zero(indices).unwrap()).to_bytes())
    })
}

/// Two notes whose signatures are wrong by opposite amounts: their sum is right.
fn cancelling(world: &mut World, rng: &mut ChaCha20Rng) -> Option<Bytes> {
    let error = G1::generator().mul(&Scalar::from_u64(rng.next_u64() | 1));
    let (a, b) = world.two(rng);
    let shifted = |known: &Known, by: &G1| {
        let signature = known.note.signature.point().add(by).to_bytes();
        Spend { signature, ..known.note.spend() }
    };
    Some(world.deposit(&[shifted(a, &error), shifted(b, &error.neg())]))
}

/// A true note for a blinded nonce that would tell something of the key, or would be no point at all.
fn bad_request(world: &mut World, rng: &mut ChaCha20Rng) -> Option<Bytes> {
    let known = world.any(rng);
    let good = known.blinded.to_bytes();
    let point = match below(rng, 5) {
        0 => world.torsion.one(rng),
        1 => world.torsion.added(&good, rng),
        2 => points::identity(&good, rng),
        3 => points::random(rng),
        _ => points::above_p(&good)?,
    };
    let mut request = NoteAsked::request(known.note.tier, &known.blinded);
    request.blinded = Bytes::copy_from_slice(&point);
    let output = wire::Output { kind: Some(wire::output::Kind::Note(request)) };
    Some(build(NETWORK_ID, &[known.note.spend()], vec![output], "", None))
}

/// Draws forgeries and asks one authority after the other for votes on them. What it would lock is not kept.
pub fn forge(world: &mut World, count: usize, rng: &mut ChaCha20Rng) -> Tally {
    let (kinds, mut tally) = (kinds(), Tally::default());
    for request in 0.. {
        if tally.total() >= count {
            break;
        }
        let mut orders = Vec::with_capacity(REQUEST);
        while orders.len() < REQUEST.min(count) {
            let kind = draw(&kinds, rng);
            orders.extend((kind.make)(world, rng).map(|order| (Some(kind.name), order)));
        }
        for note in &world.honest {
            let order = world.deposit(&[note.spend()]);
            orders.insert(below(rng, orders.len() + 1), (None, order));
        }
        let raw: Vec<Bytes> = orders.iter().map(|(_, order)| order.clone()).collect();
        let reply = vote(world, request, raw);
        let accepted = Bitmap::parse(&reply.vote.expect("true notes are among them").bitmap, orders.len()).unwrap();
        let mut refusals = reply.errors.iter().map(|e| (e.index as usize, Code::from_number(e.code).unwrap()));
        for (i, (name, order)) in orders.iter().enumerate() {
            let Some(name) = name else {
                assert!(accepted.get(i), "a true note among forgeries");
                continue;
            };
            assert!(!accepted.get(i), "FORGED, {name}: {}", hex::encode(order));
            let (at, code) = refusals.next().expect("each that is not accepted is refused");
            assert_eq!(at, i);
            // Refused for what it is, not because of what stands beside it.
            assert!(![Code::Busy, Code::NoteLocked, Code::NoteSpent].contains(&code), "{name}: {code:?}");
            tally.refused(name);
        }
    }
    tally
}

/// As the node asks: notes checked before, in every other request; and as anyone else may.
fn vote(world: &World, request: usize, orders: Vec<Bytes>) -> wire::VoteReply {
    let node = &world.cluster.nodes[request % 4][0];
    let input = if request.is_multiple_of(2) {
        let checks = node.authority.check_notes(NOW_US, &orders, &node.state).unwrap();
        Input::Vote { orders, checks }
    } else {
        Input::vote(orders)
    };
    match node.authority.handle(NOW_US, input, &node.state, &mut NoMeter).unwrap().reply {
        Reply::Vote(reply) => reply,
        other => panic!("a vote is answered with {other:?}"),
    }
}

/// The same points in a payment, which has another way to the same check.
#[test]
fn a_payment_for_a_point_that_is_none_is_refused() {
    let mut rng = <ChaCha20Rng as rand_core::SeedableRng>::seed_from_u64(9);
    let mut world = World::new();
    let good = world.known[0].blinded.to_bytes();
    let mut bad = vec![points::random(&mut rng), world.torsion.added(&good, &mut rng)];
    bad.extend((0..40).map(|_| world.torsion.one(&mut rng)));
    bad.extend((0..40).map(|_| points::identity(&good, &mut rng)));
    for point in bad {
        let request = wire::NoteRequest { tier: 1, blinded: Bytes::copy_from_slice(&point) };
        let content = florin_core::content::encode_withdraw(&[], &[request], "", None);
        let order = world.alice.clone().order(florin_core::content::TYPE_PAY, content);
        let reply = world.cluster.node(0, 0).vote(&[order]).unwrap();
        let codes: Vec<_> = reply.errors.iter().map(|e| Code::from_number(e.code)).collect();
        assert_eq!((reply.vote, codes), (None, vec![Some(Code::Decode)]), "{}", hex::encode(point));
    }
}
