//! What vouchers, invoices and requests to a channel manager may hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::channel::manager::{self, Create, EndId, Manager, Now, Signer as ChannelSigner};
use florin_core::channel::rules::{self, At};
use florin_core::channel::virtuals::{self, To};
use florin_core::channel::voucher::Voucher;
use florin_core::channel::{OPENER, OTHER, hub};
use florin_core::limits;
use florin_core::permission::Permission;
use florin_core::testing::{NETWORK_ID, Signer};
use florin_core::wire;
use florin_core::{Code, Error, Result};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{Bound, Case, limit, text};

pub fn cases() -> Vec<Case> {
    use Code::*;
    const TOP: &[u64] = &[u64::MAX];
    vec![
        Case::at_most(limit!(MERGES_MAX), &[64 * 16], Limit, |n| {
            form(|terms| terms.merges = vec![wire::LaneMerge::default(); n as usize])
        }),
        Case::at_most(limit!(VIRTUALS_MAX), &[64 * 256, u32::MAX as u64], Limit, |n| {
            form(|terms| terms.virtuals = Some(wire::VirtualSet { root: vec![7; 32].into(), count: n as u32 }))
        })
        .at_least(1),
        Case::at_most(limit!(SIGS_PER_AUTHORITY_MAX), &[64 * 16], Limit, signatures),
        Case::at_most(limit!(PREIMAGE_BYTES_MAX), &[64 * 64], VoucherSecretLong, |n| {
            let secret = vec![7; n as usize];
            redeemed(|terms| terms.secret_hash = Bytes::copy_from_slice(&Sha256::digest(&secret)), &secret)
        }),
        // The last lane has the number one less than how many there are.
        Case::at_most(limit!(LANES_MAX), &[64 * 1_024, u32::MAX as u64], VoucherLane, |n| {
            redeemed(|terms| terms.lane = n as u32 - 1, b"")
        }),
        Case::at_most(limit!(AMOUNT_MAX), TOP, VoucherAmount, |n| redeemed(|terms| terms.amount = n, b"")),
        Case::at_most(limit!(IDEMPOTENCY_BYTES_MAX), &[64 * 64], IdempotencyKey, |n| {
            created(|create| create.key = vec![7; n as usize].into())
        })
        .at_least(1),
        Case::at_most(limit!(IDEMPOTENCY_BYTES_MAX), &[64 * 64], IdempotencyKey, paid_with_key).at_least(1),
        Case::at_most(limit!(CHANNEL_DELAY_MAX_MS), TOP, BadContent, |n| created(|create| create.delay_ms = n))
            .at_least(limit!(CHANNEL_DELAY_MIN_MS).1),
        Case::at_most(limit!(AMOUNT_MAX), TOP, BadAmount, |n| created(|create| create.amount = n)),
        Case::at_most(limit!(MEMO_BYTES_MAX), &[64 * 256], Limit, |n| invoice(|invoice| invoice.memo = text(n))),
        Case::at_most(limit!(AMOUNT_MAX), TOP, BadAmount, |n| invoice(|invoice| invoice.amount = n)).at_least(1),
        Case::at_most(limit!(HUB_HOPS_MAX), &[64 * 16], HubRoute, route),
        Case::at_most(limit!(HUB_HOPS_MAX), &[64 * 16], HubRoute, virtual_route),
    ]
}

pub fn bounds() -> Vec<Bound> {
    vec![
        ("HUB_LOCKS_MAX", policies_are_the_limits),
        ("HUB_MARGIN_MS", policies_are_the_limits),
        ("HUB_GRACE_MS", policies_are_the_limits),
        ("HUB_FINAL_MS", policies_are_the_limits),
        ("VIRTUALS_PER_CHANNEL_MAX", policies_are_the_limits),
    ]
}

/// What a policy says unless it is told otherwise; that policies are kept is tested in `elsewhere`.
fn policies_are_the_limits() {
    let (hub, virtuals) = (hub::Policy::default(), virtuals::Policy::default());
    assert_eq!(hub.locks_max, limits::HUB_LOCKS_MAX);
    assert_eq!([hub.terms.margin_ms, virtuals.margin_ms], [limits::HUB_MARGIN_MS; 2]);
    assert_eq!([hub.grace_ms, virtuals.grace_ms], [limits::HUB_GRACE_MS; 2]);
    assert_eq!(hub.final_ms, limits::HUB_FINAL_MS);
    assert_eq!(virtuals.channels_max, limits::VIRTUALS_PER_CHANNEL_MAX);
}

const CHANNEL: [u8; 32] = [3; 32];

fn terms(change: impl FnOnce(&mut wire::Voucher)) -> Voucher {
    let mut terms = wire::Voucher { channel: CHANNEL.to_vec().into(), nonce: 1, amount: 10, ..Default::default() };
    change(&mut terms);
    Voucher::sign(terms, OPENER, &[&Signer::new(1).keys[0]])
}

