//! The corpus of bad inputs: each file in `tests/bad-input/NAME` is refused by the decoder or handler of that name with just the
//! code that its first line says. `FLORIN_REGENERATE=1` writes the files anew from the rules in `bad`, which no code here has answered.
//!
//! A file is `# code 103 NON_CANONICAL`, a line that says what is wrong, and then `hex` with digits (`aa*100`: a hundred times),
//! or `text` with all that follows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use florin_core::Code;
use florin_fuzz::bad::try_input;

use crate::bad;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/bad-input")
}

/// One input.
#[derive(Clone, PartialEq, Debug)]
pub struct Case {
    /// Decoder or handler.
    pub of: &'static str,
    /// Of its file.
    pub name: String,
    /// That it is refused with.
    pub code: Code,
    /// What is wrong.
    pub rule: String,
    /// The input.
    pub bytes: Vec<u8>,
}

fn write(case: &Case) -> Vec<u8> {
    let head = format!("# code {} {}\n# {}\n", case.code as u32, case.code.name(), case.rule);
    match std::str::from_utf8(&case.bytes) {
        Ok(text) if bad::IS_TEXT.contains(&case.of) => format!("{head}text\n{text}").into_bytes(),
        _ => format!("{head}hex\n{}\n", digits(&case.bytes)).into_bytes(),
    }
}

fn digits(bytes: &[u8]) -> String {
    let runs = bytes.chunk_by(|a, b| a == b);
    let mut out = String::new();
    for run in runs {
        if run.len() < 32 {
            out += &hex::encode(run);
        } else {
            out += &format!("\n{:02x}*{}\n", run[0], run.len());
        }
    }
    out.trim().to_owned()
}

fn read(file: &[u8]) -> Option<(Code, Vec<u8>)> {
    let mut lines = file.splitn(4, |b| *b == b'\n');
    let code = std::str::from_utf8(lines.next()?).ok()?.strip_prefix("# code ")?;
    let (number, name) = code.split_once(' ')?;
    let code = Code::from_number(number.parse().ok()?).filter(|code| code.name() == name)?;
    lines.next()?;
    let (kind, rest) = (lines.next()?, lines.next()?);
    let bytes = match kind {
        b"text" => rest.to_vec(),
        b"hex" => std::str::from_utf8(rest).ok()?.split_whitespace().map(part).collect::<Option<Vec<_>>>()?.concat(),
        _ => return None,
    };
    Some((code, bytes))
}

fn part(text: &str) -> Option<Vec<u8>> {
    match text.split_once('*') {
        Some((byte, times)) => Some(hex::decode(byte).ok()?.repeat(times.parse().ok()?)),
        None => hex::decode(text).ok(),
    }
}

fn files() -> BTreeMap<(String, String), Vec<u8>> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("a file of the corpus");
    let mut files = BTreeMap::new();
    for of in fs::read_dir(folder())
        .expect("a file of the corpus")
        .map(|e| e.expect("a file of the corpus"))
        .filter(|e| e.path().is_dir())
    {
        for file in fs::read_dir(of.path()).expect("a file of the corpus").map(|e| e.expect("a file of the corpus")) {
            let bytes = fs::read(file.path()).expect("a file of the corpus");
            files.insert((of.file_name().into_string().expect("a file of the corpus"), name(file)), bytes);
        }
    }
    files
}

#[test]
fn every_bad_input_is_refused_with_its_code() {
    let files = files();
    assert!(files.len() >= 500, "{} files", files.len());
    let mut wrong = Vec::new();
    for ((of, name), file) in &files {
        let (code, bytes) = read(file).unwrap_or_else(|| panic!("{of}/{name} is not of the form of these files"));
        match try_input(of, &bytes) {
            Err(e) if e.code == code => {}
            found => wrong.push(format!("{of}/{name}: expected {}, found {found:?}", code.name())),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), files.len(), wrong.join("\n"));
    let mut inputs = BTreeMap::new();
    for ((of, name), file) in &files {
        let other = inputs.insert((of, read(file).map(|(_, bytes)| bytes)), name);
        assert_eq!(other, None, "{of}/{name} is the same input");
    }
}

#[test]
fn the_files_are_those_that_the_rules_make() {
    let cases = bad::cases();
    let expected: BTreeMap<(String, String), Vec<u8>> =
        cases.iter().map(|c| ((c.of.to_owned(), c.name.clone()), write(c))).collect();
    let mut names: Vec<_> = cases.iter().map(|c| (c.of, &c.name)).collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
    if std::env::var_os("FLORIN_REGENERATE").is_some() {
        for ((of, name), bytes) in &expected {
            fs::create_dir_all(folder().join(of)).expect("a file of the corpus");
            fs::write(folder().join(of).join(name), bytes).expect("a file of the corpus");
        }
    }
    for case in &cases {
        assert_eq!(read(&write(case)), Some((case.code, case.bytes.clone())), "{}/{}", case.of, case.name);
    }
    let found = files();
    let missing: Vec<_> =
        expected.iter().filter(|(key, bytes)| found.get(*key) != Some(*bytes)).map(|(k, _)| k).collect();
    let more: Vec<_> = found.keys().filter(|key| !expected.contains_key(*key)).collect();
    assert!(missing.is_empty() && more.is_empty(), "to be written anew: {missing:?}, to be removed: {more:?}");
}

/// What the inputs are made of is good before one thing in it is made bad.
#[test]
fn what_is_broken_was_whole() {
    let all = bad::whole().into_iter().map(|(of, name, bytes)| (format!("{of}: {name}"), try_input(of, &bytes)));
    let refused: Vec<_> = all.filter(|(_, found)| found.is_err()).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}
