//! The program, on a small crate of which all is known.

use std::fs;
use std::path::Path;
use std::process::Command;

const MANIFEST: &str = "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";

const CODE: &str = r#"pub const LIMIT: u64 = 2 + 3;

pub fn fee(amount: u64) -> u64 {
    if amount < LIMIT { 1 } else { amount / 5 }
}

pub fn forever(n: u64) -> u64 {
    let (mut at, mut steps) = (n, 0);
    while at > 0 {
        at -= 1;
        steps += 1;
    }
    steps
}

pub fn alone(a: u64) -> u64 {
    a + 1
}

#[cfg(test)]
mod tests {
    #[test]
    fn fees() {
        assert_eq!((super::fee(1), super::fee(10)), (1, 2));
    }

    #[test]
    fn steps() {
        assert_eq!(super::forever(3), 3);
    }
}
"#;

/// As cargo-mutants lists it; `function` is left out where the program does not look.
fn mutant(name: &str, genre: &str, span: [usize; 4], replacement: &str) -> serde_json::Value {
    let [line, column, end_line, end_column] = span;
    serde_json::json!({
        "name": name, "file": "small/src/lib.rs", "genre": genre, "replacement": replacement,
        "span": {"start": {"line": line, "column": column}, "end": {"line": end_line, "column": end_column}},
        "function": {"function_name": "f", "return_type": "-> u64"},
    })
}

fn run(folder: &Path, arguments: &[&str]) -> (String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_florin-mutants"))
        .args(["--package", "small", "--root", ".", "--list", "list.json"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("it runs");
    let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}{complained}");
    (said.into_owned(), fs::read_to_string(folder.join("target/mutants/survivors.txt")).expect("survivors"))
}

#[test]
fn who_is_found_and_who_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::create_dir_all(folder.join("small/src")).expect("a folder");
    fs::write(folder.join("Cargo.toml"), "[workspace]\nmembers = [\"small\"]\nresolver = \"3\"\n").expect("written");
    fs::write(folder.join("small/Cargo.toml"), MANIFEST).expect("written");
    fs::write(folder.join("small/src/lib.rs"), CODE).expect("written");
    fs::write(folder.join(".gitignore"), "target\n").expect("written");
    assert!(Command::new("git").args(["init", "-q"]).current_dir(folder).status().expect("git").success());
    let list = serde_json::json!([
        mutant("a constant", "BinaryOperator", [1, 26, 1, 27], "-"),
        mutant("the limit and one over", "BinaryOperator", [4, 15, 4, 16], "<="),
        mutant("small for large", "BinaryOperator", [4, 15, 4, 16], ">"),
        mutant("a fifth", "BinaryOperator", [4, 43, 4, 44], "%"),
        mutant("no type of this name", "FnValue", [4, 5, 4, 48], "Nothing"),
        mutant("endless", "BinaryOperator", [10, 12, 10, 14], "+="),
        mutant("nobody looks", "BinaryOperator", [17, 7, 17, 8], "-"),
    ]);
    fs::write(folder.join("list.json"), list.to_string()).expect("written");

    let (said, survivors) = run(folder, &[]);
    assert!(said.starts_with("7 mutants: 1 do not compile, 1 are in constants or"), "{said}");
    assert!(said.contains("\n2 tests, "), "{said}");
    assert!(said.contains("killed 3 of 5 (60.0 %)"), "{said}");
    assert_eq!(survivors, "survived the limit and one over\nunreached nobody looks\n");

    // A test more, and only those that survived are asked about.
    let better = CODE.replace("super::fee(1)", "super::alone(1) - 1").replace("super::fee(10)", "super::fee(5) + 1");
    fs::write(folder.join("small/src/lib.rs"), better).expect("written");
    fs::copy(folder.join("target/mutants/survivors.txt"), folder.join("before.txt")).expect("copied");
    let (said, survivors) = run(folder, &["--again", "before.txt"]);
    assert!(said.contains("killed 1 of 2 (50.0 %)"), "{said}");
    assert_eq!(survivors, "survived the limit and one over\n");
}
