use super::*;
use crate::testing::{NETWORK_ID, Signer, TestCommittee, to};

const CONFIG: Config = Config { orders_max: 8, collect_ms: 10, sign_ms: 50, orders_held_max: 100_000 };

struct Senders {
    committee: std::sync::Arc<Committee>,
    signers: Vec<Signer>,
}

impl Senders {
    fn new(n: u64) -> Senders {
        let mut signers: Vec<Signer> = (1..=n).map(Signer::distilled).collect();
        signers.sort_by_key(Signer::actor);
        Senders { committee: TestCommittee::default().build().0, signers }
    }

    fn round(&self, config: Config) -> Round {
        Round::new(self.committee.clone(), config)
    }

    fn order(&mut self, i: usize) -> Bytes {
        let address = self.signers[i].address;
        self.signers[i].pay(&[to(address, 1)], "")
    }

    fn submit(&mut self, i: usize) -> Input {
        let key = self.signers[i].bls[0].public().bls();
        Input::Submit { order: self.order(i), key }
    }

    /// An honest sender's answer.
    fn share(&self, proposal: &Proposal, i: usize) -> Input {
        let signature = self.signers[i].sign_root(&self.committee, &proposal.batch);
        Input::Share { actor: self.signers[i].actor(), root: proposal.batch.root, signature }
    }

    fn index_of(&self, actor: u64) -> usize {
        self.signers.iter().position(|s| s.actor() == actor).unwrap()
    }
}

fn proposals(effects: &[Effect]) -> Vec<(u64, Proposal)> {
    let proposal = |effect: &Effect| match effect {
        Effect::Propose { actor, proposal, .. } => Some((*actor, proposal.clone())),
        _ => None,
    };
    effects.iter().filter_map(proposal).collect()
}

fn finished(effects: &[Effect]) -> Vec<Sealed> {
    let sealed = |effect: &Effect| match effect {
        Effect::Finished(sealed) => Some(sealed.clone()),
        _ => None,
    };
    effects.iter().filter_map(sealed).collect()
}

fn liars(effects: &[Effect]) -> Vec<u64> {
    let liar = |effect: &Effect| match effect {
        Effect::Liar { actor } => Some(*actor),
        _ => None,
    };
    effects.iter().filter_map(liar).collect()
}

#[test]
fn a_batch_that_all_have_signed_goes_at_once() {
    let mut senders = Senders::new(3);
    let mut round = senders.round(CONFIG);
    for i in [2, 0, 1] {
        let input = senders.submit(i);
        assert!(round.handle(100, input).is_empty());
    }
    assert_eq!(round.deadline_ms(), Some(110));
    assert!(round.handle(109, Input::Tick).is_empty());
    let effects = round.handle(110, Input::Tick);
    let proposals = proposals(&effects);
    assert_eq!((proposals.len(), finished(&effects).len()), (3, 0));
    assert_eq!(round.deadline_ms(), Some(160));
    for (n, (actor, proposal)) in proposals.iter().enumerate() {
        let i = senders.index_of(*actor);
        let order = Order::decode(senders.clone_order(i)).unwrap();
        check(&senders, &order, proposal);
        let effects = round.handle(111, senders.share(proposal, i));
        assert_eq!(finished(&effects).len(), usize::from(n == 2));
        for sealed in finished(&effects) {
            assert_eq!(sealed.signers(), [0, 1, 2]);
            let marks = super::super::Marks::read(&decode_batch(&sealed.orders(&[0, 1, 2])).unwrap(), NETWORK_ID);
            let mut sum = bls::Sum::default();
            senders.signers.iter().for_each(|s| sum.add(&s.bls[0].public().bls().unwrap()));
            let message = root_message(&senders.committee, sealed.batch());
            assert!(sum.verifies(&message, &marks.unwrap().aggregate.unwrap()));
        }
    }
    assert_eq!(round.deadline_ms(), None);
}

impl Senders {
    /// The order that it has signed last, once more.
    fn clone_order(&self, i: usize) -> Bytes {
        let mut before = self.signers[i].clone();
        (before.seqnum, before.prev_hash) = (0, 0);
        let address = before.address;
        before.pay(&[to(address, 1)], "")
    }
}

fn check(senders: &Senders, order: &Order, proposal: &Proposal) {
    super::super::check_proposal(&senders.committee, &order.id, proposal).unwrap();
}

