//! What orders say.

use bytes::Bytes;
use florin_core::Code::{self, *};
use florin_core::envelope::{Body, encode_body};
use florin_core::keys::Curve;
use florin_core::permission::Permission;
use florin_core::registration::sign_registration;
use florin_core::testing::{NETWORK_ID, Signer, secret};
use florin_core::wire::{self, input, network_command::Kind as N, output::Kind};
use prost::Message;

use super::Cases;
use super::orders::bad_permissions;
use super::proto::{break_message, bytes, number};
use crate::made::signed_voucher;

const AMOUNT_OVER: u64 = 1 << 63;

pub fn hash(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 32])
}

/// All cases of this file.
pub fn add(cases: &mut Cases) {
    pays(cases);
    opens(cases);
    calls(cases);
    modules(cases);
    networks(cases);
    channels(cases);
}

/// The body of a later order of an account.
fn later(transaction_type: u32, content: &[u8]) -> Vec<u8> {
    let content = Bytes::copy_from_slice(content);
    encode_body(&Body { network_id: NETWORK_ID, actor: 6, seqnum: 2, transaction_type, content, ..Body::default() })
        .to_vec()
}

pub fn out(kind: Kind) -> wire::Output {
    wire::Output { kind: Some(kind) }
}

pub fn credit(amount: u64) -> wire::Output {
    out(Kind::Credit(wire::Credit { address: hash(1), amount }))
}

pub fn note(tier: u32) -> wire::Output {
    out(Kind::Note(wire::NoteRequest { tier, blinded: Bytes::from(vec![5; 48]) }))
}

fn pays(cases: &mut Cases) {
    let good = wire::Pay { outputs: vec![credit(5), note(3)], memo: "tea".into(), open: Bytes::new() };
    break_message(cases, ("content", "pay"), &good.encode_to_vec(), (BadContent, NonCanonical), |b| later(1, b));
    let mut bad = |code, rule: &str, change: &dyn Fn(&mut wire::Pay)| {
        let mut pay = good.clone();
        change(&mut pay);
        cases.bad("content", code, format!("pay: {rule}"), later(1, &pay.encode_to_vec()));
    };
    bad(Limit, "no outputs", &|p| p.outputs.clear());
    bad(Limit, "257 outputs", &|p| p.outputs = vec![credit(1); 257]);
    bad(Limit, "a memo of 257 bytes", &|p| p.memo = "m".repeat(257));
    bad(BadAmount, "an amount of 0", &|p| p.outputs[0] = credit(0));
    bad(BadAmount, "an amount of 2^63", &|p| p.outputs[0] = credit(AMOUNT_OVER));
    bad(BadAmount, "amounts that add up to 2^63", &|p| p.outputs = vec![credit(AMOUNT_OVER - 1), credit(1)]);
    bad(BadAmount, "an amount and a note that add up to 2^63", &|p| p.outputs[0] = credit(AMOUNT_OVER - 8));
    bad(BadContent, "an output without a kind", &|p| p.outputs[0].kind = None);
    bad(BadContent, "a credit after a note", &|p| p.outputs.reverse());
    bad(BadContent, "a note of tier 63", &|p| p.outputs[1] = note(63));
    for length in [0, 47, 49] {
        let request = wire::NoteRequest { tier: 0, blinded: Bytes::from(vec![5; length]) };
        bad(BadContent, &format!("a blinded nonce of {length} bytes"), &|p| {
            p.outputs[1] = out(Kind::Note(request.clone()))
        });
    }
    for length in [0, 31, 33] {
        let to = wire::Credit { address: Bytes::from(vec![5; length]), amount: 1 };
        bad(BadContent, &format!("an address of {length} bytes"), &|p| p.outputs[0] = out(Kind::Credit(to.clone())));
    }
    bad(BadContent, "a contract", &|p| p.outputs[0] = out(Kind::ContractFund(fund())));
    bad(BadContent, "a channel", &|p| {
        p.outputs[0] = out(Kind::ChannelSettle(wire::ChannelSettle { channel: hash(1) }))
    });
    bad(BadContent, "a permission that opens in seqnum 2", &|p| p.open = Signer::new(1).permission.encode());
    let memo = [bytes(1, credit(5).encode_to_vec()), bytes(2, [0xff, 0xfe])].concat();
    cases.bad("content", BadContent, "pay: a memo that is no UTF-8", later(1, &memo));
    let unknown = bytes(1, number(14, 1));
    cases.bad("content", NonCanonical, "pay: an output of a kind that nobody knows", later(1, &unknown));
    let twice = bytes(1, [bytes(1, bytes(1, [1; 32])), bytes(1, number(2, 5))].concat());
    cases.bad("content", NonCanonical, "pay: an output in two pieces", later(1, &twice));
    for kind in [0, 7, 0x464c_0002, u32::MAX] {
        cases.bad("content", BadContent, format!("an order of type {kind}"), later(kind, &good.encode_to_vec()));
    }
}

