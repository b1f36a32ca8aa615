//! `florin wallet address`, `accounts`, `label`, `balance`.

use std::sync::Arc;

use florin_client::keystore::{ACCOUNTS_MAX, Keystore};
use florin_client::network::Network;
use florin_client::wallet::{Balance, Wallet};
use florin_core::address::Address;
use florin_core::amount::format_amount;
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::place::{Passphrase, Place, WalletFile, block_on};
use crate::commands::support::table;
use crate::output::Output;

/// Accounts whose balances are asked for at a time.
const AT_A_TIME: usize = 16;

/// Options of `wallet address`.
#[derive(clap::Args)]
pub struct AddressArgs {
    #[command(flatten)]
    wallet: WalletFile,
    /// Which account
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// Show it as a QR code too
    #[arg(long)]
    qr: bool,
}

/// Options of `wallet accounts`.
#[derive(clap::Args)]
pub struct AccountsArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    passphrase: Passphrase,
    /// Ask the committee for the balances too
    #[arg(long)]
    balances: bool,
    /// Add this many accounts first; needs the passphrase
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    add: u32,
}

/// Options of `wallet label`.
#[derive(clap::Args)]
pub struct LabelArgs {
    #[command(flatten)]
    wallet: WalletFile,
    /// Which account
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// The name, at most 64 characters; an empty one removes it
    text: String,
}

/// Options of `wallet balance`.
#[derive(clap::Args)]
pub struct BalanceArgs {
    #[command(flatten)]
    place: Place,
    /// Which account
    #[arg(long, default_value_t = 0)]
    account: u32,
    /// Every account, and the sum
    #[arg(long, conflicts_with = "account")]
    all: bool,
}

/// `wallet address`.
pub fn address(args: AddressArgs, out: Output) -> Result<()> {
    let keystore = Keystore::open(&args.wallet.wallet)?;
    let address = keystore.address(args.account)?.to_text(&keystore.meta().currency);
    let mut text = address.clone();
    if args.qr {
        text = format!("{}\n{text}", qr(&address)?);
    }
    out.data(text, &json!({"account": args.account, "address": address}));
    Ok(())
}

