//! What a wallet's journal says, and what follows from it.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::content::{Action, Content, TYPE_CALL};
use florin_core::envelope::Order;
use florin_core::permission::Permission;
use florin_core::wire;
use florin_core::{Code, Error, Result};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::once::Ids;

/// One fact about an account, in the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Record {
    /// Whose journal this is; the first record.
    Owner {
        /// Address of account 0, hex.
        address: String,
    },
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
        /// Id of the payment, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
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
    /// It is void, or the user gave it up: its sequence number is used again.
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
    /// Enough authorities agreed on its balance, after its last final order.
    Balance {
        /// Account of the wallet.
        account: u32,
        /// Minor units; decimal.
        minor: String,
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
    /// Enough authorities agreed which keys the account has.
    Keys {
        /// Account of the wallet.
        account: u32,
        /// Whether one is its own BLS key, which signs roots of batches.
        bls: bool,
    },
    /// The log has decided what became of a CALL's shared side, say enough authorities.
    Ordered {
        /// Account of the wallet.
        account: u32,
        /// Its sequence number.
        seqnum: u32,
        /// Where in the log.
        session: u64,
        /// Unit of the session.
        unit: u32,
        /// 0, or why the shared side failed; then what was debited is refunded.
        code: u32,
        /// What happened then.
        message: String,
    },
    /// A request to free the account was signed.
    Recover {
        /// Account of the wallet.
        account: u32,
        /// The sequence number that is locked.
        seqnum: u32,
        /// The envelope, hex.
        envelope: String,
    },
    /// The log has frozen the account, say enough authorities.
    Frozen {
        /// Account of the wallet.
        account: u32,
        /// The sequence number that is locked.
        seqnum: u32,
        /// Log time by which it decides, milliseconds since 1970.
        until_ms: u64,
    },
    /// The log has decided about a locked sequence number.
    Recovered {
        /// Account of the wallet.
        account: u32,
        /// The sequence number.
        seqnum: u32,
        /// prev_hash of the next order if the number is void, decimal; absent if an order has settled there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        void: Option<String>,
        /// The account's last CALL.
        last_call: u32,
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
    /// Minor units that it has at least, after its last final order, if the journal can tell.
    pub floor: Option<i128>,
    /// Sequence number of its last final or proved CALL, 0 if there is none, if the journal can tell.
    pub last_call: Option<u32>,
    /// Final CALLs of which it is not known what the log has decided, ascending.
    pub unordered: Vec<u32>,
    /// What the log has decided about final CALLs, by sequence number.
    pub ordered: BTreeMap<u32, Ordered>,
    /// The recovery that the account waits for.
    pub recovery: Option<Recovery>,
    /// Sequence numbers that recoveries have voided.
    pub voided: Vec<u32>,
    /// Whether it has a BLS key, as far as the journal can tell, so that it signs roots of batches.
    pub distils: bool,
}

/// What the log has decided about a CALL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// Where in the log.
    pub session: u64,
    /// Unit of the session.
    pub unit: u32,
    /// Why its shared side failed, and what was debited is refunded.
    pub failed: Option<Error>,
}

/// A recovery under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The locked sequence number.
    pub seqnum: u32,
    /// The RECOVER, unless another copy of the wallet signed it.
    pub envelope: Option<Bytes>,
    /// Log time by which it is decided, milliseconds since 1970, once the account is frozen.
    pub until_ms: Option<u64>,
}

impl Account {
    /// Sequence number of its next order.
    pub fn next_seqnum(&self) -> u32 {
        self.next().0
    }

    /// Sequence number and prev_hash of its next order.
    pub(super) fn next(&self) -> (u32, u64) {
        match self.pending.last() {
            Some(last) => (last.seqnum + 1, last.order().map(|o| o.next_hash()).unwrap_or_default()),
            None => (self.seqnum + 1, self.prev_hash),
        }
    }
}

impl Pending {
    /// The envelope, decoded. Errors: those of [`Order::decode`], if the journal holds something else.
    pub fn order(&self) -> Result<Order> {
        Order::decode(self.envelope.clone())
    }
}

/// The accounts that a journal speaks of.
#[derive(Default)]
pub(super) struct Book {
    pub(super) owner: Option<String>,
    pub(super) accounts: BTreeMap<u32, Account>,
    pub(super) ids: Ids,
}

