//! What the application's threads tell a shard.

use super::handler::QueueHandler;
use crate::handler::Context;
use trunkline_proto::payload::Payload;

/// Messages up to this length lie in the command itself.
pub(super) const INLINE: usize = 102;
/// Copies up to this length are copied again into the channel's buffer, rather than kept apart
/// there until they are acknowledged.
pub(super) const COPY_AGAIN: usize = 2048;

/// A call made on the shard's thread.
pub(super) type Call = Box<dyn FnOnce(&mut QueueHandler, &mut Context<'_>) + Send>;

/// A message that is part of a [`Command::Many`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub cell: u32,
    pub life: u32,
    pub len: u32,
}

/// Messages on their way together, their bytes back to back.
#[derive(Debug, Default)]
pub(super) struct Pack {
    pub parts: Vec<Part>,
    pub bytes: Vec<u8>,
}

/// See the module. `cell` and `life` name a channel.
pub enum Command {
    /// A short message.
    Small { cell: u32, life: u32, len: u8, bytes: [u8; INLINE] },
    /// A longer one.
    Data { cell: u32, life: u32, data: Payload, receipt: Option<u64>, copied: bool },
    /// Several, back to back.
    Many(Box<Pack>),
    /// The end of our direction.
    Finish { cell: u32, life: u32 },
    /// Send what waits for more.
    Flush { cell: u32, life: u32 },
    /// Anything rarer.
    Call(Call),
    /// Look at the lists.
    Poke,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

impl Command {
    pub(super) fn small(cell: u32, life: u32, data: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        let len = data.len().min(INLINE);
        bytes[..len].copy_from_slice(&data[..len]);
        Self::Small { cell, life, len: len as u8, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_fills_two_cache_lines_with_its_place_in_the_queue() {
        assert!(size_of::<Command>() <= 120, "{}", size_of::<Command>());
    }
}
