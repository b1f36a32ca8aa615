//! What PBTX's users type: verdicts over cases, keys, permissions, signatures, chains that are signed offline.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use florin_core::envelope::{Authority, Body, Order, encode_body, encode_envelope};
use florin_core::eosio::{PrivateKey, public_to_text};
use florin_core::keys::{Curve, SecretKey};
use florin_core::permission::Permission;
use florin_core::testing::secret;
use prost::Message;
use serde_json::{Value, json};

const K1: &str = "5KgBKkXDZf6u4RrRwQARZMTNNU7E5bnKm5ELrxnqXGWVQ1DtRE7";
const R1: &str = "PVT_R1_2B17RwGod27jJFMmDZdfYSKTjLsjiUvbEFLDTtDiK5rs8SBrh4";
const PUBLISHED_DATA: &str = "0102030405060708090a0b0c0d0e0f";
const PUBLISHED_BODY: &str = "090a0000000000000011370000000000000020013a0e0813120a0a08626c6168626c6168";
const PUBLISHED_PREV: &str = "66433744244149695";

struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e} in {:?}, stderr {}", self.out, self.err))
    }
}

fn run(dir: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_florin"));
    let output = command.args(args).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn good(dir: &Path, args: &[&str]) -> Ran {
    let ran = run(dir, args);
    assert_eq!(ran.status, 0, "{args:?}: {}{}", ran.out, ran.err);
    ran
}

/// Runs a command that fails; it says the code and the part.
fn bad(dir: &Path, args: &[&str], code: &str, status: i32, part: &str) {
    let mut with_json = vec!["--json"];
    with_json.extend(args);
    let ran = run(dir, &with_json);
    assert_eq!((ran.json()["error"]["name"].as_str(), ran.status), (Some(code), status), "{args:?}: {}", ran.err);
    assert!(ran.err.contains(part), "{args:?}: expected {part:?} in {}", ran.err);
}

/// A folder with the published keys.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("k1"), format!("# published\n{K1}\n\n")).unwrap();
    fs::write(dir.path().join("r1"), format!("  {R1}\r\n")).unwrap();
    dir
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// The cases in docs, made anew.
struct Cases {
    permission: Permission,
    keys: Vec<SecretKey>,
    cosignor: SecretKey,
    cases: Vec<Value>,
}

/// The actor's last transaction in most cases.
const LAST: (u32, u64) = (6, 66_433_744_244_149_695);

impl Cases {
    fn body() -> Body {
        Body { network_id: 10, actor: 55, seqnum: LAST.0 + 1, prev_hash: LAST.1, ..Body::default() }
    }

    /// A case in the usual state.
    fn add(&mut self, id: &str, op: &str, bytes: impl AsRef<[u8]>) -> &mut Value {
        let field = if op == "exectrx" { "transaction_hex" } else { "permission_hex" };
        let cosignor = Permission { actor: 66, ..Permission::single(self.cosignor.public()) };
        let actor = |permission: &Permission, (seqnum, prev_hash): (u32, u64)| {
            json!({"actor": permission.actor.to_string(), "permission_hex": hex::encode(permission.encode()),
                "seqnum": seqnum, "prev_hash": prev_hash.to_string()})
        };
        let removed = json!({"actor": "44", "permission_hex": "", "seqnum": 9, "prev_hash": "12345"});
        self.cases.push(json!({"id": id, "op": op, field: hex::encode(bytes), "state_before": {"network_id": "10",
            "network_flags": 0, "actors": [actor(&self.permission, LAST), actor(&cosignor, (0, 0)), removed]}}));
        self.cases.last_mut().unwrap()
    }

    fn signed(body: &Body, authorities: &[&[&SecretKey]]) -> Bytes {
        let bytes = encode_body(body);
        let of =
            |keys: &&[&SecretKey]| Authority::of(&keys.iter().map(|key| key.sign_body(&bytes)).collect::<Vec<_>>());
        encode_envelope(&bytes, &authorities.iter().map(of).collect::<Vec<_>>())
    }

    /// A transaction with this body, signed by the actor's first two keys, and by the cosignor if there is one.
    fn transaction(&mut self, id: &str, body: &Body) -> &mut Value {
        let own = [&self.keys[0], &self.keys[1]];
        let cosigned = [&self.cosignor];
        let authorities = [&own[..], &cosigned[..]];
        let raw = Cases::signed(body, &authorities[..1 + body.cosignors.len().min(1)]);
        self.add(id, "exectrx", raw)
    }

    /// The usual transaction with these signatures.
    fn signatures(&mut self, id: &str, key_type: i32, sigs: &[Vec<u8>]) {
        let sigs = sigs.iter().map(|sig| Bytes::copy_from_slice(sig)).collect();
        let raw = encode_envelope(&encode_body(&Cases::body()), &[Authority { key_type, sigs }]);
        self.add(id, "exectrx", raw);
    }
}

fn cases() -> Vec<Value> {
    let keys = vec![secret(Curve::K1, 1), secret(Curve::R1, 1), secret(Curve::Ed25519, 1)];
    let weighted = keys.iter().map(|key| (key.public(), 1)).collect();
    let permission = Permission { actor: 55, threshold: 2, keys: weighted };
    let mut all = Cases { permission: permission.clone(), keys, cosignor: secret(Curve::K1, 2), cases: Vec::new() };
    let body = Cases::body;

    all.transaction("accept", &body());
    all.transaction(
        "accept with a cosignor",
        &Body { cosignors: vec![66], content: Bytes::from_static(b"hi"), ..body() },
    );
    let skip = all.transaction("accept out of sequence with flag 4", &Body { seqnum: 3, prev_hash: 1, ..body() });
    skip["state_before"]["network_flags"] = 0x0001_0004.into();

    // 1 and 2: envelope and body.
    let raw = Cases::signed(&body(), &[&[&all.keys[0], &all.keys[1]]]);
    all.add("envelope cut off", "exectrx", &raw[..raw.len() - 1]);
    all.add("nine authorities", "exectrx", encode_envelope(&encode_body(&body()), &vec![Authority::default(); 9]));
    all.add("empty body", "exectrx", encode_envelope(&[], &[Authority::default()]));
    all.add("unknown field in the envelope", "exectrx", [&raw[..], &[0x18, 1]].concat());
    let wrap = |body: &[u8]| encode_envelope(body, &[Authority::default()]);
    all.add("body cut off", "exectrx", wrap(&encode_body(&body())[..25]));
    all.add("five cosignors", "exectrx", wrap(&encode_body(&Body { cosignors: vec![1, 2, 3, 4, 5], ..body() })));
    all.add("unknown field in the body", "exectrx", wrap(&[&encode_body(&body())[..], &[0x40, 1]].concat()));
    all.transaction("actor 2^63", &Body { actor: 1 << 63, ..body() });

    // 3: who.
    all.transaction("another network", &Body { network_id: 11, ..body() });
    all.transaction("nobody", &Body { actor: 77, ..body() });
    all.transaction("a removed actor", &Body { actor: 44, seqnum: 10, prev_hash: 12_345, ..body() });
    all.transaction("the actor as cosignor", &Body { cosignors: vec![55], ..body() });
    all.transaction("one authority too few", &Body { cosignors: vec![66, 77], ..body() });

    // 4: the sequence.
    let last = all.transaction("no seqnum left", &Body { seqnum: 0, ..body() });
    last["state_before"]["actors"][0]["seqnum"] = u32::MAX.into();
    all.transaction("the same again", &Body { seqnum: LAST.0, ..body() });
    all.transaction("another prev_hash", &Body { prev_hash: LAST.1 + 1, ..body() });

    // 5: signatures.
    let bytes = encode_body(&body());
    let sigs: Vec<Vec<u8>> = all.keys.iter().map(|key| key.sign_body(&bytes).as_bytes().to_vec()).collect();
    let (mut high_s, mut flipped) = (sigs[0].clone(), sigs[0].clone());
    high_s[34] |= 0x80;
    flipped[1] = 31 + ((flipped[1] - 31) ^ 1);
    all.transaction("an unknown cosignor", &Body { cosignors: vec![77], ..body() });
    all.signatures("another type of authority", 1, &sigs);
    all.signatures("65 bytes", 0, &[sigs[0].clone(), sigs[1][..65].to_vec()]);
    all.signatures("high s", 0, &[sigs[1].clone(), high_s]);
    all.signatures("a flipped recovery id", 0, &[sigs[1].clone(), flipped]);
    all.signatures("one key twice", 0, &[sigs[0].clone(), sigs[0].clone()]);
    all.signatures("one of two", 0, &sigs[2..]);

    let register = |change: fn(&mut Permission)| {
        let mut changed = permission.clone();
        change(&mut changed);
        changed.encode()
    };
    all.add("register anew", "regactor", register(|p| p.actor = 88));
    all.add("change keys", "regactor", register(|p| p.threshold = 3));
    all.add("register a removed actor again", "regactor", register(|p| p.actor = 44));
    all.add("key twice", "regactor", register(|p| p.keys[1] = p.keys[0]));
    all.add("threshold above the weights", "regactor", register(|p| p.threshold = 4));
    let mut other_type = florin_core::pbtx::Permission::decode(permission.encode()).unwrap();
    other_type.keys[1].key.as_mut().unwrap().r#type = 1;
    all.add("key of another type", "regactor", other_type.encode_to_vec());
    all.add("permission cut off", "regactor", &permission.encode()[..20]);
    all.add("actor above 63 bits", "regactor", register(|p| p.actor = u64::MAX));
    all.add("permission with an unknown field", "regactor", [&permission.encode()[..], &[0x20, 1]].concat());
    all.cases
}

/// The cases in docs, and their verdicts, which others hold their implementations against.
/// `FLORIN_REGENERATE=1 cargo test -p florin --test cli_pbtx` writes them anew.
#[test]
fn the_documented_cases_have_their_verdicts() {
    let lines = |values: &[Value]| {
        let lines: Vec<String> = values.iter().map(Value::to_string).collect();
        format!("[\n{}\n]\n", lines.join(",\n"))
    };
    let regenerate = std::env::var_os("FLORIN_REGENERATE").is_some_and(|v| v == "1");
    let (input, output) = (docs("pbtx-cases.json"), docs("pbtx-verdicts.json"));
    if regenerate {
        fs::write(&input, lines(&cases())).unwrap();
    }
    assert_eq!(lines(&cases()), fs::read_to_string(&input).unwrap(), "docs/pbtx-cases.json");
    let found = good(Path::new("."), &["--json", "pbtx", "verify", input.to_str().unwrap()]).json();
    if regenerate {
        fs::write(&output, lines(found.as_array().unwrap())).unwrap();
    }
    let expected: Value = serde_json::from_str(&fs::read_to_string(&output).unwrap()).unwrap();
    assert_eq!(found, expected);
    // The cases show every code that docs/pbtx.md lists for these checks.
    let text = fs::read_to_string(docs("pbtx.md")).unwrap();
    let listed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let mut shown: Vec<&str> = expected.as_array().unwrap().iter().filter_map(|v| v["code"].as_str()).collect();
    for code in florin_core::Code::ALL.iter().map(|code| code.name()).filter(|code| listed.contains(code)) {
        assert!(shown.contains(&code), "docs/pbtx-cases.json has no case of {code}");
    }
    shown.retain(|code| !listed.contains(code));
    assert!(shown.is_empty(), "docs/pbtx.md does not list {shown:?}");
}

#[test]
fn verdicts_say_what_is_expected_of_a_next_transaction() {
    let cases: Value = serde_json::from_str(&fs::read_to_string(docs("pbtx-cases.json")).unwrap()).unwrap();
    let dir = folder();
    let verdict = |id: &str, change: &dyn Fn(&mut Value)| {
        let mut case = cases.as_array().unwrap().iter().find(|case| case["id"] == id).unwrap().clone();
        change(&mut case);
        fs::write(dir.path().join("cases.json"), json!([case]).to_string()).unwrap();
        let mut found = good(dir.path(), &["pbtx", "verify", "cases.json", "--json"]).json();
        found[0].take()
    };
    let accepted = verdict("accept", &|_| ());
    let raw = hex::decode(cases[0]["transaction_hex"].as_str().unwrap()).unwrap();
    let next = Order::decode(raw.into()).unwrap().next_hash().to_string();
    assert_eq!(accepted, json!({"id": "accept", "verdict": "accept", "code": null, "seqnum": 7, "prev_hash": next}));
    // 64-bit numbers may be strings or numbers, and what else is in a case is its writer's.
    let same = verdict("accept", &|case| {
        case["state_before"]["network_id"] = 10.into();
        case["state_before"]["network_flags"] = "4294901760".into();
        case["state_before"]["actors"][0]["seqnum"] = "6".into();
        case["expected"] = "accept".into();
    });
    assert_eq!(same, accepted);
    // With flag 4 the sequence is reported as it was, and so is that of an actor whose keys change.
    let kept = json!({"verdict": "accept", "code": null, "seqnum": LAST.0, "prev_hash": LAST.1.to_string()});
    for id in ["accept out of sequence with flag 4", "change keys"] {
        let mut found = verdict(id, &|_| ());
        assert_eq!(found.as_object_mut().unwrap().remove("id"), Some(id.into()));
        assert_eq!(found, kept);
    }
    assert_eq!(verdict("register anew", &|_| ())["prev_hash"], "0");
    assert_eq!(verdict("register a removed actor again", &|_| ())["prev_hash"], "12345");
    assert_eq!(verdict("one key twice", &|case| case["id"] = 7.into())["id"], 7);
}

#[test]
fn a_malformed_case_is_named() {
    let cases: Value = serde_json::from_str(&fs::read_to_string(docs("pbtx-cases.json")).unwrap()).unwrap();
    let dir = folder();
    let refused = |change: &dyn Fn(&mut Value), part: &str| {
        let mut wrong = cases[1].clone();
        change(&mut wrong);
        fs::write(dir.path().join("cases.json"), json!([cases[0], wrong]).to_string()).unwrap();
        bad(dir.path(), &["pbtx", "verify", "cases.json"], "BAD_FILE", 2, part);
    };
    let named = "accept with a cosignor";
    refused(&|case| case["transaction_hex"] = "zz".into(), named);
    refused(&|case| case["op"] = "transfer".into(), named);
    refused(&|case| drop(case.as_object_mut().unwrap().remove("transaction_hex")), named);
    refused(&|case| drop(case.as_object_mut().unwrap().remove("state_before")), named);
    refused(&|case| case["state_before"]["network_id"] = "18446744073709551616".into(), named);
    refused(&|case| case["state_before"]["network_id"] = "-1".into(), named);
    refused(&|case| case["state_before"]["network_flags"] = 0x10.into(), "flags");
    refused(&|case| case["state_before"]["actors"][0]["seqnum"] = 4_294_967_296u64.into(), "actor 55");
    refused(&|case| case["state_before"]["actors"][0]["permission_hex"] = "00".into(), "actor 55");
    refused(&|case| case["state_before"]["actors"][0]["actor"] = "56".into(), "expected 56, found 55");
    refused(&|case| case["state_before"]["actors"][1] = case["state_before"]["actors"][0].clone(), "twice");
    refused(&|case| drop(case.as_object_mut().unwrap().remove("id")), "id of case #1");
    for text in ["", "{}", "[1]", "[{}]"] {
        fs::write(dir.path().join("cases.json"), text).unwrap();
        bad(dir.path(), &["pbtx", "verify", "cases.json"], "BAD_FILE", 2, "");
    }
    bad(dir.path(), &["pbtx", "verify", "nothing.json"], "BAD_FILE", 2, "nothing.json");
}

#[test]
fn keys_are_shown_in_all_their_forms() {
    let dir = folder();
    let shown = good(dir.path(), &["--json", "pbtx", "key", "convert", "--secrets", "k1", "--show"]).json();
    assert_eq!(shown[0]["legacy_private"], K1);
    let pbtx = "0003716875cd7ebcb45ae275f0f638f5c94132eb18a892bed1153ad72cce302afab6";
    assert_eq!(shown[0]["pbtx"], pbtx);
    for form in ["public", "legacy_public", "pbtx"] {
        let again = good(dir.path(), &["--json", "pbtx", "key", "convert", shown[0][form].as_str().unwrap()]).json();
        assert_eq!((&again[0]["pbtx"], &again[0]["private"]), (&shown[0]["pbtx"], &Value::Null));
    }
    let hidden = good(dir.path(), &["pbtx", "key", "convert", "--secrets", "r1"]);
    assert!(!hidden.out.contains("PVT_") && hidden.out.contains("PUB_R1_"), "{}", hidden.out);

    for curve in ["k1", "r1", "ed"] {
        let said = good(dir.path(), &["pbtx", "key", "new", "--curve", curve, "--out", &format!("new-{curve}")]);
        assert!(!said.out.contains("PVT_"), "{}", said.out);
        let path = dir.path().join(format!("new-{curve}"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let key = PrivateKey::from_text(fs::read_to_string(&path).unwrap().trim()).unwrap();
        assert!(said.out.contains(&public_to_text(&key.public())));
    }
    bad(dir.path(), &["pbtx", "key", "new", "--out", "k1"], "ALREADY_EXISTS", 2, "k1");
    // A private key in the wrong place is not repeated.
    for (args, key) in [(&["key", "convert", K1][..], K1), (&["permission", "show", R1], R1), (&["show", K1], K1)] {
        let ran = run(dir.path(), &[&["pbtx"], args].concat());
        assert_eq!(ran.status, 2, "{}", ran.err);
        assert!(!ran.err.contains(&key[20..30]), "{}", ran.err);
    }
    fs::write(dir.path().join("typo"), format!("\n{}\n", K1.replace("KgBK", "KgBL"))).unwrap();
    bad(dir.path(), &["pbtx", "mksig", "00", "--keys", "typo"], "BAD_KEY", 2, "typo line 2: checksum");
}

#[test]
fn published_signatures_come_out_and_transactions_in_disguise_do_not() {
    let dir = folder();
    for (keys, sig) in [
        (
            "k1",
            "00207fe441d2d1215f57f87256843877d07d0d5a34a9b61d3985bc934867441c93813fb37264303895ca2614105d4296f27518dfa601f3536c62a859af27b1de75de",
        ),
        (
            "r1",
            "0120527fda9a6ab5bfa339d2d9a837b3e2f587e5b09d77cb2ef8df779d63f2a7d2075455c4fd330460e1303a06cfb70089c7613b2602dc81f59815a17b2770c47030",
        ),
    ] {
        let made = good(dir.path(), &["--json", "pbtx", "mksig", PUBLISHED_DATA, "--keys", keys]).json();
        assert_eq!(made["sha256"], "36030fcc7e566294905b49a720eb45bf962209d2ee1c9b73e2b7bc7ae8830376");
        let made = &made["signatures"][0];
        assert_eq!(made["pbtx"], sig);
        let (text, key) = (made["signature"].as_str().unwrap(), made["key"].as_str().unwrap());
        for form in [sig, text] {
            let checked = good(dir.path(), &["--json", "pbtx", "checksig", PUBLISHED_DATA, form]).json();
            assert_eq!(checked["public"], key);
            good(dir.path(), &["pbtx", "checksig", PUBLISHED_DATA, form, "--key", key]);
            bad(dir.path(), &["pbtx", "checksig", "00", form, "--key", key], "KEY_MISMATCH", 3, key);
        }
        // Weakness 5: a "challenge" that is a payment, also one with fields in another order or unknown ones.
        for body in
            [PUBLISHED_BODY.to_owned(), format!("2001{}", &PUBLISHED_BODY[..36]), format!("{PUBLISHED_BODY}4001")]
        {
            bad(dir.path(), &["pbtx", "mksig", &body, "--keys", keys], "USAGE", 2, "transaction's body");
            good(dir.path(), &["pbtx", "mksig", &body, "--keys", keys, "--sign-transaction-body"]);
        }
    }
}

#[test]
fn an_envelope_is_made_signed_by_others_and_shown() {
    let dir = folder();
    let public = |keys: &str| {
        good(dir.path(), &["--json", "pbtx", "key", "convert", "--secrets", keys]).json()[0]["public"].clone()
    };
    let (k1, r1) = (public("k1"), public("r1"));
    let (k1, r1) = (k1.as_str().unwrap(), r1.as_str().unwrap());
    let make = |actor: &str, keys: &[&str]| {
        let mut args = vec!["pbtx", "permission", "make", "--actor", actor];
        keys.iter().for_each(|key| args.extend(["--key", key]));
        good(dir.path(), &args).out.trim().to_owned()
    };
    let own = make("55", &[k1]);
    let cosignor = make("66", &[&format!("{r1}:3")]);
    let shown = good(dir.path(), &["pbtx", "permission", "show", &cosignor]).out;
    assert!(shown.contains(&format!("{r1} (weight 3)")), "{shown}");
    bad(
        dir.path(),
        &["pbtx", "permission", "make", "--actor", "1", "--key", k1, "--key", k1],
        "BAD_PERMISSION",
        3,
        "twice",
    );
    bad(dir.path(), &["pbtx", "permission", "make", "--actor", "1", "--key", "PUB_K1_x"], "BAD_KEY", 2, "key #0");

    let args = ["pbtx", "sign", "--network", "10", "--actor", "55", "--seqnum", "1", "--prev", "0", "--keys", "k1"];
    let content = ["--content", "0813120a0a08626c6168626c6168"];
    let alone = good(dir.path(), &[&args[..], &content].concat()).out;
    let order = Order::decode(hex::decode(alone.trim()).unwrap().into()).unwrap();
    assert_eq!(hex::encode(&order.body), PUBLISHED_BODY);
    let shown = good(dir.path(), &["--json", "pbtx", "show", alone.trim(), "--permission", &own]).json();
    assert_eq!((shown["next_prev_hash"].as_str(), &shown["signed"]), (Some(PUBLISHED_PREV), &Value::Bool(true)));
    assert_eq!(shown["authorities"][0]["signatures"][0]["key"], k1);
    let body = good(dir.path(), &["--json", "pbtx", "show", PUBLISHED_BODY]).json();
    assert_eq!((body["kind"].as_str(), body["next_prev_hash"].as_str()), (Some("body"), Some(PUBLISHED_PREV)));

    let first = good(dir.path(), &[&args[..], &["--cosignor", "66"]].concat()).out;
    fs::write(dir.path().join("first"), &first).unwrap();
    let check = |envelope: &str, code: &str| {
        bad(dir.path(), &["pbtx", "show", envelope, "--permission", &own, "--permission", &cosignor], code, 3, "");
    };
    check("first", "INSUFFICIENT_WEIGHT");
    let second = good(dir.path(), &["pbtx", "sign", "--envelope", "first", "--as", "66", "--keys", "r1"]).out;
    good(dir.path(), &["pbtx", "show", second.trim(), "--permission", &own, "--permission", &cosignor]);
    let wrong = good(dir.path(), &["pbtx", "sign", "--envelope", "first", "--keys", "r1"]).out;
    check(wrong.trim(), "KEY_MISMATCH");
    bad(dir.path(), &["pbtx", "sign", "--envelope", "first", "--keys", "k1"], "DUPLICATE_SIG", 3, k1);
    bad(dir.path(), &["pbtx", "sign", "--envelope", "first", "--as", "77", "--keys", "k1"], "USAGE", 2, "77");
    bad(dir.path(), &[&args[..], &["--cosignor", "55"]].concat(), "DUPLICATE_COSIGNOR", 3, "");
    bad(dir.path(), &["pbtx", "show", "ff00"], "DECODE", 3, "neither");
}

#[test]
fn a_chain_signed_offline_survives_crashes() {
    let dir = folder();
    let sign = |more: &[&str]| {
        let mut args = vec!["--json", "pbtx", "sign", "--offline", "chain", "--keys", "k1"];
        args.extend(more);
        run(dir.path(), &args)
    };
    let path = |name: &str| dir.path().join(name);
    let orders = || -> Vec<Order> {
        let text = fs::read_to_string(path("chain.envelopes")).unwrap();
        text.lines().map(|line| Order::decode(hex::decode(line).unwrap().into()).unwrap()).collect()
    };
    let in_order = |first: u32, prev: u64| {
        let mut expected = (first, prev);
        for order in orders() {
            assert_eq!((order.seqnum, order.prev_hash), expected);
            expected = (order.seqnum + 1, order.next_hash());
        }
    };
    assert_eq!(sign(&[]).json()["error"]["name"], "USAGE");
    let begun = sign(&["--network", "10", "--actor", "55", "--seqnum", "7", "--prev", "99"]);
    assert_eq!(begun.json()["seqnum"], 7, "{}", begun.err);
    assert_eq!(sign(&["--type", "3", "--content", "ff"]).json()["seqnum"], 8);
    assert_eq!(sign(&["--actor", "56"]).json()["error"]["name"], "USAGE");
    assert_eq!(sign(&["--seqnum", "9"]).json()["error"]["name"], "USAGE");
    in_order(7, 99);

    // A crash after the envelope and before the sequence; then one in the middle of an envelope.
    let before = fs::read(path("chain")).unwrap();
    assert_eq!(sign(&[]).json()["seqnum"], 9);
    fs::write(path("chain"), &before).unwrap();
    assert_eq!(sign(&[]).json()["seqnum"], 10);
    let mut file = fs::OpenOptions::new().append(true).open(path("chain.envelopes")).unwrap();
    file.write_all(b"0a0b0c").unwrap();
    let said = sign(&[]);
    assert_eq!(said.json()["seqnum"], 11);
    assert!(said.err.contains("dropping"), "{}", said.err);
    in_order(7, 99);
    assert_eq!(orders().len(), 5);

    // An older copy of the sequence does not lead to two transactions of one seqnum.
    let now = fs::read(path("chain")).unwrap();
    fs::write(path("chain"), &before).unwrap();
    assert_eq!(sign(&[]).json()["error"]["name"], "BAD_FILE");
    fs::write(path("chain"), now).unwrap();
    // What was pushed may be removed.
    fs::remove_file(path("chain.envelopes")).unwrap();
    assert_eq!(sign(&[]).json()["seqnum"], 12);
    // Several at a time wait for each other.
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| assert_eq!(sign(&[]).status, 0)))));
    assert_eq!(orders().iter().map(|order| order.seqnum).collect::<Vec<_>>(), (12..=20).collect::<Vec<_>>());
}

