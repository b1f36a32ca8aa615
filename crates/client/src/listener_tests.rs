//! Random interleavings of what authorities show, one of them a liar, with crashes at any moment: everything that
//! settled is delivered once, in order, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use florin_core::content::TYPE_ROTATE;
use florin_core::envelope::{Body, encode_body};
use florin_core::keys::Curve;
use florin_core::testing::{Actor, Cluster, TestCommittee};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::merge::{Page, Shown};
use super::*;

const NETWORK: u64 = 500;
const SIZE: usize = 4;
const GRACE_MS: u64 = 1_000;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        let digest = Sha256::digest(self.0.to_be_bytes());
        u64::from_be_bytes(digest[..8].try_into().unwrap()) as usize % n.max(1)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

fn order(actor: u64, seqnum: u32, what: &str) -> Order {
    let body = Body {
        network_id: NETWORK,
        actor,
        seqnum,
        transaction_type: 1,
        content: Bytes::copy_from_slice(what.as_bytes()),
        ..Default::default()
    };
    Order::decode_body(encode_body(&body)).unwrap()
}

fn proof() -> Option<Proof> {
    Some(Proof::Certificate(Arc::default()))
}

fn shown(position: u64, order: &Order, proof: Option<Proof>) -> Shown {
    Shown { position, time_us: position, order: order.clone(), transaction: None, proof }
}

fn head(mode: Mode) -> Head {
    Head { committee: [7; 32], network_id: NETWORK, mode, epoch: 0, since_us: 0 }
}

fn merge_of(mode: Mode) -> Merge {
    let rules = Rules { authorities: SIZE, validity: 2, grace_ms: GRACE_MS };
    let mut merge = Merge::new(rules, head(mode), Kept { place: 1, ..Kept::default() }, false);
    (0..SIZE).for_each(|a| {
        merge.follow(a);
    });
    merge
}

fn page(entries: Vec<Shown>, next: u64) -> Page {
    Page { entries, next, level: true }
}

fn drain(merge: &mut Merge) -> Vec<(u64, u32)> {
    std::iter::from_fn(|| merge.pop()).map(|d| (d.order.actor, d.order.seqnum)).collect()
}

fn restore(rules: Rules, mode: Mode, stored: &[Change]) -> Merge {
    let (committee, _) = TestCommittee::new(SIZE, 1).build();
    let mut kept = Kept::read(&[], &committee, NETWORK).unwrap();
    // The head names another committee in these tests.
    let changes: Vec<Change> = stored.iter().filter(|c| c.key != [b'v']).cloned().collect();
    if !changes.is_empty() {
        kept = Kept::read(&changes, &committee, NETWORK).unwrap();
    }
    Merge::new(rules, head(mode), kept, stored.iter().any(|c| c.key == [b'v']))
}

/// What an authority shows: position by position, `None` where there is no order.
type Stream = Vec<Option<(Order, Option<Proof>)>>;

/// The orders of each actor mixed at random, each actor's in turn.
fn mix(rng: &mut Rng, chains: &BTreeMap<u64, Vec<Order>>) -> Vec<Order> {
    let mut left: Vec<std::collections::VecDeque<Order>> =
        chains.values().map(|c| c.iter().cloned().collect()).collect();
    let mut mixed = Vec::new();
    loop {
        left.retain(|chain| !chain.is_empty());
        if left.is_empty() {
            return mixed;
        }
        let from = rng.below(left.len());
        mixed.extend(left[from].pop_front());
    }
}

/// What the liar does.
#[derive(Clone, Copy, Debug)]
enum Lie {
    Invent,
    Withhold,
    Reorder,
    Repeat,
    Silence,
}

