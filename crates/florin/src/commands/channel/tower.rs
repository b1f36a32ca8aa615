//! `florin channel delegate` and `tower`: somebody else watches.

use std::path::PathBuf;

use florin_client::channel::Ledger;
use florin_client::channel::tower::{self, Seen};
use florin_core::address::Address;
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::desk::{DeskArgs, Which};
use crate::commands::support::fields;
use crate::commands::wallet::block_on;
use crate::output::Output;

/// Options of `channel delegate`.
#[derive(clap::Args)]
pub struct DelegateArgs {
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    which: Which,
    /// Address of the account that is to watch
    #[arg(long, value_name = "ADDRESS")]
    to: String,
    /// Where to write it; an older one is replaced, whole or not at all
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// `channel delegate`.
pub fn delegate(args: DelegateArgs, out: Output) -> Result<()> {
    args.desk.run(out, false, async |desk| {
        let end = desk.end(&args.which).await?;
        let watcher = Address::from_text(&args.to, &desk.committee.network.currency)?;
        let watched = desk.channels.watched(end, watcher).await?;
        tower::write(&args.out, &watched)?;
        let (vouchers, claims) = (watched.redemptions.len(), watched.claims.len());
        let mut rows = vec![("file", args.out.display().to_string()), ("vouchers", vouchers.to_string())];
        if claims > 0 {
            rows.push(("virtual channels", claims.to_string()));
        }
        out.data(fields(&rows), &json!({"file": args.out, "vouchers": vouchers, "virtual_channels": claims}));
        Ok(())
    })
}

/// Options of `channel tower`.
#[derive(clap::Args)]
pub struct TowerArgs {
    #[command(flatten)]
    desk: DeskArgs,
    /// Account of this wallet that watches: the one that the files name
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// Files of `florin channel delegate`; read again when they change
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// `channel tower`.
pub fn tower(args: TowerArgs, out: Output) -> Result<()> {
    let committee = args.desk.place.committee()?;
    let wallet = args.desk.place.open(&committee)?;
    let account = wallet.address(args.account)?;
    let seed = args.desk.passphrase.unlock(wallet.keystore())?;
    block_on(async {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(|e| Error::new(Code::Io, format!("cannot wait for signals: {e}")))?;
        let ledger = Ledger::new(args.desk.place.network(&committee), wallet, seed, "tower")?;
        out.data("ready to redeem; Ctrl-C ends it", &json!({"event": "ready"}));
        tokio::select! {
            () = tower::run(&ledger, account, &args.files, |seen| say(&seen, out)) => {}
            _ = tokio::signal::ctrl_c() => {}
            _ = term.recv() => {}
        }
        Ok(())
    })
}

fn say(seen: &Seen, out: Output) -> bool {
    let (end, what) = match seen {
        Seen::Watches(end) => (end, "is watched".to_owned()),
        Seen::Redeemed { end, vouchers, claims: 0 } => (end, format!("{vouchers} vouchers are redeemed")),
        Seen::Redeemed { end, vouchers: 0, claims } => (end, format!("{claims} virtual channels are claimed")),
        Seen::Redeemed { end, vouchers, claims } => {
            (end, format!("{vouchers} vouchers are redeemed, {claims} virtual channels are claimed"))
        }
        Seen::Refused { end, error } => (end, format!("not redeemed, tried again: {error}")),
        Seen::BadFile(error) => {
            out.error(error);
            return true;
        }
    };
    let value = json!({"channel": hex::encode(end.channel), "side": end.side, "event": what});
    out.data(format!("{} {what}", hex::encode(&end.channel[..4])), &value);
    true
}
