//! The log: every write is one checksummed frame, appended before it is visible and durable after [`Log::handle`]'s sync.
//!
//! What a crash may do to it, and what damage is: frames after the last sync may be missing, torn, or
//! there in part; they were never acknowledged and are cut off. A frame that was synced and doesn't
//! check is damage, and the folder is refused, because leaving it out would forget a promise. The two are
//! told apart by what later frames say: each carries the number of the newest frame known durable when
//! it was written. Only the very last synced frames, with no frame after them, can't be told apart.
//!
//! Segments before the last one were synced when the next was begun; there all must check.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use florin_core::authority::state::{Table, Write};
use florin_core::error::{Code, Error, Result};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::folder::{io_error, sync_folder, write_atomic};
use super::memory::{AHEAD, DELETED, Layers, Memory};

const SEGMENT_MAGIC: [u8; 8] = *b"FLORINLG";
/// Magic, segment, number of its first frame, salt, checksum.
const SEGMENT_HEADER: usize = 40;
const FRAME_MAGIC: [u8; 4] = *b"FRME";
/// Magic, payload length, number, newest durable number, checksum.
const FRAME_HEADER: usize = 32;
const FRAME_ALIGN: usize = 8;
/// Table, key length, value length.
const WRITE_HEADER: usize = 7;
/// Bytes of one write, all its keys and values.
pub(super) const MAX_WRITE: usize = 256 << 20;

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn segment_name(segment: u64) -> String {
    format!("{segment:012}.log")
}

/// The log, open for appending.
pub(super) struct Log {
    dir: PathBuf,
    file: Arc<File>,
    segment: u64,
    salt: u64,
    /// Of the next frame.
    number: u64,
}

/// A frame's place in a segment.
struct Frame {
    number: u64,
    durable: u64,
    payload: std::ops::Range<usize>,
    end: usize,
}

/// A segment as found on disk.
struct Segment {
    path: PathBuf,
    bytes: Bytes,
    first: u64,
    salt: u64,
}

impl Log {
    /// Begins a segment. Its header is durable under its name, or the name isn't there.
    fn begin(dir: &Path, segment: u64, number: u64) -> Result<Log> {
        // Random, so that no one can craft an order whose bytes pass for a frame.
        let salt = RandomState::new().build_hasher().finish();
        let mut header = SEGMENT_MAGIC.to_vec();
        for field in [segment, number, salt] {
            header.extend(field.to_le_bytes());
        }
        header.extend(xxh3_64_with_seed(&header, salt).to_le_bytes());
        write_atomic(dir, &segment_name(segment), &header)?;
        Ok(Log { dir: dir.into(), file: append(&dir.join(segment_name(segment)))?, segment, salt, number })
    }

    /// Begins a new log.
    pub(super) fn create(dir: &Path) -> Result<Log> {
        Log::begin(dir, 1, 1)
    }

    /// Segment being written.
    pub(super) fn segment(&self) -> u64 {
        self.segment
    }

