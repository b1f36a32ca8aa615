//! The client.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use florin_client::channel::Channels;
use florin_client::channel::text::encode_voucher;
use florin_client::keystore::new_entropy;
use florin_core::address::Address;
use florin_core::channel::manager::{Conditions, Create, EndId, Input, Issue, Reply};
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_LENGTH, HOST, RANGE};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{ADDRESS, CHUNK_BYTES, DELAY, Open, PRICE, Purse, VOUCHER, parse, plain};

/// How long to wait for the log.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries to sign, while the channel is topped up.
const PAUSE: Duration = Duration::from_millis(20);

/// Options of the client.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    purse: Purse,
    /// The file, as http://HOST:PORT/NAME
    url: Uri,
    /// Where to put it: a new file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Pay at most this much, as 5 or 0.50
    #[arg(long, value_name = "AMOUNT")]
    budget: String,
    /// Connections, each with a lane
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..65))]
    connections: u32,
    /// Chunks that a voucher pays for at most. The first of a connection pays for one, each next one for twice as many:
    /// what is at risk grows with what has come
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..1_025))]
    ahead: u64,
}

/// What the server says of a file.
struct Offer {
    size: u64,
    chunk: u64,
    price: u64,
    address: Address,
}

struct Download {
    url: Uri,
    offer: Offer,
    channels: Channels,
    committee: Arc<Committee>,
    file: File,
    bar: ProgressBar,
    ahead: u64,
    next: AtomicU64,
    paid: AtomicU64,
}

/// Chunks, one after the other, that one voucher pays for.
#[derive(Clone, Copy)]
struct Span {
    first: u64,
    count: u64,
}

