//! The memory of accounts changes nothing: the same steps with it and without it write and answer the same.

use std::cell::Cell;

use super::*;
use crate::authority::effect::Reply;
use crate::authority::hot::Hot;
use crate::authority::input::Input;
use crate::authority::{Authority, NoMeter};
use crate::batch::decode_batch;
use crate::bitmap::Bitmap;
use crate::certificate::{Promise, sign};

/// Counts looks at accounts.
struct Counted<'a>(&'a MemState, Cell<usize>);

impl State for Counted<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.1.set(self.1.get() + usize::from(table == Table::Accounts));
        self.0.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.0.scan(table, from, limit)
    }
}

/// One shard that makes every step twice, over the same tables.
struct Twins {
    authorities: [Authority; 2],
    state: MemState,
    hot: Hot,
    looks: [usize; 2],
}

impl Twins {
    /// A step whose writes are lost if not `applied`.
    fn step(&mut self, input: Input, applied: bool) -> Option<Reply> {
        let [cold, warm] = &self.authorities;
        let state = [Counted(&self.state, Cell::new(0)), Counted(&self.state, Cell::new(0))];
        let without = cold.handle(NOW_US, input.clone(), &state[0], &mut NoMeter);
        let with = warm.handle_hot(NOW_US, input, &state[1], &mut self.hot, &mut NoMeter);
        self.looks = [self.looks[0] + state[0].1.get(), self.looks[1] + state[1].1.get()];
        let (without, with) = match (without, with) {
            (Ok(without), Ok(with)) => (without, with),
            (without, with) => {
                assert_eq!(without.expect_err("both fail"), with.expect_err("both fail"));
                return None;
            }
        };
        // Accounts are written in the order in which they were looked at, ahead or when needed.
        let by_key = |writes: &[crate::authority::state::Write]| {
            let mut writes = writes.to_vec();
            writes.sort_by(|a, b| (a.table as usize, &a.key).cmp(&(b.table as usize, &b.key)));
            writes
        };
        assert!(by_key(&without.writes) == by_key(&with.writes), "other writes with the memory");
        assert_eq!(format!("{:?}", without.reply), format!("{:?}", with.reply));
        if !applied {
            return None;
        }
        self.state.apply(&with.writes);
        self.hot.written(with.accounts);
        Some(with.reply)
    }
}

/// Numbers that look random enough.
fn random(seed: &mut u64, below: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize % below
}

/// Without a memory accounts are loaded ahead; with one that has room they are looked for one by one.
#[test]
fn steps_with_and_without_the_memory_do_the_same() {
    same_with(Hot::default());
}

#[test]
fn steps_with_a_memory_that_has_had_to_forget_do_the_same() {
    let mut hot = Hot::default();
    hot.forget_some();
    same_with(hot);
}

/// Chains of payments and new keys, bad signatures, orders for a seqnum that has one, certificates in any order, lost writes.
fn same_with(hot: Hot) {
    let (committee, keys) = TestCommittee::default().build();
    let authority = || Authority::new(committee.clone(), 0, 0, keys[0].clone());
    let authorities = [authority(), authority()];
    let mut twins = Twins { authorities, state: MemState::default(), hot, looks: [0; 2] };
    let mut signers: Vec<Signer> = (1..=8).map(Signer::new).collect();
    let lines = signers.iter().map(|s| (s.address, 50)).collect();
    twins.step(Input::Genesis { first_line: 0, lines, last: false }, true).unwrap();
    let mut waiting: Vec<wire::Certificate> = Vec::new();
    let mut seen = [0; 3];
    let mut seed = 1;
    for _ in 0..800 {
        if !waiting.is_empty() && random(&mut seed, 2) == 0 {
            let certificate = waiting.swap_remove(random(&mut seed, waiting.len()));
            let applied = random(&mut seed, 10) != 0;
            let input = Input::Settle { certificate: certificate.clone(), orders: Vec::new() };
            match twins.step(input, applied) {
                Some(Reply::Settle(reply)) => seen[0] += usize::from(reply.waiting.is_empty()),
                _ => waiting.push(certificate),
            }
            continue;
        }
        let mut orders = Vec::new();
        let mut after = signers.clone();
        for _ in 0..1 + random(&mut seed, 5) {
            let to_whom = signers[random(&mut seed, 8)].address;
            let signer = &mut after[random(&mut seed, 8)];
            let order = match random(&mut seed, 20) {
                0 => spoil(&signer.clone().pay(&[to(to_whom, 2)], "")),
                1 => signer.clone().pay(&[to(to_whom, 1_000)], "too much"),
                2 => {
                    let (permission, keys) = (signer.permission.clone(), signer.keys.clone());
                    let order = signer.set_permission(&permission, Vec::new());
                    signer.keys = keys;
                    order
                }
                _ => signer.pay(&[to(to_whom, 1)], ""),
            };
            orders.push(order);
        }
        let Some(Reply::Vote(reply)) = twins.step(Input::vote(orders.clone()), random(&mut seed, 10) != 0) else {
            continue;
        };
        seen[1] += reply.errors.len();
        let Some(vote) = reply.vote else { continue };
        let id = decode_batch(&orders).unwrap().id;
        let bitmap = Bitmap::parse(&vote.bitmap, id.count).unwrap();
        let others = (1..3).map(|i| sign(Promise::Vote, &committee, i, &keys[i as usize], &id, &bitmap));
        let votes = std::iter::once(vote).chain(others).collect();
        let root = Bytes::copy_from_slice(&id.root);
        waiting.push(wire::Certificate { epoch: committee.epoch, root, count: id.count as u32, votes });
        // Signers go on from what is pending.
        for signer in &mut after {
            let account = crate::authority::state::Account::load(&twins.state, NETWORK_ID, signer.actor()).unwrap();
            signer.seqnum = account.next_seqnum() as u32 - 1;
            signer.prev_hash = account.next_prev_hash();
        }
        signers = after;
        seen[2] += 1;
    }
    assert!(seen.iter().all(|n| *n > 30), "{seen:?}");
    assert!(twins.looks[1] * 4 < twins.looks[0] * 3, "{:?}: accounts are found in the memory", twins.looks);
}
