//! The audit is clean after anything that authorities do, and names whatever was tampered with.

use prost::Message;

use super::*;
use crate::authority::audit::{ShardAudit, audit_authority, audit_shard};
use crate::authority::input::Input;
use crate::authority::state::{
    Account, Link, TOTALS_KEY, Write, account_key, i128_bytes, link_key, need_record, order_key, outbox_key,
};
use crate::permission::Permission;

/// Two shards, four accounts that paid one another, a change of keys, something pending, something waiting.
fn busy() -> (Cluster, Vec<Signer>) {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 2));
    let mut signers: Vec<Signer> = (0..4).map(|i| Signer::on_shard(i % 2, 2, 1 + 100 * u64::from(i))).collect();
    let addresses: Vec<_> = signers.iter().map(|s| s.address).collect();
    addresses.iter().for_each(|a| cluster.fund(*a, 1_000));
    for round in 0..3 {
        let orders: Vec<Bytes> = (0..4)
            .map(|i| {
                let outputs =
                    [to(addresses[(i + 1) % 4], 10 + round), to(addresses[(i + 2) % 4], 5), to(addresses[i], 1)];
                signers[i].pay(&outputs, "thanks")
            })
            .collect();
        cluster.run(&orders);
    }
    let key = secret(crate::keys::Curve::R1, 7);
    let order = signers[3].set_permission(&Permission::single(key.public()), vec![key]);
    cluster.run(&[order]);
    // Pending at shard 0; and certified at shard 1 with the predecessor missing at authority 0.
    cluster.vote(0, &[signers[0].pay(&[to(addresses[1], 3)], "")]);
    let first = [signers[1].pay(&[to(addresses[0], 3)], "")];
    let second = [signers[1].pay(&[to(addresses[2], 4)], "")];
    cluster.certify(1, &first);
    let certificate = cluster.certify(1, &second);
    cluster.node(0, 1).settle(&certificate, &second).unwrap();
    (cluster, signers)
}

fn audit(cluster: &Cluster, shard: u32) -> ShardAudit {
    let node = &cluster.nodes[0][shard as usize];
    audit_shard(&node.authority, &node.state, true).unwrap()
}

fn both(cluster: &Cluster) -> Vec<String> {
    audit_authority(&[(0, audit(cluster, 0)), (1, audit(cluster, 1))], None)
}

/// Tampers with shard 0 of authority 0 and expects a finding that contains each text.
fn found(tamper: impl FnOnce(&mut Node, &[Signer]), texts: &[&str]) {
    let (mut cluster, signers) = busy();
    tamper(cluster.node(0, 0), &signers);
    let findings = audit(&cluster, 0).findings;
    for text in texts {
        assert!(findings.iter().any(|f| f.contains(text)), "no finding with {text:?} in {findings:#?}");
    }
}

fn change<M: Message + Default>(node: &mut Node, table: Table, key: &[u8], change: impl FnOnce(&mut M)) {
    let mut record: M = need_record(&node.state, table, key).unwrap();
    change(&mut record);
    node.state.apply(&[Write::put(table, key, record.encode_to_vec())]);
}

#[test]
fn clean_after_activity() {
    let (mut cluster, signers) = busy();
    for shard in 0..2 {
        let audit = audit(&cluster, shard);
        assert_eq!(audit.findings, Vec::<String>::new());
        assert!(audit.certificates > 0 && audit.orders > 5 && audit.credits > 5);
    }
    assert_eq!(both(&cluster), Vec::<String>::new());
    // Also with money in flight.
    let mut alice = signers[0].clone();
    (alice.seqnum, alice.prev_hash) = (signers[0].seqnum - 1, cluster.node(0, 0).account(alice.actor()).prev_hash);
    let orders = [alice.pay(&[to(signers[1].address, 3)], "")];
    let certificate = cluster.certify(0, &orders);
    cluster.node(0, 0).settle(&certificate, &orders).unwrap();
    assert_eq!(audit(&cluster, 0).outbox.len(), 1);
    assert_eq!((audit(&cluster, 0).findings, both(&cluster)), (vec![], vec![]));
    // An order that a later batch settled from an earlier one.
    cluster.deliver_all();
    let mut bob = signers[1].clone();
    (bob.seqnum, bob.prev_hash) = (signers[1].seqnum - 2, cluster.node(0, 1).account(bob.actor()).prev_hash);
    let first = [bob.pay(&[to(signers[0].address, 3)], "")];
    let certificate = cluster.certify(1, &first);
    cluster.node(0, 1).settle(&certificate, &first).unwrap();
    assert_eq!(cluster.node(0, 1).account(bob.actor()).seqnum, signers[1].seqnum);
    assert_eq!((audit(&cluster, 1).findings, both(&cluster)), (vec![], vec![]));
}

