//! What people type, paste and edit.

use std::sync::LazyLock;

use bytes::Bytes;
use florin_client::cash::text::{self, Frames, Kind};
use florin_client::channel::text as channel;
use florin_client::pbtx::read_envelopes;
use florin_client::seed::Seed;
use florin_core::address::{Address, hrp_of};
use florin_core::amount::{format_amount, parse_amount};
use florin_core::committee::Committee;
use florin_core::limits::{AMOUNT_MAX, DECIMALS_MAX};
use florin_core::testing::TestCommittee;
use florin_node::config::AuthorityFile;
use prost::Message;

use crate::cursor::Cursor;

static COMMITTEE: LazyLock<std::sync::Arc<Committee>> = LazyLock::new(|| TestCommittee::default().build().0);

/// Addresses: one text in each case.
pub fn address_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(address) = Address::from_text(text, "flr") {
        assert_eq!(address.to_text("flr"), text.to_lowercase());
        assert_eq!(hrp_of(text).as_deref(), Ok("flr"));
        assert!(Address::from_text(text, "eur").is_err());
    }
}

/// Amounts: what is read is what was written, digit by digit.
pub fn amount_text(bytes: &[u8]) {
    let Some((decimals, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(minor) = parse_amount(text, *decimals) else { return };
    assert!((1..=AMOUNT_MAX).contains(&minor) && *decimals <= DECIMALS_MAX);
    let shown = format_amount(minor.into(), *decimals);
    assert_eq!(parse_amount(&shown, *decimals), Ok(minor));
    let plain = |text: &str| {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        (whole.trim_start_matches('0').to_owned(), fraction.trim_end_matches('0').to_owned())
    };
    assert_eq!(plain(text), plain(&shown));
}

/// Committee files: what is read says the same when it is written.
pub fn committee_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(committee) = Committee::from_toml(text) {
        let again = Committee::from_toml(&committee.to_toml());
        assert_eq!(again.as_ref(), Ok(&committee));
        assert!((4..=128).contains(&committee.size()) && committee.quorum() * 3 > committee.size() * 2);
    }
}

fn squeezed(text: &str) -> String {
    text.split_ascii_whitespace().collect::<String>().to_ascii_lowercase()
}

/// Notes and keys as text, raw or with a true checksum over any bytes.
pub fn cash_text(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let text = match how % 3 {
        0 => match std::str::from_utf8(rest) {
            Ok(text) => text.to_owned(),
            Err(_) => return,
        },
        1 => text::encode(Kind::Notes, "flr", rest),
        _ => text::encode(Kind::Key, "flr", rest),
    };
    if let Ok(notes) = text::decode_notes(&text, &COMMITTEE) {
        assert_eq!(text::encode_notes(&notes, &COMMITTEE), squeezed(&text), "notes have one text");
        assert!(notes.notes.iter().all(|note| note.tier < 32));
    }
    if let Ok(key) = text::decode_key(&text, &COMMITTEE) {
        assert_eq!(text::encode_key(&key, &COMMITTEE), squeezed(&text));
    }
}

/// Vouchers, permits and invoices as text, raw or with a true checksum over any bytes.
pub fn channel_text(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let text = match how % 4 {
        0 => match std::str::from_utf8(rest) {
            Ok(text) => text.to_owned(),
            Err(_) => return,
        },
        1 => text::encode(Kind::Voucher, "flr", rest),
        2 => text::encode(Kind::Permit, "flr", rest),
        _ => text::encode(Kind::Invoice, "flr", rest),
    };
    if let Ok((voucher, secret)) = channel::decode_voucher(&text, &COMMITTEE) {
        assert_eq!(channel::encode_voucher(&voucher, &secret, &COMMITTEE), squeezed(&text));
    }
    if let Ok(permit) = channel::decode_permit(&text, &COMMITTEE) {
        assert_eq!(channel::encode_permit(&permit, &COMMITTEE), squeezed(&text), "a permit has one text");
    }
    if let Ok((invoice, read, hub)) = channel::decode_invoice(&text, &COMMITTEE) {
        assert_eq!(channel::encode_invoice(&invoice, &hub, &COMMITTEE), squeezed(&text));
        assert_eq!(invoice, Bytes::from(read.encode_to_vec()));
    }
}

/// Texts cut into frames for QR codes, in any order and with strangers between them.
pub fn qr_frames(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let (chars, turns) = (1 + cursor.below(32), cursor.short());
    // As texts of notes are.
    let _ = Frames::default().take(&String::from_utf8_lossy(bytes));
    let letters = cursor.rest().iter().filter(|b| b.is_ascii_alphanumeric());
    let text: String = letters.map(|b| char::from(*b).to_ascii_uppercase()).collect();
    let frames = text::frames(&text, chars);
    if frames.len() < 2 || frames.len() > text::FRAMES_MAX {
        return;
    }
    let mut seen = Frames::default();
    for turn in turns {
        let frame = &frames[usize::from(*turn) % frames.len()];
        if let Some(whole) = seen.take(frame).expect("a frame of the text") {
            assert_eq!(whole, text);
        }
        let mut strange = frame.clone().into_bytes();
        let at = usize::from(*turn) % strange.len();
        strange[at] ^= 1;
        let _ = Frames::default().take(&String::from_utf8_lossy(&strange));
    }
    let mut all = frames.iter().filter_map(|frame| seen.take(frame).expect("a frame of the text"));
    assert_eq!(all.next_back().as_deref(), Some(&text[..]));
}

/// Seed words: the words that a seed shows are those that it is made of.
pub fn seed_words(bytes: &[u8]) {
    if let Ok(seed) = Seed::from_entropy(bytes) {
        let again = Seed::from_words(&seed.words()).expect("its own words");
        assert_eq!(again.entropy()[..], *bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(seed) = Seed::from_words(text) {
        let words: Vec<String> = text.to_lowercase().split_whitespace().map(str::to_owned).collect();
        assert_eq!(*seed.words(), words.join(" "));
    }
}

/// Files of envelopes: every line that counts is an order.
pub fn envelope_lines(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(orders) = read_envelopes(text) {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let shown: Vec<String> = lines.map(str::to_lowercase).collect();
        assert_eq!(orders.iter().map(|o| hex::encode(&o.raw)).collect::<Vec<_>>(), shown);
    }
}

/// Genesis files: each line is an address and an amount, and no money appears twice.
pub fn genesis_lines(bytes: &[u8]) {
    let network = &COMMITTEE.network;
    let mut counted = 0;
    for line in florin_node::genesis::parse(bytes, "genesis".into(), network) {
        let Ok((address, amount)) = line else { continue };
        assert!((1..=AMOUNT_MAX).contains(&amount));
        let shown = address.to_text(&network.currency);
        assert!(String::from_utf8_lossy(bytes).to_lowercase().contains(&shown), "an address from nowhere");
        counted += 1;
    }
    assert!(counted <= bytes.split(|b| *b == b'\n').count());
}

/// Authority files.
pub fn authority_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(file) = AuthorityFile::from_toml(text) {
        let again = AuthorityFile::from_toml(&file.to_toml()).expect("what was read can be written");
        assert_eq!((again.committee, again.data, again.genesis), (file.committee, file.data, file.genesis));
        assert_eq!((again.http, again.bind), (file.http, file.bind));
    }
    // Only what stands there: no environment, no other files.
    if !text.starts_with("env:") && !text.starts_with("file:") {
        let secret = florin_node::config::secret(text, std::path::Path::new("."));
        assert!(secret.is_err() || hex::decode(text.trim()).is_ok_and(|bytes| bytes.len() == 32));
    }
}
