//! Authorities that are far away: each address is a relay's, which passes on what it gets, in order, so much later.

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

/// Relays, until dropped.
pub struct Relays {
    _tasks: JoinSet<()>,
}

impl Relays {
    /// One for each address, to the same port of [`BEHIND`]. Errors: `IO`.
    pub async fn start<'a>(addresses: impl IntoIterator<Item = &'a String>, delay: Duration) -> Result<Relays> {
        let mut tasks = JoinSet::new();
        for address in addresses {
            let failed = |e: io::Error| Error::new(Code::Io, format!("a relay at {address}: {e}"));
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let port = listener.local_addr().map_err(failed)?.port();
            tasks.spawn(async move {
                let mut links = JoinSet::new();
                while let Ok((near, _)) = listener.accept().await {
                    links.spawn(link(near, port, delay));
                    while links.try_join_next().is_some() {}
                }
            });
        }
        Ok(Relays { _tasks: tasks })
    }
}

/// One connection, both ways; an end of either side is one of both.
async fn link(near: TcpStream, port: u16, delay: Duration) {
    let Ok(far) = TcpStream::connect((BEHIND, port)).await else { return };
    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
        return;
    }
    let (near, far) = (near.into_split(), far.into_split());
    tokio::select! {
        _ = pass(near.0, far.1, delay) => {}
        _ = pass(far.0, near.1, delay) => {}
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
) -> io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async {
        let mut piece = vec![0; PIECE];
        loop {
            let length = from.read(&mut piece).await?;
            let due = Instant::now() + delay;
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
    async fn a_relay_passes_on_in_order_and_not_before_the_delay() {
        let behind = TcpListener::bind((BEHIND, 0)).await.unwrap();
        let address = format!("127.0.0.1:{}", behind.local_addr().unwrap().port());
        let delay = Duration::from_millis(30);
        let _relays = Relays::start([&address], delay).await.unwrap();
        let start = Instant::now();
        let mut near = TcpStream::connect(&address).await.unwrap();
        let sent: Vec<u8> = (0..3 * PIECE as u32).map(|i| i as u8).collect();
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
        assert!(back == sent && start.elapsed() >= 2 * delay);
    }
}
