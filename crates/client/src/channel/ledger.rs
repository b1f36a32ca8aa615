//! Channels on Florin's own ledger: messages are CALLs of a wallet's accounts.
//!
//! The wallet's journal is what keeps a signed order. Each message has an id there (the journal of channels, and the
//! message's number), so it is signed once, whatever crashes; and an order that can never settle is signed anew under the
//! same id only where the old one is excluded. A message is over only when its order can never settle or the log has decided
//! about it: what is sent for one may take another along that is signed and waits, which is the same order that it will be told of.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::channel::hub::introduction;
use florin_core::channel::manager::{Message, OpId, Outcome, Signer};
use florin_core::channel::virtuals::VirtualSigner;
use florin_core::channel::voucher::{Voucher, sign_virtual, sign_watch, sign_withdraw};
use florin_core::content::{Action, Content};
use florin_core::envelope::Order;
use florin_core::keys::SecretKey;
use florin_core::merkle::Hash;
use florin_core::{Code, Error, Result, wire};
use tokio::sync::Mutex;

use super::chain::{Answer, Chain, Signed};
use crate::network::Network;
use crate::seed::Seed;
use crate::wallet::{Operation, Request, Wallet};

/// How long one try waits for the log.
const PATIENCE: Duration = Duration::from_secs(30);

/// Florin's ledger.
pub struct Ledger {
    network: Network,
    journal: String,
    /// One order of a wallet at a time.
    wallet: Mutex<Wallet>,
    accounts: BTreeMap<Address, u32>,
    seed: Seed,
}

impl Ledger {
    /// `journal`: what names the journal of channels ([`super::Store::id`]). Errors: those of the wallet's addresses.
    pub fn new(network: Network, wallet: Wallet, seed: Seed, journal: &str) -> Result<Ledger> {
        let mut accounts = BTreeMap::new();
        for account in 0..wallet.keystore().accounts() {
            accounts.insert(wallet.address(account)?, account);
        }
        Ok(Ledger { network, journal: journal.to_owned(), wallet: Mutex::new(wallet), accounts, seed })
    }

    fn account(&self, address: &Address) -> Result<u32> {
        let unknown = || Error::new(Code::NotAParty, format!("the wallet has no account {address:?}"));
        self.accounts.get(address).copied().ok_or_else(unknown)
    }

    fn id(&self, op: OpId) -> String {
        format!("channels-{}-{op}", self.journal)
    }

