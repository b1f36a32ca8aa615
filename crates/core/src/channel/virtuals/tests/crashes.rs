//! A crash before and after each record: what was promised is kept, and all goes on.

use super::world::*;
use crate::channel::manager;
use crate::channel::virtuals::Input;

const HOUR: u64 = 60 * MINUTE;

/// One life, in which one wallet crashes at its step with a number; whether what was not synced is lost, or kept and not carried out.
/// How many steps that wallet had.
fn life(crashes: usize, at: usize, lost: bool, dispute: bool) -> usize {
    let mut world = World::line();
    let mut steps = 0;
    let acts = 6;
    let mut ids = vec![];
    let mut paid = 0;
    for act in 0..acts {
        match act {
            0 | 1 => ids.push(world.start(1_000, 2 * HOUR)),
            2 | 3 => {
                let amount = 100 * act as u64;
                if world.ask(ALICE, Input::Pay { id: ids[0], amount }).is_ok() {
                    paid = amount;
                }
            }
            4 if dispute => {
                world.nodes[ALICE].mute = true;
                world.nodes[HUB].mute = true;
                world.log.now += 2 * HOUR - MINUTE;
                world.look(BOB);
            }
            5 if dispute => (0..3).for_each(|node| world.look(node)),
            _ => drop(world.ask(BOB, Input::Close(ids[act - 4]))),
        }
        loop {
            let mut busy = false;
            for node in 0..3 {
                if node == crashes && steps == at {
                    steps += 1;
                    if !lost {
                        world.nodes[node].sync();
                    }
                    world.restart(node, 0);
                    world.connect_all();
                }
                let did = world.step(node);
                busy |= did;
                steps += usize::from(did && node == crashes);
            }
            if !world.mail.is_empty() {
                world.deliver(0);
                steps += 1;
            } else if !busy {
                break;
            }
        }
    }
    for node in 0..3 {
        world.nodes[node].mute = false;
    }
    world.connect_all();
    world.pass(3 * HOUR);
    let received = world.nodes[BOB].virtuals.status(&ids[0]).map_or(0, |status| status.amount);
    for (node, other) in [(ALICE, HUB), (HUB, BOB)] {
        assert_eq!(world.money(node, other).locked, 0, "{crashes} at {at}, {lost}: money stays bound");
        let status = world.money(node, other);
        let sum = status.available + status.reserved + status.committed + status.locked;
        assert_eq!(status.confirmed + status.received, sum);
    }
    let fees = 2 * i128::from(world.nodes[HUB].config.fee(1_000));
    let got = world.wind_up();
    assert!(got[BOB] >= i128::from(received), "{crashes} at {at}, {lost}, {dispute}: {got:?}, {received}");
    assert!(got[HUB] >= 0 && got[ALICE] >= -i128::from(paid) - fees, "{crashes} at {at}, {lost}, {dispute}: {got:?}");
    if crashes != BOB && crashes != ALICE {
        assert_eq!(got[BOB], 300, "{crashes} at {at}, {lost}, {dispute}");
    }
    steps
}

#[test]
fn each_wallet_crashes_at_each_step() {
    for crashes in [ALICE, HUB, BOB] {
        for dispute in [false, true] {
            let all = life(crashes, usize::MAX, false, dispute);
            assert!(all > 20, "{all}");
            for at in 0..all {
                life(crashes, at, true, dispute);
                life(crashes, at, false, dispute);
            }
        }
    }
}

/// The manager's journal written anew makes the same manager, lanes of virtual channels included.
#[test]
fn a_manager_with_sets_is_the_same_after_its_journal_is_written_anew() {
    let mut world = World::line();
    let id = world.start(1_000, 2 * HOUR);
    world.start(10, 2 * HOUR);
    world.run();
    world.pay(id, 100);
    world.log.now += 2 * HOUR - MINUTE;
    world.look(BOB);
    for node in &world.nodes {
        let manager = &node.manager;
        let snapshot = manager.snapshot();
        let again = manager::Manager::load(node.manager_config(), &snapshot).unwrap();
        for end in &node.ends {
            assert_eq!(again.status(end).unwrap(), manager.status(end).unwrap());
            for payer in [0, 1] {
                let lane = |manager: &manager::Manager| manager.virtual_lane(end, payer, 0).unwrap();
                assert_eq!(lane(&again), lane(manager));
            }
        }
        assert_eq!(again.snapshot(), snapshot);
    }
}
