//! Passphrases and seed words: from a file, from stdin, or asked for without showing them.

use std::io::IsTerminal;
use std::path::Path;

use florin_core::{Code, Error, Result};
use zeroize::Zeroizing;

/// The passphrase of a wallet. Errors: `BAD_FILE`; `USAGE` without a terminal to ask on.
pub fn passphrase(file: Option<&Path>, wallet: &Path) -> Result<Zeroizing<String>> {
    match file {
        Some(file) => line_of(file),
        None => ask(&format!("Passphrase of {}: ", wallet.display()), "--passphrase-file"),
    }
}

/// A passphrase for a new wallet, asked for twice. An empty one only from a file, where nobody types it by mistake.
pub fn new_passphrase(file: Option<&Path>, wallet: &Path) -> Result<Zeroizing<String>> {
    if let Some(file) = file {
        return line_of(file);
    }
    let first = ask(&format!("New passphrase for {}: ", wallet.display()), "--passphrase-file")?;
    if first.is_empty() {
        return Err(Error::new(
            Code::Usage,
            "the passphrase is empty: anyone who copies the file would have the money",
        ));
    }
    if *first != *ask("The same again: ", "--passphrase-file")? {
        return Err(Error::new(Code::Usage, "the two passphrases differ"));
    }
    Ok(first)
}

/// Seed words.
pub fn words(file: Option<&Path>) -> Result<Zeroizing<String>> {
    match file {
        Some(file) if file != Path::new("-") => read(file),
        Some(stdin) => line_of(stdin),
        None => ask("Seed words (12 or 24, not shown): ", "--words-file"),
    }
}

fn ask(prompt: &str, option: &str) -> Result<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::new(Code::Usage, format!("there is no terminal to ask on: give {option}")));
    }
    let answer = rpassword::prompt_password(prompt).map(Zeroizing::new);
    answer.map_err(|e| Error::new(Code::Usage, format!("cannot ask: {e}; give {option}")))
}

/// The first line of a file, or the next one of stdin for `-`.
fn line_of(file: &Path) -> Result<Zeroizing<String>> {
    let text = if file == Path::new("-") {
        let mut line = Zeroizing::new(String::new());
        let read = std::io::stdin().read_line(&mut line);
        let read = read.map_err(|e| Error::new(Code::BadFile, format!("stdin: {e}")))?;
        if read == 0 {
            return Err(Error::new(Code::BadFile, "stdin: expected a line, found its end"));
        }
        line
    } else {
        read(file)?
    };
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn read(file: &Path) -> Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    text.map_err(|e| Error::new(Code::BadFile, format!("{}: {e}", file.display())))
}
