//! Runs tests, first to see which mutants each of them reaches, then against each mutant.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::instrument::Id;

/// Beyond this a test's process is stopped, as often as it took without a mutant, and this much.
const PATIENCE: (u32, Duration) = (5, Duration::from_secs(8));
/// Tests go into one process until they take this long together; twice that the next time, and so on to the second.
const FIRST: Duration = Duration::from_millis(300);
const MOST: Duration = Duration::from_secs(3);
/// Memory that a process may ask for, kB: a mutant may ask for all there is.
const MEMORY_KB: u32 = 8 << 20;

/// A test.
#[derive(Clone, Debug)]
pub struct Test {
    /// The program it is in.
    pub program: PathBuf,
    /// As the program knows it.
    pub name: String,
    /// What it took without a mutant.
    pub took: Duration,
    /// Mutants that it comes by.
    pub reached: Vec<Id>,
}

/// What became of a mutant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A test failed, this one.
    Killed(String),
    /// Tests reach it and none fails.
    Survived,
    /// No test reaches it.
    Unreached,
}

/// All tests of the programs that pass, with what they reach.
pub fn survey(
    programs: &[PathBuf],
    folder: &Path,
    scratch: &Path,
    jobs: usize,
    tick: &(dyn Fn() + Sync),
) -> Result<Vec<Test>> {
    let mut names = Vec::new();
    for program in programs {
        let out = Command::new(program).args(["--list", "--format", "terse"]).current_dir(folder).output()?;
        let text = String::from_utf8(out.stdout)?;
        let of_program = text.lines().filter_map(|l| l.strip_suffix(": test"));
        names.extend(of_program.map(|name| (program.clone(), name.to_owned())));
    }
    fs::create_dir_all(scratch)?;
    let tests = parallel(jobs, names.len(), |i| {
        let (program, name) = &names[i];
        let file = scratch.join(format!("{i}.reached"));
        let started = Instant::now();
        let mut command = command(program, folder, &[name]);
        let status = command.env("MUTANTS_REACHED", &file).status().map_err(|e| format!("{name}: {e}"));
        let took = started.elapsed();
        let ids = fs::read(&file).unwrap_or_default();
        // Nothing to remove if it came by none.
        let _ = fs::remove_file(&file);
        let reached = ids.chunks_exact(4).map(|b| Id::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        tick();
        status.map(|s| s.success().then(|| Test { program: program.clone(), name: name.clone(), took, reached }))
    });
    let tests = tests.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(tests.into_iter().flatten().collect())
}

/// Runs the tests that reach each mutant, the quickest first, until one fails.
pub fn judge(
    tests: &[Test],
    mutants: &[Id],
    folder: &Path,
    slow: Duration,
    jobs: usize,
    tick: &(dyn Fn(Id, &Verdict) + Sync),
) -> Vec<(Id, Verdict)> {
    let mut by_mutant: BTreeMap<Id, Vec<&Test>> = BTreeMap::new();
    for test in tests {
        for id in &test.reached {
            by_mutant.entry(*id).or_default().push(test);
        }
    }
    by_mutant.values_mut().for_each(|of| of.sort_by_key(|t| t.took));
    parallel(jobs, mutants.len(), |i| {
        let id = mutants[i];
        let verdict = by_mutant.get(&id).map_or(Verdict::Unreached, |of| {
            let quick: Vec<&Test> = of.iter().filter(|t| t.took <= slow).copied().collect();
            first_failure(id, &quick, folder).map_or(Verdict::Survived, Verdict::Killed)
        });
        tick(id, &verdict);
        (id, verdict)
    })
}

fn first_failure(id: Id, mut tests: &[&Test], folder: &Path) -> Option<String> {
    let mut most = FIRST;
    while let Some(first) = tests.first() {
        let mut sum = Duration::ZERO;
        let together = tests.iter().take_while(|t| {
            sum += t.took;
            t.program == first.program && (sum <= most || sum == t.took)
        });
        let (now, later) = tests.split_at(together.count());
        most = MOST.min(most * 2);
        tests = later;
        let names: Vec<&str> = now.iter().map(|t| t.name.as_str()).collect();
        let took: Duration = now.iter().map(|t| t.took).sum();
        let mut command = command(&first.program, folder, &names);
        command.env("MUTANT", id.to_string());
        if let Some(failed) = failure(&mut command, took * PATIENCE.0 + PATIENCE.1) {
            return Some(failed.unwrap_or_else(|| names.join(", ")));
        }
    }
    None
}

/// Its tests one after the other, in a shell that bounds its memory.
fn command(program: &Path, folder: &Path, tests: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {MEMORY_KB}; exec \"$0\" \"$@\"")]).arg(program).arg("--exact").args(tests);
    command.current_dir(folder).env("CARGO_MANIFEST_DIR", folder).env("RUST_TEST_THREADS", "1");
    // Property tests keep what failed beside the code.
    command.env("PROPTEST_FAILURE_PERSISTENCE", "off");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Whether a test fails, or takes too long; and which, if it says so.
fn failure(command: &mut Command, patience: Duration) -> Option<Option<String>> {
    let Ok(mut child) = command.spawn() else { return Some(None) };
    let stdout = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut said = String::new();
        if let Some(mut out) = stdout {
            let _ = std::io::Read::read_to_string(&mut out, &mut said);
        }
        said
    });
    let deadline = Instant::now() + patience;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let said = reader.join().unwrap_or_default();
    if status.is_some_and(|s| s.success()) {
        return None;
    }
    let name = |l: &str| l.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned);
    Some(said.lines().find_map(name))
}

/// Does `what` for 0 to `count` in some threads; the results in order.
fn parallel<T: Send>(jobs: usize, count: usize, what: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        return;
                    }
                    let result = what(i);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}
