//! The README's commands, run as they stand there, in an empty folder.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

/// The code block after a heading.
fn block<'a>(readme: &'a str, heading: &str, number: usize) -> &'a str {
    let section = readme.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("a section {heading:?}"));
    let section = section.split("\n## ").next().unwrap();
    // Fences without a language are commands; those with one show what is printed.
    let fenced = section.split("\n```").skip(1).step_by(2);
    let mut commands = fenced.filter_map(|block| block.strip_prefix('\n'));
    commands.nth(number).unwrap_or_else(|| panic!("code block {number} of {heading:?}"))
}

/// Runs a script with the binary on the path; stops at the first command that fails.
fn run(dir: &Path, script: &str) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_florin")).parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n--- stdout\n{out}\n--- stderr\n{err}");
    out.into_owned()
}

/// Takes the committee down also when the test fails.
struct Devnet<'a>(&'a Path);

impl Drop for Devnet<'_> {
    fn drop(&mut self) {
        let down = Command::new(env!("CARGO_BIN_EXE_florin")).args(["devnet", "down"]).current_dir(self.0).status();
        assert!(down.is_ok_and(|s| s.success()) || std::thread::panicking(), "florin devnet down");
    }
}

#[test]
fn the_readme_works_as_it_stands() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let devnet = Devnet(dir);

    run(dir, block(&readme, "A committee on your machine", 0));
    let said = run(dir, block(&readme, "A committee on your machine", 1));
    assert!(said.contains("1012.50"), "bob has what alice paid: {said}");

    // The committee file and a passphrase as a reader would have them; money comes from alice.
    let setting = "export FLORIN_PASSPHRASE_FILE=florin-devnet/passphrase\n";
    run(dir, "cp florin-devnet/committee.toml .");
    let bob = run(dir, "florin wallet address --wallet florin-devnet/bob.wallet");
    let wallet = block(&readme, "A wallet", 0).replace("ADDRESS", bob.trim());
    let (make, use_it) = wallet.split_at(wallet.find("florin wallet balance").unwrap());
    let fund = "florin wallet pay --wallet florin-devnet/alice.wallet $(florin wallet address --wallet my.wallet) 20\n";
    let said = run(dir, &format!("{setting}{make}{fund}{use_it}"));
    assert!(said.contains("20.00"), "the balance: {said}");

    let export = "export FLORIN_COMMITTEE=committee.toml\n";
    let said = run(dir, &format!("{setting}{export}{}", block(&readme, "A receipt", 0)));
    assert!(said.contains("final"), "the receipt: {said}");

    // Shared objects and cash, with alice's wallet for the other party's.
    let setting = format!("{setting}{export}cp florin-devnet/alice.wallet theirs.wallet\n");
    let theirs = run(dir, "florin wallet address --wallet florin-devnet/alice.wallet");
    let contract = block(&readme, "Shared objects", 0).replace("ADDRESS", theirs.trim());
    let (fund, use_it) = contract.split_at(contract.find("florin contract show").unwrap());
    let said = run(dir, &format!("{setting}{fund}"));
    let id = said.lines().find_map(|line| line.strip_prefix("contract:")).expect("the contract's id").trim();
    let use_it = use_it.replace("CONTRACT", id);
    let (claim, refund) = use_it.split_at(use_it.find("florin contract refund").unwrap());
    run(dir, &format!("{setting}{claim}! {refund}"));
    run(dir, &format!("{setting}{}", block(&readme, "Shared objects", 1)));
    let said = run(dir, &format!("{setting}{}", block(&readme, "Shared objects", 2)));
    assert!(said.contains("ordered") && said.contains("nothing is pending"), "{said}");
    let said = run(dir, &format!("{setting}{}", block(&readme, "Shared objects", 3)));
    assert!(said.contains("not locked"), "{said}");

    let said = run(dir, &format!("{setting}{}", block(&readme, "Cash", 0)));
    assert!(said.contains("received:  1.50 flr") && said.contains("cash:  0.50 flr"), "{said}");

    let said = run(dir, &format!("{setting}{}", block(&readme, "PBTX networks", 0)));
    assert!(said.contains("2 settled, 0 refused") && said.contains("EXECTRX") && said.contains("final"), "{said}");
    run(dir, &format!("{setting}{}", block(&readme, "PBTX networks", 1)));

    for (heading, number) in [("For operators", 0), ("A committee of your own", 1), ("A worker", 0)] {
        let lines = block(&readme, heading, number).lines().filter(|l| l.starts_with("florin "));
        for line in lines {
            // At least the words exist: everything but the first two or three is an argument.
            let words: Vec<&str> =
                line.split_whitespace().skip(1).take_while(|w| w.chars().all(|c| c.is_ascii_lowercase())).collect();
            let noun_verb = &words[..words.len().min(2)];
            run(dir, &format!("florin {} --help", noun_verb.join(" ")));
        }
    }
    drop(devnet);
}
