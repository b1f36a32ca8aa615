//! All seeds that are checked in, and mutations of them, as plain tests; and the files that cargo-fuzz needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use florin_fuzz::mutate::mutation;
use florin_fuzz::{TARGETS, Target, run};

use crate::made;

/// Bytes of the whole corpus: it is cloned with the repository.
const CORPUS_BYTES_MAX: u64 = 2 << 20;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries.map(|e| e.expect("a file of the corpus").file_name().into_string().expect("a file of the corpus")).collect()
}

fn targets() -> BTreeSet<String> {
    TARGETS.iter().map(|t| t.name.to_owned()).collect()
}

#[test]
fn cargo_fuzz_has_a_file_for_every_target_and_every_target_has_seeds() {
    assert!(TARGETS.len() >= 30 && targets().len() == TARGETS.len());
    let files: BTreeSet<String> = targets().iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&folder().join("fuzz_targets")), files);
    let manifest: toml::Table = fs::read_to_string(folder().join("Cargo.toml"))
        .expect("a file of the corpus")
        .parse()
        .expect("a file of the corpus");
    let bins = manifest["bin"].as_array().expect("a file of the corpus").iter();
    assert_eq!(
        bins.map(|bin| bin["name"].as_str().expect("a file of the corpus").to_owned()).collect::<BTreeSet<_>>(),
        targets()
    );
    for name in targets() {
        let expected =
            format!("#![no_main]\nlibfuzzer_sys::fuzz_target!(|bytes: &[u8]| florin_fuzz::run(\"{name}\", bytes));\n");
        assert_eq!(
            fs::read_to_string(folder().join(format!("fuzz_targets/{name}.rs"))).expect("a file of the corpus"),
            expected
        );
    }
    assert_eq!(names(&folder().join("corpus")), targets(), "folders of seeds");
}

/// Those that begin with `made-` are what the code in `made` writes; `FLORIN_REGENERATE=1` writes them anew.
#[test]
fn seeds_that_are_made_are_those_that_are_checked_in() {
    let made = made::seeds();
    for (target, name, bytes) in &made {
        let path = folder().join(format!("corpus/{target}/made-{name}"));
        if std::env::var_os("FLORIN_REGENERATE").is_some() {
            fs::create_dir_all(path.parent().expect("a file of the corpus")).expect("a file of the corpus");
            fs::write(&path, bytes).expect("a file of the corpus");
        }
        assert!(fs::read(&path).is_ok_and(|found| found == *bytes), "{} is not what is made", path.display());
    }
    let expected: BTreeSet<(String, String)> =
        made.into_iter().map(|(t, n, _)| (t.into(), format!("made-{n}"))).collect();
    let of =
        |target: String| names(&folder().join("corpus").join(&target)).into_iter().map(move |n| (target.clone(), n));
    let found = targets().into_iter().flat_map(of).filter(|(_, name)| name.starts_with("made-"));
    assert_eq!(found.collect::<BTreeSet<_>>(), expected);
}

/// Says which input it was, if the thread panics.
struct Shown<'a>(&'a str, &'a Path, Option<u32>);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {}, seed {}, mutation {:?}", self.0, self.1.display(), self.2);
        }
    }
}

fn run_seeds(target: &Target) -> (usize, u64) {
    let (mut count, mut size) = (0, 0);
    for name in names(&folder().join("corpus").join(target.name)) {
        let path = folder().join(format!("corpus/{}/{name}", target.name));
        let seed = fs::read(&path).expect("a file of the corpus");
        size += seed.len() as u64;
        count += 1;
        for number in std::iter::once(None).chain((0..target.mutations).map(Some)) {
            let shown = Shown(target.name, &path, number);
            run(target.name, &number.map_or_else(|| seed.clone(), |number| mutation(&seed, number)));
            drop(shown);
        }
    }
    (count, size)
}

#[test]
fn all_seeds_and_their_mutations_keep_what_the_targets_promise() {
    let (next, size, broken) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || {
        while let Some(target) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = std::time::Instant::now();
            match std::panic::catch_unwind(|| run_seeds(target)) {
                Ok((count, bytes)) => {
                    assert!(count > 0, "{} has no seeds", target.name);
                    size.fetch_add(bytes as usize, Ordering::Relaxed);
                    println!("{}: {count} seeds, {bytes} bytes, {:?}", target.name, started.elapsed());
                }
                Err(_) => broken.lock().expect("no panic under this lock").push(target.name),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(worker))));
    assert_eq!(broken.into_inner().expect("all are done"), [""; 0], "promises that were broken, see above");
    assert!(size.into_inner() as u64 <= CORPUS_BYTES_MAX, "the corpus has grown too large");
}
