//! Lines in a file, each transaction once.
//!
//! Lines are appended and synced, then the cursor is stored with the file's length. A crash between the two leaves lines
//! that the cursor does not know: the next run reads them, cuts off what is torn, and counts the others as delivered.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use florin_client::listener::{APPLICATION, Change, Delivery, delivered};
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result};

use super::line;
use crate::commands::support::io;

/// The file.
pub struct OutFile {
    file: File,
    path: PathBuf,
    length: u64,
}

fn key() -> Vec<u8> {
    [&[APPLICATION], &b"out"[..]].concat()
}

fn length_change(length: u64) -> Change {
    // With a byte before, so that no length is an empty value.
    Change { key: key(), value: [&[1], &length.to_be_bytes()[..]].concat() }
}

impl OutFile {
    /// Opens the file, and says what the cursor lacks of it. Errors: `BAD_FILE` if it is not the one that the cursor was
    /// stored with; `IO`.
    pub fn open(
        path: &Path,
        stored: &[Change],
        committee: &Committee,
        network_id: u64,
    ) -> Result<(OutFile, Vec<Change>)> {
        let known = stored.iter().rev().find(|c| c.key == key());
        let known = known.and_then(|c| Some(u64::from_be_bytes(c.value.get(1..)?.try_into().ok()?)));
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(|e| io("open", path, &e))?;
        let found = file.metadata().map_err(|e| io("read", path, &e))?.len();
        let from = known.unwrap_or(0);
        if known.is_none() && (found > 0 || !stored.is_empty()) {
            let message =
                format!("{} and the cursor do not belong together: use a new file with a new cursor", path.display());
            return Err(Error::new(Code::BadFile, message));
        }
        if found < from {
            let what = format!("bytes of {}", path.display());
            return Err(Error::expected(Code::BadFile, &what, format!("at least {from}, as the cursor says"), found));
        }
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut tail)).map_err(|e| io("read", path, &e))?;
        let (mut whole, mut lines) = (0, Vec::new());
        for raw in tail.split_inclusive(|b| *b == b'\n') {
            let text = raw.strip_suffix(b"\n").and_then(|raw| std::str::from_utf8(raw).ok());
            // What follows is not synced yet either: it comes again.
            let Some(read) = text.and_then(line::read) else { break };
            lines.push(read);
            whole += raw.len() as u64;
        }
        let length = from + whole;
        let cut = if length < found { file.set_len(length) } else { Ok(()) };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        cut.and_then(|()| file.sync_all())
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|e| io("make durable", path, &e))?;
        let mut changes = delivered(stored, committee, network_id, lines)?;
        if known != Some(length) {
            changes.push(length_change(length));
        }
        Ok((OutFile { file, path: path.to_owned(), length }, changes))
    }

    /// Appends lines, durably, and says what is to be stored of it. Errors: `IO`; then only opening again tells what is
    /// there.
    pub fn append(&mut self, deliveries: &[Delivery]) -> Result<Change> {
        let mut text = String::new();
        for delivery in deliveries {
            text.push_str(&line::json_of(delivery).to_string());
            text.push('\n');
        }
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|e| io("append to", &self.path, &e))?;
        self.length += text.len() as u64;
        Ok(length_change(self.length))
    }
}
