//! Benchmarks that run others, each as a process of its own.

use std::process::{Command, Stdio};

use florin_core::{Code, Error, Result};
use serde_json::Value;

/// Runs a command of this binary with `--json`; what it prints. Its progress goes where ours does. Errors: `IO`, with what the
/// command said.
pub fn run(args: &[&str]) -> Result<Value> {
    let failed = |what: String| Error::new(Code::Io, format!("florin {}: {what}", args.join(" ")));
    let exe = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
    let mut command = Command::new(exe);
    command.arg("--json").args(args).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().map_err(|e| failed(e.to_string()))?;
    let value: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    match value {
        Some(value) if output.status.success() => Ok(value),
        Some(value) if value["error"]["message"].is_string() => {
            Err(failed(value["error"]["message"].as_str().unwrap_or_default().to_owned()))
        }
        _ => Err(failed(output.status.to_string())),
    }
}
