//! The rows of behaviours §1 that are about presence, and the settings.

use super::*;
use crate::error::ApiError;

fn pair() -> (Client, Host) {
    (client(ClientConfig::default()), host(HostConfig::default(), announcement()))
}

/// One question and its answer; gives the time of the answer.
fn meet(client: &mut Client, host: &mut Host, now: Instant) -> (Instant, Option<ClientEvent>) {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let asked = now + ms(1000 * 60);
    let question = client.poll_transmit(asked, &mut buf).expect("a question is due");
    host.receive(asked, neighbour("10.0.0.9:40000"), &buf[..question.len]);
    let answered = asked + ms(200);
    let (answer, bytes) = answers(host, answered).pop().expect("an answer");
    assert_eq!(answer.to, addr("10.0.0.9:40000"));
    (answered, client.receive(answered, addr("10.0.0.1:7477"), &bytes))
}

#[test]
fn client_waiting_for_presence_response_becomes_ready_with_the_first_answer() {
    let (mut client, mut host) = pair();
    assert_eq!(client.state(), ClientState::WaitingForPresenceResponse);
    let session = client.session(Destination::Group);
    assert_eq!(session, Some(ClientState::WaitingForPresenceResponse));
    let (_, event) = meet(&mut client, &mut host, at(0));
    let Some(ClientEvent::Found(device)) = event else { panic!("{event:?}") };
    assert_eq!(device.state, ClientState::Ready);
    assert_eq!(client.state(), ClientState::Ready);
    assert_eq!(client.session(Destination::Group), Some(ClientState::Ready));
    assert_eq!(
        (device.name.as_str(), device.service.as_str(), device.peer),
        ("Living room", "chess.example", peer(7))
    );
    assert_eq!(device.paths[0].address, addr("10.0.0.1:7470"), "its port, not that of presence");
    assert_eq!(client.devices().collect::<Vec<_>>(), [&device]);
}

#[test]
fn host_waiting_for_presence_request_becomes_ready_with_the_first_question() {
    let (mut client, mut host) = pair();
    let from = addr("10.0.0.9:40000");
    assert_eq!(host.state(), HostState::WaitingForPresenceRequest);
    assert_eq!(host.session(from), HostState::WaitingForPresenceRequest);
    meet(&mut client, &mut host, at(0));
    assert_eq!((host.state(), host.session(from)), (HostState::Ready, HostState::Ready));
    assert_eq!(host.session(addr("10.0.0.9:40001")), HostState::WaitingForPresenceRequest);
    assert_eq!((host.sessions(), host.counts().answered), (1, 1));
}

#[test]
fn any_receive_resets_the_heartbeat_of_the_client() {
    let (mut client, mut host) = pair();
    let mut now = at(0);
    for round in 0..5 {
        // A minute passes between two answers: more than the heartbeat since the first one, so
        // that only the resets keep the device.
        let mut lost = Vec::new();
        (now, _) = meet(&mut client, &mut host, now);
        client.handle_timeout(now, |e| lost.push(e));
        assert_eq!(client.devices().count(), 1, "round {round}");
        client.handle_timeout(now + ms(34_999), |e| lost.push(e));
        let gone = lost.iter().any(|e| matches!(e, ClientEvent::Lost(_)));
        assert!(!gone, "round {round}: {lost:?}");
        assert_eq!(client.devices().next().unwrap().heard(), now);
    }
}

