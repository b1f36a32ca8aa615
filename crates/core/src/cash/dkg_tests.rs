//! A log in memory, authorities that are honest, slow, silent or lie, and what must hold at the end.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::dealing::{Dealt, deal, encryption_secret};
use super::keys::{position, weights};
use super::wire::{Complaint, Deal, DkgItem, Kind, Reveal, Verdict, canonical};
use super::*;
use crate::cash::curve::{G1, G2, Scalar};
use bytes::Bytes;

#[path = "dkg_liars_tests.rs"]
mod liars;
#[path = "dkg_public_tests.rs"]
mod public;

#[derive(Clone, Default)]
struct Store(BTreeMap<Blob, Bytes>);

impl Blobs for Store {
    fn blob(&self, key: Blob) -> Result<Option<Bytes>> {
        Ok(self.0.get(&key).cloned())
    }
}

/// What a liar makes of the items that it should hand in.
type Lie = Box<dyn Fn(&World, u32, Kind) -> Vec<Kind>>;

struct World {
    params: Arc<Params>,
    parts: Vec<Participant>,
    ceremony: Ceremony,
    store: Store,
    /// All that was ordered.
    log: Vec<(u32, Bytes)>,
    /// Hand in nothing, for now.
    silent: Vec<u32>,
    lies: BTreeMap<u32, Lie>,
    /// How creators were found out.
    refused: BTreeMap<u32, Error>,
    keys: Option<PublicKeys>,
    order: ChaCha20Rng,
}

fn everyone(n: usize) -> Vec<Member> {
    (0..n as u32).map(|i| Member { dealer: Some(i), receiver: Some(i) }).collect()
}

fn seed(run: u64, i: u32) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&run.to_be_bytes());
    seed[8..12].copy_from_slice(&i.to_be_bytes());
    seed
}

fn params(n: usize, tiers: usize, run: u64, old: Option<Arc<PublicKeys>>) -> Params {
    Params::new([9; 32], 1, run, tiers, everyone(n), old).unwrap()
}

impl World {
    fn new(n: usize, tiers: usize) -> World {
        World::of(params(n, tiers, 1, None), Vec::new())
    }

    fn of(params: Params, old: Vec<Option<KeyShares>>) -> World {
        let params = Arc::new(params);
        let part = |i: usize| {
            let old = old.get(i).cloned().flatten();
            Participant::new(params.clone(), i as u32, seed(params.run, i as u32), old).unwrap()
        };
        World {
            parts: (0..params.members.len()).map(part).collect(),
            ceremony: Ceremony::new(params.clone()),
            store: Store::default(),
            log: Vec::new(),
            silent: Vec::new(),
            lies: BTreeMap::new(),
            refused: BTreeMap::new(),
            keys: None,
            order: ChaCha20Rng::from_seed([1; 32]),
            params,
        }
    }

    fn item(&self, kind: Kind) -> Bytes {
        DkgItem { run_id: Bytes::copy_from_slice(&self.params.id), kind: Some(kind) }.encode_to_vec().into()
    }

    /// The log puts an item in order.
    fn put(&mut self, creator: u32, item: Bytes) -> Result<bool> {
        let before = self.ceremony.encode();
        let result = self.ceremony.handle(creator, &item, &self.store);
        self.log.push((creator, item));
        let mut effects = result.inspect_err(|_| assert_eq!(self.ceremony.encode(), before))?;
        assert_eq!(effects.changed, self.ceremony.encode() != before);
        self.store.0.extend(effects.blob.take());
        if effects.keys.is_some() {
            assert!(std::mem::replace(&mut self.keys, effects.keys.take()).is_none(), "closed once");
        }
        match effects.fault {
            None => Ok(effects.changed),
            Some(e) => {
                assert!(self.refused.insert(creator, e.clone()).is_none(), "looked at no more");
                Err(e)
            }
        }
    }