fn lie(rng: &mut Rng, how: Lie, mut stream: Stream) -> Stream {
    match how {
        Lie::Silence => return Vec::new(),
        Lie::Withhold => stream.retain(|_| !rng.chance(30)),
        Lie::Reorder => (1..stream.len()).rev().for_each(|i| stream.swap(i, rng.below(i + 1))),
        Lie::Repeat => {
            for _ in 0..stream.len() {
                let again = stream[rng.below(stream.len())].clone();
                stream.insert(rng.below(stream.len() + 1), again);
            }
        }
        Lie::Invent => {
            for i in 0..8 {
                let fake = order(1 + rng.below(5) as u64, 1 + rng.below(12) as u32, &format!("invented {i}"));
                stream.insert(rng.below(stream.len() + 1), Some((fake, None)));
            }
        }
    }
    stream
}

struct World {
    rng: Rng,
    mode: Mode,
    streams: Vec<Stream>,
    /// How much of its stream each authority has settled by now.
    settled: Vec<usize>,
    liar: usize,
    merge: Merge,
    rules: Rules,
    followed: BTreeSet<usize>,
    stored: Vec<Change>,
    effects: Vec<Order>,
    now_ms: u64,
}

impl World {
    fn new(seed: u64, mode: Mode, how: Lie, chains: &BTreeMap<u64, Vec<Order>>) -> (World, Vec<Order>) {
        let mut rng = Rng(seed << 20);
        let one = mix(&mut rng, chains);
        let liar = rng.below(SIZE);
        let gaps: Vec<bool> = (0..2 * one.len()).map(|_| rng.chance(10)).collect();
        let streams = (0..SIZE).map(|authority| {
            let orders = if mode == Mode::Total { one.clone() } else { mix(&mut rng, chains) };
            let mut stream: Stream = Vec::new();
            for order in orders {
                while gaps.get(stream.len()) == Some(&true) {
                    stream.push(None);
                }
                // Some have settled on the log's word.
                stream.push(Some((order, if rng.chance(85) { proof() } else { None })));
            }
            if authority == liar { lie(&mut rng, how, stream) } else { stream }
        });
        let streams = streams.collect();
        let rules = Rules { authorities: SIZE, validity: 2, grace_ms: GRACE_MS };
        let merge = restore(rules, mode, &[]);
        let mut world = World {
            rng,
            mode,
            streams,
            settled: vec![0; SIZE],
            liar,
            merge,
            rules,
            followed: BTreeSet::new(),
            stored: Vec::new(),
            effects: Vec::new(),
            now_ms: 0,
        };
        world.restart();
        (world, one)
    }

    fn restart(&mut self) {
        self.merge = restore(self.rules, self.mode, &self.stored);
        let first = self.rng.below(SIZE);
        // The liar is always among them.
        self.followed = [first, self.liar, (first + 1) % SIZE].into_iter().collect();
        if self.mode == Mode::ById {
            self.followed.extend(0..SIZE);
        }
        self.followed.iter().for_each(|a| {
            self.merge.follow(*a);
        });
    }

    fn read(&mut self, authority: usize, count: usize) {
        let from = self.merge.position(authority);
        let stream = &self.streams[authority];
        let end = self.settled[authority].min(stream.len()) as u64 + 1;
        let next = (from + count as u64).min(end).max(from);
        let here =
            (from..next).filter_map(|p| stream[p as usize - 1].as_ref().map(|(o, proof)| shown(p, o, proof.clone())));
        let page = Page { entries: here.collect(), next, level: next == end };
        self.merge.page(self.now_ms, authority, page);
    }

    /// Stores effects with their changes, all but the last few if it crashes then.
    fn act(&mut self, crash: bool) {
        let deliveries: Vec<Delivery> = std::iter::from_fn(|| self.merge.pop()).collect();
        let kept = if crash { self.rng.below(deliveries.len() + 1) } else { deliveries.len() };
        for delivery in deliveries.into_iter().take(kept) {
            self.effects.push(delivery.order);
            self.stored.extend(delivery.changes);
        }
        if !crash && self.rng.chance(10) {
            self.merge.moved(&mut self.stored);
        }
        if crash {
            self.restart();
        }
    }

