//! Attacks on the state machine as a whole.

use super::*;
use crate::authority::input::Input;
use crate::content::{TYPE_PAY, encode_pay};
use crate::envelope::{self, Order};
use crate::limits::*;
use prost::Message;

#[test]
fn a_certificate_of_one_shard_settles_nothing_at_another() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 2));
    let mut alice = Signer::on_shard(0, 2, 1);
    cluster.fund(alice.address, 100);
    let bob = Signer::on_shard(1, 2, 50);
    let orders = [alice.pay(&[to(bob.address, 60)], "")];
    let certificate = cluster.certify(0, &orders);
    for reply in cluster.settle(0, &certificate, &orders) {
        reply.unwrap();
    }
    cluster.deliver_all();
    let before = cluster.node(0, 1).state.clone();
    assert_eq!(code(cluster.node(0, 1).settle(&certificate, &orders)), Code::WrongShard);
    assert_eq!(cluster.node(0, 1).state, before);
    assert_eq!(cluster.balance(0, &bob.address), 60);
}

/// Successors name 64 bits of a hash, and two orders that share them take 2^32 tries. An authority that
/// voted for one of them and a successor must keep that vote when the other one settles.
#[test]
fn a_vote_outlives_a_collision_of_prev_hash() {
    let (mut cluster, mut alice) = funded(100);
    let first = [alice.pay(&[to(cluster.issuer.address, 10)], "")];
    let certificate = cluster.certify(0, &first);
    let mut other = alice.clone();
    let second = [alice.pay(&[to(cluster.issuer.address, 20)], "")];
    cluster.node(0, 0).vote(&second).unwrap();

    // As if this authority had voted for another first order, whose hash begins with the same 64 bits.
    let key = crate::authority::state::account_key(NETWORK_ID, alice.actor());
    let mut account = cluster.node(0, 0).account(alice.actor());
    let mut id = account.pending[0].order_id.to_vec();
    id[31] ^= 1;
    account.pending[0].order_id = id.into();
    let write = crate::authority::state::Write::put(Table::Accounts, key, account.encode());
    cluster.node(0, 0).state.apply(&[write]);

    cluster.node(0, 0).settle(&certificate, &first).unwrap();
    let conflicting = [other.pay(&[to(cluster.issuer.address, 30)], "")];
    let reply = cluster.node(0, 0).vote(&conflicting).unwrap();
    assert_eq!(refused(&reply), [(0, Code::PendingConflict)]);
    assert_eq!(accepted(&cluster.node(0, 0).vote(&second).unwrap()), 1);
}

/// Bytes that are no envelope but the body of an order must not stand for that order in its batch.
#[test]
fn a_body_without_envelope_takes_no_orders_place() {
    let (mut cluster, mut alice) = funded(100);
    let mut mallory = Signer::new(2);
    cluster.fund(mallory.address, 100);
    let real = alice.pay(&[to(mallory.address, 60)], "");
    let own = mallory.pay(&[to(mallory.address, 1)], "");
    let body = Order::decode(real.clone()).unwrap().body;
    cluster.vote(0, &[own.clone(), body]);
    let batch = [own, real];
    let certificate = cluster.certify(0, &batch);
    for reply in cluster.settle(0, &certificate, &batch) {
        assert_eq!(reply.unwrap().acknowledgement.unwrap().bitmap[0], 0b11);
    }
}

#[test]
fn nothing_is_written_for_orders_that_nobody_signed() {
    let (mut cluster, mut alice) = funded(100);
    let mut nobody = Signer::new(9);
    let key = secret(crate::keys::Curve::Ed25519, 10);
    let permission = crate::permission::Permission::single(key.public());
    let orders =
        [spoil(&nobody.set_permission(&permission, vec![key])), spoil(&alice.pay(&[to(nobody.address, 1)], ""))];
    let node = cluster.node(0, 0);
    let effects = node.step(Input::vote(orders.to_vec())).unwrap();
    assert!(effects.writes.is_empty(), "{} writes", effects.writes.len());
}

#[test]
fn many_conflicting_orders_with_bad_signatures_fall_in_one_batch() {
    let (mut cluster, alice) = funded(1_000_000);
    let orders: Vec<_> = (0..ORDERS_PER_BATCH_MAX as u64)
        .map(|i| {
            let content = encode_pay(&[to(cluster.issuer.address, 1 + i)], "", alice.open());
            spoil(&alice.sign(&alice.next_body(TYPE_PAY, content)))
        })
        .collect();
    let reply = cluster.node(0, 0).vote(&orders).unwrap();
    assert_eq!(reply.errors.len(), orders.len());
    assert!(refused(&reply).iter().all(|(_, code)| *code == Code::KeyMismatch));
    assert!(reply.vote.is_none());
}

