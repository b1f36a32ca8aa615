//! Evidence: two receipts that prove who of a committee has broken its promise.
//!
//! An honest authority votes for one order only that follows another one (the same actor, seqnum and `prev_hash`), and
//! for one only that spends a note, until the log has freed it: then the next order names the recovery. That is so after
//! another one than its own has settled, too: it does not vote for that one any more. So whoever has
//! signed both of two such orders is guilty. Two certificates name at least f + 1, for any two quorums share so many;
//! what one honest authority alone has seen is enough, whoever shows it.

use crate::certificate::{Promise, check_signed};
use crate::committee::Committee;
use crate::content::{Action, Content};
use crate::envelope::Order;
use crate::error::{Code, Error, Result};
use crate::planted::{self, Bug};
use crate::receipt::check_proof;
use crate::wire;

/// What two receipts prove.
#[derive(Clone, PartialEq, Debug)]
pub struct Evidence {
    /// The orders.
    pub orders: [Order; 2],
    /// Indices of those who have signed both, in rising order; one at least.
    pub guilty: Vec<u32>,
}

/// Who has signed two orders that exclude each other. Their receipts may have any number of votes and acknowledgements.
/// Errors: those of [`crate::receipt::verify`] but for quorums; `NO_EVIDENCE` if honest authorities may have signed both, or nobody has.
pub fn check(committee: &Committee, receipts: [&wire::Receipt; 2]) -> Result<Evidence> {
    let read = |receipt: &wire::Receipt| -> Result<(Order, [Vec<u32>; 2])> {
        let (batch, order) = check_proof(committee, receipt)?;
        let signers = |promise, signed: &[wire::Signed]| -> Result<Vec<u32>> {
            let bitmaps = check_signed(promise, committee, &batch, signed)?;
            let with = signed.iter().zip(bitmaps).filter(|(_, bits)| bits.get(receipt.index as usize));
            Ok(with.map(|(signed, _)| signed.authority).collect())
        };
        Ok((order, [signers(Promise::Vote, &receipt.votes)?, signers(Promise::Settled, &receipt.acknowledgements)?]))
    };
    let ((first, signed), (second, mut signed_too)) = (read(receipts[0])?, read(receipts[1])?);
    exclude(committee, &first, &second)?;
    // Who votes for one order settles another all the same, if a quorum wants it: only two of a kind prove anything.
    if planted::is(Bug::EvidenceMixesPromises) {
        signed_too.reverse();
    }
    let both = signed.iter().zip(&signed_too).flat_map(|(a, b)| a.iter().filter(|i| b.contains(i)).copied());
    let mut guilty: Vec<u32> = both.collect();
    guilty.sort_unstable();
    guilty.dedup();
    if guilty.is_empty() {
        return Err(Error::new(Code::NoEvidence, "the orders exclude each other, but nobody has signed both"));
    }
    Ok(Evidence { orders: [first, second], guilty })
}

/// Whether no honest authority signs both. Errors: `NO_EVIDENCE` with the reason.
fn exclude(committee: &Committee, first: &Order, second: &Order) -> Result<()> {
    let not = |why: &str| Err(Error::new(Code::NoEvidence, why));
    if first.id == second.id {
        return not("both receipts are for the same order");
    }
    let network = committee.network.id;
    if first.network_id != network || second.network_id != network {
        // `ActorAdmit` lets an authority vote again.
        return not("only orders of the payment network exclude each other: elsewhere an admin may admit another one");
    }
    match (Content::decode(first)?.action, Content::decode(second)?.action) {
        (Action::Bearer(a), Action::Bearer(b)) => {
            let same = |a: &crate::bearer::NoteSpent| {
                b.notes.iter().any(|b| (a.nonce, a.recoveries) == (b.nonce, b.recoveries))
            };
            if a.notes.iter().any(same) { Ok(()) } else { not("the orders spend different notes") }
        }
        (Action::Bearer(_), _) | (_, Action::Bearer(_)) => not("one order spends notes, the other one an account"),
        (Action::Recover { .. } | Action::RecoverNotes(_), _)
        | (_, Action::Recover { .. } | Action::RecoverNotes(_)) => {
            not("a request to recover takes no lock, so it excludes nothing")
        }
        _ if (first.actor, first.seqnum) != (second.actor, second.seqnum) => {
            not("the orders are of different accounts or have different seqnums")
        }
        _ if first.prev_hash != second.prev_hash => not(
            "the orders follow different ones: votes for a second one are rightly given once the log has voided the first",
        ),
        _ => Ok(()),
    }
}
