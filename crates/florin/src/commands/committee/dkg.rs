//! `florin committee dkg`: how far the keys of e-cash are, and the operator's word to wait no longer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use florin_client::network::Network;
use florin_core::cash::dkg::{Phase, PublicKeys};
use florin_core::cash::mint_keys::MintKeys;
use florin_core::committee::Committee;
use florin_core::wire::{CashGoOnRequest, CashKeysReply};
use florin_core::{Code, Error, Result};
use florin_node::config::Config;
use florin_rpc::client::{Limits, connect_lazy};
use florin_rpc::errors::from_status;
use florin_rpc::services::peer_service_client::PeerServiceClient;
use serde_json::{Value, json};

use crate::commands::support::{fields, table};
use crate::commands::wallet::{Question, block_on, duration};
use crate::output::Output;

/// How often the authorities are asked while waiting.
const PAUSE: Duration = Duration::from_millis(200);

/// Options.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    question: Question,
    /// The authority file, of the operator who goes on
    #[arg(long, value_name = "FILE", requires = "go_on")]
    authority: Option<PathBuf>,
    /// Wait no longer for those that are missing; counts once a quorum of operators says so
    #[arg(long, requires = "authority")]
    go_on: bool,
    /// Show progress until the keys are in use or the run has failed, at most this long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "10m", value_parser = duration)]
    wait: Option<Duration>,
}

/// Runs it.
pub fn run(args: &Args, out: Output) -> Result<()> {
    let committee = args.question.committee()?;
    let config = args.authority.as_deref().map(Config::read).transpose()?;
    if let Some(config) = &config
        && config.committee.id() != committee.id()
    {
        let (expected, found) = (hex::encode(committee.id()), hex::encode(config.committee.id()));
        return Err(Error::expected(Code::WrongCommittee, "committee of the authority file", expected, found));
    }
    block_on(async {
        let network = args.question.network(&committee);
        if let Some(config) = config {
            go_on(&config).await?;
            out.note(format_args!("{} waits no longer for those that are missing", config.name()));
        }
        let state = match args.wait {
            Some(limit) => wait(&network, Instant::now() + limit, |line| out.note(line)).await?,
            None => agreed(&network, Instant::now() + args.question.timeout()).await?,
        };
        out.data(state.text(&committee), &state.value(&committee));
        Ok(())
    })
}

/// Tells the own authority, as itself.
async fn go_on(config: &Config) -> Result<()> {
    let own = &config.committee.authorities[config.index as usize];
    let channel = connect_lazy(&own.addresses[0], *own.key.as_bytes(), Some(&config.seed), Limits::default());
    PeerServiceClient::new(channel).cash_go_on(CashGoOnRequest {}).await.map(drop).map_err(from_status)
}

/// What `f + 1` authorities say.
pub struct State {
    reply: CashKeysReply,
    /// How many say so.
    agreeing: usize,
    keys: Option<PublicKeys>,
    /// By authority: whether it holds shares, or why it does not answer.
    holds: Vec<Result<bool>>,
}