    /// How an item would show that its creator is faulty.
    fn fault(&self, creator: u32, kind: Kind) -> Code {
        let effects = self.ceremony.clone().handle(creator, &self.item(kind), &self.store).unwrap();
        assert!(effects.blob.is_none());
        effects.fault.expect("a fault").code
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.order.next_u32() as usize % (i + 1));
        }
    }

    /// What all hand in now, in some order; one creator's items stay in their order if they are parts of a dealing.
    fn round(&mut self) -> bool {
        let mut handed: Vec<(u32, Vec<Bytes>)> = Vec::new();
        for (i, part) in self.parts.iter().enumerate().filter(|(i, _)| !self.silent.contains(&(*i as u32))) {
            let i = i as u32;
            let mut items = part.items(&self.ceremony, &self.store).unwrap();
            if let Some(lie) = self.lies.get(&i) {
                let kinds = items.iter().filter_map(|item| canonical::<DkgItem>(item).unwrap().kind);
                items = kinds.flat_map(|kind| lie(self, i, kind)).map(|kind| self.item(kind)).collect();
            }
            handed.push((i, items));
        }
        self.shuffle(&mut handed);
        let mut moved = false;
        for (creator, items) in handed {
            for item in items {
                moved |= self.put(creator, item).unwrap_or(false);
            }
        }
        moved
    }

    /// Until nothing moves any more, with all who are there patient once and then no more.
    fn run(&mut self) {
        loop {
            while self.round() {}
            let votes: Vec<(u32, Bytes)> = (0..self.parts.len() as u32)
                .filter(|i| !self.silent.contains(i))
                .filter_map(|i| Some((i, self.parts[i as usize].go_on(&self.ceremony)?)))
                .collect();
            if votes.is_empty() {
                break;
            }
            votes.into_iter().for_each(|(i, vote)| assert!(self.put(i, vote).is_ok()));
        }
    }

    fn shares(&self) -> Vec<Option<KeyShares>> {
        self.parts.iter().map(|p| p.shares(&self.ceremony, &self.store).unwrap()).collect()
    }

    /// The run is active; all but these hold shares that fit the public ones; any threshold of them, and no fewer, give
    /// the secret; whoever reads the log comes to the same.
    fn check(&mut self, without: &[u32]) -> PublicKeys {
        assert_eq!(self.ceremony.phase(), Phase::Active);
        let keys = self.keys.clone().unwrap();
        assert_eq!(self.ceremony.keys_hash().unwrap(), keys.hash());
        assert_eq!(PublicKeys::decode(&keys.encode()).unwrap(), keys);
        let shares = self.shares();
        let t = self.params.threshold();
        for (i, share) in shares.iter().enumerate() {
            assert_eq!(share.is_none(), without.contains(&(i as u32)), "share of {i}");
            share.iter().for_each(|s| assert_eq!(KeyShares::decode(&s.encode()).as_ref(), Ok(s)));
            for (tier, share) in share.iter().flat_map(|s| s.tiers.iter().enumerate()) {
                assert_eq!(G2::generator().mul(share), keys.tiers[tier].shares[i]);
            }
        }
        let mut held: Vec<KeyShares> = shares.into_iter().flatten().collect();
        for _ in 0..3 {
            self.shuffle(&mut held);
            for tier in 0..keys.tiers.len() {
                let secret = |count: usize| {
                    let at: Vec<u64> = held[..count].iter().map(|s| position(s.index)).collect();
                    let weights = weights(&at, 0);
                    held.iter().zip(&weights).fold(Scalar::zero(), |sum, (s, w)| sum.add(&s.tiers[tier].mul(w)))
                };
                assert_eq!(G2::generator().mul(&secret(t)), keys.tiers[tier].key);
                assert_ne!(G2::generator().mul(&secret(t - 1)), keys.tiers[tier].key);
            }
        }
        let mut again = Ceremony::new(self.params.clone());
        let mut store = Store::default();
        for (creator, item) in &self.log {
            if let Ok(effects) = again.handle(*creator, item, &store) {
                store.0.extend(effects.blob);
            }
            again = Ceremony::load(self.params.clone(), &again.encode()).unwrap();
        }
        assert_eq!((again.encode(), store.0), (self.ceremony.encode(), self.store.0.clone()));
        keys
    }

    /// Who was found out, and by what.
    fn refusals(&self) -> BTreeMap<u32, Code> {
        self.refused.iter().map(|(creator, error)| (*creator, error.code)).collect()
    }
}

