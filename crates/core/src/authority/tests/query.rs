//! Answers while steps are written: each is of one moment.

use std::cell::Cell;

use super::*;
use crate::address::Address;
use crate::authority::Authority;

/// A state that goes over to the next one after so many reads.
struct Moving<'a> {
    states: [&'a MemState; 2],
    left: Cell<usize>,
}

impl Moving<'_> {
    fn now(&self) -> &MemState {
        match self.left.get() {
            0 => self.states[1],
            left => {
                self.left.set(left - 1);
                self.states[0]
            }
        }
    }
}

impl State for Moving<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.now().get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.now().scan(table, from, limit)
    }
}

/// What is answered is the answer before or the answer after, however many reads come before the change.
fn of_one_moment<T: PartialEq + std::fmt::Debug>(
    authority: &Authority,
    states: [&MemState; 2],
    ask: impl Fn(&Authority, &dyn State) -> Result<T>,
) {
    let [before, after] = states.map(|state| ask(authority, state).unwrap());
    assert_ne!(before, after, "something changes");
    for left in 0..8 {
        let found = ask(authority, &Moving { states, left: Cell::new(left) }).unwrap();
        assert!(found == before || found == after, "after {left} reads: {found:?}, not {before:?} or {after:?}");
    }
}

#[test]
fn answers_are_of_one_moment() {
    let (mut cluster, mut alice) = funded(100);
    // Money that came to another address of the same actor is kept in a record of its own.
    let mut bytes = *alice.address.as_bytes();
    bytes[bytes.len() - 1] ^= 1;
    let other = Address::from_slice(&bytes).unwrap();
    assert_eq!(other.actor(), alice.address.actor());
    cluster.fund(other, 7);
    let first = alice.pay(&[to(other, 1)], "");
    cluster.run(std::slice::from_ref(&first));
    let order = [alice.pay(&[to(other, 10)], "")];
    let certificate = cluster.certify(0, &order);
    let before = cluster.node(0, 0).state.clone();
    cluster.node(0, 0).settle(&certificate, &order).unwrap();
    let node = cluster.node(0, 0);
    let states = [&before, &node.state];
    for address in [alice.address, other] {
        let request =
            wire::AccountRequest { network_id: NETWORK_ID, address: Bytes::copy_from_slice(address.as_bytes()) };
        of_one_moment(&node.authority, states, |authority, state| authority.account(state, &request));
    }
    let request =
        wire::OrderStatusRequest { network_id: NETWORK_ID, actor: alice.actor(), seqnum: 2, ..Default::default() };
    of_one_moment(&node.authority, states, |authority, state| authority.order_status(state, &request));
    let request = wire::OrderRequest { network_id: NETWORK_ID, actor: alice.actor(), seqnum: 2, ..Default::default() };
    let found = |authority: &Authority, state: &dyn State| Ok(authority.order(state, &request)?.state);
    of_one_moment(&node.authority, states, found);
}