    fn run(&mut self) {
        for _ in 0..120 {
            let followed: Vec<usize> = self.followed.iter().copied().collect();
            let authority = followed[self.rng.below(followed.len())];
            // Some lag far behind others, and say that this is all there is.
            let lagging = self.rng.below(SIZE);
            for other in (0..SIZE).filter(|a| *a != lagging) {
                self.settled[other] += self.rng.below(4);
            }
            let count = self.rng.below(5);
            self.read(authority, count);
            if self.rng.chance(5) {
                self.merge.disconnected(authority);
            }
            let crash = self.rng.chance(5);
            self.act(crash);
        }
        // In the end all are reached, and time passes.
        self.settled.iter_mut().for_each(|settled| *settled = usize::MAX >> 8);
        for _ in 0..3 {
            for authority in 0..SIZE {
                self.merge.follow(authority);
                self.read(authority, usize::MAX >> 8);
            }
            self.act(false);
            self.now_ms += 2 * GRACE_MS;
            self.merge.tick(self.now_ms);
            self.act(false);
        }
    }
}

fn chains(mode: Mode, actors: u64, length: u32) -> BTreeMap<u64, Vec<Order>> {
    let seqnum = |i| if mode == Mode::ById { 0 } else { i };
    (1..=actors).map(|a| (a, (1..=length).map(|i| order(a, seqnum(i), &format!("{a} {i}"))).collect())).collect()
}