fn opens(cases: &mut Cases) {
    let signer = Signer::new(1);
    let first = |open: &[u8], actor: u64| {
        let content = wire::Pay { outputs: vec![credit(5)], open: Bytes::copy_from_slice(open), ..Default::default() };
        let content = content.encode_to_vec().into();
        encode_body(&Body { network_id: NETWORK_ID, actor, seqnum: 1, transaction_type: 1, content, ..Body::default() })
    };
    let own = signer.permission.encode();
    cases.whole("content", "the first order", first(&own, signer.actor()));
    cases.bad("content", BadContent, "first order without its permission", first(&[], signer.actor()));
    cases.bad(
        "content",
        BadContent,
        "first order with another's permission",
        first(&Signer::new(2).permission.encode(), signer.actor()),
    );
    cases.bad(
        "content",
        BadContent,
        "first order of another network's actor",
        first(&own, signer.permission.address(5).actor()),
    );
    let set =
        |permission: &[u8]| wire::SetPermission { permission: Bytes::copy_from_slice(permission), open: Bytes::new() };
    break_message(cases, ("content", "set permission"), &set(&own).encode_to_vec(), (BadContent, NonCanonical), |b| {
        later(2, b)
    });
    cases.bad("content", BadPermission, "set permission: none", later(2, &[]));
    let managed = Permission { actor: 7, ..signer.permission.clone() }.encode();
    cases.bad("content", BadPermission, "set permission: of an actor", later(2, &set(&managed).encode_to_vec()));
    cases.bad("content", Decode, "set permission: one that is cut", later(2, &set(&own[1..]).encode_to_vec()));
    for (code, rule, permission) in bad_permissions() {
        let actor = Permission::address_of(NETWORK_ID, &permission).actor();
        cases.bad("content", code, format!("set permission: {rule}"), later(2, &set(&permission).encode_to_vec()));
        cases.bad("content", code, format!("first order: {rule}"), first(&permission, actor));
    }
    let recover = wire::Recover { account: hash(3), open: Bytes::new() };
    break_message(cases, ("content", "recover"), &recover.encode_to_vec(), (BadContent, NonCanonical), |b| later(4, b));
    for length in [0, 31, 33] {
        let recover = wire::Recover { account: Bytes::from(vec![3; length]), open: Bytes::new() };
        cases.bad(
            "content",
            BadContent,
            format!("recover: an account of {length} bytes"),
            later(4, &recover.encode_to_vec()),
        );
    }
    let recover = wire::Recover { account: hash(3), open: own };
    cases.bad(
        "content",
        BadContent,
        "recover: a permission that opens in seqnum 2",
        later(4, &recover.encode_to_vec()),
    );
}

fn call(inputs: Vec<wire::Input>, outputs: Vec<wire::Output>) -> wire::Call {
    wire::Call { account: hash(3), previous_call: 1, inputs, outputs, memo: "m".into(), open: Bytes::new() }
}

pub fn fund() -> wire::ContractFund {
    wire::ContractFund { amount: 5, hash: hash(1), expiry_ms: 9, receiver: hash(2), sender: hash(3) }
}

