//! What a thief, a vandal, a crash and a second command meet.

use super::*;

const PASSPHRASE: &str = "correct horse";
const ENTROPY: [u8; 16] = [7; 16];
/// Real costs are tested once.
const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

struct Place {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wallet.json");
    Place { folder, path }
}

fn meta() -> Meta {
    Meta { network_id: ID_MAX, currency: "FLR".into(), decimals: 2, curve: Curve::Ed25519 }
}

impl Place {
    fn create(&self) -> Keystore {
        Keystore::create_at(&self.path, &ENTROPY, PASSPHRASE, meta(), CHEAP).unwrap()
    }

    fn open(&self) -> Keystore {
        Keystore::open(&self.path).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(&self.path).unwrap()).unwrap()
    }

    fn write(&self, json: &serde_json::Value) {
        fs::write(&self.path, serde_json::to_vec(json).unwrap()).unwrap();
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn the_passphrase_gives_the_seed_back_and_nothing_else_does() {
    let place = place();
    let created = Keystore::create(&place.path, &ENTROPY, PASSPHRASE, meta()).unwrap();
    assert_eq!(created.unlock(PASSPHRASE).unwrap().entropy()[..], ENTROPY);
    drop(created);
    let keystore = place.open();
    assert_eq!(*keystore.meta(), meta());
    let seed = keystore.unlock(PASSPHRASE).unwrap();
    assert_eq!(seed.entropy()[..], ENTROPY);
    assert_eq!(keystore.public_keys(), [seed.key(Curve::Ed25519, 0).unwrap().public()]);
    for wrong in ["", "correct horse ", "Correct horse"] {
        assert_eq!(keystore.unlock(wrong).unwrap_err().code, Code::WrongPassphrase);
    }
    let text = fs::read_to_string(&place.path).unwrap();
    assert!(!text.contains(&hex::encode(ENTROPY)));
    let json = place.json();
    assert_eq!(json["kdf"]["memory_kib"], 64 * 1024);
    assert_eq!(json["network_id"], ID_MAX.to_string());
}

#[test]
fn long_entropy_and_every_curve() {
    for curve in [Curve::Ed25519, Curve::K1, Curve::R1] {
        let place = place();
        let entropy = new_entropy::<32>().unwrap();
        let meta = Meta { curve, ..meta() };
        drop(Keystore::create_at(&place.path, &entropy[..], "", meta, CHEAP).unwrap());
        let keystore = place.open();
        let seed = keystore.unlock("").unwrap();
        assert_eq!(seed.entropy()[..], entropy[..]);
        assert_eq!(keystore.public_keys()[0].curve(), curve);
    }
    assert_ne!(new_entropy::<16>().unwrap(), new_entropy::<16>().unwrap());
}

#[test]
fn a_wallet_is_never_overwritten() {
    let place = place();
    drop(place.create());
    let before = fs::read(&place.path).unwrap();
    let again = || Keystore::create_at(&place.path, &[9; 16], "x", meta(), CHEAP).unwrap_err().code;
    assert_eq!(again(), Code::AlreadyExists);
    assert_eq!(fs::read(&place.path).unwrap(), before);
    #[cfg(unix)]
    {
        fs::remove_file(&place.path).unwrap();
        std::os::unix::fs::symlink("nothing", &place.path).unwrap();
        assert_eq!(again(), Code::AlreadyExists);
    }
}

#[test]
fn accounts_are_added_and_known_without_the_passphrase() {
    let place = place();
    let mut keystore = place.create();
    let seed = keystore.unlock(PASSPHRASE).unwrap();
    keystore.set_accounts(3, &seed).unwrap();
    keystore.set_accounts(3, &seed).unwrap();
    keystore.set_label(2, "Café").unwrap();
    let in_memory = (keystore.public_keys().to_vec(), keystore.address(2).unwrap());
    drop(keystore);
    let mut keystore = place.open();
    assert_eq!((keystore.public_keys().to_vec(), keystore.address(2).unwrap()), in_memory);
    assert_eq!(keystore.accounts(), 3);
    assert_eq!(keystore.labels(), &BTreeMap::from([(2, "Café".to_string())]));
    let key = seed.key(Curve::Ed25519, 2).unwrap().public();
    assert_eq!(keystore.address(2).unwrap(), Permission::single(key).address(ID_MAX));
    assert_eq!(keystore.address(3).unwrap_err().message, "account: expected 0 to 2, found 3");
    let refused = keystore.set_accounts(2, &seed).unwrap_err();
    assert_eq!(refused.message, "number of accounts: expected 3 to 1000, found 2");
    assert_eq!(keystore.set_accounts(ACCOUNTS_MAX + 1, &seed).unwrap_err().code, Code::Usage);
    let stranger = Seed::from_entropy(&[8; 16]).unwrap();
    assert_eq!(keystore.set_accounts(4, &stranger).unwrap_err().code, Code::BadFile);
    for label in ["\u{1b}[2J", &"x".repeat(LABEL_CHARS_MAX + 1)] {
        assert_eq!(keystore.set_label(0, label).unwrap_err().code, Code::Usage);
    }
    assert_eq!(keystore.set_label(3, "x").unwrap_err().code, Code::Usage);
    keystore.set_label(2, "").unwrap();
    drop(keystore);
    let keystore = place.open();
    assert!(keystore.labels().is_empty());
    keystore.unlock(PASSPHRASE).unwrap();
}

#[test]
fn changed_metadata_and_secrets_do_not_unlock() {
    let place = place();
    drop(place.create());
    let good = place.json();
    let other_hex = |field: &serde_json::Value| {
        let text = field.as_str().unwrap();
        format!("{}{}", if text.starts_with('0') { '1' } else { '0' }, &text[1..])
    };
    let mut changes: Vec<serde_json::Value> = Vec::new();
    let mut change = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut json = good.clone();
        edit(&mut json);
        changes.push(json);
    };
    change(&|j| j["network_id"] = "5".into());
    change(&|j| j["currency"] = "EUR".into());
    change(&|j| j["decimals"] = 3.into());
    change(&|j| j["kdf"]["passes"] = 2.into());
    change(&|j| j["kdf"]["salt"] = other_hex(&good["kdf"]["salt"]).into());
    change(&|j| j["nonce"] = other_hex(&good["nonce"]).into());
    change(&|j| j["ciphertext"] = other_hex(&good["ciphertext"]).into());
    change(&|j| j["ciphertext"] = "".into());
    for json in changes {
        place.write(&json);
        assert_eq!(place.open().unlock(PASSPHRASE).unwrap_err().code, Code::WrongPassphrase, "{json}");
    }
    // Another curve, with a key of that curve.
    let mut json = good.clone();
    json["curve"] = "k1".into();
    let key = Seed::from_entropy(&ENTROPY).unwrap().key(Curve::K1, 0).unwrap().public();
    json["public_keys"] = vec![key.to_string()].into();
    place.write(&json);
    assert_eq!(place.open().unlock(PASSPHRASE).unwrap_err().code, Code::WrongPassphrase);
}

