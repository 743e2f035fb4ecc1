//! Reads and hashes files on threads of its own, so that the shard never waits for a disk.
//!
//! One read of a file is under way at a time: the job comes back with the bytes and is handed in
//! again when they are sent. What is read ahead is therefore bounded by the number of open files.

use crate::transfer::wire::{Code, DIGEST_LEN, Digest, Header};
use crossbeam::channel::{Receiver, Sender, unbounded};
use crossbeam::queue::ArrayQueue;
use ring::digest;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use trunkline::Payload;

/// Bytes read at once.
pub const BLOCK: usize = 256 * 1024;
/// Blocks kept for reuse.
const SPARE_BLOCKS: usize = 64;

/// A file that is being read.
pub struct Source {
    file: File,
    hash: digest::Context,
    left: u64,
}

/// What to do next for file number `index`.
pub enum Job {
    /// Open it and read the first block.
    Open { index: usize, path: PathBuf },
    /// Read the next block.
    Next { index: usize, source: Box<Source> },
}

/// What came of a job.
pub enum Read {
    /// A block, with the header before the first one.
    Block { index: usize, header: Option<Header>, data: Payload, rest: Rest },
    /// The file cannot be read (any more).
    Failed { index: usize, code: Code, text: String },
}

/// What follows a block.
pub enum Rest {
    /// More blocks.
    More(Box<Source>),
    /// The digest.
    End(Digest),
}

/// Starts `count` threads that give results to `deliver`, which may block, and returns where jobs
/// are handed in. The threads end when all copies of that are gone.
pub fn start<F>(count: usize, deliver: F) -> io::Result<Sender<Job>>
where
    F: Fn(Read) + Clone + Send + 'static,
{
    let (jobs, queue) = unbounded();
    let spare = Arc::new(ArrayQueue::new(SPARE_BLOCKS));
    for n in 0..count {
        let (queue, spare, deliver) = (queue.clone(), Arc::clone(&spare), deliver.clone());
        let body = move || run(&queue, &spare, &deliver);
        thread::Builder::new().name(format!("reader-{n}")).spawn(body)?;
    }
    Ok(jobs)
}

fn run(queue: &Receiver<Job>, spare: &Arc<ArrayQueue<Vec<u8>>>, deliver: &impl Fn(Read)) {
    for job in queue {
        let read = match job {
            Job::Open { index, path } => match open(&path) {
                Ok((source, header)) => next_block(index, Some(header), source, spare),
                Err(e) => Read::Failed { index, code: Code::SOURCE_CHANGED, text: e.to_string() },
            },
            Job::Next { index, source } => next_block(index, None, source, spare),
        };
        deliver(read);
    }
}

fn open(path: &Path) -> io::Result<(Box<Source>, Header)> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let size = meta.len();
    let header = Header { mode: mode_of(&meta), size };
    let hash = digest::Context::new(&digest::SHA256);
    Ok((Box::new(Source { file, hash, left: size }), header))
}

#[cfg(unix)]
fn mode_of(meta: &std::fs::Metadata) -> u16 {
    use std::os::unix::fs::PermissionsExt as _;
    (meta.permissions().mode() & 0o777) as u16
}

#[cfg(not(unix))]
fn mode_of(_: &std::fs::Metadata) -> u16 {
    0
}

fn next_block(
    index: usize,
    header: Option<Header>,
    mut source: Box<Source>,
    spare: &Arc<ArrayQueue<Vec<u8>>>,
) -> Read {
    let want = usize::try_from(source.left).unwrap_or(usize::MAX).min(BLOCK);
    let mut bytes = spare.pop().unwrap_or_default();
    bytes.resize(want, 0);
    if let Err(e) = source.file.read_exact(&mut bytes) {
        let text = match e.kind() {
            io::ErrorKind::UnexpectedEof => "became shorter while it was read".to_owned(),
            _ => e.to_string(),
        };
        return Read::Failed { index, code: Code::SOURCE_CHANGED, text };
    }
    source.hash.update(&bytes);
    source.left -= want as u64;
    let data = Payload::new(Arc::new(Block { bytes, home: Arc::clone(spare) }));
    let rest = if source.left == 0 {
        let mut digest = [0; DIGEST_LEN];
        digest.copy_from_slice(source.hash.finish().as_ref());
        Rest::End(digest)
    } else {
        Rest::More(source)
    };
    Read::Block { index, header, data, rest }
}

/// Bytes on their way; goes back to the spare blocks when the peer has acknowledged the last one.
struct Block {
    bytes: Vec<u8>,
    home: Arc<ArrayQueue<Vec<u8>>>,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // Small ones are not worth keeping.
        if self.bytes.capacity() >= BLOCK {
            let _ = self.home.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::fs;

    fn read_all(content: &[u8]) -> (Option<Header>, Vec<u8>, Digest, usize) {
        let dir = Scratch::new();
        let path = dir.path().join("f");
        fs::write(&path, content).unwrap();
        let (results, inbox) = unbounded();
        let jobs = start(2, move |r| results.send(r).unwrap()).unwrap();
        jobs.send(Job::Open { index: 7, path }).unwrap();
        let (mut head, mut all, mut blocks) = (None, Vec::new(), 0);
        let digest = loop {
            match inbox.recv().unwrap() {
                Read::Block { index, header, data, rest } => {
                    assert_eq!(index, 7);
                    blocks += 1;
                    head = head.or(header);
                    all.extend_from_slice(data.as_slice());
                    match rest {
                        Rest::More(source) => jobs.send(Job::Next { index, source }).unwrap(),
                        Rest::End(digest) => break digest,
                    }
                }
                Read::Failed { text, .. } => panic!("{text}"),
            }
        };
        (head, all, digest, blocks)
    }

    #[test]
    fn blocks_make_up_the_file() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let content: Vec<u8> = (0..len).map(|n| (n * 31 % 251) as u8).collect();
            let (header, all, digest, blocks) = read_all(&content);
            assert_eq!(header.unwrap().size, len as u64);
            assert_eq!(all, content);
            assert_eq!(&digest, digest::digest(&digest::SHA256, &content).as_ref());
            assert_eq!(blocks, len.div_ceil(BLOCK).max(1));
        }
    }

    #[test]
    fn folders_and_missing_files_are_errors() {
        let dir = Scratch::new();
        let (results, inbox) = unbounded();
        let jobs = start(1, move |r| results.send(r).unwrap()).unwrap();
        for path in [dir.path().to_owned(), dir.path().join("missing")] {
            jobs.send(Job::Open { index: 0, path }).unwrap();
            assert!(matches!(inbox.recv().unwrap(), Read::Failed { .. }));
        }
    }
}