impl Book {
    /// Draws the consequences of one record. Errors: `BAD_FILE`.
    pub(super) fn apply(&mut self, record: Record) -> Result<()> {
        let bad = |what: &str| Error::new(Code::BadFile, format!("the wallet's journal holds {what}"));
        let bytes = |text: &str| hex::decode(text).map(Bytes::from).map_err(|_| bad("something that is not hex"));
        match record {
            Record::Owner { address } => self.owner = Some(address),
            Record::Signed { account, seqnum, envelope, time, id } => {
                let state = self.accounts.entry(account).or_default();
                state.known = true;
                let pending = Pending { seqnum, envelope: bytes(&envelope)?, time };
                let order = pending.order().map_err(|_| bad("a damaged order"))?;
                if state.next().0 != seqnum {
                    return Err(bad("orders that do not follow each other"));
                }
                self.ids.note(id, account, &order, &pending);
                state.pending.push(pending);
            }
            Record::Final { account, seqnum, receipt, time } => {
                let receipt = wire::Receipt::decode(bytes(&receipt)?).map_err(|_| bad("a damaged receipt"))?;
                let order = Order::decode(receipt.transaction.clone()).map_err(|_| bad("a damaged receipt"))?;
                let state = self.accounts.entry(account).or_default();
                state.known = true;
                state.pending.retain(|p| p.seqnum > seqnum);
                let calls = order.transaction_type == TYPE_CALL;
                let content = Content::decode(&order).map_err(|_| bad("a damaged receipt"))?;
                if let Action::SetPermission(permission) = &content.action {
                    state.distils = Permission::decode_account(permission)?.distils().is_some();
                }
                if calls && !state.ordered.contains_key(&seqnum) && !state.unordered.contains(&seqnum) {
                    state.unordered.push(seqnum);
                    state.unordered.sort_unstable();
                }
                if seqnum > state.seqnum {
                    let follows = seqnum == state.seqnum + 1;
                    state.last_call = match (calls, seqnum) {
                        (true, _) => Some(seqnum),
                        (false, 1) => Some(0),
                        (false, _) => state.last_call.filter(|_| follows),
                    };
                    state.floor = state.floor.filter(|_| follows).map(|floor| floor - i128::from(content.total));
                    (state.seqnum, state.prev_hash) = (seqnum, order.next_hash());
                }
                state.sent.push(Sent { seqnum, receipt, time });
            }
            Record::Refused { account, seqnum, .. } => {
                // What was chained to it is void with it.
                let state = self.accounts.entry(account).or_default();
                state.pending.retain(|p| p.seqnum < seqnum);
            }
            Record::Balance { account, minor } => {
                let minor = minor.parse().map_err(|_| bad("a balance that is no number"))?;
                self.accounts.entry(account).or_default().floor = Some(minor);
            }
            Record::Adopted { account, seqnum, prev_hash } => {
                let prev_hash = prev_hash.parse().map_err(|_| bad("a prev_hash that is no number"))?;
                let state = self.accounts.entry(account).or_default();
                state.known = true;
                if seqnum >= state.seqnum {
                    let same = (seqnum, prev_hash) == (state.seqnum, state.prev_hash);
                    state.last_call = if seqnum == 0 { Some(0) } else { state.last_call.filter(|_| same) };
                    state.floor = None;
                    (state.seqnum, state.prev_hash) = (seqnum, prev_hash);
                    state.pending.retain(|p| p.seqnum > seqnum);
                    let first = state.pending.first().map(|p| p.order()).transpose()?;
                    if first.is_some_and(|o| (o.seqnum, o.prev_hash) != (seqnum + 1, prev_hash)) {
                        state.pending.clear();
                    }
                }
            }
            Record::Keys { account, bls } => self.accounts.entry(account).or_default().distils = bls,
            Record::Ordered { account, seqnum, session, unit, code, message } => {
                let state = self.accounts.entry(account).or_default();
                state.unordered.retain(|s| *s != seqnum);
                let failed = (code != 0).then(|| Error::new(Code::from_number(code).unwrap_or(Code::Decode), message));
                state.ordered.insert(seqnum, Ordered { session, unit, failed });
            }
            Record::Recover { account, seqnum, envelope } => {
                let envelope = Some(bytes(&envelope)?);
                let state = self.accounts.entry(account).or_default();
                let until_ms = state.recovery.as_ref().filter(|r| r.seqnum == seqnum).and_then(|r| r.until_ms);
                state.recovery = Some(Recovery { seqnum, envelope, until_ms });
            }
            Record::Frozen { account, seqnum, until_ms } => {
                let state = self.accounts.entry(account).or_default();
                let envelope = state.recovery.take().filter(|r| r.seqnum == seqnum).and_then(|r| r.envelope);
                state.recovery = Some(Recovery { seqnum, envelope, until_ms: Some(until_ms) });
            }
            Record::Recovered { account, seqnum, void, last_call } => {
                let void = void.map(|hash| hash.parse::<u64>().map_err(|_| bad("a prev_hash that is no number")));
                let void = void.transpose()?;
                let state = self.accounts.entry(account).or_default();
                state.recovery = None;
                if let Some(prev_hash) = void {
                    state.voided.push(seqnum);
                    // What was chained to a voided order is void with it, and what was before it has settled.
                    if seqnum >= state.seqnum {
                        state.pending.clear();
                        (state.seqnum, state.prev_hash) = (seqnum, prev_hash);
                        (state.last_call, state.floor, state.known) = (Some(last_call), None, true);
                    }
                }
            }
        }
        Ok(())
    }
}