fn form(change: impl FnOnce(&mut wire::Voucher)) -> Result<()> {
    Voucher::decode(&terms(change).signed()).map(drop)
}

fn signatures(n: u64) -> Result<()> {
    let signed = terms(|_| ()).signed();
    let signatures = vec![signed.signatures[0].clone(); n as usize];
    Voucher::decode(&wire::SignedVoucher { signatures, ..signed }).map(drop)
}

/// A voucher of a channel with as much as there can be, in the log.
fn redeemed(change: impl FnOnce(&mut wire::Voucher), secret: &[u8]) -> Result<()> {
    let side = |number, deposited| {
        let signer = Signer::new(number);
        let (address, permission) = (Bytes::copy_from_slice(signer.address.as_bytes()), signer.permission.encode());
        Some(wire::ChannelSide { address, permission, deposited, ..Default::default() })
    };
    let (opener, other) = (side(1, limits::AMOUNT_MAX), side(2, 0));
    let mut record = wire::ChannelRecord { opener, other, revision: 1, ..Default::default() };
    let before = record.clone();
    let at = At { channel: &CHANNEL, side: OTHER, now_ms: 1, verify: true };
    let result = rules::redeem(&mut record, &terms(change), secret, at).map(drop);
    assert_eq!(record == before, result.is_err());
    result
}

struct Nobody;

impl ChannelSigner for Nobody {
    fn voucher(&self, _: &Address, _: wire::Voucher, _: u32) -> Result<Voucher> {
        Err(Error::new(Code::NotAParty, "nobody signs"))
    }
    fn withdraw(&self, _: &Address, _: &wire::WithdrawPermit) -> Result<wire::SignedPermit> {
        Err(Error::new(Code::NotAParty, "nobody signs"))
    }
    fn watch(&self, _: &Address, _: &wire::WatchPermit) -> Result<wire::SignedPermit> {
        Err(Error::new(Code::NotAParty, "nobody signs"))
    }
}

fn manager() -> Manager {
    let alice = Signer::new(1);
    let accounts = BTreeMap::from([(alice.address, alice.permission.encode())]);
    Manager::new(manager::Config { committee_id: [7; 32], accounts, policy: manager::Policy::default() })
}

fn created(change: impl FnOnce(&mut Create)) -> Result<()> {
    let (alice, bob) = (Signer::new(1), Signer::new(2));
    let mut create = Create {
        key: Bytes::from_static(b"key"),
        from: alice.address,
        to: bob.address,
        to_permission: Bytes::new(),
        amount: 1,
        delay_ms: limits::CHANNEL_DELAY_MIN_MS,
        two_way: false,
    };
    change(&mut create);
    manager().handle(Now::default(), manager::Input::Create(create), &Nobody).map(drop)
}

fn hub_config() -> hub::Config {
    let channels = manager::Policy::default();
    hub::Config { network_id: NETWORK_ID, channels, policy: hub::Policy::default() }
}

const END: EndId = EndId { channel: CHANNEL, side: OPENER };

/// Nothing but the key is right.
fn paid_with_key(n: u64) -> Result<()> {
    let route = hub::Route { end: END, amount: 1, not_after_ms: 1, upfront: 0, hops: vec![] };
    let pay = hub::Pay { key: vec![7; n as usize].into(), invoice: Bytes::from_static(b"x"), route };
    let mut hub = hub::Hub::new(hub_config());
    match hub.handle(Now::default(), hub::Input::Pay(pay), &mut manager(), &Nobody) {
        Err(e) if e.code == Code::BadContent => Ok(()),
        other => other.map(drop),
    }
}

fn new_invoice() -> wire::HubInvoice {
    wire::HubInvoice {
        network_id: NETWORK_ID,
        payee: vec![7; 32].into(),
        channel: CHANNEL.to_vec().into(),
        amount: 1_000,
        secret_hash: vec![7; 32].into(),
        expires_ms: 1,
        memo: String::new(),
    }
}

fn invoice(change: impl FnOnce(&mut wire::HubInvoice)) -> Result<()> {
    let mut invoice = new_invoice();
    change(&mut invoice);
    hub::read_invoice(&invoice.encode_to_vec().into()).map(drop)
}

fn route(n: u64) -> Result<()> {
    let terms = hub_config().policy.terms;
    let hubs = vec![hub::Step { channel: CHANNEL, terms }; n as usize];
    hub::plan(&hub_config(), 1, &new_invoice(), END, &hubs).map(drop)
}

fn virtual_route(n: u64) -> Result<()> {
    let terms = wire::VirtualTerms { fee_base: 1, fee_ppm: 1, margin_ms: 1, cap_min: 1 };
    let steps = vec![virtuals::Step { to: To::Channel(CHANNEL), terms }; n as usize];
    let permission: Permission = Signer::new(1).permission;
    virtuals::plan([5; 32], END, permission.encode(), (100, 1_000), &steps).map(drop)
}
