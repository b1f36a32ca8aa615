use florin_core::certificate::BatchId;
use florin_core::content::Credit;
use florin_core::distilled::marked;
use florin_core::merkle::Tree;
use florin_core::signatures::Batch;
use florin_core::testing::TestCommittee;

use super::*;
use crate::keystore::{Keystore, Meta};
use crate::wallet::once::Request;

fn wallet(folder: &tempfile::TempDir) -> (Wallet, Seed) {
    let (committee, _) = TestCommittee::new(4, 1).build();
    let network = &committee.network;
    let meta = Meta {
        network_id: network.id,
        currency: network.currency.clone(),
        decimals: network.decimals,
        curve: Curve::Ed25519,
    };
    let path = folder.path().join("wallet");
    drop(Keystore::create(&path, &[7; 16], "pw", meta).unwrap());
    let wallet = Wallet::open(&path, committee).unwrap();
    (wallet, Seed::from_entropy(&[7; 16]).unwrap())
}

fn pay(wallet: &mut Wallet, seed: &Seed) -> Order {
    let credit = Credit { address: wallet.address(0).unwrap(), amount: 1 };
    Order::decode(wallet.sign_pay(seed, 0, &[credit], "").unwrap()).unwrap()
}

#[test]
fn a_change_of_keys_proves_the_bls_key_and_is_the_accounts_own() {
    let folder = tempfile::tempdir().unwrap();
    let (mut wallet, seed) = wallet(&folder);
    let on = Rekey { account: 0, bls: true };
    let draft = wallet.rekey(&seed, &on).unwrap();
    let (records, envelopes) = wallet.prepare(&seed, &[(0, draft)], None).unwrap();
    wallet.record(records).unwrap();
    let order = Order::decode(envelopes[0].clone()).unwrap();
    let content = florin_core::content::Content::decode(&order).unwrap();
    let mut batch = Batch::new();
    batch.push_setting(0, &order, &wallet.permission(0).unwrap(), &content.sets_bls_keys().unwrap());
    assert_eq!(batch.verify().results, [(0, Ok(()))]);
    assert!(wallet.signed_here(0, &order).unwrap());
    assert!(Request::Keys(on).is(&content) && !Request::Keys(Rekey { account: 0, bls: false }).is(&content));
}

#[test]
fn enough_authorities_tell_whether_an_account_has_a_bls_key() {
    let folder = tempfile::tempdir().unwrap();
    let (mut wallet, seed) = wallet(&folder);
    let Draft::Keys(with, _) = wallet.rekey(&seed, &Rekey { account: 0, bls: true }).unwrap() else { unreachable!() };
    let reply = |permission: Bytes| Ok(wire::AccountReply { permission, ..Default::default() });
    let (with, without) = (|| reply(with.encode()), || reply(wallet.permission(0).unwrap().encode()));
    let nothing = || reply(Bytes::new());
    assert!(wallet.keys_said(0, &[with(), nothing(), nothing(), nothing()]).is_none());
    assert!(wallet.keys_said(0, &[with(), with(), without(), without()]).is_none(), "they do not agree");
    let said = wallet.keys_said(0, &[with(), without(), with(), with()]).unwrap();
    let (with, without) = ([with(), with(), with()], [without(), without(), without()]);
    wallet.record(vec![said]).unwrap();
    assert!(wallet.account(0).distils && wallet.keys_said(0, &with).is_none());
    assert!(wallet.keys_said(0, &without).is_some());
}

#[test]
fn an_order_with_a_mark_is_own_if_enough_authorities_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut wallet, seed) = wallet(&folder);
    let order = pay(&mut wallet, &seed);
    let mark = Order::decode(marked(&order, None)).unwrap();
    let ids = |shown: &[&Order]| {
        let shown: Vec<Order> = shown.iter().copied().cloned().collect();
        wallet.own_orders(0, &shown).unwrap().iter().map(|o| (o.id, mark_of(o).is_some())).collect::<Vec<_>>()
    };
    assert_eq!(ids(&[&mark]), []);
    assert_eq!(ids(&[&mark, &mark]), [(order.id, true)]);
    assert_eq!(ids(&[&mark, &mark, &order]), [(order.id, false)], "better with its signature");

    // Taken over from them, it is signed again when the seed is there.
    let other = tempfile::tempdir().unwrap();
    let (mut copy, seed) = self::wallet(&other);
    let envelope = hex::encode(&mark.raw);
    let taken = Record::Signed { account: 0, seqnum: 1, envelope, time: 0, id: None };
    copy.record(vec![taken, Record::Keys { account: 0, bls: true }]).unwrap();
    assert_eq!(copy.account(0).pending[0].envelope, mark.raw);
    copy.sign_roots(&seed, 0).unwrap();
    assert_eq!(copy.account(0).pending[0].envelope, order.raw);
}

#[test]
fn a_share_is_of_the_own_order_under_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let (mut wallet, seed) = wallet(&folder);
    let order = pay(&mut wallet, &seed);
    let key = seed.key(Curve::Bls, 0).unwrap();
    let tree = Tree::new(&[[1; 32], order.id]);
    let batch = BatchId { root: tree.root(), count: 2 };
    let good = Proposal { batch, index: 1, path: tree.path(1) }.to_wire(&wallet.committee);
    let signed = share(&wallet, &key, &order.id, &good).unwrap();
    let message = florin_core::distilled::root_message(&wallet.committee, &batch);
    let signature = signed.signature[..].try_into().unwrap();
    assert!(florin_core::bls::verifies(&key.public().bls().unwrap(), &message, &signature));
    assert_eq!(signed.root, batch.root[..]);
    let refused = |id: &Hash, proposal: wire::RootProposal| share(&wallet, &key, id, &proposal).unwrap_err().code;
    assert_eq!(refused(&[2; 32], good.clone()), Code::BadProof);
    assert_eq!(refused(&order.id, wire::RootProposal { index: 0, ..good.clone() }), Code::BadProof);
    assert_eq!(refused(&order.id, wire::RootProposal { epoch: 9, ..good }), Code::WrongEpoch);
}