#[test]
fn who_does_not_answer_rides_along_with_its_own_signature() {
    let mut senders = Senders::new(3);
    let mut round = senders.round(CONFIG);
    let raw: Vec<Bytes> = (0..3).map(|i| senders.order(i)).collect();
    for (i, order) in raw.iter().enumerate() {
        // The last one has no BLS key, or will not stay.
        let key = senders.signers[i].bls[0].public().bls().filter(|_| i < 2);
        round.handle(0, Input::Submit { order: order.clone(), key });
    }
    let proposals = proposals(&round.handle(10, Input::Tick));
    assert_eq!(proposals.len(), 2);
    assert!(round.handle(11, senders.share(&proposals[0].1, 0)).is_empty());
    assert!(finished(&round.handle(59, Input::Tick)).is_empty());
    let sealed = finished(&round.handle(60, Input::Tick)).remove(0);
    assert_eq!((sealed.signers(), sealed.plain()), (vec![0], raw.clone()));
    let orders = sealed.orders(&[0, 1, 2]);
    assert_eq!(orders[1..], raw[1..]);
    assert_ne!(orders[0], raw[0]);
    assert_eq!(sealed.orders(&[]), raw);
    assert!(round.handle(61, senders.share(&proposals[1].1, 1)).is_empty(), "too late");
}

#[test]
fn without_anyone_to_ask_a_batch_is_a_plain_one() {
    let mut senders = Senders::new(2);
    let mut round = senders.round(CONFIG);
    for i in 0..2 {
        let order = senders.order(i);
        round.handle(0, Input::Submit { order, key: None });
    }
    let sealed = finished(&round.handle(10, Input::Tick)).remove(0);
    assert_eq!(sealed.orders(&sealed.signers()), sealed.plain());
}

#[test]
fn false_shares_are_found_and_cost_only_their_senders() {
    let mut senders = Senders::new(8);
    for bad in [vec![], vec![0], vec![7], vec![2, 3, 6], (0..8).collect::<Vec<usize>>()] {
        let mut round = senders.round(CONFIG);
        let mut effects = Vec::new();
        for i in 0..8 {
            let input = senders.submit(i);
            effects.extend(round.handle(0, input));
        }
        let proposals = proposals(&effects);
        assert_eq!(proposals.len(), 8, "a full batch is closed at once");
        let mut effects = Vec::new();
        for (i, (actor, proposal)) in proposals.iter().enumerate() {
            let mut share = senders.share(proposal, i);
            if bad.contains(&i) {
                let wrong = BatchId { root: [1; 32], ..proposal.batch };
                // One signs something else, another one sends no point at all.
                let signature =
                    if i % 2 == 0 { senders.signers[i].sign_root(&senders.committee, &wrong) } else { [1; 96] };
                share = Input::Share { actor: *actor, root: proposal.batch.root, signature };
            }
            effects.extend(round.handle(1, share));
        }
        let actors = bad.iter().map(|i| senders.signers[*i].actor()).collect::<Vec<_>>();
        assert_eq!(liars(&effects), actors);
        let good: Vec<usize> = (0..8).filter(|i| !bad.contains(i)).collect();
        assert_eq!(finished(&effects).remove(0).signers(), good);
    }
}

#[test]
fn a_true_share_is_not_displaced_by_a_strangers() {
    let mut senders = Senders::new(2);
    let mut round = senders.round(CONFIG);
    for i in 0..2 {
        let input = senders.submit(i);
        round.handle(0, input);
    }
    let proposals = proposals(&round.handle(10, Input::Tick));
    let (actor, proposal) = &proposals[0];
    let forged = |signature| Input::Share { actor: *actor, root: proposal.batch.root, signature };
    round.handle(11, forged([5; 96]));
    round.handle(11, senders.share(proposal, 0));
    round.handle(11, forged([6; 96]));
    round.handle(11, Input::Share { actor: 1, root: proposal.batch.root, signature: [5; 96] });
    round.handle(11, Input::Share { actor: *actor, root: [0; 32], signature: [5; 96] });
    let effects = round.handle(12, senders.share(&proposals[1].1, 1));
    assert_eq!((liars(&effects), finished(&effects).remove(0).signers()), (vec![], vec![0, 1]));
}

