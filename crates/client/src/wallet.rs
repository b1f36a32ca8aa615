//! The wallet: accounts of one seed, what they have signed, and what became of it.
//!
//! An order is in the journal, synced, before it is sent anywhere. So whatever crashes, the wallet never
//! signs a second order for a sequence number that someone may have voted for; it finishes the first one.
//! A sequence number is used again only when a quorum has refused the order that had it: then no other
//! quorum can certify that order, as its votes would have to come from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::authority::state::short_hash;
use florin_core::committee::Committee;
use florin_core::content::{Content, Credit, TYPE_PAY, encode_pay};
use florin_core::envelope::{Authority, Body, Order, encode_body, encode_envelope};
use florin_core::keys::SecretKey;
use florin_core::permission::Permission;
use florin_core::receipt::verify;
use florin_core::signatures::Batch;
use florin_core::wire;
use florin_core::{Code, Error, Result};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::journal::Journal;
use crate::keystore::Keystore;
use crate::network::{Event, Network, Submission};
use crate::seed::Seed;

/// One fact about an account, in the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Record {
    /// An order was signed; it may be anywhere from here on.
    Signed {
        /// Account of the wallet.
        account: u32,
        /// Its sequence number.
        seqnum: u32,
        /// The envelope, hex.
        envelope: String,
        /// Milliseconds since 1970.
        time: u64,
    },
    /// It is final.
    Final {
        /// Account of the wallet.
        account: u32,
        /// Its sequence number.
        seqnum: u32,
        /// The receipt, hex.
        receipt: String,
        /// Milliseconds since 1970.
        time: u64,
    },
    /// A quorum refused it: its sequence number is free.
    Refused {
        /// Account of the wallet.
        account: u32,
        /// Its sequence number.
        seqnum: u32,
        /// Code of the refusal.
        code: u32,
        /// Its message.
        message: String,
    },
    /// The network has proved a later state than this journal knew (another copy of the wallet was used).
    Adopted {
        /// Account of the wallet.
        account: u32,
        /// Last certified sequence number.
        seqnum: u32,
        /// prev_hash after it; decimal, as JSON readers round.
        prev_hash: String,
    },
}

/// An order that was signed and is not final.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Its sequence number.
    pub seqnum: u32,
    /// The envelope.
    pub envelope: Bytes,
    /// Milliseconds since 1970.
    pub time: u64,
}

/// A final order.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its sequence number.
    pub seqnum: u32,
    /// Its receipt.
    pub receipt: wire::Receipt,
    /// Milliseconds since 1970.
    pub time: u64,
}

/// One account of a wallet.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Last final or proved sequence number.
    pub seqnum: u32,
    /// prev_hash of the next order after it.
    pub prev_hash: u64,
    /// Signed and not final, consecutive from `seqnum + 1`.
    pub pending: Vec<Pending>,
    /// Final ones that this journal saw.
    pub sent: Vec<Sent>,
    /// Whether the journal knows anything of it.
    pub known: bool,
}

/// What `f + 1` authorities agree that an address has.
#[derive(Clone, Debug)]
pub struct Balance {
    /// Minor units.
    pub minor: i128,
    /// Last settled sequence number.
    pub seqnum: u32,
    /// Credits received so far.
    pub credits: u64,
    /// Authorities that say so.
    pub agreeing: usize,
    /// (name, what it says or why it does not) of the others.
    pub others: Vec<(String, String)>,
}

/// A payment that came in, as `f + 1` authorities agree.
#[derive(Clone, Debug)]
pub struct Received {
    /// Who paid what.
    pub entry: wire::CreditEntry,
}

/// A wallet whose journal is open.
pub struct Wallet {
    keystore: Keystore,
    journal: Journal<Record>,
    committee: Arc<Committee>,
    accounts: BTreeMap<u32, Account>,
}