fn lies() -> impl Strategy<Value = Lie> {
    prop_oneof![Just(Lie::Invent), Just(Lie::Withhold), Just(Lie::Reorder), Just(Lie::Repeat), Just(Lie::Silence)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_actor_s_orders_come_once_and_in_their_order(seed in any::<u32>(), how in lies()) {
        let chains = chains(Mode::BySeqnum, 4, 10);
        let (mut world, _) = World::new(seed.into(), Mode::BySeqnum, how, &chains);
        world.run();
        for (actor, chain) in chains {
            let found: Vec<&Order> = world.effects.iter().filter(|o| o.actor == actor).collect();
            prop_assert_eq!(found, chain.iter().collect::<Vec<_>>());
        }
        prop_assert_eq!(world.effects.len(), 40);
    }

    #[test]
    fn without_sequence_numbers_each_comes_once(seed in any::<u32>(), how in lies()) {
        let chains = chains(Mode::ById, 4, 10);
        let (mut world, all) = World::new(seed.into(), Mode::ById, how, &chains);
        world.run();
        let found: BTreeSet<Hash> = world.effects.iter().map(|o| o.id).collect();
        prop_assert_eq!(&found, &all.iter().map(|o| o.id).collect());
        prop_assert_eq!(found.len(), world.effects.len());
    }

    #[test]
    fn an_ordered_network_has_one_order(seed in any::<u32>(), how in lies()) {
        let chains = chains(Mode::Total, 4, 10);
        let (mut world, all) = World::new(seed.into(), Mode::Total, how, &chains);
        world.run();
        prop_assert_eq!(&world.effects, &all);
    }
}

#[test]
fn what_all_have_shown_is_forgotten() {
    let mut merge = merge_of(Mode::ById);
    let mut stored = Vec::new();
    let orders: Vec<Order> = (0..3).map(|i| order(1, 0, &format!("{i}"))).collect();
    for authority in 0..SIZE {
        let entries = orders.iter().enumerate().map(|(i, o)| shown(i as u64 + 1, o, proof())).collect();
        merge.page(0, authority, page(entries, 4));
        stored.extend(std::iter::from_fn(|| merge.pop()).flat_map(|d| d.changes));
    }
    merge.moved(&mut stored);
    let (committee, _) = TestCommittee::new(SIZE, 1).build();
    let changes: Vec<Change> = stored.into_iter().filter(|c| c.key != [b'v']).collect();
    let kept = Kept::read(&changes, &committee, NETWORK).unwrap();
    assert!(kept.ids.is_empty());
    assert_eq!(kept.positions, (0..SIZE).map(|a| (a, 4)).collect::<Vec<_>>());
    // A liar that shows one again has nobody with it.
    merge.page(0, 0, page(vec![shown(4, &orders[0], proof())], 5));
    assert_eq!(drain(&mut merge), []);
}

#[test]
fn what_some_have_yet_to_show_is_not_forgotten_after_a_restart() {
    let rules = Rules { authorities: SIZE, validity: 2, grace_ms: GRACE_MS };
    let (early, late) = (order(1, 0, "early"), order(1, 0, "late"));
    // All have shown what they have; two have not settled the late one yet.
    let show = |merge: &mut Merge, authority: usize, end: u64| {
        let from = merge.position(authority);
        let all = [shown(1, &early, proof()), shown(2, &late, proof())];
        let entries = all.into_iter().filter(|s| (from..end).contains(&s.position)).collect();
        merge.page(0, authority, page(entries, end));
    };
    let has = |authority: usize| if authority < 2 { 3 } else { 2 };
    let mut merge = merge_of(Mode::ById);
    (0..SIZE).for_each(|a| show(&mut merge, a, has(a)));
    let mut stored: Vec<Change> = std::iter::from_fn(|| merge.pop()).flat_map(|d| d.changes).collect();
    merge.moved(&mut stored);
    for _ in 0..2 {
        merge = restore(rules, Mode::ById, &stored);
        (0..SIZE).for_each(|a| {
            merge.follow(a);
        });
        (0..SIZE).for_each(|a| show(&mut merge, a, has(a)));
        assert!(merge.is_level());
        merge.moved(&mut stored);
    }
    (0..SIZE).for_each(|a| show(&mut merge, a, 3));
    assert_eq!(drain(&mut merge), []);
    merge.moved(&mut stored);
    merge = restore(rules, Mode::ById, &stored);
    (2..SIZE).for_each(|a| show(&mut merge, a, 3));
    assert_eq!(drain(&mut merge), []);
}

#[test]
fn an_order_without_a_certificate_needs_f_plus_1_authorities() {
    let mut merge = merge_of(Mode::BySeqnum);
    let (real, fake) = (order(1, 1, "real"), order(1, 1, "fake"));
    merge.page(0, 0, page(vec![shown(1, &fake, None)], 2));
    merge.page(0, 1, page(vec![shown(1, &real, None)], 2));
    assert_eq!(drain(&mut merge), []);
    merge.page(0, 2, page(vec![shown(1, &real, None)], 2));
    let delivery = merge.pop().unwrap();
    assert_eq!(delivery.order, real);
    assert!(matches!(delivery.proof, Proof::Agreed(2)));
    let events = merge.take_events();
    assert!(events.iter().any(|e| matches!(e, Event::Lies { authority: 0, .. })), "{events:?}");
}

#[test]
fn who_withholds_is_named_and_who_catches_up_too() {
    let mut merge = merge_of(Mode::BySeqnum);
    let one = order(1, 1, "");
    for authority in [0, 1, 3] {
        merge.page(0, authority, page(vec![shown(1, &one, proof())], 2));
    }
    merge.page(0, 2, page(vec![], 1));
    assert_eq!(drain(&mut merge), [(1, 1)]);
    merge.tick(GRACE_MS - 1);
    assert_eq!(merge.take_events(), []);
    merge.tick(GRACE_MS);
    let events = merge.take_events();
    let named = |e: &Event| matches!(e, Event::Behind { authority: 2, level: true, key } if key.order_id == one.id);
    assert!(events.len() == 1 && named(&events[0]), "{events:?}");
    assert_eq!(merge.behind(), 1);
    merge.page(GRACE_MS, 2, page(vec![shown(1, &one, proof())], 2));
    assert_eq!(merge.take_events(), [Event::CaughtUp { authority: 2 }]);
    // The same in a network with one order.
    let mut merge = merge_of(Mode::Total);
    for authority in 0..3 {
        merge.page(0, authority, page(vec![shown(1, &one, proof())], 2));
    }
    merge.page(0, 3, page(vec![], 1));
    merge.tick(0);
    merge.tick(GRACE_MS);
    assert!(matches!(merge.take_events()[..], [Event::Behind { authority: 3, level: true, .. }]));
    merge.page(GRACE_MS, 3, page(vec![shown(1, &one, proof())], 2));
    merge.tick(GRACE_MS);
    assert_eq!(merge.take_events(), [Event::CaughtUp { authority: 3 }]);
}

#[test]
fn one_authority_s_order_of_an_ordered_network_is_not_believed() {
    let mut merge = merge_of(Mode::Total);
    let (a, b) = (order(1, 1, ""), order(2, 1, ""));
    merge.page(0, 0, page(vec![shown(1, &b, proof()), shown(2, &a, proof())], 3));
    merge.page(0, 1, page(vec![shown(1, &a, proof()), shown(3, &b, proof())], 4));
    assert_eq!(drain(&mut merge), []);
    assert!(merge.tick(GRACE_MS), "others are asked too");
    merge.page(0, 2, page(vec![shown(1, &a, proof()), shown(3, &b, proof())], 4));
    assert_eq!(drain(&mut merge), [(1, 1), (2, 1)]);
    assert!(matches!(merge.take_events()[..], [Event::Lies { authority: 0, .. }]));
}

#[test]
fn a_flood_that_leads_nowhere_is_not_read_for_ever() {
    let mut merge = merge_of(Mode::BySeqnum);
    let mut position = 0;
    while merge.has_room(0) {
        position += 1;
        merge.page(0, 0, page(vec![shown(position, &order(9, position as u32 + 1, ""), None)], position + 1));
    }
    assert_eq!(position, 8_192);
    assert!(merge.has_room(1));
}

#[test]
fn a_pruned_beginning_is_where_f_plus_1_have_it() {
    let rules = Rules { authorities: SIZE, validity: 2, grace_ms: GRACE_MS };
    let oldest = Head { epoch: 1, ..head(Mode::BySeqnum) };
    let kept = Kept { place: 1, actors: vec![(7, (2, 0))], ..Kept::default() };
    let mut merge = Merge::new(rules, oldest, kept, true);
    (0..SIZE).for_each(|a| {
        merge.follow(a);
    });
    // A liar leaves 5 of actor 1 out; actor 7 had 1 and 2 delivered before.
    merge.page(0, 0, page(vec![shown(8, &order(1, 6, ""), proof()), shown(9, &order(7, 4, ""), proof())], 10));
    assert_eq!(drain(&mut merge), []);
    merge.page(0, 1, page(vec![shown(8, &order(1, 5, ""), proof()), shown(9, &order(7, 4, ""), proof())], 10));
    assert_eq!(drain(&mut merge), [(1, 5), (1, 6), (7, 4)]);
    assert_eq!(merge.take_events(), [Event::Gap { actor: 7, from: 3, to: 3 }]);
    // Now none may be left out.
    merge.page(0, 2, page(vec![shown(11, &order(7, 6, ""), proof())], 12));
    merge.tick(9 * GRACE_MS);
    assert_eq!(drain(&mut merge), []);
    // Who has nobody else to confirm it gets it after a while.
    merge.page(0, 2, page(vec![shown(12, &order(8, 3, ""), proof())], 13));
    merge.tick(GRACE_MS);
    assert_eq!(drain(&mut merge), [(8, 3)]);
}

#[test]
fn a_cursor_file_survives_and_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cursor");
    let mut cursor = FileCursor::open(&path).unwrap();
    assert_eq!(cursor.load().unwrap(), []);
    assert_eq!(FileCursor::open(&path).err().map(|e| e.code), Some(Code::Busy));
    let head = head(Mode::BySeqnum);
    let mut largest = 0;
    for seqnum in 1..=20_000 {
        let mut changes: Vec<Change> = (1..=3).map(|actor| head.done(actor, seqnum, &[0; 32], None)).collect();
        changes.push(Change::position(1, seqnum.into()));
        changes.push(Change { key: b"x".to_vec(), value: vec![1; usize::from(seqnum < 9)] });
        if seqnum % 50 == 0 {
            cursor.store(&changes).unwrap();
            largest = largest.max(path.metadata().unwrap().len());
        }
    }
    for seqnum in 20_001..=24_000 {
        cursor.store(&[head.done(1, seqnum, &[0; 32], None)]).unwrap();
        largest = largest.max(path.metadata().unwrap().len());
    }
    assert!(largest < 3 << 20, "{largest}");
    drop(cursor);
    let stored = FileCursor::open(&path).unwrap().load().unwrap();
    assert_eq!(stored.len(), 4);
    let (committee, _) = TestCommittee::new(SIZE, 1).build();
    let kept = Kept::read(&stored, &committee, NETWORK).unwrap();
    assert_eq!(kept.actors, [(1, (24_000, 0)), (2, (20_000, 0)), (3, (20_000, 0))]);
    assert_eq!(kept.positions, [(1, 20_000)]);
}

