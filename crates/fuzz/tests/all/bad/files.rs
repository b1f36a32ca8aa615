//! What people type, paste and edit, and what is on disk.

use bytes::Bytes;
use florin_client::cash::text::{self, Kind};
use florin_client::journal;
use florin_client::seed::Seed;
use florin_core::Code::{self, *};
use florin_core::address::Address;
use florin_core::eosio::{PrivateKey, public_to_legacy_text, public_to_text, signature_to_text};
use florin_core::keys::Curve;
use florin_core::testing::{NETWORK_ID, TestCommittee, secret, seed};
use florin_core::wire;
use prost::Message;

use super::Cases;
use super::proto::{break_message, number};
use crate::made::{golden, invoice, notes, signed_voucher, wallet_file, withdraw_permit};

/// All cases of this file.
pub fn add(cases: &mut Cases) {
    addresses(cases);
    keys(cases);
    note_texts(cases);
    channel_texts(cases);
    words(cases);
    committees(cases);
    authorities(cases);
    lists(cases);
    receipts_and_wallets(cases);
    disk(cases);
}

fn addresses(cases: &mut Cases) {
    let address = Address::new(std::array::from_fn(|i| i as u8));
    let good = address.to_text("flr");
    cases.whole("address", "flr", &good);
    let mut bad = |rule: &str, text: &str| cases.bad("address", BadAddress, rule, text);
    bad("empty", "");
    bad("without a separator", "flr");
    bad("nothing behind the separator", "flr1");
    bad("of another currency", &address.to_text("eur"));
    bad("in mixed case", &good.replacen('f', "F", 1));
    bad("with a letter that is in none", &good.replacen("1q", "1b", 1));
    bad("mistyped", &good.replacen("qqq", "qpq", 1));
    bad("cut", &good[..good.len() - 1]);
    bad("with a letter more", &format!("{good}q"));
    bad("with a space before it", &format!(" {good}"));
    bad("with two letters turned", &good.replacen("sy", "ys", 1));
    bad("in plain bech32", "flr1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0sxqjj3l");
    bad("of bitcoin", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4");
    for (rule, text) in [
        ("empty", ""),
        ("a digit first", "1flr"),
        ("with the separator", "fl1r"),
        ("of 17 letters", "abcdefghijklmnopq"),
        ("with a dash", "fl-r"),
        ("of another alphabet", "флр"),
    ] {
        cases.bad("currency", BadConfig, rule, text);
    }
    cases.whole("currency", "flr", "FLR");
    for text in ["12.50", "007", "92233720368547758.07"] {
        cases.whole("amount", text, text);
    }
    for (rule, text) in [
        ("empty", ""),
        ("a point alone", "."),
        ("nothing behind the point", "1."),
        ("nothing before the point", ".5"),
        ("two points", "1.2.3"),
        ("a comma", "1,5"),
        ("a thousands comma", "1,000"),
        ("an underscore", "1_000"),
        ("an exponent", "1e3"),
        ("a plus", "+1"),
        ("a space before", " 1"),
        ("a space behind", "1 "),
        ("hex", "0x1"),
        ("other digits", "١"),
        ("not a number", "NaN"),
        ("infinity", "inf"),
        ("zero", "0"),
        ("zero with decimals", "0.00"),
        ("below zero", "-5"),
        ("below zero behind the point", "1.-5"),
        ("three decimals", "1.234"),
        ("one too large", "92233720368547758.08"),
        ("2 to the 64", "184467440737095516.16"),
        (
            "a hundred digits",
            "9999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
        ),
    ] {
        cases.bad("amount", BadAmount, rule, text);
    }
}

fn keys(cases: &mut Cases) {
    for (name, curve) in [("K1", Curve::K1), ("R1", Curve::R1), ("ED", Curve::Ed25519)] {
        let public = public_to_text(&secret(curve, 5).public());
        let private = PrivateKey::new(curve, seed("fuzz", 1).into()).expect("a hash is a key").to_text().to_string();
        let signature = signature_to_text(&secret(curve, 5).sign_body(b"body"));
        let other = if name == "K1" { "R1" } else { "K1" };
        let all: [(&'static str, String); 3] =
            [("eosio-public", public.clone()), ("eosio-private", private.clone()), ("eosio-signature", signature)];
        for (of, good) in all {
            cases.whole(of, name, &good);
            let mut bad = |rule: &str, text: String| cases.bad(of, BadKey, format!("{name} {rule}"), text);
            bad("of another curve's letters", good.replacen(name, other, 1));
            bad("of a curve that nobody knows", good.replacen(name, "XX", 1));
            bad("cut", good[..good.len() - 1].to_owned());
            bad("with a letter more", format!("{good}1"));
            let last = if good.ends_with('a') { "b" } else { "a" };
            bad("mistyped", format!("{}{last}", &good[..good.len() - 1]));
            bad("with a letter that base58 has not", format!("{}0", &good[..good.len() - 1]));
            bad("without an underscore", good.replacen("_", "", 2));
            let wrong_kind = if of == "eosio-public" { &private } else { &public };
            bad("of another kind", wrong_kind.clone());
        }
    }
    for of in ["eosio-public", "eosio-private", "eosio-signature"] {
        cases.bad(of, BadKey, "empty", "");
    }
    let legacy = public_to_legacy_text(&secret(Curve::K1, 5).public()).expect("K1 has one");
    cases.whole("eosio-public", "legacy", &legacy);
    cases.bad("eosio-public", BadKey, "legacy cut", &legacy[..legacy.len() - 1]);
    cases.bad("eosio-public", BadKey, "legacy with a prefix alone", "EOS");
    let wif = PrivateKey::new(Curve::K1, seed("fuzz", 1).into())
        .expect("a hash is a key")
        .to_wif()
        .expect("K1 has one")
        .to_string();
    cases.whole("eosio-private", "wif", &wif);
    cases.bad("eosio-private", BadKey, "WIF cut", &wif[..50]);
    cases.bad(
        "eosio-private",
        BadKey,
        "WIF with two letters turned",
        format!("{}{}{}", &wif[..10], wif[10..12].chars().rev().collect::<String>(), &wif[12..]),
    );
    let authority = TestCommittee::default().build().0.authorities[0].key.to_string();
    cases.whole("authority-key", "of authority 0", &authority);
    for (rule, text) in [
        ("empty", String::new()),
        ("cut", authority[2..].to_owned()),
        ("with a byte more", format!("{authority}00")),
        ("with a letter that is no digit", format!("g{}", &authority[1..])),
        ("no point", format!("02{}", "00".repeat(31))),
    ] {
        cases.bad("authority-key", BadKey, rule, text);
    }
}

fn note_texts(cases: &mut Cases) {
    let good = notes();
    let encode = |notes: &wire::CashNotes| text::encode(Kind::Notes, "flr", &notes.encode_to_vec());
    let wrap = |b: &[u8]| text::encode(Kind::Notes, "flr", b).into_bytes();
    break_message(cases, ("note-text", "notes"), &good.encode_to_vec(), (Decode, NonCanonical), wrap);
    let mut bad = |code, rule: &str, change: &dyn Fn(&mut wire::CashNotes)| {
        let mut notes = good.clone();
        change(&mut notes);
        cases.bad("note-text", code, rule, encode(&notes));
    };
    bad(WrongCommittee, "of another committee", &|n| n.committee_id = Bytes::from(vec![1; 32]));
    bad(WrongCommittee, "of another network", &|n| n.network_id += 1);
    bad(Limit, "of no notes", &|n| n.notes.clear());
    bad(Limit, "of 257 notes", &|n| n.notes = vec![n.notes[0].clone(); 257]);
    bad(Limit, "with a memo of 257 bytes", &|n| n.memo = "m".repeat(257));
    bad(Decode, "of tier 32", &|n| n.notes[0].tier = 32);
    bad(Decode, "with a signature of 47 bytes", &|n| n.notes[0].signature = n.notes[0].signature.slice(1..));
    bad(Decode, "with a signature that is no point", &|n| n.notes[0].signature = Bytes::from(vec![0x9f; 48]));
    bad(Decode, "with the identity for a signature", &|n| {
        n.notes[1].signature = Bytes::from([&[0xc0][..], &[0; 47]].concat());
    });
    bad(Decode, "with a secret of 31 bytes", &|n| n.notes[0].secret = n.notes[0].secret.slice(1..));
    bad(Decode, "without a secret", &|n| n.notes[0].secret = Bytes::new());
    bad(Decode, "locked and with a secret", &|n| n.notes[1].secret = Bytes::from(vec![1; 32]));
    bad(Decode, "with a receiver of 31 bytes", &|n| {
        n.notes[1].lock.iter_mut().for_each(|l| l.receiver = l.receiver.slice(1..))
    });
    bad(Decode, "with a sender of 33 bytes", &|n| {
        n.notes[1].lock.iter_mut().for_each(|l| l.sender = Bytes::from(vec![1; 33]))
    });
    let text = encode(&good);
    let mut bad = |of: &'static str, rule: &str, text: String| cases.bad(of, Decode, rule, text);
    bad("note-text", "empty", String::new());
    bad("note-text", "a prefix alone", "flrcash1".into());
    bad("note-text", "cut", text[..text.len() - 1].to_owned());
    bad("note-text", "with a letter more", format!("{text}q"));
    bad("note-text", "in mixed case", text.replacen('f', "F", 1));
    bad("note-text", "mistyped", text.replacen("qq", "qp", 1));
    bad("note-text", "of another currency", text.replacen("flr", "eur", 1));
    bad("note-text", "that is a key", text::encode(Kind::Key, "flr", &[1; 40]));
    bad("note-text", "with a letter that is in none", format!("{}b", &text[..text.len() - 1]));
    let key = |network: u64, length: usize| [&network.to_be_bytes()[..], &vec![9; length]].concat();
    cases.whole("key-to-lock", "of this network", text::encode(Kind::Key, "flr", &key(NETWORK_ID, 32)));
    let mut bad = |code: Code, rule: &str, bytes: Vec<u8>| {
        cases.bad("key-to-lock", code, rule, text::encode(Kind::Key, "flr", &bytes));
    };
    bad(Decode, "of 31 bytes", key(NETWORK_ID, 31));
    bad(Decode, "of 33 bytes", key(NETWORK_ID, 33));
    bad(Decode, "of none", vec![]);
    bad(UnknownNetwork, "of another network", key(NETWORK_ID + 1, 32));
    cases.bad("key-to-lock", Decode, "that is a note", text);
    let frames = text::frames(&"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L".repeat(3), 40);
    cases.whole("qr-frames", "three", frames.join("\n"));
    let mut bad = |rule: &str, text: String| cases.bad("qr-frames", Decode, rule, text);
    bad("number 0", frames[0].replacen("/1/", "/0/", 1));
    bad("a number above the count", frames[0].replacen("/1/", "/4/", 1));
    bad("a count of one", frames[0].replacen("/3/", "/1/", 1));
    bad("a count of 1,000", frames[0].replacen("/3/", "/1000/", 1));
    bad("a number that is none", frames[0].replacen("/1/", "/x/", 1));
    bad("a part missing", "FLRCASH/1/3/ABCDEF01".into());
    bad("a part too many", format!("{}/Q", frames[0]));
    bad("a frame of another text", format!("{}\nFLRCASH/2/3/00000000/AAAA", frames[0]));
    bad("a frame of another count", format!("{}\n{}", frames[0], frames[1].replacen("/3/", "/4/", 1)));
    bad("a part that was changed", format!("{}\n{}\n{}Q", frames[0], frames[1], frames[2]));
}

fn channel_texts(cases: &mut Cases) {
    let given = wire::Redemption { voucher: Some(signed_voucher()), secret: Bytes::from_static(b"s"), watch: None };
    let wrap = |kind: Kind| move |b: &[u8]| text::encode(kind, "flr", b).into_bytes();
    break_message(
        cases,
        ("voucher-text", "voucher"),
        &given.encode_to_vec(),
        (Decode, NonCanonical),
        wrap(Kind::Voucher),
    );
    let none = wire::Redemption { voucher: None, ..given.clone() };
    cases.bad("voucher-text", Decode, "without a voucher", wrap(Kind::Voucher)(&none.encode_to_vec()));
    let watched = wire::Redemption { watch: Some(withdraw_permit()), ..given.clone() };
    cases.bad("voucher-text", NonCanonical, "with a permit to watch", wrap(Kind::Voucher)(&watched.encode_to_vec()));
    let cut = wire::SignedVoucher { voucher: signed_voucher().voucher.slice(1..), ..signed_voucher() };
    let cut = wire::Redemption { voucher: Some(cut), ..given.clone() };
    cases.bad("voucher-text", BadContent, "with terms that are cut", wrap(Kind::Voucher)(&cut.encode_to_vec()));
    cases.bad("voucher-text", Decode, "that is a permit", wrap(Kind::Permit)(&given.encode_to_vec()));
    let permit = withdraw_permit();
    break_message(
        cases,
        ("permit-text", "permit"),
        &permit.encode_to_vec(),
        (Decode, NonCanonical),
        wrap(Kind::Permit),
    );
    let side = wire::SignedPermit { permit: [&permit.permit[..], &number(2, 1)].concat().into(), ..permit };
    cases.bad("permit-text", NonCanonical, "with its side twice", wrap(Kind::Permit)(&side.encode_to_vec()));
    let of = wire::HubInvoiceText { invoice: invoice().encode_to_vec().into(), hub: "hub:7500".into() };
    break_message(cases, ("invoice-text", "invoice"), &of.encode_to_vec(), (Decode, NonCanonical), wrap(Kind::Invoice));
    let mut bad = |code, rule: &str, invoice: wire::HubInvoice| {
        let of = wire::HubInvoiceText { invoice: invoice.encode_to_vec().into(), ..of.clone() };
        cases.bad("invoice-text", code, rule, wrap(Kind::Invoice)(&of.encode_to_vec()));
    };
    bad(UnknownNetwork, "of another network", wire::HubInvoice { network_id: 5, ..invoice() });
    bad(BadAmount, "over 0", wire::HubInvoice { amount: 0, ..invoice() });
    bad(BadContent, "without a payee", wire::HubInvoice { payee: Bytes::new(), ..invoice() });
    bad(Limit, "with a memo of 257 bytes", wire::HubInvoice { memo: "m".repeat(257), ..invoice() });
}

fn words(cases: &mut Cases) {
    let good = Seed::from_entropy(&[1; 16]).expect("16 bytes").words().to_string();
    cases.whole("seed-words", "twelve", &good);
    let all: Vec<&str> = good.split(' ').collect();
    let mut bad = |rule: &str, text: String| cases.bad("seed-words", BadWords, rule, text);
    bad("none", String::new());
    bad("eleven", all[1..].join(" "));
    bad("thirteen", format!("{good} abandon"));
    bad("fifteen", format!("{good} {}", all[..3].join(" ")));
    bad("with a word that is in no list", good.replacen(all[3], "florin", 1));
    bad("with another word", good.replacen(all[11], if all[11] == "zoo" { "abandon" } else { "zoo" }, 1));
    bad("with commas", all.join(", "));
    bad("with a word in two", good.replacen(all[0], &format!("{} {}", &all[0][..2], &all[0][2..]), 1));
    bad("of another language", good.replacen(all[0], "ábaco", 1));
}

fn committees(cases: &mut Cases) {
    let good = TestCommittee::default().build().0.to_toml();
    cases.whole("committee-file", "four", &good);
    let line = |key: &str| {
        let found = good.lines().find(|line| line.split_once(" = ").is_some_and(|(k, _)| k == key));
        found.unwrap_or_else(|| panic!("{key} in\n{good}")).to_owned()
    };
    let mut bad = |rule: &str, text: String| cases.bad("committee-file", BadConfig, rule, text);
    bad("empty", String::new());
    bad("no TOML", format!("{good}\n[["));
    bad("an unknown key", format!("colour = 1\n{good}"));
    bad("a key twice", format!("{}\n{good}", line("version")));
    for key in [
        "version",
        "id",
        "epoch",
        "shards",
        "currency",
        "decimals",
        "issuer",
        "issuer_limit",
        "genesis_sha256",
        "name",
        "key",
        "addresses",
    ] {
        bad(&format!("without {key}"), good.replacen(&format!("{}\n", line(key)), "", 1));
        bad(&format!("{key} of another type"), good.replacen(&line(key), &format!("{key} = {{}}"), 1));
    }
    let mut with =
        |rule: &str, key: &str, value: &str| bad(rule, good.replacen(&line(key), &format!("{key} = {value}"), 1));
    with("version 2", "version", "2");
    with("another id", "id", &format!("\"{}\"", "00".repeat(32)));
    with("no shards", "shards", "0");
    with("1,025 shards", "shards", "1025");
    with("a second shard without addresses", "shards", "2");
    with("a currency of one letter", "currency", "\"f\"");
    with("a currency of 13 letters", "currency", "\"abcdefghijklm\"");
    with("a currency in upper case", "currency", "\"FLR\"");
    with("bitcoin's currency", "currency", "\"bc\"");
    with("19 decimals", "decimals", "19");
    with("an issuer that is no permission", "issuer", "\"0011\"");
    with("an issuer that is no hex", "issuer", "\"xx\"");
    with("an issuer's limit of 2^63", "issuer_limit", "\"9223372036854775808\"");
    with("an issuer's limit below zero", "issuer_limit", "\"-1\"");
    with("a genesis hash of 31 bytes", "genesis_sha256", &format!("\"{}\"", "00".repeat(31)));
    with("another genesis", "genesis_sha256", &format!("\"{}\"", "00".repeat(32)));
    with("a name twice", "name", "\"authority-1\"");
    with("a key that is no point", "key", &format!("\"02{}\"", "00".repeat(31)));
    with("two addresses for one shard", "addresses", "[\"a:1\", \"b:2\"]");
    with("an epoch below zero", "epoch", "-1");
    let network = good.replacen("id = \"77\"", "id = \"0\"", 1);
    bad("network 0", network);
    bad("a network with its top bit set", good.replacen("id = \"77\"", "id = \"9223372036854775808\"", 1));
    let three = good.rsplit_once("[[authority]]").expect("four of them").0.to_owned();
    bad("three authorities", three);
}

fn authorities(cases: &mut Cases) {
    let good = "committee = \"committee.toml\"\nkey = \"file:key\"\ndata = \"data\"\n";
    cases.whole("authority-file", "three keys", good);
    let mut bad = |rule: &str, text: String| cases.bad("authority-file", BadConfig, rule, text);
    bad("empty", String::new());
    bad("no TOML", format!("{good}="));
    bad("an unknown key", format!("{good}colour = \"red\"\n"));
    bad("a key twice", format!("{good}data = \"other\"\n"));
    for key in ["committee", "key", "data"] {
        let kept: Vec<&str> = good.lines().filter(|line| !line.starts_with(&format!("{key} "))).collect();
        bad(&format!("without {key}"), kept.join("\n"));
        bad(&format!("{key} as a number"), format!("{}\n{key} = 1\n", kept.join("\n")));
    }
    bad("http as a number", format!("{good}http = 9000\n"));
    bad("bind as a list", format!("{good}bind = [\"0.0.0.0\"]\n"));
    let digits = hex::encode([3; 32]);
    cases.whole("authority-secret", "hex", &digits);
    for (rule, text) in [
        ("empty", String::new()),
        ("of 31 bytes", digits[2..].to_owned()),
        ("of 33 bytes", format!("{digits}00")),
        ("with a letter that is no digit", format!("g{}", &digits[1..])),
        ("with spaces between", digits.replacen("03", "0 3", 1)),
        ("with a prefix", format!("0x{digits}")),
        ("of a variable that is not set", "env:FLORIN_NO_SUCH_VARIABLE".into()),
    ] {
        cases.bad("authority-secret", BadConfig, rule, text);
    }
    cases.bad("authority-secret", BadFile, "of a file that is not there", "file:no/such/file");
}

fn lists(cases: &mut Cases) {
    let address = Address::new([1; 32]).to_text("flr");
    cases.whole("genesis-file", "two lines", format!("# who\n{address} 12.50\n\n{address}\t1\n"));
    let mut bad = |rule: &str, line: String| cases.bad("genesis-file", BadFile, rule, format!("{address} 1\n{line}\n"));
    bad("a line without an amount", address.clone());
    bad("a line without an address", "12.50".into());
    bad("an address of another currency", format!("{} 1", Address::new([1; 32]).to_text("eur")));
    bad("an address that is mistyped", format!("{}q 1", address));
    bad("an amount of 0", format!("{address} 0"));
    bad("an amount with three decimals", format!("{address} 1.234"));
    bad("an amount that is too large", format!("{address} 92233720368547758.08"));
    bad("a comma", format!("{address},1"));
    bad("three columns", format!("{address} 1 2"));
    bad("amount first", format!("1 {address}"));
    cases.bad("genesis-file", BadFile, "no UTF-8", [address.as_bytes(), &[b' ', 0xff, b'\n']].concat());
    let envelope = golden("pay_envelope");
    let digits = hex::encode(&envelope);
    cases.whole("envelopes-file", "one", format!("# one\n{digits}\n"));
    let mut bad =
        |code, rule: &str, line: String| cases.bad("envelopes-file", code, rule, format!("{digits}\n{line}\n"));
    bad(BadFile, "an odd digit", digits[1..].to_owned());
    bad(BadFile, "a letter that is no digit", format!("x{}", &digits[1..]));
    bad(BadFile, "base64", "CjQJTQAAAAAAAAAR".into());
    bad(BadFile, "two on one line", format!("{digits} {digits}"));
    bad(Decode, "an envelope that is cut", digits[..digits.len() - 2].to_owned());
    bad(NonCanonical, "an envelope with an unknown field", format!("{digits}c03e01"));
    bad(EmptyBody, "an envelope without a body", "0a00".into());
}

fn receipts_and_wallets(cases: &mut Cases) {
    let receipt = hex::encode(golden("receipt"));
    let file = |version: &str, receipt: &str| format!(r#"{{"florin_receipt":{version},"receipt":"{receipt}"}}"#);
    cases.whole("receipt-file", "one", file("1", &receipt));
    let mut bad = |rule: &str, text: String| cases.bad("receipt-file", BadFile, rule, text);
    bad("empty", String::new());
    bad("no JSON", "receipt".into());
    bad("cut", file("1", &receipt)[..100].to_owned());
    bad("a list", "[]".into());
    bad("version 2", file("2", &receipt));
    bad("version 0", file("0", &receipt));
    bad("a version in words", file("\"one\"", &receipt));
    bad("without a version", format!(r#"{{"receipt":"{receipt}"}}"#));
    bad("without a receipt", r#"{"florin_receipt":1}"#.into());
    bad("an odd digit", file("1", &receipt[1..]));
    bad("a letter that is no digit", file("1", &format!("g{}", &receipt[1..])));
    bad("a receipt that is cut", file("1", &receipt[..receipt.len() - 2]));
    bad("a receipt as a number", r#"{"florin_receipt":1,"receipt":5}"#.into());
    bad("something behind it", format!("{} {{}}", file("1", &receipt)));
    let good = wallet_file();
    cases.whole("wallet-file", "one account", &good);
    let mut bad = |rule: &str, from: &str, to: &str| {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{rule}");
        cases.bad("wallet-file", BadFile, rule, text);
    };
    bad("version 2", "\"florin_wallet\":1", "\"florin_wallet\":2");
    bad("without a version", "\"florin_wallet\":1,", "");
    bad("an unknown key", "\"accounts\":1", "\"accounts\":1,\"colour\":1");
    bad("a network id with its top bit set", "\"77\"", "\"9223372036854775808\"");
    bad("a network id as a number", "\"77\"", "77");
    bad("a network id in words", "\"77\"", "\"seven\"");
    bad("no currency", "\"flr\"", "\"\"");
    bad("a currency with the separator", "\"flr\"", "\"fl1r\"");
    bad("19 decimals", "\"decimals\":2", "\"decimals\":19");
    bad("256 decimals", "\"decimals\":2", "\"decimals\":256");
    bad("a curve that nobody knows", "\"curve\":\"ed25519\"", "\"curve\":\"p521\"");
    bad("another curve than the keys", "\"curve\":\"ed25519\"", "\"curve\":\"k1\"");
    bad("no accounts", "\"accounts\":1", "\"accounts\":0");
    bad("more accounts than keys", "\"accounts\":1", "\"accounts\":2");
    bad("a key that is cut", "\"public_keys\":[\"10", "\"public_keys\":[\"");
    bad("a label of an account that is not there", "\"kdf\":", "\"labels\":{\"1\":\"x\"},\"kdf\":");
    bad("a label with a line feed", "\"kdf\":", "\"labels\":{\"0\":\"a\\nb\"},\"kdf\":");
    bad("a label of 65 letters", "\"kdf\":", &format!("\"labels\":{{\"0\":\"{}\"}},\"kdf\":", "x".repeat(65)));
    bad("another key derivation", "argon2id", "scrypt");
    bad("another cipher", "chacha20poly1305", "aes-256-gcm");
    bad("a key derivation that takes all memory", "\"memory_kib\":65536", "\"memory_kib\":4000000000");
    bad("a key derivation that takes for ever", "\"passes\":3", "\"passes\":65");
    bad("a key derivation in 65 lanes", "\"lanes\":4", "\"lanes\":65");
    bad("a salt of 15 bytes", "\"salt\":\"00", "\"salt\":\"");
    bad("a nonce of 13 bytes", "\"nonce\":\"11", "\"nonce\":\"1111");
    bad("a secret that is no hex", "\"0011\"", "\"001\"");
    cases.bad("wallet-file", BadFile, "empty", "");
    cases.bad("wallet-file", BadFile, "cut", &good[..good.len() - 1]);
}

fn disk(cases: &mut Cases) {
    let good = journal::write(&["one", "two", "three"]).expect("texts are JSON");
    cases.whole("journal-file", "three lines", &good);
    let text = String::from_utf8(good).expect("JSON");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut bad = |rule: &str, text: String| cases.bad("journal-file", BadFile, rule, text);
    bad("a record changed", text.replacen("one", "ome", 1));
    bad("a record of the last line changed", text.replacen("three", "threa", 1));
    bad("a line removed", [lines[0], lines[2]].concat());
    bad("two lines turned", [lines[1], lines[0], lines[2]].concat());
    bad("a line twice", [lines[0], lines[0], lines[1]].concat());
    bad("an empty line between", [lines[0], "\n", lines[1]].concat());
    bad("a line cut in the middle", [&lines[0][..20], "\n", lines[1]].concat());
    bad("a checksum changed", text.replacen("{\"sum\":\"", "{\"sum\":\"0", 1));
    bad("another program's line", format!("{{\"kind\":\"note\"}}\n{text}"));
    let other = journal::write(&[1, 2]).expect("numbers are JSON");
    cases.bad("journal-file", BadFile, "records of another kind", other);
    let record = wire::AccountRecord::decode(&golden("record_account")[..]).expect("a golden record");
    cases.whole("account-record", "golden", record.encode_to_vec());
    let mut bad = |rule: &str, change: &dyn Fn(&mut wire::AccountRecord)| {
        let mut record = record.clone();
        change(&mut record);
        cases.bad("account-record", StorageCorrupt, rule, record.encode_to_vec());
    };
    bad("an address of 31 bytes", &|r| r.address = r.address.slice(1..));
    bad("a holding's address of 33 bytes", &|r| r.holdings[0].address = Bytes::from(vec![1; 33]));
    bad("a holding without an address", &|r| r.holdings[1].address = Bytes::new());
    bad("a balance of 15 bytes", &|r| r.holdings[0].balance = Bytes::from(vec![1; 15]));
    bad("a balance of 17 bytes", &|r| r.holdings[0].balance = Bytes::from(vec![1; 17]));
    managers(cases);
}

/// Journals of channel managers that no manager has written.
fn managers(cases: &mut Cases) {
    use wire::manager_record::Kind as M;
    let hash = || Bytes::from(vec![6; 32]);
    let mut bad = |rule: &str, kind: Option<M>| {
        let record = wire::ManagerRecord { kind }.encode_to_vec();
        cases.bad("manager-journal", StorageCorrupt, rule, record);
    };
    bad("a record of nothing", None);
    bad("an intent of nothing", Some(M::Intent(wire::ManagerIntent::default())));
    bad("an operation without its intent", Some(M::Op(wire::ManagerOp::default())));
    bad("an end without its channel", Some(M::End(wire::ManagerEnd { channel: hash(), ..Default::default() })));
    bad(
        "an end with a channel of 31 bytes",
        Some(M::End(wire::ManagerEnd { channel: hash().slice(1..), ..Default::default() })),
    );
    bad("a lane of a channel of no bytes", Some(M::Lane(wire::ManagerLane::default())));
}
