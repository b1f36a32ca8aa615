//! An authority that does its worst on the links of the ordering engine, with its true key: it takes part in every
//! session, so that its units are ordered, and fills them with garbage; and floods peers beside that.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use florin_core::committee::Committee;
use florin_core::limits::MESSAGE_BYTES_MAX;
use florin_core::signatures::AuthorityKey;
use florin_core::wire::{self, OrderFrame};
use florin_node::ordering::{
    Engine, EngineConfig, FRAME_BYTES_MAX, Frames, OrderedUnit, Pace, Recipient, Source, Transport, UNIT_BYTES_MAX,
};
use florin_node::peers::Peers;
use florin_rpc::client::{Limits, connect_lazy};
use florin_rpc::services::peer_service_client::PeerServiceClient;
use florin_rpc::services::peer_service_server::{PeerService, PeerServiceServer};
use florin_rpc::{server, tls};
use florin_sim::rng::Rng;
use prost::Message;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::codegen::tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

/// Units of honest authorities that it repeats.
const KEPT: usize = 64;

/// Bytes of the longest message that an engine of four takes, less a little.
const LONGEST: u32 = 66_000_000;

/// What it has done.
#[derive(Default)]
pub struct Deeds {
    pub hostile_units: AtomicU64,
    /// Its own units that came out in the order.
    pub ordered: AtomicU64,
    pub flood_frames: AtomicU64,
    pub flood_bytes: AtomicU64,
    pub twins: AtomicU64,
}

/// What its engines put into units: never nothing.
struct Garbage {
    deeds: Arc<Deeds>,
    heard: Arc<Mutex<VecDeque<Bytes>>>,
    at: AtomicUsize,
}

fn bytes(rng: &mut Rng, length: usize) -> Vec<u8> {
    (0..length.div_ceil(32)).flat_map(|_| rng.bytes()).take(length).collect()
}

fn items(clock_ms: u64, items: Vec<Bytes>) -> Vec<u8> {
    wire::UnitData { clock_ms, items }.encode_to_vec()
}

impl Source for Garbage {
    fn next(&self, _: u32) -> Option<Bytes> {
        let at = self.at.fetch_add(1, Ordering::Relaxed);
        self.deeds.hostile_units.fetch_add(1, Ordering::Relaxed);
        let mut rng = Rng::new(at as u64);
        let heard = self.heard.lock().unwrap().iter().nth(at % KEPT).cloned();
        let real = heard.clone().and_then(|data| wire::UnitData::decode(data).ok()).map(|unit| unit.items);
        let real = real.filter(|items| !items.is_empty());
        let mut unit = match (at % 8, real) {
            // No message at all.
            (0, _) => bytes(&mut rng, UNIT_BYTES_MAX),
            // As many items as fit.
            (1, _) => items(0, vec![Bytes::new(); UNIT_BYTES_MAX / 2 - 8]),
            (2, _) => items(u64::MAX, vec![bytes(&mut rng, 30).into(); UNIT_BYTES_MAX / 32 - 8]),
            // One that fills it.
            (3, _) => items(1, vec![bytes(&mut rng, UNIT_BYTES_MAX - 64).into()]),
            // An item that says it holds more orders than there can be.
            (4, _) => {
                let indices = (0..20_000).collect();
                let orders = wire::CertifiedOrders { indices, ..Default::default() };
                items(
                    u64::MAX,
                    vec![wire::Item { kind: Some(wire::item::Kind::Orders(orders)) }.encode_to_vec().into()],
                )
            }
            // True items again, as many times as fit; the same with a bit changed; and whole units.
            (5, Some(real)) => items(0, vec![real[0].clone(); (UNIT_BYTES_MAX - 64) / (real[0].len() + 8)]),
            (6, Some(real)) => {
                let mut item = real[0].to_vec();
                let bit = rng.index(8 * item.len());
                item[bit / 8] ^= 1 << (bit % 8);
                items(0, vec![item.into(); (UNIT_BYTES_MAX - 64) / (real[0].len() + 8)])
            }
            (7, Some(_)) => heard.unwrap_or_default().to_vec(),
            _ => bytes(&mut rng, 1_000),
        };
        unit.truncate(UNIT_BYTES_MAX);
        Some(unit.into())
    }
}

/// The way of one engine to the peers that it is to speak to.
struct Way {
    session: u64,
    to: Vec<u32>,
    peers: Arc<Peers>,
}

