//! Packets that are lost, come twice and overtake each other, each by chance: what netem does in kernels that have it.
//! The router of a [`Lan`] forwards nothing then. A thread of this process takes what arrives there from a packet socket,
//! and sends it on through a raw one, later, or not at all. TCP is that of the kernels at both ends. (TUN devices would
//! do too, but can't be opened without unsafe code.)

use std::collections::BTreeMap;
use std::fs::File;
use std::iter::Sum;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use florin_sim::rng::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, eth, ipproto};
use rustix::net::{recv, sendto, socket_with, sockopt::set_socket_recv_buffer_size_force};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::lan::{Lan, Place};

/// What a cable takes at once. Hosts send nothing longer.
const MTU: usize = 1_500;
/// What the kernel keeps while the thread waits for a processor, bytes; beyond it packets would be lost uncounted.
const BUFFER: usize = 16 << 20;
/// How soon the thread sees that it is to end.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Offsets in an IPv4 header, and in TCP's.
const LENGTH: usize = 2;
const PROTOCOL: usize = 9;
const FROM: usize = 12;
const TO: usize = 16;
const TCP_CHECKSUM: usize = 16;
const TCP: u8 = 6;

/// What happens to each packet.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Of a thousand, how many are lost.
    pub loss: u64,
    /// Of a thousand that are not lost, how many come twice.
    pub duplicate: u64,
    /// How long one is on its way, milliseconds, each as likely. Who leaves later may arrive earlier.
    pub delay_ms: RangeInclusive<u64>,
}

/// What has happened to packets.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Sent by hosts.
    pub packets: u64,
    pub lost: u64,
    pub duplicated: u64,
    /// Arrived after a later one of the same connection; second copies don't count.
    pub reordered: u64,
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(all: I) -> Counts {
        all.fold(Counts::default(), |a, b| Counts {
            packets: a.packets + b.packets,
            lost: a.lost + b.lost,
            duplicated: a.duplicated + b.duplicated,
            reordered: a.reordered + b.reordered,
        })
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Loss of all that goes to a place or comes from it, where it is another than everywhere.
    loss: Mutex<BTreeMap<Place, u64>>,
    counts: Mutex<BTreeMap<(Place, Place), Counts>>,
}

/// The thread, until it is dropped.
pub struct Packets {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Packets {
    /// From now on nothing passes the router but by chance.
    ///
    /// Errors: why this machine can't do it, for people.
    pub fn start(lan: &Lan, faults: Faults, seed: u64) -> Result<Packets, String> {
        let namespace = File::open(lan.router()).map_err(|e| format!("{}: {e}", lan.router().display()))?;
        let opened = std::thread::spawn(move || sockets(&namespace)).join().unwrap();
        let (arriving, leaving) = opened.map_err(|e| format!("packet and raw sockets: {e}"))?;
        lan.stop_forwarding();
        let shared = Arc::<Shared>::default();
        let switch = Switch {
            shared: shared.clone(),
            faults,
            rng: Rng::new(seed),
            arriving,
            leaving,
            places: lan.places().into_iter().map(|place| (lan.address(place), place)).collect(),
            waiting: BTreeMap::new(),
            newest: BTreeMap::new(),
            taken: 0,
        };
        Ok(Packets { shared, thread: Some(std::thread::spawn(|| switch.run())) })
    }

    /// Changes how many of a thousand packets to a place or from it are lost.
    pub fn set_loss(&self, place: Place, loss: u64) {
        self.shared.loss.lock().unwrap().insert(place, loss);
    }

    /// From each place to each other, as far as packets were sent.
    pub fn links(&self) -> BTreeMap<(Place, Place), Counts> {
        self.shared.counts.lock().unwrap().clone()
    }

    pub fn counts(&self) -> Counts {
        self.links().into_values().sum()
    }

    /// To a place and from it.
    pub fn counts_of(&self, place: Place) -> Counts {
        self.links().into_iter().filter(|((from, to), _)| [*from, *to].contains(&place)).map(|(_, c)| c).sum()
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // If it has panicked, it has said so.
        let _ = self.thread.take().unwrap().join();
    }
}

/// What takes IP packets that arrive, and what sends them as they are. The thread that asks stays in the namespace.
fn sockets(namespace: &File) -> Result<(OwnedFd, OwnedFd), Errno> {
    let open = |family, kind, protocol: Protocol| {
        socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(protocol))
    };
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let leaving = open(AddressFamily::INET, SocketType::RAW, ipproto::RAW)?;
    let arriving = open(AddressFamily::PACKET, SocketType::DGRAM, eth::IP)?;
    set_socket_recv_buffer_size_force(&arriving, BUFFER)?;
    Ok((arriving, leaving))
}

