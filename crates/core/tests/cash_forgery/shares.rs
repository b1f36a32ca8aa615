//! Signature shares that are none, among true ones: the wallet makes the one true signature or none, and names who lied.

use florin_core::cash::blind::{BlindedNonce, SignatureShare};
use florin_core::cash::combine::{Request, combine_all};
use florin_core::cash::curve::{G1, Scalar};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use crate::notes::{Known, World};
use crate::points::{self, Encoded, below};
use crate::{Kind, Tally, draw};

/// Requests that are combined together.
const TOGETHER: usize = 256;

/// A share in place of authority i's.
type Make = fn(&World, &Known, usize, &mut ChaCha20Rng) -> Option<Encoded>;

fn kind(weight: u64, name: &'static str, make: Make) -> Kind<Make> {
    Kind { name, weight, make }
}

fn kinds() -> Vec<Kind<Make>> {
    vec![
        kind(60, "a bit", |_, k, i, rng| Some(points::flipped(&k.shares[i].to_bytes(), rng))),
        kind(60, "bytes of two shares", |_, k, i, rng| {
            Some(points::mixed(&k.shares[i].to_bytes(), &k.shares[(i + 1) % 4].to_bytes(), rng))
        }),
        kind(10, "of small order", |w, _, _, rng| Some(w.torsion.one(rng))),
        kind(40, "with a point of small order added", |w, k, i, rng| {
            Some(w.torsion.added(&k.shares[i].to_bytes(), rng))
        }),
        kind(10, "the identity, or nearly", |_, k, i, rng| Some(points::identity(&k.shares[i].to_bytes(), rng))),
        kind(10, "x of p or more", |_, k, i, _| points::above_p(&k.shares[i].to_bytes())),
        kind(40, "any x", |_, _, _, rng| Some(points::random(rng))),
        kind(6, "negated", |_, k, i, _| Some(points::negated(&k.shares[i].to_bytes()))),
        kind(6, "another authority's", |_, k, i, rng| Some(k.shares[(i + 1 + below(rng, 3)) % 4].to_bytes())),
        kind(6, "another note's", |w, k, i, rng| Some(other(w, k, rng).shares[i].to_bytes())),
        kind(6, "another tier's", |w, k, i, rng| {
            let tier = (k.note.tier + 1 + below(rng, 5) as u32) % 6;
            Some(w.keys[i].share(tier)?.sign(&k.blinded).to_bytes())
        }),
        kind(6, "of the nonce, not blinded", |w, k, i, _| {
            let nonce = BlindedNonce::new(k.note.secrets.nonce().hash()).unwrap();
            Some(w.keys[i].share(k.note.tier)?.sign(&nonce).to_bytes())
        }),
        kind(6, "sum of two", |_, k, i, _| Some(k.shares[i].point().add(k.shares[(i + 1) % 4].point()).to_bytes())),
        kind(6, "a multiple", |_, k, i, rng| {
            Some(k.shares[i].point().mul(&Scalar::from_u64(rng.next_u64() | 2)).to_bytes())
        }),
        kind(4, "the signature itself", |_, k, _, _| Some(k.blind_signature.to_bytes())),
        kind(4, "what was to be signed", |_, k, _, _| Some(k.blinded.to_bytes())),
        kind(4, "any point of the group", |_, _, _, rng| {
            Some(G1::hash(&rng.next_u64().to_be_bytes(), b"x").to_bytes())
        }),
    ]
}

fn other<'a>(world: &'a World, known: &Known, rng: &mut ChaCha20Rng) -> &'a Known {
    loop {
        let other = world.any(rng);
        if other.blinded != known.blinded {
            return other;
        }
    }
}

/// Draws shares; each stands among the first threshold of the answers, where it counts.
pub fn forge(world: &World, count: usize, rng: &mut ChaCha20Rng) -> Tally {
    let (kinds, mut tally) = (kinds(), Tally::default());
    while tally.total() < count {
        let mut requests = Vec::with_capacity(TOGETHER);
        while requests.len() < TOGETHER {
            let (kind, known, liar) = (draw(&kinds, rng), world.any(rng), below(rng, 4));
            let Some(lie) = (kind.make)(world, known, liar, rng) else { continue };
            if lie == known.shares[liar].to_bytes() {
                continue;
            }
            let Ok(lie) = SignatureShare::parse(&lie) else {
                tally.refused(kind.name);
                continue;
            };
            let from = |place: usize| if place == liar { lie } else { known.shares[place] };
            let places = (0..4).map(|i| (liar + i + 2) % 4).map(|place| (place as u32 + 1, from(place)));
            let keys = world.keys[0].shared(known.note.tier).unwrap();
            let request = Request { keys, blinded: known.blinded, shares: places.collect() };
            requests.push((kind.name, known, liar, request));
        }
        let (context, requests): (Vec<_>, Vec<_>) =
            requests.into_iter().map(|(name, known, liar, request)| ((name, known, liar), request)).unzip();
        for ((name, known, liar), combined) in context.into_iter().zip(combine_all(&requests).unwrap()) {
            assert_eq!(combined.signature, Some(known.blind_signature), "{name}: the note is made all the same");
            assert_eq!(combined.liars, [liar as u32 + 1], "{name}: and the liar is named");
            tally.refused(name);
        }
    }
    tally
}
