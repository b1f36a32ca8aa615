//! From other people: notes are checked, kept, and exchanged for new ones that nobody else knows.

use florin_core::bearer::lock_nonce;
use florin_core::cash::batch::verify_notes;
use florin_core::cash::blind::{Nonce, NoteSignature};
use florin_core::signatures::AuthorityKey;
use florin_core::{Code, Error, Result, wire};

use super::amounts::value;
use super::cores::{cores, each, in_parts};
use super::order::Exchanged;
use super::records::{Gone, Hex32, LENT, Lock, NoteRecord, Origin, Purpose, Record, State};
use super::store::Secrets;
use super::text::{decode_notes, encode_key};
use super::{CashWallet, Events};
use crate::network::Network;
use crate::time::now_ms;

/// One-time keys beyond those that the journal knows of that are tried: another copy of the wallet may have given them out.
const KEYS_AHEAD: u64 = 100;

/// Notes that came in.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Number among what came in.
    pub number: u64,
    /// Minor units that they say they are worth.
    pub total: u128,
    /// Notes.
    pub notes: usize,
    /// The sender's.
    pub memo: String,
    /// What the exchange gave.
    pub exchanged: Exchanged,
}

/// Notes that came in without a network.
#[derive(Clone, Debug)]
pub struct Offline {
    /// Number among what came in.
    pub number: u64,
    /// Minor units.
    pub total: u128,
    /// Notes.
    pub notes: usize,
    /// The sender's.
    pub memo: String,
    /// If all of them are locked to keys of this wallet: until when nobody else can spend any, ms since 1970.
    pub until_ms: Option<u64>,
}

impl CashWallet {
    /// A new key to which others can lock notes for this wallet, as text. Errors: `IO`.
    pub fn request(&mut self, secrets: &Secrets) -> Result<String> {
        let index = self.book().requests;
        self.store.record(vec![Record::Requested { index }])?;
        let key = AuthorityKey::from_seed(*secrets.notes.receiver(index)).public();
        Ok(encode_key(key.as_bytes(), self.wallet.committee()))
    }

    /// Makes the notes of a string the wallet's own. Errors: those of the string; `BAD_NOTE` if the committee has not signed them;
    /// `USAGE` if they are this wallet's own, or came in before; as of sending an order: then they are kept. That some were spent
    /// before is no error here: it is in what is returned.
    pub async fn receive(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        text: &str,
        on_event: Events<'_>,
    ) -> Result<Taken> {
        self.keys(network).await?;
        let (number, memo) = match self.take(secrets, text)? {
            Incoming::New { notes, memo } => (self.keep(notes, &memo)?, memo),
            Incoming::Waiting { number } => (number, self.book().received[&number].memo.clone()),
        };
        let exchanged = self.exchange_received(network, secrets, number, on_event).await?;
        let received = &self.book().received[&number];
        Ok(Taken { number, total: received.total(), notes: received.notes.len(), memo, exchanged })
    }

    /// Keeps the notes of a string, checked without a network, until there is one. Errors: as of [`CashWallet::receive`];
    /// `CASH_NOT_READY` if the wallet has never seen the committee's keys.
    pub fn receive_offline(&mut self, secrets: &Secrets, text: &str) -> Result<Offline> {
        self.known_keys()?;
        let number = match self.take(secrets, text)? {
            Incoming::New { notes, memo } => self.keep(notes, &memo)?,
            Incoming::Waiting { number } => number,
        };
        let received = &self.book().received[&number];
        let (total, notes, memo) = (received.total(), received.notes.len(), received.memo.clone());
        let until = |nonce: &Hex32| match &self.book().notes.get(nonce)?.note.origin {
            Origin::Locked { lock, .. } => Some(lock.after_ms),
            _ => None,
        };
        let until: Option<Vec<u64>> = received.notes.iter().map(|(nonce, _)| until(nonce)).collect();
        let until_ms = until.and_then(|until| until.into_iter().min()).filter(|until| *until > now_ms());
        Ok(Offline { number, total, notes, memo, until_ms })
    }