fn flip(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes.into()
}

/// Deals, but with something else in the dealing.
fn dealing(change: impl Fn(&World, &mut Deal) + 'static) -> Lie {
    Box::new(move |world, _, kind| match kind {
        Kind::Deal(mut deal) => {
            change(world, &mut deal);
            vec![Kind::Deal(deal)]
        }
        other => vec![other],
    })
}

/// Sends a receiver, counted among those that have announced, a wrong share.
fn wrong_share(to: usize) -> Lie {
    dealing(move |world, deal| {
        let per_receiver = deal.shares.len() / world.ceremony.record.announced.iter().filter(|k| !k.is_empty()).count();
        deal.shares = flip(&deal.shares, to * per_receiver + 31);
    })
}

fn verdict(change: impl Fn(&World, u32, &mut Verdict) + 'static) -> Lie {
    Box::new(move |world, creator, kind| match kind {
        Kind::Verdict(mut verdict) => {
            change(world, creator, &mut verdict);
            vec![Kind::Verdict(verdict)]
        }
        other => vec![other],
    })
}

#[test]
fn all_honest_authorities_come_to_the_same_keys() {
    for n in [4, 5, 7, 10] {
        let mut world = World::new(n, 3);
        world.run();
        let keys = world.check(&[]);
        assert_eq!(keys.threshold, n - (n - 1) / 3);
        assert!(world.refused.is_empty());
        assert!(world.ceremony.is_settled());
        assert!(world.ceremony.missing().is_empty() && world.ceremony.caught().is_empty());
    }
}

#[test]
fn a_dealing_in_parts_gives_the_same_keys() {
    let mut whole = World::new(4, 5);
    whole.run();
    let mut parts = params(4, 5, 1, None);
    parts.chunk_bytes = 2 * (3 * 96 + 4 * 32);
    assert_eq!(parts.chunks(), 3);
    let mut parts = World::of(parts, Vec::new());
    parts.lies.insert(2, wrong_share(1));
    parts.run();
    parts.check(&[]);
    let mut same = params(4, 5, 1, None);
    same.chunk_bytes = 2 * (3 * 96 + 4 * 32);
    let mut same = World::of(same, Vec::new());
    same.run();
    assert_eq!(same.check(&[]), whole.check(&[]));
}

#[test]
fn f_silent_from_the_start_or_from_any_phase_do_not_stop_it() {
    for n in [4, 7, 10] {
        let f = faults(n);
        let silent: Vec<u32> = (0..f as u32).collect();
        let mut world = World::new(n, 2);
        world.silent = silent.clone();
        world.run();
        assert_eq!(world.ceremony.missing(), silent);
        // It has announced no key, so it gets a share only when the keys are shared again.
        world.check(&silent);

        for rounds in 1..3 {
            let mut world = World::new(n, 2);
            (0..rounds).for_each(|_| assert!(world.round()));
            world.silent = silent.clone();
            world.run();
            assert!(world.ceremony.phase() == Phase::Active && !world.ceremony.is_settled());
            world.silent.clear();
            world.run();
            world.check(&[]);
            assert!(world.ceremony.is_settled());
        }
    }
}

#[test]
fn more_than_f_silent_stop_it_until_they_are_back() {
    let mut world = World::new(4, 1);
    world.silent = vec![0, 3];
    world.run();
    assert_eq!(world.ceremony.phase(), Phase::Announce);
    world.silent = Vec::new();
    world.run();
    world.check(&[]);
}

#[test]
fn patience_is_up_when_a_quorum_says_so() {
    let mut world = World::new(4, 1);
    world.silent = vec![3];
    world.round();
    let vote = world.item(Kind::GoOn(0));
    assert!(!world.put(3, vote.clone()).unwrap(), "one who has done nothing does not hurry the others");
    assert!(world.put(0, vote.clone()).unwrap() && !world.put(0, vote.clone()).unwrap());
    assert!(world.put(1, vote.clone()).unwrap());
    assert_eq!(world.ceremony.phase(), Phase::Announce);
    assert!(world.put(2, vote).unwrap());
    assert_eq!(world.ceremony.phase(), Phase::Deal);
    let other_phase = world.item(Kind::GoOn(9));
    assert_eq!(world.put(2, other_phase).unwrap_err().code, Code::BadContent);
}

