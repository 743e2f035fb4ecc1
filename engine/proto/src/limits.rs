//! Every bound of the protocol, in one file.
//!
//! A limit that the peer could exceed is enforced where the value is parsed; the relations between
//! limits are asserted at compile time.

/// Protocol version carried in every long packet.
pub const VERSION: u32 = 0x5452_4b01;
/// ALPN of the native protocol on both links.
pub const ALPN: &[u8] = b"trunkline/1";
/// ALPN of the plain protocol (stream link only); no ALPN at all means the same.
pub const ALPN_PLAIN: &[u8] = b"mux/0";

/// Bytes of a connection id.
pub const CONNECTION_ID_LEN: usize = 8;
/// Bytes of a stateless-reset token.
pub const RESET_TOKEN_LEN: usize = 16;
/// Bytes of a short packet's header: flags, connection id, packet number.
pub const SHORT_HEADER_LEN: usize = 13;
/// Bytes of the AEAD tag at the end of a sealed packet.
pub const TAG_LEN: usize = 16;
/// Bytes that a short packet adds to its payload.
pub const PACKET_OVERHEAD: usize = SHORT_HEADER_LEN + TAG_LEN;
/// Bytes that AES takes at a time.
pub const CIPHER_BLOCK: usize = 16;
/// As many of `bytes` as fill whole blocks.
pub const fn whole_blocks(bytes: usize) -> usize {
    bytes / CIPHER_BLOCK * CIPHER_BLOCK
}

/// Bytes of the frame header: 16-bit length and 16-bit channel id.
pub const FRAME_HEADER_LEN: usize = 4;
/// Bytes between header and body of every frame that is not TRANSPORT.
pub const FRAME_EXTRA_LEN: usize = 6;
/// Bytes that a frame of a channel adds to its body.
pub const FRAME_OVERHEAD: usize = FRAME_HEADER_LEN + FRAME_EXTRA_LEN;
/// Plaintext of one TLS record (RFC 8446 §5.1): a stream link packs frames into pieces of this size.
pub const STREAM_RECORD: usize = 16 * 1024;
/// Bytes of it that frames of channels may fill: the rest is for messages of the link itself.
pub const STREAM_PAYLOAD: usize = STREAM_RECORD - 256;
/// Frames of a stream link remembered at once until the peer has taken them; more are not sent.
pub const MAX_STREAM_RECORDS: usize = 1 << 17;
/// Longest body of one frame.
pub const MAX_FRAME_BODY: usize = u16::MAX as usize;

/// The CONTROL channel.
pub const CONTROL_CHANNEL: u16 = 0;
/// The TRANSPORT channel (datagram link only).
pub const TRANSPORT_CHANNEL: u16 = 0xFFFF;
/// First channel id that the client of a connection takes.
pub const CLIENT_FIRST_CHANNEL: u16 = 1;
/// First channel id that the host of a connection takes.
pub const HOST_FIRST_CHANNEL: u16 = 0x8000;
/// Data channels open at once on one connection.
pub const MAX_CHANNELS: u32 = 65_534;
/// A channel ends before this many stream bytes: offsets are 48 bits on the wire.
pub const MAX_STREAM_OFFSET: u64 = (1 << 48) - 1;

/// Smallest UDP payload that every path must carry; first packets are padded to it.
pub const MIN_PACKET: usize = 1200;
/// Largest UDP payload (IPv4: 65,535 − 20 − 8).
pub const MAX_PACKET: usize = 65_507;
/// Smallest datagram that can be a valid short packet.
pub const MIN_SHORT_PACKET: usize = PACKET_OVERHEAD + 1;