#[test]
fn a_second_order_of_an_account_waits_for_the_next_batch() {
    let mut senders = Senders::new(2);
    let mut round = senders.round(CONFIG);
    let (a, b, c) = (senders.order(0), senders.order(0), senders.order(1));
    for order in [&a, &b, &c] {
        round.handle(0, Input::Submit { order: order.clone(), key: None });
    }
    let sealed = finished(&round.handle(10, Input::Tick));
    assert_eq!(sealed.iter().map(Sealed::plain).collect::<Vec<_>>(), [vec![a, c]]);
    assert_eq!(round.deadline_ms(), Some(20));
    assert_eq!(finished(&round.handle(20, Input::Tick)).remove(0).plain(), [b]);
    assert_eq!(round.deadline_ms(), None);
}

#[test]
fn what_a_round_holds_is_bounded() {
    let mut senders = Senders::new(4);
    let mut round = senders.round(Config { orders_held_max: 3, ..CONFIG });
    let busy = |effects: &[Effect]| match effects {
        [] => false,
        [Effect::Refused { error, .. }] => error.code == Code::Busy,
        other => panic!("expected nothing or a refusal, found {other:?}"),
    };
    let said: Vec<bool> = (0..4).map(|i| senders.submit(i)).map(|input| busy(&round.handle(0, input))).collect();
    assert_eq!(said, [false, false, false, true]);
    // Those whose batch is being signed count; what is finished does not.
    assert!(finished(&round.handle(10, Input::Tick)).is_empty());
    assert!(busy(&round.handle(11, senders.submit(3))));
    assert_eq!(finished(&round.handle(60, Input::Tick)).len(), 1);
    assert!(!busy(&round.handle(61, senders.submit(3))));

    // One account alone takes no more than authorities would vote for.
    let mut round = senders.round(CONFIG);
    let said: Vec<bool> = (0..=PENDING_WINDOW).map(|_| busy(&round.handle(0, senders.submit(0)))).collect();
    assert_eq!(said.iter().position(|busy| *busy), Some(PENDING_WINDOW));
    assert!(!busy(&round.handle(0, senders.submit(1))), "others are not in its way");
}

/// With a walk over all that waits for each order, or each batch, this would take hours.
#[test]
fn an_order_costs_the_same_whatever_waits() {
    let mut senders = Senders::new(1);
    let Input::Submit { order, .. } = senders.submit(0) else { unreachable!() };
    let template = Order::decode(order).unwrap();
    let of = |actor: u64, seqnum: u32| {
        let body = crate::envelope::encode_body(&crate::envelope::Body {
            network_id: template.network_id,
            actor,
            cosignors: Vec::new(),
            seqnum,
            prev_hash: 0,
            transaction_type: template.transaction_type,
            content: Bytes::from_static(b"x"),
        });
        crate::envelope::encode_envelope(&body, &template.authorities)
    };
    const ACTORS: u64 = 1_000;
    let mut round = senders.round(Config { orders_max: ORDERS_PER_BATCH_MAX, ..CONFIG });
    for n in 0..60 * ACTORS {
        let order = of(1 + n % ACTORS, 1 + (n / ACTORS) as u32);
        assert!(round.handle(0, Input::Submit { order, key: None }).is_empty());
    }
    // Each account's orders come out one a batch, in the order in which they went in.
    for n in 1..=60 {
        let sealed = finished(&round.handle(10 * n, Input::Tick)).remove(0);
        let seqnums = sealed.own_orders().iter().map(|o| u64::from(o.seqnum));
        assert!(seqnums.eq(std::iter::repeat_n(n, ACTORS as usize)), "batch {n}");
    }
    assert_eq!(round.deadline_ms(), None);
}

#[test]
fn batches_are_bounded_in_orders_and_bytes() {
    let mut senders = Senders::new(5);
    let mut round = senders.round(Config { orders_max: 2, ..CONFIG });
    let mut sizes = Vec::new();
    for i in 0..5 {
        let order = senders.order(i);
        let effects = round.handle(0, Input::Submit { order, key: None });
        sizes.extend(finished(&effects).iter().map(|s| s.batch().count));
    }
    assert_eq!(sizes, [2, 2]);
    assert_eq!(finished(&round.handle(10, Input::Tick)).remove(0).batch().count, 1);

    let mut round = senders.round(Config { orders_max: ORDERS_PER_BATCH_MAX, ..CONFIG });
    let mut orders = 0;
    let large = (1_000..).find_map(|number| {
        let mut signer = Signer::new(number);
        let address = signer.address;
        let order = signer.pay(&vec![to(address, 1); crate::limits::OUTPUTS_MAX], "");
        orders += 1;
        let effects = round.handle(0, Input::Submit { order, key: None });
        finished(&effects).pop()
    });
    let bytes: usize = large.unwrap().plain().iter().map(Bytes::len).sum();
    assert!(bytes <= MESSAGE_BYTES_MAX && bytes > MESSAGE_BYTES_MAX - 60_000, "{bytes}");
}

