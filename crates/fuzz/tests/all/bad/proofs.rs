//! What authorities sign, and what the two sides of a channel do.

use bytes::Bytes;
use florin_core::Code::{self, *};
use florin_core::channel::voucher::{self, Voucher};
use florin_core::testing::Signer;
use florin_core::wire;
use florin_fuzz::bad::{CHANNEL, NOW};
use florin_fuzz::worlds::proofs::PROOFS;
use prost::Message;
use sha2::{Digest, Sha256};

use super::Cases;
use super::orders::bad_permissions;
use super::proto::break_message;
use crate::made::{invoice, signed_voucher, virtual_claim, withdraw_permit};

/// All cases of this file.
pub fn add(cases: &mut Cases) {
    certificates(cases);
    receipts(cases);
    evidence(cases);
    sessions(cases);
    vouchers(cases);
    permits(cases);
    redeems(cases);
}

fn certificates(cases: &mut Cases) {
    let good = PROOFS.certificate(0, PROOFS.batches[0].votes.clone());
    cases.whole("certificate", "of all", good.encode_to_vec());
    let mut bad = |code, rule: &str, change: &dyn Fn(&mut wire::Certificate)| {
        let mut certificate = good.clone();
        change(&mut certificate);
        cases.bad("certificate", code, rule, certificate.encode_to_vec());
    };
    bad(WrongEpoch, "of epoch 0", &|c| c.epoch = 0);
    bad(WrongEpoch, "of the next epoch", &|c| c.epoch = 2);
    bad(Decode, "with a root of 31 bytes", &|c| c.root = c.root.slice(1..));
    bad(Decode, "without a root", &|c| c.root = Bytes::new());
    bad(Limit, "of no orders", &|c| c.count = 0);
    bad(Limit, "of 4,097 orders", &|c| c.count = 4_097);
    bad(NoQuorum, "without votes", &|c| c.votes.clear());
    bad(NoQuorum, "with two votes", &|c| c.votes.truncate(2));
    bad(DuplicateSigner, "with five votes", &|c| c.votes.push(c.votes[0].clone()));
    bad(DuplicateSigner, "with a vote twice", &|c| c.votes[1] = c.votes[0].clone());
    bad(UnknownAuthority, "with a vote of authority 4", &|c| c.votes[3].authority = 4);
    bad(UnknownAuthority, "with a vote of the last number", &|c| c.votes[0].authority = u32::MAX);
    bad(BadVote, "with a vote in another's name", &|c| {
        let first = c.votes[0].authority;
        c.votes[0].authority = c.votes[1].authority;
        c.votes[1].authority = first;
    });
    bad(BadVote, "over another root", &|c| c.root = Bytes::from(vec![1; 32]));
    bad(BadBitmap, "with another count", &|c| c.count = 9);
    bad(BadVote, "with a count of the same size", &|c| c.count = 4);
    bad(BadBitmap, "with a bit beyond the orders", &|c| c.votes[2].bitmap = Bytes::from_static(&[15]));
    bad(BadBitmap, "with an empty bitmap", &|c| c.votes[2].bitmap = Bytes::new());
    bad(BadVote, "with a bit that was not signed", &|c| c.votes[2].bitmap = Bytes::from_static(&[3]));
    bad(BadVote, "with a signature of 63 bytes", &|c| c.votes[0].signature = c.votes[0].signature.slice(1..));
    bad(BadVote, "with an empty signature", &|c| c.votes[0].signature = Bytes::new());
    bad(BadVote, "with a signature of zeros", &|c| c.votes[3].signature = Bytes::from(vec![0; 64]));
    bad(BadVote, "with acknowledgements for votes", &|c| c.votes = PROOFS.batches[0].acknowledgements.clone());
}

