//! The audit of the log names what was tampered with.

use prost::Message;

use super::*;
use crate::authority::state::{LOG, Link, account_key, link_key, need_record, order_key, outbox_key};
use crate::channel::channel_id;
use crate::channel::voucher::Voucher;
use crate::limits::SESSION_ROUNDS;
use crate::ordered::input::Input;
use wire::network_command::Kind as N;

fn end_session(cluster: &mut Cluster) {
    let mut signatures = Vec::new();
    for log in &mut cluster.logs {
        let book = log.log.book(&log.state).unwrap();
        let data = Bytes::from_static(b"x");
        let (session, position, round) = (book.session, book.units, SESSION_ROUNDS);
        let unit = Input::Unit { session, position, creator: 0, round, data };
        signatures.extend(log.step(unit).unwrap().closed);
    }
    for log in &mut cluster.logs {
        for (session, signature) in &signatures {
            log.step(Input::Signature { session: *session, signature: signature.clone() }).unwrap();
        }
    }
}

/// A log with something of every kind in it: contracts open, claimed and taken back, networks, the primary, failed
/// orders, a recovery decided and one open, sessions closed and one open, channels with something redeemed, one of them about to
/// be collected and one whose delay waits for clocks, deliveries on their way.
fn full() -> (Cluster, Signer, Signer) {
    let (mut cluster, mut alice, mut bob) = setup(2);
    let mut carol = Signer::new(3);
    cluster.fund(carol.address, 500);
    let f = |expiry| fund(10, expiry, &alice.clone(), &bob);
    let order = alice.call(vec![], vec![f(5_000), f(5_000), f(900_000_000), credit(&bob, 4)]);
    let ids = [0, 1].map(|i| contract_id(&id_of(&order), i));
    cluster.run_ordered(&[order]);
    let own = bob.clone();
    let take = bob.call(vec![claim(ids[0], 10, b"secret")], vec![credit(&own, 10)]);
    let redeem = wire::PrimaryRedeem { amount: 40, address: bytes(&carol) };
    let out = carol.call(vec![], vec![output::Kind::PrimaryRedeem(redeem)]);
    cluster.run_ordered(&[take, out]);
    let (mut dave, mut erin) = (Signer::new(4), Signer::new(5));
    cluster.fund(dave.address, 500);
    let opening = wire::ChannelOpen {
        opener: bytes(&dave),
        other: bytes(&erin),
        opener_permission: dave.permission.encode(),
        other_permission: erin.permission.encode(),
        delay_ms: 3_600_000,
        two_way: true,
        amount: 30,
    };
    let order = dave.call(vec![], vec![output::Kind::ChannelOpen(opening); 2]);
    let channels = [0, 1].map(|i| channel_id(cluster.committee.id(), &id_of(&order), i));
    cluster.run_ordered(&[order]);
    let voucher = wire::Voucher {
        channel: Bytes::copy_from_slice(&channels[0]),
        lane: 3,
        nonce: 9,
        amount: 12,
        secret_hash: hash(b"secret"),
        ..Default::default()
    };
    let voucher = Voucher::sign(voucher, 0, &[&dave.keys[0]]);
    let (voucher, secret) = (Some(voucher.signed()), Bytes::from_static(b"secret"));
    let redemptions = vec![wire::Redemption { voucher, secret, watch: None }];
    let redeemed = output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims: vec![] });
    let redeemed = erin.call(vec![], vec![redeemed]);
    cluster.run_ordered(&[redeemed]);
    let settle =
        |id: &[u8; 32]| output::Kind::ChannelSettle(wire::ChannelSettle { channel: Bytes::copy_from_slice(id) });
    let settled = dave.call(vec![], vec![settle(&channels[0])]);
    cluster.run_ordered(&[settled]);
    end_session(&mut cluster);
    let deposit = output::Kind::PrimaryDeposit(wire::PrimaryDeposit { amount: 15, address: bytes(&alice) });
    let register = N::Register(wire::NetworkRegister { flags: 1, ..Default::default() });
    let network = output::Kind::Network(wire::NetworkCommand { network_id: 900, kind: Some(register) });
    let back = carol.call(vec![], vec![deposit, network]);
    let failed = bob.call(vec![claim(ids[0], 10, b"secret")], vec![credit(&own, 30)]);
    cluster.set_time(5_000);
    let own = alice.clone();
    let again = alice.call(vec![refund(ids[1], 10)], vec![credit(&own, 10)]);
    cluster.run_ordered(&[back, failed, again]);
    // Carol's next seqnum is void; Bob's recovery is open.
    cluster.run_ordered(&[carol.recover()]);
    cluster.set_time(5_000 + RECOVERY_WAIT_MS);
    cluster.order_all();
    end_session(&mut cluster);
    let settled = dave.call(vec![], vec![settle(&channels[1])]);
    cluster.run_ordered(&[bob.recover(), settled]);
    // Ordered, and not delivered to the shards.
    let order = alice.call(vec![], vec![credit(&bob, 7), credit(&alice.clone(), 1)]);
    cluster.run(&[order]);
    let items = cluster.log_items(1);
    cluster.order_items(1, 0, items);
    (cluster, alice, bob)
}

