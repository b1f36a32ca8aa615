//! Holds documents to the code: error codes, limits, paths and links, and the layering of the crates.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use florin_core::Code;
use florin_core::limits as l;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Cells of the rows of all tables in a document.
fn rows(text: &str) -> Vec<Vec<String>> {
    let row = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    text.lines().filter(|line| line.starts_with('|')).map(row).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn errors_md_lists_every_code() {
    let mut found = rows(&read("docs/errors.md"));
    found.retain(|row| row.len() == 4 && row[0].parse::<u32>().is_ok());
    let expected: Vec<Vec<String>> = Code::ALL
        .iter()
        .map(|code| vec![(*code as u32).to_string(), format!("`{}`", code.name()), code.next_step().to_owned()])
        .collect();
    let without_when: Vec<Vec<String>> =
        found.iter().map(|row| vec![row[0].clone(), row[1].clone(), row[3].clone()]).collect();
    for (expected, found) in expected.iter().zip(&without_when) {
        assert_eq!(expected, found, "docs/errors.md: number, name and next step");
    }
    assert_eq!(expected.len(), found.len(), "rows in docs/errors.md");
    assert!(found.iter().all(|row| !row[2].is_empty()), "docs/errors.md says when");
}

#[test]
fn wire_md_has_every_limit() {
    macro_rules! values {
        ($($name:ident),*) => { BTreeMap::from([$((stringify!($name), u128::try_from(l::$name).unwrap())),*]) };
    }
    let values: BTreeMap<&str, u128> = values!(
        ORDERS_PER_BATCH_MAX,
        VERIFICATIONS_PER_BATCH,
        BLS_VERIFICATION_COST,
        KNOWN_KEYS_MAX,
        MESSAGE_BYTES_MAX,
        CERTIFICATES_BYTES_MAX,
        CERTIFICATES_PER_BATCH,
        BODY_BYTES_MAX,
        CONTENT_BYTES_MAX,
        MEMO_BYTES_MAX,
        PENDING_WINDOW,
        FOLLOWERS_MAX,
        COMMITTEE_MIN,
        COMMITTEE_MAX,
        SHARDS_MAX,
        COSIGNORS_MAX,
        KEYS_MAX,
        AUTHORITIES_MAX,
        SIGS_PER_AUTHORITY_MAX,
        SIG_BYTES_MAX,
        OUTPUTS_MAX,
        INPUTS_MAX,
        CALL_BYTES_MAX,
        PREIMAGE_BYTES_MAX,
        LANES_MAX,
        MERGES_MAX,
        VIRTUALS_MAX,
        VIRTUALS_PER_CHANNEL_MAX,
        VIRTUAL_OPENS_BYTES_MAX,
        WATCH_CLAIM_MS,
        VIRTUAL_KEEP_MS,
        VOUCHER_NONCE_MAX,
        REDEMPTIONS_MAX,
        IDEMPOTENCY_BYTES_MAX,
        CHANNEL_DELAY_MIN_MS,
        CHANNEL_DELAY_MAX_MS,
        HUB_HOPS_MAX,
        HUB_LOCKS_MAX,
        HUB_MARGIN_MS,
        HUB_GRACE_MS,
        HUB_FINAL_MS,
        HUB_REST_MS,
        HUB_KEEP_MS,
        HUB_FORGET_MAX,
        HUB_LANES_SHOWN_MAX,
        HUB_FRAME_BYTES_MAX,
        HUB_QUEUE_MAX,
        HUB_IN_HAND_MAX,
        HUB_PROOF_MS,
        METADATA_BYTES_MAX,
        LISTENERS_MAX,
        PRECHECK_TYPES_MAX,
        PRECHECK_ACTORS_MAX,
        PRECHECKS_BYTES_MAX,
        PRUNE_ROWS_MAX,
        PRUNE_AGE_MS,
        UNIT_BYTES_MAX,
        SESSION_ROUNDS,
        SESSION_BYTES_MAX,
        RECOVERY_WAIT_MS,
        SESSIONS_PAGE,
        UNITS_PAGE_BYTES,
        AMOUNT_MAX,
        ID_MAX,
        DECIMALS_MAX,
        PAGE_MAX,
        CREDITS_PER_RECORD,
        REQUESTS_PER_CONNECTION,
        CONNECTIONS_MAX,
        REQUESTS_BYTES_MAX,
        REFUSED_ORDER_MS,
        FOLLOW_PAGE,
        CASH_TIERS,
        NOTES_IN_MAX,
        NOTES_PER_ORDER_MAX,
        NOTES_PER_BATCH_MAX,
        NOTES_PER_QUERY_MAX
    );
    let source = read("crates/core/src/limits.rs");
    let declared: BTreeSet<&str> =
        source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next()).collect();
    assert_eq!(declared, values.keys().copied().collect(), "limits that this test knows");
    let wire = read("docs/wire.md");
    let (_, after) = wire.split_once("\n## Limits\n").expect("wire.md has limits");
    let section = after.split("\n## ").next().unwrap();
    let documented: BTreeMap<String, u128> = rows(section)
        .into_iter()
        .filter(|row| row[0].starts_with('`'))
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].replace(',', "").parse().unwrap()))
        .collect();
    let expected: BTreeMap<String, u128> = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(expected, documented, "docs/wire.md");
}