/// Downloads a file.
pub async fn run(args: Args) -> Result<()> {
    let Open { channels, running, address, committee } = args.purse.open()?;
    let offer = offer(&args.url, &committee).await?;
    let chunks = offer.size.div_ceil(offer.chunk);
    let cost = chunks.saturating_mul(offer.price);
    let budget = parse(&committee, &args.budget)?;
    if cost > budget {
        let what = format!("price of {} bytes", offer.size);
        let (expected, found) = (format!("at most {}", plain(&committee, budget)), plain(&committee, cost));
        return Err(Error::expected(Code::BadAmount, &what, expected, found));
    }
    let end = if cost == 0 { None } else { Some(channel(&channels, address, &offer, cost).await?) };
    let connections = u64::from(args.connections).min(chunks) as u32;
    let lanes = match end {
        Some(end) => lanes(&channels, end, connections).await?,
        None => vec![(0, 0); connections as usize],
    };
    let file = File::create_new(&args.out)
        .map_err(|e| Error::new(Code::BadFile, format!("cannot make {}: {e}", args.out.display())))?;
    let name = args.url.path().trim_start_matches('/').to_owned();
    let style = ProgressStyle::with_template("{prefix}  {bytes} of {total_bytes}  {msg}  {bar:30}");
    let bar = ProgressBar::new(offer.size).with_prefix(name);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let began = Instant::now();
    let download = Arc::new(Download {
        url: args.url,
        offer,
        channels,
        committee,
        file,
        bar,
        ahead: args.ahead,
        next: AtomicU64::new(0),
        paid: AtomicU64::new(0),
    });
    let mut workers = JoinSet::new();
    for (lane, before) in lanes {
        workers.spawn(download.clone().work(end, lane, before));
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap_or_else(|e| Err(Error::new(Code::Io, format!("a connection's task ended: {e}"))))?;
    }
    download.file.sync_all().map_err(|e| Error::new(Code::Io, format!("{}: {e}", args.out.display())))?;
    download.bar.finish();
    let (paid, seconds) = (download.paid.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
    let currency = &download.committee.network.currency;
    let megabytes = download.offer.size as f64 / 1e6;
    println!("{megabytes:.1} MB for {} {currency} in {seconds:.2} s", plain(&download.committee, paid));
    drop(download);
    running.join()
}

/// The channel to the server: the one with most money, topped up in the background if it is short, or a new one.
async fn channel(channels: &Channels, own: Address, offer: &Offer, cost: u64) -> Result<EndId> {
    channels.refresh().await?;
    let to = offer.address;
    if let Some(end) = channels.read(move |manager| manager.lookup(&own, &to)).await? {
        let available = channels.read(move |manager| manager.status(&end)).await??.available;
        if available < cost {
            channels.ask(Input::AddFunds { end, key: Bytes::new(), amount: cost - available }).await?;
        }
        return Ok(end);
    }
    let create = Create {
        key: Bytes::copy_from_slice(&new_entropy::<16>()?[..]),
        from: own,
        to,
        to_permission: Bytes::new(),
        amount: cost,
        delay_ms: DELAY.as_millis() as u64,
        two_way: false,
    };
    let lost = || Error::new(Code::Undecided, "the channel was not opened");
    let Reply::Op(op) = channels.ask(Input::Create(create)).await? else { return Err(lost()) };
    channels.finished(op, PATIENCE).await?.end.ok_or_else(lost)
}

/// Lanes of the channel with what they have moved, used ones first.
async fn lanes(channels: &Channels, end: EndId, count: u32) -> Result<Vec<(u32, u64)>> {
    let mut lanes = channels.read(move |manager| manager.lanes_paid(&end)).await??;
    lanes.truncate(count as usize);
    while lanes.len() < count as usize {
        let Reply::Lane(lane) = channels.ask(Input::AllocateLane(end)).await? else {
            return Err(Error::new(Code::Undecided, "no lane was given"));
        };
        lanes.push((lane, 0));
    }
    Ok(lanes)
}

impl Download {
    /// The next chunks that nobody has taken yet, at most so many.
    fn claim(&self, count: u64) -> Option<Span> {
        let all = self.offer.size.div_ceil(self.offer.chunk);
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        (first < all).then(|| Span { first, count: count.min(all - first) })
    }

    /// One connection: span after span, each with a voucher that was signed while the one before came.
    async fn work(self: Arc<Self>, end: Option<EndId>, lane: u32, before: u64) -> Result<()> {
        let mut connection = connect(&self.url).await?;
        let (mut amount, mut ahead) = (before, 1);
        let mut next = self.claim(ahead);
        let mut voucher = self.sign(end, lane, &mut amount, next).await?;
        while let Some(span) = next {
            ahead = (2 * ahead).min(self.ahead);
            next = self.claim(ahead);
            let signing = self.sign(end, lane, &mut amount, next);
            let (came, signed) = tokio::join!(self.fetch(&mut connection, span, &voucher), signing);
            came?;
            voucher = signed?;
        }
        Ok(())
    }

    /// All chunks of a span, with the same voucher.
    async fn fetch(&self, connection: &mut Connection, span: Span, voucher: &str) -> Result<()> {
        for chunk in span.first..span.first + span.count {
            let from = chunk * self.offer.chunk;
            let to = (from + self.offer.chunk).min(self.offer.size) - 1;
            let response = ask(connection, &self.url, Method::GET, Some((from, to)), voucher).await?;
            if chunk == span.first {
                self.paid.fetch_add(self.offer.price * span.count, Ordering::Relaxed);
            }
            let body = response.into_body().collect().await.map_err(|e| unreachable(&self.url, &e))?.to_bytes();
            if body.len() as u64 != to - from + 1 {
                return Err(Error::expected(Code::Decode, "bytes of a chunk", to - from + 1, body.len()));
            }
            self.file.write_all_at(&body, from).map_err(|e| Error::new(Code::Io, format!("the file: {e}")))?;
            self.show(body.len() as u64);
        }
        Ok(())
    }

    fn show(&self, bytes: u64) {
        let paid = plain(&self.committee, self.paid.load(Ordering::Relaxed));
        let all = plain(&self.committee, self.offer.size.div_ceil(self.offer.chunk) * self.offer.price);
        self.bar.set_message(format!("{paid} of {all} {}", self.committee.network.currency));
        self.bar.inc(bytes);
    }

    /// The voucher for a span, if there is one and it costs anything.
    async fn sign(&self, end: Option<EndId>, lane: u32, amount: &mut u64, span: Option<Span>) -> Result<String> {
        match (end, span) {
            (Some(end), Some(span)) => self.voucher(end, lane, amount, span.count * self.offer.price).await,
            _ => Ok(String::new()),
        }
    }

    /// The next voucher of a lane, worth `more`. Waits while the channel is topped up.
    async fn voucher(&self, end: EndId, lane: u32, amount: &mut u64, more: u64) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let issue = Issue { end, lane, amount: *amount + more, conditions: Conditions::default() };
            match self.channels.ask(Input::VoucherCreate(issue)).await? {
                Reply::Issued { voucher: Some(voucher), .. } => {
                    *amount += more;
                    return Ok(encode_voucher(&voucher, &[], &self.committee));
                }
                Reply::Issued { shortfall, .. } if Instant::now() >= deadline => {
                    let message = format!("the channel lacks {}", plain(&self.committee, shortfall));
                    return Err(Error::new(Code::ChannelFunds, message));
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

async fn offer(url: &Uri, committee: &Committee) -> Result<Offer> {
    let mut connection = connect(url).await?;
    let response = ask(&mut connection, url, Method::HEAD, None, "").await?;
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|v| v.to_str().ok());
        value.ok_or_else(|| Error::new(Code::Decode, format!("{url} sells nothing: it has no header {name}")))
    };
    let number = |name: &str| {
        let value = header(name)?;
        value.parse().map_err(|_| Error::expected(Code::Decode, name, "a number", value))
    };
    let chunk: u64 = number(CHUNK_BYTES)?;
    if chunk == 0 || chunk > 16 << 20 {
        return Err(Error::expected(Code::Decode, "bytes of a chunk", "1 to 16 MiB", chunk));
    }
    Ok(Offer {
        size: number(CONTENT_LENGTH.as_str())?,
        chunk,
        price: parse(committee, header(PRICE)?)?,
        address: Address::from_text(header(ADDRESS)?, &committee.network.currency)?,
    })
}

type Connection = SendRequest<Empty<Bytes>>;

async fn connect(url: &Uri) -> Result<Connection> {
    let missing = || Error::expected(Code::Usage, "url", "http://HOST:PORT/NAME", url);
    let host = url.authority().filter(|_| url.scheme_str() == Some("http")).ok_or_else(missing)?;
    let address = format!("{}:{}", host.host(), host.port_u16().unwrap_or(80));
    let socket = TcpStream::connect(&address).await.map_err(|e| unreachable(url, &e))?;
    let _ = socket.set_nodelay(true);
    let (connection, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(|e| unreachable(url, &e))?;
    tokio::spawn(driver);
    Ok(connection)
}

async fn ask(
    connection: &mut Connection,
    url: &Uri,
    method: Method,
    range: Option<(u64, u64)>,
    voucher: &str,
) -> Result<Response<hyper::body::Incoming>> {
    let host = url.authority().map_or("", |a| a.as_str());
    let mut request = Request::builder().method(method).uri(url.path()).header(HOST, host);
    if let Some((from, to)) = range {
        request = request.header(RANGE, format!("bytes={from}-{to}"));
    }
    if !voucher.is_empty() {
        request = request.header(VOUCHER, voucher);
    }
    let request = request.body(Empty::new()).map_err(|e| Error::new(Code::Usage, format!("{url}: {e}")))?;
    connection.ready().await.map_err(|e| unreachable(url, &e))?;
    let response = connection.send_request(request).await.map_err(|e| unreachable(url, &e))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let said = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said[..said.len().min(400)]).trim().to_owned();
    let code = if status == StatusCode::PAYMENT_REQUIRED { Code::VoucherAmount } else { Code::BadFile };
    Err(Error::new(code, format!("{url} answers {status}: {said}")))
}

fn unreachable(url: &Uri, e: &dyn std::fmt::Display) -> Error {
    Error::new(Code::Unreachable, format!("{url}: {e}"))
}
