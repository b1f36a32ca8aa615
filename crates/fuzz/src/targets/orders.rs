//! Orders: envelopes, bodies, contents, batches.

use bytes::Bytes;
use florin_core::batch::{decode_batch, leaf_id};
use florin_core::bearer::{self, Bearer};
use florin_core::content::{Action, Content, decode_rotate, encode_call, encode_recover, encode_rotate};
use florin_core::content::{TYPE_BEARER, TYPE_RECOVER_NOTES, encode_set_permission, encode_withdraw};
use florin_core::envelope::{Body, Order, encode_body, encode_envelope};
use florin_core::limits::{
    AMOUNT_MAX, AUTHORITIES_MAX, BODY_BYTES_MAX, CONTENT_BYTES_MAX, COSIGNORS_MAX, ID_MAX, MESSAGE_BYTES_MAX,
    ORDERS_PER_BATCH_MAX, SIG_BYTES_MAX, SIGS_PER_AUTHORITY_MAX,
};
use florin_core::permission::Permission;
use florin_core::verdict::{check_chain, check_place};
use florin_core::wire::{self, output::Kind};
use florin_core::{Code, pbtx, testing};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::cursor::Cursor;

/// The code that a decoder must answer by the general rules: decode, limits, encode again, compare.
fn verdict(bytes: &[u8]) -> Option<Code> {
    let Ok(envelope) = pbtx::Transaction::decode(bytes) else { return Some(Code::Decode) };
    let authorities = &envelope.authorities;
    let over = envelope.body.len() > BODY_BYTES_MAX
        || authorities.len() > AUTHORITIES_MAX
        || authorities.iter().any(|a| a.sigs.len() > SIGS_PER_AUTHORITY_MAX)
        || authorities.iter().flat_map(|a| &a.sigs).any(|s| s.len() > SIG_BYTES_MAX);
    match () {
        () if over => Some(Code::Limit),
        () if envelope.body.is_empty() => Some(Code::EmptyBody),
        () if envelope.encode_to_vec() != bytes => Some(Code::NonCanonical),
        () => body_verdict(&envelope.body),
    }
}

fn body_verdict(bytes: &[u8]) -> Option<Code> {
    let Ok(body) = pbtx::TransactionBody::decode(bytes) else { return Some(Code::Decode) };
    let ids = [body.network_id, body.actor];
    match () {
        () if body.cosignors.len() > COSIGNORS_MAX => Some(Code::Limit),
        () if body.transaction_content.len() > CONTENT_BYTES_MAX => Some(Code::Limit),
        () if body.encode_to_vec() != bytes => Some(Code::NonCanonical),
        () if ids.iter().chain(&body.cosignors).any(|id| *id > ID_MAX) => Some(Code::Int63),
        () => None,
    }
}

fn body_of(order: &Order) -> Body {
    Body {
        network_id: order.network_id,
        actor: order.actor,
        cosignors: order.cosignors.clone(),
        seqnum: order.seqnum,
        prev_hash: order.prev_hash,
        transaction_type: order.transaction_type,
        content: order.content.clone(),
    }
}

/// The decoder of envelopes takes exactly what the general one does, and gives the same bytes again.
pub fn envelope(bytes: &[u8]) {
    let raw = Bytes::copy_from_slice(bytes);
    let decoded = Order::decode(raw.clone());
    assert_eq!(decoded.as_ref().err().map(|e| e.code), verdict(bytes));
    let Ok(order) = decoded else { return };
    assert_eq!(order.raw, raw);
    assert_eq!(encode_envelope(&order.body, &order.authorities), raw);
    assert_eq!(encode_body(&body_of(&order)), order.body);
    assert_eq!(order.id[..], Sha256::digest(&order.body)[..]);
    let bare = Order { raw: Bytes::new(), authorities: Vec::new(), ..order.clone() };
    assert_eq!(Order::decode_body(order.body.clone()), Ok(bare), "a body alone is the same");
    assert!(bearer::check_frame(&order).is_err() || bearer::may_be(bytes), "a bearer order that nobody would look at");
    let counts = order.authorities.len() == 1 + order.cosignors.len();
    assert!(order.screen_counts().is_err() || counts);
}

/// The same for a body alone.
pub fn order_body(bytes: &[u8]) {
    let raw = Bytes::copy_from_slice(bytes);
    let decoded = Order::decode_body(raw.clone());
    assert_eq!(decoded.as_ref().err().map(|e| e.code), body_verdict(bytes));
    if let Ok(order) = decoded {
        assert_eq!(encode_body(&body_of(&order)), raw);
    }
}

