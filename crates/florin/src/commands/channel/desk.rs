//! What the commands of channels share: the wallet, its channels, and which of them is meant.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use florin_client::channel::{Channels, Dialed, of_hub, policy};
use florin_core::amount::{format_amount, parse_amount};
use florin_core::channel::hub;
use florin_core::channel::manager::{EndId, EndState, Input, OpId, OpStatus, Reply, Status};
use florin_core::channel::virtuals;
use florin_core::committee::Committee;
use florin_core::limits::PAGE_MAX;
use florin_core::{Code, Error, Result};
use serde_json::{Value, json};

use crate::commands::wallet::{Passphrase, Place, block_on, duration};
use crate::output::Output;

/// Characters of a channel's id that are enough, if they are of one alone.
const ID_CHARS_MIN: usize = 6;

/// Options of every command of channels.
#[derive(clap::Args)]
pub struct DeskArgs {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub passphrase: Passphrase,
}

/// Options of commands that wait for the log.
#[derive(clap::Args)]
pub struct Wait {
    /// Don't wait for the log: the next command, or `florin channel watch`, goes on with it
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for the log, as 500ms, 10s or 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    wait: Duration,
}

/// Which channel.
#[derive(clap::Args)]
pub struct Which {
    /// The channel's id, or its beginning
    channel: String,
    /// Own side, if both are this wallet's: 0 opened it
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..2))]
    side: Option<u32>,
}

/// Options of commands that do one thing in the log with one channel.
#[derive(clap::Args)]
pub struct OneArgs {
    #[command(flatten)]
    pub desk: DeskArgs,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub which: Which,
}

/// A channel, and where somebody is.
#[derive(Clone)]
pub struct There {
    /// Its id, or the beginning.
    pub channel: String,
    /// HOST:PORT.
    pub address: String,
}

/// Reads CHANNEL@HOST:PORT.
pub fn there(text: &str) -> std::result::Result<There, String> {
    let wrong = || format!("expected CHANNEL@HOST:PORT, found {text:?}");
    let (channel, address) = text.split_once('@').ok_or_else(wrong)?;
    Ok(There { channel: channel.to_owned(), address: host_port(address).map_err(|_| wrong())? })
}

/// Reads HOST:PORT.
pub fn host_port(text: &str) -> std::result::Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err(format!("expected HOST:PORT, found {text:?}")),
    }
}

/// The channels of an open wallet.
pub struct Desk {
    pub channels: Channels,
    pub committee: Arc<Committee>,
    pub out: Output,
}

impl DeskArgs {
    /// Opens the wallet and its channels, and runs a command; with `fresh` after a look at all of them in the log.
    pub fn run<T, F: Future<Output = Result<T>>>(
        &self,
        out: Output,
        fresh: bool,
        command: impl FnOnce(Desk) -> F,
    ) -> Result<T> {
        let hubs = hub::Policy { forwards: false, ..hub::Policy::default() };
        self.run_hub(out, fresh, (hubs, virtuals::Policy { forwards: false, ..virtuals::Policy::default() }), command)
    }

    /// As [`DeskArgs::run`], of a wallet that may be a hub.
    pub fn run_hub<T, F: Future<Output = Result<T>>>(
        &self,
        out: Output,
        fresh: bool,
        policies: (hub::Policy, virtuals::Policy),
        command: impl FnOnce(Desk) -> F,
    ) -> Result<T> {
        let committee = self.place.committee()?;
        let wallet = self.place.open(&committee)?;
        let seed = self.passphrase.unlock(wallet.keystore())?;
        block_on(async {
            let network = self.place.network(&committee);
            let (channels, running) = of_hub(wallet, seed, network, policy(), policies)?;
            let desk = Desk { channels, committee, out };
            if fresh {
                desk.channels.refresh().await?;
            }
            let done = command(desk).await;
            // The journal is closed before the command ends.
            running.join()?;
            done
        })
    }
}

impl Desk {
    /// The end that is meant. Errors: `UNKNOWN_CHANNEL`, `USAGE`.
    pub async fn end(&self, which: &Which) -> Result<EndId> {
        self.named(&which.channel, which.side).await
    }

    /// The end that is meant, or the only one that fits. Errors: as [`Desk::end`].
    pub async fn end_or_only(
        &self,
        channel: Option<&str>,
        option: &str,
        fits: impl Fn(&Status) -> bool,
    ) -> Result<EndId> {
        if let Some(channel) = channel {
            return self.named(channel, None).await;
        }
        let mut found = Vec::new();
        for end in self.ends().await? {
            let status = self.status(end).await?;
            if status.state == EndState::Open && fits(&status) {
                found.push(end);
            }
        }
        match found[..] {
            [end] => Ok(end),
            _ => {
                let message = format!("{} channels of this wallet would do: choose one with {option}", found.len());
                Err(Error::new(Code::Usage, message))
            }
        }
    }

