//! Virtual channels as users meet them: commands, a hub that is stopped while they are paid over, processes that are killed, and
//! parties that stay away.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod net;
mod town;

use std::time::{Duration, Instant};

use florin_client::channel::Payee;
use florin_core::channel::virtuals::{Input, Reply, VirtualId};
use net::{Said, wait};
use rustix::process::Signal;
use serde_json::Value;
use town::{Talking, Town, channel, open, text};

impl Town {
    /// Bob is there, and where.
    fn bob(&self) -> (Talking, String) {
        let line = format!("channel watch --wallet bob --dial {}@{} --listen 127.0.0.1:0", self.ids[1], self.address);
        let mut bob = Talking::start(&self.net, &line);
        let ready = bob.next();
        assert_eq!(ready["event"], "ready", "{}", self.net.read("servers.log"));
        let at = text(&ready["listen"]);
        (bob, at)
    }

    fn virtual_open(&self, cap: &str, options: &str) -> Said {
        let line = format!("virtual open {} --cap {cap} --hub {} {options}", self.payee, self.address);
        channel(&self.net, &line, "alice")
    }

    /// Opens one when Bob is connected.
    fn opened(&self, cap: &str) -> Value {
        let mut said = None;
        wait("Bob to be connected", || {
            let one = self.virtual_open(cap, "");
            assert!(one.status == 0 || one.stderr.contains("HUB_OFFLINE"), "{one:?}");
            let done = one.status == 0;
            said = Some(one);
            done
        });
        said.unwrap().json()
    }

    fn virtuals(&self, wallet: &str) -> Value {
        channel(&self.net, "virtual list --all", wallet).ok().json()["virtuals"].clone()
    }

    fn listed(&self, wallet: &str, id: &str) -> Value {
        let all = self.virtuals(wallet);
        all.as_array().unwrap().iter().find(|one| one["virtual"] == id).unwrap_or_else(|| panic!("{id}: {all}")).clone()
    }

    /// Alice hears what the hub has to say to her.
    fn alice_hears(&self, event: &str) -> Value {
        let line = format!("channel watch --wallet alice --dial {}@{}", self.ids[0], self.address);
        let mut alice = Talking::start(&self.net, &line);
        let said = alice.until(event);
        // Her last word to the hub goes out at the end.
        alice.signal(Signal::TERM);
        assert_eq!(alice.status(), 0);
        said
    }

    /// What the log has made of it, as an authority has it.
    fn audit(&mut self) {
        self.net.down(1);
        let audited = self.net.run("audit --config authority-1.toml").ok();
        assert!(audited.stdout.contains("sum 0"), "{audited:?}");
    }

    fn end(&self, one: Talking) {
        one.signal(Signal::TERM);
        assert_eq!(one.status(), 0, "{}", self.net.read("servers.log"));
    }
}