#[test]
fn of_two_changes_of_one_key_the_later_one_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cursor");
    let change = |key: &[u8], value: &[u8]| Change { key: key.to_vec(), value: value.to_vec() };
    let mut cursor = FileCursor::open(&path).unwrap();
    cursor.store(&[change(b"a", b"1"), change(b"b", b"1")]).unwrap();
    cursor.store(&[change(b"a", b""), change(b"a", b"2"), change(b"b", b"2"), change(b"b", b"")]).unwrap();
    drop(cursor);
    assert_eq!(FileCursor::open(&path).unwrap().load().unwrap(), [change(b"a", b"2")]);
}

#[test]
fn a_cursor_of_something_else_is_refused() {
    let (committee, _) = TestCommittee::new(SIZE, 1).build();
    let mine = Head { committee: *committee.id(), ..head(Mode::Total) };
    let read = |changes: &[Change], network| Kept::read(changes, &committee, network).err().map(|e| e.code);
    assert_eq!(read(&[mine.change()], NETWORK), None);
    assert_eq!(read(&[mine.change()], NETWORK + 1), Some(Code::UnknownNetwork));
    assert_eq!(read(&[head(Mode::Total).change()], NETWORK), Some(Code::WrongCommittee));
    for broken in [&b"v"[..], b"p\0", b"a12345678", b"?"] {
        let change = Change { key: broken.to_vec(), value: vec![9] };
        assert_eq!(read(&[change], NETWORK), Some(Code::BadFile), "{broken:?}");
    }
    let key = Key { network_id: NETWORK, actor: 1, seqnum: 2, order_id: [3; 32] };
    let changes = delivered(&[mine.change()], &committee, NETWORK, [(key, Some(8))]).unwrap();
    assert_eq!(Kept::read(&changes, &committee, NETWORK).unwrap().place, 9);
    assert_eq!(delivered(&[], &committee, NETWORK, [(key, None)]).unwrap_err().code, Code::BadFile);
}