/// What outputs take, by their fields alone.
fn worth(kind: Option<&Kind>) -> u128 {
    match kind {
        Some(Kind::Credit(credit)) => credit.amount.into(),
        Some(Kind::ContractFund(fund)) => fund.amount.into(),
        Some(Kind::PrimaryRedeem(redeem)) => redeem.amount.into(),
        Some(Kind::Note(note)) => 1 << note.tier,
        Some(Kind::ChannelOpen(open)) => open.amount.into(),
        Some(Kind::ChannelDeposit(deposit)) => deposit.amount.into(),
        _ => 0,
    }
}

fn all_worth(outputs: &[wire::Output]) -> u128 {
    outputs.iter().map(|output| worth(output.kind.as_ref())).sum()
}

fn check_content(order: &Order) {
    let Ok(content) = Content::decode(order) else { return };
    assert!(content.total <= AMOUNT_MAX);
    assert_eq!(content.open.is_some(), order.seqnum == 1 && !matches!(order.transaction_type, 5 | 6));
    let open = content.open.clone();
    let (again, total) = match &content.action {
        Action::Pay { outputs, memo } => {
            let notes: Vec<wire::NoteRequest> =
                content.notes.iter().map(|n| wire::NoteRequest { tier: n.tier, blinded: n.blinded.clone() }).collect();
            let total = outputs.iter().map(|o| u128::from(o.amount)).sum::<u128>()
                + content.notes.iter().map(|n| u128::from(n.worth())).sum::<u128>();
            assert!(outputs.iter().all(|o| o.amount > 0));
            (encode_withdraw(outputs, &notes, memo, open), total)
        }
        Action::SetPermission(permission) => (encode_set_permission(permission.clone(), open), 0),
        Action::Call { call, .. } => {
            let inputs: u128 = call.inputs.iter().map(|i| u128::from(i.amount)).sum();
            let outputs = all_worth(&call.outputs);
            assert!(inputs <= outputs, "an order that brings its account money by itself");
            (encode_call(call), outputs - inputs)
        }
        Action::Recover { account } => (encode_recover(account, open), 0),
        Action::Bearer(of) | Action::RecoverNotes(of) => {
            let message = wire::Bearer::decode(order.content.clone()).expect("it was decoded before");
            check_bearer(&message, of, order.transaction_type == TYPE_RECOVER_NOTES);
            (message.encode_to_vec().into(), of.notes.iter().map(|n| 1 << n.tier).sum())
        }
    };
    assert_eq!(again, order.content, "one content has one encoding");
    assert_eq!(u128::from(content.total), total);
}

fn check_bearer(message: &wire::Bearer, bearer: &Bearer, recovers: bool) {
    let spent: u128 = message.notes.iter().map(|n| 1 << n.tier).sum();
    assert_eq!(u128::from(bearer.value), spent);
    if !recovers {
        assert_eq!(all_worth(&message.outputs), spent, "notes are worth what they are spent for");
    }
    let mut nonces: Vec<_> = bearer.notes.iter().map(|n| n.nonce.0).collect();
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), message.notes.len(), "a note is spent once");
    let (first, shared) = bearer.call();
    assert_eq!(first + shared.len(), message.outputs.len());
}

/// Contents of bodies.
pub fn content(bytes: &[u8]) {
    if let Ok(order) = Order::decode_body(Bytes::copy_from_slice(bytes)) {
        check_content(&order);
    }
}

/// Contents of any type: the first bytes say which, and whether it is the first order of its account.
pub fn content_of_type(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let transaction_type = 1 + cursor.below(7) as u32;
    let seqnum = 1 + cursor.below(2) as u32;
    let content = Bytes::copy_from_slice(cursor.rest());
    let open = match transaction_type {
        1 => wire::Pay::decode(content.clone()).map(|c| c.open),
        2 => wire::SetPermission::decode(content.clone()).map(|c| c.open),
        3 => wire::Call::decode(content.clone()).map(|c| c.open),
        _ => wire::Recover::decode(content.clone()).map(|c| c.open),
    };
    let actor = Permission::address_of(testing::NETWORK_ID, &open.unwrap_or_default()).actor();
    let body = Body { network_id: testing::NETWORK_ID, actor, seqnum, transaction_type, content, ..Body::default() };
    if let Ok(order) = Order::decode_body(encode_body(&body)) {
        check_content(&order);
    }
}

