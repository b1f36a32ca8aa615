//! `florin listen`: settled transactions of a PBTX network to a file, a command, a web service or the terminal.

mod exec;
mod line;
mod out_file;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use florin_client::listener::{Cursor, Delivery, Event, FileCursor, From, Listener, Options};
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::wallet::{Question, duration};
use crate::output::Output;
use exec::Exec;
use out_file::OutFile;
use webhook::{Target, Webhook};

/// Transactions that are made durable together.
const GROUP: usize = 1_000;
/// How often the cursor is stored when nothing is delivered.
const SAVE: Duration = Duration::from_secs(5);
/// Between two tries to begin.
const AGAIN: Duration = Duration::from_secs(1);
/// After the first failure of a command or web service; doubles each time.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Options of `listen`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("where"))]
pub struct Args {
    #[command(flatten)]
    question: Question,
    /// The network's id
    #[arg(value_name = "NETWORK")]
    network_id: u64,
    /// Where to keep how far it is. Made if missing; one listener at a time
    #[arg(long, value_name = "FILE")]
    cursor: PathBuf,
    /// Append each transaction as a line of JSON, exactly once whatever crashes
    #[arg(long, value_name = "FILE", group = "where")]
    out: Option<PathBuf>,
    /// Run this in a shell for each transaction, its JSON on stdin: at least once, again until it exits with 0
    #[arg(long, value_name = "COMMAND", group = "where")]
    exec: Option<String>,
    /// POST each transaction's JSON to this URL: at least once, again until the answer is 2xx
    #[arg(long, value_name = "URL", group = "where", requires = "webhook_secret")]
    webhook: Option<String>,
    /// Sign what is posted with this secret: file:PATH or env:NAME
    #[arg(long, value_name = "SECRET")]
    webhook_secret: Option<String>,
    /// Post without TLS to another machine
    #[arg(long)]
    allow_http: bool,
    /// Where to begin with a new cursor
    #[arg(long, value_enum, default_value = "start")]
    from: Begin,
    /// Go on with the oldest that there is, if the network's admin has pruned what comes next
    #[arg(long)]
    skip_pruned: bool,
    /// Authorities to follow, at least f + 1, which is the default
    #[arg(long, value_name = "N")]
    follow: Option<usize>,
    /// How long an authority may lack what others have before it is told and another one is followed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    grace: Duration,
    /// Stop once all that there is now is delivered
    #[arg(long)]
    until_level: bool,
}

/// Where a new cursor begins.
#[derive(Clone, Copy, ValueEnum)]
enum Begin {
    /// With each actor's first transaction
    Start,
    /// With the oldest that is not pruned
    Oldest,
    /// With what settles from now on
    Now,
}

/// Where transactions go.
enum Sink {
    Print,
    Out(OutFile),
    Exec(Exec),
    Webhook(Box<Webhook>),
}

/// That someone wants the process to end.
pub(super) struct Stop {
    term: Signal,
    int: Signal,
    /// It was said.
    said: bool,
}

impl Stop {
    fn new() -> Result<Stop> {
        let on = |kind| signal(kind).map_err(|e| Error::new(Code::Io, format!("cannot wait for signals: {e}")));
        Ok(Stop { term: on(SignalKind::terminate())?, int: on(SignalKind::interrupt())?, said: false })
    }

    /// Waits for SIGTERM or SIGINT; after the first no more.
    pub(super) async fn wait(&mut self) {
        if !self.said {
            tokio::select! {
                _ = self.term.recv() => {}
                _ = self.int.recv() => {}
            }
        }
        self.said = true;
    }
}

/// Runs it.
pub fn run(args: Args, out: Output) -> Result<()> {
    let runtime =
        tokio::runtime::Runtime::new().map_err(|e| Error::new(Code::Io, format!("cannot start threads: {e}")))?;
    runtime.block_on(listen(args, out))
}