    /// Exchanges what is left of something that came in.
    pub(super) async fn exchange_received(
        &mut self,
        network: &Network,
        secrets: &Secrets,
        number: u64,
        on_event: Events<'_>,
    ) -> Result<Exchanged> {
        // An earlier command may have begun.
        let open: Vec<u64> = (self.book().open.iter())
            .filter(|(_, open)| open.purpose == Purpose::Receive { received: number })
            .map(|(order, _)| *order)
            .collect();
        for order in open {
            self.drive(network, secrets, order, on_event).await?;
        }
        let purpose = Purpose::Receive { received: number };
        let state = State::Received(number);
        let mut exchanged = self.exchange(network, secrets, &purpose, state, on_event).await?;
        // Of the whole string, whoever exchanged what.
        let notes = self.book().received[&number].notes.clone();
        let here = notes.iter().filter(|(nonce, _)| self.gone(nonce) == Some(&Gone::Here));
        exchanged.got = here.map(|(_, tier)| u128::from(value(*tier))).sum();
        exchanged.lost = self.lost(&notes);
        Ok(exchanged)
    }

    /// The number under which the notes of a string were sent, if this wallet has sent them and has not forgotten it.
    /// Errors: those of the string.
    pub fn sent_as(&self, secrets: &Secrets, text: &str) -> Result<Option<u64>> {
        let notes = decode_notes(text, self.wallet.committee())?;
        for note in &notes.notes {
            let Ok(record) = self.read(secrets, note) else { continue };
            let of_it = |sent: &super::records::Handed| sent.notes.iter().any(|(nonce, _)| *nonce == record.nonce);
            if let Some((number, _)) = self.book().sent.iter().find(|(_, sent)| of_it(sent)) {
                return Ok(Some(*number));
            }
        }
        Ok(None)
    }

    fn keep(&mut self, notes: Vec<NoteRecord>, memo: &str) -> Result<u64> {
        let number = self.book().next;
        self.store.record(vec![Record::Received { number, notes, memo: memo.to_owned(), time: now_ms() }])?;
        Ok(number)
    }

    /// Checks the notes of a string.
    fn take(&mut self, secrets: &Secrets, text: &str) -> Result<Incoming> {
        let notes = decode_notes(text, &self.wallet.committee().clone())?;
        let mut records = Vec::with_capacity(notes.notes.len());
        for (i, note) in notes.notes.iter().enumerate() {
            let record = self.read(secrets, note);
            let record = record.map_err(|e| Error { message: format!("note {}: {}", i + 1, e.message), ..e })?;
            if records.iter().any(|r: &NoteRecord| r.nonce == record.nonce) {
                return Err(Error::new(Code::BadNote, format!("note {} is in the string twice", i + 1)));
            }
            records.push(record);
        }
        if let Some(number) = self.known(&records)? {
            return Ok(Incoming::Waiting { number });
        }
        self.verify(&records)?;
        Ok(Incoming::New { notes: records, memo: notes.memo })
    }

