//! `florin wallet distil`: a BLS key for an account, which signs roots of batches.

use florin_client::wallet::{Rekey, Request};
use florin_core::Result;
use serde_json::json;

use super::payer::{Way, make};
use super::place::{Passphrase, Place, block_on};
use crate::output::Output;

/// Options of `wallet distil`.
#[derive(clap::Args)]
pub struct DistilArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    passphrase: Passphrase,
    #[command(flatten)]
    way: Way,
    /// Which account
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// Take the BLS key away again
    #[arg(long)]
    off: bool,
}

/// `wallet distil`.
pub fn distil(args: DistilArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let mut wallet = args.place.open(&committee)?;
    let (account, bls) = (args.account, !args.off);
    wallet.address(account)?;
    let request = Request::Keys(Rekey { account, bls });
    let says = if bls { "has a BLS key, and signs roots of batches" } else { "has no BLS key" };
    let mut value = json!({"account": account, "bls": bls});
    let is_so = block_on(async {
        if !wallet.account(account).known {
            wallet.catch_up(&args.place.network(&committee), account).await?;
        }
        let state = wallet.account(account);
        Ok(state.distils == bls && state.pending.is_empty())
    })?;
    if is_so {
        out.data(format_args!("account {account} {says} already"), &value);
        return Ok(());
    }
    let seed = args.passphrase.unlock(wallet.keystore())?;
    let made = block_on(async { make(&args.place, &args.way, wallet, &seed, &request, Ok(()), out).await });
    let (_, outcome) = made?;
    outcome.result.as_ref().map_err(Clone::clone)?;
    (value["seqnum"], value["order_id"]) = (outcome.seqnum.into(), hex::encode(outcome.order.id).into());
    out.data(format_args!("account {account} {says}; order {}", hex::encode(outcome.order.id)), &value);
    Ok(())
}
