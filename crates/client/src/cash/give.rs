//! From the account to notes, from notes to other people, and back to an account.

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::amount::format_amount;
use florin_core::content::Credit;
use florin_core::limits::MEMO_BYTES_MAX;
use florin_core::{Code, Error, Result, wire};
use zeroize::Zeroizing;

use super::amounts::{
    Counts, NOTES_IN_ORDER, NOTES_PER_ORDER, NOTES_PER_STRING, Plan, Step, TIERS, fewest, plan_issue, plan_spend, value,
};
use super::order::{Draft, Exchanged, Want, signature_of};
use super::records::{Hex32, Origin, Purpose, Record, State};
use super::store::Secrets;
use super::text::encode_notes;
use super::{CashWallet, Events};
use crate::network::Network;
use crate::time::{now_ms, utc};

/// What is to be given away.
#[derive(Clone, Debug)]
pub struct Sending {
    /// Minor units.
    pub amount: u64,
    /// For the receiver alone.
    pub memo: String,
    /// The user's: with it, it is sent once.
    pub id: Option<String>,
    /// The key that it is locked to, and from when on it can be taken back, ms since 1970.
    pub lock: Option<(Hex32, u64)>,
}

/// What came of taking back what was sent.
pub type Cancelled = Exchanged;

impl CashWallet {
    /// Makes notes of an account's money. Returns the number of the order.
    /// Errors: `INSUFFICIENT_FUNDS`, `LIMIT`; as of sending an order: then it is kept.
    pub async fn withdraw(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        account: u32,
        amount: u64,
        on_event: Events<'_>,
    ) -> Result<u64> {
        self.wallet.address(account)?;
        let tiers = self.keys(network).await?.tiers().min(TIERS);
        let made = plan_issue(amount, &self.book().free(), tiers, NOTES_IN_ORDER)?;
        // Unique in the account's journal, also after this one was lost.
        let payment = format!("cash {} {}", now_ms(), self.book().next);
        let purpose = Purpose::Withdraw { account, payment };
        let wants = Want::own(made.tiers());
        let draft = Draft { purpose, id: None, inputs: vec![], credits: vec![], wants, memo: String::new() };
        let number = self.prepare(network, secrets, draft).await?;
        match self.drive_withdrawal(network, secrets, number, account, true, on_event).await? {
            None => Ok(number),
            Some(e) => Err(e),
        }
    }

    /// Takes notes of an amount out of the wallet, changing one first if none fit. Returns its number among what was sent:
    /// [`CashWallet::string`] has the notes. Errors: `INSUFFICIENT_FUNDS`, `LIMIT`; `USAGE` for another amount with
    /// the same id; as of sending an order: then it is kept.
    pub async fn send(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        sending: &Sending,
        on_event: Events<'_>,
    ) -> Result<u64> {
        if sending.memo.len() > MEMO_BYTES_MAX {
            let expected = format!("at most {MEMO_BYTES_MAX}");
            return Err(Error::expected(Code::Limit, "bytes of the memo", expected, sending.memo.len()));
        }
        if let Some(number) = self.sent_before(sending)? {
            return Ok(number);
        }
        let few = fewest(sending.amount, TIERS)?;
        let enough = NOTES_PER_STRING.max(few.notes());
        let Plan { notes, change, split } = self.plan(network, secrets, sending.amount, on_event).await?;
        if change == 0 && sending.lock.is_none() && notes.notes() <= enough {
            let nonces = self.choose(&notes);
            let number = self.book().next;
            let (memo, id) = (sending.memo.clone(), sending.id.clone());
            self.store.record(vec![Record::Sent { number, notes: nonces, memo, id, time: now_ms() }])?;
            return Ok(number);
        }
        // Only the note that is too large is changed, unless all of them have to be made anew.
        let part = split.filter(|_| sending.lock.is_none() && notes.notes() <= enough);
        let (inputs, fresh) = match part {
            Some(tier) => (Counts::of([tier]), value(tier) - change),
            None => (notes, sending.amount),
        };
        let tiers = self.keys(network).await?.tiers().min(TIERS);
        let lock = sending.lock;
        let fresh = fewest(fresh, tiers)?;
        let mut wants: Vec<Want> = fresh.tiers().map(|tier| Want { tier, send: true, lock }).collect();
        let left = self.book().free().without(&notes);
        let room = NOTES_IN_ORDER.saturating_sub(inputs.notes() + fresh.notes());
        wants.extend(Want::own(plan_issue(change, &left, tiers, room)?.tiers()));
        let direct = self.choose(&notes.without(&inputs));
        let inputs = self.choose_other(&inputs, &direct);
        let purpose = Purpose::Send { notes: direct, memo: sending.memo.clone() };
        let id = sending.id.clone();
        let draft = Draft { purpose, id, inputs, credits: vec![], wants, memo: String::new() };
        let number = self.prepare(network, secrets, draft).await?;
        self.settled(network, secrets, number, on_event).await
    }

