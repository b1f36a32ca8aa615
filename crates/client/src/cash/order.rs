//! Orders that make and spend notes. Each is in the journal before it is sent; from then on the numbers of its new notes and the
//! notes that it spends are its own, until it has settled or is sure never to. So it can be sent again after any crash: the
//! committee gives the same shares, and the same notes come out.
//!
//! It is sure never to settle when `f + 1` authorities say that one of its notes is spent by another order, or has been freed by
//! the log since; or when the account's journal says so of a withdrawal. Nothing else is believed: it stays open.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use florin_core::bearer::{Spend, build};
use florin_core::cash::blind::NoteSignature;
use florin_core::content::{Credit, credit_output};
use florin_core::envelope::Order;
use florin_core::signatures::AuthorityKey;
use florin_core::wire::{self, note_state::State as Seen, output};
use florin_core::{Code, Error, Result};

use super::amounts::{NOTES_IN_ORDER, NOTES_PER_ORDER, TIERS, fewest, plan_issue, value};
use super::cores::{cores, each};
use super::records::{Gone, Hex32, LENT, Lock, Made, Note, NoteRecord, Origin, Purpose, Record, State};
use super::search::GAP;
use super::shares::{Blind, by_note, nonce_of, unblind};
use super::states::{NOTES_SHARD, spent_by, states};
use super::store::Secrets;
use super::{CashWallet, Events};
use crate::keystore::random;
use crate::network::Network;
use crate::time::now_ms;
use crate::wallet::{Payment, Request, need};

/// How often authorities are asked for the shares of an order that is final, and how long apart.
const TRIES: usize = 8;
const PAUSE: Duration = Duration::from_millis(250);
/// How often other numbers are tried because a copy of the wallet has used them.
const COPIES: usize = 4;
/// How often notes are tried again of which some were spent.
const ROUNDS: usize = 300;

/// A note that an order is to make.
#[derive(Clone, Copy)]
pub(super) struct Want {
    pub tier: u32,
    /// Whether it is given away.
    pub send: bool,
    /// To whom it is locked, and until when its sender can't take it back.
    pub lock: Option<(Hex32, u64)>,
}

impl Want {
    /// Notes that the wallet keeps.
    pub fn own(tiers: impl IntoIterator<Item = u32>) -> Vec<Want> {
        tiers.into_iter().map(|tier| Want { tier, send: false, lock: None }).collect()
    }
}

/// An order before it has numbers.
pub(super) struct Draft {
    pub purpose: Purpose,
    pub id: Option<String>,
    pub inputs: Vec<Hex32>,
    pub credits: Vec<Credit>,
    pub wants: Vec<Want>,
    pub memo: String,
}

/// A note that somebody else has spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its nonce.
    pub nonce: Hex32,
    /// It was worth 2^tier minor units.
    pub tier: u32,
    /// The order that spent it, hex; empty if it is not known.
    pub by: String,
}

/// What an exchange of notes for new ones gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchanged {
    /// Minor units that the wallet has for sure now.
    pub got: u128,
    /// What others were faster to spend.
    pub lost: Vec<Lost>,
}

impl Exchanged {
    /// Minor units that are lost.
    pub fn lost_total(&self) -> u128 {
        self.lost.iter().map(|l| u128::from(value(l.tier))).sum()
    }
}

impl CashWallet {
    /// Gives an order its numbers and makes it durable. Nothing is sent, but a question whether a copy of the wallet has used
    /// the numbers. Errors: those of asking; `IO`.
    pub(super) async fn prepare(&mut self, network: &Network, secrets: &Secrets, mut draft: Draft) -> Result<u64> {
        // Which of them is change is nobody's business.
        shuffle(&mut draft.wants)?;
        let (outputs, blinds) = self.unused(network, secrets, &draft.wants).await?;
        let envelope = match draft.purpose {
            Purpose::Withdraw { .. } => Bytes::new(),
            _ => self.envelope(secrets, &draft, &blinds)?,
        };
        let number = self.book().next;
        let Draft { purpose, id, inputs, .. } = draft;
        let envelope = hex::encode(&envelope);
        self.store.record(vec![Record::Prepared { number, purpose, id, inputs, outputs, envelope, time: now_ms() }])?;
        self.blinds.insert(number, blinds);
        Ok(number)
    }