impl Transport for Way {
    fn send(&self, to: Recipient, frame: Bytes) {
        for peer in &self.to {
            if to == Recipient::Everyone || to == Recipient::One(*peer) {
                // Twice: a duplicate must not matter.
                self.peers.send(self.session, Recipient::One(*peer), frame.clone());
                self.peers.send(self.session, Recipient::One(*peer), frame.clone());
            }
        }
    }
}

/// It serves streams of frames, as an authority does, and runs engines in the sessions that it hears of.
pub struct Liar {
    committee: Arc<Committee>,
    index: u32,
    seed: [u8; 32],
    folder: TempDir,
    peers: Arc<Peers>,
    engines: Mutex<BTreeMap<u64, Vec<Engine>>>,
    heard: Arc<Mutex<VecDeque<Bytes>>>,
    out: mpsc::Sender<OrderedUnit>,
    pub deeds: Arc<Deeds>,
}

impl Liar {
    /// Listens at its address in the committee, and lies until the tasks are dropped.
    pub async fn start(committee: Arc<Committee>, index: u32, seed: [u8; 32], tasks: &mut JoinSet<()>) -> Arc<Liar> {
        let clients = committee.authorities.iter().enumerate();
        let clients =
            clients.map(|(i, a)| (i as u32 != index).then(|| client(&a.addresses[0], a.key.as_bytes(), &seed)));
        let (peers, runs) = Peers::new(clients.collect());
        runs.into_iter().for_each(|run| drop(tasks.spawn(run)));
        let (out, mut ordered) = mpsc::channel::<OrderedUnit>(1_024);
        let (folder, deeds) = (TempDir::new().unwrap(), Arc::<Deeds>::default());
        let (address, heard) = (committee.authorities[index as usize].addresses[0].clone(), Arc::default());
        let engines = Mutex::default();
        let liar = Arc::new(Liar { committee, index, seed, folder, peers, engines, heard, out, deeds });
        let of = liar.clone();
        tasks.spawn(async move {
            while let Some(unit) = ordered.recv().await {
                if unit.creator == index {
                    of.deeds.ordered.fetch_add(1, Ordering::Relaxed);
                } else if !unit.data.is_empty() {
                    let mut heard = of.heard.lock().unwrap();
                    heard.push_front(unit.data);
                    heard.truncate(KEPT);
                }
            }
        });
        let listener = TcpListener::bind(address).await.unwrap();
        let mut routes = tonic::service::Routes::builder();
        routes.add_service(
            PeerServiceServer::new(Service(liar.clone())).max_decoding_message_size(2 * MESSAGE_BYTES_MAX),
        );
        let (tls, limits) = (tls::server_config(&seed).unwrap(), server::Limits::default());
        tasks.spawn(async move {
            server::serve(listener, Some(tls), routes.routes(), limits, std::future::pending()).await.unwrap();
        });
        liar
    }

    /// A frame of a peer, which may be of a session that is new.
    fn hear(&self, from: u32, frame: OrderFrame) {
        let mut engines = self.engines.lock().unwrap();
        // A peer that is behind: an engine of an old session again would read what two of them wrote.
        if engines.keys().next_back().is_some_and(|newest| frame.session + 1 < *newest) {
            return;
        }
        let of_session = engines.entry(frame.session).or_insert_with(|| {
            let twins = 1 + frame.session % 2;
            self.deeds.twins.fetch_add(twins - 1, Ordering::Relaxed);
            (0..twins).map(|twin| self.engine(frame.session, twin, twins)).collect()
        });
        of_session.iter().for_each(|engine| engine.receive(from, frame.frame.clone()));
        let newest = engines.keys().next_back().copied().unwrap_or(0);
        engines.retain(|session, _| *session + 1 >= newest);
    }

    /// One of two makes other units than the other, and speaks to others: they fork.
    fn engine(&self, session: u64, twin: u64, twins: u64) -> Engine {
        let config = EngineConfig {
            committee: self.committee.clone(),
            index: self.index,
            key: Arc::new(AuthorityKey::from_seed(self.seed)),
            folder: self.folder.path().join(twin.to_string()),
            pace: Pace::default(),
        };
        let at = AtomicUsize::new((session * 2 + twin) as usize);
        let garbage = Garbage { deeds: self.deeds.clone(), heard: self.heard.clone(), at };
        let others = (0..self.committee.size() as u32).filter(|i| *i != self.index);
        let to = others.filter(|i| u64::from(*i) % twins == twin || twins == 1).collect();
        let way = Way { session, to, peers: self.peers.clone() };
        Engine::start(config, session, Arc::new(way), Arc::new(garbage), self.out.clone()).unwrap()
    }

