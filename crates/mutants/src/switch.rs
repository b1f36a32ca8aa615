//! Appended to the crate that is tested: which mutant is on. `MUTANT` is its number, and without it none is; with `MUTANTS_REACHED`, a
//! file, none is on and the numbers that the run came by are written there, four bytes each.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

const UNKNOWN: u32 = u32::MAX;
const NONE: u32 = u32::MAX - 1;
const ASK: u32 = u32::MAX - 2;

static ON: AtomicU32 = AtomicU32::new(UNKNOWN);
static REACHED: [AtomicUsize; 2048] = [const { AtomicUsize::new(0) }; 2048];
static FILE: Mutex<Option<std::fs::File>> = Mutex::new(None);

/// Whether mutant `id` is on.
#[inline]
pub fn on(id: u32) -> bool {
    let on = ON.load(Ordering::Relaxed);
    if on < ASK { on == id } else { on != NONE && ask(id) }
}

#[cold]
fn ask(id: u32) -> bool {
    if ON.load(Ordering::Relaxed) == UNKNOWN {
        let mut file = FILE.lock().unwrap_or_else(PoisonError::into_inner);
        let on = match (std::env::var("MUTANT"), std::env::var("MUTANTS_REACHED")) {
            (Ok(id), _) => id.parse().expect("MUTANT is a number"),
            (_, Ok(path)) => {
                *file = Some(std::fs::File::create(path).expect("a file for what was reached"));
                ASK
            }
            _ => NONE,
        };
        ON.store(on, Ordering::Relaxed);
        drop(file);
        return self::on(id);
    }
    let (word, bit) = (&REACHED[(id as usize / 64) % REACHED.len()], 1 << (id % 64));
    if word.fetch_or(bit, Ordering::Relaxed) & bit == 0
        && let Some(file) = FILE.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
    {
        file.write_all(&id.to_le_bytes()).expect("the file for what was reached takes it");
    }
    false
}
