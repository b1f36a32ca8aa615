//! Every way that an operation on shared objects is refused, by voters or in the log, and that it costs nothing.

use super::*;
use crate::ordered::modules::registry::network_key;
use crate::ordered::session;
use wire::network_command::Kind as N;

/// Orders a CALL, and returns the code that its shared side failed with.
fn failure(cluster: &mut Cluster, signer: &Signer, order: Bytes) -> Option<Code> {
    let before = cluster.balance(0, &signer.address);
    cluster.run_ordered(&[order]);
    let statuses: Vec<_> = (0..4).map(|i| cluster.status(i, signer, signer.seqnum)).collect();
    assert!(statuses.iter().all(|s| *s == statuses[0]), "{statuses:?}");
    if statuses[0].state() == S::Ordered {
        return None;
    }
    assert_eq!(statuses[0].state(), S::Failed);
    assert!(statuses[0].message.contains("expected") || !statuses[0].message.is_empty());
    assert_eq!(cluster.balance(0, &signer.address), before, "all that it was debited came back");
    check(cluster, &[]);
    Code::from_number(statuses[0].code)
}

#[test]
fn a_call_waits_for_the_orders_before_it_and_names_the_call_before_it() {
    let (mut cluster, mut alice, bob) = setup(1);
    let first = alice.call(vec![], vec![credit(&bob, 1)]);
    cluster.run_ordered(&[first]);
    let mut ahead = alice.clone();
    let pay = ahead.pay(&[to(bob.address, 1)], "");
    cluster.vote(0, std::slice::from_ref(&pay));
    let call = ahead.call(vec![], vec![credit(&bob, 1)]);
    assert_eq!(refusal(&mut cluster, 0, &call), Code::CallWaits);
    cluster.run(&[pay]);
    cluster.run_ordered(&[call]);
    assert_eq!(cluster.status(3, &ahead, 3).state(), S::Ordered);
    for wrong in [0, 1, 2, 4] {
        let mut liar = Signer { last_call: wrong, ..ahead.clone() };
        let call = liar.call(vec![], vec![credit(&bob, 1)]);
        assert_eq!(refusal(&mut cluster, 1, &call), Code::BadCallChain, "previous_call {wrong}");
    }
    let mut foreign = ahead.clone();
    foreign.address = bob.address;
    let body = crate::envelope::Body {
        actor: ahead.actor(),
        ..foreign.next_body(
            3,
            crate::content::encode_call(&wire::Call {
                account: bytes(&bob),
                previous_call: ahead.last_call,
                outputs: vec![wire::Output { kind: Some(credit(&bob, 1)) }],
                ..Default::default()
            }),
        )
    };
    let order = foreign.sign(&body);
    assert_eq!(refusal(&mut cluster, 1, &order), Code::BadContent, "an account that is another's");
    check(&cluster, &[(&ahead, 997), (&bob, 1_003)]);
}

#[test]
fn a_frozen_account_is_recovering_and_a_voided_order_stays_void() {
    let (mut cluster, mut alice, bob) = setup(1);
    let fresh = alice.clone();
    let order = alice.pay(&[to(bob.address, 1)], "");
    cluster.node(0, 0).vote(std::slice::from_ref(&order)).unwrap();
    cluster.run_ordered(&[fresh.recover()]);
    assert_eq!(refusal(&mut cluster, 2, &order), Code::Recovering);
    assert_eq!(refusal(&mut cluster, 2, &fresh.clone().call(vec![], vec![credit(&bob, 1)])), Code::Recovering);
    assert_eq!(refusal(&mut cluster, 2, &fresh.recover()), Code::Recovering);
    check(&cluster, &[(&alice, 1_000)]);
    cluster.set_time(1_000 + RECOVERY_WAIT_MS);
    cluster.order_all();
    assert_eq!(refusal(&mut cluster, 0, &order), Code::Voided);
    let node = &cluster.nodes[0][0];
    let request = wire::OrderRequest { network_id: NETWORK_ID, actor: alice.actor(), seqnum: 1, ..Default::default() };
    assert_eq!(node.authority.order(&node.state, &request).unwrap(), wire::OrderReply::default(), "there is no order");
    // A RECOVER names the first seqnum that is not settled.
    assert_eq!(refusal(&mut cluster, 0, &fresh.recover()), Code::BadSeq);
    check(&cluster, &[(&alice, 1_000)]);
}

