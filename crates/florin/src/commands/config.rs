//! `florin config`: says everything that is wrong with files before an authority is started with them.

mod checks;

use std::path::PathBuf;

use clap::Subcommand;
use florin_core::{Code, Error, Result};
use serde_json::json;

use super::support::fail_with_report;
use crate::output::Output;
use checks::{Level, Report};

/// Subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Check committee files, authority files and public parts, with all that they name
    Check(CheckArgs),
}

/// Options of `config check`.
#[derive(clap::Args)]
pub struct CheckArgs {
    /// Committee files, authority files, public parts
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Runs one.
pub fn run(command: Command, out: Output) -> Result<()> {
    let Command::Check(args) = command;
    let mut report = Report::default();
    for file in &args.files {
        report.check(file);
    }
    let lines = report.lines.iter().map(|l| format!("{:5} {}: {}", l.level.name(), l.file.display(), l.what));
    let text = lines.collect::<Vec<_>>().join("\n");
    let value = report
        .lines
        .iter()
        .map(|l| json!({"level": l.level.name(), "file": l.file, "message": l.what, "code": l.code.map(|c| c.name())}));
    let value = json!({"checks": value.collect::<Vec<_>>()});
    let errors: Vec<_> = report.lines.iter().filter(|l| l.level == Level::Error).collect();
    match errors.first() {
        None => {
            out.data(text, &value);
            Ok(())
        }
        Some(first) => {
            let message =
                format!("{} problems found, the first: {}: {}", errors.len(), first.file.display(), first.what);
            fail_with_report(out, &text, value, &Error::new(first.code.unwrap_or(Code::BadConfig), message))
        }
    }
}
