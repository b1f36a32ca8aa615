//! The server.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use florin_client::channel::Channels;
use florin_client::channel::text::decode_voucher;
use florin_core::channel::manager::{Added, EndId, Incoming, Input, Reply};
use florin_core::channel::voucher::Voucher;
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result};
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::{ADDRESS, CHUNK, CHUNK_BYTES, Open, PRICE, Purse, VOUCHER, parse, plain};

/// Options of the server.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    purse: Purse,
    /// The folder
    folder: PathBuf,
    /// Price of 256 KiB, as 0.01; 0 is for nothing
    #[arg(long, value_name = "AMOUNT")]
    price: String,
    /// Where to listen. Put a proxy with TLS before it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8402")]
    listen: SocketAddr,
}

/// What was paid in a lane of a channel and is not used up, with the voucher that was taken last, and the last chunk that
/// was delivered for it: of which file, and where it begins.
#[derive(Default)]
struct Account {
    credit: u64,
    voucher: Bytes,
    last: Option<(PathBuf, u64)>,
}

struct Server {
    channels: Channels,
    committee: Arc<Committee>,
    address: String,
    folder: PathBuf,
    price: u64,
    accounts: Mutex<HashMap<(EndId, u32), Account>>,
}

/// Serves until SIGINT or SIGTERM.
pub async fn run(args: Args) -> Result<()> {
    let Open { channels, running, address, committee } = args.purse.open()?;
    let io = |e: std::io::Error| Error::new(Code::Io, format!("{}: {e}", args.listen));
    let listener = TcpListener::bind(args.listen).await.map_err(io)?;
    let server = Arc::new(Server {
        price: parse(&committee, &args.price)?,
        address: address.to_text(&committee.network.currency),
        folder: args.folder,
        accounts: Mutex::default(),
        channels,
        committee,
    });
    println!("serving {} on http://{}", server.folder.display(), listener.local_addr().map_err(io)?);
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(io)?;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted.map_err(io)?.0,
            _ = tokio::signal::ctrl_c() => break,
            _ = term.recv() => break,
        };
        let _ = socket.set_nodelay(true);
        let server = server.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let server = server.clone();
                async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
            });
            // A client that goes away is no error.
            let mut http = hyper::server::conn::http1::Builder::new();
            let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service).await;
        });
    }
    connections.shutdown().await;
    drop(server);
    running.join()
}

impl Server {
    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
        let Some((path, size)) = self.file(request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, "no such file".into());
        };
        if *request.method() == Method::HEAD {
            let mut response = self.priced(Response::new(Full::default()));
            response.headers_mut().insert(CONTENT_LENGTH, size.into());
            return response;
        }
        let range = request.headers().get(RANGE).and_then(|r| r.to_str().ok()).and_then(range);
        let Some((from, to)) = range.filter(|(from, to)| from <= to && *to < size && to - from < CHUNK) else {
            let what = format!("ask for a range of at most {CHUNK} bytes of the {size}");
            return text(StatusCode::RANGE_NOT_SATISFIABLE, what);
        };
        if let Err(e) = self.paid(request.headers().get(VOUCHER), (&path, from)).await {
            return self.priced(text(StatusCode::PAYMENT_REQUIRED, e.to_string()));
        }
        match tokio::task::spawn_blocking(move || read(&path, from, to)).await {
            Ok(Ok(body)) => {
                let mut response = Response::new(Full::new(body));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                if let Ok(value) = HeaderValue::try_from(format!("bytes {from}-{to}/{size}")) {
                    response.headers_mut().insert(CONTENT_RANGE, value);
                }
                response
            }
            _ => text(StatusCode::INTERNAL_SERVER_ERROR, "the file can't be read".into()),
        }
    }

    /// A file of the folder, and its bytes.
    fn file(&self, path: &str) -> Option<(PathBuf, u64)> {
        let path = Path::new(path.strip_prefix('/')?);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        let path = inside.then(|| self.folder.join(path))?;
        let found = std::fs::metadata(&path).ok()?;
        found.is_file().then_some((path, found.len()))
    }

    fn priced(&self, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
        let values = [(PRICE, plain(&self.committee, self.price)), (ADDRESS, self.address.clone())];
        for (name, value) in values {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response.headers_mut().insert(CHUNK_BYTES, CHUNK.into());
        response
    }

    /// Takes the price of a chunk: of a voucher that is new, or of what is left of it.
    async fn paid(&self, voucher: Option<&HeaderValue>, chunk: (&Path, u64)) -> Result<()> {
        if self.price == 0 {
            return Ok(());
        }
        let missing = || Error::new(Code::VoucherUnsigned, format!("expected a voucher in the header {VOUCHER}"));
        let text = voucher.and_then(|v| v.to_str().ok()).ok_or_else(missing)?;
        let (signed, secret) = decode_voucher(text, &self.committee)?;
        let terms = Voucher::decode(&signed)?.terms;
        let channel = terms.channel[..].try_into();
        let channel = channel.map_err(|_| Error::new(Code::Decode, "a channel's id has 32 bytes"))?;
        let end = EndId { channel, side: 1 - terms.payer };
        let lane = (end, terms.lane);
        if self.accounts().get(&lane).is_none_or(|account| account.voucher != text) {
            let added = self.add(Incoming { end, voucher: signed, secret, proof: Bytes::new(), min_delta: 0 }).await?;
            let mut accounts = self.accounts();
            let account = accounts.entry(lane).or_default();
            if !added.locked {
                account.credit += added.delta;
            }
            // The same one again, after a restart or beside another request, adds nothing.
            if account.voucher != text {
                (account.voucher, account.last) = (Bytes::copy_from_slice(text.as_bytes()), None);
            }
        }
        let mut accounts = self.accounts();
        let account = accounts.entry(lane).or_default();
        if account.last.as_ref().is_some_and(|(path, from)| (path.as_path(), *from) == chunk) {
            // The answer was lost.
            return Ok(());
        }
        let Some(left) = account.credit.checked_sub(self.price) else {
            let expected = format!("at least {}", plain(&self.committee, self.price));
            let found = plain(&self.committee, account.credit);
            return Err(Error::expected(Code::VoucherAmount, "what is left of the voucher", expected, found));
        };
        (account.credit, account.last) = (left, Some((chunk.0.to_owned(), chunk.1)));
        Ok(())
    }

    async fn add(&self, incoming: Incoming) -> Result<Added> {
        let mut added = self.channels.ask(Input::VoucherAdd(incoming.clone())).await;
        if added.as_ref().is_err_and(|e| matches!(e.code, Code::UnknownChannel | Code::ChannelFunds)) {
            // A channel that was opened or topped up a moment ago.
            self.channels.refresh().await?;
            added = self.channels.ask(Input::VoucherAdd(incoming)).await;
        }
        match added? {
            Reply::Added(added) => Ok(added),
            other => Err(Error::new(Code::Decode, format!("a voucher was answered by {other:?}"))),
        }
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<(EndId, u32), Account>> {
        self.accounts.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn text(status: StatusCode, what: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(what + "\n")));
    *response.status_mut() = status;
    response
}

fn range(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

fn read(path: &Path, from: u64, to: u64) -> std::io::Result<Bytes> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = vec![0; (to - from + 1) as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes.into())
}
