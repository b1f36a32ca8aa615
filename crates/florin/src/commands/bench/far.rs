//! Authorities that are far away: each address is a relay's, which passes on what it gets, in order, so much later, and
//! not more than so many bytes a second.

use std::io;
use std::time::Duration;

use florin_core::{Code, Error, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Where the authorities themselves listen, at the same ports.
pub const BEHIND: &str = "127.0.0.2";
/// Pieces under way on a connection in one direction; more wait at their sender.
const UNDER_WAY: usize = 1_024;
/// Bytes of a piece, at most.
const PIECE: usize = 64 << 10;

/// What lies between, each way of each connection.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Of every byte.
    pub delay: Duration,
    /// Bytes a second, if there is a bound.
    pub rate: Option<u64>,
}

/// Relays, until dropped.
pub struct Relays {
    _tasks: JoinSet<()>,
}

impl Relays {
    /// One for each address, to the same port of [`BEHIND`]. Errors: `IO`.
    pub async fn start<'a>(addresses: impl IntoIterator<Item = &'a String>, between: Link) -> Result<Relays> {
        let mut tasks = JoinSet::new();
        for address in addresses {
            let failed = |e: io::Error| Error::new(Code::Io, format!("a relay at {address}: {e}"));
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let port = listener.local_addr().map_err(failed)?.port();
            tasks.spawn(async move {
                let mut links = JoinSet::new();
                while let Ok((near, _)) = listener.accept().await {
                    links.spawn(link(near, port, between));
                    while links.try_join_next().is_some() {}
                }
            });
        }
        Ok(Relays { _tasks: tasks })
    }
}

/// One connection, both ways; an end of either side is one of both.
async fn link(near: TcpStream, port: u16, between: Link) {
    let Ok(far) = TcpStream::connect((BEHIND, port)).await else { return };
    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
        return;
    }
    let (near, far) = (near.into_split(), far.into_split());
    tokio::select! {
        _ = pass(near.0, far.1, between) => {}
        _ = pass(far.0, near.1, between) => {}
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    between: Link,
) -> io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async {
        // A slow link takes small pieces: a large one would come at once, long after its first byte could have.
        let mut piece = vec![0; between.rate.map_or(PIECE, |rate| (rate as usize / 50).clamp(1, PIECE))];
        let mut sent = Instant::now();
        loop {
            let length = from.read(&mut piece).await?;
            let takes = between.rate.map_or(0.0, |rate| length as f64 / rate as f64);
            sent = sent.max(Instant::now()) + Duration::from_secs_f64(takes);
            let due = sent + between.delay;
            if length == 0 || sender.send((due, piece[..length].to_vec())).await.is_err() {
                return Ok::<_, io::Error>(());
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            to.write_all(&piece).await?;
        }
        Ok::<_, io::Error>(())
    };
    tokio::select! {
        end = read => end,
        end = write => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_relay_passes_on_in_order_and_not_sooner_than_its_link_allows() {
        let behind = TcpListener::bind((BEHIND, 0)).await.unwrap();
        let address = format!("127.0.0.1:{}", behind.local_addr().unwrap().port());
        let delay = Duration::from_millis(30);
        let (rate, bytes) = (100 * PIECE as u64, 3 * PIECE as u32);
        let _relays = Relays::start([&address], Link { delay, rate: Some(rate) }).await.unwrap();
        let start = Instant::now();
        let mut near = TcpStream::connect(&address).await.unwrap();
        let sent: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
        let echo = async {
            let (mut far, _) = behind.accept().await.unwrap();
            let mut got = vec![0; sent.len()];
            far.read_exact(&mut got).await.unwrap();
            far.write_all(&got).await.unwrap();
            far
        };
        let ask = async {
            near.write_all(&sent).await.unwrap();
            let mut back = vec![0; sent.len()];
            near.read_exact(&mut back).await.unwrap();
            back
        };
        let (_far, back) = tokio::join!(echo, ask);
        let passing = Duration::from_secs_f64(f64::from(bytes) / rate as f64);
        assert!(back == sent && start.elapsed() >= 2 * delay + passing);
    }
}