#[test]
fn clean_with_genesis_and_before_anything() {
    let committee = TestCommittee { genesis_hash: [1; 32], ..TestCommittee::new(4, 2) };
    let mut cluster = Cluster::new(&committee);
    assert_eq!(both(&cluster), Vec::<String>::new());
    let lines: Vec<_> = (1..9).map(|i| (Signer::new(i).address, 100 * i)).collect();
    for shard in 0..2 {
        let input = Input::Genesis { first_line: 0, lines: lines.clone(), last: true };
        cluster.node(0, shard).step(input).unwrap();
        let audit = audit(&cluster, shard);
        assert_eq!(audit.findings, Vec::<String>::new());
    }
    assert_eq!(both(&cluster), Vec::<String>::new());
    assert_eq!(audit(&cluster, 0).issued + audit(&cluster, 1).issued, 3_600);
}

#[test]
fn a_balance_changed() {
    let raise = |node: &mut Node, signers: &[Signer]| {
        let key = account_key(NETWORK_ID, signers[0].actor());
        change(node, Table::Accounts, &key, |r: &mut wire::AccountRecord| {
            let balance = crate::authority::state::i128_of(&r.holdings[0].balance).unwrap();
            r.holdings[0].balance = i128_bytes(balance + 1);
        });
    };
    found(raise, &["balance: expected"]);
}

#[test]
fn seqnum_permission_and_address_changed() {
    let tamper = |node: &mut Node, signers: &[Signer]| {
        let key = account_key(NETWORK_ID, signers[0].actor());
        change(node, Table::Accounts, &key, |r: &mut wire::AccountRecord| {
            r.seqnum += 1;
            r.prev_hash ^= 1;
            r.permission = signers[1].permission.encode();
            r.address = Bytes::copy_from_slice(signers[1].address.as_bytes());
        });
    };
    found(
        tamper,
        &[
            "seqnum: expected 3, found 4",
            "prev_hash: expected",
            "permission: expected",
            "address: expected",
            "its pending order",
        ],
    );
}

#[test]
fn a_credit_dropped() {
    let tamper = |node: &mut Node, _: &[Signer]| {
        let last = node.state.iter(Table::Credits).last().unwrap().0.to_vec();
        change(node, Table::Credits, &last, |r: &mut wire::CreditsRecord| {
            r.credits.pop();
        });
    };
    found(tamper, &["balance: expected"]);
    let first = |node: &mut Node, _: &[Signer]| {
        let key = node.state.iter(Table::Credits).next().unwrap().0.to_vec();
        node.state.apply(&[Write::delete(Table::Credits, key)]);
    };
    found(first, &["number of the next credits: expected 0, found 1", "totals: credit records"]);
}

#[test]
fn a_local_credit_redirected() {
    let tamper = |node: &mut Node, signers: &[Signer]| {
        let keys: Vec<Vec<u8>> = node.state.iter(Table::Credits).map(|(k, _)| k.to_vec()).collect();
        for key in keys {
            change(node, Table::Credits, &key, |r: &mut wire::CreditsRecord| {
                let own = |c: &&mut wire::CreditRecord| c.entry.as_ref().is_some_and(|e| e.actor == signers[2].actor());
                if let Some(credit) = r.credits.iter_mut().find(own) {
                    credit.address = Bytes::copy_from_slice(signers[2].address.as_bytes());
                }
            });
        }
    };
    found(tamper, &["credits of this shard's own orders: expected", "credit before it", "balance: expected"]);
}