#[test]
fn a_planted_public_key_is_noticed() {
    let place = place();
    drop(place.create());
    let mut json = place.json();
    let thief = Seed::from_entropy(&[8; 16]).unwrap().key(Curve::Ed25519, 0).unwrap().public();
    json["public_keys"] = vec![thief.to_string()].into();
    place.write(&json);
    let error = place.open().unlock(PASSPHRASE).unwrap_err();
    assert_eq!(error.code, Code::BadFile);
    assert!(error.message.contains("public key of account 0"), "{error}");
}

#[test]
fn odd_files_are_refused_and_named() {
    let place = place();
    assert!(Keystore::open(&place.path).unwrap_err().message.contains("no wallet at"));
    assert!(place.files().is_empty());
    drop(place.create());
    let good = place.json();
    let refusal = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut json = good.clone();
        edit(&mut json);
        place.write(&json);
        let error = Keystore::open(&place.path).unwrap_err();
        assert_eq!(error.code, Code::BadFile, "{error}");
        error.message
    };
    assert!(refusal(&|j| j["florin_wallet"] = 2.into()).contains("expected 1, found 2"));
    assert!(refusal(&|j| j["more"] = 2.into()).contains("unknown field"));
    assert!(refusal(&|j| j["kdf"]["memory_kib"] = u32::MAX.into()).contains("kdf: expected at most"));
    assert!(refusal(&|j| j["kdf"]["name"] = "scrypt".into()).contains("found \"scrypt\""));
    assert!(refusal(&|j| j["network_id"] = (ID_MAX + 1).to_string().into()).contains("network_id"));
    assert!(refusal(&|j| j["currency"] = "F1".into()).contains("currency"));
    assert!(refusal(&|j| j["decimals"] = 19.into()).contains("decimals"));
    assert!(refusal(&|j| j["curve"] = "bls".into()).contains("curve: expected ed25519, k1 or r1"));
    assert!(refusal(&|j| j["curve"] = "k1".into()).contains("public key 0: expected k1, found ed25519"));
    assert!(refusal(&|j| j["accounts"] = 2.into()).contains("expected 2"));
    assert!(refusal(&|j| j["nonce"] = "00".into()).contains("nonce: expected 24 hex digits"));
    assert!(refusal(&|j| j["labels"] = serde_json::json!({"0": "\u{1b}[2J"})).contains("label"));
    assert!(refusal(&|j| j["labels"] = serde_json::json!({"1": "x"})).contains("labels"));
    refusal(&|j| *j = serde_json::json!([]));
    // Costs that make no sense are found when they are used.
    let mut json = good.clone();
    json["kdf"]["lanes"] = 0.into();
    place.write(&json);
    assert_eq!(place.open().unlock(PASSPHRASE).unwrap_err().code, Code::BadFile);
    let whole = serde_json::to_vec(&good).unwrap();
    for end in 0..whole.len() {
        fs::write(&place.path, &whole[..end]).unwrap();
        assert_eq!(Keystore::open(&place.path).unwrap_err().code, Code::BadFile);
    }
}

