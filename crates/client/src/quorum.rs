//! Driving one batch through the committee: vote, certify, settle, final. Pure: it says what to send and
//! is told what came back; sockets and clocks belong to whoever calls it.
//!
//! No authority is believed alone. A vote or acknowledgement counts after its signature has been
//! checked; a refusal counts when `f + 1` give it, and one that lag alone can explain only when a
//! quorum does.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use florin_core::batch::{DecodedBatch, decode_batch, leaf_id};
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{BatchId, Promise, check_signed};
use florin_core::committee::Committee;
use florin_core::distilled::round::Sealed;
use florin_core::merkle::{Hash, Tree};
use florin_core::planted::{self, Bug};
use florin_core::{Code, Error, Result};
use florin_core::{receipt, wire};

/// A request to one authority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Send {
    /// `Vote` with the whole batch.
    Vote {
        /// To whom.
        authority: usize,
    },
    /// `Settle` with the certificate.
    Settle {
        /// To whom.
        authority: usize,
        /// Whether it needs the orders too.
        with_orders: bool,
    },
}

impl Send {
    /// To whom.
    pub fn authority(&self) -> usize {
        match self {
            Send::Vote { authority } | Send::Settle { authority, .. } => *authority,
        }
    }
}

/// What one authority has said so far.
#[derive(Default)]
struct Peer {
    vote: Option<(wire::Signed, Bitmap)>,
    refusals: HashMap<usize, Error>,
    acknowledgement: Option<(wire::Signed, Bitmap)>,
    lacks_batch: bool,
    failure: Option<Error>,
    /// A request to vote may be on its way, or its answer was lost: it may lock what was refused before.
    asked: bool,
    /// Of a distilled batch: whom it is shown the aggregate of, if not of all who have signed.
    signers: Option<Vec<usize>>,
    /// It is to be asked again, with other signers.
    again: bool,
}

/// One batch on its way.
pub struct Quorum {
    committee: Arc<Committee>,
    orders: Vec<Bytes>,
    /// The same orders with all that they can be signed by.
    sealed: Option<Sealed>,
    tree: Tree,
    batch: BatchId,
    peers: Vec<Peer>,
    certificate: Option<(wire::Certificate, Bitmap)>,
    culprits: Vec<(usize, Error)>,
}

impl Quorum {
    /// A batch of orders of one shard. Errors: `LIMIT`.
    pub fn new(committee: Arc<Committee>, orders: Vec<Bytes>) -> Result<Self> {
        let DecodedBatch { id, orders: decoded } = decode_batch(&orders)?;
        let ids: Vec<Hash> = orders.iter().zip(&decoded).map(|(raw, order)| leaf_id(raw, order)).collect();
        let tree = Tree::new(&ids);
        let peers = (0..committee.size()).map(|_| Peer::default()).collect();
        let culprits = Vec::new();
        Ok(Quorum { committee, orders, sealed: None, tree, batch: id, peers, certificate: None, culprits })
    }

    /// A batch whose root senders have signed. Whoever does not take the aggregate of all of them is asked with that of
    /// fewer, or of none. Errors: `LIMIT`.
    pub fn distilled(committee: Arc<Committee>, sealed: Sealed) -> Result<Self> {
        let orders = sealed.orders(&sealed.signers());
        Ok(Quorum { sealed: Some(sealed), ..Quorum::new(committee, orders)? })
    }

    /// The orders of the batch.
    pub fn orders(&self) -> &[Bytes] {
        &self.orders
    }

    /// The orders as this authority is to get them: the same bodies.
    pub fn orders_for(&self, authority: usize) -> Vec<Bytes> {
        match (&self.sealed, &self.peers[authority].signers) {
            (Some(sealed), Some(signers)) => sealed.orders(signers),
            _ => self.orders.clone(),
        }
    }

    /// The certificate, once there is one.
    pub fn certificate(&self) -> Option<&wire::Certificate> {
        self.certificate.as_ref().map(|(c, _)| c)
    }

