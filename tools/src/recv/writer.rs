//! Hashes and writes arriving files on threads of its own, so that the shard never waits for a
//! disk. All of a file goes through one thread, in order.
//!
//! The queues have no bound of their own: the senders' credit, which comes back only when bytes
//! are written, limits what can be in them.

use super::store::{Inbox, Partial};
use crate::transfer::report::Done;
use crate::transfer::wire::{Code, DIGEST_LEN, Digest, Header};
use crossbeam::channel::{Receiver, Sender, unbounded};
use crossbeam::queue::ArrayQueue;
use ring::digest;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

/// Blocks kept for reuse.
const SPARE_BLOCKS: usize = 64;

/// Used blocks, for whoever fills the next ones.
pub type Spare = Arc<ArrayQueue<Vec<u8>>>;

/// What to do with file number `id`.
pub enum Job {
    /// It begins.
    Start { id: u64, name: String, header: Header, done: Done },
    /// Its next bytes.
    Data { id: u64, bytes: Vec<u8> },
    /// All bytes were handed in: check, and give it its final name.
    Finish { id: u64, digest: Digest },
    /// It will not be complete.
    Abandon { id: u64 },
}

/// What came of it.
pub enum Written {
    /// Bytes are dealt with; the sender may send as many more.
    Taken { id: u64, bytes: u64 },
    /// The file has its final name.
    Stored { id: u64, digest: Digest, path: PathBuf },
    /// It has not and will not; `digest` is zeros when none was computed.
    Failed { id: u64, code: Code, digest: Digest, text: String },
}

/// The threads.
pub struct Writers {
    queues: Vec<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    spare: Spare,
}

/// Hands in jobs.
#[derive(Clone)]
pub struct WriterQueues {
    queues: Vec<Sender<Job>>,
    spare: Spare,
}

impl Writers {
    /// Starts `count` threads that give results to `deliver`, which may block.
    pub fn start<F>(count: usize, inbox: &Inbox, deliver: F) -> io::Result<Self>
    where
        F: Fn(Written) + Clone + Send + 'static,
    {
        let spare: Spare = Arc::new(ArrayQueue::new(SPARE_BLOCKS));
        let (mut queues, mut threads) = (Vec::new(), Vec::new());
        for n in 0..count.max(1) {
            let (queue, jobs) = unbounded();
            let (inbox, spare) = (inbox.clone(), Arc::clone(&spare));
            let deliver = deliver.clone();
            let body = move || Writer { inbox, spare, files: HashMap::new() }.run(&jobs, &deliver);
            threads.push(thread::Builder::new().name(format!("writer-{n}")).spawn(body)?);
            queues.push(queue);
        }
        Ok(Self { queues, threads, spare })
    }

    /// Where jobs are handed in.
    pub fn queues(&self) -> WriterQueues {
        WriterQueues { queues: self.queues.clone(), spare: Arc::clone(&self.spare) }
    }

    /// Waits until everything handed in is done and unfinished files are removed. Every
    /// [`WriterQueues`] must be gone.
    pub fn join(self) {
        drop(self.queues);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

impl WriterQueues {
    /// Hands in a job for file `id`.
    pub fn submit(&self, id: u64, job: Job) {
        let queue = (id % self.queues.len() as u64) as usize;
        let _ = self.queues[queue].send(job);
    }

    /// An empty block to fill.
    pub fn block(&self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }
}

struct Open {
    name: String,
    partial: Partial,
    hash: digest::Context,
    done: Done,
}

struct Writer {
    inbox: Inbox,
    spare: Spare,
    files: HashMap<u64, Open>,
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>, deliver: &impl Fn(Written)) {
        for job in jobs {
            match job {
                Job::Start { id, name, header, done } => {
                    if let Err((code, text)) = self.start(id, name, header, done) {
                        deliver(Written::Failed { id, code, digest: [0; DIGEST_LEN], text });
                    }
                }
                Job::Data { id, bytes } => {
                    let failure = self.data(id, &bytes);
                    deliver(Written::Taken { id, bytes: bytes.len() as u64 });
                    let _ = self.spare.push(bytes);
                    if let Some(text) = failure {
                        let digest = [0; DIGEST_LEN];
                        deliver(Written::Failed { id, code: Code::NOT_STORED, digest, text });
                    }
                }
                Job::Finish { id, digest } => {
                    if let Some(result) = self.finish(id, digest) {
                        deliver(result);
                    }
                }
                Job::Abandon { id } => drop(self.files.remove(&id)),
            }
        }
    }

    fn start(
        &mut self,
        id: u64,
        name: String,
        header: Header,
        done: Done,
    ) -> Result<(), (Code, String)> {
        if !self.inbox.renames() && self.inbox.is_taken(&name) {
            return Err((Code::EXISTS, "there is a file of that name already".to_owned()));
        }
        let partial = self.inbox.start(header.mode).map_err(|e| not_stored(&e))?;
        let hash = digest::Context::new(&digest::SHA256);
        self.files.insert(id, Open { name, partial, hash, done });
        Ok(())
    }

    /// Bytes of a file that has failed already are let go.
    fn data(&mut self, id: u64, bytes: &[u8]) -> Option<String> {
        let open = self.files.get_mut(&id)?;
        open.hash.update(bytes);
        open.done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let error = open.partial.append(bytes).err()?;
        self.files.remove(&id);
        Some(not_stored(&error).1)
    }

    fn finish(&mut self, id: u64, theirs: Digest) -> Option<Written> {
        let Open { name, partial, hash, .. } = self.files.remove(&id)?;
        let mut digest = [0; DIGEST_LEN];
        digest.copy_from_slice(hash.finish().as_ref());
        if digest != theirs {
            let text = "the digest of what arrived is not the sender's".to_owned();
            return Some(Written::Failed { id, code: Code::DIGEST_DIFFERS, digest, text });
        }
        Some(match self.inbox.finish(partial, &name) {
            Ok(path) => Written::Stored { id, digest, path },
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let text = "there is a file of that name already".to_owned();
                Written::Failed { id, code: Code::EXISTS, digest, text }
            }
            Err(e) => {
                let (code, text) = not_stored(&e);
                Written::Failed { id, code, digest, text }
            }
        })
    }
}