fn receipts(cases: &mut Cases) {
    let good = PROOFS.receipt(0, 1);
    cases.whole("receipt", "of the second order", good.encode_to_vec());
    let mut bad = |code, rule: &str, change: &dyn Fn(&mut wire::Receipt)| {
        let mut receipt = good.clone();
        change(&mut receipt);
        cases.bad("receipt", code, rule, receipt.encode_to_vec());
    };
    bad(WrongCommittee, "of another committee", &|r| r.committee_id = Bytes::from(vec![1; 32]));
    bad(WrongCommittee, "of no committee", &|r| r.committee_id = Bytes::new());
    bad(WrongEpoch, "of the next epoch", &|r| r.epoch += 1);
    bad(EmptyBody, "without an order", &|r| r.transaction = Bytes::new());
    bad(Decode, "with an order that is cut", &|r| r.transaction = r.transaction.slice(..r.transaction.len() - 1));
    bad(Limit, "of no orders", &|r| r.count = 0);
    bad(Limit, "of 4,097 orders", &|r| r.count = 4_097);
    bad(BadProof, "with an index of the count", &|r| r.index = r.count);
    bad(BadProof, "with a hash too few", &|r| drop(r.path.pop()));
    bad(BadProof, "with a hash too many", &|r| r.path.push(Bytes::from(vec![1; 32])));
    bad(BadProof, "with a hash of 31 bytes", &|r| r.path[0] = r.path[0].slice(1..));
    bad(BadVote, "with another hash", &|r| r.path[0] = Bytes::from(vec![1; 32]));
    bad(BadVote, "with another index", &|r| r.index = 0);
    bad(BadVote, "with another order", &|r| r.transaction = PROOFS.batches[2].orders[0].clone());
    bad(NoQuorum, "without votes", &|r| r.votes.clear());
    bad(NoQuorum, "with two votes", &|r| r.votes.truncate(2));
    bad(NotFinal, "without acknowledgements", &|r| r.acknowledgements.clear());
    bad(NotFinal, "with two acknowledgements", &|r| r.acknowledgements.truncate(2));
    bad(DuplicateSigner, "with a vote twice", &|r| r.votes[1] = r.votes[0].clone());
    bad(DuplicateSigner, "with an acknowledgement twice", &|r| r.acknowledgements[3] = r.acknowledgements[0].clone());
    bad(BadVote, "with votes for acknowledgements", &|r| r.acknowledgements = r.votes.clone());
    bad(UnknownAuthority, "with an acknowledgement of authority 4", &|r| r.acknowledgements[0].authority = 4);
    bad(BadBitmap, "with an acknowledgement of two bytes", &|r| {
        r.acknowledgements[0].bitmap = Bytes::from_static(&[7, 0])
    });
    cases.bad("receipt", NotFinal, "of an order that two have settled", PROOFS.receipt(2, 0).encode_to_vec());
    cases.bad("receipt", NoQuorum, "of an order that one has voted for", PROOFS.receipt(1, 0).encode_to_vec());
}

fn evidence(cases: &mut Cases) {
    let pair = |a: &wire::Receipt, b: &wire::Receipt| {
        let long = |receipt: &wire::Receipt| {
            let bytes = receipt.encode_to_vec();
            [&(bytes.len() as u16).to_le_bytes()[..], &bytes].concat()
        };
        [long(a), long(b)].concat()
    };
    let (first, second) = (PROOFS.receipt(0, 0), PROOFS.receipt(1, 0));
    cases.whole("evidence", "two orders for one seqnum", pair(&first, &second));
    let mut bad =
        |code, rule: &str, a: &wire::Receipt, b: &wire::Receipt| cases.bad("evidence", code, rule, pair(a, b));
    bad(NoEvidence, "one order twice", &first, &first);
    bad(NoEvidence, "two orders of one chain", &first, &PROOFS.receipt(0, 1));
    bad(NoEvidence, "two orders of two accounts", &first, &PROOFS.receipt(2, 0));
    let without = wire::Receipt { votes: vec![], acknowledgements: vec![], ..second.clone() };
    bad(NoEvidence, "an order that nobody has signed", &first, &without);
    let votes_alone = wire::Receipt { acknowledgements: vec![], ..second.clone() };
    let settled_alone = wire::Receipt { votes: vec![], ..first.clone() };
    bad(NoEvidence, "a vote and an acknowledgement", &settled_alone, &votes_alone);
    bad(
        BadVote,
        "a vote in another's name",
        &first,
        &wire::Receipt { votes: vec![wire::Signed { authority: 0, ..second.votes[0].clone() }], ..second.clone() },
    );
    bad(WrongEpoch, "an order of another epoch", &first, &wire::Receipt { epoch: 2, ..second.clone() });
    bad(
        WrongCommittee,
        "an order of another committee",
        &first,
        &wire::Receipt { committee_id: Bytes::new(), ..second },
    );
}