    /// Whether an authority's vote is in the certificate.
    pub fn is_certifier(&self, authority: usize) -> bool {
        self.certificate().is_some_and(|c| c.votes.iter().any(|vote| vote.authority as usize == authority))
    }

    /// Authorities that broke the protocol, and how.
    pub fn culprits(&self) -> &[(usize, Error)] {
        &self.culprits
    }

    /// Why an authority has not answered, if it failed.
    pub fn failure(&self, authority: usize) -> Option<&Error> {
        self.peers[authority].failure.as_ref()
    }

    /// The first order that an authority refuses.
    pub fn refusal(&self, authority: usize) -> Option<&Error> {
        let refusals = &self.peers[authority].refusals;
        refusals.keys().min().and_then(|first| refusals.get(first))
    }

    /// Whether a quorum refuses the order, and was not asked again since. Then it holds no lock at them, and
    /// they can certify another order for its sequence number.
    pub fn refused_by_quorum(&self, order: usize) -> bool {
        let refuses = |p: &&Peer| !p.asked && p.refusals.contains_key(&order);
        self.peers.iter().filter(refuses).count() >= self.committee.quorum()
    }

    /// Whether the order is void: an honest authority says that it breaks a rule which does not depend on what has
    /// settled, so no honest one ever accepts it; or a quorum refuses it, and an honest one has voted for another order
    /// in its place. Refusals for want of money may pass: whoever keeps the order can offer it again then.
    pub fn void(&self, order: usize) -> bool {
        let give = |counts: fn(Code) -> bool| {
            let refuses = |p: &&Peer| p.refusals.get(&order).is_some_and(|e| counts(e.code));
            self.peers.iter().filter(refuses).count() >= self.committee.validity()
        };
        give(breaks_a_rule) || (give(|code| code == Code::PendingConflict) && self.refused_by_quorum(order))
    }

    /// Valid votes so far.
    pub fn votes(&self) -> usize {
        self.peers.iter().filter(|p| p.vote.is_some()).count()
    }

    /// Authorities whose votes are for orders that they had with marks.
    pub fn took_root(&self) -> usize {
        let Some(sealed) = &self.sealed else { return 0 };
        let all = sealed.signers();
        let took = |peer: &Peer| {
            let signers = peer.signers.as_ref().unwrap_or(&all);
            peer.vote.as_ref().is_some_and(|(_, bitmap)| signers.iter().any(|i| bitmap.get(*i)))
        };
        self.peers.iter().filter(|peer| took(peer)).count()
    }

    /// Valid acknowledgements so far.
    pub fn acknowledgements(&self) -> usize {
        self.peers.iter().filter(|p| p.acknowledgement.is_some()).count()
    }

    /// The request that this authority should get now; `None` if it has said all it can.
    pub fn wanted(&self, authority: usize) -> Option<Send> {
        let peer = &self.peers[authority];
        match &self.certificate {
            None => {
                let lagging = peer.refusals.values().any(|e| may_be_lag(e.code));
                let silent = peer.vote.is_none() && peer.refusals.is_empty();
                (silent || lagging || peer.again).then_some(Send::Vote { authority })
            }
            Some((_, certified)) => {
                let settled = peer.acknowledgement.as_ref().is_some_and(|(_, b)| b.contains(certified));
                // One that voted has the batch, unless it says otherwise.
                let with_orders = peer.lacks_batch || peer.vote.is_none();
                (!settled).then_some(Send::Settle { authority, with_orders })
            }
        }
    }

    /// A request goes out.
    pub fn on_send(&mut self, send: Send) {
        if let Send::Vote { authority } = send {
            self.peers[authority].asked = true;
        }
    }

    /// An answer to `Vote`.
    pub fn on_vote(&mut self, authority: usize, reply: Result<wire::VoteReply>) {
        match reply.and_then(|reply| self.check_vote(authority, reply)) {
            Ok((vote, mut refusals)) => {
                let signers = self.other_signers(authority, &refusals);
                let peer = &mut self.peers[authority];
                peer.again = signers.is_some();
                if let Some(signers) = signers {
                    // What it has not been asked yet it has not refused.
                    refusals.retain(|_, e| !is_of_aggregate(e.code));
                    peer.signers = Some(signers);
                }
                peer.failure = None;
                peer.asked = false;
                peer.vote = vote.or(peer.vote.take());
                peer.refusals = refusals;
            }
            Err(e) => self.fail(authority, e),
        }
    }

