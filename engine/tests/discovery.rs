//! Presence beside an engine: a listener is announced, found, and connected to, with nothing known
//! of it but the name of the service.

mod common;

use common::{config, identity, listen};
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use trunkline::discovery::{
    Announcer, AnnouncerConfig, ClientEvent, Discovery, DiscoveryConfig, Interfaces,
};
use trunkline::{
    Channel, ChannelKind, ChannelOptions, ChannelRequest, Conn, ConnectConfig, Context,
    DriverChoice, Engine, Handler, Incoming, QueuedEngine, Received, Trust,
};

struct Echo;

impl Handler for Echo {
    type Command = ();

    fn on_incoming(&mut self, cx: &mut Context<'_>, conn: Conn, _: &Incoming<'_>) {
        let _ = cx.accept(conn);
    }

    fn on_channel_request(&mut self, cx: &mut Context<'_>, ch: Channel, _: &ChannelRequest<'_>) {
        let _ = cx.accept_channel(ch, &ChannelOptions::default());
    }

    fn on_message(&mut self, cx: &mut Context<'_>, ch: Channel, _: ChannelKind, message: &[u8]) {
        let _ = cx.send(ch, message);
    }
}

#[test]
fn a_listener_is_announced_found_and_connected_to() {
    let identity = identity();
    let server = Engine::start(config(DriverChoice::Mio), |_| Echo).unwrap();
    let listener = server.listen(&listen(&identity)).unwrap();

    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut announcer = Announcer::start(AnnouncerConfig {
        port,
        ..AnnouncerConfig::of_listener("Study", "echo.example", identity.peer_id(), &listener)
    })
    .unwrap();
    // A listener of the loopback interface is announced nowhere else.
    assert!(announcer.addresses().all(|(_, ip)| ip == listener.local_addr.ip()));
    let mut discovery = Discovery::start(DiscoveryConfig {
        interfaces: Interfaces { ipv6: false, ..Interfaces::default() },
        port,
        ..DiscoveryConfig::for_service("echo.example")
    })
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let device = loop {
        announcer.poll(Duration::ZERO).unwrap();
        let found = discovery.poll(Duration::from_millis(2)).unwrap();
        if let Some(ClientEvent::Found(device)) = found.into_iter().next() {
            break device;
        }
        assert!(Instant::now() < deadline, "{:?}", discovery.problems());
    };
    assert_eq!((device.name.as_str(), device.peer), ("Study", identity.peer_id()));
    assert_eq!(device.addresses(), [listener.local_addr]);

    let client = QueuedEngine::start(config(DriverChoice::Mio)).unwrap();
    let connect = ConnectConfig {
        remotes: device.addresses(),
        ..ConnectConfig::new(device.addresses()[0], Trust::Pins(vec![device.peer]))
    };
    let conn = client.connect(&connect, None).unwrap();
    let options = ChannelOptions { kind: ChannelKind::Messages, ..ChannelOptions::default() };
    let channel = client.open_channel(conn, "echo", &options).unwrap();
    client.send(channel, b"hello").unwrap();
    let mut received = Vec::new();
    let back = loop {
        assert!(Instant::now() < deadline, "no echo");
        client.poll_group().recv_many(&mut received, 64, Some(Duration::from_secs(1)));
        let message = received.drain(..).find_map(|item| match item {
            Received::Message(message) => Some(message.data.to_vec()),
            Received::Event(_) => None,
        });
        if let Some(back) = message {
            break back;
        }
    };
    assert_eq!(back, b"hello");
    client.shutdown(Duration::from_secs(1)).unwrap();
    server.shutdown(Duration::ZERO);
}
