use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Condvar;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use aleph_bft::Keychain as _;
use florin_core::testing::{TestCommittee, seed};
use parity_scale_codec::Encode;
use tempfile::TempDir;

use super::keys::{Hash, Item, Sha};
use super::wire::{Alert, AlertMessage, Message, SignedUnit, Unit, UnitMessage};
use super::*;

const SESSION: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds, or panics after a long time.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[derive(Default)]
struct Queue {
    items: Mutex<VecDeque<Bytes>>,
    /// Each unit without an item has data that can wait.
    fills: AtomicBool,
}

const FILLING: Bytes = Bytes::from_static(b"no hurry");

impl Source for Queue {
    fn next(&self, _: u32) -> Option<Bytes> {
        let item = lock(&self.items).pop_front();
        item.or_else(|| self.fills.load(Ordering::SeqCst).then_some(FILLING))
    }

    fn is_urgent(&self, data: &[u8]) -> bool {
        data != FILLING
    }
}

/// The network: delivers at once, and reads along.
#[derive(Default)]
struct Net {
    engines: Mutex<HashMap<u32, Arc<Engine>>>,
    /// Hash of the unit that each authority was the first to send for a round of its own.
    own_units: Mutex<HashMap<(u32, u16), Hash>>,
    frames: AtomicU64,
    alerts: AtomicU64,
}

impl Net {
    fn read(&self, from: u32, frame: &Bytes) {
        self.frames.fetch_add(1, Ordering::SeqCst);
        assert!(frame.len() <= FRAME_BYTES_MAX);
        if frame[0] != 0 {
            return;
        }
        let message = Message::decode(&mut &frame[1..]).expect("our types are AlephBFT's");
        assert_eq!(message.encode(), frame[1..]);
        assert_eq!(Data::decode(&mut &frame[1..]).unwrap().encode(), frame[1..]);
        match message {
            Message::Units(UnitMessage::Unit(SignedUnit { unit, .. })) if unit.creator == u64::from(from) => {
                let first = *lock(&self.own_units).entry((from, unit.round)).or_insert(unit.hash());
                assert_eq!(first, unit.hash(), "authority {from} made two units of round {}", unit.round);
            }
            Message::Alert(AlertMessage::ForkAlert(..)) => drop(self.alerts.fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }
    }
}

struct Wire(Arc<Net>, u32);

impl Transport for Wire {
    fn send(&self, to: Recipient, frame: Bytes) {
        self.0.read(self.1, &frame);
        let engines = lock(&self.0.engines).clone();
        let is_meant = |i: u32| i != self.1 && (to == Recipient::Everyone || to == Recipient::One(i));
        engines.iter().filter(|(i, _)| is_meant(**i)).for_each(|(_, engine)| engine.receive(self.1, frame.clone()));
    }
}

struct Ring {
    folder: TempDir,
    committee: Arc<Committee>,
    keys: Vec<Arc<AuthorityKey>>,
    net: Arc<Net>,
    queues: Vec<Arc<Queue>>,
    ordered: Vec<Arc<Mutex<Vec<OrderedUnit>>>>,
    idle: Duration,
}

impl Ring {
    fn new(authorities: usize) -> Ring {
        let (committee, keys) = TestCommittee::new(authorities, 1).build();
        let queues = (0..authorities).map(|_| Arc::default()).collect();
        let ordered = (0..authorities).map(|_| Arc::default()).collect();
        let folder = tempfile::tempdir().unwrap();
        Ring { folder, committee, keys, net: Arc::default(), queues, ordered, idle: Pace::default().idle }
    }

    fn config(&self, index: u32) -> EngineConfig {
        let pace = Pace { idle: self.idle, ..Pace::default() };
        EngineConfig {
            pace,
            committee: self.committee.clone(),
            index,
            key: self.keys[index as usize].clone(),
            folder: self.folder.path().join(index.to_string()),
        }
    }

    fn file(&self, index: u32) -> PathBuf {
        self.config(index).folder.join(format!("session-{SESSION}.units"))
    }

