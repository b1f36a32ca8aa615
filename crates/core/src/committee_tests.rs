//! What a committee may be, and that its file is the committee.

use super::*;
use crate::testing::TestCommittee;

fn four() -> Committee {
    (*TestCommittee::default().build().0).clone()
}

#[test]
fn quorums_share_an_honest_authority() {
    for n in 4..40 {
        let committee = TestCommittee::new(n, 1).build().0;
        let (size, f, quorum) = (committee.size(), committee.faults(), committee.quorum());
        assert!(size == n && 3 * f < n && 3 * (f + 1) >= n, "the largest f that {n} survive");
        assert!(2 * quorum - n > f && quorum + f <= n && committee.validity() == f + 1, "{n}");
    }
}

#[test]
fn its_file_is_read_back_and_every_change_is_noticed() {
    let committee = four();
    let text = committee.to_toml();
    assert_eq!(Committee::from_toml(&text).unwrap(), committee);
    let said = |change: (&str, &str)| {
        let changed = text.replacen(change.0, change.1, 1);
        assert_ne!(changed, text, "{change:?}");
        let e = Committee::from_toml(&changed).unwrap_err();
        assert_eq!(e.code, Code::BadConfig);
        e.message
    };
    assert!(said(("version = 1", "version = 2")).contains("expected 1, found 2"));
    assert!(said(("decimals = 2", "decimals = 3")).contains("id of the committee file"));
    let hash = hex::encode(committee.network.genesis_hash);
    assert!(said((&hash, &hash[2..])).contains("32 bytes"));
    assert!(said(("epoch = ", "extra = 1\nepoch = ")).contains("syntax"));
    // Epoch and addresses may change: its id does not cover them.
    let mut moved = committee.clone();
    moved.epoch += 1;
    moved.authorities[0].addresses[0] = "elsewhere:1".into();
    assert_eq!(Committee::from_toml(&moved.to_toml()).unwrap().id(), committee.id());
}

#[test]
fn what_no_committee_is() {
    let said = |change: &dyn Fn(&mut Committee)| {
        let mut c = four();
        change(&mut c);
        Committee::new(c.epoch, c.shards, c.network, c.authorities).map(drop).map_err(|e| {
            assert_eq!(e.code, Code::BadConfig);
            e.message.split(':').next().unwrap_or_default().to_owned()
        })
    };
    let network = |change: fn(&mut Network)| said(&|c| change(&mut c.network));
    assert_eq!(said(&|_| ()), Ok(()));
    assert_eq!(said(&|c| drop(c.authorities.pop())), Err("authorities".into()));
    assert_eq!(said(&|c| c.shards = 0), Err("shards".into()));
    assert_eq!(said(&|c| c.shards = SHARDS_MAX + 1), Err("shards".into()));
    assert_eq!(network(|n| n.id = 0), Err("network id".into()));
    assert_eq!(network(|n| n.id = ID_MAX), Ok(()));
    assert_eq!(network(|n| n.id = ID_MAX + 1), Err("network id".into()));
    for currency in ["a", "thirteenchars", "Flr", "fl1", "bc"] {
        assert_eq!(said(&|c| c.network.currency = currency.into()), Err("currency".into()), "{currency}");
    }
    assert_eq!(network(|n| n.currency = "twelvetwelve".into()), Ok(()));
    assert_eq!(network(|n| n.decimals = DECIMALS_MAX), Ok(()));
    assert_eq!(network(|n| n.decimals = DECIMALS_MAX + 1), Err("decimals".into()));
    assert_eq!(network(|n| n.issuer_limit = AMOUNT_MAX), Ok(()));
    assert_eq!(network(|n| n.issuer_limit = AMOUNT_MAX + 1), Err("issuer limit".into()));
    assert_eq!(network(|n| n.issuer = Bytes::new()), Err("issuer's permission".into()));
    let twice = "keys and names of authorities";
    assert_eq!(said(&|c| c.authorities[1].key = c.authorities[0].key), Err(twice.into()));
    assert_eq!(said(&|c| c.authorities[3].name = c.authorities[0].name.clone()), Err(twice.into()));
    let addresses = format!("addresses of {}", four().authorities[2].name);
    assert_eq!(said(&|c| c.authorities[2].addresses.clear()), Err(addresses));
}

#[test]
fn where_an_actor_is_and_who_has_a_key() {
    let committee = TestCommittee::new(4, 3).build().0;
    let payments = committee.network.id;
    assert_eq!([7, 8].map(|actor| committee.shard_of(payments, actor)), [1, 2], "accounts are spread");
    let other = if payments == 10 { 13 } else { 10 };
    assert_eq!([7, 8].map(|actor| committee.shard_of(other, actor)), [1, 1], "another network is in one place");
    assert_eq!(committee.index_of(&committee.authorities[2].key), Some(2));
    let stranger = TestCommittee::new(5, 1).build().0.authorities[4].key;
    assert_eq!(committee.index_of(&stranger), None);
}