#[test]
fn keys_are_active_only_when_a_quorum_holds_its_shares() {
    let mut world = World::new(4, 1);
    while world.ceremony.phase() < Phase::Closed {
        world.round();
    }
    let hash = Bytes::copy_from_slice(world.ceremony.keys_hash().unwrap());
    assert_eq!(world.fault(0, Kind::Confirm(flip(&hash, 0))), Code::BadContent);
    let confirm = world.item(Kind::Confirm(hash));
    for i in 0..3 {
        assert_eq!(world.ceremony.phase(), Phase::Closed);
        assert!(world.put(i, confirm.clone()).unwrap());
    }
    assert_eq!(world.ceremony.phase(), Phase::Active);
    world.check(&[]);
}

#[test]
fn shared_again_the_keys_stay_and_old_and_new_shares_do_not_mix() {
    let mut first = World::new(4, 2);
    first.silent = vec![3];
    first.run();
    let keys = first.check(&[3]);
    let mut old = first.shares();

    // The same committee: the one without shares has one now, though one of the others deals wrongly, or nothing.
    for liar in [Some(0), None] {
        let mut second = World::of(params(4, 2, 2, Some(Arc::new(keys.clone()))), old.clone());
        if let Some(liar) = liar {
            // Holders: 0, 1, 2, all needed. A wrong one leaves too few.
            second.lies.insert(liar, wrong_share(3));
            second.run();
            assert_eq!((second.ceremony.phase(), second.ceremony.caught()), (Phase::Failed, vec![0]));
            continue;
        }
        second.run();
        let again = second.check(&[]);
        assert!(again.tiers.iter().zip(&keys.tiers).all(|(a, b)| a.key == b.key && a.shares != b.shares));
        old = second.shares();

        // A larger committee, of which two are new, and a liar among the old.
        let members = (0..8u32).map(|i| Member { dealer: (i < 4).then_some(i), receiver: i.checked_sub(1) }).collect();
        let larger = Params::new([9; 32], 2, 3, 2, members, Some(Arc::new(again.clone()))).unwrap();
        let mut third = World::of(larger, old.clone());
        third.lies.insert(1, wrong_share(5));
        third.run();
        assert_eq!(third.ceremony.phase(), Phase::Active);
        assert_eq!(third.ceremony.caught(), [1]);
        let last = third.keys.clone().unwrap();
        assert_eq!(last.threshold, 5);
        assert!(last.tiers.iter().zip(&keys.tiers).all(|(a, b)| a.key == b.key));
        for (creator, share) in third.shares().into_iter().enumerate() {
            assert_eq!(share.is_some(), creator > 0);
            for (tier, s) in share.iter().flat_map(|s| s.tiers.iter().enumerate()) {
                assert_eq!(G2::generator().mul(s), last.tiers[tier].shares[creator - 1]);
            }
        }
    }
}

#[test]
fn a_holder_deals_its_own_share_and_no_other_secret() {
    let mut first = World::new(4, 1);
    first.run();
    let keys = Arc::new(first.check(&[]));
    let mut old = first.shares();
    old[2].as_mut().unwrap().tiers[0] = Scalar::one();
    let mut second = World::of(params(4, 1, 2, Some(keys)), old);
    second.run();
    assert_eq!(second.refusals(), BTreeMap::from([(2, Code::BadContent)]));
    second.check(&[]);
}