/// The answer to a batch of conflicts fits into a message, however large the pending order is.
#[test]
fn conflicts_do_not_swell_the_reply() {
    let (mut cluster, mut alice) = funded(1_000_000);
    let rival = alice.clone();
    let outputs: Vec<_> = (0..256).map(|i| to(Signer::new(1).address, i + 1)).collect();
    cluster.node(0, 0).vote(&[alice.pay(&outputs, "")]).unwrap();
    let orders: Vec<_> = (0..1_024)
        .map(|i| {
            let content = encode_pay(&[to(cluster.issuer.address, 1 + i)], "", rival.open());
            rival.sign(&rival.next_body(TYPE_PAY, content))
        })
        .collect();
    let reply = cluster.node(0, 0).vote(&orders).unwrap();
    assert_eq!(reply.errors.len(), orders.len());
    assert!(!reply.errors[0].pending_order.is_empty());
    assert!(reply.encoded_len() < crate::limits::MESSAGE_BYTES_MAX, "{} bytes", reply.encoded_len());
}

/// A step must fit one write of the storage, whatever waited for it: certificates of successors handed in first
/// would otherwise settle by the thousand, in one step that no authority can write.
#[test]
fn what_waited_for_an_order_settles_in_steps_of_bounded_size() {
    let (mut cluster, issuer) = (Cluster::new(&TestCommittee::default()), TestCommittee::issuer());
    let mut signers: Vec<_> = (1..=4).map(Signer::new).collect();
    for signer in &signers {
        cluster.fund(signer.address, 1_000);
    }
    let chains: Vec<Vec<Bytes>> = signers
        .iter_mut()
        .map(|s| (0..PENDING_WINDOW).map(|_| s.pay(&[to(issuer.address, 1)], "")).collect())
        .collect();
    let mut certified = Vec::new();
    for i in 0..PENDING_WINDOW {
        for chain in &chains {
            let orders = vec![chain[i].clone()];
            certified.push((cluster.certify(0, &orders), orders));
        }
    }
    let first: Vec<_> = chains.iter().map(|chain| chain[0].clone()).collect();
    let together = cluster.certify(0, &first);
    let node = cluster.node(0, 0);
    for (certificate, orders) in certified.iter().skip(chains.len()) {
        assert!(node.settle(certificate, orders).unwrap().acknowledgement.is_none());
    }
    let settled = |node: &Node| node.authority.totals(&node.state).unwrap().orders;
    let before = settled(node);
    node.settle(&together, &first).unwrap();
    let at_once = settled(node) - before;
    assert_eq!(at_once, (chains.len() + FOLLOWERS_MAX) as u64, "orders in one step, of {}", certified.len());
    // Whoever hands in what is left gets it settled.
    for (certificate, orders) in &certified {
        assert!(node.settle(certificate, orders).unwrap().acknowledgement.is_some());
    }
    let totals = node.authority.totals(&node.state).unwrap();
    assert_eq!((totals.orders - before, totals.waiting), ((chains.len() * PENDING_WINDOW) as u64, 0));
}

/// Envelopes may be padded with signatures that nobody checks once an order is certified; what is kept must still
/// fit a message to peers.
#[test]
fn a_certified_batch_padded_beyond_a_message_is_refused() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    let mut orders = Vec::new();
    for mut signer in (1..=5).map(Signer::new) {
        cluster.fund(signer.address, 1_000);
        orders.extend((0..PENDING_WINDOW).map(|_| signer.pay(&[to(cluster.issuer.address, 1)], "")));
    }
    let votes = (1..4).filter_map(|i| cluster.node(i, 0).vote(&orders).unwrap().vote).collect();
    let certificate = cluster.certificate(&orders, votes);
    let sigs = vec![Bytes::from(vec![7; SIG_BYTES_MAX]); SIGS_PER_AUTHORITY_MAX];
    let junk = vec![envelope::Authority { key_type: 0, sigs }; AUTHORITIES_MAX];
    let pad = |o: &Bytes| envelope::encode_envelope(&Order::decode(o.clone()).unwrap().body, &junk);
    let padded: Vec<_> = orders.iter().map(pad).collect();
    let node = cluster.node(0, 0);
    assert_eq!(code(node.settle(&certificate, &padded)), Code::Limit);
    assert!(node.settle(&certificate, &orders).unwrap().acknowledgement.is_some());
}

/// Reading a page of credits costs about what the page holds, not as much as the batches that they came in.
#[test]
fn credits_lie_in_small_records() {
    let (mut cluster, mut alice) = funded(10_000);
    let bob = Signer::new(2);
    let orders: Vec<_> = (0..10).map(|_| alice.pay(&[to(bob.address, 1); OUTPUTS_MAX], "")).collect();
    cluster.run(&orders);
    let node = cluster.node(0, 0);
    for (_, value) in node.state.iter(Table::Credits) {
        let credits = wire::CreditsRecord::decode(value.clone()).unwrap().credits;
        assert!(credits.len() <= CREDITS_PER_RECORD, "{} credits in one record", credits.len());
    }
}

