//! What clients and peers are answered: all of it, once, whatever the size of the pages.

use prost::Message;

use super::settle::blind;
use super::*;
use crate::authority::input::Input;
use crate::authority::state::{Account, Link, Write, get_u64, link_key, need_record};
use crate::bitmap::Bitmap;
use crate::envelope::Order;
use crate::limits::{CREDITS_PER_RECORD, NOTES_PER_QUERY_MAX, PAGE_MAX};

fn bytes(signer: &Signer) -> Bytes {
    Bytes::copy_from_slice(signer.address.as_bytes())
}

#[test]
fn an_account_shows_what_is_settled_and_what_is_promised() {
    let (mut cluster, mut alice) = funded(100);
    let request = wire::AccountRequest { network_id: NETWORK_ID, address: bytes(&alice) };
    let first = alice.pay(&[to(cluster.issuer.address, 1)], "");
    cluster.run(&[first]);
    let second = alice.pay(&[to(cluster.issuer.address, 2)], "");
    cluster.run(&[second]);
    let settled = alice.clone();
    let credit = wire::Credit { address: bytes(&alice), amount: 5 };
    let pending = [
        alice.call(vec![], vec![wire::output::Kind::Credit(credit)]),
        alice.pay(&[to(cluster.issuer.address, 7)], ""),
        alice.pay(&[to(cluster.issuer.address, 8)], ""),
    ];
    let node = cluster.node(0, 0);
    assert_eq!(accepted(&node.vote(&pending).unwrap()), 0b111);
    let body = |order: &Bytes| Order::decode(order.clone()).unwrap().body;
    let promised =
        |(order, (seqnum, amount)): (&Bytes, (u32, u64))| wire::PendingOrder { seqnum, body: body(order), amount };
    let expected = wire::AccountReply {
        balance: "97".into(),
        credits: 1,
        seqnum: 2,
        prev_hash: settled.prev_hash,
        permission: alice.permission.encode(),
        pending: pending.iter().zip([(3, 5), (4, 7), (5, 8)]).map(promised).collect(),
        last_call: 3,
        frozen: 0,
    };
    assert_eq!(node.authority.account(&node.state, &request).unwrap(), expected);
    // Each order by its seqnum, with what it is.
    use wire::order_status::State as S;
    let status = |seqnum| {
        let request =
            wire::OrderStatusRequest { network_id: NETWORK_ID, actor: alice.actor(), seqnum, ..Default::default() };
        let status = node.authority.order_status(&node.state, &request).unwrap();
        (status.state(), status.calls, status.order_id.len())
    };
    let expected = [
        (S::Unknown, false, 0),
        (S::Settled, false, 32),
        (S::Settled, false, 32),
        (S::Pending, true, 32),
        (S::Pending, false, 32),
        (S::Pending, false, 32),
        (S::Unknown, false, 0),
    ];
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(status), expected);
}

#[test]
fn an_account_that_is_about_to_be_opened_shows_what_it_is_opened_with() {
    let (mut cluster, mut alice) = funded(100);
    let mut bytes = *alice.address.as_bytes();
    bytes[31] ^= 1;
    cluster.fund(crate::address::Address::new(bytes), 7);
    let orders = [alice.pay(&[to(cluster.issuer.address, 1)], ""), alice.pay(&[to(cluster.issuer.address, 2)], "")];
    let ask = |cluster: &Cluster, address: [u8; 32]| {
        let request = wire::AccountRequest { network_id: NETWORK_ID, address: Bytes::copy_from_slice(&address) };
        let node = &cluster.nodes[0][0];
        let reply = node.authority.account(&node.state, &request).unwrap();
        let pending: Vec<_> = reply.pending.iter().map(|p| (p.seqnum, p.amount)).collect();
        (reply.balance, reply.seqnum, pending)
    };
    assert_eq!(ask(&cluster, *alice.address.as_bytes()), ("100".into(), 0, vec![]));
    assert_eq!(accepted(&cluster.node(0, 0).vote(&orders).unwrap()), 0b11);
    assert_eq!(ask(&cluster, *alice.address.as_bytes()), ("100".into(), 0, vec![(1, 1), (2, 2)]));
    // Whoever else has an address with its number has nothing to do with it.
    assert_eq!(ask(&cluster, bytes), ("7".into(), 0, vec![]));
}

