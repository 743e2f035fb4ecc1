//! The classic BPF program that steers packets to the shard their connection id names.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// One instruction: code, jumps for true and false, operand.
pub type Instruction = (u16, u8, u8, u32);

const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_LENGTH: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_LEN) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const XOR_X: u16 = (libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X) as u16;
const TO_X: u16 = (libc::BPF_MISC | libc::BPF_TAX) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_NOT_BELOW: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const RETURN_A: u16 = (libc::BPF_RET | libc::BPF_A) as u16;

/// No such socket: the kernel falls back to its hash.
const BY_HASH: u32 = u32::MAX;

/// The program sees the UDP payload. A short packet (`b0 & 0xC0 == 0x40`) goes to socket `b1 ^ b2`,
/// the shard that its connection id names; anything else goes by hash, and so does a number beyond
/// the group: the kernel checks it. (Reading beyond the end of a packet would choose socket 0,
/// hence the check of the length.)
pub const fn steering_program() -> [Instruction; 11] {
    [
        (LOAD_LENGTH, 0, 0, 0),
        (JUMP_NOT_BELOW, 0, 8, 3),
        (LOAD_BYTE, 0, 0, 0),
        (AND, 0, 0, 0xC0),
        (JUMP_EQUAL, 0, 5, 0x40),
        (LOAD_BYTE, 0, 0, 1),
        (TO_X, 0, 0, 0),
        (LOAD_BYTE, 0, 0, 2),
        (XOR_X, 0, 0, 0),
        (RETURN_A, 0, 0, 0),
        (RETURN, 0, 0, BY_HASH),
    ]
}

/// Attaches the program to the group that `socket` belongs to.
///
/// # Errors
/// The system's.
pub fn attach_steering(socket: &impl AsFd) -> io::Result<()> {
    let mut filter =
        steering_program().map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k });
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and the instructions it points to live through the call, which copies
    // them; the size given is that of the structure.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
