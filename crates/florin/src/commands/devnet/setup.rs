//! Makes a devnet's files: a committee, and wallets with money from the genesis file.

use std::path::Path;

use florin_core::Result;
use florin_core::address::Address;
use florin_core::committee::Committee;
use florin_core::permission::Permission;
use florin_node::genesis;

use super::UpArgs;
use crate::commands::committee::make::{self, GENESIS, ISSUER_WALLET, Issuer, MoneyArgs, Plan};
use crate::commands::support::{PRIVATE, PUBLIC, make_folder, need_vacant, write_new};

/// Name of the file with the wallets' passphrase.
pub const PASSPHRASE: &str = "passphrase";
/// Passphrase of the wallets: no secret, as their money is none.
const WALLETS: &str = "devnet";
/// What each wallet has, in units.
const FUNDS: &str = "1000";
/// Whose wallets there are.
const OWNERS: [&str; 2] = ["alice", "bob"];

/// Makes it, or leaves nothing behind in a folder that wasn't there before. Errors: `ALREADY_EXISTS` if parts of it are there, those of making committees and wallets.
pub fn make(args: &UpArgs, dir: &Path) -> Result<()> {
    let was_there = dir.exists();
    let made = make_files(args, dir);
    if made.is_err() && !was_there {
        // The error that counts is the first.
        let _ = std::fs::remove_dir_all(dir);
    }
    made
}

fn make_files(args: &UpArgs, dir: &Path) -> Result<()> {
    let mut money = MoneyArgs {
        currency: args.currency.clone(),
        decimals: args.decimals,
        network_id: None,
        issuer_limit: None,
        genesis: None,
    };
    let network_id = money.id()?;
    money.network_id = Some(network_id);
    make_folder(dir)?;
    let wallets = OWNERS.map(|owner| dir.join(format!("{owner}.wallet")));
    let passphrase = dir.join(PASSPHRASE);
    need_vacant(wallets.iter().chain([&passphrase]))?;
    need_vacant(&make::targets(dir, args.authorities, true))?;
    write_new(&passphrase, format!("{WALLETS}\n").as_bytes(), PRIVATE)?;
    let mut lines = String::from("# address amount\n");
    for wallet in &wallets {
        let keystore = make::wallet(wallet, WALLETS, network_id, &money)?;
        lines += &format!("{} {FUNDS}\n", keystore.address(0)?.to_text(&money.currency));
    }
    let issuer = make::wallet(&dir.join(ISSUER_WALLET), WALLETS, network_id, &money)?;
    let issuer = Issuer::Given(Permission::single(issuer.public_keys()[0]));
    // The committee's maker copies it to its final name, so it comes from a passing one.
    let draft = dir.join("genesis.new");
    write_new(&draft, lines.as_bytes(), PUBLIC)?;
    money.genesis = Some(draft.clone());
    let plan = Plan {
        authorities: args.authorities,
        shards: args.shards,
        host: "127.0.0.1".into(),
        port: args.port,
        http_port: Some(0),
        dir: dir.to_owned(),
        money,
    };
    let made = make::committee(&plan, issuer);
    let _ = std::fs::remove_file(draft);
    made.map(drop)
}

/// Who has money from the genesis file: address and minor units.
pub fn funded(dir: &Path, committee: &Committee) -> Result<Vec<(Address, u64)>> {
    let path = dir.join(GENESIS);
    if !path.exists() {
        return Ok(Vec::new());
    }
    genesis::lines(&path, &committee.network)?.take(OWNERS.len()).collect()
}