#[test]
fn items_of_another_run_change_nothing_and_other_encodings_are_refused() {
    let mut world = World::new(4, 1);
    let other = World::of(params(4, 1, 2, None), Vec::new());
    let item = other.parts[0].items(&other.ceremony, &other.store).unwrap().remove(0);
    assert!(!world.put(0, item).unwrap());
    let item = world.parts[0].items(&world.ceremony, &world.store).unwrap().remove(0);
    let long = [&item[..], &[0x78, 0]].concat().into();
    assert_eq!(world.put(0, long).unwrap_err().code, Code::NonCanonical);
    assert_eq!(world.put(0, Bytes::from_static(b"\xff")).unwrap_err().code, Code::Decode);
    let empty = DkgItem { run_id: Bytes::copy_from_slice(&world.params.id), kind: None };
    assert_eq!(world.put(0, empty.encode_to_vec().into()).unwrap_err().code, Code::BadContent);
}

#[test]
fn who_is_found_out_is_neither_looked_at_nor_waited_for() {
    let mut world = World::new(4, 1);
    let stolen = world.parts[0].items(&world.ceremony, &world.store).unwrap().remove(0);
    assert_eq!(world.put(3, stolen).unwrap_err().code, Code::BadProof);
    let own = world.parts[3].items(&world.ceremony, &world.store).unwrap().remove(0);
    assert!(!world.put(3, own).unwrap());
    // Nobody's patience is needed.
    while world.round() {}
    world.check(&[3]);
    assert!(world.ceremony.is_settled());
}

#[test]
fn runs_of_impossible_sizes_are_refused() {
    for (n, tiers) in [(3, 1), (129, 1), (4, 0), (4, 65)] {
        assert_eq!(Params::new([0; 32], 1, 1, tiers, everyone(n), None).unwrap_err().code, Code::BadConfig);
    }
    let twice = vec![Member { dealer: Some(0), receiver: Some(0) }; 4];
    assert_eq!(Params::new([0; 32], 1, 1, 1, twice, None).unwrap_err().code, Code::BadConfig);
    for n in COMMITTEE_MIN..=COMMITTEE_MAX {
        let params = params(n, TIERS_MAX, 1, None);
        let bytes = params.tiers_of(0).len() * (params.threshold() * 96 + n * 32) + 512;
        assert!(bytes + 512 <= UNIT_BYTES_MAX && params.chunks() <= 11, "n = {n}: {bytes} bytes");
        assert_eq!((0..params.chunks()).map(|c| params.tiers_of(c).len()).sum::<usize>(), TIERS_MAX);
    }
}

#[test]
fn bytes_do_not_change() {
    use sha2::{Digest, Sha256};
    let mut world = liars::late_victim(4);
    world.silent.clear();
    world.run();
    let mut h = Sha256::new();
    for (creator, item) in &world.log {
        h.update(creator.to_be_bytes());
        h.update((item.len() as u64).to_be_bytes());
        h.update(item);
    }
    let record: [u8; 32] = Sha256::digest(world.ceremony.encode()).into();
    let found = [h.finalize().into(), record, world.check(&[]).hash()].map(|hash: [u8; 32]| hex::encode(hash));
    let expected = [
        // All items of a run, its record, the keys.
        "a2538a33718cf3db0e8b6d94965a8d15eabfc8828a56fb2c4397e89acb0646c1",
        "29862df51207abf9a528082e94fc48514e07746ece49255b86408963ba3128b4",
        "5d13a73df7c888b078af6c06b01a44def5e47e6eb39df28229382f2359923d32",
    ];
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever order the log has, whoever lies in whatever way, is slow, or hands in junk: those without faults come
    /// to the same keys and hold their shares.
    #[test]
    fn any_order_and_any_f_faulty(
        big in any::<bool>(),
        order in any::<[u8; 32]>(),
        lies in prop::collection::vec((0u32..7, 0u8..6), 0..3),
        slow in 0u32..7,
        junk in prop::collection::vec((any::<prop::sample::Index>(), any::<u16>(), any::<u8>()), 0..6),
    ) {
        let n = if big { 7 } else { 4 };
        let mut world = World::new(n, 1);
        world.order = ChaCha20Rng::from_seed(order);
        for (liar, how) in lies.into_iter().take(faults(n)) {
            let (liar, to) = (liar % n as u32, (liar as usize + 1) % n);
            let lie: Lie = match how {
                0 => wrong_share(to.min(n - 2)),
                1 => dealing(|_, d| d.commitments = flip(&d.commitments, 95)),
                2 => dealing(|_, d| d.secrets_proof = flip(&d.secrets_proof, 40)),
                3 => verdict(|w, c, v| {
                    let dealer = w.ceremony.record.dealt[0];
                    let dealt = w.ceremony.dealt(dealer, 0, &w.store).unwrap();
                    v.complaints = vec![dealt.complain(&w.params, &seed(1, c), c)];
                }),
                4 => Box::new(|_, _, kind| match kind { Kind::Confirm(_) | Kind::Verdict(_) => vec![], k => vec![k] }),
                _ => Box::new(|_, _, kind| vec![kind, Kind::GoOn(0), Kind::GoOn(2), Kind::Confirm(Bytes::new())]),
            };
            world.lies.insert(liar, lie);
        }
        // A slow one counts as faulty while it is away; it comes back after the close.
        let slow = slow % n as u32;
        let away = world.lies.len() < faults(n) || world.lies.contains_key(&slow);
        while world.ceremony.phase() == Phase::Announce && world.round() {}
        if away {
            world.silent = vec![slow];
        }
        world.run();
        world.silent.clear();
        // Ordered once more, with bytes changed.
        for (which, at, bit) in junk {
            let (creator, item) = which.get(&world.log).clone();
            let mut bytes = item.to_vec();
            let at = at as usize % bytes.len();
            bytes[at] ^= bit;
            let _ = world.put(creator, bytes.into());
        }
        world.run();
        // A liar that complains of the wrong dealer may end without its share.
        let lacks = |(i, share): (usize, Option<KeyShares>)| share.is_none().then_some(i as u32);
        let lacking: Vec<u32> = world.shares().into_iter().enumerate().filter_map(lacks).collect();
        prop_assert!(lacking.iter().all(|i| world.lies.contains_key(i)), "without a share: {lacking:?}");
        let active = world.check(&lacking);
        prop_assert_eq!(active.threshold, n - faults(n));
    }
}

