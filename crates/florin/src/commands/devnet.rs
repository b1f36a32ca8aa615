//! `florin devnet`: a whole committee on this machine, each authority a process of its own, as in production.

mod process;
mod setup;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Subcommand;
use florin_client::network::{Network, Patience};
use florin_core::{Code, Error, Result};
use florin_node::config::read_committee;
use serde_json::json;

use super::committee::dkg;
use super::committee::make::COMMITTEE;
use super::support::table;
use crate::output::Output;
use process::Member;

/// How long the authorities may take to be ready.
const START: Duration = Duration::from_secs(30);
/// How long they may take to stop before they are killed.
const STOP: Duration = Duration::from_secs(15);

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Make it if it isn't there, and start what isn't running
    Up(UpArgs),
    /// Stop it; its data stays
    Down(Where),
    /// What each authority does
    Status(Where),
}

/// Which one.
#[derive(clap::Args)]
pub struct Where {
    /// Its folder
    #[arg(long, default_value = "florin-devnet")]
    dir: PathBuf,
}

/// Options of `devnet up`. All but --dir count only when it is made.
#[derive(clap::Args)]
pub struct UpArgs {
    #[command(flatten)]
    at: Where,
    /// How many authorities, 4 to 128
    #[arg(long, default_value_t = 4)]
    authorities: usize,
    /// Shards that each splits its accounts into
    #[arg(long, default_value_t = 2)]
    shards: u32,
    /// Port of the first shard of the first authority; the others follow. 0 picks free ones
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Currency code
    #[arg(long, default_value = "flr")]
    currency: String,
    /// Digits after the point
    #[arg(long, default_value_t = 2)]
    decimals: u8,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::Up(args) => up(&args, out),
        Command::Down(at) => down(&at.dir, out),
        Command::Status(at) => status(&at.dir, out),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|e| Error::new(Code::Io, format!("cannot start a runtime: {e}")))
}

fn up(args: &UpArgs, out: Output) -> Result<()> {
    let dir = &args.at.dir;
    let started = Instant::now();
    let is_new = !dir.join(COMMITTEE).exists();
    if is_new {
        out.detail(format_args!("making a committee in {}", dir.display()));
        setup::make(args, dir)?;
    }
    let committee = read_committee(&dir.join(COMMITTEE))?;
    let mut members = process::read(dir)?;
    members.retain(|m| (1..=committee.size()).contains(&m.authority) && m.is_running());
    for number in 1..=committee.size() {
        if members.iter().all(|m| m.authority != number) {
            members.push(process::start(dir, number)?);
            // After each, so that `down` knows all that run if this process dies here.
            process::write(dir, &members)?;
        }
    }
    members.sort_by_key(|m| m.authority);
    process::write(dir, &members)?;
    let funded = setup::funded(dir, &committee)?;
    runtime()?.block_on(watch::until_ready(dir, &committee, &members, &funded, Instant::now() + START))?;
    let keys = runtime()?.block_on(async {
        let network = Network::new(Arc::new(committee.clone()), Patience::default());
        dkg::wait(&network, Instant::now() + START, |line| out.detail(line)).await
    });
    let keys = match keys {
        Ok(keys) => format!("\n\nThe keys of e-cash are made: {}.", keys.summary()),
        Err(e) => format!("\n\nThe keys of e-cash are not made yet, {e}. See florin committee dkg --wait"),
    };
    let took = started.elapsed().as_secs_f64();
    let pids: Vec<u32> = members.iter().map(|m| m.pid).collect();
    let d = dir.display();
    let text = format!(
        "{} authorities of {} shards run in {d} ({took:.1} s). alice.wallet and bob.wallet have 1,000 each; the \
         passphrase is in {d}/passphrase.{keys}\n\nTry:\n  \
         export FLORIN_COMMITTEE={d}/committee.toml FLORIN_PASSPHRASE_FILE={d}/passphrase\n  \
         florin wallet pay --wallet {d}/alice.wallet {} 12.50\n  \
         florin wallet balance --wallet {d}/bob.wallet\n  \
         florin devnet status --dir {d}\n  florin devnet down --dir {d}",
        committee.size(),
        committee.shards,
        funded.get(1).map_or_else(|| "ADDRESS".to_owned(), |(address, _)| address.to_text(&committee.network.currency)),
    );
    let addresses: Vec<String> = funded.iter().map(|(a, _)| a.to_text(&committee.network.currency)).collect();
    let value = json!({"dir": dir, "made": is_new, "committee": dir.join(COMMITTEE), "pids": pids,
        "funded": addresses, "passphrase_file": dir.join(setup::PASSPHRASE), "seconds": took});
    out.data(text, &value);
    Ok(())
}