fn claim(amount: u64, contract: usize, preimage: usize) -> wire::Input {
    let (contract, preimage) = (Bytes::from(vec![1; contract]), Bytes::from(vec![2; preimage]));
    wire::Input { amount, kind: Some(input::Kind::ContractClaim(wire::ContractClaim { contract, preimage })) }
}

fn of_call(cases: &mut Cases, code: Code, rule: &str, call: wire::Call) {
    cases.bad("content", code, format!("call: {rule}"), later(3, &call.encode_to_vec()));
}

fn calls(cases: &mut Cases) {
    let good = call(vec![claim(5, 32, 6)], vec![credit(6)]);
    break_message(cases, ("content", "call"), &good.encode_to_vec(), (BadContent, NonCanonical), |b| later(3, b));
    for length in [0, 31, 33] {
        let account = Bytes::from(vec![3; length]);
        of_call(cases, BadContent, &format!("an account of {length} bytes"), wire::Call { account, ..good.clone() });
    }
    of_call(cases, BadContent, "neither inputs nor outputs", call(vec![], vec![]));
    of_call(cases, Limit, "257 outputs", call(vec![], vec![out(Kind::Network(wire::NetworkCommand::default())); 257]));
    of_call(cases, Limit, "257 inputs", call(vec![wire::Input::default(); 257], vec![]));
    of_call(cases, Limit, "content of more than 8,192 bytes", call(vec![], vec![credit(1); 216]));
    of_call(cases, Limit, "a memo of 257 bytes", wire::Call { memo: "m".repeat(257), ..good.clone() });
    of_call(cases, BadAmount, "inputs above the outputs", call(vec![claim(7, 32, 6)], vec![credit(6)]));
    of_call(cases, BadAmount, "inputs without outputs", call(vec![claim(7, 32, 6)], vec![]));
    of_call(cases, BadAmount, "an input of 0", call(vec![claim(0, 32, 6)], vec![credit(6)]));
    of_call(cases, BadAmount, "an input of 2^63", call(vec![claim(AMOUNT_OVER, 32, 6)], vec![credit(6)]));
    of_call(cases, BadAmount, "outputs of 2^63", call(vec![], vec![credit(AMOUNT_OVER - 1), credit(1)]));
    of_call(
        cases,
        BadContent,
        "an input without a kind",
        call(vec![wire::Input { amount: 1, kind: None }], vec![credit(6)]),
    );
    of_call(cases, BadContent, "an output without a kind", call(vec![], vec![wire::Output { kind: None }]));
    of_call(cases, BadContent, "a note", call(vec![], vec![note(1)]));
    of_call(
        cases,
        BadContent,
        "a permission that opens in seqnum 2",
        wire::Call { open: Signer::new(1).permission.encode(), ..good },
    );
}

/// A CALL with one output.
fn one(cases: &mut Cases, code: Code, rule: impl AsRef<str>, kind: Kind) {
    of_call(cases, code, rule.as_ref(), call(vec![], vec![out(kind)]));
}