#[test]
fn clean_with_everything_in_it_and_money_under_way() {
    let (mut cluster, alice, _) = full();
    for i in 0..4 {
        clean(&cluster, i);
    }
    let (_, log, _) = audits(&cluster, 0);
    assert_eq!((log.sessions, log.orders, log.recoveries.len()), (2, 11, 1));
    let held = [("accounts", 0), ("contracts", 10), ("bridge", 25), ("registry", 0), ("channels", 60)];
    assert_eq!(log.held, held);
    // A certified CALL that has settled at one shard and is in no log.
    cluster.order_all();
    let mut alice = alice;
    let order = [alice.call(vec![], vec![credit(&alice.clone(), 1)])];
    let shard = alice.address.shard(2);
    let certificate = cluster.certify(shard, &order);
    cluster.node(0, shard).settle(&certificate, &order).unwrap();
    clean(&cluster, 0);
    // The others' logs have it before their shards do.
    let items = cluster.log_items(0);
    cluster.order_items(0, 0, items);
    (0..4).for_each(|i| clean(&cluster, i));
    cluster.order_all();
    check(&cluster, &[]);
}

/// Whether the audits of authority 0 notice these writes in its log.
fn noticed(cluster: &Cluster, shards: &[(u32, ShardAudit)], write: Write) -> bool {
    let log = &cluster.logs[0];
    let mut state = log.state.clone();
    state.apply(&[write]);
    match audit_log(&log.log, &state, true) {
        Ok(audit) => !audit.is_clean() || !audit_authority(shards, Some(&audit)).is_empty(),
        Err(e) => e.code == Code::StorageCorrupt,
    }
}

#[test]
fn any_record_of_the_log_removed_is_noticed() {
    let (cluster, ..) = full();
    let (shards, ..) = audits(&cluster, 0);
    let state = &cluster.logs[0].state;
    for table in [Table::Outbox, Table::Links, Table::Meta, Table::Objects, Table::Sessions, Table::Units] {
        assert!(state.iter(table).next().is_some(), "{}", table.name());
        for (key, _) in state.iter(table) {
            let write = Write::delete(table, key);
            assert!(noticed(&cluster, &shards, write), "{} {}", table.name(), hex::encode(key));
        }
    }
}

/// What is not noticed is what nothing else says: why an order failed; which of several units with the same order it
/// came of; what an open recovery has; the state hash in
/// an open session; units of it that nothing came of; which authorities beyond a quorum have signed a session; what
/// an undelivered step names beside what its certificate proves.
#[test]
fn any_bit_of_the_log_flipped_is_noticed_but_for_what_nothing_else_says() {
    let (cluster, ..) = full();
    let (shards, ..) = audits(&cluster, 0);
    let state = &cluster.logs[0].state;
    let open = cluster.logs[0].log.book(state).unwrap().session;
    let mut exempt = 0;
    for table in [Table::Outbox, Table::Links, Table::Meta, Table::Objects, Table::Sessions, Table::Units] {
        for (n, (key, value)) in state.iter(table).enumerate() {
            for at in (n % 17..value.len()).step_by(17) {
                let mut changed = value.to_vec();
                changed[at] ^= 1 << (at % 7);
                let write = Write::put(table, key, changed.clone());
                if noticed(&cluster, &shards, write) {
                    continue;
                }
                let may = match table {
                    Table::Objects if key[0] == b'o' => {
                        let (a, b) = (value.clone(), Bytes::from(changed));
                        let [a, b] = [a, b].map(|v| wire::OutcomeRecord::decode(v).unwrap());
                        let place = wire::OutcomeRecord { session: b.session, index: b.index, ..a.clone() };
                        let why = wire::OutcomeRecord { code: b.code, message: b.message.clone(), ..a.clone() };
                        place == b || (a.code != 0 && why == b)
                    }
                    Table::Objects => matches!(key[0], b'v' | b'a'),
                    Table::Meta => {
                        let record = |v: &[u8]| wire::LogRecord::decode(v).unwrap();
                        let (a, b) = (record(value), record(&changed));
                        wire::LogRecord { state_hash: b.state_hash.clone(), ..a } == b
                    }
                    Table::Units => key[..8] == open.to_be_bytes(),
                    Table::Outbox => true,
                    _ => false,
                };
                assert!(may, "{} {}, byte {at} of {}", table.name(), hex::encode(key), hex::encode(value));
                exempt += usize::from(table != Table::Units);
            }
        }
    }
    assert!(exempt < 20, "{exempt} flips were not noticed");
}