/// Changes of an actor's keys.
pub fn rotate(bytes: &[u8]) {
    let content = Bytes::copy_from_slice(bytes);
    let rotate = wire::Rotate::decode(content.clone()).unwrap_or_default();
    let actor = Permission::decode(&rotate.permission).map_or(1, |p| p.actor);
    let body = Body { network_id: 5, actor, seqnum: 1, transaction_type: 1, content, ..Body::default() };
    let Ok(order) = Order::decode_body(encode_body(&body)) else { return };
    if let Ok(rotate) = decode_rotate(&order) {
        assert_eq!(encode_rotate(rotate.permission.clone(), rotate.generation), order.content);
        let permission = Permission::decode_actor(&rotate.permission).expect("it was decoded before");
        assert_eq!((permission.actor, permission.encode()), (order.actor, rotate.permission));
    }
    let other = Order { actor: order.actor ^ 1, ..order };
    assert!(decode_rotate(&other).is_err(), "another actor's keys");
}

/// Bearer orders: the frame, the content and the places of the signatures.
pub fn bearer(bytes: &[u8]) {
    let Ok(order) = Order::decode(Bytes::copy_from_slice(bytes)) else { return };
    if !matches!(order.transaction_type, TYPE_BEARER | TYPE_RECOVER_NOTES) {
        return;
    }
    let Ok(Content { action: Action::Bearer(bearer) | Action::RecoverNotes(bearer), .. }) = Content::decode(&order)
    else {
        return;
    };
    if let Ok(signatures) = bearer::signatures(&order, &bearer) {
        assert_eq!(signatures.len(), bearer.notes.len());
        let placed: Vec<&[u8]> = order.authorities.iter().flat_map(|a| &a.sigs).map(|s| &s[..]).collect();
        assert!(signatures.iter().zip(placed).all(|(found, sent)| found[..] == *sent), "signatures keep their places");
        assert_eq!((order.actor, order.seqnum, order.prev_hash), (0, 0, 0));
    }
}

/// Batches: orders after their lengths. Every order has its place, and its id whether it decodes or not.
pub fn batch(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut raw = Vec::new();
    while !cursor.is_empty() {
        raw.push(cursor.long());
    }
    let Ok(batch) = decode_batch(&raw) else {
        let fits = (1..=ORDERS_PER_BATCH_MAX).contains(&raw.len()) && bytes.len() <= MESSAGE_BYTES_MAX;
        assert!(!fits, "{} orders of {} bytes", raw.len(), bytes.len());
        return;
    };
    assert_eq!((batch.id.count, batch.orders.len()), (raw.len(), raw.len()));
    let ids: Vec<_> = raw.iter().zip(&batch.orders).map(|(raw, order)| leaf_id(raw, order)).collect();
    assert_eq!(florin_core::merkle::Tree::new(&ids).root(), batch.id.root);
    for (i, (bytes, order)) in raw.iter().zip(&batch.orders).enumerate() {
        assert_eq!(order.is_ok(), verdict(bytes).is_none(), "order {i}");
    }
}

/// What an authority finds wrong with a transaction of a network, in PBTX's order of checks, is the same whatever its rest is.
pub fn pbtx_verdict(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let (flags, seqnum, prev_hash) = (u32::from(cursor.byte()), cursor.byte().into(), cursor.number());
    let Ok(order) = Order::decode(Bytes::copy_from_slice(cursor.rest())) else { return };
    assert_eq!(check_place(order.network_id, true, &order), order.screen_counts(), "its own network, a known actor");
    assert!(check_place(order.network_id ^ 1, true, &order).is_err());
    if let Ok((next, hash)) = check_chain(flags, seqnum, prev_hash, &order) {
        let skips = flags & florin_core::network_flags::SKIP_SEQ_AND_PREVHASH != 0;
        assert!(skips || (order.seqnum == seqnum + 1 && order.prev_hash == prev_hash));
        assert!(skips || (next, hash) == (order.seqnum, order.next_hash()));
    }
    let key = testing::secret(florin_core::keys::Curve::K1, 1);
    let permission = Permission { actor: order.actor, ..Permission::single(key.public()) };
    let signed = florin_core::verdict::check_authorities(&order, |_| Ok(Some(permission.clone())));
    if signed.is_ok() && order.screen_counts().is_ok() {
        let own = key.sign_body(&order.body);
        let mut firsts = order.authorities.iter().map(|a| &a.sigs[0]);
        assert!(firsts.all(|sig| sig[..] == own.as_bytes()[..]), "a signature that the key never made");
    }
}
