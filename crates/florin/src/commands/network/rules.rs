//! What a network asks of its transactions: flags, listeners, prechecks; and how long it remembers.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use florin_client::time::{moment, now_ms};
use florin_core::limits::{PRUNE_AGE_MS, PRUNE_ROWS_MAX};
use florin_core::network_flags::{APPLICATION, HISTORY, NAMES, ORDERED, RAW_NOTIFY, SKIP_SEQ_AND_PREVHASH};
use florin_core::wire::{self, network_command::Kind};
use florin_core::{Code, Error, Result};

use super::{IdArgs, addresses, now, run_command};
use crate::commands::call::Caller;
use crate::commands::wallet::duration;
use crate::output::Output;

/// A flag on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FlagName {
    /// Listeners get the whole transactions
    RawNotify,
    /// What happens is kept to be looked up
    History,
    /// All transactions have one order; stays as it is registered
    Ordered,
    /// Neither sequence numbers nor hashes of the transaction before; stays as it is registered
    SkipSeq,
}

/// A network's flags.
#[derive(clap::Args)]
pub struct Flags {
    /// A flag; may be given several times
    #[arg(long, value_name = "NAME")]
    flag: Vec<FlagName>,
    /// The upper 16 bits of the flags, which are the application's: 0 to 0xffff
    #[arg(long, value_name = "BITS", value_parser = number)]
    app_flags: Option<u32>,
    /// All flags as one number, as PBTX has them
    #[arg(long, value_name = "BITS", value_parser = number, conflicts_with_all = ["flag", "app_flags"])]
    flags: Option<u32>,
}

impl Flags {
    /// All 32 bits; `None` if none were given. Errors: `USAGE`.
    pub fn bits(&self) -> Result<Option<u32>> {
        if self.flags.is_some() {
            return Ok(self.flags);
        }
        if self.flag.is_empty() && self.app_flags.is_none() {
            return Ok(None);
        }
        let named = self.flag.iter().fold(0, |bits, flag| {
            bits | match flag {
                FlagName::RawNotify => RAW_NOTIFY,
                FlagName::History => HISTORY,
                FlagName::Ordered => ORDERED,
                FlagName::SkipSeq => SKIP_SEQ_AND_PREVHASH,
            }
        });
        let app = self.app_flags.unwrap_or(0);
        if app > 0xffff {
            let found = format!("{app:#x}");
            return Err(Error::expected(Code::Usage, "--app-flags", "at most 0xffff: the upper 16 bits", found));
        }
        Ok(Some(named | (app << 16)))
    }
}

fn number(text: &str) -> std::result::Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("expected a number below 2^32, in decimal or as 0x..., found {text:?}"))
}

/// Names of flags that are set, and the application's bits.
pub fn flag_names(flags: u32) -> Vec<String> {
    let mut names: Vec<String> = NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, n)| (*n).into()).collect();
    if flags & APPLICATION != 0 {
        names.push(format!("application {:#06x}", flags >> 16));
    }
    names
}

/// Options of `network update`.
#[derive(clap::Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    id: IdArgs,
    #[command(flatten)]
    flags: Flags,
    /// Takes all flags away but ordered and skip-seq
    #[arg(long, conflicts_with_all = ["flag", "flags", "app_flags"])]
    no_flags: bool,
    /// The listeners' addresses, all of them
    #[arg(long, value_name = "ADDRESS")]
    listener: Vec<String>,
    /// No listeners any more
    #[arg(long, conflicts_with = "listener")]
    no_listeners: bool,
    /// Whether actors register themselves
    #[arg(long, value_name = "true|false")]
    open: Option<bool>,
}