    fn try_start(&mut self, index: u32, disk: Arc<dyn Disk>) -> Result<Arc<Engine>> {
        let (out, mut from_engine) = mpsc::channel(16);
        let (config, wire) = (self.config(index), Arc::new(Wire(self.net.clone(), index)));
        let queue = self.queues[index as usize].clone();
        let engine = Arc::new(Engine::start_on(config, SESSION, wire, queue, out, disk)?);
        lock(&self.net.engines).insert(index, engine.clone());
        let ordered: Arc<Mutex<Vec<OrderedUnit>>> = Arc::default();
        self.ordered[index as usize] = ordered.clone();
        tokio::spawn(async move {
            while let Some(unit) = from_engine.recv().await {
                lock(&ordered).push(unit);
            }
        });
        Ok(engine)
    }

    fn start(&mut self, index: u32) -> Arc<Engine> {
        self.try_start(index, Arc::new(RealDisk)).unwrap()
    }

    async fn stop(&self, index: u32) {
        let engine = lock(&self.net.engines).remove(&index).unwrap();
        engine.stop().await;
        engine.ended().await.unwrap();
    }

    /// Cuts an engine off.
    async fn crash(&self, index: u32) {
        let engine = lock(&self.net.engines).remove(&index).unwrap();
        until("the last frame on its way", || Arc::strong_count(&engine) == 1).await;
    }

    fn offer(&self, index: u32, items: std::ops::Range<u32>) {
        let named = items.map(|i| Bytes::from(format!("item {i} of authority {index}")));
        lock(&self.queues[index as usize].items).extend(named);
        if let Some(engine) = lock(&self.net.engines).get(&index) {
            engine.wake();
        }
    }

    fn items(&self, index: u32) -> Vec<Bytes> {
        let ordered = lock(&self.ordered[index as usize]);
        ordered.iter().map(|u| u.data.clone()).filter(|data| !data.is_empty() && *data != FILLING).collect()
    }

    async fn until_items(&self, indices: &[u32], count: usize) {
        for index in indices {
            until(&format!("{count} items at {index}"), || self.items(*index).len() >= count).await;
            assert_eq!(self.items(*index).len(), count);
        }
    }

    /// Everyone's order is the beginning of the longest.
    fn assert_equal(&self) {
        let orders: Vec<Vec<OrderedUnit>> = self.ordered.iter().map(|o| lock(o).clone()).collect();
        let longest = orders.iter().max_by_key(|o| o.len()).unwrap();
        for order in &orders {
            assert_eq!(order[..], longest[..order.len()]);
        }
        let mut places: Vec<_> = longest.iter().map(|u| (u.creator, u.round)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), longest.len(), "a creator has one unit a round");
    }

    /// The keys of an authority that lies.
    fn liar(&self, index: u32) -> Keys {
        let members = self.committee.authorities.iter().map(|a| a.key).collect();
        let key = self.keys[index as usize].clone();
        Keys::new(members, (self.committee.id(), self.committee.epoch, SESSION), index, key, random_token())
    }
}

/// A unit of round 0.
fn unit(keys: &Keys, creator: u64, data: &'static str, change: impl FnOnce(&mut Unit)) -> SignedUnit {
    let none: Vec<Option<(Hash, u16)>> = vec![None; keys.size()];
    let parents_hash = none.using_encoded(<Sha as aleph_bft::Hasher>::hash);
    let data = Some(Item(Bytes::from_static(data.as_bytes())));
    let mut unit = Unit { round: 0, creator, parents: vec![None; keys.size()], parents_hash, data, session: SESSION };
    change(&mut unit);
    let signature = keys.sign(&unit.hash());
    SignedUnit { unit, signature }
}

fn frame(message: &Message) -> Bytes {
    [vec![0], message.encode()].concat().into()
}

fn send_unit(unit: &SignedUnit) -> Bytes {
    frame(&Message::Units(UnitMessage::Unit(unit.clone())))
}

fn alert(keys: &Keys, sender: u64, proof: (SignedUnit, SignedUnit), units: Vec<SignedUnit>) -> Bytes {
    let alert = Box::new(Alert { sender, proof, units });
    let signature = keys.sign(&alert.using_encoded(<Sha as aleph_bft::Hasher>::hash));
    frame(&Message::Alert(AlertMessage::ForkAlert(alert, signature)))
}