fn sessions(cases: &mut Cases) {
    let good = PROOFS.sessions[0].clone();
    cases.whole("session", "of all", good.encode_to_vec());
    let mut bad = |code, rule: &str, change: &dyn Fn(&mut wire::SignedSession)| {
        let mut session = good.clone();
        change(&mut session);
        cases.bad("session", code, rule, session.encode_to_vec());
    };
    let with_header =
        |change: fn(&mut wire::SessionHeader)| move |s: &mut wire::SignedSession| s.header.iter_mut().for_each(change);
    bad(BadSession, "without a header", &|s| s.header = None);
    bad(WrongEpoch, "of the next epoch", &with_header(|h| h.epoch = 2));
    bad(NoQuorum, "without signatures", &|s| s.signatures.clear());
    bad(NoQuorum, "with two signatures", &|s| s.signatures.truncate(2));
    bad(UnknownAuthority, "with a signature of authority 4", &|s| s.signatures[0].authority = 4);
    bad(DuplicateSigner, "with a signature twice", &|s| s.signatures[1] = s.signatures[0].clone());
    bad(BadBitmap, "with a bitmap", &|s| s.signatures[0].bitmap = Bytes::from_static(&[1]));
    bad(BadSession, "with a signature of 63 bytes", &|s| {
        s.signatures[0].signature = s.signatures[0].signature.slice(1..)
    });
    bad(BadSession, "with a signature of zeros", &|s| s.signatures[0].signature = Bytes::from(vec![0; 64]));
    bad(BadSession, "with another state", &with_header(|h| h.state_hash = Bytes::from(vec![9; 32])));
    bad(BadSession, "with another time", &with_header(|h| h.time_ms += 1));
    bad(BadSession, "with another number", &with_header(|h| h.session += 1));
    bad(BadSession, "with another number of units", &with_header(|h| h.units += 1));
    cases.bad("session", NoQuorum, "of one signer", PROOFS.sessions[1].encode_to_vec());
}

fn signed(terms: &wire::Voucher) -> wire::SignedVoucher {
    wire::SignedVoucher { voucher: terms.encode_to_vec().into(), ..signed_voucher() }
}

fn vouchers(cases: &mut Cases) {
    let terms = wire::Voucher::decode(signed_voucher().voucher).expect("made here");
    let wrap =
        |b: &[u8]| wire::SignedVoucher { voucher: Bytes::copy_from_slice(b), ..signed_voucher() }.encode_to_vec();
    break_message(cases, ("voucher", "voucher"), &terms.encode_to_vec(), (BadContent, NonCanonical), wrap);
    let mut bad = |code: Code, rule: &str, change: &dyn Fn(&mut wire::Voucher)| {
        let mut terms = terms.clone();
        change(&mut terms);
        cases.bad("voucher", code, rule, signed(&terms).encode_to_vec());
    };
    for length in [0, 31, 33] {
        bad(BadContent, &format!("of a channel of {length} bytes"), &|t| t.channel = Bytes::from(vec![1; length]));
        bad(BadContent, &format!("with a root of {length} bytes"), &|t| {
            t.virtuals.iter_mut().for_each(|v| v.root = Bytes::from(vec![1; length]));
        });
    }
    for length in [1, 31, 33] {
        bad(BadContent, &format!("with a secret hash of {length} bytes"), &|t| {
            t.secret_hash = Bytes::from(vec![1; length])
        });
    }
    bad(BadContent, "of payer 2", &|t| t.payer = 2);
    bad(Limit, "that merges 17 lanes", &|t| t.merges = vec![wire::LaneMerge { lane: 2, nonce: 1 }; 17]);
    bad(Limit, "with no virtual channels in a set", &|t| t.virtuals.iter_mut().for_each(|v| v.count = 0));
    bad(Limit, "with 257 virtual channels", &|t| t.virtuals.iter_mut().for_each(|v| v.count = 257));
    let mut bad =
        |code, rule: &str, signed: wire::SignedVoucher| cases.bad("voucher", code, rule, signed.encode_to_vec());
    bad(BadContent, "of signer 2", wire::SignedVoucher { signer: 2, ..signed_voucher() });
    bad(Limit, "with 17 signatures", wire::SignedVoucher { signatures: vec![Bytes::new(); 17], ..signed_voucher() });
    bad(BadContent, "without terms", wire::SignedVoucher { voucher: Bytes::new(), ..signed_voucher() });
}

