//! What the operator's commands share: new files, relative paths, passphrases, ports, tables, failed reports.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, IsTerminal, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use florin_core::{Code, Error, Result};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::output::{Output, exit_status};

/// Mode of files that everyone may read.
pub const PUBLIC: u32 = 0o644;
/// Mode of files with secrets.
pub const PRIVATE: u32 = 0o600;

/// Creates a file, never over another. Errors: `ALREADY_EXISTS`, `IO`.
pub fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    open.and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all())).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => exists(path),
        _ => io("write", path, &e),
    })
}

/// Refuses if anything is at one of the paths. Errors: `ALREADY_EXISTS`.
pub fn need_vacant<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    match paths.into_iter().find(|path| fs::symlink_metadata(path).is_ok()) {
        Some(path) => Err(exists(path)),
        None => Ok(()),
    }
}

fn exists(path: &Path) -> Error {
    Error::new(Code::AlreadyExists, format!("{} exists; nothing is overwritten", path.display()))
}

/// Makes a folder with all above it. Errors: `IO`.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| io("make the folder", path, &e))
}

/// Reads a text file. Errors: `BAD_FILE`.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::new(Code::BadFile, format!("{}: {e}", path.display())))
}

/// `IO`, naming what was done to which file.
pub fn io(what: &str, path: &Path, cause: &std::io::Error) -> Error {
    Error::new(Code::Io, format!("cannot {what} {}: {cause}", path.display()))
}

/// How a file in `folder` names `path`: relative if it is below, else absolute. Both must exist. Errors: `BAD_FILE`.
pub fn seen_from(folder: &Path, path: &Path) -> Result<PathBuf> {
    let find = |p: &Path| p.canonicalize().map_err(|e| Error::new(Code::BadFile, format!("{}: {e}", p.display())));
    let (folder, path) = (find(folder)?, find(path)?);
    Ok(path.strip_prefix(&folder).map(Path::to_owned).unwrap_or(path))
}

/// A passphrase for a new wallet: the first line of a file, or asked for twice.
/// Errors: `BAD_FILE`; `USAGE` without a terminal to ask on, or if the two differ.
pub fn new_passphrase(file: Option<&Path>, wallet: &Path) -> Result<Zeroizing<String>> {
    if let Some(path) = file {
        let text = Zeroizing::new(read_text(path)?);
        return Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::new(Code::Usage, "there is no terminal to ask for a passphrase on: give --passphrase-file"));
    }
    let ask = |prompt: String| {
        let answer = rpassword::prompt_password(prompt).map(Zeroizing::new);
        answer.map_err(|e| Error::new(Code::Usage, format!("cannot ask for the passphrase: {e}")))
    };
    let first = ask(format!("New passphrase for {}: ", wallet.display()))?;
    if *first != *ask("The same again: ".into())? {
        return Err(Error::new(Code::Usage, "the two passphrases differ"));
    }
    Ok(first)
}

/// Fresh random bytes. Errors: `IO`.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    florin_client::keystore::new_entropy()
}

/// `host:port`, with brackets around an IPv6 address.
pub fn host_port(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The first of `count` ports in a row: `port`, or free ones of this machine if it is 0.
/// Errors: `USAGE` if they go beyond 65535, `IO` if none are free.
pub fn ports(host: &str, port: u16, count: u32) -> Result<u16> {
    if port != 0 {
        let last = u32::from(port) + count.saturating_sub(1);
        let fits = u16::try_from(last).map(|_| port);
        return fits.map_err(|_| Error::expected(Code::Usage, "last port", "at most 65535", last));
    }
    // Below those that systems give to outgoing connections: one of them could take the port before we do.
    const FROM: u32 = 10_000;
    const TO: u32 = 32_000;
    for _ in 0..200 {
        let span = TO - FROM;
        if count >= span {
            break;
        }
        let start = FROM + u32::from_be_bytes(*random::<4>()?) % (span - count);
        let bind = |port: u32| TcpListener::bind(host_port(host, port as u16));
        let bound: std::io::Result<Vec<_>> = (start..start + count).map(bind).collect();
        match bound {
            Ok(_) => return Ok(start as u16),
            Err(e) if e.kind() == ErrorKind::AddrInUse => {}
            Err(e) => return Err(Error::new(Code::Io, format!("looking for free ports on {host}: {e}"))),
        }
    }
    Err(Error::new(Code::Io, format!("found no {count} free ports in a row on {host}")))
}

/// Columns aligned, the first row as the head.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out.truncate(out.trim_end().len());
    out
}

/// Names and values, one a line.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let rows: Vec<_> = pairs.iter().map(|(name, value)| vec![format!("{name}:"), value.clone()]).collect();
    table(&rows)
}

/// Ends a command that found something wrong and has a whole report to print: with `--json` the report and the error
/// are the one JSON value.
pub fn fail_with_report(out: Output, text: &str, mut value: Value, e: &Error) -> ! {
    if let (true, Value::Object(fields)) = (out.json, &mut value) {
        let error = json!({"code": e.code as u32, "name": e.code.name(), "message": e.message,
            "next_step": e.code.next_step()});
        fields.insert("error".into(), error);
    }
    out.data(text, &value);
    Output { json: false, ..out }.error(e);
    std::process::exit(exit_status(e.code).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stay_in_range() {
        assert_eq!(ports("127.0.0.1", 65_528, 8).unwrap(), 65_528);
        assert_eq!(ports("127.0.0.1", 65_529, 8).unwrap_err().code, Code::Usage);
        let free = ports("127.0.0.1", 0, 16).unwrap();
        assert!((10_000..32_000).contains(&free));
        assert_eq!(host_port("::1", 7), "[::1]:7");
    }

    #[test]
    fn tables_align() {
        let rows = vec![vec!["a".into(), "long".into()], vec!["ééé".into(), "b".into()]];
        assert_eq!(table(&rows), "a    long\nééé  b");
    }
}
