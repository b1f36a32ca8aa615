//! Clocks that step. A library that is loaded before all others adds what a file says to the time of day that the kernel
//! says; monotonic time goes on, as when NTP or an operator sets a clock. The program under test is the one that users
//! run: it has no hook for this.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The file is mapped, so that a step needs no word with the process.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead_s;

__attribute__((constructor)) static void open_clock(void) {
    const char *path = getenv("FLORIN_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *ahead_s, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) abort();
    ahead_s = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    int failed = syscall(SYS_clock_gettime, clock, out);
    if (!failed && ahead_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) out->tv_sec += *ahead_s;
    return failed;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"#;

/// One clock an authority.
#[derive(Clone)]
pub struct Clocks {
    folder: PathBuf,
}

impl Clocks {
    /// All right so far. Needs a C compiler, as the build does.
    pub fn new(folder: &Path, authorities: usize) -> Clocks {
        let clocks = Clocks { folder: folder.to_owned() };
        (0..authorities).for_each(|i| fs::write(clocks.file(i), 0_i64.to_ne_bytes()).unwrap());
        fs::write(folder.join("clock.c"), SOURCE).unwrap();
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c"]).current_dir(folder);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        clocks
    }

    fn file(&self, authority: usize) -> PathBuf {
        self.folder.join(format!("clock-{}", authority + 1))
    }

    /// Sets the clock of an authority to so much after the true time, or before it.
    pub fn set(&self, authority: usize, ahead: Duration, behind: Duration) {
        let seconds = ahead.as_secs() as i64 - behind.as_secs() as i64;
        // The same file and page: one write of eight bytes.
        let file = fs::OpenOptions::new().write(true).open(self.file(authority)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_ne_bytes(), 0).unwrap();
    }

    /// Gives a process the clock of its authority.
    pub fn give(&self, authority: usize, command: &mut Command) {
        command.env("LD_PRELOAD", self.folder.join("clock.so")).env("FLORIN_TEST_CLOCK", self.file(authority));
    }
}