    /// Whom to show it the aggregate of next, if it has refused this one.
    fn other_signers(&self, authority: usize, refusals: &HashMap<usize, Error>) -> Option<Vec<usize>> {
        let sealed = self.sealed.as_ref()?;
        let before = self.peers[authority].signers.clone().unwrap_or_else(|| sealed.signers());
        let errors: Vec<(usize, Code)> = refusals.iter().map(|(i, e)| (*i, e.code)).collect();
        let refused = errors.iter().any(|(_, code)| is_of_aggregate(*code)) && !before.is_empty();
        refused.then(|| sealed.again(&before, &errors))
    }

    #[allow(clippy::type_complexity)]
    fn check_vote(
        &self,
        authority: usize,
        reply: wire::VoteReply,
    ) -> Result<(Option<(wire::Signed, Bitmap)>, HashMap<usize, Error>)> {
        let mut refusals = HashMap::new();
        for e in reply.errors {
            let code = Code::from_number(e.code).unwrap_or(Code::Decode);
            let error = Error { code, message: e.message, pending_order: e.pending_order };
            refusals.insert(e.index as usize, error);
        }
        let vote = match reply.vote {
            Some(vote) => Some(self.check_one(Promise::Vote, authority, vote)?),
            None => None,
        };
        let covered = |i: usize| refusals.contains_key(&i) || vote.as_ref().is_some_and(|(_, b)| b.get(i));
        if let Some(i) = (0..self.batch.count).find(|i| !covered(*i)) {
            return Err(Error::new(Code::BadVote, format!("it neither accepted nor refused order {i}")));
        }
        Ok((vote, refusals))
    }

    fn check_one(&self, promise: Promise, authority: usize, signed: wire::Signed) -> Result<(wire::Signed, Bitmap)> {
        if signed.authority as usize != authority {
            return Err(Error::expected(Code::BadVote, "signer of the answer", authority, signed.authority));
        }
        let bitmap = check_signed(promise, &self.committee, &self.batch, std::slice::from_ref(&signed))?.remove(0);
        Ok((signed, bitmap))
    }

    /// An answer to `Settle`.
    pub fn on_settle(&mut self, authority: usize, reply: Result<wire::SettleReply>) {
        let checked = reply.and_then(|reply| {
            let signed = reply.acknowledgement.map(|a| self.check_one(Promise::Settled, authority, a)).transpose()?;
            Ok((reply.batch_missing, signed))
        });
        match checked {
            Ok((missing, acknowledgement)) => {
                let peer = &mut self.peers[authority];
                peer.failure = None;
                peer.lacks_batch = missing;
                peer.acknowledgement = acknowledgement.or(peer.acknowledgement.take());
            }
            Err(e) => self.fail(authority, e),
        }
    }

    fn fail(&mut self, authority: usize, error: Error) {
        let broke_the_protocol = matches!(
            error.code,
            Code::BadVote
                | Code::BadBitmap
                | Code::UnknownAuthority
                | Code::DuplicateSigner
                | Code::Decode
                | Code::WrongCommittee
        );
        if broke_the_protocol && !self.culprits.iter().any(|(a, e)| *a == authority && e.code == error.code) {
            self.culprits.push((authority, error.clone()));
        }
        self.peers[authority].failure = Some(error);
    }

    /// Whether every order is certified or refused for good, so that waiting for more votes is no use.
    pub fn decided(&self) -> bool {
        let votes = self.vote_bitmaps();
        let certified = Bitmap::at_least(&votes, self.committee.quorum(), self.batch.count);
        (0..self.batch.count).all(|i| certified.get(i) || self.refused(i).is_some())
    }

