//! How far a batch has come: which of its orders are settled, by what, and what says so.

use super::state::{State, Table, hash_of, need_record};
use crate::bitmap::Bitmap;
use crate::error::Result;
use crate::merkle::Hash;
use crate::wire;

/// Progress of a batch, in memory.
pub(crate) struct Progress {
    pub root: Hash,
    pub count: usize,
    pub settled: Bitmap,
    /// Orders settled on the log's word: no certificate of this batch need say so.
    pub by_log: Bitmap,
    pub certificates: Vec<wire::Certificate>,
    /// Orders that this step settled.
    pub fresh: Bitmap,
    pub dirty: bool,
}

impl Progress {
    pub fn new(root: Hash, count: usize) -> Self {
        Progress {
            root,
            count,
            settled: Bitmap::empty(count),
            by_log: Bitmap::empty(count),
            certificates: Vec::new(),
            fresh: Bitmap::empty(count),
            dirty: false,
        }
    }

    pub fn mark(&mut self, index: usize) {
        self.settled.set(index);
        self.dirty = true;
    }

    /// Notes that an order is settled, here or in another batch; if on the log's word, no certificate of this batch need
    /// say so.
    pub fn mark_as(&mut self, index: usize, by_log: bool) {
        if by_log && !self.settled.get(index) {
            self.by_log.set(index);
        }
        self.mark(index);
    }

    /// Notes that an order is taken back.
    pub fn clear(&mut self, index: usize) {
        self.settled.clear(index);
        self.fresh.clear(index);
        self.by_log.clear(index);
        self.dirty = true;
    }

    pub fn certify(&mut self, certificate: wire::Certificate, replace: bool) {
        if replace {
            self.certificates.clear();
        }
        self.certificates.push(certificate);
        self.dirty = true;
    }
}

/// Progress of a batch, from its record.
pub(crate) fn load_progress(state: &dyn State, batch: u64) -> Result<Progress> {
    let record: wire::ProgressRecord = need_record(state, Table::Progress, &batch.to_be_bytes())?;
    let count = record.count as usize;
    Ok(Progress {
        root: hash_of(&record.root)?,
        count,
        settled: Bitmap::parse(&record.settled, count)?,
        by_log: match record.by_log.is_empty() {
            true => Bitmap::empty(count),
            false => Bitmap::parse(&record.by_log, count)?,
        },
        certificates: record.certificates,
        fresh: Bitmap::empty(count),
        dirty: false,
    })
}

/// An entry of the settled stream, its position still open.
pub(super) fn settled_entry(progress: &Progress, orders: &Bitmap, undone: bool) -> wire::SettledEntry {
    wire::SettledEntry {
        position: 0,
        root: bytes::Bytes::copy_from_slice(&progress.root),
        count: progress.count as u32,
        bitmap: orders.to_bytes(),
        undone,
        by_log: false,
    }
}
