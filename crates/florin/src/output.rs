//! What commands print: data on stdout, everything else on stderr, one JSON value with `--json`.

use std::io::Write;

use florin_core::{Code, Error};
use serde_json::{Value, json};

/// How to print.
#[derive(Clone, Copy)]
pub struct Output {
    /// `--json`.
    pub json: bool,
    /// `--verbose`.
    pub verbose: bool,
}

impl Output {
    /// The command's data: `text` for people, `value` for programs.
    pub fn data(&self, text: impl std::fmt::Display, value: &Value) {
        let mut out = std::io::stdout().lock();
        // A closed pipe is the reader's choice, not an error.
        let _ = match self.json {
            true => writeln!(out, "{value}"),
            false => writeln!(out, "{text}"),
        };
    }

    /// Progress and hints for people.
    pub fn note(&self, text: impl std::fmt::Display) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Details that `--verbose` asks for.
    pub fn detail(&self, text: impl std::fmt::Display) {
        if self.verbose {
            self.note(text);
        }
    }

    /// An error: what happened, its code, what to do next.
    pub fn error(&self, e: &Error) {
        if self.json {
            let value = json!({"error": {"code": e.code as u32, "name": e.code.name(), "message": e.message,
                "next_step": e.code.next_step(), "pending_order": hex::encode(&e.pending_order)}});
            let _ = writeln!(std::io::stdout().lock(), "{value}");
        }
        self.note(format_args!("error {} {}: {}", e.code as u32, e.code.name(), e.message));
        self.note(format_args!("  next: {}", e.code.next_step()));
    }
}

/// Exit status by class of error: 2 for what the caller gave (also what clap refuses), 3 for what the
/// committee refuses, 4 for what can't be reached or is undecided, 5 for an authority's storage, 6 for a
/// failed audit, 7 for evidence that more than f authorities misbehaved.
pub fn exit_status(code: Code) -> u8 {
    match code {
        Code::AuditFailed => 6,
        Code::ConflictingCertificate => 7,
        Code::Unreachable | Code::Timeout | Code::QuorumUnreachable | Code::Undecided | Code::Busy | Code::NotFinal => {
            4
        }
        Code::CashNotReady => 4,
        _ => match code as u32 {
            800.. => 2,
            700..=799 => 5,
            _ => 3,
        },
    }
}