    /// Whether a certificate could be made now for at least one order.
    pub fn certifiable(&self) -> bool {
        !Bitmap::at_least(&self.vote_bitmaps(), self.committee.quorum(), self.batch.count).is_empty()
    }

    fn vote_bitmaps(&self) -> Vec<Bitmap> {
        self.peers.iter().filter_map(|p| p.vote.as_ref().map(|(_, b)| b.clone())).collect()
    }

    /// Why an order can't be certified, if that is sure.
    fn refused(&self, order: usize) -> Option<&Error> {
        let refusals: Vec<&Error> = self.peers.iter().filter_map(|p| p.refusals.get(&order)).collect();
        let sure = refusals.iter().filter(|e| !may_be_lag(e.code)).count() >= self.committee.validity();
        (sure || refusals.len() >= self.committee.quorum()).then(|| most_common(&refusals)).flatten()
    }

    /// Makes the certificate from the votes there are. Call it when [`Quorum::decided`], or when waiting
    /// longer is not worth it. Returns whether any order is certified.
    pub fn certify(&mut self) -> bool {
        if self.certificate.is_some() {
            return true;
        }
        let quorum = self.committee.quorum();
        let mut votes: Vec<&(wire::Signed, Bitmap)> = self.peers.iter().filter_map(|p| p.vote.as_ref()).collect();
        votes.sort_by_key(|(_, b)| std::cmp::Reverse(b.ones()));
        let of = |votes: &[&(wire::Signed, Bitmap)]| {
            let bitmaps: Vec<Bitmap> = votes.iter().map(|(_, b)| b.clone()).collect();
            Bitmap::at_least(&bitmaps, quorum, self.batch.count)
        };
        let certified = of(&votes);
        if certified.is_empty() {
            return false;
        }
        // Authorities check every vote in it, so leave out what proves nothing more.
        if of(&votes[..quorum]) == certified {
            votes.truncate(quorum);
        }
        let certificate = wire::Certificate {
            epoch: self.committee.epoch,
            root: Bytes::copy_from_slice(&self.batch.root),
            count: self.batch.count as u32,
            votes: votes.into_iter().map(|(s, _)| s.clone()).collect(),
        };
        self.certificate = Some((certificate, certified));
        true
    }

    /// Whether every certified order is final.
    pub fn is_final(&self) -> bool {
        self.certificate.as_ref().is_some_and(|(_, certified)| self.settled().contains(certified))
    }

    /// Whether an order of the batch is final.
    pub fn any_final(&self) -> bool {
        self.certificate.is_some() && !self.settled().is_empty()
    }

    fn settled(&self) -> Bitmap {
        let bitmaps: Vec<Bitmap> =
            self.peers.iter().filter_map(|p| p.acknowledgement.as_ref().map(|(_, b)| b.clone())).collect();
        let needed = planted::when(Bug::FinalByFew, self.committee.validity(), self.committee.quorum());
        Bitmap::at_least(&bitmaps, needed, self.batch.count)
    }

    /// What became of each order, as far as is known now: a receipt if it is final, else why not.
    pub fn outcomes(&self) -> Vec<Result<wire::Receipt>> {
        let settled = self.settled();
        (0..self.batch.count)
            .map(|i| match &self.certificate {
                Some((certificate, certified)) if certified.get(i) && settled.get(i) => {
                    Ok(self.receipt(certificate, i))
                }
                Some((_, certified)) if certified.get(i) => Err(Error::new(
                    Code::NotFinal,
                    format!(
                        "certified, and settled by {} of {} authorities that it takes; {}",
                        self.acknowledged(i),
                        self.committee.quorum(),
                        self.missing()
                    ),
                )),
                _ => Err(self.why_not(i)),
            })
            .collect()
    }

    fn acknowledged(&self, order: usize) -> usize {
        self.peers.iter().filter(|p| p.acknowledgement.as_ref().is_some_and(|(_, b)| b.get(order))).count()
    }