#[test]
fn a_body_changed() {
    let tamper = |node: &mut Node, signers: &[Signer]| {
        let key = order_key(NETWORK_ID, signers[0].actor(), 1);
        let order: wire::OrderRecord = need_record(&node.state, Table::Orders, &key).unwrap();
        change(node, Table::Batches, &order.batch.to_be_bytes(), |r: &mut wire::BatchRecord| {
            let mut other = Signer::on_shard(0, 2, 1);
            r.orders[order.index as usize] = other.pay(&[to(other.address, 1_000)], "");
        });
    };
    found(
        tamper,
        &["root of its orders: expected", "order record: expected", "prev_hash: expected", "balance: expected"],
    );
}

#[test]
fn an_order_record_removed() {
    let tamper = |node: &mut Node, signers: &[Signer]| {
        node.state.apply(&[Write::delete(Table::Orders, order_key(NETWORK_ID, signers[0].actor(), 2))]);
    };
    found(tamper, &["expected an order record, found none", "totals: order records"]);
}

#[test]
fn a_settled_entry_removed_or_repeated() {
    let tamper = |node: &mut Node, _: &[Signer]| {
        let last = node.state.iter(Table::Settled).last().unwrap().0.to_vec();
        node.state.apply(&[Write::delete(Table::Settled, last)]);
    };
    found(tamper, &["totals: settled entries", "seqnum: expected"]);
    let first = |node: &mut Node, signers: &[Signer]| {
        let key = order_key(NETWORK_ID, signers[0].actor(), 1);
        let order: wire::OrderRecord = need_record(&node.state, Table::Orders, &key).unwrap();
        let progress: wire::ProgressRecord =
            need_record(&node.state, Table::Progress, &order.batch.to_be_bytes()).unwrap();
        let of_batch = |v: &Bytes| wire::SettledEntry::decode(v.clone()).unwrap().root == progress.root;
        let key = node.state.iter(Table::Settled).find(|(_, v)| of_batch(v)).unwrap().0.to_vec();
        node.state.apply(&[Write::delete(Table::Settled, key)]);
    };
    found(first, &["settled seqnum 1, found 2 next"]);
    let again = |node: &mut Node, _: &[Signer]| {
        let (key, value) = node.state.iter(Table::Settled).last().map(|(k, v)| (k.to_vec(), v.clone())).unwrap();
        let position = u64::from_be_bytes(key.try_into().unwrap()) + 1;
        let entry = wire::SettledEntry { position, ..wire::SettledEntry::decode(value).unwrap() };
        node.state.apply(&[Write::put(Table::Settled, position.to_be_bytes(), entry.encode_to_vec())]);
    };
    found(again, &["found it settled twice"]);
}

#[test]
fn a_certificate_forged_or_missing() {
    let forge = |node: &mut Node, signers: &[Signer]| {
        let key = order_key(NETWORK_ID, signers[0].actor(), 1);
        let order: wire::OrderRecord = need_record(&node.state, Table::Orders, &key).unwrap();
        change(node, Table::Progress, &order.batch.to_be_bytes(), |r: &mut wire::ProgressRecord| {
            r.certificates[0].votes[0].signature = Bytes::from_static(&[7; 64]);
        });
    };
    found(forge, &["a certificate of it is false: BAD_VOTE", "settled, expected a certificate"]);
    let remove = |node: &mut Node, signers: &[Signer]| {
        let key = order_key(NETWORK_ID, signers[0].actor(), 1);
        let order: wire::OrderRecord = need_record(&node.state, Table::Orders, &key).unwrap();
        let key = order.batch.to_be_bytes();
        change(node, Table::Progress, &key, |r: &mut wire::ProgressRecord| r.certificates.clear());
    };
    found(remove, &["settled, expected a certificate"]);
}