    /// Drives an order that was made just now.
    async fn settled(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        number: u64,
        on_event: Events<'_>,
    ) -> Result<u64> {
        match self.drive(network, secrets, number, on_event).await? {
            None => Ok(number),
            Some(e) if matches!(e.code, Code::NoteSpent | Code::NoteFreed) => {
                let message =
                    "a copy of this wallet has spent some of these notes, which is noted; nothing was sent: try again";
                Err(Error::new(Code::Undecided, message))
            }
            Some(e) => Err(e),
        }
    }

    /// What was sent with the same id.
    fn sent_before(&self, sending: &Sending) -> Result<Option<u64>> {
        let Some(number) = sending.id.as_ref().and_then(|id| self.book().ids.get(id)) else { return Ok(None) };
        let Some(sent) = self.book().sent.get(number) else { return Ok(None) };
        if sent.total() == u128::from(sending.amount) && sent.memo == sending.memo {
            return Ok(Some(*number));
        }
        let what = format!("what was sent with id {:?}", sending.id.as_deref().unwrap_or_default());
        let show = |total: u128, memo: &str| format!("{total} minor units, memo {memo:?}");
        let (expected, found) = (show(sent.total(), &sent.memo), show(sending.amount.into(), &sending.memo));
        Err(Error::expected(Code::Usage, &what, expected, found))
    }

    /// Notes of an amount, after merging small ones if one order can't spend so many.
    async fn plan(&mut self, network: &Network, secrets: &Secrets, amount: u64, on_event: Events<'_>) -> Result<Plan> {
        loop {
            let have = self.book().free();
            let step = plan_spend(&have, amount, NOTES_PER_ORDER).map_err(|e| match e.code {
                Code::InsufficientFunds => {
                    let network = &self.wallet.committee().network;
                    let show = |minor: i128| format!("{} {}", format_amount(minor, network.decimals), network.currency);
                    let has = show(have.total().try_into().unwrap_or(i128::MAX));
                    let message = format!("the wallet has {has} in cash, this takes {}", show(amount.into()));
                    Error::new(Code::InsufficientFunds, message)
                }
                _ => e,
            })?;
            let notes = match step {
                Step::Pay(plan) => return Ok(plan),
                Step::Merge(notes) => notes,
            };
            let of_tier = |nonce: &Hex32| (*nonce, self.book().notes[nonce].note.tier);
            let chosen = self.choose(&notes).iter().map(of_tier).collect();
            self.merge(network, secrets, chosen, on_event).await?;
        }
    }

    /// Free notes, so many of each tier.
    fn choose(&self, counts: &Counts) -> Vec<Hex32> {
        self.choose_other(counts, &[])
    }

    /// The same, but none of these.
    fn choose_other(&self, counts: &Counts, but: &[Hex32]) -> Vec<Hex32> {
        let mut left = *counts;
        let free = self.book().in_state(|state| state == State::Free).filter(|n| !but.contains(&n.note.nonce));
        let chosen = free.filter(|n| {
            let wanted = left[n.note.tier] > 0;
            left[n.note.tier] -= u32::from(wanted);
            wanted
        });
        chosen.map(|n| n.note.nonce).collect()
    }