/// The commands in docs/pbtx.md print what it says, and its example case gets its verdict.
#[test]
fn the_document_shows_what_is_printed() {
    let text = fs::read_to_string(docs("pbtx.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_florin")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut shown = text.clone();
    let mut commands = 0;
    for block in text.split("\n```\n").filter(|block| block.starts_with("$ ")) {
        let mut printed = Vec::new();
        for line in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let mut bash = Command::new("bash");
            let output = bash.args(["-c", line]).current_dir(dir.path()).env("PATH", &path).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            let out = String::from_utf8(output.stdout).unwrap();
            printed.push(format!("$ {line}\n{out}").trim_end().to_owned());
            commands += 1;
        }
        shown = shown.replace(block, &printed.join("\n"));
    }
    let json = |text: &str| -> Vec<Value> {
        let blocks = text.split("\n```json\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
        blocks.map(|block| serde_json::from_str(block).unwrap()).collect()
    };
    let mut case = json(&text)[0].clone();
    let first = fs::read_to_string(dir.path().join("first.hex")).unwrap();
    shown = shown.replace(case["transaction_hex"].as_str().unwrap(), first.trim());
    case["transaction_hex"] = first.trim().into();
    fs::write(dir.path().join("cases.json"), json!([case]).to_string()).unwrap();
    let verdict = good(dir.path(), &["--json", "pbtx", "verify", "cases.json"]).json();
    assert_eq!(verdict[0], json(&text)[1]);
    if std::env::var_os("FLORIN_REGENERATE").is_some_and(|v| v == "1") {
        fs::write(docs("pbtx.md"), &shown).unwrap();
        return;
    }
    assert!(commands >= 8, "commands in docs/pbtx.md, found {commands}");
    assert_eq!(shown, text, "docs/pbtx.md");
}