fn not_stored(e: &io::Error) -> (Code, String) {
    (Code::NOT_STORED, format!("the receiver cannot write: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::fs;

    /// Runs `jobs` on one writer and gives everything it delivered, once the thread has ended.
    fn run(inbox: &Inbox, jobs: Vec<Job>) -> Vec<Written> {
        let (results, delivered) = unbounded();
        let writers = Writers::start(1, inbox, move |w| results.send(w).unwrap()).unwrap();
        let queues = writers.queues();
        for job in jobs {
            queues.submit(0, job);
        }
        drop(queues);
        writers.join();
        delivered.into_iter().collect()
    }

    fn start(id: u64, name: &str) -> Job {
        let header = Header { mode: 0o644, size: 3 };
        Job::Start { id, name: name.to_owned(), header, done: Done::default() }
    }

    fn sha(data: &[u8]) -> Digest {
        digest::digest(&digest::SHA256, data).as_ref().try_into().unwrap()
    }

    #[test]
    fn a_checked_file_is_stored() {
        let dir = Scratch::new();
        let inbox = Inbox::open(dir.path(), false, false).unwrap().0;
        let results = run(
            &inbox,
            vec![
                start(1, "a"),
                Job::Data { id: 1, bytes: b"ab".to_vec() },
                Job::Data { id: 1, bytes: b"c".to_vec() },
                Job::Finish { id: 1, digest: sha(b"abc") },
            ],
        );
        assert!(matches!(
            results[..],
            [
                Written::Taken { bytes: 2, .. },
                Written::Taken { bytes: 1, .. },
                Written::Stored { id: 1, .. }
            ]
        ));
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"abc");
    }

    #[test]
    fn a_wrong_digest_leaves_nothing() {
        let dir = Scratch::new();
        let inbox = Inbox::open(dir.path(), false, false).unwrap().0;
        let data = Job::Data { id: 1, bytes: b"abd".to_vec() };
        let results =
            run(&inbox, vec![start(1, "a"), data, Job::Finish { id: 1, digest: sha(b"abc") }]);
        assert!(matches!(results[1], Written::Failed { code: Code::DIGEST_DIFFERS, .. }));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn taken_names_are_refused_at_the_start() {
        let dir = Scratch::new();
        fs::write(dir.path().join("a"), b"mine").unwrap();
        let inbox = Inbox::open(dir.path(), false, false).unwrap().0;
        let data = Job::Data { id: 1, bytes: b"abc".to_vec() };
        let results =
            run(&inbox, vec![start(1, "a"), data, Job::Finish { id: 1, digest: sha(b"abc") }]);
        assert!(matches!(
            results[..],
            [Written::Failed { code: Code::EXISTS, .. }, Written::Taken { bytes: 3, .. }]
        ));
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"mine");
    }

    #[test]
    fn unfinished_and_abandoned_files_vanish() {
        let dir = Scratch::new();
        let inbox = Inbox::open(dir.path(), false, false).unwrap().0;
        run(&inbox, vec![start(1, "a"), start(2, "b"), Job::Abandon { id: 1 }]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