/// Path of the journal beside a wallet file.
pub fn journal_path(wallet: &Path) -> PathBuf {
    let mut name = wallet.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

impl Wallet {
    /// Opens a wallet and its journal. Errors: those of the files; `WRONG_COMMITTEE` if the wallet is for
    /// another network; `BUSY` if another command uses it.
    pub fn open(path: &Path, committee: Arc<Committee>) -> Result<Wallet> {
        let keystore = Keystore::open(path)?;
        if keystore.meta().network_id != committee.network.id {
            return Err(Error::expected(
                Code::WrongCommittee,
                "network of the wallet",
                committee.network.id,
                keystore.meta().network_id,
            ));
        }
        let (journal, records) = Journal::open(&journal_path(path))?;
        let mut wallet = Wallet { keystore, journal, committee, accounts: BTreeMap::new() };
        for record in records {
            wallet.replay(record)?;
        }
        Ok(wallet)
    }

    /// The wallet file.
    pub fn keystore(&self) -> &Keystore {
        &self.keystore
    }

    /// The wallet file, to change it.
    pub fn keystore_mut(&mut self) -> &mut Keystore {
        &mut self.keystore
    }

    /// Its committee.
    pub fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    /// What is known of an account.
    pub fn account(&self, account: u32) -> Account {
        self.accounts.get(&account).cloned().unwrap_or_default()
    }

    /// Accounts with orders that are not final.
    pub fn unfinished(&self) -> Vec<u32> {
        self.accounts.iter().filter(|(_, a)| !a.pending.is_empty()).map(|(i, _)| *i).collect()
    }

    fn replay(&mut self, record: Record) -> Result<()> {
        let bad = |what: &str| Error::new(Code::BadFile, format!("the wallet's journal holds {what}"));
        let bytes = |text: &str| hex::decode(text).map(Bytes::from).map_err(|_| bad("something that is not hex"));
        match record {
            Record::Signed { account, seqnum, envelope, time } => {
                let state = self.accounts.entry(account).or_default();
                state.known = true;
                state.pending.push(Pending { seqnum, envelope: bytes(&envelope)?, time });
            }
            Record::Final { account, seqnum, receipt, time } => {
                let receipt = wire::Receipt::decode(bytes(&receipt)?).map_err(|_| bad("a damaged receipt"))?;
                let order = Order::decode(receipt.transaction.clone())?;
                let state = self.accounts.entry(account).or_default();
                state.known = true;
                state.pending.retain(|p| p.seqnum > seqnum);
                if seqnum > state.seqnum {
                    (state.seqnum, state.prev_hash) = (seqnum, order.next_hash());
                }
                state.sent.push(Sent { seqnum, receipt, time });
            }
            Record::Refused { account, seqnum, .. } => {
                // What was chained to it is void with it.
                let state = self.accounts.entry(account).or_default();
                state.pending.retain(|p| p.seqnum < seqnum);
            }
            Record::Adopted { account, seqnum, prev_hash } => {
                let state = self.accounts.entry(account).or_default();
                state.known = true;
                state.pending.retain(|p| p.seqnum > seqnum);
                if seqnum >= state.seqnum {
                    state.seqnum = seqnum;
                    state.prev_hash = prev_hash.parse().map_err(|_| bad("a prev_hash that is no number"))?;
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, records: Vec<Record>) -> Result<()> {
        self.journal.append(&records)?;
        records.into_iter().try_for_each(|r| self.replay(r))
    }

    /// The permission that an account's address is made of.
    pub fn permission(&self, account: u32) -> Result<Permission> {
        let keys = self.keystore.public_keys();
        let key = keys
            .get(account as usize)
            .ok_or_else(|| Error::expected(Code::Usage, "account", format!("below {}", keys.len()), account))?;
        Ok(Permission::single(*key))
    }

    /// An account's address.
    pub fn address(&self, account: u32) -> Result<Address> {
        Ok(self.permission(account)?.address(self.committee.network.id))
    }

    /// Signs a payment as the account's next order and makes it durable. Nothing is sent.
    /// Errors: those of the content's limits; `IO`.
    pub fn sign_pay(&mut self, seed: &Seed, account: u32, outputs: &[Credit], memo: &str) -> Result<Bytes> {
        self.sign_payments(seed, &[(account, outputs.to_vec(), memo.to_owned())]).map(|mut e| e.remove(0))
    }

    /// Signs many payments with one sync; several of one account make a chain.
    pub fn sign_payments(&mut self, seed: &Seed, payments: &[(u32, Vec<Credit>, String)]) -> Result<Vec<Bytes>> {
        let mut records = Vec::with_capacity(payments.len());
        let mut envelopes = Vec::with_capacity(payments.len());
        let mut ahead: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
        let mut keys: BTreeMap<u32, SecretKey> = BTreeMap::new();
        for (account, outputs, memo) in payments {
            let permission = self.permission(*account)?;
            let state = self.account(*account);
            let at = ahead.entry(*account).or_insert_with(|| next_of(&state));
            let open = (at.0 == 1).then(|| permission.encode());
            if !keys.contains_key(account) {
                keys.insert(*account, seed.key(self.keystore.meta().curve, *account)?);
            }
            let body = encode_body(&Body {
                network_id: self.committee.network.id,
                actor: permission.address(self.committee.network.id).actor(),
                cosignors: Vec::new(),
                seqnum: at.0,
                prev_hash: at.1,
                transaction_type: TYPE_PAY,
                content: encode_pay(outputs, memo, open),
            });
            let envelope = sign_envelope(&keys[account], &body)?;
            records.push(Record::Signed {
                account: *account,
                seqnum: at.0,
                envelope: hex::encode(&envelope),
                time: now_ms(),
            });
            let order = Order::decode(envelope.clone())?;
            Content::decode(&order)?;
            *at = (at.0 + 1, order.next_hash());
            envelopes.push(envelope);
        }
        self.record(records)?;
        Ok(envelopes)
    }

    /// Sends what is pending of an account and waits until it is final or sure not to be.
    /// The error is that of the first order that is not final.
    pub async fn finish(
        &mut self,
        network: &Network,
        account: u32,
        on_event: impl FnMut(Event),
    ) -> Result<Option<Submission>> {
        let pending = self.account(account).pending;
        if pending.is_empty() {
            return Ok(None);
        }
        let shard = self.address(account)?.shard(self.committee.shards);
        let envelopes: Vec<Bytes> = pending.iter().map(|p| p.envelope.clone()).collect();
        let submission = network.submit(shard, envelopes, on_event).await?;
        let outcomes = pending.iter().zip(&submission.outcomes).zip(&submission.refused);
        let outcomes = outcomes.map(|((p, o), r)| (p.seqnum, o.clone(), *r)).collect();
        self.settle_outcomes(account, outcomes)?;
        Ok(Some(submission))
    }

    /// Notes what became of orders, in sequence: (seqnum, receipt or error, refused by a quorum).
    pub fn settle_outcomes(&mut self, account: u32, outcomes: Vec<(u32, Result<wire::Receipt>, bool)>) -> Result<()> {
        let mut records = Vec::new();
        for (seqnum, outcome, refused) in outcomes {
            match outcome {
                Ok(receipt) => {
                    // The receipt is checked like anyone else's before it is believed.
                    verify(&self.committee, &receipt)?;
                    let receipt = hex::encode(receipt.encode_to_vec());
                    records.push(Record::Final { account, seqnum, receipt, time: now_ms() });
                }
                Err(e) if refused && frees_seqnum(e.code) => {
                    records.push(Record::Refused { account, seqnum, code: e.code as u32, message: e.message });
                    break;
                }
                Err(_) => break,
            }
        }
        if records.is_empty() { Ok(()) } else { self.record(records) }
    }

    /// Learns what the network proves of an account beyond this journal, and takes over orders that
    /// another copy of this wallet has signed.
    pub async fn catch_up(&mut self, network: &Network, account: u32) -> Result<()> {
        let address = self.address(account)?;
        let replies = network.account(&address).await;
        let answered = replies.iter().filter(|r| r.is_ok()).count();
        if answered < self.committee.quorum() {
            let error = replies.into_iter().find_map(Result::err);
            let why = error.map_or(String::new(), |e| format!(": {}", e.message));
            let message = format!(
                "{answered} of {} authorities answer, {} are needed{why}",
                self.committee.size(),
                self.committee.quorum()
            );
            return Err(Error::new(Code::QuorumUnreachable, message));
        }
        let known = self.account(account);
        let newest = replies.iter().flatten().map(|r| r.seqnum).max().unwrap_or(0);
        let mut records = Vec::new();
        if newest > known.seqnum
            && let Some(order) = self.prove(network, &address, newest, known.seqnum).await
        {
            records.push(Record::Adopted { account, seqnum: order.seqnum, prev_hash: order.next_hash().to_string() });
        }
        if !known.known && records.is_empty() {
            records.push(Record::Adopted { account, seqnum: 0, prev_hash: "0".into() });
        }
        if !records.is_empty() {
            self.record(records)?;
        }
        self.adopt_pending(network, account, &address, &replies).await
    }

    /// The order with the highest sequence number in (known, newest] that an authority proves certified.
    async fn prove(&self, network: &Network, address: &Address, newest: u32, known: u32) -> Option<Order> {
        // A liar may claim any number; what honest ones say follows it downwards.
        let mut claims: Vec<u32> = network.account(address).await.into_iter().flatten().map(|r| r.seqnum).collect();
        claims.push(newest);
        claims.sort_unstable_by(|a, b| b.cmp(a));
        claims.dedup();
        for seqnum in claims.into_iter().filter(|s| *s > known) {
            for reply in network.order(address.actor(), seqnum).await.into_iter().flatten() {
                let certified =
                    reply.receipt.and_then(|r| florin_core::receipt::verify_certified(&self.committee, &r).ok());
                if let Some(order) = certified.filter(|o| o.actor == address.actor() && o.seqnum == seqnum) {
                    return Some(order);
                }
            }
        }
        None
    }

    async fn adopt_pending(
        &mut self,
        network: &Network,
        account: u32,
        address: &Address,
        replies: &[Result<wire::AccountReply>],
    ) -> Result<()> {
        let permission = self.permission(account)?;
        let mut records = Vec::new();
        let (mut seqnum, mut prev_hash) = next_of(&self.account(account));
        let furthest = replies.iter().flatten().flat_map(|r| r.pending.last()).map(|p| p.seqnum).max().unwrap_or(0);
        while seqnum <= furthest {
            let found = network.order(address.actor(), seqnum).await.into_iter().flatten().find_map(|reply| {
                let envelope = reply.receipt?.transaction;
                let order = Order::decode(envelope.clone()).ok()?;
                // Only what this wallet's own key has signed, and what continues its chain.
                let mut batch = Batch::new();
                batch.push(0, &order, 0, &permission);
                let signed = batch.verify().results.iter().all(|(_, r)| r.is_ok());
                (signed && order.actor == address.actor() && order.seqnum == seqnum && order.prev_hash == prev_hash)
                    .then_some((order, envelope))
            });
            let Some((order, envelope)) = found else { break };
            records.push(Record::Signed { account, seqnum, envelope: hex::encode(&envelope), time: now_ms() });
            (seqnum, prev_hash) = (seqnum + 1, short_hash(&order.id));
        }
        if records.is_empty() { Ok(()) } else { self.record(records) }
    }

    /// The balance of an address that `f + 1` authorities agree on. Waits a little for them to agree.
    /// Errors: `QUORUM_UNREACHABLE` if too few answer, `UNDECIDED` if they keep saying different things.
    pub async fn balance(network: &Network, address: &Address) -> Result<Balance> {
        let mut last = None;
        for attempt in 0..10 {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            let replies = network.account(address).await;
            match agree(network.committee(), &replies) {
                Ok(balance) => return Ok(balance),
                Err(e) if e.code == Code::QuorumUnreachable => return Err(e),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| Error::new(Code::Undecided, "no authority was asked")))
    }

    /// Newest payments to an address that `f + 1` authorities report.
    pub async fn received(network: &Network, address: &Address, limit: u32) -> Result<Vec<Received>> {
        let replies = network.credits(address, limit).await;
        let answered = replies.iter().flatten().count();
        if answered < network.committee().validity() {
            return Err(Error::expected(
                Code::QuorumUnreachable,
                "authorities that answer",
                format!("at least {}", network.committee().validity()),
                answered,
            ));
        }
        let mut order = Vec::new();
        let mut counts: BTreeMap<Vec<u8>, (usize, wire::CreditEntry)> = BTreeMap::new();
        for entry in replies.into_iter().flatten().flat_map(|r| r.credits) {
            let key = entry.encode_to_vec();
            let slot = counts.entry(key.clone()).or_insert_with(|| {
                order.push(key);
                (0, entry)
            });
            slot.0 += 1;
        }
        let believed =
            order.iter().filter_map(|key| counts.get(key)).filter(|(n, _)| *n >= network.committee().validity());
        Ok(believed.map(|(_, entry)| Received { entry: entry.clone() }).collect())
    }

    /// A receipt for an order that is certified or settled somewhere, also one that this wallet received.
    pub async fn fetch_receipt(network: &Network, actor: u64, seqnum: u32) -> Result<wire::Receipt> {
        let replies = network.order(actor, seqnum).await;
        let mut envelopes: Vec<Bytes> = Vec::new();
        for receipt in replies.into_iter().flatten().filter_map(|r| r.receipt) {
            if !envelopes.contains(&receipt.transaction) {
                envelopes.push(receipt.transaction);
            }
        }
        // Submitting it again changes nothing where it is settled, and gathers the signatures.
        let mut error =
            Error::new(Code::BadSeq, format!("no authority knows an order of actor {actor} with seqnum {seqnum}"));
        for envelope in envelopes {
            let shard = (actor % network.committee().shards as u64) as u32;
            match network.submit(shard, vec![envelope], |_| ()).await?.outcomes.remove(0) {
                Ok(receipt) => return Ok(receipt),
                Err(e) => error = e,
            }
        }
        Err(error)
    }
}

/// Sequence number and prev_hash of the account's next order.
fn next_of(account: &Account) -> (u32, u64) {
    match account.pending.last() {
        Some(last) => {
            let id = Order::decode(last.envelope.clone()).map(|o| o.next_hash()).unwrap_or_default();
            (last.seqnum + 1, id)
        }
        None => (account.seqnum + 1, account.prev_hash),
    }
}

/// Whether a quorum's refusal for this reason lets the wallet sign another order in its place. When the
/// network knows of a later or another order there, the wallet must learn of it first.
fn frees_seqnum(code: Code) -> bool {
    !matches!(code, Code::BadSeq | Code::PendingConflict | Code::BadPrevHash | Code::Busy)
}

fn sign_envelope(key: &SecretKey, body: &Bytes) -> Result<Bytes> {
    Ok(encode_envelope(body, &[Authority::of(&[key.sign_body(body)])]))
}

fn agree(committee: &Committee, replies: &[Result<wire::AccountReply>]) -> Result<Balance> {
    let needed = committee.validity();
    let answered: Vec<(usize, &wire::AccountReply)> =
        replies.iter().enumerate().filter_map(|(i, r)| r.as_ref().ok().map(|r| (i, r))).collect();
    let name = |i: usize| committee.authorities[i].name.clone();
    if answered.len() < needed {
        let missing: Vec<String> = replies
            .iter()
            .enumerate()
            .filter_map(|(i, r)| r.as_ref().err().map(|e| format!("{} ({})", name(i), e.message)))
            .collect();
        let message =
            format!("{} authorities answer, {needed} are needed; missing: {}", answered.len(), missing.join(", "));
        return Err(Error::new(Code::QuorumUnreachable, message));
    }
    let same = |a: &wire::AccountReply, b: &wire::AccountReply| {
        (&a.balance, a.seqnum, a.credits) == (&b.balance, b.seqnum, b.credits)
    };
    let best = answered
        .iter()
        .map(|(_, r)| (*r, answered.iter().filter(|(_, o)| same(r, o)).count()))
        .filter(|(_, n)| *n >= needed)
        .max_by_key(|(r, n)| (r.seqnum, r.credits, *n));
    let Some((reply, agreeing)) = best else {
        let said: Vec<String> = answered.iter().map(|(i, r)| format!("{}: {}", name(*i), r.balance)).collect();
        return Err(Error::new(
            Code::Undecided,
            format!("no {needed} authorities agree (minor units): {}", said.join(", ")),
        ));
    };
    let others = replies.iter().enumerate().filter_map(|(i, r)| match r {
        Ok(r) if same(r, reply) => None,
        Ok(r) => Some((name(i), format!("{} minor units, {} orders, {} credits", r.balance, r.seqnum, r.credits))),
        Err(e) => Some((name(i), e.to_string())),
    });
    let minor = reply
        .balance
        .parse()
        .map_err(|_| Error::new(Code::Decode, format!("a balance that is no number: {}", reply.balance)))?;
    Ok(Balance { minor, seqnum: reply.seqnum, credits: reply.credits, agreeing, others: others.collect() })
}