    /// What the wallet knows of these notes already: something that came in and waits. Errors: `USAGE`, `NOTE_SPENT`.
    fn known(&self, records: &[NoteRecord]) -> Result<Option<u64>> {
        let usage = |message: String| Err(Error::new(Code::Usage, message));
        for record in records {
            let held = |order: &u64| self.book().open.get(order).map(|open| open.purpose.clone());
            match self.book().notes.get(&record.nonce).map(|n| n.state) {
                Some(State::Received(number)) => return Ok(Some(number)),
                Some(State::Sent(number)) => {
                    let back = format!("`florin cash cancel {number}` takes it back");
                    return usage(format!("this wallet has sent these notes itself; {back}"));
                }
                Some(State::Held(order)) => {
                    if let Some(Purpose::Receive { received }) = held(&order) {
                        return Ok(Some(received));
                    }
                    return usage("these notes are this wallet's own, and an order of it spends them".into());
                }
                Some(State::Free) => return usage("these notes are this wallet's own".into()),
                None => {}
            }
        }
        let came = |nonce: &Hex32| {
            self.book()
                .received
                .iter()
                .find(|(_, r)| r.notes.iter().any(|(n, _)| n == nonce))
                .map(|(number, _)| *number)
        };
        match records.iter().find_map(|record| Some((self.gone(&record.nonce)?, came(&record.nonce)))) {
            Some((_, Some(number))) => usage(format!("these notes came in before, as number {number}")),
            Some((Gone::Here, None)) => usage("this wallet has had these notes and has spent them".into()),
            Some((Gone::Elsewhere(by), None)) => {
                let message =
                    format!("this wallet has had these notes, and somebody else has spent them, by order {by}");
                Err(Error::new(Code::NoteSpent, message))
            }
            None => Ok(None),
        }
    }

    /// Whether the committee has signed them. Errors: `BAD_NOTE`, naming those that are none.
    fn verify(&mut self, records: &[NoteRecord]) -> Result<()> {
        let keys = self.known_keys()?;
        let claim = |record: &NoteRecord| {
            let key = keys.tier_key(record.tier).ok_or_else(|| {
                Error::expected(Code::BadNote, "tier of a note", format!("below {}", keys.tiers()), record.tier)
            })?;
            let signature = hex::decode(&record.signature).unwrap_or_default();
            Ok((*key, Nonce(record.nonce.0), NoteSignature::parse(&signature)?))
        };
        let claims: Vec<_> = each(cores(), records, claim).into_iter().collect::<Result<_>>()?;
        let valid = in_parts(cores(), claims.len(), |part| verify_notes(&claims[part])).concat();
        let bad: Vec<String> =
            (1..).zip(&valid).filter(|(_, ok)| !**ok).map(|(i, _): (usize, _)| i.to_string()).collect();
        if bad.is_empty() {
            return Ok(());
        }
        let message =
            format!("the committee has never signed note {} of {}: nothing is taken", bad.join(", "), valid.len());
        Err(Error::new(Code::BadNote, message))
    }

    fn read(&self, secrets: &Secrets, note: &wire::CashNote) -> Result<NoteRecord> {
        let (tier, signature) = (note.tier, hex::encode(&note.signature));
        let Some(lock) = &note.lock else {
            let secret: [u8; 32] =
                note.secret[..].try_into().map_err(|_| Error::new(Code::Decode, "its secret is cut"))?;
            let nonce = Hex32(*AuthorityKey::from_seed(secret).public().as_bytes());
            let origin = Origin::Given { sealed: secrets.seal(&nonce, &secret)? };
            return Ok(NoteRecord { nonce, tier, signature, recoveries: 0, origin });
        };
        let nonce = lock_nonce(lock).into();
        let lock = Lock::read(lock)?;
        let key = |index| Hex32(*AuthorityKey::from_seed(*secrets.notes.receiver(index)).public().as_bytes());
        let sender = |counter| Hex32::from(secrets.notes.note(counter).nonce());
        let origin = if let Some(index) = (0..self.book().requests + KEYS_AHEAD).find(|i| key(*i) == lock.receiver) {
            Origin::Locked { index, lock }
        } else if let Some(counter) = (LENT..self.book().next_lent() + KEYS_AHEAD).find(|c| sender(*c) == lock.sender) {
            Origin::Lent { counter, lock }
        } else {
            return Err(Error::new(Code::BadNote, "it is locked to a key that is not this wallet's"));
        };
        Ok(NoteRecord { nonce, tier, signature, recoveries: 0, origin })
    }
}

/// What a string brings.
enum Incoming {
    New {
        notes: Vec<NoteRecord>,
        memo: String,
    },
    /// It came in before, and is not exchanged yet.
    Waiting {
        number: u64,
    },
}
