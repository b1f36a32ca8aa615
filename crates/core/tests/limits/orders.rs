//! What an order, its batch and its committee may hold.

use std::sync::Arc;

use bytes::Bytes;
use florin_core::amount::parse_amount;
use florin_core::certificate::batch_id;
use florin_core::committee::{AuthorityInfo, Committee, Network};
use florin_core::content::{TYPE_CALL, encode_call};
use florin_core::envelope::{Authority, Body, Order, encode_body, encode_envelope};
use florin_core::keys::Curve;
use florin_core::permission::Permission;
use florin_core::signatures::AuthorityKey;
use florin_core::testing::{NETWORK_ID, Signer, TestCommittee, secret, seed, to};
use florin_core::wire::{self, input, network_command, output};
use florin_core::{Code, Error, Result};

use crate::{Case, funded, judged, judged_one, limit, text};

pub fn cases() -> Vec<Case> {
    use Code::{BadAmount, BadConfig, Int63, Limit};
    const TOP: &[u64] = &[u64::MAX];
    vec![
        Case::at_most(limit!(ORDERS_PER_BATCH_MAX), &[64 * 4_096], Limit, batch_of_orders).at_least(1),
        Case::at_most(limit!(ORDERS_PER_BATCH_MAX), &[64 * 4_096, u32::MAX as u64], Limit, count_of_a_batch)
            .at_least(1),
        Case::at_most(limit!(MESSAGE_BYTES_MAX), &[64 << 22], Limit, batch_of_bytes),
        Case::at_most(limit!(BODY_BYTES_MAX), &[64 * 65_000], Limit, body_of_bytes),
        Case::at_most(limit!(CONTENT_BYTES_MAX), &[64 * 16_384], Limit, content_of_bytes),
        Case::at_most(limit!(COSIGNORS_MAX), &[64 * 4], Limit, cosignors),
        Case::at_most(limit!(AUTHORITIES_MAX), &[64 * 8], Limit, |n| envelope(n, 1, 66)),
        Case::at_most(limit!(SIGS_PER_AUTHORITY_MAX), &[64 * 16], Limit, |n| envelope(1, n, 66)),
        Case::at_most(limit!(SIG_BYTES_MAX), &[64 * 128], Limit, |n| envelope(1, 1, n)),
        Case::at_most(limit!(KEYS_MAX), &[64 * 16], Limit, |n| Permission::decode(&permission(n)).map(drop)),
        Case::at_most(limit!(KEYS_MAX), &[64 * 16], Limit, opening_with_keys),
        Case::at_most(limit!(MEMO_BYTES_MAX), &[64 * 256], Limit, |n| {
            judged_one(|alice| alice.pay(&[self_pay()], &text(n)))
        }),
        Case::at_most(limit!(MEMO_BYTES_MAX), &[64 * 256], Limit, |n| call(vec![], vec![accept(9)], n)),
        Case::at_most(limit!(OUTPUTS_MAX), &[64 * 256], Limit, |n| {
            judged_one(|alice| alice.pay(&vec![self_pay(); n as usize], ""))
        })
        .at_least(1),
        Case::at_most(limit!(OUTPUTS_MAX), &[64 * 256], Limit, |n| call(vec![], vec![accept(9); n as usize], 0)),
        Case::at_most(limit!(INPUTS_MAX), &[64 * 256], Limit, inputs),
        Case::at_most(limit!(CALL_BYTES_MAX), &[64 * 8_192], Limit, call_of_bytes),
        Case::at_most(limit!(PREIMAGE_BYTES_MAX), &[64 * 64], Limit, |n| {
            let claim = wire::ContractClaim { contract: vec![7; 32].into(), preimage: vec![7; n as usize].into() };
            let input = wire::Input { amount: 1, kind: Some(input::Kind::ContractClaim(claim)) };
            call(vec![input], vec![credit(1)], 0)
        })
        .at_least(1),
        Case::at_most(limit!(AMOUNT_MAX), TOP, BadAmount, |n| paid(&[n])).at_least(1),
        Case::at_most(limit!(AMOUNT_MAX), TOP, BadAmount, |n| paid(&[n - 1, 1])),
        Case::at_most(limit!(AMOUNT_MAX), TOP, BadAmount, |n| call(vec![], vec![credit(n)], 0)).at_least(1),
        Case::at_most(limit!(AMOUNT_MAX), TOP, BadAmount, |n| parse_amount(&n.to_string(), 0).map(drop)).at_least(1),
        Case::at_most(limit!(AMOUNT_MAX), TOP, BadConfig, |n| committee(|c| c.network.issuer_limit = n)),
        Case::at_most(limit!(ID_MAX), TOP, Int63, |n| body(|body| body.network_id = n)),
        Case::at_most(limit!(ID_MAX), TOP, Int63, |n| body(|body| body.actor = n)),
        Case::at_most(limit!(ID_MAX), TOP, Int63, |n| body(|body| body.cosignors = vec![1, n])),
        Case::at_most(limit!(ID_MAX), TOP, Int63, |n| call(vec![], vec![accept(n)], 0)).at_least(1),
        Case::at_most(limit!(ID_MAX), TOP, BadConfig, |n| committee(|c| c.network.id = n)).at_least(1),
        Case::at_most(limit!(DECIMALS_MAX), &[255], BadConfig, |n| committee(|c| c.network.decimals = n as u8)),
        Case::at_most(limit!(DECIMALS_MAX), &[255], BadAmount, |n| parse_amount("1", n as u8).map(drop)),
        Case::at_most(limit!(COMMITTEE_MAX), &[64 * 128], BadConfig, |n| committee(|c| c.authorities = n)).at_least(4),
        Case::at_most(("COMMITTEE_MIN", 128), &[], BadConfig, |n| committee(|c| c.authorities = n))
            .at_least(limit!(COMMITTEE_MIN).1),
        Case::at_most(limit!(SHARDS_MAX), &[64 * 1_024, u32::MAX as u64], BadConfig, |n| {
            committee(|c| c.shards = n as u32)
        })
        .at_least(1),
    ]
}

