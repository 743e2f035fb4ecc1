//! The engine's side: the file is made, and each shard keeps its block of it up to date.

use super::layout::{self, DRIVEN, HEADER, MAGIC, ROW_FIELDS, ROWS, VERSION, block, head};
use super::process;
use crate::error::EngineError;
use crate::sys::map::{SharedMap, monotonic_ns};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a shard that is awake brings its figures up to date.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);

/// A stats file being written. Its shards share it.
#[derive(Debug)]
pub(crate) struct Writer {
    map: SharedMap,
    blocks: usize,
    block: usize,
    shards: usize,
    /// The monotonic clock minus the shards' time.
    offset: u64,
}

impl Writer {
    /// Makes the file, or puts a new one in its place; the shards' time is `origin_ns` at `origin`.
    pub(crate) fn create(
        path: &Path,
        shards: usize,
        origin: Instant,
        origin_ns: u64,
    ) -> Result<Arc<Self>, EngineError> {
        let failed = |e| EngineError::system(format!("stats file {}", path.display()), e);
        Self::try_create(path, shards, origin, origin_ns).map(Arc::new).map_err(failed)
    }

    fn try_create(path: &Path, shards: usize, origin: Instant, origin_ns: u64) -> io::Result<Self> {
        let monotonic = monotonic_ns();
        let passed = Instant::now().saturating_duration_since(origin).as_nanos() as u64;
        let (names, fields) = layout::names();
        let block = layout::block_words();
        let blocks = (HEADER + names.len() / 8).next_multiple_of(16);
        let mut words = vec![0u64; blocks + shards * block];
        words[head::MAGIC] = MAGIC;
        words[head::VERSION] = VERSION;
        words[head::HEADER] = HEADER as u64 * 8;
        let pid = u64::from(std::process::id());
        words[head::PID] = pid;
        words[head::STARTED] = process::look(pid).map_or(0, |p| p.started);
        words[head::BOOT..][..2].copy_from_slice(&process::boot_id());
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        words[head::WALL] = wall.as_nanos() as u64;
        words[head::MONOTONIC] = monotonic;
        words[head::SHARDS] = shards as u64;
        words[head::NAMES_BYTES] = names.len() as u64;
        words[head::FIELDS] = fields as u64;
        words[head::ROW_FIELDS] = ROW_FIELDS as u64;
        words[head::ROWS] = ROWS as u64;
        words[head::BLOCKS] = blocks as u64 * 8;
        words[head::BLOCK] = block as u64 * 8;
        words[head::INTERVAL] = INTERVAL.as_nanos() as u64;
        layout::put_text(env!("CARGO_PKG_VERSION"), &mut words[head::ENGINE..][..4]);
        layout::put_text(&names, &mut words[HEADER..][..names.len() / 8]);
        let map = publish(path, &words)?;
        let offset = monotonic.wrapping_sub(passed).wrapping_sub(origin_ns);
        Ok(Self { map, blocks, block, shards, offset })
    }

    /// The block of a shard. There is one writer of it: ask once.
    pub(crate) fn shard(self: &Arc<Self>, shard: u8) -> Option<BlockWriter> {
        let at = usize::from(shard);
        (at < self.shards).then(|| BlockWriter {
            file: self.clone(),
            start: self.blocks + at * self.block,
            at: 0,
        })
    }
}

/// Writes the words to a file beside `path`, maps it, and gives it its name: nobody ever sees half a
/// file there, and whoever has an older one open keeps that.
///
/// Every word is written, not left to be zero, so that a disk that is full says so here and not by a
/// signal later. Only the owner may read it: it names who is connected from where. And only the owner
/// may write it, since whoever could cut it off would end the process.
fn publish(path: &Path, words: &[u64]) -> io::Result<SharedMap> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}-{n}", std::process::id()));
    let temporary = Temporary(path.with_file_name(beside));
    let _ = fs::remove_file(&temporary.0);
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create_new(true).mode(0o600).open(&temporary.0)?;
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    file.write_all(&bytes)?;
    let map = SharedMap::new(&file, words.len())?;
    fs::rename(&temporary.0, path)?;
    Ok(map)
}