#[test]
fn a_hub_is_stopped_while_a_virtual_channel_over_it_is_paid_over() {
    let mut town = Town::start();
    let to_bob = town.payee.clone();
    let nobody = channel(&town.net, &format!("virtual open {to_bob} --cap 20 --hub {}", town.address), "alice");
    nobody.fails(3, "HUB_OFFLINE");
    let (bob, at) = town.bob();
    let opened = town.opened("20");
    assert_eq!((&opened["cap"], &opened["fee"], &opened["payee"]), (&"20.00".into(), &"0.02".into(), &to_bob.into()));
    let id = text(&opened["virtual"]);
    town.virtual_open("20", "--max-fee 0.01").fails(3, "HUB_FEE");
    town.virtual_open("40", "").fails(3, "HUB_FUNDS");
    let status = town.hub_status();
    assert_eq!(status["virtual"], serde_json::json!({"channels": 1, "amount": "20.00"}));
    let (alice, of_hub) = (town.status(0, "alice"), town.listed("alice", &id));
    assert_eq!((&alice["locked"], &alice["available"]), (&"20.00".into(), &"29.98".into()));
    assert_eq!((&of_hub["state"], &of_hub["role"]), (&"open".into(), &"pays".into()));

    // The hub is away, and a hundred payments go by it.
    town.stop();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let raw: VirtualId = hex::decode(&id).unwrap().try_into().unwrap();
    let running = runtime.block_on(async {
        let (alice, running) = open(&town.net, "alice");
        let mut payee = Payee::connect(&at).await.unwrap();
        let began = Instant::now();
        for amount in 1..=100 {
            let Reply::Signed(payment) = alice.virtuals(Input::Pay { id: raw, amount }).await.unwrap() else {
                panic!()
            };
            let kept = loop {
                // Bob may not have heard log time yet.
                match payee.pay(&raw, payment.clone()).await {
                    Ok(kept) => break kept,
                    Err(e) => assert_eq!(e.code.name(), "HUB_OFFLINE"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert_eq!(kept, amount);
        }
        eprintln!("100 payments one after the other: {:?}", began.elapsed());
        running
    });
    running.join().unwrap();
    drop(runtime);
    // And by commands: sent, and by hand.
    let paid = channel(&town.net, &format!("virtual pay {id} 0.25 --to {at}"), "alice").ok().json();
    assert_eq!((&paid["paid"], &paid["left"]), (&"1.25".into(), &"18.75".into()));
    let printed = channel(&town.net, &format!("virtual pay {} 0.50", &id[..8]), "alice").ok().json();
    let payment = text(&printed["payment"]);
    assert!(payment.starts_with("flrvirtual1"), "{payment}");
    channel(&town.net, &format!("virtual pay {id} 18.26"), "alice").fails(3, "VIRTUAL_AMOUNT");
    // One process has a journal.
    let receive = |payment: &str| channel(&town.net, &format!("virtual receive {payment}"), "bob");
    assert!(receive(&payment).stderr.contains("BUSY"));
    town.end(bob);
    assert_eq!(receive(&payment).ok().json()["amount"], "0.50");
    assert_eq!(receive(&payment).ok().json()["amount"], "0.00");
    receive("flrvirtual1qqqq").fails(3, "DECODE");
    let forged = receive(&payment.replace(&payment[20..24], "qqqq"));
    assert!(forged.status != 0, "{forged:?}");

    // They close it.
    town.up();
    let closed = channel(&town.net, &format!("virtual close {id} --hub {}", town.address), "bob").ok().json();
    assert_eq!((&closed["state"], &closed["paid"]), (&"over".into(), &"1.75".into()));
    assert_eq!(town.alice_hears("virtual over")["paid"], "1.75");
    wait("the hub to have it signed back", || town.hub_status()["virtual"]["channels"] == 0);
    let listed = town.listed("alice", &id);
    assert_eq!((&listed["state"], &listed["paid"]), (&"over".into(), &"1.75".into()));
    channel(&town.net, &format!("virtual pay {id} 1"), "alice").fails(3, "VIRTUAL_OVER");
    town.redeemed(["48.23", "1.77", "48.25", "1.75"]);
    town.audit();
}

#[test]
fn kill_9_of_hub_and_payee_in_the_middle_loses_no_payment() {
    let mut town = Town::start();
    let (mut bob, mut at) = town.bob();
    let first = town.opened("2");
    let mut ids = vec![text(&first["virtual"])];
    let mut whole = Duration::from_secs(2);
    const ROUNDS: u32 = 4;
    for round in 0..ROUNDS {
        // The hub in the middle of an opening.
        let line = format!("channel virtual open {} --cap 2 --hub {} --wallet alice", town.payee, town.address);
        let began = Instant::now();
        let mut alice = Talking::start(&town.net, &line);
        if round > 0 {
            let deadline = began + whole * round / (ROUNDS - 1);
            while Instant::now() < deadline && alice.process.0.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            town.kill();
            town.up();
        }
        let said = alice.next();
        if round == 0 {
            whole = began.elapsed();
        }
        if said["virtual"].is_null() {
            let name = said["error"]["name"].as_str().unwrap_or_default();
            // A fee may be paid for one that the hub could not open, because Bob was not back yet.
            let codes = ["HUB_OFFLINE", "UNREACHABLE", "TIMEOUT", "QUORUM_UNREACHABLE"];
            assert!(codes.contains(&name), "{said} {}", town.net.read("servers.log"));
            ids.push(text(&town.opened("2")["virtual"]));
        } else {
            ids.push(text(&said["virtual"]));
        }
        let id = ids.last().unwrap().clone();
        // Bob after each payment that he keeps, and the hub.
        for _ in 0..2 {
            wait("Bob to keep it", || {
                let said = channel(&town.net, &format!("virtual pay {id} 0 --to {at}"), "alice");
                assert!(said.status == 0 || said.stderr.contains("HUB_OFFLINE"), "{said:?}");
                said.status == 0
            });
            channel(&town.net, &format!("virtual pay {id} 0.10 --to {at}"), "alice").ok();
            bob.process.kill();
            (bob, at) = town.bob();
        }
    }
    bob.process.kill();
    for (number, id) in ids.iter().enumerate() {
        let paid = if number == 0 { "0.00" } else { "0.20" };
        assert_eq!(town.listed("bob", id)["paid"], paid);
        let line = format!("channel virtual close {id} --hub {} --wait 50s --wallet bob", town.address);
        let began = Instant::now();
        let mut closing = Talking::start(&town.net, &line);
        let deadline = began + whole * number as u32 / ROUNDS;
        while Instant::now() < deadline && closing.process.0.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        town.kill();
        town.up();
        let said = closing.next();
        assert!(said["state"] == "over" || said["error"].is_object(), "{said}");
        let close = || channel(&town.net, &format!("virtual close {id} --hub {}", town.address), "bob");
        wait("it to be closed", || close().status == 0);
        assert_eq!(town.listed("bob", id)["paid"], paid);
    }
    // Alice comes back, and hears of all.
    let line = format!("channel watch --wallet alice --dial {}@{}", town.ids[0], town.address);
    let watch = Talking::start(&town.net, &line);
    wait("all to be over", || town.hub_status()["virtual"]["channels"] == 0 && locked(&town.hub_status()) == 0);
    town.end(watch);
    let fees = |town: &Town| {
        let alice = town.status(0, "alice");
        assert_eq!(alice["locked"], "0.00", "{alice}");
        let committed: f64 = text(&alice["committed"]).parse().unwrap();
        ((committed - 0.2 * f64::from(ROUNDS)) * 100.0).round() as u64
    };
    // Two each, and for those that the hub could not open.
    let (paid, least) = (fees(&town), 2 * u64::from(ROUNDS + 1));
    assert!(paid >= least && paid % 2 == 0, "{paid}");
    let minor = |amount: u64| format!("{}.{:02}", amount / 100, amount % 100);
    let all = 20 * u64::from(ROUNDS);
    let expected = [minor(5_000 - all - paid), minor(all + paid), minor(5_000 - all), minor(all)];
    town.redeemed([&expected[0], &expected[1], &expected[2], &expected[3]]);
    town.audit();
}

/// Virtual channels in which the hub has still something to get.
fn locked(status: &Value) -> u64 {
    let all = status["channels"].as_array().unwrap().iter();
    all.map(|one| one["virtual"]["incoming"]["channels"].as_u64().unwrap()).sum()
}

#[test]
fn a_payee_whose_payer_and_hub_are_away_claims_by_the_log_and_so_does_the_hub_when_it_is_back() {
    let mut town = Town::start();
    let (bob, at) = town.bob();
    let id = text(&town.opened("20")["virtual"]);
    channel(&town.net, &format!("virtual pay {id} 7.50 --to {at}"), "alice").ok();
    // Alice stays away from now on, the hub is killed.
    town.kill();
    town.end(bob);
    let tower = town.net.wallet("tower");
    let line = format!("delegate {} --to {tower} --out bob.watch", town.ids[1]);
    assert_eq!(channel(&town.net, &line, "bob").ok().json()["virtual_channels"], 1);
    channel(&town.net, &format!("settle {}", town.ids[1]), "bob").ok();
    let (watch, _) = town.net.serve("channel watch --wallet bob");
    let available = |town: &Town, of: usize, wallet: &str| {
        let status = channel(&town.net, &format!("status {}", town.ids[of]), wallet).ok().json();
        text(&status["available"])
    };
    // The log has it: whoever asks is told.
    wait("the claim in the log", || available(&town, 1, "hub") == "42.50");
    assert_eq!(watch.stop(), 0);
    assert_eq!(town.listed("bob", &id)["state"], "over");
    // The hub comes back, and claims the same of Alice, who does not answer.
    channel(&town.net, &format!("settle {}", town.ids[0]), "hub").ok();
    town.up();
    wait("the hub's claim in the log", || available(&town, 0, "alice") == "42.48");
    assert_eq!(town.hub_status()["virtual"]["channels"], 0);
    town.stop();
    assert_eq!(town.listed("hub", &id)["paid"], "7.50");
    town.audit();
}

#[test]
fn without_a_hub_the_payee_is_the_other_side_of_the_channel() {
    let mut town = Town::start();
    let to = town.net.run("wallet address --wallet issuer.wallet").ok().line();
    let at = town.address.clone();
    let open =
        |to: &str, more: &str| channel(&town.net, &format!("virtual open {to} --cap 5 --hub {at} {more}"), "alice");
    open(&to, "").fails(3, "HUB_OFFLINE");
    let status = town.status(0, "alice");
    let opened = open(&text(&status["to"]), "").ok().json();
    assert_eq!(opened["fee"], "0.00");
    let id = text(&opened["virtual"]);
    channel(&town.net, &format!("virtual pay {id} 1.50 --to {at}"), "alice").ok();
    // It is the payer that wants to close it.
    channel(&town.net, &format!("virtual close {id}"), "alice").fails(2, "USAGE");
    let closed = channel(&town.net, &format!("virtual close {id} --to {at} --hub {at}"), "alice").ok().json();
    assert_eq!((&closed["state"], &closed["paid"]), (&"over".into(), &"1.50".into()));
    // Too long for the channel, and too short to be claimed.
    open(&text(&status["to"]), "--expires 30d").fails(3, "VIRTUAL_TERMS");
    open(&text(&status["to"]), "--expires 1s").fails(3, "VIRTUAL_TERMS");
    let listed = town.net.run("channel virtual list --all --wallet alice").ok();
    assert!(listed.stdout.contains("over") && listed.stdout.contains("1.50 flr"), "{listed:?}");
    let status = town.net.run("hub status --wallet hub").ok();
    assert!(status.stdout.contains("virtual channels passed on and open: 0; they bind 0.00 flr"), "{status:?}");
    town.redeemed(["48.50", "1.50", "50.00", "0.00"]);
}

#[test]
fn an_old_copy_of_a_journal_signs_no_virtual_channels() {
    let mut town = Town::start();
    std::fs::copy(town.net.path("alice.channels"), town.net.path("alice.old")).unwrap();
    let (bob, at) = town.bob();
    let id = text(&town.opened("5")["virtual"]);
    channel(&town.net, &format!("virtual pay {id} 1 --to {at}"), "alice").ok();
    std::fs::copy(town.net.path("alice.old"), town.net.path("alice.channels")).unwrap();
    town.virtual_open("5", "").fails(3, "HUB_DIVERGED");
    town.virtual_open("5", "").fails(3, "HUB_DIVERGED");
    // Bob and the hub lose nothing.
    town.end(bob);
    let closed = channel(&town.net, &format!("virtual close {id} --hub {}", town.address), "bob").ok().json();
    assert_eq!(closed["paid"], "1.00");
    town.stop();
    assert_eq!(town.listed("hub", &id)["paid"], "1.00");
}