    /// What was sent, as a string: those of its notes that nobody was seen to spend. Errors: `USAGE` if there is none.
    pub fn string(&self, secrets: &Secrets, number: u64) -> Result<Zeroizing<String>> {
        let sent = self.book().sent.get(&number);
        let sent = sent.ok_or_else(|| Error::expected(Code::Usage, "number", "of something sent", number))?;
        let mut notes = Vec::with_capacity(sent.notes.len());
        for (nonce, tier) in &sent.notes {
            let Some(note) = self.book().notes.get(nonce).filter(|n| n.state == State::Sent(number)) else { continue };
            let signature = Bytes::copy_from_slice(&signature_of(&note.note.signature)?.to_bytes());
            let (secret, lock) = match &note.note.origin {
                Origin::Own { counter } => (Bytes::copy_from_slice(&secrets.notes.note(*counter).secret()[..]), None),
                Origin::Given { sealed } => (Bytes::copy_from_slice(&secrets.unseal(nonce, sealed)?[..]), None),
                Origin::Lent { lock, .. } | Origin::Locked { lock, .. } => (Bytes::new(), Some(lock.wire())),
            };
            notes.push(wire::CashNote { tier: *tier, secret, signature, lock });
        }
        if notes.is_empty() {
            return Err(Error::new(
                Code::Usage,
                format!("number {number} was claimed or taken back: nothing is left of it"),
            ));
        }
        let committee = self.wallet.committee();
        let committee_id = Bytes::copy_from_slice(committee.id());
        let notes = wire::CashNotes { network_id: committee.network.id, committee_id, notes, memo: sent.memo.clone() };
        Ok(Zeroizing::new(encode_notes(&notes, committee)))
    }

    /// Takes back what was sent, as far as nobody has claimed it. Errors: `USAGE` if there is no such number or nothing is left;
    /// `NOTE_NOT_DUE` before the date of its lock; as of sending an order.
    pub async fn cancel(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        number: u64,
        on_event: Events<'_>,
    ) -> Result<Cancelled> {
        if !self.book().sent.contains_key(&number) {
            return Err(Error::expected(Code::Usage, "number", "of something sent", number));
        }
        let of_it: Vec<_> = self.book().in_state(|state| state == State::Sent(number)).collect();
        let due = of_it.iter().filter_map(|n| n.note.origin.lock()).map(|lock| lock.after_ms).max().unwrap_or(0);
        let nonces: Vec<Hex32> = of_it.iter().map(|n| n.note.nonce).collect();
        if due > now_ms() {
            if self.look(network, &nonces).await? == nonces.len() {
                let sent = self.book().sent[&number].notes.clone();
                return Ok(Cancelled { got: 0, lost: self.lost(&sent) });
            }
            let message = format!("only its receiver can spend it until {}", utc(due));
            return Err(Error::new(Code::NoteNotDue, message));
        }
        self.exchange(network, secrets, &Purpose::Cancel { sent: number }, State::Sent(number), on_event).await
    }

    /// Pays an address with notes. Returns the numbers of the orders: one, but for `amount` `None`, which is all there is.
    /// Errors: as of [`CashWallet::send`].
    pub async fn deposit(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        address: Address,
        amount: Option<u64>,
        memo: &str,
        on_event: Events<'_>,
    ) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        loop {
            let (inputs, pays, change) = match amount {
                Some(amount) => {
                    let plan = self.plan(network, secrets, amount, on_event).await?;
                    (self.choose(&plan.notes), amount, plan.change)
                }
                None => {
                    let mut notes: Vec<_> = self.book().in_state(|state| state == State::Free).collect();
                    notes.sort_by_key(|n| std::cmp::Reverse(n.note.tier));
                    notes.truncate(NOTES_PER_ORDER as usize);
                    if notes.is_empty() && !numbers.is_empty() {
                        return Ok(numbers);
                    }
                    let total = notes.iter().map(|n| value(n.note.tier)).sum();
                    (notes.iter().map(|n| n.note.nonce).collect(), total, 0)
                }
            };
            if inputs.is_empty() {
                return Err(Error::new(Code::InsufficientFunds, "the wallet has no cash"));
            }
            let tiers = self.keys(network).await?.tiers().min(TIERS);
            let spent = Counts::of(inputs.iter().map(|nonce| self.book().notes[nonce].note.tier));
            let left = self.book().free().without(&spent);
            let room = NOTES_IN_ORDER.saturating_sub(inputs.len() as u64 + 1);
            let wants = Want::own(plan_issue(change, &left, tiers, room)?.tiers());
            let purpose = Purpose::Deposit { address: Hex32(*address.as_bytes()), amount: pays };
            let credits = vec![Credit { address, amount: pays }];
            let draft = Draft { purpose, id: None, inputs, credits, wants, memo: memo.to_owned() };
            let number = self.prepare(network, secrets, draft).await?;
            numbers.push(self.settled(network, secrets, number, on_event).await?);
            if amount.is_some() {
                return Ok(numbers);
            }
        }
    }
}
