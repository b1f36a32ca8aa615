//! `florin committee`: one person makes it all, or operators join their public parts.

pub mod assemble;
pub mod dkg;
pub mod make;

use std::path::PathBuf;

use clap::Subcommand;
use florin_core::Result;
use serde_json::json;

use super::support::new_passphrase;
use crate::output::Output;
use make::{Issuer, MoneyArgs, Plan};

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Make a whole committee on one machine: every key, every file
    ///
    /// Whoever runs this holds all keys for a moment, so it is for trials and for committees of one owner. Independent
    /// operators use `florin authority keygen` and `florin committee assemble` instead.
    New(NewArgs),
    /// Join operators' public parts into a committee file; needs no secret
    ///
    /// First each operator runs `florin authority keygen` and sends NAME.public.toml around.
    ///
    /// Then one of them runs this command, and sends the committee file (and the genesis file) around.
    ///
    /// At last each compares its id with the others (`florin inspect committee`) and runs `florin authority init`, then
    /// `florin authority run`.
    Assemble(assemble::Args),
    /// The keys of e-cash: how far the authorities are in making them
    ///
    /// Running authorities make the keys together, once, by themselves: nobody deals them, and no f of the operators
    /// together know them. Until all have done their part it waits for those that are missing.
    ///
    /// An operator who knows that one will not come in time says so with --authority FILE --go-on; once a quorum of
    /// operators has, it goes on without. Those left out have no shares of the keys until they are shared again,
    /// and notes need shares of n - f authorities: with f left out, all others must answer. After a run that
    /// failed (more than f lied), --go-on of one operator begins the next.
    Dkg(dkg::Args),
}

/// Options of `committee new`.
#[derive(clap::Args)]
pub struct NewArgs {
    /// How many authorities, 4 to 128
    #[arg(long, default_value_t = 4)]
    pub authorities: usize,
    /// Shards that each splits its accounts into, 1 to 1024
    #[arg(long, default_value_t = 1)]
    pub shards: u32,
    /// Host name or IP that clients and authorities connect to
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the first authority's first shard; the others follow. 0 picks free ports of this machine
    #[arg(long, default_value_t = 7100)]
    pub port: u16,
    /// Port of the first authority's /metrics and /health on 127.0.0.1; the others follow. 0 picks free ones
    #[arg(long)]
    pub http_port: Option<u16>,
    /// Folder for the files
    #[arg(long)]
    pub dir: PathBuf,
    /// The issuer: a public key (68 hex digits) or an encoded permission in hex. Without it a new issuer.wallet is made
    #[arg(long)]
    pub issuer: Option<String>,
    /// File whose first line is the passphrase of the new issuer.wallet; else it is asked for
    #[arg(long, conflicts_with = "issuer")]
    pub passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    pub money: MoneyArgs,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    match command {
        Command::New(args) => new(args, out),
        Command::Assemble(args) => assemble::run(args, out),
        Command::Dkg(args) => dkg::run(&args, out),
    }
}

fn new(args: NewArgs, out: Output) -> Result<()> {
    let issuer = match &args.issuer {
        Some(text) => Issuer::Given(make::permission(text)?),
        None => {
            // Before anyone types a passphrase twice for nothing.
            super::support::need_vacant(&make::targets(&args.dir, args.authorities, true))?;
            let wallet = args.dir.join(make::ISSUER_WALLET);
            Issuer::New(new_passphrase(args.passphrase_file.as_deref(), &wallet)?)
        }
    };
    let plan = Plan {
        authorities: args.authorities,
        shards: args.shards,
        host: args.host,
        port: args.port,
        http_port: args.http_port,
        dir: args.dir,
        money: args.money,
    };
    let made = make::committee(&plan, issuer)?;
    let committee = &made.committee;
    let files: Vec<String> = made.files.iter().map(|f| f.display().to_string()).collect();
    let dir = plan.dir.display();
    let mut text = format!(
        "Made a committee of {} authorities (any {} of them may fail), {} shards each.\nid {}\n\n",
        committee.size(),
        committee.faults(),
        committee.shards,
        hex::encode(committee.id()),
    );
    files.iter().for_each(|file| text += &format!("  {file}\n"));
    text += &format!("\nNext: run each authority\n  florin authority run --config {dir}/authority-1.toml\n");
    text += &format!("and give {dir}/committee.toml to whoever wants to pay. The .key and authority files are secret.");
    if made.issuer_wallet {
        text += &format!("\nThe money comes from {dir}/issuer.wallet: back up its seed words.");
    }
    let value = json!({"committee_id": hex::encode(committee.id()), "network_id": committee.network.id.to_string(),
        "issuer_address": committee.network.issuer_address().to_text(&committee.network.currency), "files": files});
    out.data(text, &value);
    Ok(())
}