#[test]
fn metas_out_of_range_create_nothing() {
    let place = place();
    for meta in [
        Meta { network_id: ID_MAX + 1, ..meta() },
        Meta { currency: "".into(), ..meta() },
        Meta { decimals: DECIMALS_MAX + 1, ..meta() },
    ] {
        let error = Keystore::create(&place.path, &ENTROPY, PASSPHRASE, meta).unwrap_err();
        assert_eq!(error.code, Code::BadConfig);
    }
    assert_eq!(Keystore::create(&place.path, &[7; 15], PASSPHRASE, meta()).unwrap_err().code, Code::BadWords);
    let nowhere = place.folder.path().join("nowhere").join("wallet.json");
    assert_eq!(Keystore::create(&nowhere, &ENTROPY, PASSPHRASE, meta()).unwrap_err().code, Code::BadFile);
    assert!(place.files().is_empty());
}

#[test]
fn one_command_at_a_time_by_any_path() {
    let place = place();
    let keystore = place.create();
    assert_eq!(Keystore::open(&place.path).unwrap_err().code, Code::Busy);
    #[cfg(unix)]
    {
        let link = place.folder.path().join("link.json");
        std::os::unix::fs::symlink("wallet.json", &link).unwrap();
        assert_eq!(Keystore::open(&link).unwrap_err().code, Code::Busy);
        drop(keystore);
        let mut keystore = Keystore::open(&link).unwrap();
        keystore.set_label(0, "through the link").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        drop(keystore);
    }
    assert_eq!(place.open().labels().len(), 1);
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_it_and_a_crash_leaves_it_whole() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    drop(place.create());
    // A crash while writing leaves a new file that never took the wallet's place.
    let left = files::beside(&place.path, "new");
    fs::write(&left, b"{\"florin_wal").unwrap();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
    let mut keystore = place.open();
    keystore.set_label(0, "x").unwrap();
    assert_eq!(place.files(), ["wallet.json", "wallet.json.lock"]);
    for name in place.files() {
        let mode = fs::metadata(place.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
