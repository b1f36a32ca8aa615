//! f + 1 authorities lie with their true keys: what one honest authority gets to see names them.

#![allow(clippy::unwrap_used)]

mod common;
mod net;

use bytes::Bytes;
use common::{Local, Plan, authority_key, raw, turn, wait_for_log};
use florin_core::Code;
use florin_core::batch::decode_batch;
use florin_core::bitmap::Bitmap;
use florin_core::certificate::{Promise, sign};
use florin_core::testing::{Signer, to};
use florin_core::wire::{Certificate, SettleRequest};
use prost::Message as _;

#[tokio::test(flavor = "multi_thread")]
async fn liars_beyond_f_are_named_by_what_an_honest_authority_keeps() {
    let _turn = turn().await;
    let mut alice = Signer::new(500);
    let plan = Plan { genesis: vec![(alice.address, 1_000)], ..Plan::default() };
    let mut local = Local::create(net::Folder::new(), plan);
    tokio::task::block_in_place(|| local.up((1, 0)));
    let mut twin = alice.clone();
    let orders = [alice.pay(&[to(Signer::new(501).address, 1)], ""), twin.pay(&[to(Signer::new(502).address, 2)], "")];
    // Authority 2 is honest, and 3 too; the wallet shows each another order. 1 and 4 sign both.
    let certificate = |order: &Bytes, signers: [usize; 3]| {
        let id = decode_batch(std::slice::from_ref(order)).unwrap().id;
        let vote = |i: usize| sign(Promise::Vote, &local.committee, i as u32, &authority_key(i), &id, &Bitmap::full(1));
        Certificate { epoch: 1, root: Bytes::copy_from_slice(&id.root), count: 1, votes: signers.map(vote).to_vec() }
    };
    let settle = |order: &Bytes, certificate: Certificate| {
        let certificate = Some(certificate);
        let request = SettleRequest { certificate, orders: vec![order.clone()], ..Default::default() };
        let (channel, request) = (local.channel(1, 0, None), Bytes::from(request.encode_to_vec()));
        async move { raw(&channel, "AuthorityService/Settle", request).await }
    };
    // The genesis file may be loading yet.
    common::until("the first to settle", || async {
        settle(&orders[0], certificate(&orders[0], [0, 1, 3])).await.is_ok()
    })
    .await;
    for _ in 0..2 {
        let refused = settle(&orders[1], certificate(&orders[1], [0, 2, 3])).await.unwrap_err();
        assert_eq!(refused.code, Code::ConflictingCertificate, "{refused}");
    }
    wait_for_log(&local, (1, 0), "signed by [\"authority-1\", \"authority-4\"]");
    let folder = local.data(1).join("evidence");
    let mut kept: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path().to_str().unwrap().to_owned()).collect();
    kept.sort_unstable();
    assert_eq!(kept.len(), 2, "one pair, however often it is shown: {kept:?}");

    let checked = local.run(&format!("--json evidence check {} {}", kept[1], kept[0])).ok().json();
    let names: Vec<&str> = checked["guilty"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["authority-1", "authority-4"]);
    let said = local.run(&format!("evidence check {} {}", kept[0], kept[1])).ok().stdout;
    assert!(
        said.contains("2 of 4 authorities are proved guilty, more than the 1 that this committee survives"),
        "{said}"
    );
    local.run(&format!("evidence check {} {}", kept[0], kept[0])).fails(3, "NO_EVIDENCE");
    // A changed vote proves nothing.
    let text = std::fs::read_to_string(&kept[0]).unwrap();
    let at = text.rfind("40").unwrap();
    std::fs::write(&kept[0], format!("{}41{}", &text[..at], &text[at + 2..])).unwrap();
    let refused = local.run(&format!("evidence check {} {}", kept[0], kept[1]));
    assert_ne!(refused.status, 0, "{}", refused.stdout);
    local.assert_alive();
}
