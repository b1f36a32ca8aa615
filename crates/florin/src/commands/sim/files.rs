//! Runs in files: written, run again, made smaller.

use std::path::{Path, PathBuf};

use florin_core::{Code, Error, Result};
use florin_sim::saved::{FORMAT, Saved, kind, run_caught};
use florin_sim::shrink;
use serde_json::json;

use crate::commands::support::{fail_with_report, io, read_text};
use crate::output::Output;

/// Options of `sim replay`.
#[derive(clap::Args)]
pub struct ReplayArgs {
    /// What `sim run --out`, `sim soak --out` or `sim shrink` wrote
    file: PathBuf,
}

/// Options of `sim shrink`.
#[derive(clap::Args)]
pub struct ShrinkArgs {
    /// What `sim run --out` or `sim soak --out` wrote, with a violation
    file: PathBuf,
    /// Where the smaller one goes; by default beside it, with -small in its name
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The kind of violation to keep, as OneCertificate; by default that of the first
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// Give up looking for a smaller one after so many runs
    #[arg(long, default_value_t = 300)]
    runs: u64,
}

/// Writes one, over an older one. Errors: `IO`.
pub fn write(path: &Path, saved: &Saved) -> Result<()> {
    let text = serde_json::to_string_pretty(saved).expect("it has no maps with odd keys");
    std::fs::write(path, text + "\n").map_err(|e| io("write", path, &e))
}

fn read(path: &Path) -> Result<Saved> {
    let bad = |what: String| Error::new(Code::BadFile, format!("{}: {what}", path.display()));
    let saved: Saved = serde_json::from_str(&read_text(path)?).map_err(|e| bad(format!("no saved run: {e}")))?;
    if saved.format != FORMAT {
        return Err(bad(format!("a saved run of format {}, expected {FORMAT}", saved.format)));
    }
    super::check_options(&saved.options).map_err(|e| bad(e.message))?;
    Ok(saved)
}

/// Runs it again.
pub fn replay(args: &ReplayArgs, out: Output) -> Result<()> {
    let saved = read(&args.file)?;
    let report = run_caught(&saved.options, None);
    let (same_trace, same_violations) = (report.trace == saved.trace, report.violations == saved.violations);
    let says = |same| if same { "the same" } else { "not the same as in the file" };
    let text = format!("{report}\nthe trace is {}; the violations are {}", says(same_trace), says(same_violations));
    let value = json!({"report": report, "same_trace": same_trace, "same_violations": same_violations});
    if report.violations.is_empty() {
        out.data(text, &value);
        return Ok(());
    }
    let e = Error::new(Code::AuditFailed, format!("{} promises broken", report.violations.len()));
    fail_with_report(out, &text, value, &e)
}

/// Looks for a smaller one.
pub fn shrink(args: &ShrinkArgs, out: Output) -> Result<()> {
    let saved = read(&args.file)?;
    let broken = || run_caught(&saved.options, None).violations.first().map(|v| kind(v).to_owned());
    let rule = args.rule.clone().or_else(|| saved.first_kind().map(str::to_owned)).or_else(broken);
    let rule = rule.ok_or_else(|| {
        let what = format!("{}: the run breaks no rule: there is nothing to keep", args.file.display());
        Error::new(Code::Usage, what)
    })?;
    let small = shrink::shrink(&saved.options, &rule, args.runs, |runs, options, report| {
        let (events, seconds, off) = (report.events, options.seconds, options.off.len());
        out.note(format_args!(
            "{runs} runs: seed {}, {events} events, {seconds} s, {} wallets, {off} parts left out",
            options.seed, options.wallets
        ));
    });
    let small = small.ok_or_else(|| {
        let what = format!("{}: this run does not break {rule}", args.file.display());
        Error::new(Code::Usage, what)
    })?;
    let path = args.out.clone().unwrap_or_else(|| {
        let stem = args.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        args.file.with_file_name(format!("{stem}-small.json"))
    });
    let events = small.report.events;
    let written = Saved::new(small.options, &small.report);
    write(&path, &written)?;
    let text = format!(
        "{rule}: {} events before, {events} now, found with {} runs; written to {}\n{}",
        saved.events,
        small.runs,
        path.display(),
        small.report
    );
    let before = saved.events;
    out.data(text, &json!({"file": path, "events_before": before, "runs": small.runs, "saved": written}));
    Ok(())
}

#[cfg(test)]
mod tests {
    use florin_sim::{Options, Shell};

    use super::*;

    const OUT: Output = Output { json: true, verbose: false };

    fn saved(options: Options) -> Saved {
        let report = run_caught(&options, None);
        Saved::new(options, &report)
    }

    #[test]
    fn a_file_is_made_smaller_and_replayed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.json");
        let shell = Shell::RepliesBeforeSync;
        let bad = saved(Options { shell, seconds: 2, attackers: false, ..Options::new(1) });
        write(&path, &bad).unwrap();
        shrink(&ShrinkArgs { file: path.clone(), out: None, rule: None, runs: 8 }, OUT).unwrap();
        let small = read(&folder.path().join("bad-small.json")).unwrap();
        assert!(small.events < bad.events && !small.violations.is_empty(), "{small:?}");

        let good = saved(Options { seconds: 1, ..Options::new(1) });
        write(&path, &good).unwrap();
        replay(&ReplayArgs { file: path.clone() }, OUT).unwrap();
        let none = shrink(&ShrinkArgs { file: path, out: None, rule: None, runs: 8 }, OUT).unwrap_err();
        assert_eq!(none.code, Code::Usage);
    }

    #[test]
    fn what_is_no_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("odd.json");
        let good =
            Saved { format: FORMAT, options: Options::new(1), trace: String::new(), events: 0, violations: Vec::new() };
        let cases = [
            Saved { format: FORMAT + 1, ..good.clone() },
            Saved { options: Options { authorities: 3, ..Options::new(1) }, ..good.clone() },
            Saved { options: Options { wallets: 0, ..Options::new(1) }, ..good.clone() },
            Saved { options: Options { liars_beyond: 3, ..Options::new(1) }, ..good.clone() },
        ];
        for case in cases {
            write(&path, &case).unwrap();
            assert_eq!(read(&path).unwrap_err().code, Code::BadFile, "{case:?}");
        }
        write(&path, &good).unwrap();
        assert_eq!(read(&path).unwrap(), good);
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(read(&path).unwrap_err().code, Code::BadFile);
    }
}