/// A cluster with transactions, and what its first authority shows of them.
fn served(flags: u32) -> (Cluster, wire::ListenReply) {
    let mut cluster = Cluster::new(&TestCommittee::new(SIZE, 1));
    let mut admin = florin_core::testing::Signer::new(1);
    cluster.fund(admin.address, 1_000);
    cluster.set_time(1_000);
    let register = wire::NetworkRegister { flags, ..Default::default() };
    let kind = Some(wire::network_command::Kind::Register(register));
    let command = wire::output::Kind::Network(wire::NetworkCommand { network_id: NETWORK, kind });
    let mut actors: Vec<Actor> = (1..=3).map(|a| Actor::new(NETWORK, a, Curve::Ed25519)).collect();
    let outputs = std::iter::once(command).chain(actors.iter().map(Actor::registration)).collect();
    let order = admin.call(vec![], outputs);
    cluster.run_ordered(&[order]);
    let orders: Vec<Bytes> = actors.iter_mut().map(|a| a.order(TYPE_ROTATE + 1, b"content", &[])).collect();
    cluster.run(&orders);
    let more: Vec<Bytes> = actors.iter_mut().map(|a| a.order(0, b"more", &[])).collect();
    cluster.run(&more);
    let node = &cluster.nodes[0][0];
    let request = wire::ListenRequest { network_id: NETWORK, from: 1 };
    let reply = node.authority.listen(&node.state, &request).unwrap();
    (cluster, reply)
}