/// Tampers with authority 0 and expects a finding with this text, of its shards, its log, or between them.
fn found(tamper: impl FnOnce(&mut Cluster, &Signer, &Signer), text: &str) {
    let (mut cluster, alice, bob) = full();
    tamper(&mut cluster, &alice, &bob);
    let (shards, log, between) = audits(&cluster, 0);
    let shards = shards.into_iter().flat_map(|(_, a)| a.findings);
    let all: Vec<String> = shards.chain(log.findings).chain(between).collect();
    assert!(all.iter().any(|f| f.contains(text)), "no finding with {text:?} in {all:#?}");
}

fn change<M: Message + Default>(state: &mut MemState, table: Table, key: &[u8], change: impl FnOnce(&mut M)) {
    let mut record: M = need_record(state, table, key).unwrap();
    change(&mut record);
    state.apply(&[Write::put(table, key, record.encode_to_vec())]);
}

#[test]
fn a_call_that_is_lost_between_shard_and_log() {
    let lose = |cluster: &mut Cluster, alice: &Signer, _: &Signer| {
        // Settled, and as if the log had it.
        let shard = alice.address.shard(2);
        let mut alice = alice.clone();
        cluster.order_all();
        let order = [alice.call(vec![], vec![credit(&alice.clone(), 1)])];
        let certificate = cluster.certify(shard, &order);
        cluster.node(0, shard).settle(&certificate, &order).unwrap();
        let node = cluster.node(0, shard);
        let (_, last) = node.authority.outbox_range(&node.state, LOG).unwrap();
        node.step(crate::authority::input::Input::Delivered { to_shard: LOG, applied: last }).unwrap();
    };
    found(lose, "4 CALLs of 43 minor units");
}

#[test]
fn a_call_kept_for_the_log_is_changed() {
    let with = |change_call: fn(&mut wire::LogCall)| {
        move |cluster: &mut Cluster, alice: &Signer, _: &Signer| {
            let node = cluster.node(0, alice.address.shard(2));
            let (_, last) = node.authority.outbox_range(&node.state, LOG).unwrap();
            change(&mut node.state, Table::Outbox, &outbox_key(LOG, last), |d: &mut wire::Delivery| {
                change_call(&mut d.calls[0]);
            });
        }
    };
    found(with(|c| c.report = true), "report");
    found(with(|c| c.recover = true), "whether it is a RECOVER");
    found(with(|c| c.seqnum += 1), "to the log: order: expected");
    found(with(|c| c.batch = 0), "to the log: ");
}

#[test]
fn a_credit_of_the_log_that_never_arrived_or_from_nowhere() {
    let lose = |cluster: &mut Cluster, alice: &Signer, _: &Signer| {
        cluster.order_all();
        let node = cluster.node(0, alice.address.shard(2));
        let key = link_key(Link::Applied, LOG);
        let applied = crate::authority::state::get_u64(&node.state, Table::Links, &key).unwrap().unwrap();
        node.state.apply(&[Write::put(Table::Links, key, (applied + 1).to_be_bytes())]);
    };
    found(lose, "the log to shard");
    let kind = |cluster: &mut Cluster, alice: &Signer, _: &Signer| {
        let node = cluster.node(0, alice.address.shard(2));
        let keys: Vec<Vec<u8>> = node.state.iter(Table::Credits).map(|(k, _)| k.to_vec()).collect();
        for key in keys {
            change(&mut node.state, Table::Credits, &key, |r: &mut wire::CreditsRecord| {
                for entry in r.credits.iter_mut().filter_map(|c| c.entry.as_mut()) {
                    if entry.kind() == wire::credit_entry::Kind::Deposit {
                        entry.set_kind(wire::credit_entry::Kind::Call);
                    }
                }
            });
        }
    };
    found(kind, "the log to shard");
}

