//! Unlinkability: what all authorities together see of a run fits every pairing of notes issued with notes spent equally well.
//!
//! An authority sees of an issue the blinded nonce `B` and, if all of them put their shares together, `sk·B`; of a spend the
//! nonce `N` and the note's signature `S`. Both are seen with their tier. If the wallet's blinding factor was r, then `B = r·H(N)`, and S is
//! `sk·B` divided by r. So a pairing of the issues with the spends is possible if for each pair there is such an r, and they are all
//! equally likely if there is exactly one for each, as factors are uniform.
//!
//! The first test records a run of a committee, through votes, certificates, settling and shares, and checks for each
//! pair what makes that so, own pairs and foreign ones alike:
//! - B and H(N) are points of the group of prime order, and not its identity. So exactly one r takes one to the other.
//! - `sk·B` and S are signatures by the same key: e(sk·B, g2) = e(B, pk) and e(S, g2) = e(H(N), pk). So `sk·B = sk·r·H(N) = r·S` for that
//!   r: the factor that explains what was sent explains what came back.
//!
//! Who holds the whole of sk sees nothing more: it multiplies both sides alike. For own pairs the r is the wallet's, which is checked;
//! for foreign pairs nobody can compute it, as it would be a discrete logarithm between two hashes. So the second test
//! does the same with bases whose logarithms it knows in place of the hashes, and there it computes the factor for every
//! pair, and unblinds each issue into each note with it.
//!
//! The third test looks through all that the committee's disks hold before any note is spent for anything that is seen when
//! notes are spent, and the other way round, as a wallet that put a nonce, or two orders' common key, into the clear
//! would pass the first two.
//!
//! What these tests do not show: what follows from amounts, times, network addresses, and which notes are spent or
//! asked for together, or asked about on one connection; that is in `docs/privacy.md`. That the wallet's factors look
//! uniform rests on HKDF; its test vectors are in `cash/derive_tests.rs`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use bytes::Bytes;
use florin_core::authority::state::Table;
use florin_core::bearer::build;
use florin_core::cash::blind::{BlindSignature, BlindedNonce, BlindingFactor, Nonce, NoteSignature, SignatureShare};
use florin_core::cash::combine::combine;
use florin_core::cash::curve::G1;
use florin_core::cash::mint_keys::MintKeys;
use florin_core::cash::testing::{Asked, Note, Purse, mint, scalar};
use florin_core::content::{Action, Content, TYPE_PAY, credit_output, encode_withdraw};
use florin_core::envelope::Order;
use florin_core::testing::{Cluster, NETWORK_ID, Signer, TestCommittee, to};

/// The tier of all notes: who sees different tiers can tell notes apart.
const TIER: u32 = 2;
const WALLETS: u64 = 4;
/// Of each wallet.
const NOTES: usize = 3;

/// What authorities see of an issue.
struct Issue {
    blinded: BlindedNonce,
    /// What their shares come to.
    signature: BlindSignature,
}

/// What they see of a spend.
struct Spent {
    nonce: Nonce,
    signature: NoteSignature,
}

/// A run, and what its wallets know.
struct Run {
    keys: MintKeys,
    issues: Vec<Issue>,
    spends: Vec<Spent>,
    /// By issue: its factor and the spend that it came to.
    truth: Vec<(BlindingFactor, usize)>,
    /// Everything that stood on all disks, with the orders, when all notes were issued and none spent.
    before: Vec<Bytes>,
    /// What all disks hold in the end and did not then.
    after: Vec<Bytes>,
}

/// What all authorities have on disk.
fn disks(cluster: &Cluster) -> Vec<Bytes> {
    let mut all = Vec::new();
    for node in cluster.nodes.iter().flatten() {
        for table in Table::ALL {
            for (key, value) in node.state.iter(table) {
                all.push(Bytes::copy_from_slice(key));
                all.push(value.clone());
            }
        }
    }
    all
}

/// What authorities see of an order that asks for notes, by its bytes and their shares alone.
fn issues(keys: &MintKeys, order: &Bytes, answers: &[(u32, Vec<Bytes>)]) -> Vec<Issue> {
    let content = Content::decode(&Order::decode(order.clone()).unwrap()).unwrap();
    let notes = if let Action::Bearer(bearer) = &content.action { &bearer.asked } else { &content.notes };
    let of = |(place, asked): (usize, &florin_core::bearer::NoteAsked)| {
        assert_eq!(asked.tier, TIER);
        let blinded = asked.point().unwrap();
        let share = |(i, shares): &(u32, Vec<Bytes>)| (i + 1, SignatureShare::parse(&shares[place]).unwrap());
        let shares: Vec<_> = answers.iter().map(share).collect();
        let combined = combine(keys.shared(TIER).unwrap(), &blinded, &shares).unwrap();
        Issue { blinded, signature: combined.signature.unwrap() }
    };
    notes.iter().enumerate().map(of).collect()
}