#[test]
fn what_waits_is_shown_with_what_it_is() {
    let (mut cluster, mut alice) = funded(100);
    let credit = wire::Credit { address: bytes(&alice), amount: 5 };
    alice.pay(&[to(alice.address, 1)], "");
    let call = [alice.call(vec![], vec![wire::output::Kind::Credit(credit)])];
    let pay = [alice.pay(&[to(alice.address, 1)], "")];
    for orders in [&pay, &call] {
        let certificate = blind(&cluster, orders, &[0, 1, 2], 1);
        cluster.node(0, 0).settle(&certificate, orders).unwrap();
    }
    for (seqnum, calls, order) in [(2, true, &call[0]), (3, false, &pay[0])] {
        let status = cluster.status(0, &alice, seqnum);
        let id = Order::decode(order.clone()).unwrap().id;
        assert_eq!((status.state(), status.calls), (wire::order_status::State::Certified, calls));
        assert_eq!(status.order_id[..], id);
    }
    let early = cluster.node(0, 0).account(alice.actor()).early;
    assert_eq!(
        early.iter().map(|e| (e.seqnum, e.call, e.by_log)).collect::<Vec<_>>(),
        [(3, false, false), (2, true, false)]
    );
}

#[test]
fn credits_page_the_same_at_every_size() {
    let (mut cluster, alice) = funded(1);
    // More than a page, in records of 64.
    let outputs: Vec<_> = (1..=PAGE_MAX as u64).map(|amount| to(alice.address, amount)).collect();
    let order = cluster.issuer.pay(&outputs, "");
    cluster.run(&[order]);
    cluster.fund(alice.address, 7);
    let node = cluster.node(0, 0);
    let total = PAGE_MAX + 2;
    assert_eq!(count(node, Table::Credits), 2 + PAGE_MAX / CREDITS_PER_RECORD);
    let expected: Vec<u64> = [7].into_iter().chain((1..=PAGE_MAX as u64).rev()).chain([1]).collect();
    for limit in [0, 1, 63, 64, 65, 128, 255, 256, 257, 258, 1_000] {
        let mut request = wire::CreditsRequest { network_id: NETWORK_ID, address: bytes(&alice), before: 0, limit };
        let page = (limit as usize).clamp(1, PAGE_MAX);
        let mut seen = Vec::new();
        while seen.len() < total {
            let reply = node.authority.credits(&node.state, &request).unwrap();
            assert_eq!(reply.credits.len(), page.min(total - seen.len()), "{limit} a page");
            seen.extend(reply.credits.iter().map(|credit| credit.amount));
            assert_eq!(reply.next == 0, seen.len() == total, "{limit} a page");
            request.before = reply.next;
        }
        assert_eq!(seen, expected, "{limit} a page");
    }
    let none = wire::CreditsRequest { network_id: NETWORK_ID, address: bytes(&Signer::new(9)), ..Default::default() };
    assert_eq!(node.authority.credits(&node.state, &none).unwrap(), wire::CreditsReply::default());
    let other = wire::CreditsRequest { network_id: NETWORK_ID + 1, ..none };
    assert_eq!(code(node.authority.credits(&node.state, &other)), Code::UnknownNetwork);
}

#[test]
fn a_stream_is_followed_from_anywhere_to_what_is_durable() {
    let (mut cluster, alice) = funded(1);
    for amount in 2..=6 {
        cluster.fund(alice.address, amount);
    }
    let node = cluster.node(0, 0);
    for from in 0..8 {
        for end in 0..=6 {
            let reply = node.authority.follow(&node.state, from, end).unwrap();
            assert_eq!(reply.end, end);
            assert!(reply.entries.iter().map(|e| e.position).eq(from..end.max(from)), "{from} to {end}");
            assert!(reply.entries.iter().all(|e| (e.count, e.bitmap[0], e.undone, e.by_log) == (1, 1, false, false)));
        }
    }
}

