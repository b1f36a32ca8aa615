//! Both parties of a contract want its money at the moment of its expiry.

use rand_order::Rng;

use super::*;

/// Numbers that are the same in every run.
pub mod rand_order {
    /// SplitMix64.
    pub struct Rng(pub u64);

    impl Rng {
        /// The next number.
        pub fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        /// Below `n`.
        pub fn below(&mut self, n: u64) -> u64 {
            self.next() % n
        }

        /// In any order.
        pub fn shuffle<T>(&mut self, all: &mut [T]) {
            for i in (1..all.len()).rev() {
                all.swap(i, self.below(i as u64 + 1) as usize);
            }
        }
    }
}

/// Claim and refund are ordered beside clock votes around the expiry, in units of random creators and order, some of
/// them twice. Whichever comes first while it is due wins, everywhere; the other gets nothing.
#[test]
fn exactly_one_wins_a_thousand_times() {
    let (mut cluster, mut alice, mut bob) = setup(2);
    let (mut rng, mut wins) = (Rng(3), [0_i128, 0]);
    // The first orders open the accounts.
    let open = [alice.pay(&[to(alice.address, 1)], ""), bob.pay(&[to(bob.address, 1)], "")];
    cluster.run(&open);
    let mut now = 1_000;
    for round in 0..1_000_i128 {
        let expiry = now + 50;
        let order = alice.call(vec![], vec![fund(1, expiry, &alice.clone(), &bob)]);
        let contract = contract_id(&id_of(&order), 0);
        cluster.run_ordered(&[order]);
        let (a, b) = (alice.clone(), bob.clone());
        let back = alice.call(vec![refund(contract, 1)], vec![credit(&a, 1)]);
        let take = bob.call(vec![claim(contract, 1, b"secret")], vec![credit(&b, 1)]);
        cluster.run(&[back, take]);
        // By account: who hands it in, as items.
        let items: Vec<Vec<Bytes>> = (0..2)
            .map(|shard| {
                let node = &cluster.nodes[0][shard];
                let offers = node.authority.log_items(&node.state, &log_calls(node)).unwrap();
                offers.into_iter().map(|o| o.item).collect()
            })
            .collect();
        let mut units: Vec<(u32, u64, Vec<Bytes>)> = Vec::new();
        for creator in 0..4 {
            units.push((creator, expiry - 1 + rng.below(8), Vec::new()));
        }
        for part in &items {
            units.push((rng.below(4) as u32, 0, part.clone()));
        }
        rng.shuffle(&mut units);
        // And all of it again, somewhere.
        let at = rng.below(units.len() as u64 + 1) as usize;
        units.insert(at, (rng.below(4) as u32, 0, items[rng.below(2) as usize].clone()));
        units.push((rng.below(4) as u32, 0, items.concat()));
        for (creator, clock, items) in units {
            cluster.order_items(creator, clock, items);
        }
        cluster.set_time(expiry + 3);
        now = expiry + 3;
        cluster.order_all();
        let states = [cluster.status(0, &alice, alice.seqnum), cluster.status(0, &bob, bob.seqnum)];
        let ordered = states.iter().position(|s| s.state() == S::Ordered);
        // A claim that came late and a refund that came early both fail; then the sender takes it back.
        match ordered {
            Some(who) => {
                wins[who] += 1;
                let code = Code::from_number(states[1 - who].code).unwrap();
                let codes = [Code::ContractClosed, [Code::ContractExpired, Code::ContractOpen][usize::from(who == 1)]];
                assert!(codes.contains(&code), "round {round}: {code:?}");
            }
            None => {
                let codes = states.map(|s| Code::from_number(s.code).unwrap());
                assert_eq!(codes, [Code::ContractOpen, Code::ContractExpired]);
                let again = alice.call(vec![refund(contract, 1)], vec![credit(&a, 1)]);
                cluster.run_ordered(&[again]);
                assert_eq!(cluster.status(3, &alice, alice.seqnum).state(), S::Ordered);
            }
        }
        for i in 0..4 {
            let log = &cluster.logs[i];
            assert_eq!(log.log.book(&log.state).unwrap(), cluster.logs[0].log.book(&cluster.logs[0].state).unwrap());
            assert_eq!(cluster.balance(i, &bob.address), 1_000 + wins[1], "round {round}, authority {i}");
            assert_eq!(cluster.balance(i, &alice.address), 1_000 - wins[1], "round {round}, authority {i}");
        }
    }
    assert!(wins[0] > 100 && wins[1] > 100, "{wins:?}");
    check(&cluster, &[(&alice, 1_000 - wins[1]), (&bob, 1_000 + wins[1])]);
}