/// What they see of an order that spends notes.
fn spends(order: &Bytes) -> Vec<Spent> {
    let order = Order::decode(order.clone()).unwrap();
    let Action::Bearer(bearer) = Content::decode(&order).unwrap().action else { panic!("a bearer order") };
    let signatures = florin_core::bearer::signatures(&order, &bearer).unwrap();
    let of = |(note, sig): (&florin_core::bearer::NoteSpent, &[u8; 112])| {
        assert_eq!(note.tier, TIER);
        Spent { nonce: note.nonce, signature: NoteSignature::parse(&sig[..48]).unwrap() }
    };
    bearer.notes.iter().zip(signatures).map(of).collect()
}

/// Four wallets withdraw, one of them reissues what it got, then all deposit, one note an order, in an order of their own.
fn record() -> Run {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 2));
    let signers: Vec<Signer> = (1..=WALLETS).map(Signer::new).collect();
    signers.iter().for_each(|signer| cluster.fund(signer.address, 100));
    drop(cluster.make_cash(TIER as usize + 1));
    let keys = mint(4, TIER as usize + 1).remove(0);
    let (mut seen, mut factors, mut held): (Vec<Issue>, Vec<(BlindingFactor, Nonce)>, Vec<Note>) = Default::default();
    let mut note_down = |cluster: &Cluster, purse: &Purse, asked: &[Asked], order: &Bytes| {
        let answers = cluster.shares(order);
        seen.extend(issues(&keys, order, &answers));
        factors.extend(asked.iter().map(|a| (a.secrets.blinding().clone(), a.secrets.nonce())));
        purse.take(asked, &answers).into_iter().map(Option::unwrap).collect::<Vec<Note>>()
    };
    let mut spent = Vec::new();
    let mut before = Vec::new();
    for (number, mut signer) in (1..).zip(signers) {
        let mut purse = Purse::new(number, NETWORK_ID, keys.clone());
        let asked = purse.ask(&[TIER; NOTES]);
        let order = signer.withdraw(&asked);
        run(&mut cluster, &order);
        before.push(order.clone());
        held.extend(note_down(&cluster, &purse, &asked, &order));
    }
    before.extend(disks(&cluster));
    // What the first wallet sent, the last one makes its own.
    let mut purse = Purse::new(99, NETWORK_ID, keys.clone());
    let sent: Vec<Note> = held.drain(..2).collect();
    let asked = purse.ask(&[TIER; 2]);
    let outputs = asked.iter().map(Asked::output).collect();
    let order = build(NETWORK_ID, &sent.iter().map(Note::spend).collect::<Vec<_>>(), outputs, "", None);
    run(&mut cluster, &order);
    spent.push(order.clone());
    held.extend(note_down(&cluster, &purse, &asked, &order));
    // Any order but that of the issues.
    held.sort_by_key(|note| note.secrets.nonce());
    for note in &held {
        let credit = credit_output(&to(Signer::new(7).address, 1 << TIER));
        let order = build(NETWORK_ID, &[note.spend()], vec![credit], "", None);
        run(&mut cluster, &order);
        spent.push(order);
    }
    let known: BTreeSet<Bytes> = before.iter().cloned().collect();
    let mut after: Vec<Bytes> = disks(&cluster).into_iter().filter(|bytes| !known.contains(bytes)).collect();
    after.extend(spent.iter().cloned());
    let all: Vec<Spent> = spent.iter().flat_map(spends).collect();
    let place = |nonce: &Nonce| all.iter().position(|s| s.nonce == *nonce).expect("all are spent in the end");
    let truth = factors.iter().map(|(factor, nonce)| (factor.clone(), place(nonce))).collect();
    Run { keys: (*keys).clone(), issues: seen, truth, spends: all, before, after }
}

fn run(cluster: &mut Cluster, order: &Bytes) {
    cluster.run(std::slice::from_ref(order));
}