#[test]
fn what_no_batch_can_have_is_refused() {
    let mut senders = Senders::new(1);
    let mut round = senders.round(CONFIG);
    let order = Order::decode(senders.order(0)).unwrap();
    let foreign = {
        let mut signer = Signer::new(9).in_network(NETWORK_ID + 1);
        let address = signer.address;
        signer.pay(&[to(address, 1)], "")
    };
    let cases = [
        (Bytes::from_static(b"junk"), Code::Decode),
        (foreign, Code::UnknownNetwork),
        (marked(&order, None), Code::SigFormat),
        (crate::envelope::encode_envelope(&order.body, &[]), Code::AuthorityCount),
    ];
    for (order, expected) in cases {
        match &round.handle(0, Input::Submit { order, key: None })[..] {
            [Effect::Refused { error, .. }] => assert_eq!(error.code, expected),
            other => panic!("expected a refusal, found {other:?}"),
        }
    }
    assert_eq!(round.deadline_ms(), None);
}

#[test]
fn an_authority_that_is_not_sure_of_a_key_is_asked_without_it() {
    let mut senders = Senders::new(3);
    let raw: Vec<Bytes> = (0..3).map(|i| senders.order(i)).collect();
    let batch = decode_batch(&raw).unwrap().id;
    let shares = senders.signers.iter().map(|s| Some(s.sign_root(&senders.committee, &batch))).collect();
    let sealed = Sealed::new(&raw, shares).unwrap();
    let errors = [(0, Code::BadAggregate), (1, Code::AggregateKey), (2, Code::BadAggregate)];
    assert_eq!(sealed.again(&[0, 1, 2], &errors), [0, 2]);
    // One that it has accepted all the same, since it is settled there.
    assert_eq!(sealed.again(&[0, 1, 2], &errors[..1]), [0]);
    let all = [0, 1, 2].map(|i| (i, Code::BadAggregate));
    assert!(sealed.again(&[0, 1, 2], &all).is_empty(), "a false aggregate does not become true");
}

fn refusals(effects: &[Effect]) -> Vec<Code> {
    let refusal = |effect: &Effect| match effect {
        Effect::Refused { error, .. } => Some(error.code),
        _ => None,
    };
    effects.iter().filter_map(refusal).collect()
}

#[test]
fn a_batch_that_is_full_goes_without_waiting_and_has_no_more_than_that() {
    let mut senders = Senders::new(5);
    let mut round = senders.round(Config { orders_max: 2, ..CONFIG });
    let closed: Vec<usize> = (0..5)
        .map(|i| {
            let input = senders.submit(i);
            proposals(&round.handle(100, input)).len()
        })
        .collect();
    assert_eq!(closed, [0, 2, 0, 2, 0]);
    // The fifth waits for its time, the others for their signatures.
    assert_eq!(round.deadline_ms(), Some(110));
    assert_eq!(proposals(&round.handle(110, Input::Tick)).len(), 1);
    assert_eq!(round.deadline_ms(), Some(150));
    let sizes: Vec<usize> = finished(&round.handle(150, Input::Tick)).iter().map(|s| s.own_orders().len()).collect();
    assert_eq!((sizes, round.deadline_ms()), (vec![2, 2], Some(160)));
    assert_eq!(finished(&round.handle(160, Input::Tick)).len(), 1);
}

#[test]
fn what_has_gone_makes_room_for_as_much_and_no_more() {
    let mut senders = Senders::new(4);
    let mut round = senders.round(Config { orders_held_max: 3, ..CONFIG });
    for start in [100, 1_000] {
        for i in 0..4 {
            let input = senders.submit(i);
            let expected = if i < 3 { vec![] } else { vec![Code::Busy] };
            assert_eq!(refusals(&round.handle(start, input)), expected, "order {i} from {start} on");
        }
        round.handle(start + 10, Input::Tick);
        let sealed = finished(&round.handle(start + 60, Input::Tick)).remove(0);
        assert_eq!(sealed.own_orders().len(), 3);
        assert!(sealed.plain().iter().enumerate().all(|(i, order)| *order == sealed.own(i) && !order.is_empty()));
    }
}