#[test]
fn totals_changed() {
    let tamper = |node: &mut Node, _: &[Signer]| {
        change(node, Table::Meta, TOTALS_KEY, |r: &mut wire::TotalsRecord| {
            r.accounts = i128_bytes(1);
            r.sent = i128_bytes(2);
            r.received = i128_bytes(4);
            r.genesis = i128_bytes(8);
            (r.orders, r.next_batch, r.next_credits, r.waiting) = (99, 99, 99, 99);
        });
    };
    let sums = ["balances: expected", "sent to other shards: expected", "received from other shards: expected"];
    found(tamper, &sums);
    let counts = ["genesis credits: expected", "sum: expected 0", "orders: expected", "batches: expected", "waiting"];
    found(tamper, &counts);
}

#[test]
fn a_delivery_replayed() {
    let (mut cluster, _) = busy();
    let state = cluster.node(0, 0).state.clone();
    let applied = crate::authority::state::get_u64(&state, Table::Links, &link_key(Link::Applied, 1)).unwrap().unwrap();
    // Shard 0 forgets that it has applied the newest delivery, and gets another copy of its first credit.
    let credit = state
        .iter(Table::Credits)
        .flat_map(|(_, v)| wire::CreditsRecord::decode(v.clone()).unwrap().credits)
        .find(|c| c.entry.as_ref().is_some_and(|e| e.seqnum > 0 && e.actor % 2 == 1))
        .unwrap();
    let amount = credit.entry.as_ref().unwrap().amount;
    let credits = vec![wire::DeliveredCredit { address: credit.address, amount, source: credit.entry }];
    let forget = Write::put(Table::Links, link_key(Link::Applied, 1), (applied - 1).to_be_bytes());
    cluster.node(0, 0).state.apply(&[forget]);
    let delivery = wire::Delivery { from_shard: 1, to_shard: 0, sequence: applied, credits, ..Default::default() };
    cluster.node(0, 0).step(Input::Deliver(delivery)).unwrap();
    assert_eq!(audit(&cluster, 0).findings, Vec::<String>::new(), "its own books agree");
    let findings = both(&cluster);
    assert!(findings.iter().any(|f| f.contains("shard 1 to shard 0: expected")), "{findings:#?}");
    assert!(findings.iter().any(|f| f.contains("expected 0, found")), "{findings:#?}");
}

#[test]
fn money_in_flight_lost_or_changed() {
    let (mut cluster, signers) = busy();
    let mut alice = signers[2].clone();
    let orders = [alice.pay(&[to(signers[1].address, 3)], "")];
    let certificate = cluster.certify(0, &orders);
    cluster.node(0, 0).settle(&certificate, &orders).unwrap();
    let (key, value) =
        cluster.node(0, 0).state.iter(Table::Outbox).next().map(|(k, v)| (k.to_vec(), v.clone())).unwrap();
    let mut delivery = wire::Delivery::decode(value).unwrap();
    assert_eq!(key, outbox_key(1, delivery.sequence));
    delivery.credits[0].amount += 1;
    cluster.node(0, 0).state.apply(&[Write::put(Table::Outbox, key.clone(), delivery.encode_to_vec())]);
    assert!(audit(&cluster, 0).findings[0].contains("amount of a delivered credit: expected 3, found 4"));
    assert!(!both(&cluster).is_empty());
    cluster.node(0, 0).state.apply(&[Write::delete(Table::Outbox, key)]);
    assert!(audit(&cluster, 0).findings[0].contains("outbox to shard 1: expected deliveries"));
    assert!(both(&cluster).iter().any(|f| f.contains("shard 0 to shard 1: expected")));
}

#[test]
fn what_goes_to_another_shard_is_credits_and_nothing_else() {
    let (mut cluster, signers) = busy();
    let mut alice = signers[2].clone();
    let orders = [alice.pay(&[to(signers[1].address, 3)], "")];
    let certificate = cluster.certify(0, &orders);
    cluster.node(0, 0).settle(&certificate, &orders).unwrap();
    let node = cluster.node(0, 0);
    let key = node.state.iter(Table::Outbox).next().unwrap().0.to_vec();
    let clean = node.state.clone();
    let changes: [fn(&mut wire::Delivery); 3] = [
        |d| d.calls.push(wire::LogCall::default()),
        |d| d.steps.push(wire::LogStep::default()),
        |d| d.credits[0].address = Bytes::from_static(&[0; 32]),
    ];
    for (tamper, text) in
        changes.into_iter().zip(["expected only credits", "expected only credits", "shard of a delivered"])
    {
        let node = cluster.node(0, 0);
        node.state = clean.clone();
        change(node, Table::Outbox, &key, tamper);
        let findings = audit(&cluster, 0).findings;
        assert!(findings.len() == 1 && findings[0].contains(text), "{text:?}: {findings:#?}");
    }
}