    /// The file to sync, and the number of the newest frame in it or before it.
    pub(super) fn handle(&self) -> (Arc<File>, u64) {
        (self.file.clone(), self.number - 1)
    }

    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(segment_name(self.segment))
    }

    /// Appends one frame and puts it into memory. After an error the log must not be used any more.
    pub(super) fn append(&mut self, writes: &[Write], durable: u64, layers: &RwLock<Layers>) -> Result<()> {
        let size: usize =
            writes.iter().map(|w| WRITE_HEADER + w.key.len() + w.value.as_ref().map_or(0, Vec::len)).sum();
        let mut frame = Vec::with_capacity(FRAME_HEADER + size + FRAME_ALIGN);
        frame.extend(FRAME_MAGIC);
        frame.extend((size as u32).to_le_bytes());
        frame.extend(self.number.to_le_bytes());
        frame.extend(durable.to_le_bytes());
        frame.extend([0; 8]);
        for write in writes {
            let value = write.value.as_deref();
            frame.push(write.table as u8);
            frame.extend((write.key.len() as u16).to_le_bytes());
            frame.extend(value.map_or(DELETED, |v| v.len() as u32).to_le_bytes());
            frame.extend(&write.key);
            frame.extend(value.unwrap_or_default());
        }
        let sum = checksum(&frame[..FRAME_HEADER + size], self.salt);
        frame[FRAME_HEADER - 8..FRAME_HEADER].copy_from_slice(&sum.to_le_bytes());
        frame.resize(frame.len().next_multiple_of(FRAME_ALIGN), 0);
        (&*self.file).write_all(&frame).map_err(|e| io_error("write", &self.path(), e))?;
        self.number += 1;
        let mut layers = layers.write().expect("no panic under this lock");
        let memory = &mut layers.active;
        memory.add_frame(frame.into());
        let mut at = FRAME_HEADER;
        for writes in writes.chunks(AHEAD) {
            memory.put_all(writes.iter().map(|write| {
                let (key_at, value_len) = (at + WRITE_HEADER, write.value.as_ref().map_or(DELETED, |v| v.len() as u32));
                at = key_at + write.key.len() + write.value.as_ref().map_or(0, Vec::len);
                (write.table as usize, key_at, write.key.len(), value_len)
            }));
        }
        Ok(())
    }

    /// Makes all so far durable and begins the next segment.
    pub(super) fn rotate(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| io_error("sync", &self.path(), e))?;
        *self = Log::begin(&self.dir, self.segment + 1, self.number)?;
        Ok(())
    }

    /// Removes segments that the trees hold.
    pub(super) fn remove_to(dir: &Path, last: u64) -> Result<()> {
        for segment in segments(dir)?.into_iter().filter(|s| *s <= last) {
            let path = dir.join(segment_name(segment));
            fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
        }
        sync_folder(dir)
    }

    /// Reads everything after segment `flushed` into memory. Unless `read_only`, cuts off what was never
    /// durable, makes the rest so and opens the log for appending.
    pub(super) fn recover(dir: &Path, flushed: u64, read_only: bool, memory: &mut Memory) -> Result<Option<Log>> {
        let found: Vec<u64> = segments(dir)?.into_iter().filter(|s| *s > flushed).collect();
        if found.is_empty() || found.iter().zip(flushed + 1..).any(|(found, expected)| *found != expected) {
            let what = format!("{}: segments of the log", dir.display());
            return Err(Error::expected(
                Code::StorageCorrupt,
                &what,
                format!("{} and on", flushed + 1),
                format!("{found:?}"),
            ));
        }
        let mut next = None;
        let mut log = None;
        for number in &found {
            let is_last = Some(number) == found.last();
            let segment = Segment::open(dir, *number, next)?;
            let (end, after) = segment.replay(is_last, memory)?;
            next = Some(after);
            if is_last && !read_only {
                let file = append(&segment.path)?;
                let settle = || {
                    file.set_len(end as u64)?;
                    file.sync_all()
                };
                settle().map_err(|e| io_error("cut", &segment.path, e))?;
                log = Some(Log { dir: dir.into(), file, segment: *number, salt: segment.salt, number: after });
            }
        }
        Ok(log)
    }
}

impl Segment {
    fn open(dir: &Path, segment: u64, expected: Option<u64>) -> Result<Segment> {
        let path = dir.join(segment_name(segment));
        let bytes = Bytes::from(fs::read(&path).map_err(|e| io_error("read", &path, e))?);
        let corrupt = |what: String| Err(Error::new(Code::StorageCorrupt, format!("{}: {what}", path.display())));
        if bytes.len() < SEGMENT_HEADER || bytes.len() > u32::MAX as usize || bytes[..8] != SEGMENT_MAGIC {
            return corrupt("not a segment of a log".into());
        }
        let (first, salt) = (u64_at(&bytes, 16), u64_at(&bytes, 24));
        if u64_at(&bytes, 8) != segment || u64_at(&bytes, 32) != xxh3_64_with_seed(&bytes[..32], salt) {
            return corrupt("damaged header".into());
        }
        if let Some(expected) = expected.filter(|e| *e != first) {
            return corrupt(format!("first frame: expected {expected}, found {first}"));
        }
        Ok(Segment { path, bytes, first, salt })
    }