#[test]
fn every_issue_fits_every_spend() {
    let run = record();
    let count = WALLETS as usize * NOTES + 2;
    assert_eq!((run.issues.len(), run.spends.len()), (count, count));
    let key = run.keys.tier_key(TIER).unwrap();
    for (i, issue) in run.issues.iter().enumerate() {
        let (own, place) = &run.truth[i];
        for (j, spent) in run.spends.iter().enumerate() {
            let (b, h) = (*issue.blinded.point(), spent.nonce.hash());
            // Points of the group, by their own check at decoding; of prime order, so exactly one r takes h to b.
            assert!(G1::from_bytes(&b.to_bytes()).is_ok() && G1::from_bytes(&h.to_bytes()).is_ok());
            // The same key for both, so the same r takes the note's signature to the blind one.
            assert!(
                key.verifies_blind(&issue.blinded, &issue.signature) && key.verifies(&spent.nonce, &spent.signature)
            );
            // That the wallet's factor is that r for its own note, and for no other.
            assert_eq!(spent.nonce.blind(own) == issue.blinded, j == *place, "issue {i}, spend {j}");
            assert_eq!(own.unblind(&issue.signature) == spent.signature, j == *place, "issue {i}, spend {j}");
        }
    }
}

/// H(N_j) is replaced by x_j·G with a known x_j: a random oracle may be programmed so.
#[test]
fn with_known_logarithms_each_pair_has_its_factor() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    let mut alice = Signer::new(1);
    cluster.fund(alice.address, 100);
    drop(cluster.make_cash(TIER as usize + 1));
    let all_keys = mint(4, TIER as usize + 1);
    let keys = all_keys[0].clone();
    let logs: Vec<_> = (0..12).map(|j| scalar(&format!("logarithm {j}"))).collect();
    let factors: Vec<_> = (0..12).map(|i| scalar(&format!("factor {i}"))).collect();
    let bases: Vec<G1> = logs.iter().map(|x| G1::generator().mul(x)).collect();
    let requests: Vec<_> = bases
        .iter()
        .zip(&factors)
        .map(|(base, r)| florin_core::bearer::NoteAsked::request(TIER, &BlindedNonce::new(base.mul(r)).unwrap()))
        .collect();
    let order = alice.order(TYPE_PAY, encode_withdraw(&[], &requests, "", alice.open()));
    let answers = cluster.run_cash(&order);
    let issues = issues(&keys, &order, &answers);
    // The notes, as all authorities together would sign them in the open.
    let notes: Vec<G1> = bases
        .iter()
        .map(|base| {
            let base = BlindedNonce::new(*base).unwrap();
            let shares: Vec<_> =
                all_keys.iter().zip(1..).map(|(k, i)| (i, k.share(TIER).unwrap().sign(&base))).collect();
            *combine(keys.shared(TIER).unwrap(), &base, &shares).unwrap().signature.unwrap().point()
        })
        .collect();
    let mut found = BTreeSet::new();
    for (i, issue) in issues.iter().enumerate() {
        for (j, note) in notes.iter().enumerate() {
            let r = factors[i].mul(&logs[i]).mul(&logs[j].inverse().unwrap());
            assert_eq!(bases[j].mul(&r), *issue.blinded.point(), "issue {i}, spend {j}: what was sent");
            let factor = BlindingFactor::new(r.clone()).unwrap();
            assert_eq!(factor.unblind(&issue.signature).point(), note, "issue {i}, spend {j}: what came back");
            assert_eq!(r == factors[i], i == j, "the wallet's own for its own note");
            found.insert(*r.to_bytes());
        }
    }
    assert_eq!(found.len(), 144, "one for each pair");
}

#[test]
fn nothing_of_a_spend_is_seen_before_it() {
    let run = record();
    let contains = |all: &[Bytes], what: &[u8]| all.iter().any(|bytes| bytes.windows(what.len()).any(|w| w == what));
    // Withdrawals are the first twelve issues; what was reissued was asked for later.
    let withdrawn = WALLETS as usize * NOTES;
    for (_, place) in &run.truth[..withdrawn] {
        let spent = &run.spends[*place];
        let hash = spent.nonce.hash().to_bytes();
        for what in [&spent.nonce.0[..], &spent.signature.to_bytes(), &hash] {
            assert!(!contains(&run.before, what), "{:?} is seen when it is issued", spent.nonce);
            assert!(!contains(&run.before, &what[1..17]), "part of {:?}", spent.nonce);
        }
        assert!(contains(&run.after, &spent.nonce.0), "but then it is");
    }
    for issue in &run.issues[..withdrawn] {
        let blinded = issue.blinded.to_bytes();
        assert!(contains(&run.before, &blinded));
        for what in [&blinded, &issue.signature.to_bytes()] {
            assert!(!contains(&run.after, &what[1..17]), "a blinded nonce comes up again");
        }
    }
}