#[test]
fn contracts_pay_their_parties_in_time_and_nobody_else() {
    let (mut cluster, mut alice, mut bob) = setup(2);
    let mut carol = Signer::new(3);
    cluster.fund(carol.address, 10);
    let order = alice.call(vec![], vec![fund(100, 5_000, &alice.clone(), &bob), fund(50, 5_000, &alice.clone(), &bob)]);
    let ids = [0, 1].map(|i| contract_id(&id_of(&order), i));
    cluster.run_ordered(&[order]);
    let of = |signer: &mut Signer, input: wire::Input| {
        let amount = input.amount;
        let own = signer.clone();
        signer.call(vec![input], vec![credit(&own, amount)])
    };
    let unknown = of(&mut bob, claim([9; 32], 100, b"secret"));
    assert_eq!(failure(&mut cluster, &bob, unknown), Some(Code::UnknownContract));
    let stranger = of(&mut carol, claim(ids[0], 100, b"secret"));
    assert_eq!(failure(&mut cluster, &carol, stranger), Some(Code::NotAParty));
    let sender = of(&mut alice, claim(ids[0], 100, b"secret"));
    assert_eq!(failure(&mut cluster, &alice, sender), Some(Code::NotAParty));
    let guess = of(&mut bob, claim(ids[0], 100, b"guess"));
    assert_eq!(failure(&mut cluster, &bob, guess), Some(Code::WrongPreimage));
    let more = of(&mut bob, claim(ids[0], 101, b"secret"));
    assert_eq!(failure(&mut cluster, &bob, more), Some(Code::BadAmount));
    let early = of(&mut alice, refund(ids[0], 100));
    assert_eq!(failure(&mut cluster, &alice, early), Some(Code::ContractOpen));
    // One order takes both or none.
    let own = bob.clone();
    let both = bob.call(vec![claim(ids[0], 100, b"secret"), claim(ids[1], 50, b"wrong")], vec![credit(&own, 150)]);
    assert_eq!(failure(&mut cluster, &bob, both), Some(Code::WrongPreimage));
    let twice = bob.call(vec![claim(ids[0], 100, b"secret"), claim(ids[0], 100, b"secret")], vec![credit(&own, 200)]);
    assert_eq!(failure(&mut cluster, &bob, twice), Some(Code::ContractClosed));
    let right = of(&mut bob, claim(ids[0], 100, b"secret"));
    assert_eq!(failure(&mut cluster, &bob, right), None);
    let again = of(&mut bob, claim(ids[0], 100, b"secret"));
    assert_eq!(failure(&mut cluster, &bob, again), Some(Code::ContractClosed));
    cluster.set_time(5_000);
    let late = of(&mut bob, claim(ids[1], 50, b"secret"));
    assert_eq!(failure(&mut cluster, &bob, late), Some(Code::ContractExpired));
    let others = of(&mut carol, refund(ids[1], 50));
    assert_eq!(failure(&mut cluster, &carol, others), Some(Code::NotAParty));
    let back = of(&mut alice, refund(ids[1], 50));
    assert_eq!(failure(&mut cluster, &alice, back), None);
    let past = alice.call(vec![], vec![fund(10, 5_000, &alice.clone(), &bob)]);
    assert_eq!(failure(&mut cluster, &alice, past), Some(Code::ContractExpired));
    check(&cluster, &[(&alice, 900), (&bob, 1_100), (&carol, 10)]);
}

#[test]
fn what_is_not_on_the_primary_is_not_deposited() {
    let (mut cluster, mut alice, bob) = setup(1);
    let deposit = wire::PrimaryDeposit { amount: 1, address: bytes(&bob) };
    let order = alice.call(vec![], vec![output::Kind::PrimaryDeposit(deposit)]);
    assert_eq!(failure(&mut cluster, &alice, order), Some(Code::PrimaryFunds));
}