/// Most bytes that a setting of a connection may allow: sums of them do not overflow.
pub const MAX_BUDGET: u64 = 1 << 48;
/// Longest channel name in bytes of UTF-8.
pub const MAX_CHANNEL_NAME: usize = 1024;
/// Deepest nesting of a control message.
pub const MAX_CONTROL_NESTING: usize = 4;
/// Longest single control message in bytes.
pub const MAX_CONTROL_MESSAGE: usize = 16 * 1024;
/// Longest credential in bytes.
pub const MAX_CREDENTIAL: usize = 8 * 1024;
/// Longest claims of a credential of ours, in bytes: what surrounds them takes at most 128.
pub const MAX_CREDENTIAL_CLAIMS: usize = MAX_CREDENTIAL - 128;
/// Longest name of what a credential of ours is for, in bytes of UTF-8.
pub const MAX_CREDENTIAL_AUDIENCE: usize = 255;
/// Longest text of a close or of a declined channel, in bytes of UTF-8.
pub const MAX_REASON_TEXT: usize = 127;
/// Longest certificate chain, TLS flight or post-handshake message at one level, in bytes.
pub const MAX_CRYPTO_BUFFER: usize = 128 * 1024;
/// Longest encoded transport-parameter block in bytes.
pub const MAX_TRANSPORT_PARAMS: usize = 1024;
/// Longest retry token in bytes.
pub const MAX_RETRY_TOKEN: usize = 128;
/// Retry packets that a client follows before the first ConnectionResponse.
pub const MAX_RETRIES: u32 = 3;
/// How many times the bytes received from an unproven address may be sent to it.
pub const AMPLIFICATION_FACTOR: u64 = 3;

/// Largest message of a `messages` channel that can be configured, and the default.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Largest message of a `datagrams` channel.
pub const MAX_DATAGRAM: usize = 64 * 1024;
/// Most fragments of one datagram.
pub const MAX_FRAGMENTS: usize = 255;
/// Credit that every open channel is sure to have, in bytes.
pub const MIN_CHANNEL_WINDOW: u64 = 256;
/// Least value of `unsent_limit`: a sender that is asked for more so often is slow.
pub const MIN_UNSENT_LIMIT: u64 = 16 << 10;
/// Bytes that may wait on each channel for their first transmission however many there are.
pub const UNSENT_SHARE: u64 = 4 << 10;
/// Priority classes, 0 first.
pub const PRIORITIES: usize = 8;

/// Ranges in one ACK frame, and ranges of received packet numbers remembered.
pub const MAX_ACK_RANGES: usize = 64;
/// Sent packets remembered at once, acknowledged or not; more are not sent.
pub const MAX_TRACKED_PACKETS: usize = 1 << 17;
/// Packet numbers behind the newest one for which duplicates are told apart.
pub const REPLAY_WINDOW: u64 = 1024;
/// Disjoint ranges of stream data (acknowledged or received out of order) kept per channel.
pub const MAX_STREAM_RANGES: usize = 1024;
/// Connection ids that a peer may have issued to us and that are in use at once.
pub const MAX_PEER_CONNECTION_IDS: usize = 4;
/// Path challenges outstanding and answers queued at once.
pub const MAX_PATH_CHALLENGES: usize = 4;

/// Direct paths of one connection that are tried at once.
pub const MAX_PATH_PROBES: usize = 4;
/// Addresses of its own, and addresses under which others see it, that a peer tells.
pub const MAX_ROUTE_CANDIDATES: usize = 16;
/// Addresses of the peer that one search for a route has looked at, those told and those met.
pub const MAX_ROUTE_ADDRESSES: usize = 64;
/// Number of the socket that stands for the relay of an event source.
pub const RELAY_SOCKET: u16 = 0xFFFE;
/// Largest packet that a relay carries, in bytes.
pub const RELAY_PACKET: usize = MIN_PACKET;

/// Longest body of an event, in bytes.
pub const MAX_EVENT_BODY: usize = 8 * 1024;
/// Longest name of a client or an application, in bytes.
pub const MAX_CLIENT_ID: usize = 64;
/// Longest event on the wire, in bytes: the body, two names, and what stands around them.
pub const MAX_EVENT: usize = MAX_EVENT_BODY + 512;
/// Longest name of a token key, in bytes.
pub const MAX_TOKEN_KEY_ID: usize = 32;
/// Longest access token, in characters.
pub const MAX_ACCESS_TOKEN: usize = 512;
/// Keys of access tokens known at once.
pub const MAX_TOKEN_KEYS: usize = 64;
/// Largest packet that an event source relays from one client to another.
pub const MAX_RELAY_PACKET: usize = RELAY_PACKET;
/// Longest message of the relay, in bytes: the packet, and the name of a client with its length.
pub const MAX_RELAY_MESSAGE: usize = 1 + MAX_CLIENT_ID + MAX_RELAY_PACKET;

/// Channel requests and associations of one manager at once, of each.
pub const MAX_MANAGED: usize = 1 << 18;
/// Bytes of one stored `SecInfo`.
pub const MAX_SEC_INFO: usize = 16 + 6 * 32;