async fn listen(args: Args, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    let mut stop = Stop::new()?;
    let target = match (&args.webhook, &args.webhook_secret) {
        (Some(url), Some(secret)) => Some(Target::new(url, secret, args.allow_http)?),
        (None, Some(_)) => return Err(Error::new(Code::Usage, "--webhook-secret is for --webhook")),
        _ => None,
    };
    let mut cursor = FileCursor::open(&args.cursor)?;
    let mut stored = cursor.load()?;
    let mut sink = match (&args.out, &args.exec, target) {
        (Some(path), ..) => {
            let (file, changes) = OutFile::open(path, &stored, &committee, args.network_id)?;
            cursor.store(&changes)?;
            stored.extend(changes);
            Sink::Out(file)
        }
        (_, Some(command), _) => Sink::Exec(Exec::new(command)),
        (_, _, Some(target)) => Sink::Webhook(Box::new(Webhook::new(target)?)),
        _ => Sink::Print,
    };
    let mut listener = tokio::select! {
        listener = begin(&args, &committee, &stored, out) => listener?,
        () = stop.wait() => return Ok(()),
    };
    drop(stored);
    cursor.store(&listener.changes())?;
    let pause = if args.until_level { AGAIN / 10 } else { SAVE };
    loop {
        let news = tokio::select! {
            biased;
            () = stop.wait() => break,
            news = listener.next(GROUP) => news,
            () = tokio::time::sleep(pause) => Default::default(),
        };
        news.events.iter().for_each(|event| tell(event, &committee, out));
        if !sink.take(&news.deliveries, &mut cursor, &mut stop, out).await? {
            // What was given out is not all stored: nothing more is said of the cursor.
            return Ok(());
        }
        if news.deliveries.is_empty() {
            cursor.store(&listener.changes())?;
        }
        if args.until_level && listener.is_level() {
            break;
        }
    }
    cursor.store(&listener.changes())
}

/// Begins to follow; a listener that is to run for long waits until it can.
async fn begin(
    args: &Args,
    committee: &Arc<Committee>,
    stored: &[florin_client::listener::Change],
    out: Output,
) -> Result<Listener> {
    let options = Options {
        from: match args.from {
            Begin::Start => From::Start,
            Begin::Oldest => From::Oldest,
            Begin::Now => From::Now,
        },
        follow: args.follow,
        grace: args.grace,
        skip_pruned: args.skip_pruned,
    };
    let mut told = false;
    loop {
        let network = args.question.network(committee);
        match Listener::start(network, args.network_id, stored, options.clone()).await {
            Err(e) if waits(&e) && !args.until_level => {
                if !std::mem::replace(&mut told, true) {
                    out.note(format_args!("waiting for the committee: {e}"));
                }
                tokio::time::sleep(AGAIN).await;
            }
            other => return other,
        }
    }
}

fn waits(e: &Error) -> bool {
    matches!(e.code, Code::Unreachable | Code::Timeout | Code::QuorumUnreachable | Code::Undecided | Code::Busy)
}

fn tell(event: &Event, committee: &Committee, out: Output) {
    let text = event.describe(committee);
    match event {
        Event::Follows { .. } => out.detail(text),
        Event::Back { .. } | Event::CaughtUp { .. } => out.note(text),
        _ => out.note(format_args!("warning: {text}")),
    }
}

impl Sink {
    /// Delivers, and stores that it is done. `false`: it was stopped before all was done.
    async fn take(
        &mut self,
        deliveries: &[Delivery],
        cursor: &mut FileCursor,
        stop: &mut Stop,
        out: Output,
    ) -> Result<bool> {
        if deliveries.is_empty() {
            return Ok(true);
        }
        match self {
            Sink::Print => {
                line::print(deliveries, out)?;
                store(cursor, deliveries)?;
            }
            Sink::Out(file) => {
                let length = file.append(deliveries)?;
                let mut changes: Vec<_> = deliveries.iter().flat_map(|d| d.changes.clone()).collect();
                changes.push(length);
                cursor.store(&changes)?;
            }
            Sink::Exec(_) | Sink::Webhook(_) => {
                for delivery in deliveries {
                    if stop.said || !self.until_taken(delivery, stop, out).await {
                        return Ok(false);
                    }
                    store(cursor, std::slice::from_ref(delivery))?;
                }
            }
        }
        Ok(true)
    }

    /// Tries until it is taken; `false` if it was stopped before that.
    async fn until_taken(&mut self, delivery: &Delivery, stop: &mut Stop, out: Output) -> bool {
        let mut pause = RETRY;
        loop {
            let tried = match self {
                Sink::Exec(exec) => exec.run(delivery, stop).await,
                Sink::Webhook(webhook) => tokio::select! {
                    answer = webhook.post(delivery) => Some(answer),
                    () = stop.wait() => None,
                },
                Sink::Print | Sink::Out(_) => Some(Ok(())),
            };
            let why = match tried {
                None => return false,
                Some(Ok(())) => return true,
                Some(Err(why)) => why,
            };
            let key = delivery.key();
            let which = format!("{} of actor {}", key.seqnum, key.actor);
            out.note(format_args!("warning: {which} was not taken: {why}; again in {} ms", pause.as_millis()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.wait() => return false,
            }
            pause = (2 * pause).min(RETRY_MAX);
        }
    }
}

fn store(cursor: &mut FileCursor, deliveries: &[Delivery]) -> Result<()> {
    let changes: Vec<_> = deliveries.iter().flat_map(|d| d.changes.clone()).collect();
    cursor.store(&changes)
}