fn command(network_id: u64, kind: N) -> output::Kind {
    output::Kind::Network(wire::NetworkCommand { network_id, kind: Some(kind) })
}

fn register(flags: u32) -> N {
    N::Register(wire::NetworkRegister { flags, ..Default::default() })
}

fn network(cluster: &Cluster, network_id: u64) -> Option<wire::NetworkRecord> {
    let log = &cluster.logs[3];
    log.log.network(&log.state, &wire::NetworkRequest { network_id }).unwrap().network
}

#[test]
fn a_network_has_one_admin_and_its_id_is_given_once() {
    let (mut cluster, mut alice, mut bob) = setup(2);
    let run = |cluster: &mut Cluster, signer: &mut Signer, kind: N| {
        let order = signer.call(vec![], vec![command(500, kind)]);
        let signer = signer.clone();
        failure(cluster, &signer, order)
    };
    let metadata = |text: &'static [u8]| N::Metadata(wire::NetworkMetadata { metadata: Bytes::from_static(text) });
    let offer = |to: &Signer| N::Offer(wire::NetworkOffer { admin: bytes(to) });
    let nobody = N::Offer(wire::NetworkOffer::default());
    let accept = || N::Accept(wire::NetworkAccept {});
    let remove = || N::Remove(wire::NetworkRemove {});
    assert_eq!(run(&mut cluster, &mut bob, metadata(b"x")), Some(Code::UnknownNetwork));
    assert_eq!(run(&mut cluster, &mut alice, register(5)), None);
    assert_eq!(run(&mut cluster, &mut bob, register(6)), Some(Code::NetworkExists));
    assert_eq!(run(&mut cluster, &mut bob, metadata(b"bob's")), Some(Code::NotAdmin));
    assert_eq!(run(&mut cluster, &mut alice, metadata(b"alice's")), None);
    assert_eq!(run(&mut cluster, &mut bob, accept()), Some(Code::NotAdmin));
    assert_eq!(run(&mut cluster, &mut alice, offer(&bob)), None);
    assert_eq!(run(&mut cluster, &mut alice, nobody), None);
    assert_eq!(run(&mut cluster, &mut bob, accept()), Some(Code::NotAdmin), "the offer was taken back");
    let to_bob = offer(&bob);
    assert_eq!(run(&mut cluster, &mut alice, to_bob), None);
    assert_eq!(run(&mut cluster, &mut bob, accept()), None);
    assert_eq!(run(&mut cluster, &mut alice, remove()), Some(Code::NotAdmin));
    let record = network(&cluster, 500).unwrap();
    assert_eq!((record.admin, record.flags, &record.metadata[..]), (bytes(&bob), 5, &b"alice's"[..]));
    assert_eq!(run(&mut cluster, &mut bob, remove()), None);
    assert_eq!(run(&mut cluster, &mut alice, register(7)), Some(Code::NetworkExists));
    assert!(network(&cluster, 500).unwrap().removed);
    let own = alice.call(vec![], vec![command(NETWORK_ID, register(0))]);
    assert_eq!(failure(&mut cluster, &alice, own), Some(Code::NetworkExists), "the payment network's own id");
}

#[test]
fn a_network_with_actors_is_not_removed() {
    let (mut cluster, mut alice, _) = setup(1);
    let order = alice.call(vec![], vec![command(500, register(0))]);
    cluster.run_ordered(&[order]);
    // Actors come with plain networks; until then as if there were one.
    for log in &mut cluster.logs {
        let record = wire::NetworkRecord { actors: 1, admin: bytes(&alice), ..Default::default() };
        log.state.apply(&[Write::put(Table::Objects, network_key(500), prost::Message::encode_to_vec(&record))]);
    }
    let order = alice.call(vec![], vec![command(500, N::Remove(wire::NetworkRemove {}))]);
    cluster.run_ordered(&[order]);
    assert_eq!(cluster.status(0, &alice, 2).code, Code::NetworkInUse as u32);
}