#[test]
fn wire_md_names_every_message_and_table() {
    let wire = read("docs/wire.md");
    let named: BTreeSet<&str> = quoted(&wire).collect();
    for file in ["proto/florin.proto", "proto/pbtx.proto"] {
        for line in read(file).lines() {
            let Some(name) = line.strip_prefix("message ").and_then(|rest| rest.split(' ').next()) else { continue };
            let short = name.trim_end_matches("Request").trim_end_matches("Reply");
            assert!(named.contains(name) || named.contains(short), "docs/wire.md does not name {name} of {file}");
        }
    }
    for table in florin_core::authority::state::Table::ALL {
        assert!(named.contains(table.name()), "docs/wire.md does not name the table {}", table.name());
    }
}

#[test]
fn files_that_architecture_md_names_exist() {
    let text = read("docs/architecture.md");
    let folders = ["crates/", "proto/", "docs/", ".ci/"];
    let paths: BTreeSet<&str> = quoted(&text).filter(|q| folders.iter().any(|f| q.starts_with(f))).collect();
    assert!(paths.len() > 30, "docs/architecture.md names the files of a payment, found {}", paths.len());
    for path in paths {
        assert!(root().join(path).exists(), "docs/architecture.md names {path}, which is not there");
    }
    let stations = rows(&text).iter().filter(|row| row[0].parse::<u32>().is_ok()).count();
    assert!(stations >= 13, "stations of a payment, found {stations}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = vec![root().join("README.md")];
    for folder in ["docs", "docs/decisions"] {
        let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|e| e.unwrap().path());
        documents.extend(entries.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let there = document.parent().unwrap().join(file).exists();
            assert!(there, "{} links to {target}, which is not there", document.display());
        }
    }
}

/// Names of the dependencies of every kind, also those for one platform.
fn dependencies(manifest: &toml::Table, kinds: &[&str]) -> BTreeSet<String> {
    let platforms = manifest.get("target").and_then(|t| t.as_table()).into_iter().flatten();
    let tables = std::iter::once(manifest).chain(platforms.filter_map(|(_, t)| t.as_table()));
    let of_kind = |table: &toml::Table, kind: &&str| {
        table.get(*kind).and_then(|t| t.as_table()).map(|t| t.keys().cloned().collect()).unwrap_or_default()
    };
    tables.flat_map(|table| kinds.iter().flat_map(move |kind| -> Vec<String> { of_kind(table, kind) })).collect()
}

#[test]
fn manifests_obey_the_layering() {
    const EVERY_KIND: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("proto", &[][..]),
        ("crates/ed25519", &[]),
        ("crates/core", &["florin-ed25519"]),
        ("crates/rpc", &["florin-core"]),
        ("crates/node", &["florin-core", "florin-rpc"]),
        ("crates/client", &["florin-core", "florin-rpc"]),
        ("crates/sim", &["florin-core", "florin-rpc", "florin-node", "florin-client"]),
        ("crates/model", &["florin-core"]),
        ("crates/fuzz", &["florin-core", "florin-node", "florin-client"]),
        ("crates/mutants", &[]),
        ("crates/florin", &["florin-core", "florin-rpc", "florin-node", "florin-client", "florin-sim"]),
        ("examples/paid-download", &["florin-core", "florin-node", "florin-client"]),
    ]);
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let members: BTreeSet<&str> = members.iter().map(|m| m.as_str().unwrap()).collect();
    assert_eq!(members, allowed.keys().copied().collect(), "members that this test knows");
    let names: BTreeSet<String> = members
        .iter()
        .map(|member| {
            let manifest: toml::Table = read(&format!("{member}/Cargo.toml")).parse().unwrap();
            manifest["package"]["name"].as_str().unwrap().to_owned()
        })
        .collect();
    for (member, allowed) in allowed {
        let manifest: toml::Table = read(&format!("{member}/Cargo.toml")).parse().unwrap();
        for dependency in dependencies(&manifest, &EVERY_KIND).intersection(&names) {
            assert!(allowed.contains(&dependency.as_str()), "{member} must not depend on {dependency}");
        }
    }
}

#[test]
fn the_core_has_no_way_out() {
    let manifest: toml::Table = read("crates/core/Cargo.toml").parse().unwrap();
    let found = dependencies(&manifest, &["dependencies", "build-dependencies"]);
    for outside in ["tokio", "tonic", "hyper", "rustix", "getrandom", "rand", "tempfile", "lsm-tree", "tracing"] {
        assert!(!found.contains(outside), "florin-core must not depend on {outside}");
    }
}

/// Bugs are planted for one test. Any other crate, or a default feature, that asked for them would put them into programs.
#[test]
fn only_the_simulator_can_ask_for_planted_bugs() {
    let manifests = read("Cargo.toml");
    let members = manifests.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\","));
    let asking: BTreeMap<&str, Vec<String>> = members
        .map(|member| (member, read(&format!("{member}/Cargo.toml"))))
        .map(|(member, text)| (member, text.lines().filter(|l| l.contains("planted")).map(str::to_owned).collect()))
        .filter(|(_, lines): &(&str, Vec<String>)| !lines.is_empty())
        .collect();
    let expected = BTreeMap::from([
        ("crates/core", vec!["planted = []".to_owned()]),
        (
            "crates/sim",
            vec![
                "planted = [\"florin-core/planted\"]".to_owned(),
                "name = \"planted\"".to_owned(),
                "required-features = [\"planted\"]".to_owned(),
            ],
        ),
    ]);
    assert_eq!(asking, expected);
}