/// Anyone may pay addresses that begin with another's 63 bits. That must not make the other's record grow.
#[test]
fn dust_at_neighbouring_addresses_costs_an_account_nothing() {
    let (mut cluster, mut alice) = funded(100);
    let before = cluster.node(0, 0).account(alice.actor()).encode().len();
    let neighbour = |i: u8| {
        let mut bytes = *alice.address.as_bytes();
        bytes[31] ^= i;
        crate::address::Address::new(bytes)
    };
    for i in 1..=20 {
        cluster.fund(neighbour(i), u64::from(i));
    }
    let account = cluster.node(0, 0).account(alice.actor());
    assert_eq!(account.encode().len(), before);
    for i in 1..=20 {
        assert_eq!(cluster.balance(0, &neighbour(i)), i128::from(i));
    }
    // An address that was not the first of its actor spends like any other.
    let issuer = cluster.issuer.address;
    cluster.run(&[alice.pay(&[to(issuer, 40)], "")]);
    assert_eq!(cluster.balance(3, &alice.address), 60);
    let node = cluster.node(0, 0);
    let audit = crate::authority::audit::audit_shard(&node.authority, &node.state, true).unwrap();
    assert!(audit.is_clean(), "{:?}", audit.findings);
}

#[test]
fn the_owner_of_an_address_spends_also_when_dust_came_first() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    let mut alice = Signer::new(9);
    let mut bytes = *alice.address.as_bytes();
    bytes[20] ^= 1;
    cluster.fund(crate::address::Address::new(bytes), 5);
    cluster.fund(alice.address, 50);
    let issuer = cluster.issuer.address;
    let too_much = cluster.node(0, 0).vote(&[alice.clone().pay(&[to(issuer, 51)], "")]).unwrap();
    assert_eq!(refused(&too_much), [(0, Code::InsufficientFunds)]);
    cluster.run(&[alice.pay(&[to(issuer, 50)], "")]);
    assert_eq!(cluster.balance(1, &alice.address), 0);
    assert_eq!(cluster.balance(1, &crate::address::Address::new(bytes)), 5);
}

/// A lying authority's votes can make a certificate for each order of a batch; they must not pile up.
#[test]
fn certificates_for_parts_of_a_batch_are_bounded() {
    use crate::bitmap::Bitmap;
    use crate::certificate::{Promise, sign};
    let mut cluster = Cluster::new(&TestCommittee::new(4, 1));
    let mut signers: Vec<Signer> = (1..=4 * CERTIFICATES_PER_BATCH as u64).map(Signer::new).collect();
    signers.iter().for_each(|s| cluster.fund(s.address, 10));
    let issuer = cluster.issuer.address;
    let orders: Vec<_> = signers.iter_mut().map(|s| s.pay(&[to(issuer, 1)], "")).collect();
    let whole = cluster.certify(0, &orders);
    let id = crate::batch::decode_batch(&orders).unwrap().id;
    let part = |cluster: &Cluster, i: usize| {
        let mut bitmap = Bitmap::empty(orders.len());
        bitmap.set(i);
        let vote = |a: usize| sign(Promise::Vote, &cluster.committee, a as u32, &cluster.keys[a], &id, &bitmap);
        cluster.certificate(&orders, (0..3).map(vote).collect())
    };
    for i in 0..CERTIFICATES_PER_BATCH {
        let certificate = part(&cluster, i);
        cluster.node(0, 0).settle(&certificate, &orders).unwrap();
    }
    let one_more = part(&cluster, CERTIFICATES_PER_BATCH);
    let before = cluster.node(0, 0).state.clone();
    for i in CERTIFICATES_PER_BATCH..orders.len() {
        let certificate = part(&cluster, i);
        let error = cluster.node(0, 0).settle(&certificate, &orders).unwrap_err();
        let expected = "certificates for parts of one batch: expected at most 16, or one for all orders, found 17";
        assert_eq!((error.code, &error.message[..]), (Code::Limit, expected));
    }
    assert_eq!(cluster.node(0, 0).state, before);
    // What a peer could settle, everyone can; and it is served for just the orders that are missing.
    cluster.node(0, 0).step(Input::Fetched { certificate: one_more, orders: orders.clone() }).unwrap();
    let mut wanted = Bitmap::empty(orders.len());
    wanted.set(3);
    let root = Bytes::copy_from_slice(&id.root);
    let request = wire::BatchRequest { shard: 0, root, bitmap: wanted.to_bytes() };
    let node = cluster.node(0, 0);
    assert_eq!(node.authority.batch(&node.state, &request).unwrap().certificates.len(), 1);
    // One certificate for all takes the place of the many.
    node.settle(&whole, &orders).unwrap();
    assert_eq!(node.authority.batch(&node.state, &request).unwrap().certificates, [whole]);
}
