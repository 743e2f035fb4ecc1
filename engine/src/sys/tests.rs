use super::*;
use proptest::prelude::*;
use std::io::IoSliceMut;
use std::time::{Duration, Instant};

#[test]
fn errors_are_told_apart() {
    let of = |code| tx_error(&io::Error::from_raw_os_error(code));
    assert_eq!(of(libc::EMSGSIZE), TxError::TooLarge);
    assert_eq!(of(libc::ENETUNREACH), TxError::Unreachable);
    assert_eq!(of(libc::EPERM), TxError::Unreachable);
    assert_eq!(of(libc::ENOBUFS), TxError::NoBuffers);
    assert_eq!(of(libc::EIO), TxError::Other(libc::EIO));
    assert!(is_gso_refusal(&io::Error::from_raw_os_error(libc::EIO)));
    assert!(is_gso_refusal(&io::Error::from_raw_os_error(libc::EINVAL)));
    assert!(!is_gso_refusal(&io::Error::from_raw_os_error(libc::EMSGSIZE)));
    assert!(is_blocked(&io::Error::from_raw_os_error(libc::EAGAIN)));
}

/// The portable side moves datagrams on any system; this runs it on this one.
#[test]
fn the_portable_side_works() {
    let socket = || {
        let mut group =
            portable::bind_group(([127, 0, 0, 1], 0).into(), 1, BufferSizes::default()).unwrap();
        let socket = group.remove(0);
        let facts = portable::configure(&socket, true).unwrap();
        assert!(!facts.wildcard && !facts.gro && !facts.gso);
        (mio::net::UdpSocket::from_std(socket), facts.local)
    };
    let ((a, from), (b, to)) = (socket(), socket());
    assert_eq!(portable::stream_backlog(&a), 0, "nobody tells");
    let mut recv = portable::RecvBatch::new(4);
    let mut memory = [[0u8; 100]; 4];
    let mut receive = |memory: &mut [[u8; 100]; 4]| {
        let mut slices: Vec<IoSliceMut<'_>> =
            memory.iter_mut().map(|m| IoSliceMut::new(m)).collect();
        let start = Instant::now();
        loop {
            match recv.recv(&b, &mut slices) {
                Ok(n) => return (0..n).map(|i| recv.message(i).unwrap()).collect::<Vec<_>>(),
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    };
    let bytes = [9u8; 50];
    let mut send = portable::SendBatch::new(3);
    assert_eq!(send.capacity(), 3);
    let messages = (1..=5).map(|i| Outgoing {
        remote: to,
        local: None,
        bytes: &bytes[..i],
        segment: i,
        ecn: 0,
    });
    assert_eq!(send.send(&a, messages).unwrap(), 3);
    let mut got = Vec::new();
    while got.len() < 3 {
        got.extend(receive(&mut memory));
    }
    for (i, received) in got.iter().enumerate() {
        assert_eq!((received.len, received.stride, received.remote), (i + 1, i + 1, Some(from)));
    }
    assert!(portable::bind_group(from, 2, BufferSizes::default()).is_err());
    assert_eq!(portable::offloads(), (false, false));
    assert_eq!(portable::kernel_release(), "");
}

#[cfg(target_os = "linux")]
mod linux_only {
    use super::super::linux::*;
    use super::*;

    #[test]
    fn groups_share_a_port_and_have_the_buffers_asked_for() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let wanted = BufferSizes { receive: 100_000, send: 50_000 };
            let group = bind_group(address.parse().unwrap(), 4, wanted).unwrap();
            let first = group[0].local_addr().unwrap();
            for socket in &group {
                assert_eq!(socket.local_addr().unwrap(), first);
                let socket = socket2::SockRef::from(socket);
                assert!(socket.recv_buffer_size().unwrap() >= 200_000);
                assert!(socket.send_buffer_size().unwrap() >= 100_000);
            }
        }
        assert!(bind_group(([127, 0, 0, 1], 0).into(), 0, BufferSizes::default()).is_err());
        assert!(bind_group(([127, 0, 0, 1], 0).into(), 257, BufferSizes::default()).is_err());
        // One socket alone does not share its port.
        let alone = bind_group(([127, 0, 0, 1], 0).into(), 1, BufferSizes::default()).unwrap();
        let taken = alone[0].local_addr().unwrap();
        assert!(bind_group(taken, 2, BufferSizes::default()).is_err());
    }

    /// Runs the steering program as the kernel would. `None`: by hash.
    fn steer(packet: &[u8], sockets: usize) -> Option<usize> {
        let program = steering_program();
        let (mut a, mut x, mut at) = (0u32, 0u32, 0);
        loop {
            let (code, jt, jf, k) = program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            match u32::from(code) {
                0x80 => a = packet.len() as u32,
                0x30 => match packet.get(k as usize) {
                    Some(byte) => a = u32::from(*byte),
                    None => return Some(0),
                },
                0x54 => a &= k,
                0xAC => a ^= x,
                0x07 => x = a,
                0x15 => at += jump(a == k),
                0x35 => at += jump(a >= k),
                0x06 => return usize::try_from(k).ok().filter(|s| *s < sockets),
                0x16 => return Some(a as usize).filter(|s| *s < sockets),
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    proptest! {
        #[test]
        fn names_survive(ip: [u8; 16], v4: bool, port: u16, scope: u32) {
            let address: SocketAddr = if v4 {
                ([ip[0], ip[1], ip[2], ip[3]], port).into()
            } else {
                std::net::SocketAddrV6::new(ip.into(), port, 0, scope).into()
            };
            let mut name = Name::EMPTY;
            let len = name.set(&address) as usize;
            prop_assert_eq!(Name::read(&name.as_bytes()[..len]), Some(address));
            for shorter in 0..8 {
                prop_assert_eq!(Name::read(&name.as_bytes()[..shorter]), None);
            }
        }

        #[test]
        fn any_control_bytes_are_read_without_panic(bytes: Vec<u8>, len in 0usize..70_000) {
            let mut received = Received {
                remote: None, local: None, len, stride: len, ecn: 0, truncated: false, dropped: None,
            };
            describe(&bytes, &mut received);
            prop_assert!(received.stride <= received.len && received.ecn <= 3);
            prop_assert!(len == 0 || received.stride > 0);
        }

        #[test]
        fn steering(packet in prop::collection::vec(any::<u8>(), 0..12), sockets in 1usize..=256) {
            let short = packet.len() >= 3 && packet[0] & 0xC0 == 0x40;
            let shard = short.then(|| usize::from(packet[1] ^ packet[2])).filter(|s| *s < sockets);
            prop_assert_eq!(steer(&packet, sockets), shard);
        }
    }

    #[test]
    fn control_messages_say_only_what_is_needed() {
        let bytes = [0u8; 3000];
        let mut control = SendControl::EMPTY;
        let message = |remote: &str, local: Option<&str>, segment, ecn| Outgoing {
            remote: remote.parse().unwrap(),
            local: local.map(|l| l.parse().unwrap()),
            bytes: &bytes,
            segment,
            ecn,
        };
        control.set(&message("1.2.3.4:5", None, 3000, 0));
        assert!(control.as_bytes().is_empty(), "one packet, no mark: nothing");
        control.set(&message("1.2.3.4:5", Some("4.3.2.1"), 1000, 2));
        assert_eq!(control.as_bytes().len(), 24 + 24 + 32);
        control.set(&message("[::1]:5", Some("::1"), 1000, 2));
        assert_eq!(control.as_bytes().len(), 24 + 24 + 40);
        // Read back as if they had been received: the local address of IPv6 has the same form.
        let mut received = Received {
            remote: None,
            local: None,
            len: 10,
            stride: 10,
            ecn: 0,
            truncated: false,
            dropped: None,
        };
        describe(control.as_bytes(), &mut received);
        assert_eq!(received.local, Some("::1".parse().unwrap()));
        assert_eq!(received.ecn, 2);
        // A mapped address travels as IPv4.
        control.set(&message("[::ffff:1.2.3.4]:5", Some("::ffff:4.3.2.1"), 1000, 2));
        assert_eq!(control.as_bytes().len(), 24 + 24 + 32);
    }

    #[test]
    fn sleeping_and_eventfd() {
        use std::os::fd::{AsFd, AsRawFd};
        let event = EventFd::new().unwrap();
        let fd = event.as_fd().as_raw_fd();
        let start = Instant::now();
        assert!(!sleep_readable(fd, Duration::from_micros(1500)).unwrap());
        assert!(start.elapsed() >= Duration::from_micros(1500));
        event.signal();
        event.signal();
        assert!(sleep_readable(fd, Duration::from_secs(5)).unwrap());
        event.clear();
        event.clear();
        assert!(!sleep_readable(fd, Duration::ZERO).unwrap());
    }

    #[test]
    fn this_kernel_has_a_release() {
        assert!(kernel_release().contains('.'));
    }
}

/// What a peer has not read and acknowledged is known, and none of it after a reset.
#[cfg(target_os = "linux")]
#[test]
fn the_backlog_of_a_stream_is_told() {
    use std::io::{ErrorKind, Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut a = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut b, _) = listener.accept().unwrap();
    assert_eq!(stream_backlog(&a), 0);
    a.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(n) = a.write(&vec![7; 65_536]) {
        sent += n;
    }
    let backlog = stream_backlog(&a);
    assert!(backlog > 0 && backlog < sent, "{backlog} of {sent}");
    linux::disconnect(&a).unwrap();
    let mut rest = Vec::new();
    assert_eq!(b.read_to_end(&mut rest).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(rest.len() < sent, "what waited is dropped");
}