    /// The frame at a place, if there is a whole one.
    fn frame(&self, at: usize) -> Option<Frame> {
        let header = self.bytes.get(at..at + FRAME_HEADER).filter(|h| h[..4] == FRAME_MAGIC)?;
        let size = u32::from_le_bytes(header[4..8].try_into().expect("4 bytes")) as usize;
        let payload = at + FRAME_HEADER..at + FRAME_HEADER + size;
        let end = payload.end.next_multiple_of(FRAME_ALIGN);
        let whole = self.bytes.get(at..payload.end).filter(|_| end <= self.bytes.len())?;
        if checksum(whole, self.salt) != u64_at(header, 24) {
            return None;
        }
        Some(Frame { number: u64_at(header, 8), durable: u64_at(header, 16), payload, end })
    }

    /// Puts all frames into memory. Returns where they end, and the number of the next one.
    fn replay(&self, is_last: bool, memory: &mut Memory) -> Result<(usize, u64)> {
        memory.add_frame(self.bytes.clone());
        let (mut at, mut number) = (SEGMENT_HEADER, self.first);
        while let Some(frame) = self.frame(at).filter(|f| f.number == number) {
            self.replay_writes(frame.payload, memory)?;
            (at, number) = (frame.end, number + 1);
        }
        if at < self.bytes.len() && (!is_last || self.was_durable(at, number)) {
            let what = format!("{}: frame {number} at byte {at} is damaged", self.path.display());
            return Err(Error::new(Code::StorageCorrupt, what));
        }
        Ok((at, number))
    }

    /// Whether a frame after a bad one proves that the bad one had been acknowledged.
    fn was_durable(&self, bad: usize, number: u64) -> bool {
        (bad..self.bytes.len()).step_by(FRAME_ALIGN).filter_map(|at| self.frame(at)).any(|f| f.durable >= number)
    }

    fn replay_writes(&self, payload: std::ops::Range<usize>, memory: &mut Memory) -> Result<()> {
        let mut at = payload.start;
        while at < payload.end {
            let table = self.bytes[at] as usize;
            let field = |from: usize, to: usize| self.bytes.get(at + from..at + to).filter(|_| at + to <= payload.end);
            let lens = field(1, 3).zip(field(3, WRITE_HEADER));
            let lens = lens.and_then(|(k, v)| {
                Some((u16::from_le_bytes(k.try_into().ok()?), u32::from_le_bytes(v.try_into().ok()?)))
            });
            let place = lens.map(|(key, value)| {
                let len = if value == DELETED { 0 } else { value as usize };
                (key as usize, value, at + WRITE_HEADER + key as usize + len)
            });
            match place.filter(|p| p.2 <= payload.end && table < Table::ALL.len()) {
                Some((key, value, end)) => {
                    memory.put(table, at + WRITE_HEADER, key, value);
                    at = end;
                }
                None => {
                    let what = format!("{}: a write at byte {at} is malformed", self.path.display());
                    return Err(Error::new(Code::StorageCorrupt, what));
                }
            }
        }
        Ok(())
    }
}

/// Over all of a frame but the checksum itself.
fn checksum(frame: &[u8], salt: u64) -> u64 {
    let header = xxh3_64_with_seed(&frame[..FRAME_HEADER - 8], salt);
    xxh3_64_with_seed(&frame[FRAME_HEADER..], header)
}

fn append(path: &Path) -> Result<Arc<File>> {
    OpenOptions::new().append(true).open(path).map(Arc::new).map_err(|e| io_error("open", path, e))
}

/// Numbers of the segments there are, ascending.
pub(super) fn segments(dir: &Path) -> Result<Vec<u64>> {
    let entries = fs::read_dir(dir).map_err(|e| io_error("read folder", dir, e))?;
    let name = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok();
    let mut found: Vec<u64> = entries.flatten().filter_map(name).collect();
    found.sort_unstable();
    Ok(found)
}