#[test]
fn totals_that_are_gone_where_there_is_only_a_vote() {
    let mut cluster = Cluster::new(&TestCommittee::default());
    // Who sets keys alone needs no money.
    let key = secret(crate::keys::Curve::R1, 7);
    let order = Signer::new(1).set_permission(&Permission::single(key.public()), vec![key]);
    assert_eq!(accepted(&cluster.node(0, 0).vote(&[order]).unwrap()), 1);
    let node = cluster.node(0, 0);
    node.state.apply(&[Write::delete(Table::Meta, TOTALS_KEY)]);
    assert_eq!(
        audit(&cluster, 0).findings,
        ["totals: expected a record, found none", "totals: batches: expected 1, found 0"]
    );
    let node = cluster.node(0, 0);
    node.state = MemState::default();
    assert_eq!(audit(&cluster, 0).findings, [] as [String; 0], "before anything there are none");
}

#[test]
fn many_faults_are_counted_and_the_first_are_shown() {
    let (mut cluster, _) = busy();
    for actor in 0..200_u64 {
        let mut account = Account::default();
        account.holding_mut(&Signer::new(1).address).balance = 5;
        let write = Write::put(Table::Accounts, account_key(NETWORK_ID, 2 * actor), account.encode());
        cluster.node(0, 0).state.apply(&[write]);
    }
    let audit = audit(&cluster, 0);
    assert_eq!((audit.findings.len(), audit.findings_total, audit.is_clean()), (100, 200, false));
}

/// Shard 0 with something in every table, and the audit of shard 1.
fn full() -> (Cluster, ShardAudit) {
    let (mut cluster, signers) = busy();
    let mut alice = signers[2].clone();
    let orders = [alice.pay(&[to(signers[1].address, 3)], "")];
    let certificate = cluster.certify(0, &orders);
    cluster.node(0, 0).settle(&certificate, &orders).unwrap();
    let other = audit(&cluster, 1);
    (cluster, other)
}

/// Whether the audit of shard 0 notices these writes.
fn noticed(cluster: &Cluster, other: &ShardAudit, write: Write) -> bool {
    let node = &cluster.nodes[0][0];
    let mut state = node.state.clone();
    state.apply(&[write]);
    match audit_shard(&node.authority, &state, true) {
        Ok(audit) => !audit.is_clean() || !audit_authority(&[(0, audit), (1, other.clone())], None).is_empty(),
        Err(e) => e.code == Code::StorageCorrupt,
    }
}

#[test]
fn any_record_removed_is_noticed() {
    let (cluster, other) = full();
    // The last three are the log's.
    for table in &Table::ALL[..11] {
        let table = *table;
        let state = &cluster.nodes[0][0].state;
        assert!(state.iter(table).next().is_some() || table == Table::Cursors);
        for (key, _) in state.iter(table) {
            let write = Write::delete(table, key);
            assert!(noticed(&cluster, &other, write), "{} {}", table.name(), hex::encode(key));
        }
    }
}

/// But for the senders' signatures in the batches, which the quorum has checked.
#[test]
fn any_bit_flipped_is_noticed() {
    let (cluster, other) = full();
    for table in Table::ALL.into_iter().filter(|t| *t != Table::Batches) {
        for (n, (key, value)) in cluster.nodes[0][0].state.iter(table).enumerate() {
            for at in (n % 7..value.len()).step_by(7) {
                let mut changed = value.to_vec();
                changed[at] ^= 1 << (at % 7);
                let write = Write::put(table, key, changed);
                assert!(noticed(&cluster, &other, write), "{} {}, byte {at}", table.name(), hex::encode(key));
            }
        }
    }
}