const _: () = assert!(MAX_MANAGED >= 2 * MAX_CHANNELS as usize);
const _: () = assert!(FRAME_OVERHEAD == 10);
const _: () = assert!(PACKET_OVERHEAD == 29);
const _: () = assert!(
    MAX_DATAGRAM <= MAX_FRAGMENTS * (whole_blocks(MIN_PACKET - PACKET_OVERHEAD) - FRAME_OVERHEAD)
);
const _: () = assert!(MAX_CREDENTIAL < MAX_CONTROL_MESSAGE);
const _: () = assert!(MAX_CREDENTIAL_AUDIENCE <= u8::MAX as usize);
const _: () = assert!(MAX_EVENT_BODY + 2 * (MAX_CLIENT_ID + 2) + 64 <= MAX_EVENT);
const _: () = assert!(MAX_CLIENT_ID <= u8::MAX as usize && MAX_RELAY_MESSAGE <= MAX_DATAGRAM);
// An access token goes into a credential together with a client id and a role.
const _: () = assert!(MAX_ACCESS_TOKEN + MAX_CLIENT_ID + 16 <= MAX_CREDENTIAL);
// What we send on CONTROL fits whole into one record; the rest holds four messages of the link.
const _: () = assert!(FRAME_HEADER_LEN + MAX_CREDENTIAL + 16 < STREAM_PAYLOAD);
const _: () = assert!(MAX_REASON_TEXT + 64 < STREAM_RECORD - STREAM_PAYLOAD);
const _: () = assert!(MAX_CHANNEL_NAME + 512 < MAX_CONTROL_MESSAGE);
const _: () = assert!((MAX_MESSAGE as u64) < MAX_STREAM_OFFSET);
const _: () =
    assert!(CLIENT_FIRST_CHANNEL < HOST_FIRST_CHANNEL && HOST_FIRST_CHANNEL < TRANSPORT_CHANNEL);

/// Version of the presence messages.
pub const PRESENCE_VERSION: u8 = 1;
/// Least bytes of a PresenceRequest: it is padded, so that no answer is larger than its question.
pub const MIN_PRESENCE_REQUEST: usize = 256;
/// Most bytes of a PresenceRequest.
pub const MAX_PRESENCE_REQUEST: usize = 512;
/// Most bytes of a PresenceResponse.
pub const MAX_PRESENCE_RESPONSE: usize = 256;
/// Longest name of a device in bytes of UTF-8.
pub const MAX_PRESENCE_NAME: usize = 63;
/// Longest name of a service in bytes.
pub const MAX_PRESENCE_SERVICE: usize = 63;
/// Longest device id in bytes.
pub const MAX_DEVICE_ID: usize = 64;
/// Devices that a presence client knows at once; others are counted and not shown.
pub const MAX_PRESENCE_DEVICES: usize = 1024;
/// Devices that one source address may claim to be.
pub const MAX_DEVICES_PER_SOURCE: usize = 64;
/// Addresses kept of one device.
pub const MAX_DEVICE_ADDRESSES: usize = 8;
/// Hosts that a presence client asks by address.
pub const MAX_PRESENCE_TARGETS: usize = 64;
/// Questions to one destination that can still be answered.
pub const MAX_OPEN_QUESTIONS: usize = 8;
/// Devices that a presence client is told to overlook.
pub const MAX_PRESENCE_IGNORED: usize = 16;
/// Clients with which a presence host has sessions; the one heard longest ago makes room.
pub const MAX_PRESENCE_SESSIONS: usize = 1024;
/// Source addresses whose rate is kept by whoever answers strangers.
pub const MAX_RATE_SOURCES: usize = 1024;
/// Answers of a presence host that wait for their moment.
pub const MAX_PENDING_ANSWERS: usize = 128;
/// Clients that a presence host tells when it leaves.
pub const MAX_FAREWELLS: usize = 64;

// A question is answered once, and once more when the host leaves.
const _: () = assert!(
    2 * MAX_PRESENCE_RESPONSE < AMPLIFICATION_FACTOR as usize * MIN_PRESENCE_REQUEST
        && MAX_PRESENCE_RESPONSE <= MIN_PRESENCE_REQUEST
);
const _: () =
    assert!(MAX_PRESENCE_REQUEST < MIN_PACKET && MIN_PRESENCE_REQUEST <= MAX_PRESENCE_REQUEST);
const _: () = assert!(MAX_FAREWELLS <= MAX_PENDING_ANSWERS);