/// On its way.
struct Packet {
    link: (Place, Place),
    to: Ipv4Addr,
    /// Addresses and ports.
    connection: [u8; 12],
    bytes: Vec<u8>,
}

struct Switch {
    shared: Arc<Shared>,
    faults: Faults,
    rng: Rng,
    arriving: OwnedFd,
    leaving: OwnedFd,
    places: BTreeMap<Ipv4Addr, Place>,
    /// By when they are to arrive, their number, and whether it is the second time.
    waiting: BTreeMap<(Instant, u64, bool), Packet>,
    /// The newest packet that has arrived of each connection.
    newest: BTreeMap<[u8; 12], u64>,
    taken: u64,
}

impl Switch {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let next = self
                .waiting
                .first_key_value()
                .map_or(LONGEST_WAIT, |((due, ..), _)| due.saturating_duration_since(Instant::now()).min(LONGEST_WAIT));
            let timeout = Timespec::try_from(next).unwrap();
            match poll(&mut [PollFd::new(&self.arriving, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => panic!("packets can't be awaited: {e}"),
            }
            self.take_all();
            self.send_due();
        }
    }

    fn take_all(&mut self) {
        loop {
            let mut bytes = vec![0; 2 * MTU];
            match recv(&self.arriving, &mut bytes[..], RecvFlags::empty()) {
                Ok((length, _)) => bytes.truncate(length),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => continue,
                Err(e) => panic!("packets can't be taken: {e}"),
            }
            self.take(bytes);
        }
    }

    fn take(&mut self, mut bytes: Vec<u8>) {
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
        let to = address(TO);
        // Others are none of ours: what hosts announce to everybody.
        let (Some(source), Some(target)) = (self.places.get(&address(FROM)), self.places.get(&to)) else { return };
        let (link, now) = ((*source, *target), Instant::now());
        let length = usize::from(u16::from_be_bytes([bytes[LENGTH], bytes[LENGTH + 1]]));
        assert!(length <= MTU && length <= bytes.len(), "{length} bytes are not one packet");
        bytes.truncate(length);
        let header = usize::from(bytes[0] & 15) * 4;
        if bytes[PROTOCOL] == TCP {
            fill_checksum(&mut bytes, header);
        }
        let loss = {
            let set = self.shared.loss.lock().unwrap();
            [link.0, link.1].iter().filter_map(|place| set.get(place)).max().copied().unwrap_or(self.faults.loss)
        };
        let is_lost = self.rng.chance(loss);
        let copies = usize::from(!is_lost) + usize::from(!is_lost && self.rng.chance(self.faults.duplicate));
        {
            let mut counts = self.shared.counts.lock().unwrap();
            let counts = counts.entry(link).or_default();
            counts.packets += 1;
            counts.lost += u64::from(is_lost);
            counts.duplicated += u64::from(copies == 2);
        }
        let mut connection = [0; 12];
        connection[..8].copy_from_slice(&bytes[FROM..FROM + 8]);
        connection[8..].copy_from_slice(&bytes[header..header + 4]);
        self.taken += 1;
        for is_copy in [false, true].into_iter().take(copies) {
            let delay = self.rng.between(*self.faults.delay_ms.start() * 1_000, *self.faults.delay_ms.end() * 1_000);
            let packet = Packet { link, to, connection, bytes: bytes.clone() };
            self.waiting.insert((now + Duration::from_micros(delay), self.taken, is_copy), packet);
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, number, is_copy), packet) = first.remove_entry();
            let newest = self.newest.entry(packet.connection).or_default();
            if number < *newest && !is_copy {
                self.shared.counts.lock().unwrap().entry(packet.link).or_default().reordered += 1;
            }
            *newest = number.max(*newest);
            // Nobody is told of a link that is down.
            let _ = sendto(&self.leaving, &packet.bytes, SendFlags::empty(), &SocketAddrV4::new(packet.to, 0));
        }
    }
}

/// Hosts leave TCP's checksum to their network cards, which for want of cards leave it out.
fn fill_checksum(packet: &mut [u8], header: usize) {
    let (ip, tcp) = packet.split_at_mut(header);
    let length = (tcp.len() as u16).to_be_bytes();
    tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].fill(0);
    let words = [&ip[FROM..FROM + 8], &[0, TCP], &length, tcp].concat();
    let mut sum: u32 = words.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&(!sum as u16).to_be_bytes());
}