#[test]
fn recoveries_that_shard_and_log_do_not_agree_on() {
    let thaw = |cluster: &mut Cluster, _: &Signer, bob: &Signer| {
        cluster.order_all();
        let key = account_key(NETWORK_ID, bob.actor());
        let node = cluster.node(0, bob.address.shard(2));
        change(&mut node.state, Table::Accounts, &key, |r: &mut wire::AccountRecord| r.frozen = 0);
    };
    found(thaw, "as frozen");
    let forget = |cluster: &mut Cluster, _: &Signer, _: &Signer| {
        cluster.order_all();
        let carol = Signer::new(3);
        let key = order_key(NETWORK_ID, carol.actor(), 3);
        let node = cluster.node(0, carol.address.shard(2));
        node.state.apply(&[Write::delete(Table::Orders, key)]);
    };
    found(forget, "last voided seqnum: expected 0, found 3");
}

/// What one authority settled alone and took back again, at every shard and link that it touched.
#[test]
fn what_was_taken_back_leaves_clean_books_and_a_change_of_it_is_noticed() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 2));
    let mut alice = Signer::on_shard(0, 2, 1);
    let (near, far) = (Signer::on_shard(0, 2, 50), Signer::on_shard(1, 2, 50));
    cluster.fund(alice.address, 100);
    cluster.set_time(1_000);
    let open = alice.pay(&[to(far.address, 1)], "");
    cluster.run(&[open]);
    let before = alice.clone();
    let recovery = [before.recover()];
    let recover = cluster.certify(0, &recovery);
    let key = secret(crate::keys::Curve::R1, 7);
    let orders = [
        alice.pay(&[to(near.address, 5), to(far.address, 6)], "gone"),
        alice.set_permission(&crate::permission::Permission::single(key.public()), vec![key]),
    ];
    let certificate = cluster.certify(0, &orders);
    cluster.node(0, 0).settle(&certificate, &orders).unwrap();
    cluster.deliver_all();
    clean(&cluster, 0);
    cluster.settle(0, &recover, &recovery);
    for _ in 0..3 {
        for i in 1..4 {
            let items = cluster.log_items(i);
            cluster.order_items(i as u32, 0, items);
            deliver_log(&mut cluster.logs[i], &mut cluster.nodes[i]);
            acknowledge_calls(&cluster.logs[i], &mut cluster.nodes[i]);
        }
    }
    cluster.set_time(1_000 + RECOVERY_WAIT_MS);
    clean(&cluster, 0);
    deliver_log(&mut cluster.logs[0], &mut cluster.nodes[0]);
    // The reversal is on its way to the other shard.
    clean(&cluster, 0);
    assert_eq!(cluster.balance(0, &far.address), 7);
    cluster.order_all();
    check(&cluster, &[(&alice, 99), (&near, 0), (&far, 1)]);
    let (shards, log, _) = audits(&cluster, 0);
    let node = &cluster.nodes[0][0];
    for table in [Table::Settled, Table::Progress, Table::Credits, Table::Orders] {
        for (key, _) in node.state.iter(table) {
            let mut state = node.state.clone();
            state.apply(&[Write::delete(table, key)]);
            let audit = audit_shard(&node.authority, &state, true).unwrap();
            let both = [(0, audit), shards[1].clone()];
            let clean = both[0].1.is_clean() && audit_authority(&both, Some(&log)).is_empty();
            assert!(!clean, "{} {}", table.name(), hex::encode(key));
        }
    }
    // The account goes on, and voids again.
    let mut after = before.clone();
    after.resume(&cluster.nodes[0][0].account(alice.actor()));
    let next = after.pay(&[to(near.address, 9)], "");
    cluster.run(&[next]);
    check(&cluster, &[(&alice, 90)]);
    cluster.run_ordered(&[after.recover()]);
    cluster.set_time(2_000 + 2 * RECOVERY_WAIT_MS);
    cluster.order_all();
    assert_eq!(cluster.status(0, &alice, 4).state(), S::Void);
    check(&cluster, &[(&alice, 90), (&near, 9)]);
}