fn modules(cases: &mut Cases) {
    for (amount, what) in [(0, "0"), (AMOUNT_OVER, "2^63"), (u64::MAX, "2^64 - 1")] {
        one(cases, BadAmount, format!("credit of {what}"), credit(amount).kind.expect("it has one"));
        one(
            cases,
            BadAmount,
            format!("contract over {what}"),
            Kind::ContractFund(wire::ContractFund { amount, ..fund() }),
        );
        one(
            cases,
            BadAmount,
            format!("redeem of {what}"),
            Kind::PrimaryRedeem(wire::PrimaryRedeem { amount, address: hash(1) }),
        );
        one(
            cases,
            BadAmount,
            format!("deposit of {what}"),
            Kind::PrimaryDeposit(wire::PrimaryDeposit { amount, address: hash(1) }),
        );
        let deposit = wire::ChannelDeposit { channel: hash(1), side: 0, amount };
        one(cases, BadAmount, format!("channel deposit of {what}"), Kind::ChannelDeposit(deposit));
    }
    for length in [0, 31, 33] {
        let short = || Bytes::from(vec![1; length]);
        let rule = |what: &str| format!("{what} of {length} bytes");
        one(
            cases,
            BadContent,
            rule("contract hash"),
            Kind::ContractFund(wire::ContractFund { hash: short(), ..fund() }),
        );
        one(
            cases,
            BadContent,
            rule("contract receiver"),
            Kind::ContractFund(wire::ContractFund { receiver: short(), ..fund() }),
        );
        one(
            cases,
            BadContent,
            rule("contract sender"),
            Kind::ContractFund(wire::ContractFund { sender: short(), ..fund() }),
        );
        one(
            cases,
            BadContent,
            rule("primary address"),
            Kind::PrimaryRedeem(wire::PrimaryRedeem { amount: 1, address: short() }),
        );
        one(
            cases,
            BadContent,
            rule("deposit address"),
            Kind::PrimaryDeposit(wire::PrimaryDeposit { amount: 1, address: short() }),
        );
        one(cases, BadContent, rule("credited address"), Kind::Credit(wire::Credit { amount: 1, address: short() }));
        of_call(cases, BadContent, &rule("claimed contract"), call(vec![claim(1, length, 6)], vec![credit(1)]));
        let refund = input::Kind::ContractRefund(wire::ContractRefund { contract: short() });
        let refund = wire::Input { amount: 1, kind: Some(refund) };
        of_call(cases, BadContent, &rule("refunded contract"), call(vec![refund], vec![credit(1)]));
    }
    for length in [0, 65] {
        let rule = format!("a preimage of {length} bytes");
        of_call(cases, Limit, &rule, call(vec![claim(1, 32, length)], vec![credit(1)]));
    }
}

fn network(cases: &mut Cases, code: Code, rule: &str, kind: N) {
    let command = wire::NetworkCommand { network_id: 500, kind: Some(kind) };
    one(cases, code, format!("network: {rule}"), Kind::Network(command));
}