    /// Sends one peer all that a stream takes, for ever, `streams` at a time.
    pub fn flood(self: &Arc<Self>, victim: usize, streams: usize, tasks: &mut JoinSet<()>) {
        for number in 0..streams {
            let (liar, mut rng) = (self.clone(), Rng::new((victim * streams + number) as u64));
            let victim = &self.committee.authorities[victim];
            let mut client = client(&victim.addresses[0], victim.key.as_bytes(), &self.seed);
            tasks.spawn(async move {
                let mut long = (number == 0).then_some((0, 0));
                loop {
                    let (sender, frames) = mpsc::channel(4);
                    let Ok(reply) = client.order(ReceiverStream::new(frames)).await else {
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    };
                    let _open = reply;
                    loop {
                        let frame = liar.hostile_frame(&mut rng, long.as_mut());
                        let length = frame.frame.len() as u64;
                        if sender.send(frame).await.is_err() {
                            break;
                        }
                        liar.deeds.flood_frames.fetch_add(1, Ordering::Relaxed);
                        liar.deeds.flood_bytes.fetch_add(length, Ordering::Relaxed);
                    }
                }
            });
        }
    }

    /// `long`: session and offset of the longest message there may be, which never ends.
    fn hostile_frame(&self, rng: &mut Rng, long: Option<&mut (u64, u32)>) -> OrderFrame {
        let open = self.engines.lock().unwrap().keys().next_back().copied().unwrap_or(0);
        let mut session = match rng.index(8) {
            0 => u64::MAX - rng.below(1_000),
            1 => rng.below(open + 1),
            _ => open,
        };
        let mut frame = Vec::new();
        let kind = rng.index(100);
        match kind {
            // Longer than allowed: the stream ends.
            0 => frame.resize(FRAME_BYTES_MAX + 1, 0),
            // The longest, of a message that is none.
            1..10 => frame.resize(FRAME_BYTES_MAX, 0),
            10..30 if long.is_some() => {
                let long = long.unwrap();
                let part = FRAME_BYTES_MAX as u32 - 9;
                if long.0 != open || long.1 + part >= LONGEST {
                    *long = (open, 0);
                }
                session = open;
                frame.push(1);
                frame.extend_from_slice(&LONGEST.to_le_bytes());
                frame.extend_from_slice(&long.1.to_le_bytes());
                frame.resize(FRAME_BYTES_MAX, 7);
                long.1 += part;
            }
            30..60 => frame = bytes(rng, 300),
            60..90 => {
                frame.push(0);
                frame.extend(bytes(rng, 100));
            }
            _ => {}
        }
        let signature = (kind >= 90).then(|| wire::Signed {
            authority: rng.index(5) as u32,
            bitmap: bytes(rng, 8).into(),
            signature: bytes(rng, 64).into(),
        });
        OrderFrame { session, frame: frame.into(), signature }
    }
}

fn client(address: &str, key: &[u8; 32], own: &[u8; 32]) -> PeerServiceClient<Channel> {
    let limit = 2 * MESSAGE_BYTES_MAX;
    PeerServiceClient::new(connect_lazy(address, *key, Some(own), Limits::default())).max_encoding_message_size(limit)
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Service(Arc<Liar>);

#[tonic::async_trait]
impl PeerService for Service {
    type FollowStream = Replies<wire::FollowReply>;
    type OrderStream = Replies<OrderFrame>;

    async fn order(&self, request: Request<Streaming<OrderFrame>>) -> Result<Response<Self::OrderStream>, Status> {
        let from = server::peer_identity(&request).unwrap();
        let from = self.0.committee.authorities.iter().position(|a| *a.key.as_bytes() == from).unwrap();
        let (liar, mut frames) = (self.0.clone(), request.into_inner());
        let (open, never) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                liar.hear(from as u32, frame);
            }
            drop(open);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(never))))
    }

    async fn follow(&self, _: Request<wire::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn batch(&self, _: Request<wire::BatchRequest>) -> Result<Response<wire::BatchReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn deliver(&self, _: Request<wire::Delivery>) -> Result<Response<wire::DeliveryReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn cash_shares(
        &self,
        _: Request<wire::CashSharesRequest>,
    ) -> Result<Response<wire::CashSharesReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn cash_go_on(&self, _: Request<wire::CashGoOnRequest>) -> Result<Response<wire::CashGoOnReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn hand(&self, _: Request<wire::HandRequest>) -> Result<Response<wire::HandReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }
}
