//! Message headers that the kernel reads while a request is under way, and the layout of what a
//! multishot receive writes.

use crate::sys::linux::{Name, RECEIVE_CONTROL_BYTES, SendControl, describe};
use crate::sys::{Outgoing, Received};

fn empty_header() -> libc::msghdr {
    // SAFETY: a plain C structure of integers and pointers, for which all zeros is a value.
    unsafe { std::mem::zeroed() }
}

/// One message being sent: header and everything it points to, except the bytes.
struct SendSlot {
    header: libc::msghdr,
    iovec: libc::iovec,
    name: Name,
    control: SendControl,
}

/// One slot for each transmit buffer; they never move.
pub(super) struct SendSlots {
    slots: Box<[SendSlot]>,
}

// SAFETY: the pointers inside lead to the slots themselves and to transmit buffers; they are only
// ever followed by the kernel.
unsafe impl Send for SendSlots {}

impl SendSlots {
    pub(super) fn new(count: usize) -> Self {
        let slot = || SendSlot {
            header: empty_header(),
            iovec: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            name: Name::EMPTY,
            control: SendControl::EMPTY,
        };
        Self { slots: (0..count).map(|_| slot()).collect() }
    }

    /// Describes `message` in slot `index`, which no request uses, and returns the header.
    pub(super) fn prepare(&mut self, index: usize, message: &Outgoing<'_>) -> *const libc::msghdr {
        let slot = &mut self.slots[index];
        slot.iovec = libc::iovec {
            iov_base: message.bytes.as_ptr().cast_mut().cast(),
            iov_len: message.bytes.len(),
        };
        slot.control.set(message);
        let control_len = slot.control.as_bytes().len();
        slot.header.msg_namelen = slot.name.set(&message.remote);
        slot.header.msg_name = slot.name.as_mut_ptr();
        slot.header.msg_iov = &raw mut slot.iovec;
        slot.header.msg_iovlen = 1;
        slot.header.msg_control =
            if control_len == 0 { std::ptr::null_mut() } else { slot.control.as_mut_ptr() };
        slot.header.msg_controllen = control_len as _;
        slot.header.msg_flags = 0;
        &raw const slot.header
    }
}

impl std::fmt::Debug for SendSlots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SendSlots({})", self.slots.len())
    }
}

/// Bytes of the result header: lengths of name, control messages and payload, and flags.
const RESULT_HEADER: usize = 16;
/// Room for the sender's address.
const NAME_ROOM: usize = 32;
/// Where the payload starts in a receive buffer.
pub(super) const PAYLOAD: usize = RESULT_HEADER + NAME_ROOM + RECEIVE_CONTROL_BYTES;

const _: () = assert!(PAYLOAD.is_multiple_of(64), "payloads start at a cache line");

/// What every multishot receive refers to: only how much room name and control messages have.
pub(super) struct ReceiveHeader {
    header: Box<libc::msghdr>,
}

// SAFETY: the header holds lengths and null pointers only.
unsafe impl Send for ReceiveHeader {}

impl ReceiveHeader {
    pub(super) fn new() -> Self {
        let mut header = Box::new(empty_header());
        header.msg_namelen = NAME_ROOM as libc::socklen_t;
        header.msg_controllen = RECEIVE_CONTROL_BYTES as _;
        Self { header }
    }

    pub(super) fn as_ptr(&self) -> *const libc::msghdr {
        &raw const *self.header
    }
}

impl std::fmt::Debug for ReceiveHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReceiveHeader")
    }
}

/// Reads what the kernel wrote: `written` is the buffer up to the completion's result. `None` when
/// it makes no sense.
pub(super) fn parse(written: &[u8]) -> Option<Received> {
    let field = |i: usize| written.get(i..)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b));
    let (name_len, control_len) = (field(0)? as usize, field(4)? as usize);
    let (payload_len, flags) = (field(8)? as usize, field(12)?);
    let len = written.len().checked_sub(PAYLOAD)?.min(payload_len);
    let name = written.get(RESULT_HEADER..RESULT_HEADER + name_len.min(NAME_ROOM))?;
    let control = &written[RESULT_HEADER + NAME_ROOM..PAYLOAD];
    let mut received = Received {
        remote: Name::read(name),
        local: None,
        len,
        stride: len,
        ecn: 0,
        truncated: flags & libc::MSG_TRUNC as u32 != 0 || payload_len > len,
        dropped: None,
    };
    describe(&control[..control_len.min(control.len())], &mut received);
    Some(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_without_panic() {
        assert!(parse(&[]).is_none());
        assert!(parse(&[0; PAYLOAD - 1]).is_none());
        let mut buffer = [0xFFu8; PAYLOAD + 10];
        let received = parse(&buffer).unwrap();
        assert!(received.remote.is_none() && received.truncated);
        assert_eq!(received.len, 10);
        for len in [0u8, 1, 3, 8, 12, 16, 17, 200, 255] {
            // A control message of every length, in a control area of every length.
            buffer[RESULT_HEADER + NAME_ROOM..PAYLOAD].fill(len);
            buffer[4..8].copy_from_slice(&u32::from(len).to_ne_bytes());
            buffer[RESULT_HEADER + NAME_ROOM + 1..RESULT_HEADER + NAME_ROOM + 8].fill(0);
            let _ = parse(&buffer);
        }
    }
}
