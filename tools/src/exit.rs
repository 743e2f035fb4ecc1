//! How a command ends: the exit codes of `docs/file-transfer.md` and the error that carries one.

use std::fmt;
use std::io;
use std::path::Path;

/// Exit codes of every subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// Some files were not transferred, a check failed, or a local file could not be used.
    Failed = 1,
    /// The command line is wrong (clap uses the same code).
    Usage = 2,
    /// The peer is not trusted, or does not trust us.
    Trust = 3,
    /// No connection, or the connection was lost.
    Connection = 4,
    /// Interrupted by a signal.
    Interrupted = 130,
}

/// Why a command stops before its work is done.
#[derive(Clone, Debug)]
pub struct Failure {
    /// With which code the process ends.
    pub exit: Exit,
    /// Words for people, without a final full stop.
    pub text: String,
}

impl Failure {
    /// A failure with `exit`.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    /// Something local went wrong.
    pub fn local(text: impl Into<String>) -> Self {
        Self::new(Exit::Failed, text)
    }

    /// A file of ours cannot be written.
    pub fn cannot_write(path: &Path, error: &io::Error) -> Self {
        Self::local(format!("cannot write {}: {error}", path.display()))
    }

    /// The command line asks for something that makes no sense.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// The connection could not be made or broke.
    pub fn connection(text: impl Into<String>) -> Self {
        Self::new(Exit::Connection, text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