    /// Numbers that no copy of this wallet has used, for these notes.
    async fn unused(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        wants: &[Want],
    ) -> Result<(Vec<Made>, Vec<Blind>)> {
        for _ in 0..COPIES {
            let (outputs, blinds) = self.number(secrets, wants);
            let own = || outputs.iter().map(|m| m.counter).filter(|c| *c < LENT);
            if own().max().is_some_and(|last| last >= self.book().issued() + GAP) {
                let message = format!("{} orders are open: finish them first", self.book().open.len());
                return Err(Error::new(Code::Undecided, message));
            }
            let Some(first) = own().min() else { return Ok((outputs, blinds)) };
            if !self.used_elsewhere(network, &blinds).await? {
                return Ok((outputs, blinds));
            }
            self.search(network, secrets, first).await?;
        }
        Err(Error::new(Code::Undecided, "another copy of this wallet makes notes at the same time: use one at a time"))
    }

    fn number(&self, secrets: &Secrets, wants: &[Want]) -> (Vec<Made>, Vec<Blind>) {
        let (mut own, mut lent) = (self.book().next_counter(), self.book().next_lent());
        let mut count = |want: &Want| {
            let next = if want.lock.is_some() { &mut lent } else { &mut own };
            *next += 1;
            (*next - 1, *want)
        };
        let numbered: Vec<(u64, Want)> = wants.iter().map(&mut count).collect();
        let made = |(counter, Want { tier, send, lock }): &(u64, Want)| {
            let lock = lock.map(|(receiver, after_ms)| {
                let sender = secrets.notes.note(*counter).nonce().into();
                Lock { receiver, sender, after_ms }
            });
            let blind = Blind::new(secrets, *counter, *tier, lock.as_ref());
            let nonce = nonce_of(&blind, lock.as_ref());
            (Made { counter: *counter, tier: *tier, nonce, send: *send, lock }, blind)
        };
        each(cores(), &numbered, made).into_iter().unzip()
    }