fn networks(cases: &mut Cases) {
    for (id, what) in [(0, "id 0"), (1 << 63, "an id with its top bit set")] {
        let kind = Some(N::Accept(wire::NetworkAccept {}));
        one(cases, Int63, format!("network: {what}"), Kind::Network(wire::NetworkCommand { network_id: id, kind }));
    }
    one(cases, BadContent, "network: no command", Kind::Network(wire::NetworkCommand { network_id: 500, kind: None }));
    let register = |flags, metadata: usize, listeners: Vec<Bytes>| {
        N::Register(wire::NetworkRegister { flags, metadata: Bytes::from(vec![1; metadata]), listeners, open: false })
    };
    let update = |flags, listeners: Vec<Bytes>| N::Update(wire::NetworkUpdate { flags, listeners, open: true });
    for flags in [16, 0x8000, u32::MAX] {
        network(cases, BadContent, &format!("registered with flags {flags}"), register(flags, 0, vec![]));
        network(cases, BadContent, &format!("updated to flags {flags}"), update(flags, vec![]));
    }
    network(cases, BadContent, "registered without sequences and ordered", register(12, 0, vec![]));
    network(cases, BadContent, "updated to no sequences and ordered", update(12, vec![]));
    network(cases, Limit, "registered with seventeen listeners", register(0, 0, vec![hash(1); 17]));
    network(cases, Limit, "updated to seventeen listeners", update(0, vec![hash(1); 17]));
    network(cases, BadContent, "registered with a listener of 31 bytes", register(0, 0, vec![hash(1).slice(1..)]));
    network(cases, BadContent, "updated to a listener of 31 bytes", update(0, vec![hash(1).slice(1..)]));
    network(cases, Limit, "registered with metadata of 1,025 bytes", register(0, 1_025, vec![]));
    network(
        cases,
        Limit,
        "metadata of 1,025 bytes",
        N::Metadata(wire::NetworkMetadata { metadata: Bytes::from(vec![1; 1_025]) }),
    );
    network(
        cases,
        BadContent,
        "offered to an admin of 31 bytes",
        N::Offer(wire::NetworkOffer { admin: hash(1).slice(1..) }),
    );
    let precheck = |types: Vec<(u32, u32)>, actors: Vec<u64>| {
        let types = types.into_iter().map(|(first, last)| wire::TypeRange { first, last }).collect();
        N::Precheck(wire::Precheck { types, content_max: 5, actors })
    };
    network(cases, Limit, "a precheck of seventeen ranges", precheck(vec![(1, 2); 17], vec![]));
    network(cases, Limit, "a precheck of 257 actors", precheck(vec![], (1..=257).collect()));
    network(cases, BadContent, "a precheck with a range that ends before it begins", precheck(vec![(2, 1)], vec![]));
    network(cases, BadContent, "a precheck with actors out of order", precheck(vec![], vec![2, 1]));
    network(cases, BadContent, "a precheck with an actor twice", precheck(vec![], vec![1, 1]));
    let key = secret(Curve::K1, 5);
    let account = Permission::single(key.public()).encode();
    let permission = Permission { actor: 7, ..Permission::single(key.public()) }.encode();
    network(cases, BadPermission, "an actor without an id", N::Actor(account.clone()));
    network(cases, Decode, "an actor that is cut", N::Actor(permission.slice(..permission.len() - 1)));
    network(cases, BadPermission, "an actor without a permission", N::Actor(Bytes::new()));
    let open = |permission: &Bytes, signature: Vec<u8>| {
        N::Open(wire::ActorOpen { permission: permission.clone(), signature: signature.into() })
    };
    let signature = sign_registration(&permission, &key).as_bytes().to_vec();
    network(cases, BadPermission, "who registers itself without an id", open(&account, signature.clone()));
    network(
        cases,
        SigFormat,
        "who registers itself with a signature of 65 bytes",
        open(&permission, signature[1..].to_vec()),
    );
    network(cases, SigFormat, "who registers itself without a signature", open(&permission, vec![]));
    let high = [&signature[..34], &[0xf0], &signature[35..]].concat();
    network(cases, SigNotCanonical, "who registers itself with a high s", open(&permission, high));
    for (actor, what) in [(0, "actor 0"), (1 << 63, "an actor with its top bit set")] {
        network(cases, Int63, &format!("{what} removed"), N::RemoveActor(actor));
        network(cases, Int63, &format!("{what} frozen"), N::FreezeActor(wire::ActorFreeze { actor, frozen: true }));
        network(cases, Int63, &format!("{what} admitted"), N::Admit(wire::ActorAdmit { actor, order_id: hash(1) }));
    }
    for length in [0, 31, 33] {
        let admit = wire::ActorAdmit { actor: 1, order_id: Bytes::from(vec![1; length]) };
        network(cases, BadContent, &format!("an order of {length} bytes admitted"), N::Admit(admit));
    }
    for max_rows in [0, 257] {
        let prune = wire::HistoryPrune { before_us: 5, max_rows };
        network(cases, Limit, &format!("{max_rows} rows pruned"), N::Prune(prune));
    }
}