fn down(dir: &Path, out: Output) -> Result<()> {
    let members = known(dir)?;
    let running: Vec<&Member> = members.iter().filter(|m| m.is_running()).collect();
    running.iter().for_each(|m| m.stop());
    let deadline = Instant::now() + STOP;
    let mut killed = Vec::new();
    for member in &running {
        while member.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if member.is_running() {
            out.note(format_args!("authority {} did not stop in {} s; killed", member.authority, STOP.as_secs()));
            member.kill();
            killed.push(member.authority);
        }
    }
    process::forget(dir)?;
    let text = match running.len() {
        0 => "nothing was running".to_owned(),
        n => format!("stopped {n} authorities; their data is still in {}", dir.display()),
    };
    out.data(text, &json!({"stopped": running.iter().map(|m| m.authority).collect::<Vec<_>>(), "killed": killed}));
    Ok(())
}

fn status(dir: &Path, out: Output) -> Result<()> {
    let members = known(dir)?;
    let committee = read_committee(&dir.join(COMMITTEE))?;
    let answers = runtime()?.block_on(watch::info(&committee));
    let head = ["authority", "process", "shard", "settled", "waiting", "outbox", "lag", "fault"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut values = Vec::new();
    for (i, answer) in answers.into_iter().enumerate() {
        let info = &committee.authorities[i];
        let running = members.iter().find(|m| m.authority == i + 1 && m.is_running());
        let process = running.map_or_else(|| "not running".to_owned(), |m| format!("pid {}", m.pid));
        let mut shards = Vec::new();
        match &answer {
            Ok(status) => {
                for s in status {
                    // What can't be followed has no lag that anyone knows.
                    let lag = s.lag.iter().filter(|lag| **lag != u64::MAX).max().copied().unwrap_or(0);
                    let numbers = [u64::from(s.shard), s.orders_settled, s.waiting, s.outbox, lag];
                    let cells = numbers.iter().map(u64::to_string);
                    let fault = if s.fault.is_empty() { "-".to_owned() } else { s.fault.clone() };
                    let row = [info.name.clone(), process.clone()].into_iter().chain(cells).chain([fault]);
                    rows.push(row.collect());
                    shards.push(json!({"shard": s.shard, "orders_settled": s.orders_settled, "waiting": s.waiting,
                        "outbox": s.outbox, "lag": s.lag, "fault": s.fault}));
                }
            }
            Err(e) => {
                let dash = || "-".to_owned();
                rows.push(vec![info.name.clone(), process, dash(), dash(), dash(), dash(), dash(), e.to_string()]);
            }
        }
        values.push(json!({"name": info.name, "pid": running.map(|m| m.pid), "shards": shards,
            "error": answer.err().map(|e| e.to_string())}));
    }
    out.data(table(&rows), &json!({"authorities": values}));
    Ok(())
}

/// The processes of a devnet that was made. Errors: `BAD_FILE` if there is none.
fn known(dir: &Path) -> Result<Vec<Member>> {
    if !dir.join(COMMITTEE).exists() {
        return Err(Error::new(
            Code::BadFile,
            format!("there is no devnet in {}: run florin devnet up", dir.display()),
        ));
    }
    process::read(dir)
}

/// The configuration of an authority of the devnet, by its number from 1.
fn config_file(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("authority-{number}.toml"))
}