/// Junk: the batch is taken, each of its orders is refused.
fn batch_of_orders(n: u64) -> Result<()> {
    let (mut cluster, _) = funded(1);
    match judged(cluster.node(0, 0), &vec![Bytes::from_static(b"x"); n as usize]) {
        Err(e) if e.code == Code::Decode => Ok(()),
        other => other,
    }
}

/// As certificates, receipts and the settled stream name it.
fn count_of_a_batch(n: u64) -> Result<()> {
    batch_id(&[7; 32], n as u32).map(drop)
}

fn batch_of_bytes(n: u64) -> Result<()> {
    let (mut cluster, _) = funded(1);
    let part = Bytes::from(vec![0xff; n.div_ceil(4_096) as usize]);
    let mut orders = vec![part.clone(); (n / part.len() as u64) as usize];
    orders.extend(Some(part.slice(..n as usize % part.len())).filter(|rest| !rest.is_empty()));
    match judged(cluster.node(0, 0), &orders) {
        Err(e) if e.code == Code::Decode => Ok(()),
        other => other,
    }
}

/// A body of another form is looked at only if it is not too long. None of the right form is as long as this limit.
fn body_of_bytes(n: u64) -> Result<()> {
    let (mut cluster, _) = funded(1);
    let order = encode_envelope(&vec![0xff; n as usize], &[Authority::default()]);
    match judged(cluster.node(0, 0), &[order]) {
        Err(e) if e.code == Code::Decode => Ok(()),
        other => other,
    }
}

fn content_of_bytes(n: u64) -> Result<()> {
    let (mut cluster, alice) = funded(1);
    let order = alice.sign(&alice.next_body(1, vec![0xff; n as usize].into()));
    match judged(cluster.node(0, 0), &[order]) {
        Err(e) if e.code == Code::BadContent => Ok(()),
        other => other,
    }
}

fn body(change: impl FnOnce(&mut Body)) -> Result<()> {
    let mut body = Body { network_id: 1, actor: 1, seqnum: 1, transaction_type: 1, ..Body::default() };
    change(&mut body);
    Order::decode(encode_envelope(&encode_body(&body), &[Authority::default()])).map(drop)
}

fn cosignors(n: u64) -> Result<()> {
    body(|body| body.cosignors = (2..2 + n).collect())
}

fn envelope(authorities: u64, sigs: u64, bytes: u64) -> Result<()> {
    let sigs = vec![Bytes::from(vec![7; bytes as usize]); sigs as usize];
    let authorities = vec![Authority { key_type: 0, sigs }; authorities as usize];
    let body = encode_body(&Body { network_id: 1, actor: 1, ..Body::default() });
    Order::decode(encode_envelope(&body, &authorities)).map(drop)
}

fn keys(n: u64) -> Permission {
    let keys = (1..=n).map(|i| (secret(Curve::Ed25519, i).public(), 1)).collect();
    Permission { threshold: 1, keys, actor: 0 }
}

fn permission(n: u64) -> Bytes {
    keys(n).encode()
}

/// The first order of an account with so many keys, which has money.
fn opening_with_keys(n: u64) -> Result<()> {
    let mut alice = Signer::with(keys(n), vec![secret(Curve::Ed25519, 1)]);
    let (mut cluster, _) = funded(1);
    cluster.fund(alice.address, 100);
    let order = alice.pay(&[self_pay()], "");
    judged(cluster.node(0, 0), &[order])
}