/// A QR code of half blocks, light on dark as terminals are. Upper case takes fewer modules, and an address may be
/// read in either case. Errors: `IO` for more than fits into one.
pub fn qr(text: &str) -> Result<String> {
    let code = QrCode::with_error_correction_level(text.to_ascii_uppercase(), EcLevel::M)
        .map_err(|e| Error::new(Code::Io, format!("QR code: {e}")))?;
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

/// `wallet accounts`.
pub fn accounts(args: AccountsArgs, out: Output) -> Result<()> {
    if args.add > 0 {
        let mut keystore = args.place.keystore()?;
        let before = keystore.accounts();
        let seed = args.passphrase.unlock(&keystore)?;
        keystore.set_accounts(before.saturating_add(args.add).min(ACCOUNTS_MAX + 1), &seed)?;
    }
    let balances = if args.balances {
        let committee = args.place.committee()?;
        let wallet = args.place.open(&committee)?;
        let addresses = (0..wallet.keystore().accounts()).map(|a| wallet.address(a)).collect::<Result<_>>()?;
        Some(block_on(async { balances(&args.place.network(&committee), addresses).await })?)
    } else {
        None
    };
    let keystore = args.place.keystore()?;
    let meta = keystore.meta();
    let mut rows = vec![vec!["account".into(), "address".into(), "label".into()]];
    let mut values = Vec::new();
    for account in 0..keystore.accounts() {
        let address = keystore.address(account)?.to_text(&meta.currency);
        let label = keystore.labels().get(&account).cloned().unwrap_or_default();
        let mut value = json!({"account": account, "address": address, "label": label});
        let mut row = vec![account.to_string(), address, label];
        if let Some(balances) = &balances {
            let minor = balances[account as usize].minor;
            let amount = format_amount(minor, meta.decimals);
            value["balance"] = amount.clone().into();
            value["balance_minor"] = minor.to_string().into();
            row.insert(2, amount);
        }
        rows.push(row);
        values.push(value);
    }
    if balances.is_some() {
        rows[0].insert(2, meta.currency.clone());
    }
    out.data(table(&rows), &json!({"accounts": values}));
    Ok(())
}

/// `wallet label`.
pub fn label(args: LabelArgs, out: Output) -> Result<()> {
    let mut keystore = Keystore::open(&args.wallet.wallet)?;
    keystore.set_label(args.account, &args.text)?;
    out.data(
        format_args!("account {}: {}", args.account, args.text),
        &json!({"account": args.account, "label": args.text}),
    );
    Ok(())
}

/// `wallet balance`.
pub fn balance(args: BalanceArgs, out: Output) -> Result<()> {
    let committee = args.place.committee()?;
    let wallet = args.place.open(&committee)?;
    let accounts =
        if args.all { 0..wallet.keystore().accounts() } else { args.account..args.account.saturating_add(1) };
    let addresses = accounts.clone().map(|a| wallet.address(a)).collect::<Result<Vec<_>>>()?;
    let found = block_on(async { balances(&args.place.network(&committee), addresses.clone()).await })?;
    let mut values = Vec::new();
    let mut rows = Vec::new();
    for ((account, address), balance) in accounts.zip(&addresses).zip(&found) {
        let pending = wallet.account(account).pending.len();
        if pending > 0 {
            out.note(format_args!(
                "account {account}: {pending} of its payments are not final: `florin wallet resume`"
            ));
        }
        rows.push(vec![account.to_string(), shown(balance, &committee)]);
        values.push(value(account, address, balance, pending, &committee));
    }
    say_who_differs(&found, &committee, out);
    if !args.all {
        out.data(shown(&found[0], &committee), &values.remove(0));
        return Ok(());
    }
    let total: i128 = found.iter().map(|b| b.minor).sum();
    let amount = format_amount(total, committee.network.decimals);
    rows.push(vec!["all".into(), format!("{amount} {}", committee.network.currency)]);
    let value = json!({"accounts": values, "total": amount, "total_minor": total.to_string(),
        "currency": committee.network.currency});
    out.data(table(&rows), &value);
    Ok(())
}

fn shown(balance: &Balance, committee: &Committee) -> String {
    let amount = format_amount(balance.minor, committee.network.decimals);
    let (agreeing, size) = (balance.agreeing, committee.size());
    format!("{amount} {}  ({agreeing} of {size} authorities agree)", committee.network.currency)
}

fn value(account: u32, address: &Address, balance: &Balance, pending: usize, committee: &Committee) -> Value {
    let network = &committee.network;
    let others: Vec<Value> =
        balance.others.iter().map(|(name, says)| json!({"authority": name, "says": says})).collect();
    json!({"account": account, "address": address.to_text(&network.currency),
        "balance": format_amount(balance.minor, network.decimals), "balance_minor": balance.minor.to_string(),
        "currency": network.currency, "agreeing": balance.agreeing, "authorities": committee.size(),
        "others": others, "pending": pending})
}

/// Says it once for each authority, however many accounts were asked for.
fn say_who_differs(found: &[Balance], committee: &Committee, out: Output) {
    for authority in &committee.authorities {
        let says = found.iter().flat_map(|b| &b.others).find(|(name, _)| *name == authority.name);
        if let Some((name, says)) = says {
            out.note(format_args!("{name} does not agree: {says}"));
        }
    }
}

/// Balances of many addresses, in their order.
async fn balances(network: &Network, addresses: Vec<Address>) -> Result<Vec<Balance>> {
    let network = Arc::new(network.clone());
    let mut running = JoinSet::new();
    let mut found: Vec<Option<Balance>> = addresses.iter().map(|_| None).collect();
    let mut waiting = addresses.into_iter().enumerate();
    loop {
        while running.len() < AT_A_TIME {
            let Some((i, address)) = waiting.next() else { break };
            let network = network.clone();
            running.spawn(async move { (i, Wallet::balance(&network, &address).await) });
        }
        match running.join_next().await {
            Some(Ok((i, balance))) => found[i] = Some(balance?),
            Some(Err(e)) => return Err(Error::new(Code::Io, format!("asking for a balance: {e}"))),
            None => return Ok(found.into_iter().flatten().collect()),
        }
    }
}
