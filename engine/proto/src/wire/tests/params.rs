use super::{bytes, varint};
use crate::error::PeerMisbehaved;
use crate::ids::{ConnectionId, Role};
use crate::limits::{MAX_CHANNELS, MAX_CONTROL_MESSAGE, MAX_TRANSPORT_PARAMS};
use crate::wire::codec::Writer;
use crate::wire::params::{TransportParams, id};
use proptest::prelude::*;

fn params() -> impl Strategy<Value = TransportParams> {
    let ids = (any::<[u8; 8]>(), any::<Option<[u8; 8]>>(), any::<Option<[u8; 8]>>());
    let sizes = (1200..=65_507u64, 1..=16u64 << 20, 0..=65_536u64, 0..=MAX_CHANNELS);
    let window = (MAX_CONTROL_MESSAGE as u64)..(1 << 60);
    let rest = (varint(), 1..1u64 << 60, 0..=1_000_000u64, 1..1u64 << 60);
    (ids, any::<Option<[u8; 16]>>(), sizes, window, rest).prop_map(
        |((initial, original, retry), reset_token, sizes, control_window, rest)| TransportParams {
            initial_source_id: ConnectionId(initial),
            original_destination_id: original.map(ConnectionId),
            retry_source_id: retry.map(ConnectionId),
            reset_token,
            max_packet: sizes.0,
            max_message: sizes.1,
            max_datagram: sizes.2,
            max_channels: sizes.3,
            control_window,
            early_data: rest.0,
            connected_timeout_ms: rest.1,
            max_ack_delay_us: rest.2,
            ack_eliciting_threshold: rest.3,
        },
    )
}

/// One encoded parameter.
fn param(id: u64, value: &[u8]) -> Vec<u8> {
    let mut buf = [0; 2000];
    let mut w = Writer::new(&mut buf);
    w.put_varint(id).unwrap();
    w.put_varint(value.len() as u64).unwrap();
    w.put_bytes(value).unwrap();
    w.as_written().to_vec()
}

fn number(id: u64, value: u64) -> Vec<u8> {
    let mut buf = [0; 8];
    let mut w = Writer::new(&mut buf);
    w.put_varint(value).unwrap();
    param(id, w.as_written())
}

fn source() -> Vec<u8> {
    param(id::INITIAL_SOURCE_ID, &[5; 8])
}

proptest! {
    #[test]
    fn parameters_round_trip(params in params()) {
        let encoded = params.encode();
        prop_assert!(encoded.len() <= 200);
        prop_assert_eq!(TransportParams::parse(&encoded), Ok(params));
    }

    #[test]
    fn unknown_parameters_are_ignored(params in params(), unknown in 32..1u64 << 60, v in bytes(40)) {
        let encoded = [param(unknown, &v), params.encode(), param(unknown, &v)].concat();
        prop_assert_eq!(TransportParams::parse(&encoded), Ok(params));
    }

    #[test]
    fn arbitrary_bytes_never_panic(tail in bytes(120), whole: bool) {
        let encoded = if whole { [source(), tail].concat() } else { tail };
        if let Ok(params) = TransportParams::parse(&encoded) {
            prop_assert_eq!(TransportParams::parse(&params.encode()), Ok(params));
        }
    }

    #[test]
    fn cut_parameters_are_refused_or_miss_something(params in params(), cut: prop::sample::Index) {
        let encoded = params.encode();
        let cut = cut.index(encoded.len());
        if let Ok(parsed) = TransportParams::parse(&encoded[..cut]) {
            // Only the last parameter can be absent without a trace: when it had its default.
            let same = parsed == params;
            prop_assert!(!same || params.max_ack_delay_us == 25_000);
        }
    }
}

#[test]
fn absent_parameters_have_their_defaults() {
    let expected =
        TransportParams { initial_source_id: ConnectionId([5; 8]), ..TransportParams::default() };
    assert_eq!(TransportParams::parse(&source()), Ok(expected));
}

#[test]
fn broken_parameters_are_named() {
    let parse = |more: &[u8]| TransportParams::parse(&[&source()[..], more].concat()).map(drop);
    let bad = |what| Err(PeerMisbehaved::Malformed(what));
    let cases = [
        (number(id::MAX_PACKET, 1199), "transport parameter max_packet"),
        (number(id::CONNECTED_TIMEOUT_MS, 0), "transport parameter connected_timeout_ms"),
        (number(id::MAX_ACK_DELAY_US, 1_000_001), "transport parameter max_ack_delay_us"),
        (number(id::CONTROL_WINDOW, 16_383), "transport parameter control_window"),
        (number(id::MAX_CHANNELS, 65_535), "transport parameter max_channels"),
        (number(id::MAX_MESSAGE, 0), "transport parameter max_message"),
        (number(id::ACK_ELICITING_THRESHOLD, 0), "transport parameter ack_eliciting_threshold"),
        (param(id::EARLY_DATA, &[]), "transport parameter early_data"),
        (param(id::EARLY_DATA, &[1, 1]), "transport parameter early_data"),
        (param(id::MAX_DATAGRAM, &[0x40]), "transport parameter max_datagram"),
        (param(id::RESET_TOKEN, &[0; 15]), "transport parameter reset_token"),
        (param(id::RETRY_SOURCE_ID, &[0; 9]), "transport parameter retry_source_id"),
        (
            param(id::ORIGINAL_DESTINATION_ID, &[0; 7]),
            "transport parameter original_destination_id",
        ),
        (source(), "transport parameters: one comes twice"),
        (vec![1, 2, 0], "transport parameters"),
        (vec![0x40], "transport parameters"),
        (vec![1, 0xFF, 255, 255, 255, 255, 255, 255, 255], "transport parameters"),
    ];
    for (encoded, what) in cases {
        assert_eq!(parse(&encoded), bad(what));
    }
    assert_eq!(
        TransportParams::parse(&[]).map(drop),
        bad("transport parameters: initial_source_id is missing")
    );
    assert_eq!(
        parse(&[0; MAX_TRANSPORT_PARAMS]),
        Err(PeerMisbehaved::Limit("transport parameters"))
    );
}

#[test]
fn values_beyond_our_limits_are_lowered() {
    let more = [
        source(),
        number(id::MAX_PACKET, 1 << 40),
        number(id::MAX_MESSAGE, 1 << 40),
        number(id::MAX_DATAGRAM, 1 << 40),
    ];
    let params = TransportParams::parse(&more.concat()).unwrap();
    let default = TransportParams::default();
    assert_eq!(
        (params.max_packet, params.max_message, params.max_datagram),
        (default.max_packet, default.max_message, default.max_datagram)
    );
}

#[test]
fn only_a_host_tells_the_ids_it_saw() {
    let client = TransportParams::default();
    let host = TransportParams { original_destination_id: Some(ConnectionId([1; 8])), ..client };
    let retried = TransportParams { retry_source_id: Some(ConnectionId([2; 8])), ..client };
    assert!(client.check_sender(Role::Client).is_ok());
    assert!(client.check_sender(Role::Host).is_err());
    assert!(host.check_sender(Role::Host).is_ok());
    assert!(host.check_sender(Role::Client).is_err());
    assert!(retried.check_sender(Role::Client).is_err());
}