#[test]
fn a_peer_gets_the_certificates_of_what_it_lacks() {
    let (mut cluster, mut alice) = funded(100);
    let mut others: Vec<Signer> = (2..4).map(Signer::new).collect();
    others.iter().for_each(|s| cluster.fund(s.address, 100));
    let issuer = cluster.issuer.address;
    let mut orders = vec![alice.pay(&[to(issuer, 1)], "")];
    orders.extend(others.iter_mut().map(|s| s.pay(&[to(issuer, 1)], "")));
    let parts = [0b001, 0b010, 0b100].map(|bits| blind(&cluster, &orders, &[0, 1, 2], bits));
    let node = cluster.node(0, 0);
    for part in &parts {
        node.settle(part, &orders).unwrap();
    }
    let root = parts[0].root.clone();
    let ask = |node: &Node, bits: &[u8]| {
        let request = wire::BatchRequest { shard: 0, root: root.clone(), bitmap: Bytes::copy_from_slice(bits) };
        node.authority.batch(&node.state, &request).unwrap()
    };
    let places = |reply: &wire::BatchReply| {
        let place = |c: &wire::Certificate| c.votes[0].bitmap[0].trailing_zeros();
        (reply.certificates.iter().map(place).collect::<Vec<_>>(), reply.orders.len())
    };
    for (bits, expected) in [
        (vec![], vec![0, 1, 2]),
        (vec![0b111], vec![0, 1, 2]),
        (vec![0b001], vec![0]),
        (vec![0b110], vec![1, 2]),
        (vec![0b101], vec![0, 2]),
    ] {
        assert_eq!(places(&ask(node, &bits)), (expected, 3), "{bits:?}");
    }
    assert_eq!(ask(node, &[0]), wire::BatchReply::default(), "nothing is missing");
    let unknown = wire::BatchRequest { root: vec![1; 32].into(), ..Default::default() };
    assert_eq!(node.authority.batch(&node.state, &unknown).unwrap(), wire::BatchReply::default());
    assert_eq!(node.authority.orders_of(&node.state, &root).unwrap(), orders);
    assert_eq!(node.authority.orders_of(&node.state, &[1; 32]).unwrap(), [] as [Bytes; 0]);
    // What does not fit into one message is left for the next: two of these are more than a mebibyte, and what is not asked for
    // takes no room.
    let number = get_u64(&node.state, Table::Roots, &root).unwrap().unwrap().to_be_bytes();
    let mut record: wire::ProgressRecord = need_record(&node.state, Table::Progress, &number).unwrap();
    for certificate in &mut record.certificates[..2] {
        certificate.votes[0].signature = vec![0; 700_000].into();
    }
    node.state.apply(&[Write::put(Table::Progress, number, record.encode_to_vec())]);
    for (bits, expected) in [([0b111], vec![0]), ([0b110], vec![1, 2]), ([0b100], vec![2])] {
        assert_eq!(places(&ask(node, &bits)), (expected, 3), "{bits:?}");
    }
}

#[test]
fn what_a_peer_has_settled_and_this_shard_has_not_is_missing() {
    let (mut cluster, mut alice) = funded(100);
    let mut bob = Signer::new(2);
    cluster.fund(bob.address, 100);
    let orders = [alice.pay(&[to(bob.address, 1)], ""), bob.pay(&[to(alice.address, 1)], "")];
    let one = blind(&cluster, &orders, &[0, 1, 2], 0b01);
    let entry = |bits: u8| wire::SettledEntry {
        root: one.root.clone(),
        count: 2,
        bitmap: Bytes::copy_from_slice(&[bits]),
        ..Default::default()
    };
    let node = cluster.node(0, 0);
    let missing = |node: &Node, entry: &wire::SettledEntry| node.authority.missing(&node.state, entry).unwrap();
    assert!(missing(node, &entry(0b01)) && missing(node, &entry(0b11)), "the batch is not here");
    for (what, entry) in [
        ("nothing", entry(0)),
        ("taken back", wire::SettledEntry { undone: true, ..entry(0b01) }),
        ("said by the log", wire::SettledEntry { by_log: true, ..entry(0b01) }),
    ] {
        assert!(!missing(node, &entry), "{what}");
    }
    node.settle(&one, &orders).unwrap();
    assert_eq!([0b01, 0b10, 0b11].map(|bits| missing(node, &entry(bits))), [false, true, true]);
    let garbage = wire::SettledEntry { bitmap: Bytes::from_static(&[0b100]), ..entry(0) };
    assert_eq!(code(node.authority.missing(&node.state, &garbage)), Code::BadBitmap);
}

#[test]
fn cursors_and_links_begin_at_nothing_and_are_where_they_were_put() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 2));
    let node = cluster.node(2, 1);
    assert_eq!((node.authority.index(), node.authority.shard()), (2, 1));
    assert_eq!(node.authority.cursor(&node.state, 3).unwrap(), 0);
    assert_eq!(node.authority.outbox_range(&node.state, 0).unwrap(), (1, 0));
    node.step(Input::Followed { authority: 3, position: 7 }).unwrap();
    node.step(Input::Followed { authority: 2, position: 9 }).unwrap();
    assert_eq!([2, 3, 0].map(|i| node.authority.cursor(&node.state, i).unwrap()), [9, 7, 0]);
    node.state.apply(&[
        Write::put(Table::Links, link_key(Link::Sent, 0), 12_u64.to_be_bytes()),
        Write::put(Table::Links, link_key(Link::Acknowledged, 0), 5_u64.to_be_bytes()),
    ]);
    assert_eq!(node.authority.outbox_range(&node.state, 0).unwrap(), (6, 12));
}