    /// The order that the wallet holds for a message: final, or signed and not final.
    fn held(&self, wallet: &Wallet, account: u32, request: &Request) -> Result<Option<Signed>> {
        let envelope = match wallet.made(request)? {
            Some(sent) => sent.receipt.transaction.clone(),
            None if request.is_pending(wallet) => match wallet.account(account).pending.first() {
                Some(pending) => pending.envelope.clone(),
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        let order_id = Order::decode(envelope.clone())?.id;
        Ok(Some(Signed { order_id, output: 0, order: envelope }))
    }

    async fn prepare_now(&self, op: OpId, message: &Message) -> Result<Signed> {
        let account = self.account(&message.account)?;
        let request = Request::Call(Operation {
            id: Some(self.id(op)),
            account,
            inputs: message.inputs.clone(),
            outputs: message.outputs.clone(),
            memo: String::new(),
            expires_in: false,
        });
        let mut wallet = self.wallet.lock().await;
        if let Some(signed) = self.held(&wallet, account, &request)? {
            return Ok(signed);
        }
        // What is pending of the account goes first.
        self.finish(&mut wallet, account).await?;
        wallet.sign_once(&self.network, &self.seed, &request).await?;
        let lost = || Error::new(Code::Undecided, "the wallet does not know the order that it has signed");
        self.held(&wallet, account, &request)?.ok_or_else(lost)
    }

    async fn finish(&self, wallet: &mut Wallet, account: u32) -> Result<()> {
        let submission = wallet.finish(&self.network, account, |_| {}).await?;
        match submission.and_then(|s| s.outcomes.into_iter().find_map(|o| o.err())) {
            Some(e) if !wallet.account(account).pending.is_empty() => Err(e),
            _ => Ok(()),
        }
    }

    async fn broadcast_now(&self, op: OpId, channel: Option<Hash>, envelope: &Bytes) -> Result<Outcome> {
        let order = Order::decode(envelope.clone())?;
        let Content { action: Action::Call { account, .. }, .. } = Content::decode(&order)? else {
            return Err(Error::new(Code::BadContent, "a message of a channel is a CALL"));
        };
        let account = self.account(&account)?;
        let mut wallet = self.wallet.lock().await;
        // As long as it is pending it may still settle, whatever was said of it: for want of money, for instance.
        self.finish(&mut wallet, account).await?;
        // Another order may have taken its place: then this one never settles.
        let sent = wallet.account(account).sent.iter().find(|s| s.seqnum == order.seqnum);
        let same = match sent {
            Some(sent) => Order::decode(sent.receipt.transaction.clone())?.id == order.id,
            None => false,
        };
        if !same {
            let message = format!("order {} was not the one that settled; it was given up", hex::encode(order.id));
            return Ok(Outcome::Failed { code: Code::Voided as u32, message });
        }
        let ordered = wallet.wait_ordered(&self.network, account, order.seqnum, PATIENCE, |_| {}).await?;
        drop(wallet);
        if let Some(e) = ordered.failed {
            return Ok(Outcome::Failed { code: e.code as u32, message: e.message });
        }
        let id = channel.or_else(|| opened(self.network.committee().id(), &order));
        let Some(id) = id else {
            return Err(Error::new(Code::BadContent, format!("message {op} is of no channel")));
        };
        // Not a record from before the order: a deposit that is over without being in it would be made twice.
        let place = Some((ordered.session, ordered.unit));
        match self.network.channel(&id, place).await? {
            (Some(record), time_ms) => Ok(Outcome::Confirmed { record: Box::new(record), time_ms }),
            (None, _) => {
                let message = format!("the log has applied an order of channel {}, and has no such", hex::encode(id));
                Err(Error::new(Code::Undecided, message))
            }
        }
    }
}

/// The channel that an order opens.
fn opened(committee: &Hash, order: &Order) -> Option<Hash> {
    let Ok(Content { action: Action::Call { call, .. }, .. }) = Content::decode(order) else { return None };
    let opens = |o: &wire::Output| matches!(o.kind, Some(wire::output::Kind::ChannelOpen(_)));
    let output = call.outputs.iter().position(opens)?;
    Some(florin_core::channel::channel_id(committee, &order.id, output as u32))
}

impl Chain for Ledger {
    fn prepare<'a>(&'a self, op: OpId, message: &'a Message) -> Answer<'a, Signed> {
        Box::pin(self.prepare_now(op, message))
    }

    fn broadcast<'a>(&'a self, op: OpId, channel: Option<Hash>, order: &'a Bytes) -> Answer<'a, Outcome> {
        Box::pin(self.broadcast_now(op, channel, order))
    }

    fn channel<'a>(&'a self, id: &'a Hash) -> Answer<'a, (Option<wire::ChannelRecord>, u64)> {
        Box::pin(self.network.channel(id, None))
    }

    fn channels<'a>(&'a self, address: &'a Address) -> Answer<'a, Vec<Hash>> {
        Box::pin(self.network.channels(address))
    }
}

/// Keys of a wallet's accounts, for vouchers.
pub struct Keys {
    keys: BTreeMap<Address, SecretKey>,
    /// Accounts by their encoded permissions.
    permissions: BTreeMap<Bytes, Address>,
}

impl Keys {
    /// Those of all accounts. Errors: those of the key derivation.
    pub fn of(wallet: &Wallet, seed: &Seed) -> Result<Keys> {
        let (mut keys, mut permissions) = (BTreeMap::new(), BTreeMap::new());
        for account in 0..wallet.keystore().accounts() {
            permissions.insert(wallet.permission(account)?.encode(), wallet.address(account)?);
            let curve = wallet.keystore().public_keys()[account as usize].curve();
            keys.insert(wallet.address(account)?, seed.key(curve, account)?);
        }
        Ok(Keys { keys, permissions })
    }

    fn key(&self, account: &Address) -> Result<&SecretKey> {
        let unknown = || Error::new(Code::NotAParty, format!("the wallet has no account {account:?}"));
        self.keys.get(account).ok_or_else(unknown)
    }
}

impl Signer for Keys {
    fn voucher(&self, account: &Address, terms: wire::Voucher, side: u32) -> Result<Voucher> {
        Ok(Voucher::sign(terms, side, &[self.key(account)?]))
    }

    fn withdraw(&self, account: &Address, permit: &wire::WithdrawPermit) -> Result<wire::SignedPermit> {
        Ok(sign_withdraw(permit, &[self.key(account)?]))
    }

    fn watch(&self, account: &Address, permit: &wire::WatchPermit) -> Result<wire::SignedPermit> {
        Ok(sign_watch(permit, &[self.key(account)?]))
    }

    fn introduce(&self, account: &Address, introduction: &wire::HubIntroduction) -> Result<Vec<Bytes>> {
        Ok(introduction::sign(introduction, &[self.key(account)?]))
    }
}

impl VirtualSigner for Keys {
    fn virtual_amount(&self, permission: &Bytes, amount: &wire::VirtualAmount) -> Result<wire::SignedPermit> {
        let unknown = || Error::new(Code::NotAParty, "the virtual channel is paid with keys that the wallet has not");
        let account = self.permissions.get(permission).ok_or_else(unknown)?;
        Ok(sign_virtual(amount, &[self.key(account)?]))
    }
}
