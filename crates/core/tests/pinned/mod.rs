//! What the golden tests share.

use std::path::PathBuf;

/// Compares with `golden/<name>.hex`.
pub fn golden(name: &str, bytes: impl AsRef<[u8]>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"));
    let digits = hex::encode(bytes);
    let lines: Vec<&str> = digits.as_bytes().chunks(96).map(|l| std::str::from_utf8(l).expect("hex")).collect();
    let text = lines.join("\n") + "\n";
    if std::env::var_os("FLORIN_REGENERATE").is_some_and(|v| v == "1") {
        std::fs::write(&path, text).expect("a writable checkout");
        return;
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(text, pinned.replace('\r', ""), "{name} has other bytes than networks and disks that exist");
}