fn permits(cases: &mut Cases) {
    let withdraw = wire::WithdrawPermit::decode(withdraw_permit().permit).expect("made here");
    let watch = wire::WatchPermit { channel: Bytes::from(vec![6; 32]), side: 1, watcher: Bytes::from(vec![2; 32]) };
    let amount = wire::VirtualAmount { id: Bytes::from(vec![1; 32]), amount: 5 };
    let wrap = |b: &[u8]| wire::SignedPermit { permit: Bytes::copy_from_slice(b), ..withdraw_permit() }.encode_to_vec();
    let all: [(&'static str, Vec<u8>); 3] = [
        ("withdraw-permit", withdraw.encode_to_vec()),
        ("watch-permit", watch.encode_to_vec()),
        ("virtual-amount", amount.encode_to_vec()),
    ];
    for (of, good) in all {
        break_message(cases, (of, of), &good, (BadContent, NonCanonical), wrap);
        cases.bad(of, BadContent, "empty", wrap(&[]));
        let many = wire::SignedPermit { permit: good.into(), signatures: vec![Bytes::new(); 17] };
        cases.bad(of, Limit, "with 17 signatures", many.encode_to_vec());
    }
    for length in [31, 33] {
        let short = || Bytes::from(vec![6; length]);
        let of_withdraw = wire::WithdrawPermit { channel: short(), ..withdraw.clone() };
        cases.bad(
            "withdraw-permit",
            BadContent,
            format!("a channel of {length} bytes"),
            wrap(&of_withdraw.encode_to_vec()),
        );
        let of_watch = wire::WatchPermit { channel: short(), ..watch.clone() };
        cases.bad("watch-permit", BadContent, format!("a channel of {length} bytes"), wrap(&of_watch.encode_to_vec()));
        let of_watch = wire::WatchPermit { watcher: short(), ..watch.clone() };
        cases.bad("watch-permit", BadContent, format!("a watcher of {length} bytes"), wrap(&of_watch.encode_to_vec()));
        let of_amount = wire::VirtualAmount { id: short(), ..amount.clone() };
        cases.bad("virtual-amount", BadContent, format!("an id of {length} bytes"), wrap(&of_amount.encode_to_vec()));
    }
    cases.bad(
        "withdraw-permit",
        BadContent,
        "side 2",
        wrap(&wire::WithdrawPermit { side: 2, ..withdraw }.encode_to_vec()),
    );
    cases.bad("watch-permit", BadContent, "side 2", wrap(&wire::WatchPermit { side: 2, ..watch }.encode_to_vec()));
    let claim = virtual_claim(voucher::sign_virtual(&amount, &[&Signer::new(1).keys[0]]));
    cases.whole("virtual-claim", "of five", claim.encode_to_vec());
    let mut bad = |code, rule: &str, change: &dyn Fn(&mut wire::VirtualClaim)| {
        let mut claim = claim.clone();
        change(&mut claim);
        cases.bad("virtual-claim", code, rule, claim.encode_to_vec());
    };
    bad(BadContent, "without a cap", &|c| c.cap = None);
    bad(BadContent, "without an amount", &|c| c.amount = None);
    bad(BadContent, "of payer 2", &|c| c.payer = 2);
    bad(BadContent, "of a channel of 31 bytes", &|c| c.channel = c.channel.slice(1..));
    bad(BadContent, "with an id of 31 bytes", &|c| c.cap.iter_mut().for_each(|cap| cap.id = cap.id.slice(1..)));
    bad(BadContent, "with a hash of 31 bytes in its path", &|c| c.path[0] = c.path[0].slice(1..));
    bad(BadContent, "with an amount that is cut", &|c| {
        c.amount.iter_mut().for_each(|a| a.permit = a.permit.slice(1..))
    });
    bad(BadContent, "with an empty permit to watch", &|c| c.watch = Some(wire::SignedPermit::default()));
    bad(Limit, "with 17 signatures", &|c| c.amount.iter_mut().for_each(|a| a.signatures = vec![Bytes::new(); 17]));
    for (code, rule, permission) in bad_permissions() {
        let permission = Bytes::from(permission);
        bad(code, &format!("with {rule}"), &|c| c.cap.iter_mut().for_each(|cap| cap.permission = permission.clone()));
    }
    let good = invoice();
    break_message(cases, ("invoice", "invoice"), &good.encode_to_vec(), (BadContent, NonCanonical), |b| b.to_vec());
    let mut bad = |code, rule: &str, change: &dyn Fn(&mut wire::HubInvoice)| {
        let mut invoice = good.clone();
        change(&mut invoice);
        cases.bad("invoice", code, rule, invoice.encode_to_vec());
    };
    for length in [0, 31, 33] {
        let short = || Bytes::from(vec![6; length]);
        bad(BadContent, &format!("a payee of {length} bytes"), &|i| i.payee = short());
        bad(BadContent, &format!("a channel of {length} bytes"), &|i| i.channel = short());
        bad(BadContent, &format!("a secret hash of {length} bytes"), &|i| i.secret_hash = short());
    }
    bad(Limit, "a memo of 257 bytes", &|i| i.memo = "m".repeat(257));
    bad(BadAmount, "an amount of 0", &|i| i.amount = 0);
    bad(BadAmount, "an amount of 2^63", &|i| i.amount = 1 << 63);
}

/// Vouchers that are well formed and not worth anything, in the order of the checks.
fn redeems(cases: &mut Cases) {
    let good = wire::Voucher {
        channel: Bytes::copy_from_slice(&CHANNEL),
        lane: 1,
        nonce: 1,
        amount: 300,
        secret_hash: Bytes::copy_from_slice(&Sha256::digest(b"secret")),
        ..Default::default()
    };
    let signed = |terms: &wire::Voucher, signer: u32, by: u64| {
        Voucher::sign(terms.clone(), signer, &[&Signer::new(by).keys[0]]).signed()
    };
    let redemption = |voucher: wire::SignedVoucher, secret: &[u8]| {
        wire::Redemption { voucher: Some(voucher), secret: Bytes::copy_from_slice(secret), watch: None }.encode_to_vec()
    };
    cases.whole("redeem", "300 of 1,000", redemption(signed(&good, 0, 1), b"secret"));
    let mut bad = |code, rule: &str, change: &dyn Fn(&mut wire::Voucher)| {
        let mut terms = good.clone();
        change(&mut terms);
        cases.bad("redeem", code, rule, redemption(signed(&terms, 0, 1), b"secret"));
    };
    bad(VoucherChannel, "of another channel", &|t| t.channel = Bytes::from(vec![1; 32]));
    bad(ChannelOneWay, "that the other side pays", &|t| t.payer = 1);
    bad(VoucherEarly, "a ms too early", &|t| t.not_before_ms = NOW + 1);
    bad(VoucherExpired, "a ms too late", &|t| t.not_after_ms = NOW - 1);
    bad(VoucherAmount, "over 2^63", &|t| t.amount = 1 << 63);
    bad(VoucherSecret, "with another secret's hash", &|t| t.secret_hash = Bytes::from(vec![1; 32]));
    bad(VoucherLane, "of lane 1,024", &|t| t.lane = 1_024);
    bad(VoucherNonce, "with the nonce that was redeemed", &|t| (t.lane, t.nonce) = (3, 5));
    bad(VoucherNonce, "with a nonce before that", &|t| (t.lane, t.nonce) = (3, 4));
    bad(MergeOwnLane, "that merges its own lane", &|t| t.merges = vec![wire::LaneMerge { lane: 1, nonce: 9 }]);
    bad(MergeOwnLane, "that merges a lane twice", &|t| t.merges = vec![wire::LaneMerge { lane: 3, nonce: 9 }; 2]);
    bad(MergeLane, "that merges a lane with nothing redeemed", &|t| {
        t.merges = vec![wire::LaneMerge { lane: 2, nonce: 9 }]
    });
    bad(MergeNonce, "that merges up to the nonce there is", &|t| {
        t.merges = vec![wire::LaneMerge { lane: 3, nonce: 5 }]
    });
    bad(ChannelFunds, "over one more than there is", &|t| t.amount = 1_001);
    let mut bad = |code, rule: &str, voucher: wire::SignedVoucher, secret: &[u8]| {
        cases.bad("redeem", code, rule, redemption(voucher, secret));
    };
    bad(VoucherSigner, "signed by who redeems", signed(&good, 1, 2), b"secret");
    bad(VoucherUnsigned, "not signed", wire::SignedVoucher { signatures: vec![], ..signed(&good, 0, 1) }, b"secret");
    bad(KeyMismatch, "signed by a stranger", signed(&good, 0, 3), b"secret");
    bad(VoucherSecret, "without its secret", signed(&good, 0, 1), b"");
    bad(VoucherSecret, "with another secret", signed(&good, 0, 1), b"secreu");
    bad(VoucherSecretLong, "with a secret of 65 bytes", signed(&good, 0, 1), &[1; 65]);
    let changed = wire::Voucher { amount: 301, ..good.clone() }.encode_to_vec().into();
    bad(
        KeyMismatch,
        "changed after it was signed",
        wire::SignedVoucher { voucher: changed, ..signed(&good, 0, 1) },
        b"secret",
    );
}
