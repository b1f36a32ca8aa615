//! The wallet: accounts of one seed, what they have signed, and what became of it.
//!
//! An order is in the journal, synced, before it is sent anywhere. So whatever crashes, the wallet never
//! signs a second order for a sequence number that someone may have voted for; it finishes the first one.
//! A sequence number is used again only when the order that had it is void: no honest authority will ever
//! accept it. An order refused for want of money is not: whoever kept it may offer it when the money is
//! there, and split the votes for the one in its place. It stays pending, and the user may drop it. So that
//! it hardly happens, the balance is looked at before a payment is signed.
//!
//! Receipts are checked, and must be for the very order that the journal holds, before anything is
//! believed of them, whoever they come from.

mod call;
mod funds;
mod once;
mod reads;
mod records;
mod recover;
mod roots;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::committee::Committee;
use florin_core::content::{
    Content, Credit, TYPE_CALL, TYPE_PAY, TYPE_SET_PERMISSION, encode_call, encode_set_permission, encode_withdraw,
};
use florin_core::envelope::{Authority, Body, Order, encode_body, encode_envelope};
use florin_core::keys::SecretKey;
use florin_core::permission::Permission;
use florin_core::receipt::verify;
use florin_core::wire;
use florin_core::{Code, Error, Result};
use prost::Message;

pub use call::{Operation, describe, describe_with, preimage};
pub use once::{Payment, Request};
pub use reads::{Balance, Received};
pub(crate) use reads::{agree_on, need, retry};
pub use records::{Account, Ordered, Pending, Record, Recovery, Sent};
pub use recover::{Decision, Rivals};
pub use roots::Rekey;
pub(crate) use status::agree_status;
pub use status::{AccountState, Status, is_decided, name as state_name};

use crate::journal::Journal;
use crate::keystore::Keystore;
use crate::network::{Event, Network, Submission};
use crate::seed::Seed;
use records::Book;

/// A wallet whose journal is open.
pub struct Wallet {
    keystore: Keystore,
    journal: Journal<Record>,
    committee: Arc<Committee>,
    book: Book,
    /// BLS keys of accounts that sign roots, while they are at hand.
    root_keys: BTreeMap<u32, SecretKey>,
    root_signed: Option<usize>,
}

static UNKNOWN: Account = Account {
    seqnum: 0,
    prev_hash: 0,
    pending: Vec::new(),
    sent: Vec::new(),
    known: false,
    floor: None,
    last_call: None,
    unordered: Vec::new(),
    ordered: BTreeMap::new(),
    recovery: None,
    voided: Vec::new(),
    distils: false,
};

/// What an order is to say, before it has a number.
enum Draft {
    Pay {
        outputs: Vec<Credit>,
        notes: Vec<wire::NoteRequest>,
        memo: String,
    },
    /// All but the account's address and permission.
    Call(wire::Call),
    /// A permission, and the secret of the BLS key that it sets, to be proved.
    Keys(Permission, Option<SecretKey>),
}

impl Draft {
    fn encode(&self, address: &Address, open: Option<Bytes>) -> (u32, Bytes) {
        match self {
            Draft::Pay { outputs, notes, memo } => (TYPE_PAY, encode_withdraw(outputs, notes, memo, open)),
            Draft::Call(call) => {
                let account = Bytes::copy_from_slice(address.as_bytes());
                let call = wire::Call { account, open: open.unwrap_or_default(), ..call.clone() };
                (TYPE_CALL, encode_call(&call))
            }
            Draft::Keys(permission, _) => (TYPE_SET_PERMISSION, encode_set_permission(permission.encode(), open)),
        }
    }
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
    /// another network or currency; `BAD_FILE` if the journal is another wallet's; `BUSY` if another
    /// command uses it.
    pub fn open(path: &Path, committee: Arc<Committee>) -> Result<Wallet> {
        let keystore = Keystore::open(path)?;
        let (meta, network) = (keystore.meta(), &committee.network);
        let show = |id: u64, currency: &str, decimals: u8| format!("{id} ({currency}, {decimals} decimals)");
        let expected = show(network.id, &network.currency, network.decimals);
        let found = show(meta.network_id, &meta.currency, meta.decimals);
        if expected != found {
            return Err(Error::expected(Code::WrongCommittee, "network of the wallet", expected, found));
        }
        let (journal, book) = open_journal(&keystore)?;
        Ok(Wallet { keystore, journal, committee, book, root_keys: BTreeMap::new(), root_signed: None })
    }

