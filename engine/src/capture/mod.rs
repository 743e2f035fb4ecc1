//! A capture file for protocol analysers (pcapng): the packets of datagram links in the clear, the
//! bytes of stream links, and the TLS secrets that open them.
//!
//! Shards hand finished blocks to one thread that writes them. They never wait for it: what it
//! cannot take in time, and what would make the file too large, is counted and left out.
//! [`shard`] makes the blocks, [`pcapng`] knows their format.

mod pcapng;
mod shard;
#[cfg(test)]
mod tests;

use crate::error::EngineError;
use crate::security::key_line;
pub(crate) use shard::{ShardCapture, StreamTap};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use trunkline_proto::error::ApiError;

/// Blocks that may wait for the thread, and their bytes.
const WAITING: usize = 16_384;
const WAITING_BYTES: usize = 32 << 20;
/// The file is complete up to now when nothing has come for so long.
const IDLE: Duration = Duration::from_millis(100);
/// Room that is kept for the last blocks.
const RESERVE: u64 = 256;
/// Smallest limit of a file.
const MIN_BYTES: u64 = 64 << 10;

/// Writes what connections say into a file, for debugging.
///
/// **The file holds the plaintext of every message, every credential, and the TLS secrets.** It is
/// made readable for its owner only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureConfig {
    /// The file, pcapng; replaced if it exists.
    pub path: PathBuf,
    /// Largest size of the file in bytes, at least 64 KiB; what comes later is counted and left
    /// out. 1 GiB.
    pub max_bytes: u64,
}

impl CaptureConfig {
    /// Into this file, at most 1 GiB.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_bytes: 1 << 30 }
    }

    pub(crate) fn validate(&self) -> Result<(), ApiError> {
        if self.max_bytes >= MIN_BYTES {
            return Ok(());
        }
        Err(ApiError::InvalidArgument { field: "capture.max_bytes", why: "must be at least 65536" })
    }
}

/// One block on its way to the file.
struct Block {
    bytes: Vec<u8>,
    /// The interface, if it is a packet.
    interface: Option<u32>,
}

#[derive(Debug, Default)]
struct Counts {
    seen: AtomicU64,
    dropped: AtomicU64,
    /// Left out since the last packet that was taken.
    dropped_lately: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    interfaces: [Counts; pcapng::INTERFACES],
    waiting_bytes: AtomicUsize,
    /// Nothing more goes into the file.
    full: AtomicBool,
}

impl State {
    fn of(&self, interface: u32) -> Option<&Counts> {
        self.interfaces.get(interface as usize)
    }

    fn leave_out(&self, interface: Option<u32>) {
        if let Some(counts) = interface.and_then(|i| self.of(i)) {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
            counts.dropped_lately.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The capture of one engine. When the last owner lets go of it, the file is completed.
#[derive(Debug)]
pub(crate) struct Capture {
    state: Arc<State>,
    blocks: Mutex<Option<SyncSender<Block>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Capture {
    /// Makes the file and starts the thread that fills it.
    pub(crate) fn start(config: &CaptureConfig) -> Result<Arc<Self>, EngineError> {
        let what = || format!("capture {}", config.path.display());
        let file = open(config).map_err(|e| EngineError::system(what(), e))?;
        tracing::warn!(
            path = %config.path.display(),
            "everything that connections say is written to a file, with their TLS secrets"
        );
        Self::into(file, config.max_bytes).map_err(|e| EngineError::system(what(), e))
    }

    /// Starts the thread that writes at most `max` bytes.
    fn into(out: impl Write + Send + 'static, max: u64) -> io::Result<Arc<Self>> {
        let state = Arc::new(State::default());
        let (sender, receiver) = sync_channel(WAITING);
        let shared = Arc::clone(&state);
        let run = move || {
            if let Err(error) = write(out, max, &receiver, &shared) {
                shared.full.store(true, Ordering::Relaxed);
                tracing::error!(%error, "the capture ends");
            }
        };
        let writer = std::thread::Builder::new().name("trunk-capture".into()).spawn(run)?;
        Ok(Arc::new(Self {
            state,
            blocks: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// What TLS tells its secrets. It does not keep the capture going.
    pub(crate) fn key_log(self: &Arc<Self>) -> Arc<dyn rustls::KeyLog> {
        Arc::new(Secrets(Arc::downgrade(self)))
    }

    /// A packet of an interface, in parts.
    fn packet(&self, interface: u32, sent: bool, parts: &[&[u8]]) {
        let Some(counts) = self.state.of(interface) else { return };
        counts.seen.fetch_add(1, Ordering::Relaxed);
        let dropped = counts.dropped_lately.swap(0, Ordering::Relaxed);
        let bytes = pcapng::packet(interface, sent, parts, dropped);
        if !self.hand_over(Block { bytes, interface: Some(interface) }) {
            counts.dropped_lately.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn send(&self, block: Block) -> bool {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.as_ref().is_some_and(|blocks| blocks.try_send(block).is_ok())
    }

    /// Completes the file. What comes later is left out.
    pub(crate) fn finish(&self) {
        drop(self.blocks.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }

    fn hand_over(&self, block: Block) -> bool {
        let (len, interface) = (block.bytes.len(), block.interface);
        let state = &*self.state;
        let waiting = state.waiting_bytes.fetch_add(len, Ordering::Relaxed);
        let taken = waiting + len <= WAITING_BYTES
            && !state.full.load(Ordering::Relaxed)
            && self.send(block);
        if !taken {
            state.waiting_bytes.fetch_sub(len, Ordering::Relaxed);
            state.leave_out(interface);
        }
        taken
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.finish();
    }
}

#[derive(Debug)]
struct Secrets(Weak<Capture>);

impl rustls::KeyLog for Secrets {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if let Some(capture) = self.0.upgrade() {
            let line = key_line(label, client_random, secret);
            capture.hand_over(Block { bytes: pcapng::secrets(line.as_bytes()), interface: None });
        }
    }
}

fn open(config: &CaptureConfig) -> io::Result<File> {
    // Opening a pipe that nobody reads would wait for ever.
    if std::fs::metadata(&config.path).is_ok_and(|known| !known.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&config.path)
}

/// Writes blocks until nobody is left who could send any.
fn write(out: impl Write, max: u64, blocks: &Receiver<Block>, state: &State) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(256 << 10, out);
    let head = pcapng::head();
    out.write_all(&head)?;
    let room = max - RESERVE;
    let mut written = head.len() as u64;
    loop {
        let block = match blocks.recv_timeout(IDLE) {
            Ok(block) => block,
            Err(RecvTimeoutError::Timeout) => {
                out.flush()?;
                match blocks.recv() {
                    Ok(block) => block,
                    Err(_) => break,
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let len = block.bytes.len();
        state.waiting_bytes.fetch_sub(len, Ordering::Relaxed);
        if state.full.load(Ordering::Relaxed) || written + len as u64 > room {
            if !state.full.swap(true, Ordering::Relaxed) {
                tracing::warn!(max_bytes = max, "the capture is full; the rest is left out");
            }
            state.leave_out(block.interface);
            continue;
        }
        out.write_all(&block.bytes)?;
        written += len as u64;
    }
    for (interface, counts) in (0..).zip(&state.interfaces) {
        let dropped = counts.dropped.load(Ordering::Relaxed);
        let seen = counts.seen.load(Ordering::Relaxed);
        out.write_all(&pcapng::statistics(interface, seen, dropped))?;
        if dropped > 0 {
            tracing::warn!(interface, seen, dropped, "the capture is not complete");
        }
    }
    out.flush()
}