/// Contents that no voter accepts, so that the log never sees them.
#[test]
fn malformed_calls_are_refused_before_a_vote() {
    let (mut cluster, alice, bob) = setup(1);
    let mut try_call = |inputs: Vec<wire::Input>, outputs: Vec<output::Kind>| {
        let order = alice.clone().call(inputs, outputs);
        refusal(&mut cluster, 0, &order)
    };
    let unfunded = |amount| wire::ContractFund { amount, expiry_ms: 9, ..Default::default() };
    let short = wire::ContractFund { hash: Bytes::from_static(&[1; 31]), receiver: bytes(&bob), ..unfunded(5) };
    assert_eq!(try_call(vec![], vec![]), Code::BadContent);
    assert_eq!(try_call(vec![], vec![output::Kind::ContractFund(short)]), Code::BadContent);
    assert_eq!(try_call(vec![], vec![fund(0, 9, &alice, &bob)]), Code::BadAmount);
    assert_eq!(try_call(vec![], vec![credit(&bob, 1 << 63)]), Code::BadAmount);
    assert_eq!(try_call(vec![], vec![credit(&bob, 1_001)]), Code::InsufficientFunds);
    assert_eq!(try_call(vec![claim([1; 32], 5, b"x")], vec![credit(&bob, 4)]), Code::BadAmount, "value left over");
    assert_eq!(try_call(vec![claim([1; 32], 5, &[0; 65])], vec![credit(&bob, 5)]), Code::Limit);
    assert_eq!(try_call(vec![claim([1; 32], 5, b"")], vec![credit(&bob, 5)]), Code::Limit);
    assert_eq!(try_call(vec![], vec![command(0, register(0))]), Code::Int63);
    assert_eq!(try_call(vec![], vec![command(1 << 63, register(0))]), Code::Int63);
    let large = wire::NetworkRegister { metadata: vec![0; 1_025].into(), ..Default::default() };
    assert_eq!(try_call(vec![], vec![command(5, N::Register(large))]), Code::Limit);
    let many = wire::NetworkRegister { listeners: vec![bytes(&bob); 17], ..Default::default() };
    assert_eq!(try_call(vec![], vec![command(5, N::Register(many))]), Code::Limit);
    let metadata = wire::NetworkRegister { metadata: vec![0; 1_024].into(), ..Default::default() };
    let over = vec![command(5, N::Register(metadata)); 8];
    assert_eq!(try_call(vec![], over), Code::Limit, "more than 8 KiB");
}

#[test]
fn sessions_that_a_quorum_did_not_sign_are_refused_and_one_that_differs_stops_the_authority() {
    let (mut cluster, _, _) = setup(1);
    let committee = cluster.committee.clone();
    let (log, keys) = (&mut cluster.logs[0], &cluster.keys);
    let book = log.log.book(&log.state).unwrap();
    let header = session::header(&committee, &book, &log.state).unwrap();
    let signed = |header: &wire::SessionHeader, who: &[u32]| wire::SignedSession {
        header: Some(header.clone()),
        signatures: who.iter().map(|i| session::sign(&committee, *i, &keys[*i as usize], header)).collect(),
    };
    let before = log.state.clone();
    use crate::ordered::input::Input as LogInput;
    let mut close = |session: wire::SignedSession| code(log.step(LogInput::Close(session)));
    assert_eq!(close(signed(&header, &[1, 2])), Code::NoQuorum);
    assert_eq!(close(signed(&header, &[1, 2, 2])), Code::DuplicateSigner);
    assert_eq!(close(wire::SignedSession::default()), Code::BadSession);
    let mut forged = signed(&header, &[1, 2, 3]);
    forged.signatures[1].signature = Bytes::from_static(&[3; 64]);
    assert_eq!(close(forged), Code::BadSession);
    let mut swapped = signed(&header, &[1, 2, 3]);
    swapped.signatures[0].authority = 0;
    assert_eq!(close(swapped), Code::BadSession);
    let mut unknown = signed(&header, &[1, 2, 3]);
    unknown.signatures[0].authority = 4;
    assert_eq!(close(unknown), Code::UnknownAuthority);
    let epoch = wire::SessionHeader { epoch: 2, ..header.clone() };
    assert_eq!(close(signed(&epoch, &[1, 2, 3])), Code::WrongEpoch);
    let later = wire::SessionHeader { session: 1, ..header.clone() };
    assert_eq!(close(signed(&later, &[1, 2, 3])), Code::OutOfOrder);
    let other = wire::SessionHeader { state_hash: Bytes::from_static(&[1; 32]), ..header.clone() };
    assert_eq!(close(signed(&other, &[1, 2, 3])), Code::SessionMismatch);
    assert_eq!(log.state, before);
    log.step(LogInput::Close(signed(&header, &[1, 2, 3]))).unwrap();
    // Signatures that come later are checked like the others.
    let late = |signature| LogInput::Signature { session: 0, signature };
    let mut wrong = session::sign(&committee, 1, &keys[1], &header);
    wrong.signature = Bytes::from_static(&[1; 64]);
    assert_eq!(code(log.step(late(wrong))), Code::BadSession);
    let of_another = session::sign(&committee, 1, &keys[1], &other);
    assert_eq!(code(log.step(late(of_another))), Code::BadSession);
    let none = wire::Signed { authority: 2, signature: Bytes::from_static(&[1; 9]), ..Default::default() };
    assert_eq!(code(log.step(late(none))), Code::BadSession);
    check(&Cluster { logs: vec![cluster.logs.remove(0)], ..cluster }, &[]);
}

