//! f lying authorities, whichever they are and however they lie: orders of e-cash go through, the notes are made, and the
//! liars are known.

use std::collections::BTreeSet;

use bytes::Bytes;
use florin_core::bearer::build;
use florin_core::cash::blind::SignatureShare;
use florin_core::cash::combine::combine;
use florin_core::cash::mint_keys::MintKeys;
use florin_core::cash::testing::{Asked, Note, Purse, mint};
use florin_core::testing::{Cluster, NETWORK_ID, Signer, TestCommittee};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::points::{self, Torsion};

type Answers = Vec<(u32, Vec<Bytes>)>;

const KINDS: usize = 7;

/// What a liar answers in place of its shares.
fn lie(kind: usize, own: &[Bytes], others: &[Bytes], torsion: &Torsion, rng: &mut ChaCha20Rng) -> Vec<Bytes> {
    let mut changed = |change: &mut dyn FnMut(&points::Encoded, &mut ChaCha20Rng) -> Vec<u8>| {
        own.iter().map(|share| change(&share[..].try_into().unwrap(), rng).into()).collect()
    };
    match kind % KINDS {
        0 => own.iter().rev().cloned().collect(),
        1 => others.to_vec(),
        2 => changed(&mut |share, _| points::negated(share).into()),
        3 => changed(&mut |share, rng| torsion.added(share, rng).into()),
        4 => changed(&mut |_, rng| torsion.one(rng).into()),
        5 => changed(&mut |share, _| share[..47].to_vec()),
        _ => changed(&mut |share, rng| points::identity(share, rng).into()),
    }
}

/// What the wallet makes of answers: the notes, and for each who did not answer with a true share.
fn take(keys: &MintKeys, asked: &[Asked], answers: &Answers) -> Vec<(Note, BTreeSet<u32>)> {
    let of = |(place, asked): (usize, &Asked)| {
        let mut liars = BTreeSet::new();
        let mut shares = Vec::new();
        for (authority, answer) in answers {
            match answer.get(place).map(|share| SignatureShare::parse(share)) {
                Some(Ok(share)) => shares.push((authority + 1, share)),
                _ => drop(liars.insert(*authority)),
            }
        }
        let combined = combine(keys.shared(asked.tier).unwrap(), &asked.secrets.blinded(), &shares).unwrap();
        liars.extend(combined.liars.iter().map(|index| index - 1));
        let signature = asked.secrets.blinding().unblind(&combined.signature.expect("n - f told the truth"));
        assert!(keys.tier_key(asked.tier).unwrap().verifies(&asked.secrets.nonce(), &signature));
        (Note { tier: asked.tier, secrets: asked.secrets.clone(), signature, recoveries: 0 }, liars)
    };
    asked.iter().enumerate().map(of).collect()
}

/// All sets of `f` of `n`.
fn subsets(n: u32, f: usize) -> Vec<BTreeSet<u32>> {
    (0..1u32 << n)
        .filter(|bits| bits.count_ones() as usize == f)
        .map(|bits| (0..n).filter(|i| bits >> i & 1 == 1).collect())
        .collect()
}

fn reissue(purse: &mut Purse, notes: &[Note], tiers: &[u32]) -> (Bytes, Vec<Asked>) {
    let asked = purse.ask(tiers);
    let spends: Vec<_> = notes.iter().map(Note::spend).collect();
    (build(NETWORK_ID, &spends, asked.iter().map(Asked::output).collect(), "", None), asked)
}

/// Withdraw, then reissue again and again; each time others lie, in another way.
fn survive(n: u32, f: usize, rounds: usize) {
    let mut cluster = Cluster::new(&TestCommittee::new(n as usize, 1));
    let mut alice = Signer::new(1);
    cluster.fund(alice.address, 100);
    let mut purse = cluster.make_cash(4);
    let keys = mint(n, 4).remove(0);
    let (torsion, mut rng) = (Torsion::new(), ChaCha20Rng::seed_from_u64(n.into()));
    let tiers = [0, 1, 3, 1];
    let mut asked = purse.ask(&tiers);
    let mut order = alice.withdraw(&asked);
    let mut named = BTreeSet::new();
    for (round, liars) in subsets(n, f).into_iter().cycle().take(rounds).enumerate() {
        let mut answers = cluster.run_cash(&order);
        let honest = answers.clone();
        // The liars answer first, when it matters most.
        answers.sort_by_key(|(authority, _)| !liars.contains(authority));
        for (k, (authority, answer)) in answers.iter_mut().take(f).enumerate() {
            let others = &honest[(*authority as usize + 1) % n as usize].1;
            *answer = lie(round + k, &honest[*authority as usize].1, others, &torsion, &mut rng);
        }
        let taken = take(&keys, &asked, &answers);
        for (_, found) in &taken {
            assert_eq!(found, &liars, "round {round}: who lied about a note");
            named.extend(found.iter().copied());
        }
        let notes: Vec<Note> = taken.into_iter().map(|(note, _)| note).collect();
        (order, asked) = reissue(&mut purse, &notes, &tiers);
    }
    assert_eq!(named.len(), n as usize, "each lied once at least");
}

#[test]
fn one_liar_of_four() {
    survive(4, 1, 28);
}

#[test]
fn two_liars_of_seven() {
    survive(7, 2, 21);
}
