//! Whether an account has what a payment takes, before it is signed.
//!
//! A signed order that the committee refuses for want of money can be offered again by whoever kept it. So it is better
//! not to sign it.

use florin_core::amount::format_amount;
use florin_core::content::Content;
use florin_core::envelope::Order;
use florin_core::{Code, Error, Result};

use super::Wallet;
use super::records::Record;
use crate::network::Network;

impl Wallet {
    /// Checks that the account has the minor units that an order takes: by the journal if that is sure, else by what `f + 1`
    /// authorities agree on. Returns what was learned, for the journal. Errors: `INSUFFICIENT_FUNDS`, `ISSUER_LIMIT`;
    /// as of [`Wallet::balance`].
    pub(super) async fn check_funds(&self, network: &Network, account: u32, total: i128) -> Result<Vec<Record>> {
        if total <= 0 {
            return Ok(Vec::new());
        }
        let (address, state) = (self.address(account)?, self.account(account));
        let of_network = &self.committee.network;
        // The issuer may go below zero.
        let issuer = address == of_network.issuer_address() && of_network.issuer_limit > 0;
        let below = if issuer { i128::from(of_network.issuer_limit) } else { 0 };
        let pending = self.pending_total(account, state.seqnum)?;
        if state.floor.is_some_and(|floor| floor - pending + below >= total) {
            return Ok(Vec::new());
        }
        let balance = Wallet::balance(network, &address).await?;
        // Those that answered may not have settled all that is final.
        let mut settled = balance.minor;
        for sent in state.sent.iter().rev().take_while(|sent| sent.seqnum > balance.seqnum) {
            settled -= i128::from(Content::decode(&Order::decode(sent.receipt.transaction.clone())?)?.total);
        }
        let has = settled - self.pending_total(account, balance.seqnum)?;
        if has + below < total {
            let amount = |minor| format!("{} {}", format_amount(minor, of_network.decimals), of_network.currency);
            let limit = if issuer { format!(" and may go to -{}", amount(below)) } else { String::new() };
            let message = format!("account {account} has {}{limit}, this takes {}", amount(has), amount(total));
            let code = if issuer { Code::IssuerLimit } else { Code::InsufficientFunds };
            return Err(Error::new(code, format!("{message}; nothing was signed")));
        }
        // What is later than the journal's last order is another copy's, and no floor of this one.
        let ours = balance.seqnum <= state.seqnum;
        Ok(if ours { vec![Record::Balance { account, minor: settled.to_string() }] } else { Vec::new() })
    }

    /// What the orders that are pending beyond a sequence number take.
    fn pending_total(&self, account: u32, settled: u32) -> Result<i128> {
        let pending = self.account(account).pending.iter().filter(|p| p.seqnum > settled);
        pending.map(|p| Ok(i128::from(Content::decode(&p.order()?)?.total))).sum()
    }
}