/// `cargo test -p florin-core --release measure_dkg -- --ignored --nocapture`
#[test]
#[ignore = "prints what a run costs"]
fn measure_dkg() {
    use std::time::Instant;
    for n in [4, 7, 20] {
        let mut world = World::new(n, 64);
        while world.ceremony.phase() == Phase::Announce {
            world.round();
        }
        let start = Instant::now();
        let items = world.parts[0].items(&world.ceremony, &world.store).unwrap();
        let deal = start.elapsed();
        let bytes: usize = items.iter().map(Bytes::len).sum();
        let units = items.len();
        let start = Instant::now();
        items.into_iter().for_each(|item| assert!(world.put(0, item).unwrap()));
        let check = start.elapsed();
        while world.ceremony.phase() == Phase::Deal {
            world.round();
        }
        let start = Instant::now();
        let verdict = world.parts[1].items(&world.ceremony, &world.store).unwrap();
        let judge = start.elapsed() / world.ceremony.record.dealt.len() as u32;
        let lied = world.ceremony.dealt(world.ceremony.record.dealt[0], 0, &world.store).unwrap();
        let complaint = lied.complain(&world.params, &seed(1, 1), 1);
        let start = Instant::now();
        let keys = &world.ceremony.record.announced;
        assert!(!lied.check_complaint(&world.params, keys, 1, &complaint).unwrap());
        let complained = start.elapsed();
        let empty = verdict[0].clone();
        for i in 0..n as u32 {
            let start = Instant::now();
            let _ = world.put(i, empty.clone());
            if world.ceremony.phase() == Phase::Closed {
                let keys = world.keys.as_ref().unwrap().encode().len();
                println!(
                    "n = {n}: a dealing {bytes} B in {units} items, made in {} us, checked in {} us, opened in {} us; \
                     a complaint of {} B checked in {} us; closed in {} us; keys {keys} B, record {} B",
                    deal.as_micros(),
                    check.as_micros(),
                    judge.as_micros(),
                    complaint.encoded_len(),
                    complained.as_micros(),
                    start.elapsed().as_micros(),
                    world.ceremony.encode().len(),
                );
                break;
            }
        }
    }
}
