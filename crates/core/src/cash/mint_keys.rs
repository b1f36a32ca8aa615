//! The keys of e-cash, ready for use: each tier's, the public sides of all shares, and an authority's own shares.

use std::sync::Arc;

use super::blind::{KeyShare, PublicShare, TierKey};
use super::combine::SharedKey;
use super::curve::Scalar;
use super::dkg::{KeyShares, PublicKeys};
use crate::error::{Code, Error, Result};
use zeroize::Zeroizing;

/// Keys that were checked: the shares of each tier are of its key, and the own ones are those that they should be.
#[derive(Clone, Debug)]
pub struct MintKeys {
    public: Arc<PublicKeys>,
    shared: Arc<[SharedKey]>,
    shares: Option<Arc<[KeyShare]>>,
}

impl MintKeys {
    /// Checks them. An authority without shares of its own can verify, and signs nothing.
    /// Errors: `BAD_KEY` if public keys or shares do not belong together, `DECODE` for the identity among them.
    pub fn new(public: PublicKeys, shares: Option<KeyShares>) -> Result<MintKeys> {
        let shared = public.tiers.iter().map(|tier| {
            let shares = tier.shares.iter().map(|share| PublicShare::new(*share)).collect::<Result<_>>()?;
            SharedKey::new(public.threshold as u32, TierKey::new(tier.key)?, shares)
        });
        let shared: Arc<[SharedKey]> = shared.collect::<Result<_>>()?;
        let shares = shares.map(|shares| own(&shared, &shares)).transpose()?;
        Ok(MintKeys { public: Arc::new(public), shared, shares })
    }

    /// How many tiers there are: notes of tier i are worth 2^i minor units.
    pub fn tiers(&self) -> usize {
        self.shared.len()
    }

    /// The keys as the log has them.
    pub fn public(&self) -> &Arc<PublicKeys> {
        &self.public
    }

    /// What notes of a tier are verified with.
    pub fn tier_key(&self, tier: u32) -> Option<&TierKey> {
        self.shared(tier).map(SharedKey::key)
    }

    /// A tier's key with the public sides of its shares.
    pub fn shared(&self, tier: u32) -> Option<&SharedKey> {
        self.shared.get(tier as usize)
    }

    /// This authority's share of a tier's key, if it holds shares.
    pub fn share(&self, tier: u32) -> Option<&KeyShare> {
        self.shares.as_ref()?.get(tier as usize)
    }

    /// This authority's shares, as they are stored, if it holds some.
    pub fn encode_shares(&self) -> Option<Zeroizing<Vec<u8>>> {
        let shares = self.shares.as_ref()?;
        let index = shares.first()?.index() - 1;
        let secret = |share: &KeyShare| Scalar::from_bytes(&share.secret()).expect("a scalar's own bytes");
        Some(KeyShares { index, tiers: shares.iter().map(secret).collect() }.encode())
    }

    /// Whether this authority holds shares: then of every tier.
    pub fn holds_shares(&self) -> bool {
        self.shares.is_some()
    }
}

/// An authority's shares, if they are those of the public keys.
fn own(shared: &[SharedKey], shares: &KeyShares) -> Result<Arc<[KeyShare]>> {
    if shares.tiers.len() != shared.len() {
        return Err(Error::expected(Code::BadKey, "key shares", format!("{} tiers", shared.len()), shares.tiers.len()));
    }
    let place = shares.index as usize;
    let check = |(tier, (keys, secret)): (usize, (&SharedKey, &Scalar))| {
        let share = KeyShare::new(shares.index.saturating_add(1), secret.clone())?;
        match keys.shares().get(place) == Some(&share.public()) {
            true => Ok(share),
            false => Err(Error::new(Code::BadKey, format!("the share of tier {tier} is not authority {place}'s"))),
        }
    };
    shared.iter().zip(&shares.tiers).enumerate().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cash::dkg::TierKeys;
    use crate::cash::testing::deal;

    fn dealt(tiers: usize) -> (PublicKeys, Vec<KeyShares>) {
        let all: Vec<_> = (0..tiers).map(|tier| deal(3, 4, &format!("tier {tier}"))).collect();
        let public = all.iter().map(|(shared, _)| TierKeys {
            key: *shared.key().point(),
            shares: shared.shares().iter().map(|share| *share.point()).collect(),
        });
        let secret = |(_, shares): &(SharedKey, Vec<KeyShare>), i: usize| {
            Scalar::from_bytes(&shares[i].secret()).expect("a scalar's own bytes")
        };
        let shares = |i: usize| KeyShares { index: i as u32, tiers: all.iter().map(|tier| secret(tier, i)).collect() };
        (PublicKeys { threshold: 3, tiers: public.collect() }, (0..4).map(shares).collect())
    }

    #[test]
    fn keys_that_belong_together_and_no_others() {
        let (public, shares) = dealt(2);
        let keys = MintKeys::new(public.clone(), Some(shares[2].clone())).unwrap();
        let again = KeyShares::decode(&keys.encode_shares().unwrap()).unwrap();
        assert!(again == shares[2]);
        assert_eq!((keys.tiers(), keys.share(1).map(KeyShare::index)), (2, Some(3)));
        assert!(keys.share(2).is_none() && keys.shared(2).is_none() && keys.tier_key(2).is_none());
        let none = MintKeys::new(public.clone(), None).unwrap();
        assert!(!none.holds_shares() && none.share(0).is_none() && none.tier_key(0) == keys.tier_key(0));

        let refused =
            |public: &PublicKeys, shares: Option<KeyShares>| MintKeys::new(public.clone(), shares).unwrap_err().code;
        let another = KeyShares { index: 1, ..shares[2].clone() };
        assert_eq!(refused(&public, Some(another)), Code::BadKey, "another's");
        let nobody = KeyShares { index: u32::MAX, ..shares[2].clone() };
        assert_eq!(refused(&public, Some(nobody)), Code::BadKey, "nobody's");
        let fewer = KeyShares { index: 2, tiers: shares[2].tiers[..1].to_vec() };
        assert_eq!(refused(&public, Some(fewer)), Code::BadKey, "fewer");
        let mut swapped = public.clone();
        swapped.tiers[0].shares.swap(0, 1);
        assert_eq!(refused(&swapped, None), Code::BadKey, "on no one polynomial");
        let mut swapped = public;
        swapped.tiers.swap(0, 1);
        assert_eq!(refused(&swapped, Some(shares[2].clone())), Code::BadKey, "of other tiers");
    }
}