#[test]
fn an_acknowledgement_says_what_is_settled_if_it_can_be_read() {
    use crate::authority::query::settled_by;
    let (mut cluster, mut alice) = funded(100);
    let orders = [alice.pay(&[to(alice.address, 1)], ""), alice.pay(&[to(alice.address, 2)], "")];
    let certificate = cluster.certify(0, &orders);
    let reply = cluster.node(0, 0).settle(&certificate, &orders).unwrap();
    assert_eq!(settled_by(&reply, 2), Bitmap::full(2));
    assert_eq!(settled_by(&reply, 9), Bitmap::empty(9), "of another batch");
    assert_eq!(settled_by(&wire::SettleReply::default(), 2), Bitmap::empty(2));
}

#[test]
fn notes_are_asked_for_up_to_a_number_and_at_their_shard() {
    let mut cluster = Cluster::new(&TestCommittee::new(4, 2));
    cluster.make_cash(2);
    let ask = |cluster: &Cluster, shard: usize, blinded: usize, nonces: usize| -> Result<(usize, usize)> {
        let request = wire::NotesRequest {
            blinded: vec![Bytes::from_static(&[1; 48]); blinded],
            nonces: vec![Bytes::from_static(&[1; 32]); nonces],
            ..Default::default()
        };
        let node = &cluster.nodes[0][shard];
        let reply = node.authority.notes(&node.state, &request)?;
        assert!(reply.issued.iter().all(|note| note.tiers.is_empty() && note.shares.is_empty()));
        Ok((reply.issued.len(), reply.states.len()))
    };
    assert_eq!(ask(&cluster, 0, 24, NOTES_PER_QUERY_MAX - 24), Ok((24, NOTES_PER_QUERY_MAX - 24)));
    assert_eq!(code(ask(&cluster, 0, 25, NOTES_PER_QUERY_MAX - 24)), Code::Limit);
    assert_eq!(code(ask(&cluster, 0, NOTES_PER_QUERY_MAX + 9, 0)), Code::Limit);
    // What was paid for is asked of the payer's shard, and what is spent of the first.
    assert_eq!(ask(&cluster, 1, 3, 0), Ok((3, 0)));
    assert_eq!(code(ask(&cluster, 1, 3, 1)), Code::WrongShard);
}

#[test]
fn no_votes_and_no_word_of_being_ready_before_all_of_the_genesis_file() {
    let committee = TestCommittee { genesis_hash: [1; 32], issuer_limit: 100, ..Default::default() };
    type Lines = Vec<(u32, u64, u32, usize)>;
    let genesis = |amounts: &[u64]| -> Result<(i128, i128, u64, Lines)> {
        let mut cluster = Cluster::new(&committee);
        let node = cluster.node(0, 0);
        assert_eq!(code(node.authority.ready(&node.state)), Code::Busy);
        let lines: Vec<_> = amounts.iter().zip(1..).map(|(amount, n)| (Signer::new(n).address, *amount)).collect();
        node.step(Input::Genesis { first_line: 0, lines: lines[..1].to_vec(), last: false })?;
        assert_eq!(code(node.authority.ready(&node.state)), Code::Busy);
        let again = Input::Genesis { first_line: 0, lines: lines[..1].to_vec(), last: false };
        assert_eq!(code(node.step(again).map(|_| ())), Code::OutOfOrder);
        node.step(Input::Genesis { first_line: 1, lines: lines[1..].to_vec(), last: true })?;
        node.authority.ready(&node.state)?;
        let further = Input::Genesis { first_line: amounts.len() as u64, lines: vec![], last: true };
        assert_eq!(code(node.step(further).map(|_| ())), Code::OutOfOrder);
        let totals = node.authority.totals(&node.state)?;
        // Each line is a credit with its number.
        let credits: Vec<_> = (1..=amounts.len() as u64)
            .map(|n| {
                let address = bytes(&Signer::new(n));
                let request = wire::CreditsRequest { network_id: NETWORK_ID, address, before: 0, limit: 9 };
                let credits = node.authority.credits(&node.state, &request).unwrap().credits;
                assert_eq!(credits.len(), 1);
                (credits[0].output, credits[0].amount, credits[0].seqnum, credits[0].order_id.len())
            })
            .collect();
        Ok((totals.issued, totals.genesis, totals.genesis_lines, credits))
    };
    let credit = |line, amount| (line, amount, 0, 0);
    assert_eq!(genesis(&[40, 35, 25]), Ok((100, 100, 3, vec![credit(0, 40), credit(1, 35), credit(2, 25)])));
    for over in [26, 27] {
        assert_eq!(code(genesis(&[40, 35, over])), Code::IssuerLimit);
    }
    let cluster = Cluster::new(&TestCommittee::default());
    cluster.nodes[0][0].authority.ready(&cluster.nodes[0][0].state).unwrap();
    assert_eq!(cluster.nodes[0][0].account(1), Account::default());
}
