//! Sending: trains become requests, and come back as buffers or failures.

use super::super::train::Cut;
use super::super::{TxError, TxFailure};
use super::{UringDriver, kind};
use crate::sys::{self, Outgoing};
use io_uring::{opcode, types};
use std::io;

impl UringDriver {
    /// Starts, or goes on with, sending a train. Its buffer is free again when nothing is left.
    pub(super) fn start(&mut self, index: u32) -> io::Result<()> {
        loop {
            let Some(train) = &self.trains[index as usize] else { return Ok(()) };
            let here = train.cut != Cut::System && train.meta.segment < train.meta.len;
            if here && self.send_here(index)? {
                continue;
            }
            let Some(train) = &self.trains[index as usize] else { return Ok(()) };
            let number = usize::from(train.meta.socket);
            let Some(Some(slot)) = self.slots.get_mut(number) else {
                self.fail(index, TxError::Unreachable);
                return Ok(());
            };
            let part = train.part(train.done, self.config.max_segments);
            let memory = &mut *self.memory;
            let message = Outgoing {
                remote: train.meta.remote,
                local: train.meta.local.filter(|_| slot.arrivals.facts.wildcard),
                bytes: &memory.tx.bytes(index)[part.start..part.start + part.len],
                segment: part.segment,
                ecn: train.meta.ecn,
            };
            let header = memory.sends.prepare(index as usize, &message);
            let entry = opcode::SendMsg::new(types::Fixed(number as u32), header);
            // SAFETY: header, address, control messages and bytes live in `memory`, which is only
            // freed when no request is under way, and are not touched before the completion: slot
            // and buffer belong to this train.
            unsafe { self.ring.push(&entry.build().user_data(kind::SEND | u64::from(index)))? };
            slot.sends += 1;
            self.under_way += 1;
            return Ok(());
        }
    }

    /// Sends the packets of a train one by one, in few calls. `false` when the socket is full: the
    /// ring waits for room with the next packet.
    fn send_here(&mut self, index: u32) -> io::Result<bool> {
        if self.ring.queued() > 0 {
            self.ring.submit()?;
        }
        let Some(train) = &mut self.trains[index as usize] else { return Ok(true) };
        let Some(Some(slot)) = self.slots.get(usize::from(train.meta.socket)) else {
            self.fail(index, TxError::Unreachable);
            return Ok(true);
        };
        let meta = train.meta;
        let local = meta.local.filter(|_| slot.arrivals.facts.wildcard);
        let rest = &self.memory.tx.bytes(index)[train.done..meta.len];
        let messages = rest.chunks(meta.segment).map(|bytes| Outgoing {
            remote: meta.remote,
            local,
            bytes,
            segment: bytes.len(),
            ecn: meta.ecn,
        });
        self.stats.syscalls += 1;
        match self.sync_send.send(&slot.socket, messages) {
            Ok(count) => {
                for _ in 0..count {
                    self.sent(index);
                }
            }
            Err(error) if sys::is_blocked(&error) => {
                self.stats.tx_blocked += 1;
                return Ok(false);
            }
            Err(error) => self.fail(index, sys::tx_error(&error)),
        }
        Ok(true)
    }

    /// The next part of a train went out.
    fn sent(&mut self, index: u32) {
        let Some(train) = &mut self.trains[index as usize] else { return };
        if train.advance(self.config.max_segments, &mut self.refused, &mut self.stats) {
            self.trains[index as usize] = None;
            self.memory.tx.put(index);
        }
    }

    /// A train is given up.
    pub(super) fn fail(&mut self, index: u32, error: TxError) {
        if let Some(train) = self.trains[index as usize].take() {
            self.stats.tx_failed += 1;
            self.failures.push(TxFailure { meta: train.meta, error });
            self.memory.tx.put(index);
        }
    }

    /// A send is over.
    pub(super) fn on_send(&mut self, index: u32, result: i32) -> io::Result<()> {
        self.under_way -= 1;
        let Some(Some(train)) = self.trains.get_mut(index as usize) else { return Ok(()) };
        let number = usize::from(train.meta.socket);
        if let Some(Some(slot)) = self.slots.get_mut(number) {
            slot.sends -= 1;
        }
        if result >= 0 {
            self.sent(index);
        } else {
            let error = io::Error::from_raw_os_error(-result);
            let again = matches!(-result, libc::EAGAIN | libc::EINTR)
                || train.retries_uncut(&error, &mut self.stats);
            if !again {
                self.fail(index, sys::tx_error(&error));
            }
        }
        self.start(index)?;
        self.finish_removal(number)
    }
}
