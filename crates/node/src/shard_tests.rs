//! What a shard promises when something goes wrong inside, and what others can make it do.

use std::time::Duration;

use bytes::Bytes;
use florin_core::authority::state::{TOTALS_KEY, Table, Totals, Write};
use florin_core::cash::testing::mint;
use florin_core::testing::{Cluster, Signer, TestCommittee, to};
use prost::Message;
use tempfile::TempDir;

use super::*;

fn open(dir: &TempDir) -> (Authority, Store) {
    let (committee, keys) = TestCommittee::default().build();
    let store = Store::open(dir.path(), 0, *committee.id(), 0, true).unwrap();
    (Authority::new(committee, 0, 0, keys[0].clone()), store)
}

fn vote(order: &Bytes) -> Input {
    Input::vote(vec![order.clone()])
}

/// An operator who looks at `/health` must see it, and clients must not wait.
#[tokio::test]
async fn a_shard_whose_thread_panicked_says_so() {
    let dir = TempDir::new().unwrap();
    let (authority, store) = open(&dir);
    // Books that do not balance: the next step's own check stops it.
    let wrong = Totals { sent: 1, ..Totals::default() };
    store.write(&[Write::put(Table::Meta, TOTALS_KEY, wrong.encode().encode_to_vec())]).unwrap();
    let (shard, threads) = Shard::start(authority, store, Default::default()).unwrap();
    let order = TestCommittee::issuer().pay(&[to(Signer::new(1).address, 5)], "");
    assert_eq!(shard.handle(vote(&order)).await.unwrap_err().code, Code::Busy);
    let mut fault = shard.fault.clone();
    tokio::time::timeout(Duration::from_secs(10), fault.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert!(shard.why_silent().unwrap().message.contains("panicked"));
    drop(shard);
    threads.join();
}

#[tokio::test]
async fn an_order_is_shown_as_soon_as_it_is_voted_for() {
    let dir = TempDir::new().unwrap();
    let (authority, store) = open(&dir);
    let (shard, threads) = Shard::start(authority, store, Default::default()).unwrap();
    let mut issuer = TestCommittee::issuer();
    let order = issuer.pay(&[to(Signer::new(1).address, 5)], "");
    shard.handle(vote(&order)).await.unwrap();
    let request =
        wire::OrderRequest { network_id: issuer.network_id, actor: issuer.actor(), seqnum: 1, ..Default::default() };
    let reply = shard.order(request).await.unwrap();
    assert_eq!(reply.state(), wire::order_reply::State::Voted);
    assert_eq!(reply.receipt.unwrap().transaction, order);
    drop(shard);
    threads.join();
}

/// A certificate proves the orders of its batch, and those alone get shares: not what somebody sends along with a
/// certificate that has long settled.
#[tokio::test]
async fn shares_are_for_what_was_certified() {
    let dir = TempDir::new().unwrap();
    let (authority, store) = open(&dir);
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut purse = cluster.make_cash(3);
    authority.set_mint(mint(4, 3).remove(0));
    let (shard, threads) = Shard::start(authority, store, Default::default()).unwrap();
    let mut issuer = TestCommittee::issuer();
    let paid = vec![issuer.withdraw(&purse.ask(&[0, 2]))];
    let certificate = cluster.certify(0, &paid);
    let mut shares = Vec::new();
    let unpaid = vec![issuer.withdraw(&purse.ask(&[1, 1, 2]))];
    for orders in [paid.clone(), paid, unpaid, vec![Bytes::from_static(b"?")], Vec::new()] {
        let Reply::Settle(reply) = shard.settle(certificate.clone(), orders, true).await.unwrap() else { panic!() };
        shares.push(reply.shares);
    }
    assert_eq!((shares[0].len(), shares[0][0].shares.len()), (1, 2));
    assert!(shares.windows(2).all(|pair| pair[0] == pair[1]), "{shares:?}");
    drop(shard);
    threads.join();
}