/// Asks until `f + 1` say the same. Errors: `QUORUM_UNREACHABLE`, `UNDECIDED`, `BAD_KEY` if what they say are no keys.
async fn agreed(network: &Network, deadline: Instant) -> Result<State> {
    loop {
        match ask(network).await {
            Err(e) if matches!(e.code, Code::Undecided | Code::QuorumUnreachable) && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn ask(network: &Network) -> Result<State> {
    let replies = network.cash_keys_status().await;
    let needed = network.committee().validity();
    let answers = replies.iter().flatten().count();
    if answers < needed {
        let why = replies.into_iter().find_map(Result::err).map(|e| e.to_string()).unwrap_or_default();
        let message = format!("expected answers of {needed} authorities, found {answers} ({why})");
        return Err(Error::new(Code::QuorumUnreachable, message));
    }
    let holds = replies.iter().map(|r| r.as_ref().map(|r| r.holds_share).map_err(Clone::clone)).collect();
    let said: Vec<CashKeysReply> =
        replies.into_iter().flatten().map(|r| CashKeysReply { holds_share: false, ..r }).collect();
    let count = |reply: &CashKeysReply| said.iter().filter(|r| *r == reply).count();
    // Of what enough say, the newest.
    let newest = said.iter().filter(|r| count(r) >= needed).max_by_key(|r| (r.run, r.phase));
    let Some(reply) = newest.cloned() else {
        let message = format!("no {needed} authorities say the same of the keys of e-cash");
        return Err(Error::new(Code::Undecided, message));
    };
    let keys = match reply.keys.is_empty() {
        true => None,
        false => Some(MintKeys::new(PublicKeys::decode(&reply.keys)?, None)?.public().as_ref().clone()),
    };
    Ok(State { agreeing: count(&reply), reply, keys, holds })
}

/// Waits until the keys are in use, and says each time that it gets on. Errors: `CASH_NOT_READY` if the run has failed, or at the deadline.
pub async fn wait(network: &Network, deadline: Instant, progress: impl Fn(&str)) -> Result<State> {
    let committee = network.committee().clone();
    let mut shown = String::new();
    loop {
        let now = ask(network).await;
        let line = match &now {
            Ok(state) => state.line(&committee),
            Err(e) => e.to_string(),
        };
        match now {
            Ok(state) if state.keys.is_some() => return Ok(state),
            Ok(state) if state.reply.phase == Phase::Failed as u32 => {
                return Err(Error::new(Code::CashNotReady, line));
            }
            Err(e) if !matches!(e.code, Code::Undecided | Code::QuorumUnreachable) => return Err(e),
            _ if Instant::now() > deadline => return Err(Error::new(Code::CashNotReady, line)),
            _ => {}
        }
        if line != shown {
            progress(&line);
            shown = line;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn name(committee: &Committee, index: u32) -> String {
    committee.authorities.get(index as usize).map_or_else(|| index.to_string(), |a| a.name.clone())
}

fn names(committee: &Committee, indices: impl IntoIterator<Item = u32>) -> Vec<String> {
    indices.into_iter().map(|index| name(committee, index)).collect()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "-".into() } else { names.join(", ") }
}

impl State {
    fn phase(&self) -> &'static str {
        match self.reply.phase {
            _ if self.reply.run == 0 => "not begun",
            0 => "announcing",
            1 => "dealing",
            2 => "judging",
            3 => "confirming",
            4 => "active",
            _ => "failed",
        }
    }

    fn line(&self, committee: &Committee) -> String {
        let CashKeysReply { run, missing, caught, .. } = &self.reply;
        let mut line = format!("keys of e-cash: run {run} is {}", self.phase());
        for (what, who) in [("waits for", missing), ("has caught", caught)] {
            if !who.is_empty() {
                line += &format!(", {what} {}", listed(&names(committee, who.iter().copied())));
            }
        }
        line
    }

    fn fingerprint(&self) -> Option<String> {
        self.keys.as_ref().map(|keys| hex::encode(keys.hash()))
    }

    /// The keys in a few words.
    pub fn summary(&self) -> String {
        let Some(keys) = &self.keys else { return self.phase().into() };
        let holders = keys.tiers.first().map_or(0, |tier| tier.shares.len());
        let fingerprint: String = self.fingerprint().unwrap_or_default().chars().take(16).collect();
        format!("{} tiers, any {} of {holders} sign, fingerprint {fingerprint}", keys.tiers.len(), keys.threshold)
    }

    fn holders(&self, committee: &Committee) -> Vec<String> {
        let holds = (0..).zip(&self.holds).filter(|(_, holds)| matches!(holds, Ok(true)));
        names(committee, holds.map(|(index, _)| index))
    }

    fn text(&self, committee: &Committee) -> String {
        let active = self.reply.phase == Phase::Active as u32;
        let of = |indices: &[u32]| listed(&names(committee, indices.iter().copied()));
        let rows = [
            ("run", self.reply.run.to_string()),
            ("phase", self.phase().to_owned()),
            (if active { "not confirmed by" } else { "waits for" }, of(&self.reply.missing)),
            ("caught", of(&self.reply.caught)),
            (
                "tiers",
                format!("{}, notes of 2^0 to 2^{} minor units", self.reply.tiers, self.reply.tiers.saturating_sub(1)),
            ),
            ("keys", self.summary()),
            ("said by", format!("{} of {} authorities", self.agreeing, committee.size())),
        ];
        let mut shares = vec![["authority", "shares"].map(str::to_owned).to_vec()];
        for (index, holds) in (0..).zip(&self.holds) {
            let holds = match holds {
                Ok(true) => "yes".into(),
                Ok(false) => "no".into(),
                Err(e) => e.to_string(),
            };
            shares.push(vec![name(committee, index), holds]);
        }
        format!("{}\n\n{}", fields(&rows), table(&shares))
    }

    fn value(&self, committee: &Committee) -> Value {
        let of = |indices: &[u32]| names(committee, indices.iter().copied());
        json!({"run": self.reply.run, "phase": self.phase(), "waits_for": of(&self.reply.missing),
            "caught": of(&self.reply.caught), "tiers": self.reply.tiers, "fingerprint": self.fingerprint(),
            "threshold": self.keys.as_ref().map(|keys| keys.threshold), "holders": self.holders(committee),
            "agreeing": self.agreeing})
    }
}
