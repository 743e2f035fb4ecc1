//! Sockets over loopback, and trains of packets.

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

/// Socket buffers that are asked for, in bytes; the system may give less.
const BUFFER_BYTES: usize = 4 << 20;
/// A blocked receive call looks around this often.
pub const LOOK_AROUND: Duration = Duration::from_millis(100);
/// Most packets in one train; what every kernel with UDP_SEGMENT takes.
pub const MAX_SEGMENTS: usize = 64;
/// Most bytes in one train.
pub const MAX_TRAIN: usize = crate::MAX_PACKET;

/// Two sockets, client and server, connected to each other.
pub fn pair() -> io::Result<(UdpSocket, UdpSocket)> {
    let (client, server) = (one()?, one()?);
    client.connect(server.local_addr()?)?;
    server.connect(client.local_addr()?)?;
    Ok((client, server))
}

/// A socket that is not connected.
pub fn one() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
    setsockopt(&socket, sockopt::SndBuf, &BUFFER_BYTES)?;
    socket.set_read_timeout(Some(LOOK_AROUND))?;
    Ok(socket)
}

/// Bytes that the receive buffer of `socket` has by the kernel's own reckoning.
pub fn receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    Ok(getsockopt(socket, sockopt::RcvBuf)?)
}

/// Trains arrive whole from now on.
pub fn receive_trains(socket: &UdpSocket) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::UdpGroSegment, &true)?)
}

/// Sends `train` as packets of `segment` bytes.
pub fn send_train(socket: &UdpSocket, train: &[u8], segment: u16) -> io::Result<()> {
    let control = [ControlMessage::UdpGsoSegments(&segment)];
    let control = if train.len() > usize::from(segment) { &control[..] } else { &[] };
    let fd = socket.as_raw_fd();
    let sent = sendmsg::<()>(fd, &[IoSlice::new(train)], control, MsgFlags::empty(), None)?;
    if sent == train.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives trains.
pub struct TrainReceiver {
    buffer: Vec<u8>,
    control: Vec<u8>,
}

impl TrainReceiver {
    pub fn new() -> Self {
        Self { buffer: vec![0; 1 << 16], control: nix::cmsg_space!(i32) }
    }

    /// The next train and the size of its packets, of which the last may be shorter; `None` when
    /// nothing came, at once with `at_once`, else within [`LOOK_AROUND`].
    pub fn receive(
        &mut self,
        socket: &UdpSocket,
        at_once: bool,
    ) -> io::Result<Option<(&mut [u8], usize)>> {
        let flags = if at_once { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let received =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut self.control), flags);
        let received = match received {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if received.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(io::Error::other("a train was cut off"));
        }
        let bytes = received.bytes;
        let mut segment = bytes;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::UdpGroSegments(size) = message {
                segment = usize::try_from(size).unwrap_or(bytes);
            }
        }
        Ok(Some((&mut self.buffer[..bytes], segment.max(1))))
    }
}

/// `None` when nothing came.
pub fn come<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_arrives_with_its_segment_size() {
        let (client, server) = pair().unwrap();
        receive_trains(&server).unwrap();
        let train: Vec<u8> = (0..1050u32).map(|n| n as u8).collect();
        send_train(&client, &train, 100).unwrap();
        let mut receiver = TrainReceiver::new();
        let mut seen = Vec::new();
        while seen.len() < train.len() {
            let (bytes, segment) = receiver.receive(&server, false).unwrap().unwrap();
            assert!(segment == 100 || bytes.len() == 50);
            seen.extend_from_slice(bytes);
        }
        assert_eq!(seen, train);
        assert!(receiver.receive(&server, true).unwrap().is_none());
        assert!(receive_buffer(&server).unwrap() > 10_000);
    }
}
