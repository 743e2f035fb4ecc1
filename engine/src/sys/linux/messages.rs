//! `recvmmsg(2)` and `sendmmsg(2)`.

use super::super::{Outgoing, Received};
use super::address::Name;
use super::control::{RECEIVE_CONTROL_BYTES, SendControl, describe};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};

const EMPTY_IOVEC: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

fn empty_header() -> libc::mmsghdr {
    // SAFETY: a plain C structure of integers and pointers, for which all zeros is a value.
    unsafe { std::mem::zeroed() }
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct ReceiveControl([u8; RECEIVE_CONTROL_BYTES]);

/// Receives many datagrams, or merged trains, in one call.
pub struct RecvBatch {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[ReceiveControl]>,
    received: usize,
}

// SAFETY: the pointers in the headers point into the boxes beside them or are left over from the
// last call; they are set anew before each call and read by the kernel during it only.
unsafe impl Send for RecvBatch {}

impl RecvBatch {
    /// At most `count` messages a call.
    pub fn new(count: usize) -> Self {
        Self {
            headers: (0..count).map(|_| empty_header()).collect(),
            iovecs: vec![EMPTY_IOVEC; count].into(),
            names: vec![Name::EMPTY; count].into(),
            controls: vec![ReceiveControl([0; RECEIVE_CONTROL_BYTES]); count].into(),
            received: 0,
        }
    }

    /// Receives at most one message into each of `slices` without waiting, and returns how many
    /// came. Fewer than asked for means that no more were there.
    ///
    /// # Errors
    /// `WouldBlock` when there was none; others as in `recvmsg(2)`.
    pub fn recv(&mut self, socket: &impl AsFd, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let count = slices.len().min(self.headers.len());
        self.received = 0;
        for (i, slice) in slices.iter_mut().take(count).enumerate() {
            self.iovecs[i] =
                libc::iovec { iov_base: slice.as_mut_ptr().cast(), iov_len: slice.len() };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = self.names[i].as_mut_ptr();
            header.msg_namelen = size_of::<Name>().min(super::NAME_BYTES) as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = RECEIVE_CONTROL_BYTES as _;
            header.msg_flags = 0;
        }
        loop {
            // SAFETY: `count` headers, whose pointers lead to live, exclusively borrowed memory of
            // the lengths given with them.
            let n = unsafe {
                libc::recvmmsg(
                    socket.as_fd().as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    count as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                )
            };
            if n >= 0 {
                self.received = (n as usize).min(count);
                return Ok(self.received);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// What was said about the message in slice `i` of the last call.
    pub fn message(&self, i: usize) -> Option<Received> {
        if i >= self.received {
            return None;
        }
        let header = &self.headers[i];
        let len = (header.msg_len as usize).min(self.iovecs[i].iov_len);
        let mut received = Received {
            remote: Name::read(self.names[i].as_bytes()),
            local: None,
            len,
            stride: len,
            ecn: 0,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            dropped: None,
        };
        let control = &self.controls[i].0;
        // The C library decides on the width.
        #[allow(clippy::unnecessary_cast)]
        let used = (header.msg_hdr.msg_controllen as usize).min(control.len());
        describe(&control[..used], &mut received);
        Some(received)
    }
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch").field("count", &self.headers.len()).finish_non_exhaustive()
    }
}

/// Sends many datagrams or trains in one call.
pub struct SendBatch {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[SendControl]>,
}

// SAFETY: as for `RecvBatch`.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// At most `count` messages a call.
    pub fn new(count: usize) -> Self {
        Self {
            headers: (0..count).map(|_| empty_header()).collect(),
            iovecs: vec![EMPTY_IOVEC; count].into(),
            names: vec![Name::EMPTY; count].into(),
            controls: vec![SendControl::EMPTY; count].into(),
        }
    }

    /// Most messages in one call.
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Sends the first [`capacity`](Self::capacity) of `messages` without waiting, and returns how
    /// many went: all before the first that failed. Call again with the rest to learn why.
    ///
    /// # Errors
    /// That of the first message, as in `sendmsg(2)`; `WouldBlock` when there is no room for it.
    pub fn send<'a>(
        &mut self,
        socket: &impl AsFd,
        messages: impl Iterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for message in messages.take(self.headers.len()) {
            let i = count;
            self.iovecs[i] = libc::iovec {
                iov_base: message.bytes.as_ptr().cast_mut().cast(),
                iov_len: message.bytes.len(),
            };
            self.controls[i].set(&message);
            let control_len = self.controls[i].as_bytes().len();
            let header = &mut self.headers[i].msg_hdr;
            header.msg_namelen = self.names[i].set(&message.remote);
            header.msg_name = self.names[i].as_mut_ptr();
            header.msg_iov = &raw mut self.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control =
                if control_len == 0 { std::ptr::null_mut() } else { self.controls[i].as_mut_ptr() };
            header.msg_controllen = control_len as _;
            header.msg_flags = 0;
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        loop {
            // SAFETY: `count` headers, whose pointers lead to live memory of the lengths given with
            // them; `messages` borrows the bytes for 'a, beyond this call. The kernel only reads.
            let n = unsafe {
                libc::sendmmsg(
                    socket.as_fd().as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    count as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            if n >= 0 {
                return Ok((n as usize).min(count));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl std::fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendBatch").field("count", &self.headers.len()).finish_non_exhaustive()
    }
}