/// Carol's shard has never seen the batch that the log has ordered: it waits until it has the orders.
#[test]
fn a_shard_that_lacks_an_ordered_batch_settles_on_the_logs_word() {
    let (mut cluster, mut alice, bob) = setup(1);
    // A batch that locks nothing new at authority 3, and that nobody shows it.
    let order = [alice.call(vec![], vec![credit(&bob, 30)])];
    let votes = (0..3).filter_map(|i| cluster.node(i, 0).vote(&order).unwrap().vote).collect();
    let certificate = cluster.certificate(&order, votes);
    cluster.node(0, 0).settle(&certificate, &order).unwrap();
    let items = cluster.log_items(0);
    cluster.order_items(0, 0, items);
    // The log runs ahead of the shard, and the audit knows.
    clean(&cluster, 3);
    cluster.order_all();
    check(&cluster, &[(&alice, 970), (&bob, 1_030)]);
    for i in 0..4 {
        assert_eq!(cluster.status(i, &alice, 1).state(), S::Ordered);
        // Who comes with the certificate later finds it settled.
        let reply = cluster.node(i, 0).settle(&certificate, &order).unwrap();
        assert!(reply.acknowledgement.is_some());
    }
    check(&cluster, &[(&alice, 970), (&bob, 1_030)]);
}

/// The log orders a CALL by the certificate of one batch; a shard has settled it in another, and keeps only that.
#[test]
fn a_shard_that_settled_a_call_in_another_batch_lacks_nothing() {
    let (mut cluster, mut alice, mut bob) = setup(1);
    let call = alice.call(vec![], vec![credit(&bob, 30)]);
    let pay = bob.pay(&[to(alice.address, 1)], "");
    let (one, two) = (vec![call.clone()], vec![pay, call]);
    let votes = (0..3).filter_map(|i| cluster.node(i, 0).vote(&one).unwrap().vote).collect();
    let certificate = cluster.certificate(&one, votes);
    cluster.node(0, 0).settle(&certificate, &one).unwrap();
    let votes = cluster.vote(0, &two).into_iter().filter_map(|r| r.vote).collect();
    let other = cluster.certificate(&two, votes);
    cluster.node(3, 0).settle(&other, &two).unwrap();
    let items = cluster.log_items(0);
    cluster.order_items(0, 0, items);
    cluster.order_all();
    assert_eq!(cluster.logs[3].log.outbox_range(&cluster.logs[3].state, 0).unwrap(), (2, 1), "all is delivered");
    clean(&cluster, 3);
    cluster.settle(0, &other, &two).into_iter().for_each(|r| assert!(r.is_ok()));
    cluster.order_all();
    check(&cluster, &[(&alice, 971), (&bob, 1_029)]);
}