fn checks(cluster: &Cluster, network_id: u64) -> Checks {
    Checks { committee: cluster.committee.clone(), network_id, certified: Certified::default().into() }
}

#[test]
fn a_page_is_taken_as_served_and_certificates_are_verified_once() {
    let (cluster, reply) = served(1);
    let checks = checks(&cluster, NETWORK);
    for _ in 0..3 {
        let page = checks.page(1, reply.clone()).unwrap();
        assert_eq!((page.entries.len(), page.next, page.level), (6, 7, true));
        assert!(page.entries.iter().all(|e| matches!(e.proof, Some(Proof::Certificate(_))) && e.transaction.is_some()));
    }
    assert_eq!(checks.certified().verified, 2);
}

#[test]
fn a_page_that_says_what_is_not_so_is_refused() {
    let (cluster, good) = served(1);
    let other = checks(&cluster, NETWORK + 1).page(1, good.clone());
    assert_eq!(other.unwrap_err().code, Code::BadProof);
    type Change = fn(&mut wire::ListenReply);
    fn orders(reply: &mut wire::ListenReply) -> &mut wire::CertifiedOrders {
        reply.batches[0].orders.as_mut().unwrap()
    }
    fn certificate(reply: &mut wire::ListenReply) -> &mut wire::Certificate {
        orders(reply).certificate.as_mut().unwrap()
    }
    let cases: [(&str, Change, Code); 13] = [
        ("another body", |r| orders(r).bodies[0] = order(1, 1, "invented").body, Code::BadProof),
        ("no body", |r| orders(r).bodies[0] = Bytes::from_static(b"?"), Code::Decode),
        ("one body fewer", |r| drop(orders(r).bodies.pop()), Code::BadProof),
        ("an index twice", |r| orders(r).indices = vec![0, 0, 1], Code::BadProof),
        ("another proof", |r| orders(r).proof.push(Bytes::from(vec![0; 32])), Code::BadProof),
        ("too few votes", |r| certificate(r).votes.truncate(2), Code::NoQuorum),
        ("a vote of nobody", |r| certificate(r).votes[0].authority = 9, Code::UnknownAuthority),
        ("one vote twice", |r| certificate(r).votes[1] = certificate(r).votes[0].clone(), Code::DuplicateSigner),
        ("a false vote", |r| certificate(r).votes[0].signature = Bytes::from(vec![1; 64]), Code::BadVote),
        ("votes for other orders", |r| certificate(r).votes[0].bitmap = Bytes::from_static(&[1]), Code::BadVote),
        ("positions that go back", |r| r.batches[0].positions = vec![3, 2, 1], Code::BadProof),
        ("an end before the next", |r| r.end = 3, Code::BadProof),
        ("another's signatures", |r| r.batches[0].transactions.swap(0, 1), Code::BadProof),
    ];
    for (what, change, code) in cases {
        let mut reply = good.clone();
        change(&mut reply);
        assert_eq!(checks(&cluster, NETWORK).page(1, reply).err().map(|e| e.code), Some(code), "{what}");
    }
    // Verified once is not verified for other orders of the batch.
    let checks = checks(&cluster, NETWORK);
    checks.page(1, good.clone()).unwrap();
    let mut reply = good;
    orders(&mut reply).bodies[0] = order(1, 1, "invented").body;
    assert_eq!(checks.page(1, reply).err().map(|e| e.code), Some(Code::BadProof));
}