#[tokio::test(flavor = "multi_thread")]
async fn four_order_all_items_alike() {
    let mut ring = Ring::new(4);
    for i in 0..4 {
        ring.start(i);
        ring.offer(i, 0..20);
    }
    ring.until_items(&[0, 1, 2, 3], 80).await;
    ring.assert_equal();
    let mut items = ring.items(0);
    items.sort();
    items.dedup();
    assert_eq!(items.len(), 80);
    // Full units, and answers with several of them, fit.
    for i in 0..4 {
        lock(&ring.queues[i].items)
            .extend([Bytes::from(vec![i as u8; UNIT_BYTES_MAX]), vec![0; UNIT_BYTES_MAX + 1].into()]);
    }
    ring.until_items(&[0, 1, 2, 3], 84).await;
    ring.assert_equal();
    for i in 0..4 {
        ring.stop(i).await;
    }
}

#[test]
fn an_idle_authority_has_no_more_to_do_in_a_larger_committee() {
    let idle = |n| Pace::default().of(n).idle.as_millis();
    assert_eq!([1, 4, 7, 10, 20, 128].map(idle), [200, 200, 400, 600, 1_000, 1_000]);
    let own = Pace { idle: Duration::from_secs(9), ..Pace::default() };
    assert_eq!(own.of(20), own, "what is longer stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_can_wait_keeps_nobody_busy() {
    let mut ring = Ring::new(4);
    // An idle unit takes for ever, so that whatever goes on is busy.
    ring.idle = Duration::from_secs(3_600);
    for i in 0..4 {
        ring.queues[i].fills.store(true, Ordering::SeqCst);
        ring.start(i as u32);
    }
    for item in 0..2 {
        ring.offer(0, item..item + 1);
        ring.until_items(&[0, 1, 2, 3], item as usize + 1).await;
        // They come to rest, though each unit of theirs had data.
        let units = || lock(&ring.net.own_units).len();
        let mut before = (units(), Instant::now());
        until("all rest", || {
            let now = units();
            if now != before.0 {
                before = (now, Instant::now());
            }
            before.1.elapsed() > 10 * Pace::default().busy
        })
        .await;
    }
    assert!(ring.ordered.iter().all(|ordered| lock(ordered).iter().any(|unit| unit.data == FILLING)));
    ring.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_down_the_others_go_on_and_it_catches_up() {
    let mut ring = Ring::new(4);
    for i in 0..3 {
        ring.start(i);
        ring.offer(i, 0..10);
    }
    ring.until_items(&[0, 1, 2], 30).await;
    ring.start(3);
    ring.offer(3, 0..5);
    ring.until_items(&[0, 1, 2, 3], 35).await;
    ring.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_go_on_from_the_backup() {
    let mut ring = Ring::new(4);
    for i in 0..4 {
        ring.start(i);
        ring.offer(i, 0..5);
    }
    ring.until_items(&[0, 1, 2, 3], 20).await;
    // One is stopped while the others go on; another crashes.
    ring.stop(1).await;
    ring.offer(0, 5..10);
    ring.until_items(&[0, 2, 3], 25).await;
    ring.crash(2).await;
    ring.start(1);
    ring.start(2);
    ring.offer(1, 5..10);
    ring.offer(2, 5..10);
    ring.until_items(&[0, 1, 2, 3], 35).await;
    ring.assert_equal();
    // All at once.
    for i in 0..4 {
        ring.stop(i).await;
    }
    let size = |ring: &Ring, i| std::fs::metadata(ring.file(i)).unwrap().len();
    let before = size(&ring, 0);
    for i in 0..4 {
        ring.start(i);
    }
    ring.until_items(&[0, 1, 2, 3], 35).await;
    assert!(size(&ring, 0) < 2 * before, "what was loaded is not written again");
    ring.offer(3, 10..15);
    ring.until_items(&[0, 1, 2, 3], 40).await;
    ring.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_off_and_damage_refused() {
    let mut ring = Ring::new(4);
    for i in 0..4 {
        ring.start(i);
        ring.offer(i, 0..5);
    }
    ring.until_items(&[0, 1, 2, 3], 20).await;
    ring.stop(0).await;
    ring.stop(1).await;
    let whole = std::fs::read(ring.file(0)).unwrap();
    // A frame that a crash left half written.
    std::fs::write(ring.file(0), [&whole[..], &whole[80..150]].concat()).unwrap();
    ring.start(0);
    ring.offer(0, 5..10);
    ring.until_items(&[0, 2, 3], 25).await;
    ring.assert_equal();

    let whole = std::fs::read(ring.file(1)).unwrap();
    let refused = |ring: &mut Ring, bytes: &[u8]| {
        std::fs::write(ring.file(1), bytes).unwrap();
        let error = ring.try_start(1, Arc::new(RealDisk)).map(|_| ()).unwrap_err();
        assert_eq!(error.code, Code::StorageCorrupt, "{error}");
    };
    for at in [0, 10, 70, 90, 130] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        refused(&mut ring, &damaged);
    }
    let others = std::fs::read(ring.file(2)).unwrap();
    refused(&mut ring, &others);
    refused(&mut ring, b"");
    std::fs::write(ring.file(1), whole).unwrap();
    ring.start(1);
    ring.until_items(&[1], 25).await;
    assert_eq!(ring.try_start(1, Arc::new(RealDisk)).map(|_| ()).unwrap_err().code, Code::StorageBusy);
    ring.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_forgot_its_units_stops() {
    let mut ring = Ring::new(4);
    for i in 0..4 {
        ring.start(i);
    }
    ring.offer(1, 0..1);
    ring.until_items(&[0, 1, 2, 3], 1).await;
    ring.stop(0).await;
    let newest = lock(&ring.net.own_units).keys().filter(|(i, _)| *i == 0).map(|(_, round)| *round).max().unwrap();
    assert!(newest > 3);
    // As many units as fit in an old copy.
    let whole = std::fs::read(ring.file(0)).unwrap();
    std::fs::write(ring.file(0), &whole[..whole.len() / 2]).unwrap();
    // It hears nobody and so creates nothing, until one tells it of its own.
    let engine = {
        let (out, _from_engine) = mpsc::channel(1);
        Engine::start(ring.config(0), SESSION, Arc::new(Wire(Arc::default(), 0)), ring.queues[0].clone(), out).unwrap()
    };
    let keys = ring.liar(0);
    let own = unit(&keys, 0, "", |u| {
        u.round = newest;
        u.parents = vec![Some(newest - 1); 4];
    });
    engine.receive(2, send_unit(&own));
    assert_eq!(engine.ended().await.unwrap_err().code, Code::StorageCorrupt);
    assert_eq!(engine.fault().unwrap().code, Code::StorageCorrupt);
}

/// A disk whose syncs wait, then succeed or fail.
#[derive(Default)]
struct SlowDisk {
    goes_on: Mutex<Option<bool>>,
    told: Condvar,
}

impl Disk for SlowDisk {
    fn sync(&self, _: &std::fs::File) -> io::Result<()> {
        let mut goes_on = lock(&self.goes_on);
        while goes_on.is_none() {
            goes_on = self.told.wait(goes_on).unwrap();
        }
        if *goes_on == Some(true) { Ok(()) } else { Err(io::Error::other("a broken disk")) }
    }
}

/// Notes whether anything was sent before it may be.
#[derive(Default)]
struct Watched {
    may_send: AtomicBool,
    early: AtomicBool,
    frames: AtomicU64,
}

impl Transport for Watched {
    fn send(&self, _: Recipient, _: Bytes) {
        self.early.fetch_or(!self.may_send.load(Ordering::SeqCst), Ordering::SeqCst);
        self.frames.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_before_it_is_durable() {
    for works in [true, false] {
        let ring = Ring::new(4);
        let (disk, wire, (out, _from_engine)) =
            (Arc::<SlowDisk>::default(), Arc::<Watched>::default(), mpsc::channel(1));
        let queue = ring.queues[0].clone();
        let start = Engine::start_on(ring.config(0), SESSION, wire.clone(), queue, out, disk.clone());
        let engine = start.unwrap();
        // Its first unit is in the file, and waits.
        until("a unit in the file", || engine.shared.own_round() == 0).await;
        engine.receive(1, frame(&Message::Units(UnitMessage::CoordRequest(1, 0, 0))));
        wire.may_send.store(works, Ordering::SeqCst);
        *lock(&disk.goes_on) = Some(works);
        disk.told.notify_all();
        if works {
            until("the unit", || wire.frames.load(Ordering::SeqCst) > 0).await;
        } else {
            assert_eq!(engine.ended().await.unwrap_err().code, Code::StorageFailed);
            engine.stop().await;
        }
        assert!(!wire.early.load(Ordering::SeqCst));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_do_nothing() {
    let mut ring = Ring::new(4);
    for i in 0..3 {
        ring.start(i);
    }
    let liar = ring.liar(3);
    let impossible = |data| unit(&liar, 3, data, |u| u.round = ROUNDS_MAX + 1);
    let requests = |requester, creator| frame(&Message::Units(UnitMessage::CoordRequest(requester, 0, creator)));
    let valid = unit(&liar, 3, "valid", |_| {});
    let hash = valid.unit.hash();
    let mut frames = vec![
        Bytes::new(),
        Bytes::from_static(&[0]),
        Bytes::from(vec![0; FRAME_BYTES_MAX + 1]),
        Bytes::from(vec![255; 1_000]),
        // Each of these panics AlephBFT: nobody has such an index.
        requests(3, 4),
        requests(3, u64::MAX),
        frame(&Message::Units(UnitMessage::NewestRequest(9, 1))),
        // As does this alert: its units are signed, but not valid.
        alert(&liar, 3, (impossible("a"), impossible("b")), vec![valid.clone()]),
        // Answers to others are not to be asked for.
        requests(1, 0),
        frame(&Message::Units(UnitMessage::ParentsRequest(0, hash))),
        frame(&Message::Alert(AlertMessage::AlertRequest(2, hash))),
        frame(&Message::Units(UnitMessage::ParentsResponse(hash, vec![valid.clone(); 5]))),
        alert(&liar, 3, (valid.clone(), valid.clone()), vec![]),
        alert(&liar, 3, (valid.clone(), unit(&liar, 3, "fork", |_| {})), vec![unit(&liar, 0, "", |_| {})]),
        send_unit(&unit(&liar, 3, "", |u| u.session += 1)),
        send_unit(&unit(&liar, 3, "", |u| u.parents.push(None))),
        send_unit(&unit(&liar, 3, "", |u| u.parents[0] = Some(0))),
        send_unit(&unit(&liar, 3, "", |u| u.parents_hash[0] ^= 1)),
        send_unit(&unit(&liar, 3, "", |u| u.round = 2)),
        send_unit(&unit(&liar, 3, "", |u| u.creator = 7)),
        send_unit(&unit(&liar, 0, "", |_| {})),
        [send_unit(&valid), Bytes::from_static(&[0])].concat().into(),
    ];
    let long = Some(Item(vec![0; UNIT_BYTES_MAX + 1].into()));
    frames.push(send_unit(&unit(&liar, 3, "", |u| u.data = long)));
    // Claims of 2^30 parents and the like in a short frame.
    let honest = send_unit(&valid);
    for at in 1..honest.len() {
        let mut bytes = honest.to_vec();
        bytes[at] ^= 0xff;
        frames.push(bytes.into());
        frames.push(honest.slice(..at));
    }
    let engine = lock(&ring.net.engines)[&0].clone();
    for (i, frame) in frames.iter().enumerate() {
        let refused = engine.counters().refused.load(Ordering::SeqCst);
        engine.receive(3, frame.clone());
        assert_eq!(engine.counters().refused.load(Ordering::SeqCst), refused + 1, "frame {i}");
    }
    engine.receive(0, honest.clone());
    engine.receive(4, honest.clone());
    // Requests for big answers, and costly checks, are cut off long before they hurt.
    let refused = || engine.counters().refused.load(Ordering::SeqCst);
    for flood in [requests(3, 0), send_unit(&valid)] {
        let before = refused();
        for _ in 0..20_000 {
            engine.receive(3, flood.clone());
        }
        assert!(refused() > before + 5_000);
    }
    assert!(engine.fault().is_none());
    for i in 0..3 {
        ring.offer(i, 0..5);
    }
    for index in 0..3 {
        // The liar's one valid unit is in the order, too, if it came early enough.
        let honest = || ring.items(index).iter().filter(|data| data[..] != *b"valid").count();
        until(&format!("15 items at {index}"), || honest() == 15).await;
    }
    ring.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_is_valid_in_its_session_epoch_and_committee_only() {
    let ring = Ring::new(4);
    let (liar, id, epoch) = (ring.liar(3), *ring.committee.id(), ring.committee.epoch);
    let signed = unit(&liar, 3, "", |_| {});
    let message = Message::Units(UnitMessage::Unit(signed));
    let members: Vec<_> = ring.committee.authorities.iter().map(|a| a.key).collect();
    let check = |id: &[u8; 32], epoch, session| {
        let keys = Keys::new(members.clone(), (id, epoch, session), 0, ring.keys[0].clone(), random_token());
        Gate::new(keys, SESSION).check(3, message.clone()).map(|_| ())
    };
    check(&id, epoch, SESSION).unwrap();
    assert_eq!(check(&seed("another", 1), epoch, SESSION), Err("a false signature"));
    assert_eq!(check(&id, epoch + 1, SESSION), Err("a false signature"));
    assert_eq!(check(&id, epoch, SESSION + 1), Err("a false signature"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forker_stops_nobody() {
    let mut ring = Ring::new(4);
    for i in 0..3 {
        ring.start(i);
    }
    let liar = ring.liar(3);
    let forks = [unit(&liar, 3, "one", |_| {}), unit(&liar, 3, "two", |_| {}), unit(&liar, 3, "three", |_| {})];
    for (i, fork) in forks.iter().enumerate() {
        lock(&ring.net.engines)[&(i as u32)].receive(3, send_unit(fork));
    }
    for i in 0..3 {
        ring.offer(i, 0..10);
    }
    let honest = |i: u32| ring.items(i).iter().filter(|item| item.starts_with(b"item")).count();
    for i in 0..3 {
        until("the items of the honest", || honest(i) == 30).await;
    }
    assert!(ring.net.alerts.load(Ordering::SeqCst) > 0);
    let orders: Vec<Vec<OrderedUnit>> = ring.ordered[..3].iter().map(|o| lock(o).clone()).collect();
    let shortest = orders.iter().map(Vec::len).min().unwrap();
    assert!(orders.iter().all(|order| order[..shortest] == orders[0][..shortest]));
}

/// A unit of 3 of round 1, upon those of round 0 of these authorities.
fn second_unit(keys: &Keys, parents: &[Option<Hash>], data: &'static str) -> SignedUnit {
    unit(keys, 3, data, |unit| {
        let hashes: Vec<Option<(Hash, u16)>> = parents.iter().map(|parent| parent.map(|hash| (hash, 0))).collect();
        unit.round = 1;
        unit.parents = parents.iter().map(|parent| parent.map(|_| 0)).collect();
        unit.parents_hash = hashes.using_encoded(<Sha as aleph_bft::Hasher>::hash);
    })
}

/// The one that 0 receives first it can never save; so it builds upon the other.
#[tokio::test(flavor = "multi_thread")]
async fn who_gets_the_worse_variant_first_goes_on_and_so_do_all() {
    let mut ring = Ring::new(4);
    let liar = ring.liar(3);
    let engines: Vec<Arc<Engine>> = (0..3).map(|i| ring.start(i)).collect();
    let first = unit(&liar, 3, "first", |_| ());
    engines.iter().for_each(|engine| engine.receive(3, send_unit(&first)));
    until("units of round 0", || lock(&ring.net.own_units).keys().filter(|(_, round)| *round == 0).count() == 3).await;
    let own = |i| lock(&ring.net.own_units).get(&(i, 0)).copied();
    let parents = [own(0), own(1), own(2), Some(first.unit.hash())];
    let good = second_unit(&liar, &parents, "good");
    let bad = second_unit(&liar, &[own(0), own(1), Some([7; 32]), Some(first.unit.hash())], "bad");
    engines[0].receive(3, send_unit(&bad));
    for engine in [&engines[1], &engines[2], &engines[0]] {
        engine.receive(3, send_unit(&good));
    }
    until("alerts", || ring.net.alerts.load(Ordering::SeqCst) >= 3).await;
    until("the order of it", || (0..3).all(|i| ring.items(i).iter().any(|item| item == "good"))).await;
    for i in 0..3 {
        ring.offer(i, 0..5);
    }
    ring.until_items(&[0, 1, 2], 2 + 15).await;
    // After a restart too, which reads the units back from the file.
    ring.stop(0).await;
    ring.start(0);
    ring.offer(0, 5..10);
    ring.until_items(&[0, 1, 2], 2 + 20).await;
    ring.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_inside_is_seen_outside() {
    struct Panics;
    impl Source for Panics {
        fn next(&self, _: u32) -> Option<Bytes> {
            panic!("for the test")
        }
    }
    let ring = Ring::new(4);
    let (out, _from_engine) = mpsc::channel(1);
    let wire = Arc::new(Wire(ring.net.clone(), 0));
    let engine = Engine::start(ring.config(0), SESSION, wire, Arc::new(Panics), out).unwrap();
    let error = tokio::time::timeout(PATIENCE, engine.ended()).await.unwrap().unwrap_err();
    assert!(error.message.contains("panicked"), "{error}");
    let wrong = EngineConfig { index: 1, ..ring.config(0) };
    let (out, _from_engine) = mpsc::channel(1);
    let start = Engine::start(wrong, SESSION, Arc::new(Wire(ring.net.clone(), 1)), Arc::new(Panics), out);
    assert_eq!(start.map(|_| ()).unwrap_err().code, Code::BadConfig);
}

#[test]
fn backups_of_closed_sessions_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["session-1.units", "session-9.units", "session-9.units.new", "session-10.units", "other-1.units"];
    names.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
    remove_backups_below(folder.path(), 10).unwrap();
    let left = |name: &&str| folder.path().join(name).exists();
    assert_eq!(names.iter().filter(|n| left(n)).collect::<Vec<_>>(), [&"session-10.units", &"other-1.units"]);
    remove_backups_below(Path::new("/nowhere/at/all"), 10).unwrap();
}

/// Prints how long an item takes, here and in the bare engine: `cargo test --release -p florin-node ordering -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn latency() {
    for authorities in [4, 7] {
        let report = measure_bare(authorities, Pace::default(), 1_000, 200, Duration::from_secs(5)).await.unwrap();
        println!("bare, {authorities}: {report:?}");
        let mut ring = Ring::new(authorities);
        for i in 0..authorities as u32 {
            ring.start(i);
        }
        ring.offer(0, 0..1);
        ring.until_items(&[0], 1).await;
        for idle in [false, true] {
            let mut took = Vec::new();
            for i in 0..(if idle { 5 } else { 60 }) {
                if idle {
                    tokio::time::sleep(Duration::from_millis(1_500)).await;
                }
                let (by, count) = (i % authorities as u32, ring.items(i % authorities as u32).len());
                let began = Instant::now();
                ring.offer(by, 1_000 + i..1_001 + i);
                until("an item", || ring.items(by).len() > count).await;
                took.push(began.elapsed().as_millis());
                for j in 0..authorities as u32 {
                    until("it everywhere", || ring.items(j).len() > count).await;
                }
            }
            took.sort_unstable();
            let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
            println!("engine with its disk, {authorities}, idle {idle}: median {median} ms, worst {worst} ms");
        }
        let units = ring.ordered[0].lock().unwrap().len();
        println!("{units} units, {} frames", ring.net.frames.load(Ordering::SeqCst));
    }
}