/// Removed when it has not been renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// State of a shard, as the file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its thread works.
    Running = 1,
    /// It has ended in good order.
    Ended = 2,
    /// It has given up, or its handler has.
    Failed = 3,
}

/// One shard's block. Plain stores by one thread; readers tell by the sequence whether what they
/// read belongs together.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    file: Arc<Writer>,
    start: usize,
    /// The next word to write.
    at: usize,
}

impl BlockWriter {
    #[inline]
    fn words(&self) -> &[AtomicU64] {
        &self.file.map.words()[self.start..][..self.file.block]
    }

    #[inline]
    fn set(&self, at: usize, value: u64) {
        self.words()[at].store(value, Ordering::Relaxed);
    }

    fn set_text(&self, at: usize, count: usize, text: &str) {
        let mut words = [0; block::FAILURE_WORDS];
        let words = &mut words[..count];
        layout::put_text(text, words);
        for (i, word) in words.iter().enumerate() {
            self.set(at + i, *word);
        }
    }

    /// A time of the shard on the clock that other processes have.
    #[inline]
    pub(crate) fn on_clock(&self, at: u64) -> u64 {
        self.file.offset.wrapping_add(at)
    }

    /// The shard is there.
    pub(crate) fn begin(&self, driver: &str, now: u64) {
        self.set_text(block::DRIVER, 2, driver);
        self.beat(now);
        self.set(block::STATE, State::Running as u64);
    }

    /// The application drives it.
    pub(crate) fn note_driven(&self) {
        self.set(block::FLAGS, DRIVEN);
    }

    /// The shard does something, at `now`.
    #[inline]
    pub(crate) fn beat(&self, now: u64) {
        self.set(block::HEARTBEAT, self.on_clock(now));
        // Whoever sees that it is awake sees since when.
        self.words()[block::ASLEEP].store(0, Ordering::Release);
    }

    /// The shard is awake at `now` and has waited so long altogether. Of the fields only this one is
    /// written, and before it is seen that the shard is awake: readers add the time since the
    /// heartbeat as long as it sleeps.
    #[inline]
    pub(crate) fn wake(&self, now: u64, waited: u64) {
        self.set(block::FIELDS + layout::WAITED, waited);
        self.beat(now);
    }

    /// The shard is going to sleep, at `now` and until `until` unless something comes.
    #[inline]
    pub(crate) fn rest(&self, now: u64, until: Option<u64>) {
        self.set(block::HEARTBEAT, self.on_clock(now));
        let until = until.map_or(u64::MAX, |at| self.on_clock(at).min(u64::MAX - 1));
        self.words()[block::ASLEEP].store(until, Ordering::Release);
    }

    /// The shard has ended; the first word on how it did stays.
    pub(crate) fn end(&self, state: State, failure: Option<&str>) {
        if self.words()[block::STATE].load(Ordering::Relaxed) == State::Running as u64 {
            if let Some(failure) = failure {
                self.set_text(block::FAILURE, block::FAILURE_WORDS, failure);
            }
            self.words()[block::STATE].store(state as u64, Ordering::Release);
        }
    }

    /// Starts to write fields, from the first one on.
    #[inline]
    pub(crate) fn open(&mut self) {
        let sequence = self.words()[block::SEQUENCE].load(Ordering::Relaxed);
        self.set(block::SEQUENCE, sequence | 1);
        // Whoever sees one of the stores that follow sees the odd number too.
        fence(Ordering::Release);
        self.at = block::FIELDS;
    }

    /// Writes the next field; beyond the last there is nothing.
    #[inline]
    pub(crate) fn put(&mut self, value: u64) {
        if let Some(word) = self.words().get(self.at) {
            word.store(value, Ordering::Relaxed);
        }
        self.at += 1;
    }

    /// What was written since `open` counts.
    #[inline]
    pub(crate) fn close(&mut self) {
        let sequence = self.words()[block::SEQUENCE].load(Ordering::Relaxed);
        self.words()[block::SEQUENCE].store((sequence | 1).wrapping_add(1), Ordering::Release);
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        self.end(if panicking { State::Failed } else { State::Ended }, None);
    }
}
