//! Notes come out of true shares, whatever else comes with them.

use florin_core::cash::blind::{KeyShare, TierKey};
use florin_core::cash::dkg::{PublicKeys, TierKeys};
use florin_core::cash::testing::deal;

use super::super::records::NoteRecord;
use super::*;
use crate::seed::Seed;

/// Four authorities' keys, three of which sign.
pub(in super::super) struct Mint {
    pub keys: MintKeys,
    shares: Vec<Vec<KeyShare>>,
}

impl Mint {
    pub fn new(tiers: usize) -> Mint {
        let dealt: Vec<_> = (0..tiers).map(|tier| deal(3, 4, &format!("tier {tier}"))).collect();
        let public = dealt.iter().map(|(shared, _)| TierKeys {
            key: *shared.key().point(),
            shares: shared.shares().iter().map(|share| *share.point()).collect(),
        });
        let keys = MintKeys::new(PublicKeys { threshold: 3, tiers: public.collect() }, None).unwrap();
        Mint { keys, shares: dealt.into_iter().map(|(_, shares)| shares).collect() }
    }

    pub fn share(&self, authority: usize, asked: &Blind) -> Bytes {
        let share = self.shares[asked.tier as usize][authority].sign(&asked.blinded);
        Bytes::copy_from_slice(&share.to_bytes())
    }

    pub fn check(&self, note: &NoteRecord) {
        let signature = NoteSignature::parse(&hex::decode(&note.signature).unwrap()).unwrap();
        let key: &TierKey = self.keys.tier_key(note.tier).unwrap();
        assert!(key.verifies(&Nonce(note.nonce.0), &signature));
    }
}

pub(in super::super) fn secrets(n: u8) -> Secrets {
    Secrets::new(Seed::from_entropy(&[n; 16]).unwrap(), 7)
}

#[test]
fn notes_are_made_in_spite_of_liars() {
    let (mint, secrets) = (Mint::new(2), secrets(1));
    let lock = Lock { receiver: Hex32([1; 32]), sender: Hex32([2; 32]), after_ms: 3 };
    let asked = || vec![Blind::new(&secrets, 0, 0, None), Blind::new(&secrets, 1, 1, Some(&lock))];
    let (asked, again) = (asked(), asked());
    let honest = |who: &[usize], asked: &Blind| who.iter().map(|a| (*a, mint.share(*a, asked))).collect::<Vec<_>>();
    let all = [0, 1, 2, 3];
    // The first gives what is no point, the same for both, or the share of another note.
    let mut shares: Vec<_> = asked.iter().map(|blind| honest(&all, blind)).collect();
    let made = unblind(1, &mint.keys, &asked, &shares).unwrap();
    assert!(made.signatures.iter().all(Option::is_some) && made.liars.is_empty());
    let expected = made.signatures;
    for lie in [Bytes::new(), Bytes::from_static(&[0xff; 48]), mint.share(0, &asked[1])] {
        shares[0][0].1 = lie;
        let made = unblind(1, &mint.keys, &again, &shares).unwrap();
        assert_eq!((&made.signatures, made.liars.into_iter().collect::<Vec<_>>()), (&expected, vec![0]));
    }
    let nonce = nonce_of(&asked[1], Some(&lock));
    assert!(mint.keys.tier_key(1).unwrap().verifies(&Nonce(nonce.0), &expected[1].unwrap()), "locked ones, too");
    // Two true ones are too few, and make nothing false.
    shares[0].truncate(3);
    let made = unblind(1, &mint.keys, &asked, &shares).unwrap();
    assert!(made.signatures[0].is_none() && made.signatures[1].is_some());
    assert_eq!(unblind(1, &mint.keys, &asked, &[]).unwrap().signatures, [None, None]);
    let other = [Blind::new(&secrets, 0, 2, None)];
    assert_eq!(unblind(1, &mint.keys, &other, &[]).unwrap_err().code, Code::BadKey);
}

/// A hundred notes of five tiers, with two liars among the first three authorities of four: one about one note, one about another.
#[test]
fn any_number_of_threads_gives_the_same() {
    let (mint, secrets) = (Mint::new(5), secrets(2));
    let lock = Lock { receiver: Hex32([1; 32]), sender: Hex32([2; 32]), after_ms: 3 };
    let made = |i: u64| Made {
        counter: i,
        tier: (i * 7 % 5) as u32,
        nonce: Hex32([0; 32]),
        send: false,
        lock: (i % 10 == 3).then_some(lock),
    };
    let order: Vec<Made> = (0..100).map(made).collect();
    let asked = Blind::all(1, &secrets, &order);
    for threads in [2, 5] {
        let again = Blind::all(threads, &secrets, &order);
        assert!(again.iter().map(Blind::bytes).eq(asked.iter().map(Blind::bytes)), "blinded on {threads}");
    }
    let honest: Vec<Vec<(usize, Bytes)>> =
        asked.iter().map(|blind| (0..4).map(|a| (a, mint.share(a, blind))).collect()).collect();
    let on = |threads, shares: &[_]| unblind(threads, &mint.keys, &asked, shares).unwrap();
    let truth = on(1, &honest);
    assert!(truth.signatures.iter().all(Option::is_some) && truth.liars.is_empty());

    let mut shares = honest.clone();
    // Another note's share, no point at all, and what nobody needs to look at.
    shares[57][1].1 = honest[58][1].1.clone();
    shares[93][2].1 = Bytes::from_static(&[0xff; 48]);
    shares[12][3].1 = Bytes::new();
    // Too few for one note: a lie among three.
    shares[99] = vec![honest[99][0].clone(), (2, honest[98][2].1.clone()), honest[99][3].clone()];
    let mut expected = truth.signatures.clone();
    expected[99] = None;
    for threads in [1, 2, 5, 100] {
        assert_eq!(on(threads, &honest).signatures, truth.signatures, "on {threads}");
        let made = on(threads, &shares);
        let named: Vec<usize> = made.liars.into_iter().collect();
        assert_eq!((made.signatures, named), (expected.clone(), vec![1, 2]), "on {threads}");
    }

    // The first note that is wrong is told, though it is of a higher tier than the second.
    shares[31][0].0 = 7;
    shares[75][0].0 = 1;
    for threads in [1, 2, 5] {
        let error = |shares: &[_]| unblind(threads, &mint.keys, &asked, shares).unwrap_err();
        assert_eq!(error(&shares).code, Code::UnknownAuthority, "on {threads}");
        let mut later = shares.clone();
        later.swap(31, 75);
        assert_eq!(error(&later).code, Code::DuplicateSigner, "on {threads}");
        let mut without_key = Blind::all(1, &secrets, &order);
        without_key[80].tier = 5;
        let error = unblind(threads, &mint.keys, &without_key, &shares).unwrap_err();
        assert!(error.code == Code::BadKey && error.message.contains("tier 5"), "{error} on {threads}");
    }
}