    fn why_not(&self, order: usize) -> Error {
        if let Some(e) = self.refused(order) {
            return e.clone();
        }
        let refusals: Vec<&Error> = self.peers.iter().filter_map(|p| p.refusals.get(&order)).collect();
        let accepted = self.peers.iter().filter(|p| p.vote.as_ref().is_some_and(|(_, b)| b.get(order))).count();
        let answered = refusals.len() + accepted;
        let counted = format!("{accepted} of {} votes that it takes", self.committee.quorum());
        match most_common(&refusals) {
            Some(e) if answered >= self.committee.quorum() => {
                let message = format!("{counted}; {} refuse it: {}", refusals.len(), e.message);
                Error { code: e.code, message, pending_order: e.pending_order.clone() }
            }
            _ => Error::new(Code::QuorumUnreachable, format!("{counted}; {}", self.missing())),
        }
    }

    /// Who has not answered, and why.
    fn missing(&self) -> String {
        let settling = self.certificate.is_some();
        let silent =
            |p: &Peer| if settling { p.acknowledgement.is_none() } else { p.vote.is_none() && p.refusals.is_empty() };
        let names: Vec<String> = (self.peers.iter().zip(&self.committee.authorities))
            .filter(|(p, _)| silent(p))
            .map(|(p, a)| match &p.failure {
                Some(e) => format!("{} ({}: {})", a.name, e.code.name(), e.message),
                None => format!("{} (no answer)", a.name),
            })
            .collect();
        if names.is_empty() { "all have answered".into() } else { format!("missing: {}", names.join(", ")) }
    }

    fn receipt(&self, certificate: &wire::Certificate, index: usize) -> wire::Receipt {
        let acknowledgements =
            self.peers.iter().filter_map(|p| p.acknowledgement.as_ref()).filter(|(_, b)| b.get(index));
        let acknowledgements = acknowledgements.take(self.committee.quorum()).map(|(s, _)| s.clone()).collect();
        // With the order's own signature, if it is known: a receipt has no use for a mark.
        let own = self.sealed.as_ref().map(|sealed| sealed.own(index));
        let (transaction, votes) = (own.unwrap_or_else(|| self.orders[index].clone()), certificate.votes.clone());
        receipt::assemble(&self.committee, transaction, &self.tree, (index, self.batch.count), votes, acknowledgements)
    }
}

/// Refusals that say nothing of an order, but of those who have signed the batch with its sender.
fn is_of_aggregate(code: Code) -> bool {
    matches!(code, Code::AggregateKey | Code::BadAggregate)
}

/// Refusals that an authority gives also when it has not yet settled what the others have, or not heard from the log
/// what they have.
pub(crate) fn may_be_lag(code: Code) -> bool {
    matches!(
        code,
        Code::BadSeq
            | Code::BadPrevHash
            | Code::UnknownNetwork
            | Code::UnknownActor
            | Code::UnknownCosignor
            | Code::ActorFrozen
            | Code::Precheck
            | Code::InsufficientFunds
            | Code::IssuerLimit
            | Code::WindowFull
            | Code::PermissionPending
            | Code::CallWaits
            | Code::KeyMismatch
            | Code::InsufficientWeight
            | Code::Possession
            | Code::AggregateKey
            | Code::BadAggregate
            | Code::Busy
    )
}

/// Refusals of what was signed, whatever the state of the account. Not among them is what anyone could mend without
/// the key (signatures and their envelope), and `DECODE`, as which unknown codes are read. Which CALL comes before an
/// order follows from its prev_hash, and a seqnum that a recovery has voided stays void, so these two last as well.
fn breaks_a_rule(code: Code) -> bool {
    matches!(
        code,
        Code::Limit
            | Code::NonCanonical
            | Code::Int63
            | Code::DuplicateCosignor
            | Code::CosignorsRefused
            | Code::SeqExhausted
            | Code::BadContent
            | Code::BadAmount
            | Code::BadPermission
            | Code::BadCallChain
            | Code::Voided
    )
}

fn most_common<'a>(errors: &[&'a Error]) -> Option<&'a Error> {
    errors.iter().copied().max_by_key(|e| errors.iter().filter(|o| o.code == e.code).count())
}

#[cfg(test)]
#[path = "quorum_tests.rs"]
mod tests;