fn channels(cases: &mut Cases) {
    let keys = || Signer::new(1).permission.encode();
    let open = wire::ChannelOpen {
        opener: hash(1),
        other: hash(2),
        opener_permission: keys(),
        other_permission: Bytes::new(),
        delay_ms: 1_000,
        two_way: true,
        amount: 5,
    };
    let good = call(vec![], vec![out(Kind::ChannelOpen(open.clone()))]);
    cases.whole("content", "a channel", later(3, &good.encode_to_vec()));
    let mut bad = |code, rule: &str, change: &dyn Fn(&mut wire::ChannelOpen)| {
        let mut open = open.clone();
        change(&mut open);
        one(cases, code, format!("channel: {rule}"), Kind::ChannelOpen(open));
    };
    bad(BadContent, "one address on both sides", &|o| o.other = o.opener.clone());
    bad(BadContent, "a delay of 999 ms", &|o| o.delay_ms = 999);
    bad(BadContent, "a delay of more than 90 days", &|o| o.delay_ms = 7_776_000_001);
    bad(BadAmount, "an amount of 2^63", &|o| o.amount = AMOUNT_OVER);
    bad(BadContent, "an opener of 31 bytes", &|o| o.opener = hash(1).slice(1..));
    bad(BadContent, "another side of 33 bytes", &|o| o.other = Bytes::from(vec![2; 33]));
    bad(Decode, "keys that are cut", &|o| o.opener_permission = keys().slice(1..));
    for (code, rule, permission) in bad_permissions() {
        let other_permission = Bytes::from(permission);
        bad(code, &format!("the other side with {rule}"), &|o| o.other_permission = other_permission.clone());
    }
    for (code, rule, permission) in bad_permissions() {
        let keys = wire::ChannelKeys { channel: hash(1), permission: permission.into() };
        one(cases, code, format!("channel keys: {rule}"), Kind::ChannelKeys(keys));
    }
    for side in [2, u32::MAX] {
        let deposit = wire::ChannelDeposit { channel: hash(1), side, amount: 1 };
        one(cases, BadContent, format!("channel deposit of side {side}"), Kind::ChannelDeposit(deposit));
    }
    one(
        cases,
        BadAmount,
        "channel leave of 2^63",
        Kind::ChannelLeave(wire::ChannelLeave { channel: hash(1), amount: AMOUNT_OVER }),
    );
    one(cases, BadContent, "channel redeem of nothing", Kind::ChannelRedeem(wire::ChannelRedeem::default()));
    let redeem =
        |redemption| Kind::ChannelRedeem(wire::ChannelRedeem { redemptions: vec![redemption], claims: vec![] });
    one(cases, BadContent, "channel redeem without a voucher", redeem(wire::Redemption::default()));
    let cut = wire::SignedVoucher { voucher: signed_voucher().voucher.slice(1..), ..signed_voucher() };
    one(
        cases,
        BadContent,
        "channel redeem of a voucher that is cut",
        redeem(wire::Redemption { voucher: Some(cut), ..Default::default() }),
    );
    let watch = Some(wire::SignedPermit::default());
    let watched = wire::Redemption { voucher: Some(signed_voucher()), watch, ..Default::default() };
    one(cases, BadContent, "channel redeem with an empty permit to watch", redeem(watched));
    let claims = wire::ChannelRedeem { redemptions: vec![], claims: vec![wire::VirtualClaim::default()] };
    one(cases, BadContent, "channel redeem of an empty claim", Kind::ChannelRedeem(claims));
    for length in [0, 31, 33] {
        let short = || Bytes::from(vec![1; length]);
        let rule = |what: &str| format!("channel {what} with an id of {length} bytes");
        one(
            cases,
            BadContent,
            rule("deposit"),
            Kind::ChannelDeposit(wire::ChannelDeposit { channel: short(), side: 0, amount: 1 }),
        );
        one(
            cases,
            BadContent,
            rule("keys"),
            Kind::ChannelKeys(wire::ChannelKeys { channel: short(), permission: keys() }),
        );
        one(cases, BadContent, rule("leave"), Kind::ChannelLeave(wire::ChannelLeave { channel: short(), amount: 1 }));
        one(cases, BadContent, rule("settle"), Kind::ChannelSettle(wire::ChannelSettle { channel: short() }));
        one(cases, BadContent, rule("collect"), Kind::ChannelCollect(wire::ChannelCollect { channel: short() }));
        let withdraw = wire::ChannelWithdraw { channel: short(), redemptions: vec![], permit: None };
        let withdraw = wire::Input { amount: 1, kind: Some(input::Kind::ChannelWithdraw(withdraw)) };
        of_call(cases, BadContent, &rule("withdrawal"), call(vec![withdraw], vec![credit(1)]));
    }
}