#[test]
fn heartbeat_expiry_ends_the_session_of_the_client() {
    let (mut client, mut host) = pair();
    let (now, _) = meet(&mut client, &mut host, at(0));
    let mut events = Vec::new();
    client.handle_timeout(now + ms(35_000), |e| events.push(e));
    let [ClientEvent::Lost(device), ClientEvent::Silent(Destination::Group)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(device.state, ClientState::Ended);
    assert_eq!(client.devices().count(), 0);
    assert_eq!(client.state(), ClientState::WaitingForPresenceResponse);
    // Asking goes on, in a new session.
    let session = client.session(Destination::Group);
    assert_eq!(session, Some(ClientState::WaitingForPresenceResponse));
    assert!(matches!(meet(&mut client, &mut host, now).1, Some(ClientEvent::Found(_))));
}

#[test]
fn any_receive_resets_the_heartbeat_of_the_host() {
    let mut host = host(HostConfig::default(), announcement());
    let from = addr("10.0.0.9:40000");
    for round in 0..5u8 {
        let now = at(34_999 * u64::from(round));
        host.handle_timeout(now);
        host.receive(now, neighbour("10.0.0.9:40000"), &plain_question(round, ""));
        assert_eq!(host.session(from), HostState::Ready);
        answers(&mut host, now + ms(1000));
    }
    assert_eq!((host.counts().sessions, host.counts().expired), (1, 0));
}

#[test]
fn heartbeat_expiry_ends_the_session_of_the_host() {
    let mut host = host(HostConfig::default(), announcement());
    host.receive(at(0), neighbour("10.0.0.9:40000"), &plain_question(1, ""));
    host.receive(at(5000), neighbour("10.0.0.8:40000"), &plain_question(2, ""));
    answers(&mut host, at(6000));
    assert_eq!(host.next_timeout(), Some(at(35_000)));
    host.handle_timeout(at(35_000));
    assert_eq!(host.session(addr("10.0.0.9:40000")), HostState::WaitingForPresenceRequest);
    assert_eq!(host.state(), HostState::Ready, "the other one is there");
    host.handle_timeout(at(40_000));
    assert_eq!(host.state(), HostState::WaitingForPresenceRequest);
    assert_eq!((host.counts().expired, host.next_timeout()), (2, None));
}

#[test]
fn a_host_that_leaves_says_so_once_to_those_who_asked() {
    let (mut client, mut host) = pair();
    let (now, _) = meet(&mut client, &mut host, at(0));
    host.withdraw(now);
    host.withdraw(now);
    assert_eq!(host.state(), HostState::Ended);
    assert_eq!(host.session(addr("10.0.0.9:40000")), HostState::Ended);
    let told = answers(&mut host, now);
    assert_eq!(told.len(), 1);
    assert!(response(&told[0].1).leaving);
    // Somebody else who heard the question cannot say it from another address.
    assert_eq!(client.receive(now, addr("10.0.0.66:7477"), &told[0].1), None);
    assert_eq!(client.devices().count(), 1);
    let event = client.receive(now, addr("10.0.0.1:7477"), &told[0].1);
    let Some(ClientEvent::Lost(device)) = event else { panic!("{event:?}") };
    assert_eq!(device.state, ClientState::Ended);
    // It still says which program of the key it was.
    assert_eq!((device.port(), device.addresses()), (7470, vec![addr("10.0.0.1:7470")]));
    // Nothing is answered any more.
    host.receive(now, neighbour("10.0.0.9:40000"), &plain_question(1, ""));
    assert!(answers(&mut host, now + ms(1000)).is_empty());
    assert_eq!(host.next_timeout(), None);
}

#[test]
fn name_device_type_mode_port_and_key_are_told_as_announced_and_can_change() {
    let (mut client, mut host) = pair();
    let mut told = announcement();
    told.device_type = DeviceType::Television;
    told.mode = Mode::Pairing;
    told.links = Links::UDP.and(Links::TLS);
    host.announce(told.clone()).unwrap();
    let (now, event) = meet(&mut client, &mut host, at(0));
    let Some(ClientEvent::Found(device)) = event else { panic!("{event:?}") };
    assert_eq!((device.device_type, device.mode), (DeviceType::Television, Mode::Pairing));
    assert!(device.links.contains(Links::TLS) && device.port() == 7470);
    told.mode = Mode::Busy;
    host.announce(told).unwrap();
    let (now, event) = meet(&mut client, &mut host, now);
    let Some(ClientEvent::Changed(device)) = event else { panic!("{event:?}") };
    assert_eq!(device.mode, Mode::Busy);
    assert_eq!(meet(&mut client, &mut host, now).1, None, "nothing new");
}

#[test]
fn a_device_with_several_addresses_is_one_device() {
    let (mut client, mut host) = pair();
    let (asked, bytes, _) = question(&mut client);
    let mut seen = Vec::new();
    for (client_at, host_at) in
        [("10.0.0.9:40000", "10.0.0.1:7477"), ("[fe80::9%3]:40001", "[fe80::1%3]:7477")]
    {
        host.receive(asked, neighbour(client_at), &bytes);
        let (_, answer) = answers(&mut host, asked + ms(200)).pop().unwrap();
        seen.push(client.receive(asked + ms(200), addr(host_at), &answer));
    }
    assert!(matches!(seen[0], Some(ClientEvent::Found(_))));
    let Some(ClientEvent::Changed(device)) = &seen[1] else { panic!("{seen:?}") };
    let addresses: Vec<SocketAddr> = device.paths.iter().map(|p| p.address).collect();
    assert_eq!(addresses, [addr("10.0.0.1:7470"), addr("[fe80::1%3]:7470")]);
    // One address falls silent: the device stays.
    let later = asked + ms(30_000);
    let mut buf = [0; MAX_MESSAGE_LEN];
    let len = client.poll_transmit(later, &mut buf).unwrap().len;
    host.receive(later, neighbour("10.0.0.9:40000"), &buf[..len]);
    let (_, answer) = answers(&mut host, later + ms(200)).pop().unwrap();
    client.receive(later + ms(200), addr("10.0.0.1:7477"), &answer);
    let mut lost = 0;
    client.handle_timeout(asked + ms(40_000), |_| lost += 1);
    let device = client.devices().next().unwrap();
    assert_eq!((lost, device.paths.len()), (0, 1));
    assert_eq!(device.nearest().unwrap().address, addr("10.0.0.1:7470"));
}

#[test]
fn two_programs_of_one_key_are_two_devices() {
    let mut client = client(ClientConfig::default());
    let (asked, bytes, _) = question(&mut client);
    for port in [7470, 7480] {
        let mut host = host(HostConfig::default(), Announcement { port, ..announcement() });
        host.receive(asked, neighbour("10.0.0.9:40000"), &bytes);
        let (_, answer) = answers(&mut host, asked + ms(200)).pop().unwrap();
        client.receive(asked + ms(200), addr("10.0.0.1:7477"), &answer);
    }
    let mut ports: Vec<u16> = client.devices().map(Device::port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [7470, 7480]);
}

#[test]
fn the_round_trip_is_without_the_time_the_answer_was_held_back() {
    let mut client = client(ClientConfig::default());
    let mut host = host(HostConfig::default(), announcement());
    let (asked, bytes, _) = question(&mut client);
    host.receive(asked + ms(3), neighbour("10.0.0.9:40000"), &bytes);
    let due = host.next_timeout().unwrap();
    assert!(due >= asked + ms(3) && due < asked + ms(103));
    let (_, answer) = answers(&mut host, due).pop().unwrap();
    client.receive(due + ms(4), addr("10.0.0.1:7477"), &answer);
    let rtt = client.devices().next().unwrap().paths[0].rtt;
    assert!((6990..=7010).contains(&rtt.as_micros()), "{rtt:?}");
}

#[test]
fn unicast_questions_are_answered_at_once_and_believed_only_from_there() {
    let target = addr("192.168.5.5:7477");
    let config = ClientConfig { group: false, targets: vec![target], ..Default::default() };
    let mut client = client(config);
    let mut host = host(HostConfig::default(), announcement());
    let (asked, bytes, sent) = question(&mut client);
    assert_eq!(sent.to, Destination::Host(target));
    let routed =
        Arrival { from: addr("192.168.9.9:50000"), interface: 1, multicast: false, on_link: false };
    host.receive(asked, routed, &bytes);
    let (_, answer) = answers(&mut host, asked).pop().expect("without delay");
    for stranger in ["192.168.5.6:7477", "192.168.5.5:7478", "[fe80::1]:7477"] {
        assert_eq!(client.receive(asked, addr(stranger), &answer), None);
    }
    assert_eq!(client.counts().unasked, 3);
    let event = client.receive(asked, target, &answer);
    assert!(matches!(event, Some(ClientEvent::Found(_))), "{event:?}");
    assert_eq!(client.session(Destination::Host(target)), Some(ClientState::Ready));
    // As a dual-stack socket writes it.
    let mapped = addr("[::ffff:192.168.5.5]:7477");
    client.receive(asked, mapped, &answer);
    assert_eq!(client.devices().next().unwrap().paths.len(), 1, "the same address");
}

#[test]
fn a_target_that_is_silent_is_told_and_asked_on() {
    let target = addr("192.168.5.5:7477");
    let config = ClientConfig { group: false, targets: vec![target; 2], ..Default::default() };
    let mut client = client(config);
    let (mut silent, mut asked) = (0, 0);
    let mut buf = [0; MAX_MESSAGE_LEN];
    for n in 0..1000 {
        let now = at(100 * n);
        client.handle_timeout(now, |e| {
            assert_eq!(e, ClientEvent::Silent(Destination::Host(target)));
            silent += 1;
        });
        while client.poll_transmit(now, &mut buf).is_some() {
            asked += 1;
        }
    }
    assert_eq!(silent, 2, "every heartbeat");
    assert!((10..=16).contains(&asked), "{asked}");
}

#[test]
fn questions_are_spaced_and_jittered() {
    let mut gaps: Vec<Vec<u64>> = Vec::new();
    for seed in 0..50 {
        let mut client = Client::new(ClientConfig::default(), [seed; 32], at(0)).unwrap();
        let mut buf = [0; MAX_MESSAGE_LEN];
        let mut times = Vec::new();
        while times.len() < 12 {
            let now = client.next_timeout();
            client.handle_timeout(now, |_| {});
            while client.poll_transmit(now, &mut buf).is_some() {
                times.push(now);
            }
        }
        assert!(times[0] < at(20));
        gaps.push(times.windows(2).map(|w| w[1].since(w[0]).as_millis()).collect());
    }
    for gap in &gaps {
        for (step, nominal) in [250, 1000, 2000, 4000, 8000, 10_000, 10_000].into_iter().enumerate()
        {
            let allowed = nominal * 7 / 8 - 1..=nominal * 9 / 8 + 1;
            assert!(allowed.contains(&gap[step]), "step {step}: {gap:?}");
        }
    }
    let mut tenth: Vec<u64> = gaps.iter().map(|g| g[10]).collect();
    tenth.sort_unstable();
    assert!(tenth[49] - tenth[0] > 1000, "no jitter: {tenth:?}");
}

#[test]
fn asking_anew_keeps_the_distance() {
    let mut client = client(ClientConfig::default());
    let (asked, ..) = question(&mut client);
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut now = asked;
    let mut times = vec![asked];
    // The network changes all the time.
    while now < asked + ms(2000) {
        now += ms(1);
        client.ask_now(now);
        while client.poll_transmit(now, &mut buf).is_some() {
            times.push(now);
        }
    }
    assert!(times.len() >= 5, "{times:?}");
    assert!(times.windows(2).all(|w| w[1].since(w[0]) >= ms(250)), "{times:?}");
}

#[test]
fn answers_of_many_devices_are_spread() {
    let mut dues = Vec::new();
    for seed in 0..100 {
        let mut host = Host::new(HostConfig::default(), announcement(), [seed; 32], at(0)).unwrap();
        host.receive(at(0), neighbour("10.0.0.9:40000"), &plain_question(1, ""));
        dues.push(host.next_timeout().unwrap().as_nanos() / 1_000_000);
    }
    assert!(dues.iter().all(|d| *d < 100));
    for tenth in 0..10 {
        let n = dues.iter().filter(|d| **d / 10 == tenth).count();
        assert!((1..=25).contains(&n), "{n} answers in tenth {tenth}");
    }
}

#[test]
fn the_device_of_an_id_is_found_and_others_keep_silent() {
    let id = |text: &str| Some(DeviceId::new(text.as_bytes()).unwrap());
    let mut client = client(ClientConfig { id: id("wanted"), ..Default::default() });
    let (asked, bytes, _) = question(&mut client);
    let ids = [id("wanted"), id("another"), None];
    for (n, id) in ids.into_iter().enumerate() {
        let mut host = host(HostConfig::default(), Announcement { id, ..announcement() });
        host.receive(asked, neighbour("10.0.0.9:40000"), &bytes);
        let answer = answers(&mut host, asked + ms(200)).pop();
        assert_eq!(answer.is_some(), n == 0);
        assert_eq!(host.counts().not_for_us, u64::from(n != 0));
        assert_eq!(host.sessions(), usize::from(n == 0));
        if let Some((_, answer)) = answer {
            // Changed on the way: it is not believed.
            for at in 47..answer.len() {
                let mut forged = answer.clone();
                forged[at] ^= 2;
                assert_eq!(client.receive(asked, addr("10.0.0.1:7477"), &forged), None);
            }
            let event = client.receive(asked, addr("10.0.0.1:7477"), &answer);
            let Some(ClientEvent::Found(device)) = event else { panic!("{event:?}") };
            assert!(device.id_proven);
        }
    }
    assert_eq!(client.devices().count(), 1);
}

#[test]
fn a_hidden_device_answers_only_those_who_know_its_id() {
    let id = Some(DeviceId::new(b"secret").unwrap());
    let config = HostConfig { answers: Answers::ThoseWhoKnowTheId, ..Default::default() };
    assert!(Host::new(config.clone(), announcement(), [0; 32], at(0)).is_err(), "needs an id");
    let mut host = host(config, Announcement { id: id.clone(), ..announcement() });
    host.receive(at(0), neighbour("10.0.0.9:40000"), &plain_question(1, ""));
    host.receive(at(0), neighbour("10.0.0.9:40000"), &plain_question(2, "chess.example"));
    assert!(answers(&mut host, at(1000)).is_empty());
    let mut client = client(ClientConfig { id, ..Default::default() });
    let (asked, bytes, _) = question(&mut client);
    host.receive(asked, neighbour("10.0.0.9:40000"), &bytes);
    assert_eq!(answers(&mut host, asked + ms(200)).len(), 1);
    assert!(host.announce(announcement()).is_err(), "nor can it lose the id");
}

#[test]
fn services_and_keys_can_be_chosen() {
    let find = |config: ClientConfig| {
        let mut client = client(config);
        let (asked, bytes, _) = question(&mut client);
        let mut host = host(HostConfig::default(), announcement());
        host.receive(asked, neighbour("10.0.0.9:40000"), &bytes);
        let answer = answers(&mut host, asked + ms(200)).pop();
        let heard = answer.and_then(|(_, a)| client.receive(asked, addr("10.0.0.1:7477"), &a));
        heard.is_some()
    };
    let service = |s: &str| ClientConfig { service: s.into(), ..Default::default() };
    assert!(find(service("")) && find(service("chess.example")));
    assert!(!find(service("chess")) && !find(service("Chess.example")));
    assert!(!find(ClientConfig { ignore: vec![peer(7)], ..Default::default() }));
}

#[test]
fn settings_out_of_range_are_named() {
    let field = |result: Result<(), ApiError>| match result {
        Err(ApiError::InvalidArgument { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let h = HostConfig::default;
    h().validate().unwrap();
    assert_eq!(field(HostConfig { heartbeat: ms(999), ..h() }.validate()), "heartbeat");
    assert_eq!(field(HostConfig { spread: ms(1001), ..h() }.validate()), "spread");
    let rate = HostConfig { answers_per_second: 0, ..h() };
    assert_eq!(field(rate.validate()), "answers_per_second");
    let rate = HostConfig { answers_per_source: 51, ..h() };
    assert_eq!(field(rate.validate()), "answers_per_source");
    let c = ClientConfig::default;
    c().validate().unwrap();
    assert_eq!(field(ClientConfig { service: "a b".into(), ..c() }.validate()), "service");
    assert_eq!(field(ClientConfig { interval: ms(499), ..c() }.validate()), "interval");
    assert_eq!(field(ClientConfig { heartbeat: ms(20_999), ..c() }.validate()), "heartbeat");
    assert_eq!(field(ClientConfig { group: false, ..c() }.validate()), "targets");
    for bad in ["0.0.0.0:7477", "10.0.0.1:0", "[ff02::1]:7477"] {
        assert_eq!(field(ClientConfig { targets: vec![addr(bad)], ..c() }.validate()), "targets");
    }
    let many = vec![addr("10.0.0.1:7477"); 65];
    assert_eq!(field(ClientConfig { targets: many, ..c() }.validate()), "targets");
    assert_eq!(field(ClientConfig { ignore: vec![peer(1); 17], ..c() }.validate()), "ignore");
    let a = announcement;
    a().validate().unwrap();
    assert_eq!(field(Announcement { name: "\n".into(), ..a() }.validate()), "name");
    assert_eq!(field(Announcement { service: String::new(), ..a() }.validate()), "service");
    assert_eq!(field(Announcement { port: 0, ..a() }.validate()), "port");
    assert_eq!(field(Announcement { links: Links(0), ..a() }.validate()), "links");
}
