//! A copy of the workspace in which a package has all its mutants, built.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::Result;
use crate::instrument::{Id, Place, instrument};
use crate::list::Mutant;

const SWITCH: &str = include_str!("switch.rs");

/// Mutants that do not compile show up some at a time, as the compiler gets further each time.
const TRIES: usize = 30;

/// A copy of a workspace.
pub struct Tree {
    /// The workspace.
    pub root: PathBuf,
    /// Its copy.
    pub copy: PathBuf,
    /// Where the copy is built.
    pub target: PathBuf,
    /// The package that has the mutants.
    pub package: String,
    /// Its folder, from the workspace's.
    pub folder: String,
}

/// What became of mutants.
#[derive(Default)]
pub struct Built {
    /// In the build.
    pub placed: BTreeSet<Id>,
    /// Not in it, as they do not compile.
    pub failed: BTreeSet<Id>,
    /// Not in it, as there is no place for a switch.
    pub unplaced: BTreeSet<Id>,
}

#[derive(Deserialize)]
struct Line {
    reason: String,
    message: Option<Message>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Message {
    level: String,
    message: String,
    rendered: Option<String>,
    spans: Vec<ErrorSpan>,
}

#[derive(Deserialize)]
struct ErrorSpan {
    file_name: String,
    byte_start: usize,
    byte_end: usize,
    is_primary: bool,
}

type Places = BTreeMap<String, Vec<Place>>;

impl Tree {
    /// Copies what git knows or would take, and writes nothing that is there already: cargo looks at times.
    pub fn refresh(&self) -> Result<()> {
        let out =
            Command::new("git").args(["ls-files", "-coz", "--exclude-standard"]).current_dir(&self.root).output()?;
        if !out.status.success() {
            return Err(format!("git ls-files: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
        for file in String::from_utf8(out.stdout)?.split_terminator('\0') {
            let from = self.root.join(file);
            // The package's code is written with its mutants in it. What was deleted is still listed.
            if !from.is_file() || self.is_code(file) {
                continue;
            }
            write(&self.copy.join(file), &fs::read(from)?)?;
        }
        Ok(())
    }

    fn is_code(&self, file: &str) -> bool {
        file.strip_prefix(&self.folder).is_some_and(|f| f.starts_with("/src/")) && file.ends_with(".rs")
    }

    /// Puts all mutants in, and takes out again what the compiler names, until it is content.
    pub fn mutate(&self, mutants: &[Mutant]) -> Result<Built> {
        let mut built = Built::default();
        for _ in 0..TRIES {
            let places = self.write_code(mutants, &mut built)?;
            let out = self.cargo(&["check", "--lib", "--message-format=json"]).output()?;
            if out.status.success() {
                return Ok(built);
            }
            let guilty = guilty(&places, &out.stdout)?;
            if guilty.is_empty() {
                return Err(format!("cargo check: {}", String::from_utf8_lossy(&out.stderr)).into());
            }
            built.failed.extend(guilty);
        }
        Err(format!("mutants that do not compile were found {TRIES} times, and there are still some").into())
    }

    fn write_code(&self, mutants: &[Mutant], built: &mut Built) -> Result<Places> {
        let mut places = BTreeMap::new();
        built.placed.clear();
        let source = self.root.join(&self.folder).join("src");
        for path in files(&source)? {
            let file = path.strip_prefix(&self.root)?.to_str().ok_or("a path that is not UTF-8")?.to_owned();
            let text = fs::read_to_string(&path)?;
            let of_file: Vec<(Id, &Mutant)> = (1..)
                .zip(mutants)
                .filter(|(id, m)| m.file == file && !built.failed.contains(id) && !m.returns_unnamed())
                .collect();
            let mut out = instrument(&text, &of_file).map_err(|e| format!("{file}: {e}"))?;
            if path == source.join("lib.rs") {
                out.text += &format!("\n#[doc(hidden)]\npub mod mutants_switch {{\n{SWITCH}}}\n");
            }
            write(&self.copy.join(&file), out.text.as_bytes())?;
            built.placed.extend(out.placed);
            places.insert(file, out.places);
        }
        let known = |id: &Id| built.placed.contains(id) || built.failed.contains(id);
        built.unplaced = (1..).take(mutants.len()).filter(|id| !known(id)).collect();
        Ok(places)
    }

    /// Builds the package's tests; their programs.
    pub fn tests(&self) -> Result<Vec<PathBuf>> {
        let out = self.cargo(&["test", "--no-run", "--message-format=json"]).output()?;
        if !out.status.success() {
            return Err(format!("cargo test --no-run: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
        let lines = lines(&out.stdout)?;
        Ok(lines.into_iter().filter(|l| l.reason == "compiler-artifact").filter_map(|l| l.executable).collect())
    }

    /// Where its tests run.
    pub fn folder(&self) -> PathBuf {
        self.copy.join(&self.folder)
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.args(arguments).args(["--package", &self.package]).current_dir(&self.copy);
        // Mutants break lints, and some of them errors that are lints (what always overflows).
        cargo.env("RUSTFLAGS", "--cap-lints=allow").env("CARGO_TARGET_DIR", &self.target);
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
        cargo.env("CARGO_INCREMENTAL", "0");
        cargo
    }
}

fn lines(stdout: &[u8]) -> Result<Vec<Line>> {
    let text = std::str::from_utf8(stdout)?;
    Ok(text.lines().filter(|l| l.starts_with('{')).map(serde_json::from_str).collect::<std::result::Result<_, _>>()?)
}

/// The mutants in whose places the compiler found something. An error that is in none of them ends it.
fn guilty(places: &Places, stdout: &[u8]) -> Result<BTreeSet<Id>> {
    let mut guilty = BTreeSet::new();
    for message in lines(stdout)?.into_iter().filter_map(|l| l.message) {
        if message.level != "error" || message.spans.is_empty() {
            continue;
        }
        let arms = message.message.contains("non-exhaustive");
        // What it points at first, then what it mentions.
        let (first, second) = message.spans.iter().partition::<Vec<_>, _>(|s| s.is_primary);
        let found = first.iter().chain(&second).find_map(|span| {
            let of_file = places.get(&span.file_name)?.iter().filter(|p| p.arms == arms);
            let around = of_file.filter(|p| p.range.start <= span.byte_start && span.byte_end <= p.range.end);
            around.min_by_key(|p| p.range.len())
        });
        match found {
            Some(place) => guilty.extend(&place.ids),
            None => return Err(message.rendered.unwrap_or(message.message).into()),
        }
    }
    Ok(guilty)
}

/// All files of Rust below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))?)
}