/// `network update`.
pub fn update(args: &UpdateArgs, out: Output) -> Result<()> {
    let caller = Caller::open(&args.id.call, out)?;
    let record = now(&caller, args.id.network_id)?;
    let fixed = record.flags & (ORDERED | SKIP_SEQ_AND_PREVHASH);
    let flags = match (args.no_flags, args.flags.bits()?) {
        (true, _) => fixed,
        (false, Some(bits)) if args.flags.flags.is_none() => bits | fixed,
        (false, Some(bits)) => bits,
        (false, None) => record.flags,
    };
    let listeners = match (args.no_listeners, args.listener.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => record.listeners.clone(),
        (false, false) => addresses(&args.listener, &caller.committee)?,
    };
    let update = wire::NetworkUpdate { flags, listeners, open: args.open.unwrap_or(record.open) };
    if (update.flags, &update.listeners, update.open) == (record.flags, &record.listeners, record.open)
        && args.id.call.id.is_none()
    {
        return Err(Error::new(Code::Usage, "nothing changes: give flags, listeners or --open"));
    }
    run_command(caller, args.id.network_id, Kind::Update(update))
}

/// Subcommands of `network precheck`.
#[derive(Subcommand)]
pub enum PrecheckCommand {
    /// Replace what the account asks of transactions
    Set(PrecheckArgs),
    /// Ask for nothing any more
    Clear(IdArgs),
}

/// Options of `network precheck set`.
#[derive(clap::Args)]
pub struct PrecheckArgs {
    #[command(flatten)]
    id: IdArgs,
    /// Types that are taken, A-B or one; up to 16 times
    #[arg(long = "types", value_name = "A-B", value_parser = range)]
    types: Vec<wire::TypeRange>,
    /// The most bytes of content that are taken
    #[arg(long, value_name = "BYTES")]
    content_max: Option<u32>,
    /// An actor who may act; up to 256 times
    #[arg(long, value_name = "ACTOR")]
    actor: Vec<u64>,
}

fn range(text: &str) -> std::result::Result<wire::TypeRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(wire::TypeRange { first, last }),
        _ => Err(format!("expected A-B, types below 2^32, the first not above the last, found {text:?}")),
    }
}

/// `network precheck`.
pub fn precheck(command: PrecheckCommand, out: Output) -> Result<()> {
    let (id, precheck) = match command {
        PrecheckCommand::Clear(id) => (id, wire::Precheck::default()),
        PrecheckCommand::Set(args) => {
            let mut actors = args.actor;
            actors.sort_unstable();
            actors.dedup();
            let precheck = wire::Precheck { types: args.types, content_max: args.content_max.unwrap_or(0), actors };
            if precheck == wire::Precheck::default() {
                let message = "give --types, --content-max or --actor; `precheck clear` asks for nothing";
                return Err(Error::new(Code::Usage, message));
            }
            (args.id, precheck)
        }
    };
    run_command(Caller::open(&id.call, out)?, id.network_id, Kind::Precheck(precheck))
}

/// Options of `network prune-history`.
#[derive(clap::Args)]
pub struct PruneArgs {
    #[command(flatten)]
    id: IdArgs,
    /// Forget what is older than this moment, as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    before: Option<u64>,
    /// Forget what is older than this, at least 10m
    #[arg(long, value_name = "DURATION", value_parser = duration, required_unless_present = "before", conflicts_with = "before")]
    older_than: Option<Duration>,
    /// The most rows to forget, oldest first: 1 to 4,096
    #[arg(long, value_name = "N", default_value_t = PRUNE_ROWS_MAX)]
    max_rows: u32,
}

/// `network prune-history`.
pub fn prune(args: &PruneArgs, out: Output) -> Result<()> {
    let now = now_ms();
    let ago = |older: Duration| now.saturating_sub(older.as_millis() as u64);
    let before_ms = args.before.or(args.older_than.map(ago)).unwrap_or(0);
    if before_ms > now.saturating_sub(PRUNE_AGE_MS) {
        let expected = format!("at least {} minutes", PRUNE_AGE_MS / 60_000);
        let found = format!("{:.1}", now.saturating_sub(before_ms) as f64 / 60_000.0);
        return Err(Error::expected(Code::Usage, "age of what is forgotten", expected, found));
    }
    let prune = wire::HistoryPrune { before_us: before_ms.saturating_mul(1_000), max_rows: args.max_rows };
    run_command(Caller::open(&args.id.call, out)?, args.id.network_id, Kind::Prune(prune))
}