    /// Whether `f + 1` authorities have signed one of these before: then a copy of this wallet is in use.
    async fn used_elsewhere(&self, network: &Network, blinds: &[Blind]) -> Result<bool> {
        let committee = self.wallet.committee();
        let blinded: Vec<Bytes> = blinds.iter().map(Blind::bytes).collect();
        for replies in issued_everywhere(network, &blinded).await {
            need(committee, &replies, committee.validity())?;
            let said = |i: usize| {
                let some = |r: &&wire::NotesReply| r.issued.get(i).is_some_and(|issued| !issued.tiers.is_empty());
                replies.iter().flatten().filter(some).count()
            };
            if (0..blinded.len()).any(|i| said(i) >= committee.validity()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn envelope(&self, secrets: &Secrets, draft: &Draft, blinds: &[Blind]) -> Result<Bytes> {
        let spends = self.spends(secrets, &draft.inputs)?;
        let notes = blinds.iter().map(|blind| wire::Output {
            kind: Some(output::Kind::Note(wire::NoteRequest { tier: blind.tier, blinded: blind.bytes() })),
        });
        let outputs = draft.credits.iter().map(credit_output).chain(notes).collect();
        Ok(build(self.wallet.committee().network.id, &spends, outputs, &draft.memo, None))
    }

    pub(super) fn note(&self, nonce: &Hex32) -> Result<&Note> {
        let missing = || Error::new(Code::BadFile, "the wallet's journal of cash does not have a note that it needs");
        self.book().notes.get(nonce).ok_or_else(missing)
    }

    /// How an order spends these notes, in their order. Errors: `BAD_FILE`.
    pub(super) fn spends(&self, secrets: &Secrets, nonces: &[Hex32]) -> Result<Vec<Spend>> {
        let notes: Vec<&Note> = nonces.iter().map(|nonce| self.note(nonce)).collect::<Result<_>>()?;
        let spends = each(cores(), &notes, |note| spend(secrets, &note.note)).into_iter().map(|parts| {
            let (input, signature, key) = parts?;
            Ok(Spend { input, signature: signature.to_bytes(), sign: Box::new(move |message| key.sign(message)) })
        });
        spends.collect()
    }

    /// Brings an open order to its end. `None`: it has settled, and its notes are made. An error inside: it is sure never to settle.
    /// Errors: it stays open.
    pub(super) async fn drive(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        number: u64,
        on_event: Events<'_>,
    ) -> Result<Option<Error>> {
        let Some(open) = self.book().open.get(&number) else { return Ok(None) };
        if let Purpose::Withdraw { account, .. } = open.purpose {
            return self.drive_withdrawal(network, secrets, number, account, false, on_event).await;
        }
        let envelope = open.envelope.clone();
        let mut submission = network.submit_for_notes(NOTES_SHARD, vec![envelope], on_event).await?;
        match submission.outcomes.remove(0) {
            Ok(_) => {
                self.finish(network, secrets, number, NOTES_SHARD, submission.shares.remove(0)).await.map(|()| None)
            }
            Err(e) => self.why_not(network, secrets, number, e, submission.void[0]).await,
        }
    }

    /// What became of a bearer order that was not settled just now.
    async fn why_not(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        number: u64,
        e: Error,
        void: bool,
    ) -> Result<Option<Error>> {
        let open = &self.book().open[&number];
        let own = Order::decode(open.envelope.clone())?.id;
        let inputs: Vec<(Hex32, u32)> = (open.inputs.iter())
            .filter_map(|(nonce, _)| Some((*nonce, self.book().notes.get(nonce)?.note.recoveries)))
            .collect();
        let nonces: Vec<Hex32> = inputs.iter().map(|(nonce, _)| *nonce).collect();
        let found = match states(network, &nonces).await {
            Ok(found) => found,
            Err(_) => return Err(kept(e)),
        };
        if found.iter().any(|s| s.state == Seen::Spent && s.order_id[..] == own) {
            // A quorum's shares prove that it is final; without any to ask for, only its receipt does.
            if self.book().open[&number].outputs.is_empty() {
                return Err(kept(e));
            }
            self.finish(network, secrets, number, NOTES_SHARD, Vec::new()).await?;
            return Ok(None);
        }
        let fail = |e: &Error| Record::Failed { number, code: e.code as u32, message: e.message.clone() };
        let of_state = |state: Seen| inputs.iter().zip(&found).filter(move |(_, s)| s.state == state);
        if of_state(Seen::Spent).next().is_some() {
            let count = of_state(Seen::Spent).count();
            let what = format!("{count} of {} notes were spent before, by other orders", inputs.len());
            let error = Error { code: Code::NoteSpent, message: what, pending_order: e.pending_order };
            let mut records = vec![fail(&error)];
            records.extend(spent_by(of_state(Seen::Spent).map(|((nonce, _), s)| (*nonce, s.order_id.clone()))));
            self.store.record(records)?;
            return Ok(Some(error));
        }
        let freed: Vec<_> = of_state(Seen::Free).filter(|((_, known), s)| s.recoveries > *known).collect();
        if !freed.is_empty() {
            let freed = freed
                .into_iter()
                .map(|((nonce, _), s)| Record::Freed { notes: vec![*nonce], recoveries: s.recoveries });
            let error = Error::new(Code::NoteFreed, "the log has freed notes of the order since it was signed");
            let records = std::iter::once(fail(&error)).chain(freed).collect();
            self.store.record(records)?;
            return Ok(Some(error));
        }
        if void {
            self.store.record(vec![fail(&e)])?;
            return Ok(Some(e));
        }
        Err(kept(e))
    }

    /// Makes the notes of an order that is final, and notes that it is. Errors: it stays open, and is asked for again.
    pub(super) async fn finish(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        number: u64,
        shard: u32,
        shares: Vec<(usize, Vec<Bytes>)>,
    ) -> Result<()> {
        let outputs = self.book().open[&number].outputs.clone();
        let blinds = match self.blinds.remove(&number) {
            Some(blinds) => blinds,
            None => Blind::all(cores(), secrets, &outputs),
        };
        let mut shares = by_note(&shares, outputs.len());
        let mut keys = self.keys(network).await?;
        for attempt in 0..TRIES {
            let made = unblind(cores(), &keys, &blinds, &shares)?;
            self.liars.extend(&made.liars);
            if let Some(signatures) = made.signatures.iter().copied().collect::<Option<Vec<NoteSignature>>>() {
                let signatures = signatures.iter().map(|s| hex::encode(s.to_bytes())).collect();
                return self.store.record(vec![Record::Settled { number, signatures }]);
            }
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            if !made.liars.is_empty() && self.renew_keys(network).await? {
                keys = self.known_keys()?;
            }
            shares =
                shares_of(&issued(network, shard, &blinds.iter().map(Blind::bytes).collect::<Vec<_>>()).await, &blinds);
        }
        let missing = "the order is final, but too few authorities give their shares of its notes";
        Err(kept(Error::new(Code::QuorumUnreachable, missing)))
    }

    /// A withdrawal, of which the account's own journal tells what became of its order. One that was never signed is given up, but
    /// when it is `new`.
    pub(super) async fn drive_withdrawal(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        number: u64,
        account: u32,
        new: bool,
        on_event: Events<'_>,
    ) -> Result<Option<Error>> {
        let request = self.withdrawal(secrets, number)?;
        let mut shares = Vec::new();
        let mut error = Error::new(Code::Undecided, "the withdrawal was never signed; nothing of it moved");
        for _ in 0..COPIES {
            if self.wallet.made(&request)?.is_some() {
                break;
            }
            if new && let Err(e) = self.sign_withdrawal(network, secrets, &request, account, on_event).await {
                error = e;
            }
            if request.is_pending(&self.wallet) {
                let finished = self.wallet.finish(network, account, &mut *on_event).await.map_err(kept)?;
                if let Some(mut submission) = finished {
                    shares = submission.shares.pop().unwrap_or_default();
                    error = submission.outcomes.pop().and_then(Result::err).unwrap_or(error);
                }
            }
            // Another copy of the wallet may have used the account's number; then it has the next one.
            let moved = matches!(error.code, Code::BadSeq | Code::BadPrevHash | Code::PendingConflict | Code::Voided);
            if !new || !moved || request.is_pending(&self.wallet) {
                break;
            }
        }
        if self.wallet.made(&request)?.is_some() {
            let shard = self.wallet.address(account)?.shard(self.wallet.committee().shards);
            return self.finish(network, secrets, number, shard, shares).await.map(|()| None);
        }
        if request.is_pending(&self.wallet) {
            return Err(kept(error));
        }
        self.store.record(vec![Record::Failed { number, code: error.code as u32, message: error.message.clone() }])?;
        Ok(Some(error))
    }

    async fn sign_withdrawal(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        request: &Request,
        account: u32,
        on_event: Events<'_>,
    ) -> Result<()> {
        if !self.wallet.account(account).known {
            self.wallet.catch_up(network, account).await?;
        }
        self.wallet.finish(network, account, on_event).await?;
        self.wallet.sign_once(network, &secrets.seed, request).await.map(|_| ())
    }

    fn withdrawal(&self, secrets: &Secrets, number: u64) -> Result<Request> {
        let open = &self.book().open[&number];
        let Purpose::Withdraw { account, payment } = &open.purpose else {
            return Err(Error::new(Code::BadFile, "the order is no withdrawal"));
        };
        let made = self.blinds.get(&number).map(|b| b.iter().map(|b| (b.tier, b.bytes())).collect::<Vec<_>>());
        let notes = made.unwrap_or_else(|| {
            Blind::all(cores(), secrets, &open.outputs).iter().map(|b| (b.tier, b.bytes())).collect()
        });
        let notes = notes.into_iter().map(|(tier, blinded)| wire::NoteRequest { tier, blinded }).collect();
        let (id, memo) = (Some(payment.clone()), String::new());
        Ok(Request::Pay(Payment { id, account: *account, outputs: Vec::new(), notes, memo }))
    }

    /// Exchanges all notes in a state for new ones of the wallet's own, as many orders as it takes. What others were faster to
    /// spend is told. Errors: what is not exchanged stays as it was.
    pub(super) async fn exchange(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        purpose: &Purpose,
        wanted: State,
        on_event: Events<'_>,
    ) -> Result<Exchanged> {
        let mut exchanged = Exchanged::default();
        for _ in 0..ROUNDS {
            let notes = self.book().in_state(|state| state == wanted).take(NOTES_PER_ORDER as usize);
            let notes: Vec<(Hex32, u32)> = notes.map(|n| (n.note.nonce, n.note.tier)).collect();
            if notes.is_empty() {
                return Ok(exchanged);
            }
            let total: u64 = notes.iter().map(|(_, tier)| value(*tier)).sum();
            let tiers = self.keys(network).await?.tiers().min(TIERS);
            let made = plan_issue(total, &self.book().free(), tiers, NOTES_IN_ORDER - notes.len() as u64)?;
            let inputs = notes.iter().map(|(nonce, _)| *nonce).collect();
            let (wants, purpose) = (Want::own(made.tiers()), purpose.clone());
            let draft = Draft { purpose, id: None, inputs, credits: vec![], wants, memo: String::new() };
            let number = self.prepare(network, secrets, draft).await?;
            match self.drive(network, secrets, number, on_event).await? {
                None => exchanged.got += u128::from(total),
                Some(e) if matches!(e.code, Code::NoteSpent | Code::NoteFreed) => {
                    exchanged.lost.extend(self.lost(&notes));
                }
                Some(e) => return Err(e),
            }
        }
        Err(Error::new(Code::Undecided, "notes are spent faster than they can be exchanged"))
    }

    /// Of these notes, those that somebody else has spent.
    pub(super) fn lost(&self, notes: &[(Hex32, u32)]) -> Vec<Lost> {
        let lost = |(nonce, tier): &(Hex32, u32)| match self.gone(nonce)? {
            Gone::Elsewhere(by) => Some(Lost { nonce: *nonce, tier: *tier, by: by.clone() }),
            Gone::Here => None,
        };
        notes.iter().filter_map(lost).collect()
    }

    /// Changes notes into the fewest that are worth the same.
    pub(super) async fn merge(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        notes: Vec<(Hex32, u32)>,
        on_event: Events<'_>,
    ) -> Result<()> {
        let total: u64 = notes.iter().map(|(_, tier)| value(*tier)).sum();
        let tiers = self.keys(network).await?.tiers().min(TIERS);
        let inputs = notes.into_iter().map(|(nonce, _)| nonce).collect();
        let wants = Want::own(fewest(total, tiers)?.tiers());
        let draft = Draft { purpose: Purpose::Merge, id: None, inputs, credits: vec![], wants, memo: String::new() };
        let number = self.prepare(network, secrets, draft).await?;
        match self.drive(network, secrets, number, on_event).await? {
            // A copy of the wallet has spent some: whoever plans again knows.
            Some(e) if !matches!(e.code, Code::NoteSpent | Code::NoteFreed) => Err(e),
            _ => Ok(()),
        }
    }
}

/// What it takes to spend a note: how it stands in an order, the committee's signature, its owner's key. Errors: `BAD_FILE`.
fn spend(secrets: &Secrets, note: &NoteRecord) -> Result<(wire::NoteInput, NoteSignature, AuthorityKey)> {
    let seed = match &note.origin {
        Origin::Own { counter } | Origin::Lent { counter, .. } => secrets.notes.note(*counter).secret(),
        Origin::Given { sealed } => secrets.unseal(&note.nonce, sealed)?,
        Origin::Locked { index, .. } => secrets.notes.receiver(*index),
    };
    let lock = note.origin.lock().map(Lock::wire);
    let input = wire::NoteInput {
        tier: note.tier,
        nonce: if lock.is_some() { Bytes::new() } else { Bytes::copy_from_slice(&note.nonce.0) },
        lock,
        returned: matches!(note.origin, Origin::Lent { .. }),
        recoveries: note.recoveries,
    };
    Ok((input, signature_of(&note.signature)?, AuthorityKey::from_seed(*seed)))
}

/// The signature in a journal. Errors: `BAD_FILE`.
pub(super) fn signature_of(text: &str) -> Result<NoteSignature> {
    let bytes = hex::decode(text).ok().and_then(|bytes| NoteSignature::parse(&bytes).ok());
    bytes.ok_or_else(|| Error::new(Code::BadFile, "the wallet's journal of cash holds a damaged signature"))
}

/// An error of an order that stays open.
pub(super) fn kept(e: Error) -> Error {
    Error { message: format!("{}; kept: the next `florin cash` command goes on with it", e.message), ..e }
}

/// What each authority has signed of these at one shard.
pub(super) async fn issued(network: &Network, shard: u32, blinded: &[Bytes]) -> Vec<Result<wire::NotesReply>> {
    let request = wire::NotesRequest { shard, blinded: blinded.to_vec(), ..Default::default() };
    let ask = move |mut client: Client| {
        let request = request.clone();
        async move { client.notes(request).await }
    };
    network.ask_all(shard, ask).await
}

type Client = florin_rpc::services::authority_service_client::AuthorityServiceClient<tonic::transport::Channel>;

/// The same at all shards, by shard.
pub(super) async fn issued_everywhere(network: &Network, blinded: &[Bytes]) -> Vec<Vec<Result<wire::NotesReply>>> {
    let mut asking = tokio::task::JoinSet::new();
    for shard in 0..network.committee().shards {
        let (network, blinded) = (network.clone(), blinded.to_vec());
        asking.spawn(async move { (shard, issued(&network, shard, &blinded).await) });
    }
    let mut found = BTreeMap::new();
    while let Some(joined) = asking.join_next().await {
        if let Ok((shard, replies)) = joined {
            found.insert(shard, replies);
        }
    }
    found.into_values().collect()
}

/// By note: the shares for its tier, by authority.
pub(super) fn shares_of(replies: &[Result<wire::NotesReply>], asked: &[Blind]) -> Vec<Vec<(usize, Bytes)>> {
    let share = |reply: &wire::NotesReply, i: usize| {
        let issued = reply.issued.get(i)?;
        let place = issued.tiers.iter().position(|tier| *tier == asked[i].tier)?;
        issued.shares.get(place).cloned()
    };
    let of_note = |i| {
        let said = replies.iter().enumerate().filter_map(|(a, r)| Some((a, r.as_ref().ok()?)));
        said.filter_map(|(a, r)| Some((a, share(r, i)?))).collect()
    };
    (0..asked.len()).map(of_note).collect()
}

/// Any order is as likely as any other. Errors: `IO` without randomness.
pub(super) fn shuffle<T>(items: &mut [T]) -> Result<()> {
    for last in (1..items.len()).rev() {
        let mut bytes = [0; 8];
        random(&mut bytes)?;
        items.swap(last, (u64::from_le_bytes(bytes) % (last as u64 + 1)) as usize);
    }
    Ok(())
}