    /// The end of a channel that begins so. Errors: as [`Desk::end`].
    pub async fn named(&self, channel: &str, side: Option<u32>) -> Result<EndId> {
        let wanted = channel.to_ascii_lowercase();
        if wanted.len() < ID_CHARS_MIN {
            let expected = format!("at least {ID_CHARS_MIN} hex digits");
            return Err(Error::expected(Code::Usage, "channel", expected, format!("{wanted:?}")));
        }
        let ends = self.ends().await?;
        let found: Vec<EndId> = ends
            .into_iter()
            .filter(|end| hex::encode(end.channel).starts_with(&wanted) && side.is_none_or(|s| s == end.side))
            .collect();
        match found[..] {
            [end] => Ok(end),
            [] => {
                let message = format!("this wallet has no channel {wanted}; `florin channel list` shows those it has");
                Err(Error::new(Code::UnknownChannel, message))
            }
            [a, b, ..] if a.channel == b.channel => {
                Err(Error::new(Code::Usage, "both sides of this channel are this wallet's: choose one with --side"))
            }
            _ => Err(Error::new(Code::Usage, format!("several channels begin with {wanted}: write more of it"))),
        }
    }

    /// All ends, by id. Errors: `IO`.
    pub async fn ends(&self) -> Result<Vec<EndId>> {
        let mut all: Vec<EndId> = Vec::new();
        loop {
            let after = all.last().copied();
            let page = self.channels.read(move |manager| manager.list(None, after.as_ref(), PAGE_MAX)).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// Asks for something that goes on in the background.
    pub async fn op(&self, input: Input) -> Result<OpId> {
        match self.channels.ask(input).await? {
            Reply::Op(op) => Ok(op),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for it, if that is wanted.
    pub async fn done(&self, op: OpId, wait: &Wait) -> Result<OpStatus> {
        match wait.no_wait {
            true => self.channels.read(move |manager| manager.operation(op)).await?,
            false => self.channels.finished(op, wait.wait).await,
        }
    }

    /// Redeems the best voucher of every lane. Errors: as of [`Desk::done`].
    pub async fn submit_all(&self, end: EndId, wait: &Wait) -> Result<Vec<OpId>> {
        let ops = match self.channels.ask(Input::SubmitAll(end)).await? {
            Reply::Ops(ops) => ops,
            other => return Err(unexpected(&other)),
        };
        for op in &ops {
            self.done(*op, wait).await?;
        }
        Ok(ops)
    }

    /// Says this wallet's keys in a channel, if it has not yet: without them it signs nothing there.
    pub async fn say_keys(&self, end: EndId, patience: Duration) -> Result<()> {
        let known = self.channels.read(move |manager| manager.keys_of(&end, end.side).is_ok()).await?;
        if !known {
            let op = self.op(Input::Keys(end)).await?;
            self.channels.finished(op, patience).await?;
        }
        Ok(())
    }

    /// Connects to the other side of a channel. Errors: `UNKNOWN_CHANNEL`, `USAGE`.
    pub async fn dial(&self, there: &There) -> Result<Dialed> {
        let end = self.named(&there.channel, None).await?;
        Ok(self.channels.dial(end, &there.address))
    }

    /// All about one end.
    pub async fn status(&self, end: EndId) -> Result<Status> {
        self.channels.read(move |manager| manager.status(&end)).await?
    }

    /// Minor units as people write them.
    pub fn amount(&self, minor: u64) -> String {
        format!("{} {}", self.plain(minor), self.committee.network.currency)
    }

    /// Without the currency.
    pub fn plain(&self, minor: u64) -> String {
        format_amount(minor.into(), self.committee.network.decimals)
    }

    /// Minor units of what people write. Errors: `BAD_AMOUNT`.
    pub fn parse(&self, text: &str) -> Result<u64> {
        parse(&self.committee, text)
    }

    /// For programs.
    pub fn json(&self, minor: u64) -> Value {
        json!(self.plain(minor))
    }
}

/// Minor units of what people write; 0 is an amount here. Errors: `BAD_AMOUNT`.
pub fn parse(committee: &Committee, text: &str) -> Result<u64> {
    if text == "0" {
        return Ok(0);
    }
    parse_amount(text, committee.network.decimals)
}

/// A reply to something else.
pub fn unexpected(reply: &Reply) -> Error {
    Error::new(Code::Decode, format!("the manager of channels answered {reply:?}"))
}