fn self_pay() -> florin_core::content::Credit {
    to(Signer::new(1).address, 1)
}

/// Payments of these amounts, by somebody who can't pay them all.
fn paid(amounts: &[u64]) -> Result<()> {
    let outputs: Vec<_> = amounts.iter().map(|amount| to(Signer::new(1).address, *amount)).collect();
    match judged_one(|alice| alice.pay(&outputs, "")) {
        Err(e) if e.code == Code::InsufficientFunds => Ok(()),
        other => other,
    }
}

fn credit(amount: u64) -> output::Kind {
    let address = Bytes::copy_from_slice(Signer::new(1).address.as_bytes());
    output::Kind::ContractFund(wire::ContractFund {
        amount,
        hash: address.clone(),
        expiry_ms: 1,
        receiver: address.clone(),
        sender: address,
    })
}

/// A small command for a network.
fn accept(network_id: u64) -> output::Kind {
    let kind = Some(network_command::Kind::Accept(wire::NetworkAccept {}));
    output::Kind::Network(wire::NetworkCommand { network_id, kind })
}

/// A CALL of an account that is open.
pub fn call(inputs: Vec<wire::Input>, outputs: Vec<output::Kind>, memo: u64) -> Result<()> {
    let (mut cluster, mut alice) = funded(100_000);
    let open = alice.pay(&[self_pay()], "");
    cluster.run(&[open]);
    let call = wire::Call {
        account: Bytes::copy_from_slice(alice.address.as_bytes()),
        inputs,
        outputs: outputs.into_iter().map(|kind| wire::Output { kind: Some(kind) }).collect(),
        memo: text(memo),
        ..Default::default()
    };
    let order = alice.order(TYPE_CALL, encode_call(&call));
    match judged(cluster.node(0, 0), &[order]) {
        Err(e) if e.code == Code::InsufficientFunds => Ok(()),
        other => other,
    }
}

/// Inputs of a kind that nobody knows: such a one is looked at only if there are not too many. 256 of the kinds there
/// are do not fit into a CALL.
fn inputs(n: u64) -> Result<()> {
    match call(vec![wire::Input { amount: 1, kind: None }; n as usize], vec![], 0) {
        Err(e) if e.code == Code::BadContent => Ok(()),
        other => other,
    }
}

fn call_of_bytes(n: u64) -> Result<()> {
    let metadata = |bytes: usize| {
        let metadata = wire::NetworkMetadata { metadata: vec![7; bytes].into() };
        let kind = Some(network_command::Kind::Metadata(metadata));
        output::Kind::Network(wire::NetworkCommand { network_id: 9, kind })
    };
    let content = |outputs: &[output::Kind], memo: usize| {
        let call = wire::Call {
            account: Bytes::copy_from_slice(Signer::new(1).address.as_bytes()),
            outputs: outputs.iter().map(|kind| wire::Output { kind: Some(kind.clone()) }).collect(),
            memo: text(memo as u64),
            ..Default::default()
        };
        encode_call(&call).len()
    };
    let mut outputs = Vec::new();
    let n = n as usize;
    while content(&outputs, 200) + 1_000 < n {
        outputs.push(metadata(900));
    }
    let rest = (0..1_000).find(|bytes| content(&[&outputs[..], &[metadata(*bytes)]].concat(), 200) == n);
    outputs.push(metadata(rest.ok_or_else(|| Error::new(Code::Usage, "no such length"))?));
    call(vec![], outputs, 200)
}

struct Parts {
    authorities: u64,
    shards: u32,
    network: Network,
}

fn committee(change: impl FnOnce(&mut Parts)) -> Result<()> {
    let network = Network {
        id: NETWORK_ID,
        currency: "flr".into(),
        decimals: 2,
        issuer: TestCommittee::issuer().permission.encode(),
        issuer_limit: 1_000,
        genesis_hash: [7; 32],
    };
    let mut parts = Parts { authorities: 4, shards: 1, network };
    change(&mut parts);
    // Whether there are too many shards is looked at before their addresses.
    let addresses = vec!["127.0.0.1:7000".to_owned(); parts.shards.min(1_025) as usize];
    let authority = |i| AuthorityInfo {
        name: format!("authority-{i}"),
        key: Arc::new(AuthorityKey::from_seed(seed("authority", i))).public(),
        addresses: addresses.clone(),
    };
    Committee::new(1, parts.shards, parts.network, (0..parts.authorities).map(authority).collect()).map(drop)
}