    /// Notes that accounts of a wallet made just now have signed nothing yet, so that their first payment
    /// need not ask. Errors: as of [`Wallet::open`].
    pub fn note_unused(keystore: &Keystore, accounts: std::ops::Range<u32>) -> Result<()> {
        let (mut journal, book) = open_journal(keystore)?;
        let new = accounts.filter(|a| !book.accounts.contains_key(a));
        let records: Vec<Record> =
            new.map(|account| Record::Adopted { account, seqnum: 0, prev_hash: "0".into() }).collect();
        journal.append(&records)
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
    pub fn account(&self, account: u32) -> &Account {
        self.book.accounts.get(&account).unwrap_or(&UNKNOWN)
    }

    /// Accounts with orders that are not final.
    pub fn unfinished(&self) -> Vec<u32> {
        self.book.accounts.iter().filter(|(_, a)| !a.pending.is_empty()).map(|(i, _)| *i).collect()
    }

    /// Accounts with CALLs that are final, and of which it is not known what the log has decided.
    pub fn unordered(&self) -> Vec<u32> {
        self.book.accounts.iter().filter(|(_, a)| !a.unordered.is_empty()).map(|(i, _)| *i).collect()
    }

    fn record(&mut self, records: Vec<Record>) -> Result<()> {
        self.journal.append(&records)?;
        records.into_iter().try_for_each(|r| self.book.apply(r))
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
        let draft = |(account, outputs, memo): &(u32, Vec<Credit>, String)| {
            (*account, Draft::Pay { outputs: outputs.clone(), notes: Vec::new(), memo: memo.clone() })
        };
        let drafts: Vec<_> = payments.iter().map(draft).collect();
        let (records, envelopes) = self.prepare(seed, &drafts, None)?;
        self.record(records)?;
        Ok(envelopes)
    }

    /// Orders that are signed and go nowhere until the records are durable.
    fn prepare(&self, seed: &Seed, drafts: &[(u32, Draft)], id: Option<&str>) -> Result<(Vec<Record>, Vec<Bytes>)> {
        let mut records = Vec::with_capacity(drafts.len());
        let mut envelopes = Vec::with_capacity(drafts.len());
        let mut ahead: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
        let mut keys: BTreeMap<u32, SecretKey> = BTreeMap::new();
        for (account, draft) in drafts {
            self.check_not_recovering(*account)?;
            let permission = self.permission(*account)?;
            let at = ahead.entry(*account).or_insert_with(|| self.account(*account).next());
            let open = (at.0 == 1).then(|| permission.encode());
            if !keys.contains_key(account) {
                keys.insert(*account, seed.key(self.keystore.meta().curve, *account)?);
            }
            let address = permission.address(self.committee.network.id);
            let (transaction_type, content) = draft.encode(&address, open);
            let body = encode_body(&Body {
                network_id: self.committee.network.id,
                actor: address.actor(),
                cosignors: Vec::new(),
                seqnum: at.0,
                prev_hash: at.1,
                transaction_type,
                content,
            });
            let envelope = match draft {
                Draft::Keys(_, Some(bls)) => roots::sign_proved(&keys[account], &body, bls)?,
                _ => sign_envelope(&keys[account], &body)?,
            };
            records.push(Record::Signed {
                account: *account,
                seqnum: at.0,
                envelope: hex::encode(&envelope),
                time: now_ms(),
                id: id.map(str::to_owned),
            });
            let order = Order::decode(envelope.clone())?;
            Content::decode(&order)?;
            *at = (at.0 + 1, order.next_hash());
            envelopes.push(envelope);
        }
        Ok((records, envelopes))
    }

    /// Sends what is pending of an account and waits until it is final or sure not to be. If another copy
    /// of the wallet was faster, learns what it did. What became of each order is in the submission.
    pub async fn finish(
        &mut self,
        network: &Network,
        account: u32,
        on_event: impl FnMut(Event),
    ) -> Result<Option<Submission>> {
        let pending = &self.account(account).pending;
        if pending.is_empty() {
            return Ok(None);
        }
        let shard = self.address(account)?.shard(self.committee.shards);
        let envelopes: Vec<Bytes> = pending.iter().map(|p| p.envelope.clone()).collect();
        let seqnums: Vec<u32> = pending.iter().map(|p| p.seqnum).collect();
        let asks_for_notes =
            |p: &Pending| p.order().and_then(|o| Content::decode(&o)).is_ok_and(|c| !c.notes.is_empty());
        let submission = match pending.iter().any(asks_for_notes) {
            true => network.submit_for_notes(shard, envelopes, on_event).await?,
            false => network.submit(shard, envelopes, on_event).await?,
        };
        let outcomes = seqnums.into_iter().zip(&submission.outcomes).zip(&submission.void);
        self.settle_outcomes(account, outcomes.map(|((s, o), r)| (s, o.clone(), *r)).collect())?;
        let first = submission.outcomes.iter().find_map(|o| o.as_ref().err());
        if first.is_some_and(|e| used_elsewhere(e.code)) {
            // If it can't be learned now, the next command tries again.
            let _ = self.catch_up(network, account).await;
        }
        Ok(Some(submission))
    }

    /// Gives up what is pending of an account, whatever becomes of it: its number is used again. Whoever kept such an
    /// order may still offer it, and if authorities vote for different ones the account is locked. Returns the
    /// sequence numbers. Errors: `IO`.
    pub fn drop_pending(&mut self, account: u32) -> Result<Vec<u32>> {
        let seqnums: Vec<u32> = self.account(account).pending.iter().map(|p| p.seqnum).collect();
        if let Some(seqnum) = seqnums.first().copied() {
            let message = "given up by the user".to_owned();
            self.record(vec![Record::Refused { account, seqnum, code: Code::Undecided as u32, message }])?;
        }
        Ok(seqnums)
    }

    /// Notes what became of pending orders, in sequence: (seqnum, receipt or error, whether it is void).
    /// Errors: those of [`verify`], and `BAD_PROOF` for the receipt of another order; what came before is
    /// noted then.
    pub fn settle_outcomes(&mut self, account: u32, outcomes: Vec<(u32, Result<wire::Receipt>, bool)>) -> Result<()> {
        let mut records = Vec::new();
        let mut wrong = Ok(());
        for (seqnum, outcome, void) in outcomes {
            match outcome {
                Ok(receipt) => {
                    wrong = self.check_receipt(account, seqnum, &receipt);
                    if wrong.is_err() {
                        break;
                    }
                    let receipt = hex::encode(receipt.encode_to_vec());
                    records.push(Record::Final { account, seqnum, receipt, time: now_ms() });
                }
                Err(e) if void => {
                    records.push(Record::Refused { account, seqnum, code: e.code as u32, message: e.message });
                    break;
                }
                Err(_) => break,
            }
        }
        self.record(records)?;
        wrong
    }

    fn check_receipt(&self, account: u32, seqnum: u32, receipt: &wire::Receipt) -> Result<()> {
        let order = verify(&self.committee, receipt)?;
        let pending = self.account(account).pending.iter().find(|p| p.seqnum == seqnum);
        let expected = pending.map(|p| p.order()).transpose()?.map(|o| hex::encode(o.id)).unwrap_or_default();
        let found = hex::encode(order.id);
        if expected == found {
            return Ok(());
        }
        Err(Error::expected(Code::BadProof, "order of the receipt", expected, found))
    }

    /// Learns what the network proves of an account beyond this journal, and takes over orders that
    /// another copy of this wallet has signed. Errors: `QUORUM_UNREACHABLE`: fewer might not know.
    pub async fn catch_up(&mut self, network: &Network, account: u32) -> Result<()> {
        let address = self.address(account)?;
        let replies = network.account(&address).await;
        reads::need(&self.committee, &replies, self.committee.quorum())?;
        let mut records = Vec::new();
        let known = self.account(account);
        let newest = self.prove(network, &address, known.seqnum, &replies).await;
        let proved = newest.as_ref().map_or((known.seqnum, known.prev_hash), |o| (o.seqnum, o.next_hash()));
        // Our own pending order gets its receipt when it is finished.
        let ours = |o: &Order| known.pending.iter().any(|p| p.order().is_ok_and(|p| p.id == o.id));
        // Where a recovery has voided a seqnum there is no order to prove, and a certificate that somebody keeps is void.
        let voided = status::newest_state(&self.committee, &replies)
            .filter(|s| s.seqnum >= proved.0.max(1) && (s.seqnum, s.prev_hash) != proved)
            .filter(|s| known.pending.iter().all(|p| p.order().is_ok_and(|p| p.next_hash() != s.prev_hash)));
        match (voided, newest) {
            (Some(state), _) => {
                let AccountState { seqnum, prev_hash, .. } = state;
                records.push(Record::Adopted { account, seqnum, prev_hash: prev_hash.to_string() });
            }
            (None, Some(o)) if !ours(&o) => {
                records.push(Record::Adopted { account, seqnum: o.seqnum, prev_hash: o.next_hash().to_string() });
            }
            _ if !known.known => records.push(Record::Adopted { account, seqnum: 0, prev_hash: "0".into() }),
            _ => {}
        }
        records.extend(self.keys_said(account, &replies));
        self.record(records)?;
        self.adopt_pending(network, account, &address, &replies).await
    }

    /// The order with the highest sequence number above `known` that an authority proves certified. A liar
    /// may claim any number; what honest ones say follows it downwards.
    async fn prove(
        &self,
        network: &Network,
        address: &Address,
        known: u32,
        replies: &[Result<wire::AccountReply>],
    ) -> Option<Order> {
        let mut claims: Vec<u32> = replies.iter().flatten().map(|r| r.seqnum).filter(|s| *s > known).collect();
        claims.sort_unstable_by(|a, b| b.cmp(a));
        claims.dedup();
        for seqnum in claims {
            if let Some(order) = Wallet::certified(network, address.actor(), seqnum).await {
                return Some(order);
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
        let mut records = Vec::new();
        let (mut seqnum, mut prev_hash) = self.account(account).next();
        let furthest = replies.iter().flatten().flat_map(|r| r.pending.last()).map(|p| p.seqnum).max().unwrap_or(0);
        while seqnum <= furthest {
            let shown = network.order(address.actor(), seqnum).await.into_iter().flatten();
            let shown = shown.filter_map(|reply| Order::decode(reply.receipt?.transaction).ok());
            // What continues the chain.
            let place = (self.committee.network.id, address.actor(), seqnum, prev_hash);
            let shown = shown.filter(|o| (o.network_id, o.actor, o.seqnum, o.prev_hash) == place);
            let shown: Vec<Order> = shown.collect();
            let found = self.own_orders(account, &shown)?.into_iter().next().map(|order| {
                let envelope = order.raw.clone();
                (order, envelope)
            });
            let Some((order, envelope)) = found else { break };
            let id = self.book.ids.owner(&order).cloned();
            records.push(Record::Signed { account, seqnum, envelope: hex::encode(&envelope), time: now_ms(), id });
            (seqnum, prev_hash) = (seqnum + 1, order.next_hash());
        }
        self.record(records)
    }
}

fn open_journal(keystore: &Keystore) -> Result<(Journal<Record>, Book)> {
    let path = journal_path(keystore.path());
    let (mut journal, records) = Journal::open(&path)?;
    let mut book = Book::default();
    for record in records {
        book.apply(record).map_err(|e| Error::new(e.code, format!("{}: {}", path.display(), e.message)))?;
    }
    let address = hex::encode(keystore.address(0)?.as_bytes());
    match &book.owner {
        Some(owner) if *owner == address => {}
        None if book.accounts.is_empty() => {
            journal.append(&[Record::Owner { address: address.clone() }])?;
            book.owner = Some(address);
        }
        _ => {
            let message = format!("{} is the journal of another wallet: move it away", path.display());
            return Err(Error::new(Code::BadFile, message));
        }
    }
    Ok((journal, book))
}

/// Whether the reason says that another copy of this wallet has used the account.
fn used_elsewhere(code: Code) -> bool {
    matches!(code, Code::BadSeq | Code::BadPrevHash | Code::PendingConflict | Code::Voided)
}

fn sign_envelope(key: &SecretKey, body: &Bytes) -> Result<Bytes> {
    Ok(encode_envelope(body, &[Authority::of(&[key.sign_body(body)])]))
}
