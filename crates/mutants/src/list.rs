//! What cargo-mutants would change.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::Result;

/// One change of one expression.
#[derive(Clone, Debug, Deserialize)]
pub struct Mutant {
    /// Where, and what becomes what: `src/a.rs:1:2: replace + with - in f`.
    pub name: String,
    /// From the workspace's folder.
    pub file: String,
    /// Its kind.
    pub genre: Genre,
    /// In place of what the span has.
    pub replacement: String,
    /// What is replaced.
    pub span: Span,
    /// Where it is, unless in a constant.
    pub function: Option<Function>,
}

/// A kind of change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum Genre {
    /// An operator between two expressions.
    BinaryOperator,
    /// One before an expression goes.
    UnaryOperator,
    /// A function does nothing and returns this.
    FnValue,
    /// An arm of a `match` goes.
    MatchArm,
    /// Its guard is always true, or never.
    MatchArmGuard,
    /// A field of a struct has its default value.
    StructField,
}

/// A function.
#[derive(Clone, Debug, Deserialize)]
pub struct Function {
    /// As it is written, with its arrow.
    pub return_type: String,
}

/// A part of a file; where it ends, the code itself says.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Span {
    /// Its first character.
    pub start: Point,
}

/// A character of a file.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Point {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Mutant {
    /// Whether its function returns some type that only its body says: a switch would need another `return` of that type.
    pub fn returns_unnamed(&self) -> bool {
        self.genre == Genre::FnValue && self.function.as_ref().is_some_and(|f| f.return_type.contains("impl "))
    }
}

/// Asks cargo-mutants for those of a package.
pub fn list(root: &Path, package: &str) -> Result<Vec<Mutant>> {
    let out = Command::new("cargo")
        .args(["mutants", "--list", "--json", "--package", package])
        .current_dir(root)
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(
            format!("`cargo mutants --list` failed; is it installed (`cargo install cargo-mutants`)? {said}").into()
        );
    }
    Ok(serde_json::from_slice(&out.stdout)?)
}
