/**
 * @file
 * Trunkline: encrypted, multiplexed connections over UDP. The interface for C.
 *
 * Made from the Rust sources by cbindgen; do not edit.
 * Licence: MIT OR Apache-2.0.
 */

/**
 * @mainpage
 *
 * THE LIFE OF A CONNECTION
 * ------------------------
 *
 * A host listens, a client connects; both have an engine.
 *
 *     host                                        client
 *     trunk_engine_new                            trunk_engine_new
 *     trunk_listen
 *                                                 trunk_connect
 *     TRUNK_ITEM_INCOMING   (the client has
 *       proved itself)      trunk_accept
 *     TRUNK_ITEM_STATUS     (CONNECTED)           TRUNK_ITEM_STATUS  (CONNECTED)
 *                                                 trunk_channel_open, trunk_send ...
 *     TRUNK_ITEM_REQUEST    trunk_channel_accept
 *     TRUNK_ITEM_READY                            TRUNK_ITEM_READY
 *     TRUNK_ITEM_DATA ...   trunk_send ...        TRUNK_ITEM_DATA ...
 *                                                 trunk_channel_close (our direction ends)
 *     TRUNK_ITEM_EOF        trunk_channel_close   TRUNK_ITEM_EOF
 *     TRUNK_ITEM_CLOSED     (the channel is gone) TRUNK_ITEM_CLOSED
 *                                                 trunk_close (with linger)
 *     TRUNK_ITEM_STATUS     (CLOSED_BY_PEER)      TRUNK_ITEM_DEAD
 *       trunk_close
 *     TRUNK_ITEM_DEAD
 *     trunk_shutdown, trunk_engine_destroy        trunk_shutdown, trunk_engine_destroy
 *
 * One connection carries up to 65534 channels. Each is a reliable stream of bytes, reliable
 * messages, or unreliable messages, and either side may open it. A client need not wait: channels
 * can be opened and reliable data sent right after trunk_connect.
 *
 * What happens comes out of a poll group, in order for each connection, as items:
 *
 *     trunk_item items[64];
 *     size_t count;
 *     while (trunk_recv_many(engine, 0, items, 64, TRUNK_WAIT_FOREVER, &count) == TRUNK_OK) {
 *         for (size_t i = 0; i < count; i++) {
 *             switch (items[i].type) {
 *             case TRUNK_ITEM_DATA:
 *                 fwrite(items[i].data, 1, items[i].size, stdout);
 *                 break;
 *             }
 *         }
 *         trunk_message_release(items, count);
 *     }
 *
 * The loop ends with TRUNK_ERR_STOPPED after trunk_shutdown; anything else is an error. A whole
 * program is in docs/embedding.md and bindings-c/examples/echo.c.
 *
 * Items tell what has happened: meanwhile a channel or connection may have ended.
 * TRUNK_ERR_INVALID_HANDLE and TRUNK_ERR_NO_CONNECTION are therefore ordinary answers to every call
 * about one, also inside callbacks; a later item says why.
 *
 * THREADS
 * -------
 *
 * An engine has its own threads, one for each shard, and every function may be called by any
 * thread of the application. Or it has none (trunk_engine_config.threadless): then nothing happens
 * but inside trunk_engine_poll, which belongs to the thread that first calls it or another function
 * that says "the thread that polls first"; everything else may still be called by any thread. The
 * application sleeps in trunk_engine_poll, or in its own event loop on trunk_engine_fd and
 * trunk_engine_next_timeout_ns.
 *
 * Only trunk_engine_poll, trunk_recv_many, trunk_discovery_poll, trunk_discovery_find and
 * trunk_announcer_poll (for as long as the caller says), trunk_shutdown and
 * trunk_event_source_shutdown block. A few others wait for a shard's answer, usually for
 * microseconds, and say so. All queues are bounded: a full one is TRUNK_ERR_WOULD_BLOCK, and
 * nothing was taken.
 *
 * CALLBACKS
 * ---------
 *
 * What happens waits in a poll group until the application takes it with trunk_recv_many. Or a group
 * calls: trunk_engine_config.callbacks for the engine's own group, trunk_group_new_callbacks for
 * further ones. The calls come on the thread of the connection's shard, where what the application
 * calls in turn takes effect at once and without a queue: the fast way, for code that does not block.
 *
 * Of a thread-less engine they come inside trunk_engine_poll and inside every call that waits for the
 * shard (trunk_conn_get_info and the like), trunk_shutdown and trunk_engine_destroy: hold no lock
 * around these that the callback takes. See trunk_data_fn for what they may do; trunk_log_fn,
 * trunk_security_fn and trunk_release_fn are the other callbacks.
 *
 * BY PEER AND NAME
 * ----------------
 *
 * trunk_connect and trunk_channel_open leave connections to the application. trunk_channel_request
 * asks a peer for a channel and makes or shares the connection that it needs. An association
 * (trunk_associate, trunk_association_listen, trunk_send_to) is a channel of messages that queues
 * while there is no connection, connects, rests and ends by itself, and tells for each message what
 * became of it. See docs/manager.md.
 *
 * PAIRING
 * -------
 *
 * Two clients that know each other's names find each other over an event source (trunk_pairing_new),
 * exchange small events there, and get a connection of their own, directly if the networks allow it
 * (trunk_pairing_connect, trunk_pairing_accept). See docs/pairing.md and docs/routes.md.
 *
 * The event source is trunk_event_source_start, or the program "trunkline event-source". It lets in
 * whoever has an access token that trunk_token_mint made with one of its keys.
 *
 * CREDENTIALS
 * -----------
 *
 * A client may present a credential when it connects, and the host's application decides what it
 * accepts. Credentials that are made here are signed, hold for a time, and may be bound to one
 * client:
 *
 *     login service                client               host
 *     trunk_credential_issue
 *                                  trunk_connect        TRUNK_ITEM_INCOMING
 *                                    (.credential)        trunk_credential_verify
 *                                                         trunk_accept, or trunk_reject with
 *                                                         trunk_last_error() as its text
 *
 * DISCOVERY
 * ---------
 *
 * Devices of a local network find each other by multicast, or asked at their addresses. The one
 * that listens announces itself, the one that wants to connect looks for it; neither needs an
 * engine for that, and neither has a thread:
 *
 *     host                                        client
 *     trunk_announcer_start_for_listener          trunk_discovery_start
 *     trunk_announcer_poll ...                    trunk_discovery_poll ...
 *                                                 TRUNK_DISCOVERY_FOUND  (name, addresses, peer)
 *                                                 trunk_connect          (pinned to peer)
 *     trunk_announcer_close                       TRUNK_DISCOVERY_LOST
 *                                                 trunk_discovery_close
 *
 * or, when a list is all that is wanted, trunk_discovery_find in one call. Both are driven by a
 * poll that waits, on a thread of the application, or in its event loop on ..._fd and
 * ..._next_timeout_ns. A device's word for its name and address proves nothing: the connection
 * does, when it is pinned to the fingerprint that was announced. See docs/presence.md.
 *
 * ERRORS
 * ------
 *
 * Functions return 0 or a negative trunk_result, and store what they give at their last arguments;
 * on an error nothing else is stored unless stated. trunk_result_str has words for the code,
 * trunk_last_error the detail. Arguments are checked: NULL, ranges, sizes, UTF-8. No function
 * aborts the process, and no panic leaves the library. "Errors" below are those that can be
 * expected; any function can also give TRUNK_ERR_INTERNAL, and those with an engine
 * TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE (the engine was destroyed) and TRUNK_ERR_FORKED.
 *
 * HANDLES
 * -------
 *
 * Connections, channels, listeners and poll groups are 64-bit values; 0 is none. A handle that is
 * stale, belongs to another engine or is of another kind gives TRUNK_ERR_INVALID_HANDLE, never
 * something that belongs to somebody else. Only the engine itself is a pointer. What belongs to no
 * engine (issuers and verifiers of credentials, event sources, discoveries, announcers) has handles
 * too, which are good in the whole process.
 *
 * FUNCTIONS, in the order of this header
 * --------------------------------------
 *
 *     version, results    trunk_version, trunk_version_str, trunk_result_str, trunk_last_error
 *     settings            trunk_engine_config_load_profile
 *     engine              trunk_engine_new, _driver, _set_deny, _network_changed, _conns, _now,
 *                         _get_stats, _get_shard_stats, _set_faults, trunk_shutdown,
 *                         trunk_engine_destroy
 *     without threads     trunk_engine_poll, _fd, _next_timeout_ns, _wake
 *     security            trunk_identity_generate, trunk_identity_fingerprint,
 *                         trunk_fingerprint_parse, trunk_fingerprint_format
 *     listening           trunk_listen, trunk_listener_address, trunk_listener_close
 *     connections         trunk_connect, trunk_accept, trunk_reject, trunk_close,
 *                         trunk_conn_status, _check, _shard, _get_info, _get_stats,
 *                         _get_sec_info, _channels, _hold, _set_user, _user, _set_group
 *     channels            trunk_channel_open, _accept, _decline, _close, _reset, _stop, _conn,
 *                         _get_info, _set_user, _user
 *     sending             trunk_send, trunk_send_receipt, trunk_send_many, trunk_buf_alloc,
 *                         trunk_send_buf, trunk_buf_free, trunk_send_item, trunk_flush,
 *                         trunk_send_external
 *     receiving           trunk_group_new, _wake, _get_stats, trunk_recv_many,
 *                         trunk_message_release
 *     callbacks           trunk_group_new_callbacks, trunk_message_keep
 *     by peer and name    trunk_channel_request, trunk_open_request_cancel, trunk_associate,
 *                         trunk_association_listen, _accept, _send, _close, trunk_send_to
 *     security            trunk_sec_info_load, _matches, _same_connection, trunk_security_fn
 *     pairing             trunk_pairing_new, _set_active, _assign_client_id, _assign_token,
 *                         _assign_partner, _send, _send_relayed, _get_status, _connect, _accept,
 *                         _leave, _close, _state_str
 *     credentials         trunk_credential_issuer_with_secret, _with_ed25519, _public_key, _close,
 *                         trunk_credential_issue, trunk_credential_verifier_new, _add_secret,
 *                         _add_public_key, _remove_key, _close, trunk_credential_verify
 *     access tokens       trunk_token_mint, trunk_token_verify, trunk_token_dangerous_inspect
 *     event sources       trunk_event_source_start, _listen, _address, _unlisten, _set_keys,
 *                         _get_stats, _get_engine_stats, _get_shard_stats, _shutdown, _close
 *     finding devices     trunk_discovery_start, _close, _poll, _fd, _next_timeout_ns, _wake,
 *                         _devices, _find, _state, _session, _get_counts, _problems,
 *                         _network_changed, trunk_device_type_str, trunk_device_mode_str
 *     being found         trunk_announcer_start, _start_for_listener, _close, _poll, _fd,
 *                         _next_timeout_ns, _wake, _announce, _withdraw, _state, _get_info,
 *                         _get_counts, _addresses, _problems, _network_changed
 *
 * STRUCTS
 * -------
 *
 * A struct that may grow starts with struct_size. Its trunk_..._init function fills in size and
 * defaults; call it first, always. A program that was built with an older header keeps working with
 * a newer library: the fields that it does not know have their defaults.
 *
 * MEMORY
 * ------
 *
 * What the application passes in is copied before the function returns, with these exceptions:
 * trunk_send_external (until its release function is called), trunk_send_buf, user pointers, and what
 * trunk_security_choice points to. What it gets is either stored in its own memory, or belongs to an
 * item (until trunk_message_release) or a trunk_buf (until trunk_send_buf or trunk_buf_free).
 * trunk_credential.claims points into what was given to trunk_credential_verify.
 *
 * FORK
 * ----
 *
 * An engine, an issuer, a verifier, an event source, a discovery and an announcer belong to the
 * process that made them. In a child made by fork(), every call with one gives TRUNK_ERR_FORKED and
 * leaves it alone; the child may make new ones.
 */

#ifndef TRUNKLINE_H
#define TRUNKLINE_H

#include <stddef.h>
#include <stdint.h>

/// Version of this header: incompatible changes.
#define TRUNK_VERSION_MAJOR 0

/// Version of this header: additions.
#define TRUNK_VERSION_MINOR 1

/// Version of this header: corrections.
#define TRUNK_VERSION_PATCH 0

/// Bytes of a fingerprint.
#define TRUNK_FINGERPRINT_BYTES 32

/// Bytes of a fingerprint as text, final NUL included.
#define TRUNK_FINGERPRINT_TEXT_BYTES 65

/// For trunk_close and trunk_shutdown: linger as long as the configured linger_timeout_ns.
#define TRUNK_LINGER_DEFAULT -1

/// For trunk_close and trunk_shutdown: do not linger, drop what is not delivered.
#define TRUNK_LINGER_NONE 0

/// For trunk_listen_config.links: packets in UDP datagrams.
#define TRUNK_LISTEN_DATAGRAM 1

/// For trunk_listen_config.links: TLS over TCP, the native protocol.
#define TRUNK_LISTEN_STREAM 2

/// For trunk_listen_config.links: TLS over TCP, the plain protocol too (frame headers,
/// ChannelRequest and EOF), for peers that know nothing else. Such a client shows no credential.
#define TRUNK_LISTEN_PLAIN 4

/// Most bytes of a trunk_sec_info that is stored.
#define TRUNK_SEC_INFO_BYTES 208

/// For trunk_recv_many, trunk_engine_poll, trunk_discovery_poll and trunk_announcer_poll: wait as
/// long as it takes.
#define TRUNK_WAIT_FOREVER -1

/// For the same: do not wait.
#define TRUNK_WAIT_NOT 0

/// Most bytes of a credential.
#define TRUNK_CREDENTIAL_BYTES 8192

/// Most bytes of what a credential says of its holder.
#define TRUNK_CREDENTIAL_CLAIMS_BYTES 8064

/// Fewest bytes of a secret with which credentials or access tokens are signed.
#define TRUNK_SECRET_BYTES 32

/// Bytes of an Ed25519 public key.
#define TRUNK_PUBLIC_KEY_BYTES 32

/// Most bytes of an access token, final NUL included.
#define TRUNK_TOKEN_TEXT_BYTES 513

/// Most bytes of an application's name, or of a client id or pattern, final NUL included.
#define TRUNK_NAME_TEXT_BYTES 65

/// Most bytes of the name of a key, final NUL included.
#define TRUNK_TOKEN_KEY_ID_TEXT_BYTES 33

/// UDP port on which announcers hear questions. They come by multicast to 239.255.84.75 and
/// ff12::d452:4b50, or to the announcer's own addresses.
#define TRUNK_PRESENCE_PORT 7477

/// Bytes of the name of a device or a service, final NUL included.
#define TRUNK_DEVICE_NAME_BYTES 64

/// Addresses of one device.
#define TRUNK_DEVICE_PATHS 8

/// Devices that one discovery knows at once; others are counted and not shown.
#define TRUNK_MAX_DEVICES 1024

/// An engine. Made by trunk_engine_new, and named by this pointer until trunk_engine_destroy; a
/// call after that gives TRUNK_ERR_INVALID_HANDLE.
typedef struct trunk_engine trunk_engine;

/// What a call answers: 0 or a negative error.
typedef int32_t trunk_result;

/// What moves the packets.
typedef uint32_t trunk_driver;

/// A certificate chain with its private key, as PEM: in files, or in memory. The own certificate
/// comes first. Ed25519 and ECDSA P-256 keys are recommended.
///
/// Give file or pem, not both. Key and certificates may be in one text, or the key in a second one.
typedef struct trunk_identity {
    /// Size of this struct; set by trunk_identity_init.
    uint32_t struct_size;
    /// Must be 0.
    uint32_t reserved;
    /// PEM file with the certificates, and the key unless key_file is given. NULL.
    const char *file;
    /// PEM file with the key. NULL.
    const char *key_file;
    /// PEM text with the certificates, and the key unless key_pem is given. NULL.
    const char *pem;
    /// Bytes of it; a final NUL does not count.
    size_t pem_size;
    /// PEM text with the key. NULL.
    const char *key_pem;
    /// Bytes of it.
    size_t key_pem_size;
} trunk_identity;

/// Settings of connections. trunk_connection_config_init fills in the defaults, which are stated
/// with each field. Times are nanoseconds, sizes bytes.
typedef struct trunk_connection_config {
    /// Size of this struct; set by trunk_connection_config_init.
    uint32_t struct_size;
    /// Whether to use ECN marks. 1.
    uint32_t ecn;
    /// Limit of the handshake, and of finding a route after it. 10 s.
    uint64_t initial_timeout_ns;
    /// No packet from the peer for this long ends the connection. 10 s.
    uint64_t connected_timeout_ns;
    /// A ping goes out after this long without one that asks for an answer; at most half of
    /// connected_timeout_ns. 3 s.
    uint64_t keep_alive_ns;
    /// Limit of trunk_close with TRUNK_LINGER_DEFAULT. 30 s.
    uint64_t linger_timeout_ns;
    /// How long a closed connection answers late packets. 5 s.
    uint64_t fin_wait_timeout_ns;
    /// First retransmission of a handshake message; doubles. 250 ms.
    uint64_t handshake_retransmit_ns;
    /// Longest delay of an acknowledgement. 25 ms.
    uint64_t max_ack_delay_ns;
    /// Time for the answer to trunk_conn_check. 3 s.
    uint64_t check_timeout_ns;
    /// How long an opened channel waits for its answer. 10 s.
    uint64_t channel_timeout_ns;
    /// How long small writes wait for more while data is on its way, unless a channel has no_delay.
    /// 5 ms; 0 = never.
    uint64_t coalesce_ns;
    /// Fixed sending rate in bytes a second, for links whose rate is known. 0 = congestion control
    /// (CUBIC).
    uint64_t fixed_rate;
    /// UDP payload that packets start with; at least 1200. 1200.
    uint32_t initial_packet;
    /// UDP payload up to which the size is searched. 1452; equal to initial_packet = no search.
    uint32_t max_packet;
    /// Channels that the peer may have open at once. 65534.
    uint32_t max_channels;
    /// Largest message sent and accepted; at most 16 MiB. 16 MiB.
    uint32_t max_message;
    /// Bytes that a channel's peer may have on its way to us at first. 1 MiB.
    uint64_t channel_window;
    /// The same for a busy channel. 16 MiB.
    uint64_t channel_window_max;
    /// The same for all channels of the connection together. 64 MiB.
    uint64_t receive_budget;
    /// Bytes that the peer may send on channels that are not answered yet. 256 KiB.
    uint64_t early_data;
    /// Bytes of one channel that may wait or be unacknowledged before sends give
    /// TRUNK_ERR_WOULD_BLOCK. 32 MiB.
    uint64_t channel_send_buffer;
    /// The same for the connection. 128 MiB.
    uint64_t send_buffer;
    /// Bytes of all channels that may wait for their first transmission before sends give
    /// TRUNK_ERR_WOULD_BLOCK, once the connection stands. A channel that has nothing waiting always
    /// takes a message, and one with less than its even share, at least 4 KiB. 512 KiB.
    uint64_t unsent_limit;
    /// Bytes of unreliable messages of one channel that wait to be sent; the oldest goes first.
    /// 1 MiB.
    uint64_t datagram_send_buffer;
    /// Bytes of messages larger than the credit window that may be put together at once. 32 MiB.
    uint64_t reassembly_budget;
    /// Bytes of unreliable messages that are being put together, for the whole connection. 2 MiB.
    uint64_t datagram_reassembly;
    /// How long an incomplete unreliable message is kept. 1 s.
    uint64_t datagram_reassembly_timeout_ns;
    /// Below this smoothed round trip bursts may be as long as the system takes at once. 1 ms.
    uint64_t lan_rtt_ns;
    /// Packets sealed with one key before it is renewed. 2^22.
    uint64_t key_update_packets;
    /// Most packets of one train that pacing lets through above lan_rtt_ns, 2 to 64; the first
    /// window and what a late timer missed follow at once, in such trains. 16.
    uint32_t pacing_burst;
    /// 0.
    uint32_t reserved;
} trunk_connection_config;

/// When a peer must prove its address before the host remembers anything of it.
typedef uint32_t trunk_retry;

/// How important a line of the log is; each level includes those before it.
typedef uint32_t trunk_log_level;

/// Takes one line of an engine's log. target names the part of the engine, text the rest; both end
/// with a NUL and are valid during the call.
///
/// Called on the engine's threads, and on threads of the application inside calls of this engine,
/// by several at once. It must not block for long and must not throw C++ exceptions or longjmp. It
/// may call anything; what waits for an engine gives TRUNK_ERR_IN_CALLBACK. What such calls log is
/// dropped, and an engine that is made there has no log of its threads.
typedef void (*trunk_log_fn)(void *user, trunk_log_level level, const char *target, const char *text);

/// A channel of a connection. 0 is none.
typedef uint64_t trunk_channel;

/// What a channel carries.
typedef uint32_t trunk_kind;

/// Takes the next bytes of a channel, or one message, as kind says. data is valid during the call;
/// trunk_message_keep keeps it. channel_user is the channel's user data.
///
/// Called on the thread of the connection's shard, of a thread-less engine inside
/// trunk_engine_poll, calls that wait for the shard, trunk_shutdown and trunk_engine_destroy. The
/// shard does nothing else meanwhile: it must not block, and must not throw C++ exceptions or
/// longjmp. What it calls for connections of its own shard takes effect at once.
///
/// It may call anything but trunk_shutdown, trunk_engine_destroy, trunk_engine_poll,
/// trunk_engine_fd, trunk_engine_next_timeout_ns, trunk_engine_get_stats,
/// trunk_engine_get_shard_stats and the trunk_event_source_ functions that wait
/// (TRUNK_ERR_IN_CALLBACK). What asks another shard gives TRUNK_ERR_WOULD_BLOCK: do not try again
/// inside.
typedef void (*trunk_data_fn)(void *user,
                              trunk_channel channel,
                              void *channel_user,
                              trunk_kind kind,
                              const uint8_t *data,
                              size_t size);

/// What an item is.
typedef uint32_t trunk_item_type;

/// A connection. 0 is none.
typedef uint64_t trunk_conn;

/// What a connection is to its user.
typedef int32_t trunk_status;

/// Why a connection ended: 1000 to 1999 ordinary and 2000 to 2999 exceptional codes of the
/// application, 3000 local, 4000 remote, 5000 other.
typedef uint32_t trunk_reason;

/// Of TRUNK_ITEM_STATUS. New fields come at the end.
typedef struct trunk_status_change {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// The status before.
    trunk_status old_status;
    /// The status now.
    trunk_status new_status;
    /// Why, when the new status is an end; otherwise TRUNK_REASON_NONE.
    trunk_reason reason;
    /// The reason in words; never NULL.
    const char *reason_text;
} trunk_status_change;

/// Of TRUNK_ITEM_INCOMING. New fields come at the end.
typedef struct trunk_incoming {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// Whether the peer has shown a certificate, and peer is valid.
    uint32_t has_peer;
    /// The peer's fingerprint.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    /// The peer's address and port; never NULL.
    const char *remote;
    /// The name it asked for, or NULL.
    const char *server_name;
    /// The credential that it presented.
    const uint8_t *credential;
    /// Bytes of it.
    size_t credential_size;
} trunk_incoming;

/// How a channel is opened or accepted. Each side chooses its own priority, weight and window.
/// trunk_channel_options_init fills in the defaults.
typedef struct trunk_channel_options {
    /// Size of this struct; set by trunk_channel_options_init.
    uint32_t struct_size;
    /// What it carries; the opener's counts. TRUNK_KIND_BYTES.
    trunk_kind kind;
    /// Strict priority class of what we send, 0 first, at most 7. 4.
    uint32_t priority;
    /// Share within the class, 1 to 255. 16.
    uint32_t weight;
    /// Bytes that the peer may have on their way to us at first. 0 = the connection's
    /// channel_window.
    uint64_t window;
    /// Not 0: small writes never wait for more. 0.
    uint32_t no_delay;
    /// Opener. Not 0: data waits until the peer has answered. 0.
    uint32_t wait_for_answer;
    /// Opener, datagrams. Not 0: in both directions, a message that arrives after a newer one is
    /// dropped. 0.
    uint32_t latest;
    /// Opener, datagrams: in both directions, messages that could not be sent within this many
    /// milliseconds are dropped. 0 = never.
    uint32_t expires_ms;
    /// Opener. Not 0: joins the channel of this name that the connection has, whoever opened it, if
    /// there is one. trunk_channel_open then waits for the shard. 0.
    uint32_t unique;
    /// Must be 0.
    uint32_t reserved;
} trunk_channel_options;

/// Of TRUNK_ITEM_REQUEST. New fields come at the end.
typedef struct trunk_request {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// Its id on the wire.
    uint32_t wire_id;
    /// The name that the peer chose, UTF-8, with a final NUL; never NULL.
    const char *name;
    /// Bytes of it without the final NUL. It may hold other NULs.
    size_t name_size;
    /// The peer's options: its kind, and what concerns the peer's sending.
    struct trunk_channel_options options;
} trunk_request;

/// How a channel ended.
typedef uint32_t trunk_end;

/// Of TRUNK_ITEM_CLOSED. New fields come at the end.
typedef struct trunk_closed {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// How it ended.
    trunk_end end;
    /// The code given with it.
    uint32_t code;
    /// Whether the peer started it.
    uint32_t by_peer;
    /// TRUNK_END_CONNECTION: why.
    trunk_reason reason;
    /// 0.
    uint32_t reserved;
    /// Words for people; never NULL.
    const char *text;
} trunk_closed;

/// Of TRUNK_ITEM_DEAD: what became of the reliable data of a connection. New fields come at the
/// end.
typedef struct trunk_dead {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// Whether the peer knows that the connection has ended.
    uint32_t peer_knows;
    /// Bytes handed over that the peer acknowledged.
    uint64_t acknowledged_bytes;
    /// Bytes handed over and not acknowledged.
    uint64_t undelivered_bytes;
    /// Channels that still had undelivered data.
    uint32_t undelivered_channels;
    /// The final reason.
    trunk_reason reason;
    /// The reason in words; never NULL.
    const char *reason_text;
    /// Whether the peer said that it had thrown away data which it had received.
    uint32_t peer_discarded;
    /// 0.
    uint32_t reserved;
} trunk_dead;

/// What came of a request for a channel, and why an association that failed did.
typedef uint32_t trunk_outcome;

/// A request of trunk_channel_request, until its TRUNK_ITEM_OPENED. 0 is none.
typedef uint64_t trunk_open_request;

/// Of TRUNK_ITEM_OPENED. New fields come at the end.
typedef struct trunk_opened {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// What came of it.
    trunk_outcome outcome;
    /// The request, which is over.
    trunk_open_request request;
    /// Whether the channel was there before, or somebody else asked for it: a unique name.
    uint32_t joined;
    /// TRUNK_OUTCOME_DECLINED, TRUNK_OUTCOME_RESET: the code given with it.
    uint32_t code;
    /// TRUNK_OUTCOME_CONNECTION: why.
    trunk_reason reason;
    /// TRUNK_OUTCOME_REFUSED: why.
    trunk_result result;
    /// Words for people; never NULL.
    const char *text;
} trunk_opened;

/// What an association is to its user.
typedef uint32_t trunk_association_state;

/// How an association ended.
typedef uint32_t trunk_association_end;

/// An association. 0 is none.
typedef uint64_t trunk_association;

/// Which side of a connection we are.
typedef uint32_t trunk_role;

/// What carries a connection.
typedef uint32_t trunk_link;

/// How one side of a connection was authenticated.
typedef uint32_t trunk_auth;

/// One side of a connection. Of fixed size: it does not grow.
typedef struct trunk_party {
    /// How it was authenticated.
    trunk_auth method;
    /// Whether it showed a certificate, and identity is valid.
    uint32_t has_identity;
    /// Whether it showed a credential, and credential is valid.
    uint32_t has_credential;
    /// 0.
    uint32_t reserved;
    /// Its fingerprint.
    uint8_t identity[TRUNK_FINGERPRINT_BYTES];
    /// SHA-256 of a label and its credential. Whoever can guess the credential can check the guess
    /// against this.
    uint8_t credential[32];
} trunk_party;

/// What is known of a connection's security. stored holds all of it: it can be kept and taken back
/// with trunk_sec_info_load. It has the exporter value in it, which is worth keeping secret where
/// an application binds something to it. New fields come at the end.
typedef struct trunk_sec_info {
    /// Size of this struct; set by trunk_sec_info_init.
    uint32_t struct_size;
    /// Whether we are client or host.
    trunk_role role;
    /// What carries the connection.
    trunk_link link;
    /// TLS cipher suite (RFC 8446 B.4); 0 = not agreed on yet.
    uint32_t suite;
    /// Whether the TLS session was resumed.
    uint32_t resumed;
    /// Whether the peer has proved itself: before, only our own side means anything.
    uint32_t proven;
    /// When it did, in nanoseconds of the engine's clock.
    uint64_t established_ns;
    /// Our side.
    struct trunk_party own;
    /// The other one.
    struct trunk_party peer;
    /// Digest of the trust under which the peer was accepted.
    uint8_t trust[32];
    /// 32 bytes that only the two sides of this connection know (RFC 8446 7.5, label
    /// EXPORTER-trunkline); zeros before the peer has proved itself.
    uint8_t exporter[32];
    /// Bytes of stored that count.
    uint32_t stored_size;
    /// 0.
    uint32_t reserved;
    /// All of it, for trunk_sec_info_load.
    uint8_t stored[TRUNK_SEC_INFO_BYTES];
} trunk_sec_info;

/// Of TRUNK_ITEM_ASSOCIATION. New fields come at the end.
typedef struct trunk_association_change {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// The state before.
    trunk_association_state old_state;
    /// The state now.
    trunk_association_state new_state;
    /// TRUNK_ASSOCIATION_DESTROYED: how it ended.
    trunk_association_end end;
    /// The association.
    trunk_association association;
    /// TRUNK_ASSOCIATION_END_FAILED: why.
    trunk_outcome outcome;
    /// As in trunk_opened.
    uint32_t code;
    /// As in trunk_opened; TRUNK_ASSOCIATION_END_BROKEN: why.
    trunk_reason reason;
    /// As in trunk_opened.
    trunk_result result;
    /// Words for people; never NULL.
    const char *text;
    /// Security of its connection, once there is one; otherwise NULL.
    const struct trunk_sec_info *sec_info;
} trunk_association_change;

/// Why a message was not delivered, as far as is known: after TRUNK_DELIVERY_ENDED the peer may
/// have it, and the acknowledgement was lost.
typedef uint32_t trunk_delivery_error;

/// Of TRUNK_ITEM_DELIVERED and TRUNK_ITEM_UNDELIVERED. New fields come at the end.
typedef struct trunk_delivery {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// Why not.
    trunk_delivery_error error;
    /// The association.
    trunk_association association;
    /// TRUNK_DELIVERY_REFUSED: why.
    trunk_result result;
    /// 0.
    uint32_t reserved;
    /// Words for people; never NULL.
    const char *text;
} trunk_delivery;

/// What a pairing tells.
typedef uint32_t trunk_pairing_notice_type;

/// A pairing. 0 is none.
typedef uint64_t trunk_pairing;

/// What a pairing is.
typedef uint32_t trunk_pairing_state;

/// Why a partner does not want us, or the event source does not let us reach it. Other values are
/// those of a later version.
typedef uint32_t trunk_pairing_reject;

/// Of TRUNK_ITEM_PAIRING. New fields come at the end.
typedef struct trunk_pairing_notice {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// What happened.
    trunk_pairing_notice_type type;
    /// The pairing.
    trunk_pairing pairing;
    /// The state before.
    trunk_pairing_state old_state;
    /// The state now.
    trunk_pairing_state new_state;
    /// The partner that it is about; never NULL.
    const char *client;
    /// Why it rejects us.
    trunk_pairing_reject reject;
    /// As type says.
    uint32_t code;
    /// The application's own number.
    uint32_t subtype;
    /// Whether the event may have waited.
    uint32_t buffered;
    /// How many events the partner had sent in its life.
    uint64_t sent;
    /// How many of our events it had received.
    uint64_t received;
    /// The event's body.
    const uint8_t *data;
    /// Bytes of it, at most 8192.
    size_t size;
} trunk_pairing_notice;

/// Of TRUNK_ITEM_RELAYED. New fields come at the end.
typedef struct trunk_relayed {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// 0.
    uint32_t reserved;
    /// The pairing.
    trunk_pairing pairing;
    /// The packet.
    const uint8_t *data;
    /// Bytes of it.
    size_t size;
} trunk_relayed;

/// Of TRUNK_ITEM_PEER. New fields come at the end.
typedef struct trunk_peer {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// 0.
    uint32_t reserved;
    /// The pairing.
    trunk_pairing pairing;
} trunk_peer;

/// Of TRUNK_ITEM_PATH. New fields come at the end.
typedef struct trunk_path {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// Whether packets go over the relay of an event source again.
    uint32_t relayed;
    /// The address in use; never NULL.
    const char *remote;
} trunk_path;

/// What an item has beyond its own fields; type says which member, if any, is valid.
typedef union trunk_item_detail {
    /// TRUNK_ITEM_STATUS.
    const struct trunk_status_change *status;
    /// TRUNK_ITEM_INCOMING.
    const struct trunk_incoming *incoming;
    /// TRUNK_ITEM_REQUEST.
    const struct trunk_request *request;
    /// TRUNK_ITEM_CLOSED.
    const struct trunk_closed *closed;
    /// TRUNK_ITEM_DEAD.
    const struct trunk_dead *dead;
    /// TRUNK_ITEM_SEND_FAILED, TRUNK_ITEM_SHARD_FAILED.
    const char *text;
    /// TRUNK_ITEM_OPENED.
    const struct trunk_opened *opened;
    /// TRUNK_ITEM_ASSOCIATION.
    const struct trunk_association_change *association;
    /// TRUNK_ITEM_DELIVERED, TRUNK_ITEM_UNDELIVERED.
    const struct trunk_delivery *delivery;
    /// TRUNK_ITEM_PAIRING.
    const struct trunk_pairing_notice *pairing;
    /// TRUNK_ITEM_RELAYED.
    const struct trunk_relayed *relayed;
    /// TRUNK_ITEM_PEER.
    const struct trunk_peer *peer;
    /// TRUNK_ITEM_PATH.
    const struct trunk_path *path;
} trunk_item_detail;

/// One message or event. Everything it points to belongs to the engine and stays valid until the
/// item is given to trunk_message_release, which every item wants, on any thread. A struct
/// assignment moves the item: release one of the two, and fill the other with zeros if it stands in
/// an array that is released. Of fixed size: it does not grow.
typedef struct trunk_item {
    /// What it is.
    trunk_item_type type;
    /// TRUNK_ITEM_DATA, TRUNK_ITEM_REQUEST: what the channel carries.
    trunk_kind kind;
    /// The connection that it is about.
    trunk_conn conn;
    /// The channel that it is about; 0 when it is about the connection.
    trunk_channel channel;
    /// User data of the connection, or NULL.
    void *conn_user;
    /// User data of the channel, or NULL.
    void *channel_user;
    /// TRUNK_ITEM_DATA: the bytes.
    const uint8_t *data;
    /// TRUNK_ITEM_DATA: number of bytes; a message may have none.
    size_t size;
    /// TRUNK_ITEM_RECEIPT, TRUNK_ITEM_DELIVERED, TRUNK_ITEM_UNDELIVERED: the token given with the
    /// message.
    uint64_t token;
    /// TRUNK_ITEM_RESET, TRUNK_ITEM_STOPPED: the peer's code.
    uint32_t code;
    /// 0.
    uint32_t reserved;
    /// More about it, as type says.
    union trunk_item_detail detail;
    /// The engine's.
    uint64_t owner[6];
} trunk_item;

/// Takes every item except TRUNK_ITEM_DATA. item belongs to the engine and is valid during the
/// call.
///
/// Called as trunk_data_fn, with the same rules. TRUNK_ITEM_SHARD_FAILED, and what comes when an
/// engine is destroyed, come when the shard has ended: calls from inside give errors then.
typedef void (*trunk_item_fn)(void *user, const struct trunk_item *item);

/// What a group calls instead of keeping items for trunk_recv_many. trunk_callbacks_init prepares
/// it.
typedef struct trunk_callbacks {
    /// Size of this struct; set by trunk_callbacks_init.
    uint32_t struct_size;
    /// Must be 0.
    uint32_t reserved;
    /// Takes data. Required.
    trunk_data_fn on_data;
    /// Takes everything else. Required.
    trunk_item_fn on_item;
    /// First argument of both. NULL.
    void *user;
} trunk_callbacks;

/// When the security callback is called.
typedef uint32_t trunk_security_stage;

/// What the security callback is told. New fields come at the end.
typedef struct trunk_security_query {
    /// Size of this struct as the library knows it.
    uint32_t struct_size;
    /// How far the attempt is.
    trunk_security_stage stage;
    /// Whether sec_handle was given with the connect or send.
    uint32_t has_sec_handle;
    /// 0.
    uint32_t reserved;
    /// The value given, if has_sec_handle.
    uint64_t sec_handle;
    /// What is known by now; at TRUNK_SECURITY_BEGINNING that is our own side.
    const struct trunk_sec_info *info;
    /// Where the connection leads: addresses with ports.
    const char *const *addresses;
    /// Number of them.
    size_t address_count;
    /// The name that is asked for; never NULL.
    const char *server_name;
} trunk_security_query;

/// What makes a peer's certificate acceptable.
typedef uint32_t trunk_trust_kind;

/// Whom we believe.
typedef struct trunk_trust {
    /// Size of this struct; set by trunk_trust_init.
    uint32_t struct_size;
    /// How a peer is judged. TRUNK_TRUST_NONE.
    trunk_trust_kind kind;
    /// TRUNK_TRUST_PINS: fingerprints, TRUNK_FINGERPRINT_BYTES each, back to back.
    const uint8_t *pins;
    /// Number of fingerprints.
    size_t pin_count;
    /// TRUNK_TRUST_CA: PEM file with CA certificates. NULL.
    const char *ca_file;
    /// TRUNK_TRUST_CA: PEM text with CA certificates. NULL.
    const char *ca_pem;
    /// Bytes of it.
    size_t ca_pem_size;
    /// Hosts: a client may also show no certificate; if it shows one, it must be acceptable. 0.
    uint32_t optional;
    /// Must be 0.
    uint32_t reserved;
} trunk_trust;

/// What the security callback wants; what it leaves NULL stays as the connect says. What it points
/// to must stay valid until the next call of the callback on the same thread. Of fixed size: it
/// does not grow.
typedef struct trunk_security_choice {
    /// Who we are. Without effect once the peer is proven.
    const struct trunk_identity *identity;
    /// Whom to believe. Once the peer is proven only TRUNK_TRUST_PINS has an effect: a peer that is
    /// none of them is refused.
    const struct trunk_trust *trust;
    /// What is shown to the host after the handshake; at most 8192 bytes.
    const void *credential;
    /// Bytes of it.
    size_t credential_size;
    /// Why the attempt is refused: words that end it with TRUNK_REASON_AUTHENTICATION.
    const char *refusal;
    /// 0.
    uint64_t reserved[3];
} trunk_security_choice;

/// Asked while connections are being made: writes what it wants to choice, which is empty at first.
/// To let the attempt go on, it leaves refusal NULL.
///
/// Called by the thread that connects, inside trunk_connect and its kin, and by the connection's
/// shard once the peer has proved itself; by several at once. It must not block and must not throw
/// C++ exceptions or longjmp. It may call anything; what waits for an engine gives
/// TRUNK_ERR_IN_CALLBACK. What such calls log is dropped, and an engine that is made there has no
/// log of its threads.
typedef void (*trunk_security_fn)(void *user,
                                  const struct trunk_security_query *query,
                                  struct trunk_security_choice *choice);

/// Faults of one direction. Probabilities are per packet, from 0 to 1; all zeros is a perfect path.
/// trunk_faults_init fills in the defaults, which are that.
typedef struct trunk_faults {
    /// Size of this struct; set by trunk_faults_init.
    uint32_t struct_size;
    /// Longer packets are lost without a word; 0 = none is. 0.
    uint32_t max_packet;
    /// Lost. 0.
    double loss;
    /// Delivered twice. 0.
    double duplicate;
    /// Held back by reorder_by_ns on top of its delay, so that later ones overtake it. 0.
    double reorder;
    /// One to three bits are flipped. 0.
    double corrupt;
    /// How long a reordered packet is held back. 3 ms.
    uint64_t reorder_by_ns;
    /// Time on the way. 0.
    uint64_t delay_ns;
    /// Added to the delay, evenly spread from zero to this; packets overtake each other. 0.
    uint64_t jitter_ns;
    /// Bits a second; 0 = no limit. 0.
    uint64_t rate;
    /// Bytes that wait for the rate; more are lost. 256 KiB.
    uint64_t queue_bytes;
} trunk_faults;

/// Which faults, and whose packets they concern; connections over streams are not harmed.
/// trunk_fault_config_init prepares it.
typedef struct trunk_fault_config {
    /// Size of this struct; set by trunk_fault_config_init.
    uint32_t struct_size;
    /// Must be 0.
    uint32_t reserved;
    /// The same seed does the same to the same packets. Counts when the engine is made. 0.
    uint64_t seed;
    /// Faults of what is sent. NULL = none.
    const struct trunk_faults *outbound;
    /// Faults of what is received. NULL = none.
    const struct trunk_faults *inbound;
    /// Only packets to or from these addresses, such as "192.0.2.7:7470"; port 0 stands for every
    /// port. NULL = all, unless conn is given.
    const char *const *addresses;
    /// Number of them.
    size_t address_count;
    /// trunk_engine_set_faults: only packets of the peer of this connection, besides the addresses.
    /// 0 = none.
    trunk_conn conn;
} trunk_fault_config;

/// Settings of an engine. trunk_engine_config_init fills in the defaults, which are stated with
/// each field. Everything that it points to is copied by trunk_engine_new.
typedef struct trunk_engine_config {
    /// Size of this struct; set by trunk_engine_config_init.
    uint32_t struct_size;
    /// Shards, each with its own thread, sockets and connections; they share nothing. At most 256. 1.
    uint32_t shards;
    /// Not 0: no threads at all. One shard, which the application drives with trunk_engine_poll. 0.
    uint32_t threadless;
    /// What moves the packets. TRUNK_DRIVER_AUTO.
    trunk_driver driver;
    /// Processors for the shards' threads, the first for the first shard. NULL = anywhere.
    const uint32_t *cores;
    /// Number of cores: 0, or at least shards.
    size_t core_count;
    /// Who we are when we connect, unless the connect says otherwise. NULL = nobody.
    const struct trunk_identity *identity;
    /// Settings of connections, unless a listen or connect says otherwise. NULL = defaults.
    const struct trunk_connection_config *connection;
    /// Receive buffers of a shard, 64 KiB each. 256.
    uint32_t rx_buffers;
    /// Transmit buffers of a shard, 64 KiB each. 64.
    uint32_t tx_buffers;
    /// Buffers of trunk_buf_alloc. 64.
    uint32_t send_buffers;
    /// Bytes of each of them. 64 KiB.
    uint32_t send_buffer_bytes;
    /// Wanted size of the sockets' buffers. 4 MiB; 0 = the system's default.
    uint64_t socket_buffer_bytes;
    /// Whether the system may cut large sends into packets. 1.
    uint32_t gso;
    /// Whether the system may merge received packets. 1.
    uint32_t gro;
    /// Calls that wait for one shard at once. 4096.
    uint32_t mailbox;
    /// Connections of one shard at once. 65536.
    uint32_t max_connections;
    /// Handshakes of one shard under way at once, as host. 4096.
    uint32_t max_handshakes;
    /// Connection requests a second from one source that one shard answers. 200; 0 = any number.
    uint32_t handshakes_per_source_per_s;
    /// When peers must prove their address first. TRUNK_RETRY_WHEN_LOADED.
    trunk_retry retry;
    /// See TRUNK_RETRY_WHEN_LOADED. 512.
    uint32_t retry_handshakes;
    /// Addresses and networks whose connection requests are dropped, such as "192.0.2.0/24". NULL.
    const char *const *deny;
    /// Number of them.
    size_t deny_count;
    /// TLS secrets are appended to this file, for protocol analysers: whoever can read it can read
    /// every connection. NULL = none.
    const char *key_log_file;
    /// How long a shard spins after the last work before it sleeps; 1 = not at all. 0: for at most
    /// 20 µs, while at least four of five waits are shorter. 0.
    uint64_t busy_poll_ns;
    /// Bytes sent on one channel that wait for their shard before sends give
    /// TRUNK_ERR_WOULD_BLOCK. 1 MiB.
    uint64_t queue_channel_bytes;
    /// The same for one shard. 256 MiB.
    uint64_t queue_shard_bytes;
    /// Received bytes that wait in one poll group before unreliable messages are dropped. 16 MiB.
    uint64_t queue_group_bytes;
    /// Server number, written into connection ids for load balancers; at most 255. 0.
    uint32_t server;
    /// What log gets. TRUNK_LOG_WARN.
    trunk_log_level log_level;
    /// Takes the engine's log, also before trunk_engine_new has stored the engine. NULL = no log.
    trunk_log_fn log;
    /// First argument of log.
    void *log_user;
    /// What the engine's own group calls instead of keeping items for trunk_recv_many. As log, they
    /// can be called before trunk_engine_new has stored the engine (TRUNK_ITEM_SHARD_FAILED).
    /// NULL = none.
    const struct trunk_callbacks *callbacks;
    /// Asked while connections are being made. NULL = nobody.
    trunk_security_fn security;
    /// First argument of security.
    void *security_user;
    /// Faults that are added to everything sent and received, for tests; trunk_engine_set_faults
    /// changes them. NULL = none, and none can be added later.
    const struct trunk_fault_config *faults;
    /// Seed of everything random, 32 bytes, for tests that repeat: connections are not secret.
    /// NULL = unpredictable.
    const uint8_t *dangerous_seed;
    /// How long a connection that a channel request or an association made by itself stays when no
    /// channel is open and nothing moves. 180 s; negative = until it is closed.
    int64_t idle_hold_ns;
    /// Datagrams on their way from one shard to another at once. 256.
    uint32_t forward_queue;
    /// STUN requests a second that a shard answers, where a listener does. 5000.
    uint32_t stun_per_s;
    /// The same for one source. 50.
    uint32_t stun_per_source_per_s;
    /// Not 0: each shard on a processor of its own, unless cores names them; 2: those near the
    /// network interface with the default route first (docs/profiles.md), else in the order of the
    /// system. 0.
    uint32_t pin;
    /// Figures of the running engine are kept in this file, for trunkline top; an existing one is
    /// replaced, and it stays when the engine ends. Unix only. NULL = none.
    const char *stats_file;
    /// Everything that connections say is written to this file (pcapng), in the clear, for
    /// protocol analysers: whoever can read it can read every connection. NULL = none.
    const char *capture_file;
    /// Largest size of that file; the rest is left out. 1 GiB.
    uint64_t capture_max_bytes;
    /// Most packets of one send call, 1 to 64. 64.
    uint32_t gso_segments;
    /// 0.
    uint32_t reserved;
} trunk_engine_config;

/// What became of one connection. Of fixed size: it does not grow.
typedef struct trunk_conn_report {
    /// The connection; its handle is stale.
    trunk_conn conn;
    /// Its user data.
    void *conn_user;
    /// Bytes of reliable channels that were handed over and that the peer acknowledged.
    uint64_t acknowledged_bytes;
    /// Bytes of reliable channels that were handed over and not acknowledged.
    uint64_t undelivered_bytes;
    /// Channels that still had undelivered data.
    uint32_t undelivered_channels;
    /// The final reason.
    trunk_reason reason;
    /// Whether the peer knows that the connection has ended.
    uint32_t peer_knows;
    /// 0.
    uint32_t reserved[5];
} trunk_conn_report;

/// How the connections of an engine ended. trunk_shutdown_report_init prepares it; the caller may
/// then set connections and connection_capacity.
typedef struct trunk_shutdown_report {
    /// Size of this struct; set by trunk_shutdown_report_init.
    uint32_t struct_size;
    /// Whether every reliable byte of every connection was acknowledged.
    uint32_t all_delivered;
    /// Connections that there were when the shutdown began.
    uint64_t connection_count;
    /// Sum over all of them.
    uint64_t acknowledged_bytes;
    /// Sum over all of them.
    uint64_t undelivered_bytes;
    /// Shards that had failed, or did not answer.
    uint32_t failed_shards;
    /// Must be 0.
    uint32_t reserved;
    /// Caller's array for what became of each connection, or NULL.
    struct trunk_conn_report *connections;
    /// Its places; connections beyond it are only counted.
    size_t connection_capacity;
} trunk_shutdown_report;

/// How to listen. trunk_listen_config_init fills in the defaults.
typedef struct trunk_listen_config {
    /// Size of this struct; set by trunk_listen_config_init.
    uint32_t struct_size;
    /// What connections are taken over: a sum of TRUNK_LISTEN_... On one port, UDP and TCP.
    /// TRUNK_LISTEN_DATAGRAM.
    uint32_t links;
    /// Address and port, such as "127.0.0.1:7470", "0.0.0.0:7470" (all of IPv4) or "[::]:7470" (all
    /// of IPv6). For both, listen twice. Port 0 lets the system choose. Required.
    const char *address;
    /// Who we are. Required.
    const struct trunk_identity *identity;
    /// What clients must show. NULL = they are not asked.
    const struct trunk_trust *client_trust;
    /// Settings of its connections. NULL = the engine's.
    const struct trunk_connection_config *connection;
    /// Whether STUN Binding requests are answered at its UDP port: clients learn the address under
    /// which they are seen there. 0.
    uint32_t stun;
    /// Must be 0.
    uint32_t reserved;
} trunk_listen_config;

/// Whether a connect may share a connection that exists.
typedef uint32_t trunk_reuse;

/// A poll group. 0 is the engine's own group, which every connection is in at first.
typedef uint64_t trunk_group;

/// What a connect goes over.
typedef uint32_t trunk_connect_link;

/// How to connect. trunk_connect_config_init fills in the defaults.
typedef struct trunk_connect_config {
    /// Size of this struct; set by trunk_connect_config_init.
    uint32_t struct_size;
    /// Whether an existing connection will do. TRUNK_REUSE.
    trunk_reuse reuse;
    /// Addresses of the one peer with their ports, such as "192.0.2.7:7470"; at most 16. The same
    /// request goes to all, the first valid answer decides. Names are not resolved. Required.
    const char *const *addresses;
    /// Number of addresses.
    size_t address_count;
    /// Name of the host: checked with TRUNK_TRUST_CA, told to the host always. NULL = "trunkline".
    const char *server_name;
    /// What makes the host acceptable. Required.
    const struct trunk_trust *trust;
    /// Who we are. NULL = the engine's identity.
    const struct trunk_identity *identity;
    /// Shown to the host's application after the handshake, sealed; at most 8 KiB. NULL = none.
    const void *credential;
    /// Bytes of it.
    size_t credential_size;
    /// Settings of the connection. NULL = the engine's.
    const struct trunk_connection_config *connection;
    /// Poll group for what happens to it. 0 = the engine's own.
    trunk_group group;
    /// User data of the connection; not changed when an existing one is shared. NULL.
    void *user;
    /// What to connect over. TRUNK_CONNECT_DATAGRAM.
    trunk_connect_link link;
    /// Whether sec_handle counts. 0.
    uint32_t has_sec_handle;
    /// A value of the application, handed to trunk_engine_config.security while the connection is
    /// being made.
    uint64_t sec_handle;
} trunk_connect_config;

/// An address that is listened at. 0 is none.
typedef uint64_t trunk_listener;

/// What a role waits for while a connection is made, or how the attempt ended. It stays
/// TRUNK_HANDSHAKE_READY when a connection that was made ends.
typedef uint32_t trunk_handshake;

/// What is known of a connection. New fields come at the end.
typedef struct trunk_conn_info {
    /// Size of this struct; set by trunk_conn_info_init.
    uint32_t struct_size;
    /// The status.
    trunk_status status;
    /// Whether we are client or host.
    trunk_role role;
    /// Whether the peer has shown a certificate, and peer is valid.
    uint32_t has_peer;
    /// The peer's fingerprint.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    /// The peer's address and port.
    char remote[64];
    /// Our address towards the peer, without a port; empty when the system does not tell.
    char local[64];
    /// TLS cipher suite; empty before the handshake.
    char suite[48];
    /// Whether the TLS session was resumed.
    uint32_t resumed;
    /// Why the connection ended; TRUNK_REASON_NONE while it has not.
    trunk_reason reason;
    /// The reason in words.
    char reason_text[128];
    /// What our role waits for while the connection is made, or how the attempt ended.
    trunk_handshake handshake;
    /// Whether the peer closed and said that it had thrown away data which it had received.
    uint32_t peer_discarded;
    /// What carries it.
    trunk_link link;
    /// Whether that is the plain protocol, which has only frames, requests and EOFs.
    uint32_t plain;
    /// Whether packets go over the relay of an event source; remote only stands for the peer then.
    uint32_t relayed;
    /// The shard that it belongs to, from 0 on; its callbacks come on one thread.
    uint32_t shard;
} trunk_conn_info;

/// Counters and gauges of a connection. New fields come at the end.
typedef struct trunk_conn_stats {
    /// Size of this struct; set by trunk_conn_stats_init.
    uint32_t struct_size;
    /// Channels open.
    uint32_t channels;
    /// Smoothed round trip.
    uint64_t rtt_ns;
    /// Smallest round trip.
    uint64_t rtt_min_ns;
    /// Packets sent.
    uint64_t packets_sent;
    /// Packets received and opened.
    uint64_t packets_received;
    /// Packets declared lost.
    uint64_t packets_lost;
    /// Packets received that could not be opened, or came twice.
    uint64_t packets_rejected;
    /// Reliable frames sent again.
    uint64_t retransmits;
    /// UDP payload bytes sent.
    uint64_t bytes_sent;
    /// UDP payload bytes received.
    uint64_t bytes_received;
    /// Congestion window in bytes.
    uint64_t window;
    /// Bytes in flight.
    uint64_t in_flight;
    /// Reliable bytes handed over and not acknowledged.
    uint64_t unacked_bytes;
    /// UDP payload bytes of a full packet.
    uint64_t packet_size;
    /// Unreliable messages dropped before they were sent.
    uint64_t datagrams_dropped;
    /// How much round trips vary; 0 over a stream.
    uint64_t rtt_var_ns;
    /// Bytes a second that packets leave at while there is enough to send; 0 = not limited, or not
    /// known.
    uint64_t pacing_rate;
    /// Those of unacked_bytes that were never sent.
    uint64_t unsent_bytes;
    /// Those of packets_lost that had arrived, as an acknowledgement said later.
    uint64_t spurious_losses;
} trunk_conn_stats;

/// Counters of an engine, over all its shards. New fields come at the end.
typedef struct trunk_engine_stats {
    /// Size of this struct; set by trunk_engine_stats_init.
    uint32_t struct_size;
    /// Shards that answered.
    uint32_t shards;
    /// Live connections.
    uint64_t connections;
    /// Connections that were made or accepted.
    uint64_t connections_opened;
    /// Connections that are gone.
    uint64_t connections_closed;
    /// UDP datagrams received.
    uint64_t datagrams_received;
    /// UDP datagrams sent.
    uint64_t datagrams_sent;
    /// Bytes of them received.
    uint64_t bytes_received;
    /// Bytes of them sent.
    uint64_t bytes_sent;
    /// Connection requests dropped because their source is denied.
    uint64_t requests_denied;
    /// Connection requests dropped because their source asked too often.
    uint64_t requests_limited;
} trunk_engine_stats;

/// Percentiles of a distribution. Of fixed size: it does not grow.
typedef struct trunk_summary {
    /// Number of samples.
    uint64_t count;
    /// Smallest.
    uint64_t min;
    /// Half are not above this.
    uint64_t p50;
    /// 99 % are not above this.
    uint64_t p99;
    /// 99.9 % are not above this.
    uint64_t p999;
    /// Largest.
    uint64_t max;
} trunk_summary;

/// Counters and gauges of one shard since it started. New fields come at the end.
typedef struct trunk_shard_stats {
    /// Size of this struct; set by trunk_shard_stats_init.
    uint32_t struct_size;
    /// Whether the shard has failed.
    uint32_t failed;
    /// Live connections.
    uint64_t connections;
    /// Smoothed round trips of the live connections, in microseconds.
    struct trunk_summary rtt_us;
    /// Time from one turn of the busy shard to the next, in microseconds.
    struct trunk_summary loop_us;
    /// Turns of the event loop.
    uint64_t turns;
    /// Turns that waited for work.
    uint64_t sleeps;
    /// UDP datagrams received.
    uint64_t datagrams_received;
    /// Bytes of them.
    uint64_t bytes_received;
    /// UDP datagrams sent.
    uint64_t datagrams_sent;
    /// Bytes of them.
    uint64_t bytes_sent;
    /// Trains of datagrams handed to the system at once.
    uint64_t trains_sent;
    /// Trains that the system refused.
    uint64_t trains_failed;
    /// Turns in which no transmit buffer was free.
    uint64_t transmit_stalls;
    /// Calls about received data and events.
    uint64_t events;
    /// Calls of the application that the shard carried out.
    uint64_t commands;
    /// Datagrams handed to another shard.
    uint64_t forwards_sent;
    /// Datagrams taken over from other shards.
    uint64_t forwards_received;
    /// Datagrams for another shard that were dropped.
    uint64_t forwards_dropped;
    /// Connection requests dropped because their source is denied.
    uint64_t requests_denied;
    /// Connection requests dropped because their source asked too often.
    uint64_t requests_limited;
    /// STUN requests that were answered.
    uint64_t stun_answered;
    /// STUN messages that were dropped.
    uint64_t stun_dropped;
    /// Connections that were made or accepted.
    uint64_t connections_opened;
    /// Connections that are gone.
    uint64_t connections_closed;
    /// System calls of the driver.
    uint64_t syscalls;
    /// Trains that the system cut into packets.
    uint64_t tx_gso;
    /// Sends that found the socket's buffer full.
    uint64_t tx_blocked;
    /// Receives that brought several datagrams.
    uint64_t rx_gro;
    /// Datagrams that the system dropped because a socket's buffer was full.
    uint64_t rx_dropped;
    /// Moments at which no receive buffer was free.
    uint64_t rx_no_buffer;
    /// Datagrams that were nothing of ours, or damaged in their headers.
    uint64_t malformed;
    /// Packets whose connection id names no live connection.
    uint64_t unknown_id;
    /// Packets that could not be opened.
    uint64_t rejected;
    /// Packets that were copies, or too old to be told from copies.
    uint64_t copies;
    /// Connection requests answered with a demand to prove the address.
    uint64_t retries;
    /// Handshakes of hosts that failed.
    uint64_t handshakes_failed;
    /// Answers to packets of connections that are not known any more.
    uint64_t resets_sent;
} trunk_shard_stats;

/// Gauges of a poll group. New fields come at the end.
typedef struct trunk_group_stats {
    /// Size of this struct; set by trunk_group_stats_init.
    uint32_t struct_size;
    /// 0.
    uint32_t reserved;
    /// Bytes of messages that wait to be received.
    uint64_t waiting_bytes;
    /// Unreliable messages that were dropped because the group was not emptied in time.
    uint64_t dropped;
} trunk_group_stats;

/// Where a channel stands.
typedef uint32_t trunk_phase;

/// What is known of a channel. New fields come at the end.
typedef struct trunk_channel_info {
    /// Size of this struct; set by trunk_channel_info_init.
    uint32_t struct_size;
    /// What it carries.
    trunk_kind kind;
    /// Where it stands.
    trunk_phase phase;
    /// Whether we asked for it.
    uint32_t ours;
    /// Its id on the wire.
    uint32_t wire_id;
    /// Priority class of what we send.
    uint32_t priority;
    /// Weight of what we send.
    uint32_t weight;
    /// Whether a send would give TRUNK_ERR_WOULD_BLOCK until TRUNK_ITEM_WRITABLE.
    uint32_t blocked;
    /// Bytes that the connection took and has not sent yet. What waits for the shard is not among
    /// them. Bytes of messages count with their lengths, here and below.
    uint64_t queued_bytes;
    /// Reliable bytes that the connection took and the peer has not acknowledged.
    uint64_t unacked_bytes;
    /// Reliable bytes received in order.
    uint64_t received_bytes;
    /// Reliable bytes that the peer may send in all.
    uint64_t receive_limit;
    /// Its name, cut to 255 bytes.
    char name[256];
} trunk_channel_info;

/// One message of trunk_send_many. Of fixed size: it does not grow.
typedef struct trunk_outgoing {
    /// Where it goes.
    trunk_channel channel;
    /// The bytes.
    const void *data;
    /// Number of bytes.
    size_t size;
} trunk_outgoing;

/// A buffer of the engine that the caller writes into. Of fixed size: it does not grow. A struct
/// assignment moves the buffer: use one of the two.
typedef struct trunk_buf {
    /// Where to write; NULL when the struct has no buffer.
    uint8_t *data;
    /// Bytes that fit, at least as many as were asked for.
    size_t capacity;
    /// The engine's.
    void *owner;
    /// 0.
    uint64_t reserved;
} trunk_buf;

/// Gives memory back that trunk_send_external was given: nobody reads it any more.
///
/// Called once, on any thread: usually the shard's, when the peer has acknowledged the bytes or the
/// channel has ended, also before trunk_send_external has returned; at the latest inside
/// trunk_engine_destroy, and of a thread-less engine that another thread destroys than the one that
/// polled, when that thread ends. It must not block and must not throw C++ exceptions or longjmp.
/// It may call what never blocks; calls that would wait for a shard give TRUNK_ERR_WOULD_BLOCK or
/// TRUNK_ERR_IN_CALLBACK.
typedef void (*trunk_release_fn)(void *user, const void *data, size_t size);

/// How an association is made. trunk_association_config_init fills in the defaults. Times are
/// nanoseconds.
typedef struct trunk_association_config {
    /// Size of this struct; set by trunk_association_config_init.
    uint32_t struct_size;
    /// Messages that wait at once. 1024.
    uint32_t queue_messages;
    /// Name of its channel, UTF-8; the two sides use the same. Required.
    const char *name;
    /// Bytes of messages that wait at once. 1 MiB.
    uint64_t queue_bytes;
    /// How long a message may wait. 10 s.
    uint64_t queue_age_ns;
    /// Nothing moving for so long makes it idle. 180 s.
    uint64_t hold_ns;
    /// Waiting for a peer: it must come within this time. 10 s.
    uint64_t no_connection_ns;
    /// Strict priority class of its channel, 0 first, at most 7. 4.
    uint32_t priority;
    /// Share within the class, 1 to 255. 16.
    uint32_t weight;
} trunk_association_config;

/// How a message asks for security. trunk_send_security_init prepares it; set one of the two.
typedef struct trunk_send_security {
    /// Size of this struct; set by trunk_send_security_init.
    uint32_t struct_size;
    /// Whether sec_handle counts. 0.
    uint32_t has_sec_handle;
    /// Given to the security callback.
    uint64_t sec_handle;
    /// Only over a connection that matches. NULL.
    const struct trunk_sec_info *sec_info;
} trunk_send_security;

/// Which part a client plays in a pairing.
typedef uint32_t trunk_pairing_role;

/// How to pair. trunk_pairing_config_init fills in the defaults. Times are nanoseconds.
typedef struct trunk_pairing_config {
    /// Size of this struct; set by trunk_pairing_config_init.
    uint32_t struct_size;
    /// Our part. TRUNK_PAIRING_CONTROLLER.
    trunk_pairing_role role;
    /// Where the event source is, and what makes it acceptable. Its credential, group, user and
    /// reuse do not count. Required.
    const struct trunk_connect_config *source;
    /// Whether packets are exchanged with the partner by way of the event source. 0.
    uint32_t relay;
    /// Whether routes within this machine are looked for, too. 0.
    uint32_t allow_loopback;
    /// Who we are to the partner, for connections with it (trunk_pairing_connect,
    /// trunk_pairing_accept). It needs relay, and takes all relayed packets. NULL = none.
    const struct trunk_identity *identity;
    /// Settings of these connections. NULL = the engine's.
    const struct trunk_connection_config *connection;
    /// Group for what happens to the pairing. 0 = the engine's own.
    trunk_group group;
    /// Between two pings while searching. 5 s.
    uint64_t searching_ping_ns;
    /// Between two pings while interacting. 10 s.
    uint64_t interacting_ping_ns;
    /// Without any event from the partner for this long, it counts as silent. 25 s.
    uint64_t partner_limit_ns;
    /// Least time between two events of the application; 0 = as many as wanted. 1 s.
    uint64_t event_interval_ns;
    /// Bytes of bodies that wait at once. 64 KiB.
    uint64_t queue_bytes;
    /// Events that wait at once. 64.
    uint32_t queue_events;
    /// Must be 0.
    uint32_t reserved;
    /// Pause before the second attempt to connect; doubles with each that fails. 250 ms.
    uint64_t backoff_ns;
    /// Longest pause between attempts. 30 s.
    uint64_t backoff_max_ns;
    /// Random part of the pause after a connection that stood was lost. 2 s.
    uint64_t backoff_spread_ns;
    /// After this without a direct path the relay is to do. 3 s.
    uint64_t relay_after_ns;
    /// While the relay does, routes are looked for anew this often. 30 s.
    uint64_t search_every_ns;
    /// An event source is asked for our address this often. 15 s.
    uint64_t ask_every_ns;
    /// A direct path whose checks are not answered for this long is lost. 6 s.
    uint64_t lost_after_ns;
} trunk_pairing_config;

/// A pairing at one moment. New fields come at the end.
typedef struct trunk_pairing_status {
    /// Size of this struct; set by trunk_pairing_status_init.
    uint32_t struct_size;
    /// The state.
    trunk_pairing_state state;
    /// Why the partner rejected us, if it did.
    trunk_pairing_reject reject;
    /// Events that wait for the partner, or for their turn.
    uint32_t waiting_events;
    /// The connection with the partner, or 0.
    trunk_conn peer;
    /// Whether that goes over a direct path now.
    uint32_t direct;
    /// 0.
    uint32_t reserved;
    /// The partner's client id, at most 64 bytes; empty without one.
    char partner[72];
} trunk_pairing_status;

/// What a credential is to say. trunk_credential_grant_init fills in the defaults.
typedef struct trunk_credential_grant {
    /// Size of this struct; set by trunk_credential_grant_init.
    uint32_t struct_size;
    /// Not 0: only the client whose fingerprint peer is may use it, so that it is of no use to
    /// whoever steals it. 0.
    uint32_t has_peer;
    /// From when it holds, in seconds of Unix time. 0 = now.
    uint64_t issued_s;
    /// Until when it holds, in seconds of Unix time. Required.
    uint64_t expires_s;
    /// The client's fingerprint.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    /// Whatever the application wants to know of its holder, at most TRUNK_CREDENTIAL_CLAIMS_BYTES.
    /// Signed, not encrypted: its holder can read it. NULL = nothing.
    const void *claims;
    /// Bytes of it.
    size_t claims_size;
} trunk_credential_grant;

/// Why a credential is not accepted.
typedef uint32_t trunk_credential_error;

/// What a credential says. New fields come at the end.
typedef struct trunk_credential {
    /// Size of this struct; set by trunk_credential_init.
    uint32_t struct_size;
    /// Why it is not accepted; the fields below are 0 then, unless stated at the error.
    trunk_credential_error error;
    /// Which of the verifier's keys it was signed with.
    uint32_t key_id;
    /// Whether it is bound to a client, and peer is valid.
    uint32_t has_peer;
    /// From when it holds, in seconds of Unix time.
    uint64_t issued_s;
    /// Until when it holds, in seconds of Unix time, which is not part of its time. What happens
    /// then to a connection that lives is the application's choice.
    uint64_t expires_s;
    /// TRUNK_CREDENTIAL_EXPIRED: since how many seconds its time is over.
    uint64_t expired_by_s;
    /// Fingerprint of the client that it is bound to, which is the one that presented it.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    /// What the issuer said of its holder: points into the credential that was given to
    /// trunk_credential_verify, and is valid as long as that.
    const uint8_t *claims;
    /// Bytes of it.
    size_t claims_size;
} trunk_credential;

/// What makes credentials: a login service, a matchmaker. 0 is none.
typedef uint64_t trunk_credential_issuer;

/// What checks credentials, with the keys of any number of issuers. 0 is none.
typedef uint64_t trunk_credential_verifier;

/// Roles that a token allows: any of them together.
typedef uint32_t trunk_token_roles;

/// What an access token is to allow. trunk_token_grant_init fills in the defaults.
typedef struct trunk_token_grant {
    /// Size of this struct; set by trunk_token_grant_init.
    uint32_t struct_size;
    /// With which roles. TRUNK_TOKEN_ANY_ROLE.
    trunk_token_roles roles;
    /// In which application: 1 to 64 characters of A-Z a-z 0-9 - . _ ~ : @ +. Required.
    const char *app;
    /// As which client: one client id, of the same characters, or a pattern with at most four *,
    /// each for any number of characters. Required.
    const char *client;
    /// Until when, in seconds of Unix time. Required.
    uint64_t expires_s;
} trunk_token_grant;

/// Why an access token is not good.
typedef uint32_t trunk_token_error;

/// What an access token says. New fields come at the end.
typedef struct trunk_token {
    /// Size of this struct; set by trunk_token_init.
    uint32_t struct_size;
    /// Why it is not good; the fields below are 0 then, unless stated at the error.
    trunk_token_error error;
    /// Until when it holds, in seconds of Unix time, which is not part of its time.
    uint64_t expires_s;
    /// TRUNK_TOKEN_EXPIRED: since how many seconds its time is over.
    uint64_t expired_by_s;
    /// Roles that it allows.
    trunk_token_roles roles;
    /// Application for which it is good.
    char app[68];
    /// Client id, or pattern of client ids, for which it is good.
    char client[68];
    /// Name of the key with which it is signed.
    char key_id[36];
} trunk_token;

/// A key with which access tokens are signed, shared by whoever mints them and the event source. Of
/// fixed size: it does not grow.
typedef struct trunk_token_key {
    /// Its name, 1 to 32 characters of A-Z a-z 0-9 - _, which tokens state so that keys can be
    /// replaced one after the other.
    const char *id;
    /// At least TRUNK_SECRET_BYTES random bytes.
    const void *secret;
    /// Bytes of it.
    size_t secret_size;
} trunk_token_key;

/// Settings of an event source. trunk_source_config_init fills in the defaults, which are stated
/// with each field. Everything that it points to is copied.
typedef struct trunk_source_config {
    /// Size of this struct; set by trunk_source_config_init.
    uint32_t struct_size;
    /// Clients of one shard at once; more are sent away as busy, for which
    /// trunk_engine_config.max_connections must leave room. 65536.
    uint32_t max_clients;
    /// Applications that are served. NULL = every one that a token names.
    const char *const *apps;
    /// Number of them; 0 = every one that a token names.
    size_t app_count;
    /// Events a second that a client may send; more are dropped. 50.
    uint32_t events_per_s;
    /// Events that it may send at once. 100.
    uint32_t events_burst;
    /// Bytes of events a second that a client may send. 128 KiB.
    uint64_t bytes_per_s;
    /// Bytes that it may send at once. 512 KiB.
    uint64_t bytes_burst;
    /// Events a second that are dropped for what they are (malformed, forged, too many) before the
    /// client is. 20.
    uint32_t faults_per_s;
    /// Such events that may come at once. 500.
    uint32_t faults_burst;
    /// Events that wait for one client to take them. 64.
    uint32_t queue_events;
    /// Not 0: packets of connections between clients are relayed. 1.
    uint32_t relay;
    /// Bytes that wait for one client to take them. 128 KiB.
    uint64_t queue_bytes;
    /// Packets a second that a client may have relayed; more are dropped. 1000.
    uint32_t relay_packets_per_s;
    /// Packets that it may have relayed at once. 1000.
    uint32_t relay_packets_burst;
    /// Bytes a second that a client may have relayed. 512 KiB.
    uint64_t relay_bytes_per_s;
    /// Bytes that it may have relayed at once. 512 KiB.
    uint64_t relay_bytes_burst;
    /// A client that takes nothing for this long while something waits is not alive. 10 s.
    uint64_t stall_limit_ns;
    /// A client that does not open its channel for this long is not alive. 10 s.
    uint64_t open_limit_ns;
    /// Not 0: a token that expires also ends the connection that was made with it. 0.
    uint32_t end_expired;
    /// Must be 0.
    uint32_t reserved;
} trunk_source_config;

/// What an event source has to say about itself, over all its shards: gauges, and counters since
/// its start. docs/pairing.md says what each means to a client. New fields come at the end.
typedef struct trunk_source_stats {
    /// Size of this struct; set by trunk_source_stats_init.
    uint32_t struct_size;
    /// Shards.
    uint32_t shards;
    /// Those of them that have failed: a mistake of this library, please report it.
    uint32_t failed_shards;
    /// 0.
    uint32_t reserved;
    /// Clients that are connected.
    uint64_t clients;
    /// Events that wait for clients to take them.
    uint64_t waiting_events;
    /// Bytes of them.
    uint64_t waiting_bytes;
    /// Clients that were let in.
    uint64_t attached;
    /// Clients that were sent away because too many were there.
    uint64_t busy;
    /// Clients that were not let in because their token does not allow their role.
    uint64_t refused_invalid_role;
    /// The same, because their client id is malformed, or their token does not allow it.
    uint64_t refused_invalid_client_id;
    /// The same, because their token is malformed, forged or expired, or its key unknown.
    uint64_t refused_invalid_access_token;
    /// The same, because their application is not served here.
    uint64_t refused_not_authorized;
    /// The same, because a newer connection has the client id.
    uint64_t refused_released_by_other;
    /// The same, because they are not alive.
    uint64_t refused_client_not_alive;
    /// Clients that were let in and aborted later, because their token does not allow their role.
    uint64_t aborted_invalid_role;
    /// The same, because their token does not allow their client id.
    uint64_t aborted_invalid_client_id;
    /// The same, because their token has expired.
    uint64_t aborted_invalid_access_token;
    /// The same, because they sent too many events that are no good.
    uint64_t aborted_not_authorized;
    /// The same, because a newer connection has the client id.
    uint64_t aborted_released_by_other;
    /// The same, because they took nothing for too long, or opened no channel.
    uint64_t aborted_client_not_alive;
    /// Events of clients that carry something of their application.
    uint64_t received_application;
    /// Pings.
    uint64_t received_ping;
    /// Events of clients that went passive.
    uint64_t received_inactive;
    /// Events of controllers that took another partner, or none.
    uint64_t received_unassign;
    /// Events that answer a ping which led nowhere.
    uint64_t received_reject;
    /// Events of partners that look for a route.
    uint64_t received_route;
    /// Events handed to clients, also those that waited.
    uint64_t delivered;
    /// Events handed to other shards.
    uint64_t forwarded;
    /// Events that had to wait for their recipient.
    uint64_t queued;
    /// Events dropped: their recipient is not there.
    uint64_t absent;
    /// Pings between applications, each answered with a reject.
    uint64_t rejected_app;
    /// Pings between clients of one role, each answered with a reject.
    uint64_t rejected_role;
    /// Events dropped: they may not pass between their sender and their recipient.
    uint64_t blocked;
    /// Events dropped: they gave a false sender.
    uint64_t forged;
    /// Events dropped: they could not be read.
    uint64_t malformed;
    /// Events dropped: longer than an event can be.
    uint64_t oversize;
    /// Events dropped: their type is not known.
    uint64_t unknown_type;
    /// Events dropped: beyond what a client may send.
    uint64_t limited;
    /// Events dropped: the queue of their recipient was full, or the way to it.
    uint64_t overflowed;
    /// Packets between clients that were handed to their recipients.
    uint64_t relay_delivered;
    /// Bytes of them.
    uint64_t relay_delivered_bytes;
    /// Packets handed to other shards.
    uint64_t relay_forwarded;
    /// Packets dropped: their recipient is not there, or takes none.
    uint64_t relay_absent;
    /// Packets dropped: they may not pass between their sender and their recipient.
    uint64_t relay_blocked;
    /// Packets dropped: they could not be read.
    uint64_t relay_malformed;
    /// Packets dropped: longer than one can be.
    uint64_t relay_oversize;
    /// Packets dropped: beyond what a client may have relayed.
    uint64_t relay_limited;
    /// Packets dropped: the channel of their recipient was full, or the way to it.
    uint64_t relay_overflowed;
} trunk_source_stats;

/// A running event source. 0 is none.
typedef uint64_t trunk_event_source;

/// What kind of device it is: one of these, or another number up to 255.
typedef uint32_t trunk_device_type;

/// Whom a device lets in: one of these, or another number up to 255.
typedef uint32_t trunk_device_mode;

/// Which network interfaces take part. trunk_interfaces_init fills in the defaults, which are
/// stated with each field.
typedef struct trunk_interfaces {
    /// Size of this struct; set by trunk_interfaces_init.
    uint32_t struct_size;
    /// The loopback interface too, so that programs of this machine find each other without any
    /// network. Not looked at for interfaces that are named. 1.
    uint32_t loopback;
    /// Names of interfaces, such as "eth0". NULL = all that are up.
    const char *const *names;
    /// Number of them.
    size_t name_count;
    /// Over IPv4. 1.
    uint32_t ipv4;
    /// Over IPv6. 1.
    uint32_t ipv6;
    /// How often interfaces are looked for that have come or gone; 100 ms to 1 h. 5 s.
    uint64_t rescan_ns;
} trunk_interfaces;

/// Whom to look for, and where. trunk_discovery_config_init fills in the defaults, which are stated
/// with each field. Times are nanoseconds.
typedef struct trunk_discovery_config {
    /// Size of this struct; set by trunk_discovery_config_init.
    uint32_t struct_size;
    /// Whether all devices of the local network are asked, by multicast. 1.
    uint32_t group;
    /// Find only devices of this service. NULL = of all.
    const char *service;
    /// Find only the device that has this id, 1 to 64 bytes, and have it prove that. NULL.
    const void *id;
    /// Bytes of it.
    size_t id_size;
    /// Fingerprints of devices to overlook, such as our own, TRUNK_FINGERPRINT_BYTES each, back to
    /// back; at most 16. NULL.
    const uint8_t *ignore;
    /// Number of them.
    size_t ignore_count;
    /// Single hosts to ask too, whether or not multicast reaches them: addresses with their ports,
    /// such as "192.0.2.7:7477"; at most 64. NULL.
    const char *const *targets;
    /// Number of them.
    size_t target_count;
    /// On which interfaces devices are asked by multicast. NULL = the defaults.
    const struct trunk_interfaces *interfaces;
    /// Between two questions once the first ones are asked; 500 ms to 10 min. 10 s.
    uint64_t interval_ns;
    /// A device from which nothing is heard for so long is lost; at least twice interval_ns and a
    /// second, at most 2 h. 35 s.
    uint64_t heartbeat_ns;
    /// UDP port of those who are asked by multicast. TRUNK_PRESENCE_PORT.
    uint32_t port;
    /// Must be 0.
    uint32_t reserved;
} trunk_discovery_config;

/// What a discovery has done with what it received. New fields come at the end.
typedef struct trunk_discovery_counts {
    /// Size of this struct; set by trunk_discovery_counts_init.
    uint32_t struct_size;
    /// 0.
    uint32_t reserved;
    /// Questions asked.
    uint64_t asked;
    /// Valid answers.
    uint64_t answers;
    /// No presence message, or a malformed one.
    uint64_t malformed;
    /// Questions of others.
    uint64_t not_answers;
    /// Answers to nothing that was asked there, or that was asked too long ago.
    uint64_t unasked;
    /// Answers of another service, of a device that does not know the id, or of one to overlook.
    uint64_t unwanted;
    /// Answers for which there was no room.
    uint64_t full;
} trunk_discovery_counts;

/// A discovery. 0 is none. Discoveries and announcers belong to no engine.
typedef uint64_t trunk_discovery;

/// What a discovery has to tell.
typedef uint32_t trunk_discovery_event_type;

/// Which links a device listens on, all at one port number: one of these, or both, added up.
typedef uint32_t trunk_device_links;

/// What a session is between one who asks and one who answers.
typedef uint32_t trunk_presence_state;

/// A way to a device.
typedef struct trunk_device_path {
    /// Where it listens, with the port, as trunk_connect takes it.
    char address[64];
    /// Between question and answer. A device can make it shorter by lying.
    uint64_t rtt_ns;
    /// For how long nothing has been heard from there.
    uint64_t heard_ns;
} trunk_device_path;

/// A device as it describes itself: believe nothing of it that no connection has proved. Connect to
/// the addresses of its paths, all of them at once, and pin peer (TRUNK_TRUST_PINS). One device is
/// told from another by peer, port and service. Of fixed size: it does not grow.
typedef struct trunk_device {
    /// Its fingerprint.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    /// For people: UTF-8 without control characters.
    char name[TRUNK_DEVICE_NAME_BYTES];
    /// Which application it is.
    char service[TRUNK_DEVICE_NAME_BYTES];
    /// What kind of device it is.
    trunk_device_type device_type;
    /// Whom it lets in.
    trunk_device_mode mode;
    /// Which links it listens on.
    trunk_device_links links;
    /// The port that it listens on.
    uint32_t port;
    /// Version of the connection protocol that it speaks.
    uint32_t protocol;
    /// Whether it has shown that it knows the id that was asked for.
    uint32_t id_proven;
    /// TRUNK_PRESENCE_READY, or TRUNK_PRESENCE_ENDED for one that is lost.
    trunk_presence_state state;
    /// Paths that are valid, 1 to TRUNK_DEVICE_PATHS.
    uint32_t path_count;
    /// For how long it has been known.
    uint64_t found_ns;
    /// For how long nothing has been heard from it.
    uint64_t heard_ns;
    /// It is lost after so long unless something is heard; 0 for one that is lost.
    uint64_t ttl_ns;
    /// Where it listens, the shortest way first.
    struct trunk_device_path paths[TRUNK_DEVICE_PATHS];
    /// 0.
    uint64_t reserved[8];
} trunk_device;

/// One event of a discovery. It points to nothing and belongs to the caller. Of fixed size: it does
/// not grow.
typedef struct trunk_discovery_event {
    /// What it is.
    trunk_discovery_event_type type;
    /// 0.
    uint32_t reserved;
    /// TRUNK_DISCOVERY_SILENT: the single host that was asked; empty for all by multicast.
    char address[64];
    /// The device; all 0 with TRUNK_DISCOVERY_SILENT.
    struct trunk_device device;
} trunk_discovery_event;

/// What is wrong on an interface.
typedef uint32_t trunk_problem_kind;

/// Something that goes wrong on one interface. Nothing else suffers from it, and it is tried again
/// and again. Of fixed size: it does not grow. Texts are cut to their fields and end with a NUL.
typedef struct trunk_presence_problem {
    /// What is wrong.
    trunk_problem_kind kind;
    /// 0.
    uint32_t reserved;
    /// The interface's name.
    char interface_name[64];
    /// Its address that was to be used, without a port.
    char address[64];
    /// What was being done.
    char doing[128];
    /// The system's words for what is wrong.
    char error[128];
} trunk_presence_problem;

/// What is told to those who ask. trunk_announcement_init fills in the defaults, which are stated
/// with each field.
typedef struct trunk_announcement {
    /// Size of this struct; set by trunk_announcement_init.
    uint32_t struct_size;
    /// What kind of device it is. TRUNK_DEVICE_TYPE_UNSPECIFIED.
    trunk_device_type device_type;
    /// For people: 1 to 63 bytes of UTF-8 without control characters. Required.
    const char *name;
    /// Which application it is: 1 to 63 letters, digits, ".", "-" or "_". Required.
    const char *service;
    /// An id of 1 to 64 bytes that the application chooses and hands out, such as a random number
    /// of 128 bits: lets those who know it find this device among all others. It is never sent.
    /// NULL.
    const void *id;
    /// Bytes of it.
    size_t id_size;
    /// Our fingerprint, which connections will prove; see trunk_identity_fingerprint. Required.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    /// Whom it lets in. TRUNK_DEVICE_MODE_OPEN.
    trunk_device_mode mode;
    /// Which links it listens on. TRUNK_DEVICE_LINK_UDP.
    trunk_device_links links;
    /// The port that it listens on. Required, but see trunk_announcer_start_for_listener.
    uint32_t port;
    /// Must be 0.
    uint32_t reserved;
} trunk_announcement;

/// Which questions are answered.
typedef uint32_t trunk_answers;

/// From how far away a question to one of our own addresses may come. Questions by multicast are
/// answered only on the link, whatever this says.
typedef uint32_t trunk_reach;

/// What to announce, and where. trunk_announcer_config_init fills in the defaults, which are stated
/// with each field. Times are nanoseconds.
typedef struct trunk_announcer_config {
    /// Size of this struct; set by trunk_announcer_config_init.
    uint32_t struct_size;
    /// UDP port on which questions are heard. TRUNK_PRESENCE_PORT.
    uint32_t port;
    /// What is told to those who ask. Required.
    const struct trunk_announcement *announcement;
    /// Addresses, without ports, that listeners are bound to: only over these is anything answered,
    /// so that whoever finds us can also connect. "0.0.0.0" and "::" stand for all of their family.
    /// Required, but see trunk_announcer_start_for_listener.
    const char *const *listen;
    /// Number of them.
    size_t listen_count;
    /// On which interfaces. NULL = the defaults.
    const struct trunk_interfaces *interfaces;
    /// A session ends when nothing is heard for so long; 1 s to 1 h. 35 s.
    uint64_t heartbeat_ns;
    /// Answers to questions by multicast are held back by up to so much, at random, so that those
    /// of many devices do not collide; at most 1 s. 100 ms.
    uint64_t spread_ns;
    /// Which questions are answered. TRUNK_ANSWERS_EVERYBODY.
    trunk_answers answers;
    /// From how far away. TRUNK_REACH_SITE.
    trunk_reach reach;
    /// Answers a second in all, 1 to 10000, and twice as many at once. 50.
    uint32_t answers_per_second;
    /// Answers a second to one source address, at most answers_per_second, and twice as many at
    /// once. 5.
    uint32_t answers_per_source;
} trunk_announcer_config;

/// What an announcer tells those who ask, and whether there are any. New fields come at the end.
typedef struct trunk_announcer_info {
    /// Size of this struct; set by trunk_announcer_info_init.
    uint32_t struct_size;
    /// The state.
    trunk_presence_state state;
    /// Devices that asked within the heartbeat.
    uint64_t sessions;
    /// Our fingerprint.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    /// The name.
    char name[TRUNK_DEVICE_NAME_BYTES];
    /// The service.
    char service[TRUNK_DEVICE_NAME_BYTES];
    /// What kind of device it is.
    trunk_device_type device_type;
    /// Whom it lets in.
    trunk_device_mode mode;
    /// Which links it listens on.
    trunk_device_links links;
    /// The port that it listens on.
    uint32_t port;
    /// Whether it has an id.
    uint32_t has_id;
    /// Whether its listeners can be reached from this machine only.
    uint32_t local_only;
} trunk_announcer_info;

/// What an announcer has done with what it received. New fields come at the end.
typedef struct trunk_announcer_counts {
    /// Size of this struct; set by trunk_announcer_counts_init.
    uint32_t struct_size;
    /// 0.
    uint32_t reserved;
    /// Answers given, farewells included.
    uint64_t answered;
    /// No presence message, or a malformed one.
    uint64_t malformed;
    /// Answers of others.
    uint64_t not_questions;
    /// From an address that could not have asked, or from too far away.
    uint64_t wrong_source;
    /// For another service or another device.
    uint64_t not_for_us;
    /// Above a rate.
    uint64_t rate_limited;
    /// The answer to the same question was waiting already.
    uint64_t repeated;
    /// Too many answers were waiting.
    uint64_t full;
    /// Sessions begun.
    uint64_t sessions;
    /// Sessions that ended because their heartbeat expired.
    uint64_t expired;
} trunk_announcer_counts;

/// An announcer. 0 is none. Discoveries and announcers belong to no engine.
typedef uint64_t trunk_announcer;

/// An address at which an announcer hears. Of fixed size: it does not grow.
typedef struct trunk_presence_address {
    /// The interface's name.
    char interface_name[64];
    /// Its address, without a port.
    char address[64];
} trunk_presence_address;

/// Done.
#define TRUNK_OK 0

/// A pointer that must not be NULL is NULL.
#define TRUNK_ERR_NULL -1

/// An argument or a field is out of range; trunk_last_error names it.
#define TRUNK_ERR_INVALID_ARGUMENT -2

/// The handle is stale, was already closed, belongs to another engine, or is of another kind.
#define TRUNK_ERR_INVALID_HANDLE -3

/// The connection has ended or is not in a state that allows the call.
#define TRUNK_ERR_NO_CONNECTION -4

/// A bounded queue is full: nothing was taken. TRUNK_ITEM_WRITABLE follows where the call was a
/// send; otherwise try again later. Discoveries and announcers: another thread is inside. Inside a
/// callback: another shard was asked.
#define TRUNK_ERR_WOULD_BLOCK -5

/// The message is larger than the channel or the peer takes.
#define TRUNK_ERR_TOO_LARGE -6

/// Not possible on this channel: its kind or its state does not know the call.
#define TRUNK_ERR_WRONG_CHANNEL -7

/// A configured or built-in limit is reached.
#define TRUNK_ERR_LIMIT -8

/// The unreliable message could not go now and was dropped, as its kind allows.
#define TRUNK_ERR_DROPPED -9

/// A certificate, key or TLS setting is unusable.
#define TRUNK_ERR_SECURITY -10

/// The operating system refused something.
#define TRUNK_ERR_SYSTEM -11

/// The driver that was asked for does not work here.
#define TRUNK_ERR_DRIVER -12

/// The engine was shut down, and everything it had was received.
#define TRUNK_ERR_STOPPED -13

/// A thread-less engine is driven by another thread.
#define TRUNK_ERR_WRONG_THREAD -14

/// The call is for thread-less engines, and this one has threads.
#define TRUNK_ERR_NOT_THREADLESS -15

/// The process has forked since the engine, discovery or announcer was made, which belongs to the
/// parent.
#define TRUNK_ERR_FORKED -16

/// A shard of the engine has failed: a mistake of this library, please report it.
#define TRUNK_ERR_FAILED -17

/// A mistake of this library inside this call; please report it.
#define TRUNK_ERR_INTERNAL -18

/// A file cannot be read or written.
#define TRUNK_ERR_FILE -19

/// The caller's buffer is too small; the size that is needed was stored.
#define TRUNK_ERR_BUFFER_TOO_SMALL -20

/// The call is not allowed inside a callback.
#define TRUNK_ERR_IN_CALLBACK -21

/// Not available on this system or with this driver.
#define TRUNK_ERR_UNSUPPORTED -22

/// A credential or an access token is not accepted; the struct that was asked for says why.
#define TRUNK_ERR_CREDENTIAL -23

/// Nothing.
#define TRUNK_LOG_OFF 0

/// Something failed.
#define TRUNK_LOG_ERROR 1

/// Something is not as it should be, and the engine goes on. The default.
#define TRUNK_LOG_WARN 2

/// What an operator wants to know.
#define TRUNK_LOG_INFO 3

/// What a developer wants to know.
#define TRUNK_LOG_DEBUG 4

/// Everything.
#define TRUNK_LOG_TRACE 5

/// The best that works here.
#define TRUNK_DRIVER_AUTO 0

/// io_uring, or an error.
#define TRUNK_DRIVER_URING 1

/// recvmsg and sendmsg: works everywhere.
#define TRUNK_DRIVER_MIO 2

/// Never.
#define TRUNK_RETRY_NEVER 0

/// While at least retry_handshakes handshakes are under way.
#define TRUNK_RETRY_WHEN_LOADED 1

/// Always; costs each connection a round trip.
#define TRUNK_RETRY_ALWAYS 2

/// Nothing is said. Clients: an error. Hosts: clients are not asked who they are.
#define TRUNK_TRUST_NONE 0

/// Its public key is one of the pins. Names, dates and issuers play no part, as with ssh.
#define TRUNK_TRUST_PINS 1

/// It chains to one of the CA certificates; clients check the server name too.
#define TRUNK_TRUST_CA 2

/// Any certificate at all: the connection is encrypted, but anybody on the path can be the other
/// end.
#define TRUNK_TRUST_DANGEROUS_ANY 3

/// Unknown or already closed handle: every call with it gives TRUNK_ERR_INVALID_HANDLE.
#define TRUNK_STATUS_NONE 0

/// The handshake is under way. Reliable sends wait, unreliable ones are dropped, nothing is
/// received; closing drops what waits.
#define TRUNK_STATUS_CONNECTING 1

/// The peer has agreed and a route is not proven yet; otherwise as TRUNK_STATUS_CONNECTING.
#define TRUNK_STATUS_FINDING_ROUTE 2

/// Everything works.
#define TRUNK_STATUS_CONNECTED 3

/// The peer has closed. What was received can still be read, sends give TRUNK_ERR_NO_CONNECTION,
/// and the handle must be closed.
#define TRUNK_STATUS_CLOSED_BY_PEER 4

/// A timeout, bad crypto, a protocol error or the like ended the connection; otherwise as
/// TRUNK_STATUS_CLOSED_BY_PEER.
#define TRUNK_STATUS_PROBLEM_DETECTED_LOCALLY 5

/// Closed by us: late packets are answered with the reason. The handle is stale.
#define TRUNK_STATUS_FIN_WAIT -1

/// Closed by us: reliable data is still being delivered. The handle is stale.
#define TRUNK_STATUS_LINGER -2

/// Gone. The handle is stale.
#define TRUNK_STATUS_DEAD -3

/// Not known: the library is older than this field.
#define TRUNK_HANDSHAKE_NONE 0

/// Client: the ConnectionRequest is sent.
#define TRUNK_HANDSHAKE_WAITING_FOR_CONNECTION_RESPONSE 1

/// Client: the host has proved itself and the AuthenticationRequest is sent.
#define TRUNK_HANDSHAKE_WAITING_FOR_AUTHENTICATION_RESPONSE 2

/// Host: it listens.
#define TRUNK_HANDSHAKE_WAITING_FOR_CONNECTION_REQUEST 3

/// Host: the client's proof, or the answer of our application, has not come.
#define TRUNK_HANDSHAKE_WAITING_FOR_AUTHENTICATION_REQUEST 4

/// The connection was made.
#define TRUNK_HANDSHAKE_READY 5

/// The attempt failed: no answer in time.
#define TRUNK_HANDSHAKE_FAILED_TIMEOUT 6

/// The attempt failed: a proof was missing or wrong, or the host's application denied the client.
#define TRUNK_HANDSHAKE_FAILED_AUTHENTICATION 7

/// The attempt failed for another reason.
#define TRUNK_HANDSHAKE_FAILED_OTHER 8

/// None: the connection has not ended.
#define TRUNK_REASON_NONE 0

/// An ordinary close by the application, without a code of its own.
#define TRUNK_REASON_APP 1000

/// The application did not want the connection or channel.
#define TRUNK_REASON_APP_REJECTED 1001

/// The last code that the application may choose; the first is TRUNK_REASON_APP.
#define TRUNK_REASON_APP_MAX 2999

/// The engine was shut down.
#define TRUNK_REASON_SHUTDOWN 3001

/// A local limit was reached.
#define TRUNK_REASON_LOCAL_LIMIT 3002

/// The local system refused to send.
#define TRUNK_REASON_LOCAL_NETWORK 3003

/// The peer and we connected to each other at once, and the other connection is kept.
#define TRUNK_REASON_SUPERSEDED 3004

/// Nothing was heard from the peer in time.
#define TRUNK_REASON_TIMEOUT 4001

/// Packets could not be authenticated, or key rules were broken.
#define TRUNK_REASON_BAD_CRYPTO 4002

/// The peer's certificate or key was not accepted.
#define TRUNK_REASON_BAD_CERTIFICATE 4003

/// The peer did not authenticate, or its credential was denied.
#define TRUNK_REASON_AUTHENTICATION 4004

/// The peer broke the protocol.
#define TRUNK_REASON_PROTOCOL 4005

/// The peer speaks no version that we know.
#define TRUNK_REASON_VERSION 4006

/// The peer has lost its state.
#define TRUNK_REASON_RESET 4007

/// The peer refuses because it is overloaded or limits our address.
#define TRUNK_REASON_REFUSED 4008

/// Unclassified.
#define TRUNK_REASON_MISC 5001

/// A mistake of this library; please report it.
#define TRUNK_REASON_INTERNAL 5002

/// The linger limit ran out and undelivered data was dropped.
#define TRUNK_REASON_LINGER_EXPIRED 5003

/// Share a live connection, or one being made, that agrees in everything: trust, addresses, server
/// name, identity and credential. Otherwise make one.
#define TRUNK_REUSE 0

/// Always make a new one.
#define TRUNK_REUSE_FORCE_NEW 1

/// Share one, or fail with TRUNK_ERR_NO_CONNECTION.
#define TRUNK_REUSE_NEVER_NEW 2

/// Packets in UDP datagrams.
#define TRUNK_CONNECT_DATAGRAM 0

/// TLS over TCP, the native protocol.
#define TRUNK_CONNECT_STREAM 1

/// TLS over TCP, the plain protocol.
#define TRUNK_CONNECT_PLAIN 2

/// UDP and TLS over TCP side by side: the first that proves the host is kept.
#define TRUNK_CONNECT_AUTO 3

/// We connected.
#define TRUNK_ROLE_CLIENT 0

/// We accepted.
#define TRUNK_ROLE_HOST 1

/// Packets in UDP datagrams.
#define TRUNK_LINK_DATAGRAM 0

/// TLS over TCP.
#define TRUNK_LINK_STREAM 1

/// Not authenticated.
#define TRUNK_AUTH_NONE 0

/// Its certificate chains to a CA that is trusted.
#define TRUNK_AUTH_CERTIFICATE 1

/// Its public key is pinned.
#define TRUNK_AUTH_PIN 2

/// It holds the key of its certificate, and any certificate was accepted.
#define TRUNK_AUTH_DANGEROUS_ANY 3

/// By its credential alone, which the host's application accepted.
#define TRUNK_AUTH_CREDENTIAL 4

/// Our own side: a certificate is offered; how the peer judges it, the peer knows.
#define TRUNK_AUTH_OFFERED 5

/// A reliable, ordered stream of bytes.
#define TRUNK_KIND_BYTES 0

/// Reliable, ordered messages.
#define TRUNK_KIND_MESSAGES 1

/// Unreliable messages.
#define TRUNK_KIND_DATAGRAMS 2

/// We asked for it, and the peer has not answered.
#define TRUNK_PHASE_REQUESTED 0

/// The peer asked for it, and we have not answered.
#define TRUNK_PHASE_OFFERED 1

/// Both agreed.
#define TRUNK_PHASE_OPEN 2

/// Both sides have sent everything, and everything was acknowledged.
#define TRUNK_END_FINISHED 0

/// The peer declined it: code, text.
#define TRUNK_END_DECLINED 1

/// A side cancelled its sending or refused the other's: code, by_peer.
#define TRUNK_END_RESET 2

/// No answer came to the request in time.
#define TRUNK_END_TIMED_OUT 3

/// The connection ended, or could not carry the channel: reason, text.
#define TRUNK_END_CONNECTION 4

/// In a way that this version has no name for.
#define TRUNK_END_OTHER 5

/// Nothing: an item that was released.
#define TRUNK_ITEM_NONE 0

/// Data of a channel: data and size. The next bytes of a stream, or one whole message, as kind
/// says.
#define TRUNK_ITEM_DATA 1

/// The status of a connection changed: detail.status.
#define TRUNK_ITEM_STATUS 2

/// Host: a peer has proved itself and waits for trunk_accept or trunk_reject: detail.incoming.
#define TRUNK_ITEM_INCOMING 3

/// The peer asks for a channel and waits for trunk_channel_accept or trunk_channel_decline:
/// detail.request.
#define TRUNK_ITEM_REQUEST 4

/// A channel is usable: the peer has accepted it, or we have.
#define TRUNK_ITEM_READY 5

/// A channel ended; its last item: detail.closed. Its handle is stale since it ended, which may be
/// before this item is received.
#define TRUNK_ITEM_CLOSED 6

/// The peer sends no more on a channel, and everything before was received.
#define TRUNK_ITEM_EOF 7

/// The peer cancelled what it was sending on a channel: code.
#define TRUNK_ITEM_RESET 8

/// The peer refuses the rest of what we send on a channel: code.
#define TRUNK_ITEM_STOPPED 9

/// A send on a channel gave TRUNK_ERR_WOULD_BLOCK, and there is room again.
#define TRUNK_ITEM_WRITABLE 10

/// The peer has acknowledged all of what was sent with this token.
#define TRUNK_ITEM_RECEIPT 11

/// What was taken for sending on a channel could not be handed to its connection (trunk_send has
/// the reasons): detail.text says why.
#define TRUNK_ITEM_SEND_FAILED 12

/// The peer has answered trunk_conn_check.
#define TRUNK_ITEM_CHECK_ANSWERED 13

/// A connection is gone for good; its last item: detail.dead.
#define TRUNK_ITEM_DEAD 14

/// A shard has failed, and nothing more is heard of its connections: detail.text says why. conn is
/// 0.
#define TRUNK_ITEM_SHARD_FAILED 15

/// The answer to trunk_channel_request: detail.opened; channel, if there is one.
#define TRUNK_ITEM_OPENED 16

/// The state of an association changed: detail.association; channel, while it has one.
#define TRUNK_ITEM_ASSOCIATION 17

/// The peer has acknowledged a message of an association: token, detail.delivery.
#define TRUNK_ITEM_DELIVERED 18

/// A message of an association was not delivered: token, detail.delivery. Each message is told one
/// of the two.
#define TRUNK_ITEM_UNDELIVERED 19

/// A connection was begun for a channel request or an association. It is freed by itself when it
/// ends; trunk_connect to the same peer makes it the caller's.
#define TRUNK_ITEM_BEGUN 20

/// Something happened to a pairing: detail.pairing. conn is 0.
#define TRUNK_ITEM_PAIRING 21

/// A packet of the partner came by way of the event source: detail.relayed. conn is 0.
#define TRUNK_ITEM_RELAYED 22

/// There is a connection with the partner of a pairing: conn, detail.peer. It is freed by itself
/// when it ends.
#define TRUNK_ITEM_PEER 23

/// A connection that was made over the relay of an event source goes another way: detail.path.
#define TRUNK_ITEM_PATH 24

/// Before anything is sent: identity, trust and credential can be chosen.
#define TRUNK_SECURITY_BEGINNING 0

/// The peer has proved itself, and our credential has not left yet: it can be chosen, and pins
/// given now must hold.
#define TRUNK_SECURITY_PEER_PROVEN 1

/// There is a channel.
#define TRUNK_OUTCOME_OPENED 0

/// The peer declined it: code, text.
#define TRUNK_OUTCOME_DECLINED 1

/// The peer did not answer in time. The connection is not affected.
#define TRUNK_OUTCOME_TIMED_OUT 2

/// One of the two sides cancelled it: code.
#define TRUNK_OUTCOME_RESET 3

/// The connection ended, and a second one did not help: reason, text.
#define TRUNK_OUTCOME_CONNECTION 4

/// It could not be asked for: result, text.
#define TRUNK_OUTCOME_REFUSED 5

/// trunk_open_request_cancel.
#define TRUNK_OUTCOME_CANCELLED 6

/// In a way that this version has no name for.
#define TRUNK_OUTCOME_OTHER 7

/// It waits for a peer or tries to reach one; messages queue.
#define TRUNK_ASSOCIATION_AWAITING_CONNECTION 0

/// Messages go out at once, received ones straight up.
#define TRUNK_ASSOCIATION_CONNECTED 1

/// Nothing has moved for the hold time; the peer knows. Traffic wakes it.
#define TRUNK_ASSOCIATION_IDLE 2

/// The application closed it; what it was given before is being delivered.
#define TRUNK_ASSOCIATION_CLOSING 3

/// Over: its handle is stale, and it can never be used again.
#define TRUNK_ASSOCIATION_DESTROYED 4

/// The association has not ended.
#define TRUNK_ASSOCIATION_END_NONE 0

/// No connection came within the time given.
#define TRUNK_ASSOCIATION_END_NO_CONNECTION 1

/// The connection, or the channel of the association, could not be made: outcome and what it says.
#define TRUNK_ASSOCIATION_END_FAILED 2

/// Its connection broke: reason, text.
#define TRUNK_ASSOCIATION_END_BROKEN 3

/// The peer ended the association's channel.
#define TRUNK_ASSOCIATION_END_CLOSED_BY_PEER 4

/// Both sides were idle for their hold times.
#define TRUNK_ASSOCIATION_END_IDLE 5

/// The application closed it.
#define TRUNK_ASSOCIATION_END_CLOSED 6

/// In a way that this version has no name for.
#define TRUNK_ASSOCIATION_END_OTHER 7

/// It was delivered.
#define TRUNK_DELIVERY_OK 0

/// It waited longer than the association lets a message wait.
#define TRUNK_DELIVERY_EXPIRED 1

/// The connection is not of the security that was asked for. Nothing was sent.
#define TRUNK_DELIVERY_SECURITY 2

/// It cannot be sent at all: result.
#define TRUNK_DELIVERY_REFUSED 3

/// The association ended first.
#define TRUNK_DELIVERY_ENDED 4

/// For a reason that this version has no name for.
#define TRUNK_DELIVERY_OTHER 5

/// It is to do nothing, or does not know who it is.
#define TRUNK_PAIRING_PASSIVE 0

/// It has no connection to the event source.
#define TRUNK_PAIRING_READY_TO_CONNECT 1

/// It is being connected.
#define TRUNK_PAIRING_CONNECTING 2

/// Connected, without a partner.
#define TRUNK_PAIRING_READY_TO_PAIR 3

/// The partner was not heard of lately.
#define TRUNK_PAIRING_SEARCHING 4

/// The partner is there.
#define TRUNK_PAIRING_INTERACTING 5

/// The partner does not reject us.
#define TRUNK_PAIRING_REJECT_NONE 0

/// It has another partner.
#define TRUNK_PAIRING_REJECT_ASSIGNED_TO_OTHER 1

/// It is a controller that has no partner.
#define TRUNK_PAIRING_REJECT_NOT_PAIRED 2

/// It belongs to another application.
#define TRUNK_PAIRING_REJECT_APP_ID_MISMATCH 3

/// It has the same role as we have.
#define TRUNK_PAIRING_REJECT_INVALID_PARTNER_ROLE 4

/// For a reason that this version has no name for.
#define TRUNK_PAIRING_REJECT_OTHER 5

/// The state is another: old_state, new_state.
#define TRUNK_NOTICE_STATE 0

/// A controller has made itself our partner, or has taken that back: client, empty.
#define TRUNK_NOTICE_PARTNER 1

/// The partner does not want us: client, reject. Nothing more is sent to it until a client id or a
/// partner is assigned.
#define TRUNK_NOTICE_REJECTED 2

/// The event source has ended the connection: code, 1101 to 1106 as in docs/pairing.md. No other is
/// made until the pairing is made active, or a token or a client id is assigned.
#define TRUNK_NOTICE_ABORTED 3

/// An event of the partner's application: client, subtype, buffered, sent, received, data, size.
#define TRUNK_NOTICE_EVENT 4

/// The partner says something about routes that no connection of ours takes: client, subtype, data,
/// size.
#define TRUNK_NOTICE_ROUTE 5

/// Events that waited were for a partner that is none any more: code of them are gone.
#define TRUNK_NOTICE_DISCARDED 6

/// It must be given its partner.
#define TRUNK_PAIRING_CONTROLLER 0

/// It may be given one; otherwise it adopts the first controller of its application that pings it.
#define TRUNK_PAIRING_RESPONDER 1

/// It is accepted.
#define TRUNK_CREDENTIAL_GOOD 0

/// The client presented none.
#define TRUNK_CREDENTIAL_MISSING 1

/// Not a credential, or one that was cut.
#define TRUNK_CREDENTIAL_MALFORMED 2

/// Signed with a key that the verifier does not have: key_id.
#define TRUNK_CREDENTIAL_UNKNOWN_KEY 3

/// The signature is not that of the key, or it was made for another audience.
#define TRUNK_CREDENTIAL_WRONG_SIGNATURE 4

/// It holds from a later time on.
#define TRUNK_CREDENTIAL_NOT_YET_VALID 5

/// Its time is over: expired_by_s.
#define TRUNK_CREDENTIAL_EXPIRED 6

/// It is bound to another client, or this one has shown no certificate.
#define TRUNK_CREDENTIAL_WRONG_PEER 7

/// For a reason that this version has no name for.
#define TRUNK_CREDENTIAL_OTHER 8

/// TRUNK_PAIRING_CONTROLLER.
#define TRUNK_TOKEN_CONTROLLER 1

/// TRUNK_PAIRING_RESPONDER.
#define TRUNK_TOKEN_RESPONDER 2

/// Both.
#define TRUNK_TOKEN_ANY_ROLE 3

/// It is good.
#define TRUNK_TOKEN_GOOD 0

/// It does not have the form of a token.
#define TRUNK_TOKEN_MALFORMED 1

/// It is signed with a key that is not among those given.
#define TRUNK_TOKEN_UNKNOWN_KEY 2

/// Its signature does not fit.
#define TRUNK_TOKEN_WRONG_SIGNATURE 3

/// Its time is over: expired_by_s.
#define TRUNK_TOKEN_EXPIRED 4

/// For a reason that this version has no name for.
#define TRUNK_TOKEN_OTHER 5

/// Not said.
#define TRUNK_DEVICE_TYPE_UNSPECIFIED 0

/// Desktop computer.
#define TRUNK_DEVICE_TYPE_DESKTOP 1

/// Laptop.
#define TRUNK_DEVICE_TYPE_LAPTOP 2

/// Server.
#define TRUNK_DEVICE_TYPE_SERVER 3

/// Phone.
#define TRUNK_DEVICE_TYPE_PHONE 4

/// Tablet.
#define TRUNK_DEVICE_TYPE_TABLET 5

/// Game console.
#define TRUNK_DEVICE_TYPE_CONSOLE 6

/// Television or set-top box.
#define TRUNK_DEVICE_TYPE_TELEVISION 7

/// Headset for virtual or augmented reality.
#define TRUNK_DEVICE_TYPE_HEADSET 8

/// Built into something: camera, speaker, instrument.
#define TRUNK_DEVICE_TYPE_EMBEDDED 9

/// Anybody may connect.
#define TRUNK_DEVICE_MODE_OPEN 0

/// Only those whom it knows: by key, credential or list.
#define TRUNK_DEVICE_MODE_KNOWN 1

/// It is ready to be paired with a new peer.
#define TRUNK_DEVICE_MODE_PAIRING 2

/// It takes nobody at the moment.
#define TRUNK_DEVICE_MODE_BUSY 3

/// UDP.
#define TRUNK_DEVICE_LINK_UDP 1

/// TLS over TCP.
#define TRUNK_DEVICE_LINK_TLS 2

/// No session.
#define TRUNK_PRESENCE_NONE 0

/// Asking: a question was published, and no answer has come.
#define TRUNK_PRESENCE_WAITING_FOR_RESPONSE 1

/// Announcing: nobody has asked.
#define TRUNK_PRESENCE_WAITING_FOR_REQUEST 2

/// The other side was heard within the heartbeat.
#define TRUNK_PRESENCE_READY 3

/// Over: the heartbeat has expired, or the device has left.
#define TRUNK_PRESENCE_ENDED 4

/// Something else than the following.
#define TRUNK_PROBLEM_OTHER 0

/// Another program has the port and does not share it.
#define TRUNK_PROBLEM_ADDRESS_IN_USE 1

/// The address cannot be used, or not yet.
#define TRUNK_PROBLEM_ADDRESS_NOT_AVAILABLE 2

/// The system does not allow it, such as by a firewall.
#define TRUNK_PROBLEM_PERMISSION_DENIED 3

/// The network is down, or what is sent reaches nobody.
#define TRUNK_PROBLEM_UNREACHABLE 4

/// A device that was not known answered: device.
#define TRUNK_DISCOVERY_FOUND 1

/// A device says something else of itself, or has one more address: device.
#define TRUNK_DISCOVERY_CHANGED 2

/// A device left, or its heartbeat expired: device.
#define TRUNK_DISCOVERY_LOST 3

/// Nobody there has answered for the heartbeat; asking goes on: address.
#define TRUNK_DISCOVERY_SILENT 4

/// From the link.
#define TRUNK_REACH_LINK 0

/// From the link and from private addresses.
#define TRUNK_REACH_SITE 1

/// From everywhere.
#define TRUNK_REACH_ANYWHERE 2

/// All that are meant for us.
#define TRUNK_ANSWERS_EVERYBODY 0

/// Only those that show that they know our id: the device shows itself to nobody else.
#define TRUNK_ANSWERS_THOSE_WHO_KNOW_THE_ID 1

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// The version of the library that is running: major << 16 | minor << 8 | patch.
///
/// Any thread, never blocks.
uint32_t trunk_version(void);

/// The same as a static text, such as "0.1.0".
///
/// Any thread, never blocks.
const char *trunk_version_str(void);

/// A code in words: a static string, never NULL, "unknown result" for other values.
///
/// Any thread, never blocks.
const char *trunk_result_str(trunk_result result);

/// The detail, in words, of the last call of this thread that failed: which argument, which file,
/// which limit. Never NULL; empty when no call of this thread has failed. Calls that succeed leave
/// it alone. Valid until the next call of this thread that fails; other threads do not change it.
///
/// Any thread, never blocks.
const char *trunk_last_error(void);

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_engine_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_engine_config_init_sized(struct trunk_engine_config *config, size_t struct_size);

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_connection_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_connection_config_init_sized(struct trunk_connection_config *config,
                                                size_t struct_size);

/// Takes the settings of a hardware profile over into config, which trunk_engine_config_init has
/// prepared: "auto" (for the network interface with the default route), the name of one that is
/// part of the library (such as "generic", "ena" or "mlx5"; docs/profiles.md), or the path of a
/// file (anything with a slash or a dot). Change single settings afterwards. The shards of a
/// thread-less engine stay 1.
///
/// What was set is stored as text in the capacity bytes at report, one line for each setting with
/// its reason; what the caller's version of config has no field for is left out. size, which may be
/// NULL, gets the bytes needed, final NUL included. report may be NULL when capacity is 0: then
/// nothing is stored there.
///
/// Any thread; reads files, does not block otherwise. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_ARGUMENT (no such profile, or a mistake in it), TRUNK_ERR_FILE,
/// TRUNK_ERR_BUFFER_TOO_SMALL (config was changed).
trunk_result trunk_engine_config_load_profile(struct trunk_engine_config *config,
                                              const char *which,
                                              char *report,
                                              size_t capacity,
                                              size_t *size);

/// Makes an engine and stores it. config may be NULL: one shard with a thread of its own, and the
/// defaults of trunk_engine_config. Everything that config points to is copied. The caller owns the
/// engine and ends it with trunk_engine_destroy.
///
/// Any thread; several engines in one process are fine. Waits for the threads of the shards to
/// start and reads the files that config names, does not block otherwise. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_DRIVER, TRUNK_ERR_SYSTEM, TRUNK_ERR_FILE,
/// TRUNK_ERR_SECURITY.
trunk_result trunk_engine_new(const struct trunk_engine_config *config,
                              struct trunk_engine **engine);

/// Ends an engine and frees what it has: connections that are still there end at once (see
/// trunk_shutdown for the patient way), and its threads are gone when the call returns. NULL is
/// allowed. Received items stay valid, and trunk_message_release still takes them; buffers of
/// trunk_buf_alloc too. A thread-less engine is to be destroyed by the thread that polled it;
/// destroyed by another one, its sockets stay open until that thread ends, which must not be just
/// then. Callbacks are not called any more when this has returned.
///
/// Any thread, but no other call with this engine may be going on or follow: one that follows gives
/// TRUNK_ERR_INVALID_HANDLE. Waits for the engine's threads, for milliseconds. Errors:
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED (nothing is freed), TRUNK_ERR_IN_CALLBACK.
trunk_result trunk_engine_destroy(struct trunk_engine *engine);

/// Fills struct_size bytes at report with the defaults. Call it as
/// trunk_shutdown_report_init(&report).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_shutdown_report_init_sized(struct trunk_shutdown_report *report,
                                              size_t struct_size);

/// Ends every connection of an engine: what was sent reliably is delivered first, for at most
/// linger_ns (0 = drop it, TRUNK_LINGER_DEFAULT = the configured limit), and the peers are told.
/// report, which may be NULL, says what was delivered and what was not. Nothing can be opened or
/// sent afterwards; what was received can still be read with trunk_recv_many, which gives
/// TRUNK_ERR_STOPPED after the last item. trunk_engine_destroy is still due.
///
/// Any thread; without threads the one that polls. BLOCKS until every connection is gone, at most
/// for the linger and the fin-wait limits together. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WRONG_THREAD,
/// TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_STOPPED (a second shutdown), TRUNK_ERR_FORKED;
/// TRUNK_ERR_DRIVER and TRUNK_ERR_SYSTEM when a thread-less engine was never polled and its driver
/// cannot be set up.
trunk_result trunk_shutdown(struct trunk_engine *engine,
                            int64_t linger_ns,
                            struct trunk_shutdown_report *report);

/// The name of the driver in use, a static string: "uring" or "mio". A thread-less engine knows it
/// once it was polled, and on the thread that polls; it is empty before.
///
/// Any thread; without threads the one that polls. Never blocks. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WRONG_THREAD, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
trunk_result trunk_engine_driver(struct trunk_engine *engine, const char **name);

/// Replaces the list of addresses and networks whose connection requests are dropped.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FORKED.
trunk_result trunk_engine_set_deny(struct trunk_engine *engine,
                                   const char *const *networks,
                                   size_t count);

/// Tells the engine that the local network has changed: connections are checked at once, and
/// clients move theirs.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_engine_network_changed(struct trunk_engine *engine);

/// Drives a thread-less engine: receives, sends, and does what is due, then returns. If there is
/// nothing to do, and no item waits in a poll group, waits for something for at most budget_ns
/// (TRUNK_WAIT_NOT, TRUNK_WAIT_FOREVER, or nanoseconds). Stores at happened, which may be NULL, how
/// many things happened; what the application is told about is then taken with trunk_recv_many. To
/// be called again soon while trunk_engine_next_timeout_ns says 0.
///
/// The thread that polls first. BLOCKS for at most budget_ns. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_NOT_THREADLESS, TRUNK_ERR_WRONG_THREAD,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_STOPPED, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED;
/// TRUNK_ERR_DRIVER and TRUNK_ERR_SYSTEM when the first call cannot set the driver up, or the
/// driver fails.
trunk_result trunk_engine_poll(struct trunk_engine *engine, int64_t budget_ns, uint64_t *happened);

/// Stores a file descriptor that is readable when trunk_engine_poll has work, for an event loop of
/// the application: wait until it is readable or trunk_engine_next_timeout_ns has passed, poll,
/// receive, and ask for the next timeout again. It belongs to the engine: do not read or close it.
///
/// The thread that polls first. Never blocks. Errors: as trunk_engine_poll; TRUNK_ERR_UNSUPPORTED
/// where the driver has none.
trunk_result trunk_engine_fd(struct trunk_engine *engine, int32_t *fd);

/// Stores how many nanoseconds may pass until trunk_engine_poll has work even if nothing arrives:
/// 0 = now (also while an item waits in a poll group), TRUNK_WAIT_FOREVER = nothing is planned. Ask
/// again after every poll.
///
/// The thread that polls first. Never blocks. Errors: as trunk_engine_poll.
trunk_result trunk_engine_next_timeout_ns(struct trunk_engine *engine, int64_t *timeout_ns);

/// Ends the wait of trunk_engine_poll, or makes the descriptor readable. Sends from other threads
/// do so by themselves.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_engine_wake(struct trunk_engine *engine);

/// Fills struct_size bytes at identity with the defaults. Call it as
/// trunk_identity_init(&identity).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_identity_init_sized(struct trunk_identity *identity, size_t struct_size);

/// Fills struct_size bytes at trust with the defaults. Call it as trunk_trust_init(&trust).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_trust_init_sized(struct trunk_trust *trust, size_t struct_size);

/// Makes an Ed25519 key and a self-signed certificate for name (NULL = "trunkline"), and stores
/// both as one PEM text with a final NUL in the capacity bytes at pem. Keep it to yourself: it
/// holds the private key. size, which may be NULL, gets the bytes needed, final NUL included; 2048
/// bytes are always enough for a name of up to 255 bytes. Each call makes another key.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_BUFFER_TOO_SMALL,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SECURITY.
trunk_result trunk_identity_generate(const char *name, char *pem, size_t capacity, size_t *size);

/// Loads an identity and stores its fingerprint, TRUNK_FINGERPRINT_BYTES bytes: the SHA-256 of its
/// public key, which peers pin. Reads the files that the identity names.
///
/// Any thread; reads files, does not block otherwise. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FILE, TRUNK_ERR_SECURITY.
trunk_result trunk_identity_fingerprint(const struct trunk_identity *identity,
                                        uint8_t *fingerprint);

/// Reads a fingerprint of 64 hexadecimal digits, colons between bytes allowed, and stores its
/// TRUNK_FINGERPRINT_BYTES bytes.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_fingerprint_parse(const char *text, uint8_t *fingerprint);

/// Writes a fingerprint as 64 hexadecimal digits and a NUL, TRUNK_FINGERPRINT_TEXT_BYTES bytes.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL.
trunk_result trunk_fingerprint_format(const uint8_t *fingerprint, char *text);

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_listen_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_listen_config_init_sized(struct trunk_listen_config *config, size_t struct_size);

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_connect_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_connect_config_init_sized(struct trunk_connect_config *config,
                                             size_t struct_size);

/// Accepts connections at an address and stores the listener, which is valid until
/// trunk_listener_close. Each connection shows up as TRUNK_ITEM_INCOMING in the engine's own poll
/// group and waits for trunk_accept or trunk_reject. Everything that config points to is copied.
///
/// Any thread. Waits for the shards to take their sockets, for microseconds; reads the files that
/// config names. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_SYSTEM (the address is taken or not ours), TRUNK_ERR_FILE, TRUNK_ERR_SECURITY,
/// TRUNK_ERR_STOPPED, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
trunk_result trunk_listen(struct trunk_engine *engine,
                          const struct trunk_listen_config *config,
                          trunk_listener *listener);

/// Stores the address of a listener, with the port that the system chose, as a text with a final
/// NUL in the capacity bytes at address. 64 bytes are always enough. size, which may be NULL, gets
/// the bytes needed.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_BUFFER_TOO_SMALL, TRUNK_ERR_FORKED.
trunk_result trunk_listener_address(struct trunk_engine *engine,
                                    trunk_listener listener,
                                    char *address,
                                    size_t capacity,
                                    size_t *size);

/// Accepts no more connections there; the handle is stale afterwards. Connections that exist live
/// on, unless close_connections is not 0.
///
/// Any thread. Waits for the shards to give their sockets back, for microseconds. Errors:
/// TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
trunk_result trunk_listener_close(struct trunk_engine *engine,
                                  trunk_listener listener,
                                  uint32_t close_connections);

/// Starts a connection, or finds one to share, and stores its handle, which is valid until
/// trunk_close. Channels can be opened and reliable data sent on them at once; TRUNK_ITEM_STATUS
/// tells how it went. Whoever shares a connection shares its handle: one close closes it for all.
/// Everything that config points to is copied.
///
/// Any thread. Reads the files that config names, does not block otherwise. Errors:
/// TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_NO_CONNECTION,
/// TRUNK_ERR_LIMIT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FILE, TRUNK_ERR_SECURITY, TRUNK_ERR_FORKED.
trunk_result trunk_connect(struct trunk_engine *engine,
                           const struct trunk_connect_config *config,
                           trunk_conn *conn);

/// Host: takes a connection that came as TRUNK_ITEM_INCOMING. Neglected for longer than the initial
/// timeout, it fails. TRUNK_ITEM_STATUS tells when it is connected.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
trunk_result trunk_accept(struct trunk_engine *engine, trunk_conn conn);

/// Host: refuses a connection that came as TRUNK_ITEM_INCOMING; its handle is stale afterwards, and
/// TRUNK_ITEM_DEAD is its last item. The peer learns reason (TRUNK_REASON_APP to
/// TRUNK_REASON_APP_MAX, 0 = TRUNK_REASON_APP_REJECTED) and text (UTF-8, cut to 127 bytes, NULL =
/// none).
///
/// Any thread, never blocks. Errors: as trunk_accept, and TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_reject(struct trunk_engine *engine,
                          trunk_conn conn,
                          trunk_reason reason,
                          const char *text);

/// Closes a connection; its handle and those of its channels are stale at once. With linger_ns > 0
/// what was sent reliably is delivered first, for at most that long, and the peer sees no sign of
/// the close before the last byte; TRUNK_LINGER_DEFAULT takes the engine's limit,
/// TRUNK_LINGER_NONE drops what is not delivered. Nothing more is told about its channels;
/// TRUNK_ITEM_DEAD is its last item and says what was delivered. reason (0 = TRUNK_REASON_APP) and
/// text (NULL = none) are as in trunk_reject. A connection that has ended by itself must be closed
/// too.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE (a second close),
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
trunk_result trunk_close(struct trunk_engine *engine,
                         trunk_conn conn,
                         trunk_reason reason,
                         const char *text,
                         int64_t linger_ns);

/// Stores the status of a connection. For a stale handle it stores TRUNK_STATUS_NONE and gives
/// TRUNK_ERR_INVALID_HANDLE.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_conn_status(struct trunk_engine *engine, trunk_conn conn, trunk_status *status);

/// Asks the peer for a sign of life. TRUNK_ITEM_CHECK_ANSWERED follows; without an answer within
/// check_timeout_ns the connection ends with TRUNK_REASON_TIMEOUT.
///
/// Any thread, never blocks. Errors: as trunk_accept.
trunk_result trunk_conn_check(struct trunk_engine *engine, trunk_conn conn);

/// Has what happens to a connection from now on go to a poll group (0 = the engine's own). Items
/// that are already in another group stay there.
///
/// Any thread, never blocks. Errors: as trunk_accept.
trunk_result trunk_conn_set_group(struct trunk_engine *engine, trunk_conn conn, trunk_group group);

/// Keeps a pointer of the application with a connection. Each item of the connection brings it
/// along, TRUNK_ITEM_DEAD included; the engine only hands it back. An item carries the pointer that
/// is kept when it is received (a callback: when it is called), not when it happened.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_conn_set_user(struct trunk_engine *engine, trunk_conn conn, void *user);

/// Stores the pointer kept with a connection; NULL when there is none.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_conn_user(struct trunk_engine *engine, trunk_conn conn, void **user);

/// Fills struct_size bytes at info with zeros and its size. Call it as trunk_conn_info_init(&info).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_conn_info_init_sized(struct trunk_conn_info *info, size_t struct_size);

/// Fills struct_size bytes at stats with zeros and its size. Call it as
/// trunk_conn_stats_init(&stats).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_conn_stats_init_sized(struct trunk_conn_stats *stats, size_t struct_size);

/// Stores what is known of a connection.
///
/// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
/// microseconds. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_NO_CONNECTION (the shard does not answer), TRUNK_ERR_WOULD_BLOCK,
/// TRUNK_ERR_WRONG_THREAD, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
trunk_result trunk_conn_get_info(struct trunk_engine *engine,
                                 trunk_conn conn,
                                 struct trunk_conn_info *info);

/// Stores counters and gauges of a connection.
///
/// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
/// microseconds. Errors: as trunk_conn_get_info.
trunk_result trunk_conn_get_stats(struct trunk_engine *engine,
                                  trunk_conn conn,
                                  struct trunk_conn_stats *stats);

/// Stores the handles of the engine's connections at conns, at most capacity, in no particular
/// order, and at count how many there are, which may be more: all that trunk_close was not called
/// for, those that are offered among them. conns may be NULL when capacity is 0.
///
/// Any thread; without threads the one that polls. Inside a callback only on an engine with one
/// shard. Waits for the shards, usually for microseconds. Errors: as trunk_conn_get_info.
trunk_result trunk_engine_conns(struct trunk_engine *engine,
                                trunk_conn *conns,
                                size_t capacity,
                                size_t *count);

/// Stores which of the engine's shards carries a connection, from 0: for state that callbacks keep
/// for each shard. It stays the same as long as the connection.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_conn_shard(struct trunk_engine *engine, trunk_conn conn, uint32_t *shard);

/// Stores the time of the engine's clock, which trunk_sec_info.established_ns is of, in
/// nanoseconds.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_engine_now(struct trunk_engine *engine, uint64_t *ns);

/// Fills struct_size bytes at info with zeros and its size. Call it as trunk_sec_info_init(&info).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_sec_info_init_sized(struct trunk_sec_info *info, size_t struct_size);

/// Stores what is known of a connection's security.
///
/// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
/// microseconds. Errors: as trunk_conn_get_info.
trunk_result trunk_conn_get_sec_info(struct trunk_engine *engine,
                                     trunk_conn conn,
                                     struct trunk_sec_info *info);

/// Takes a stored value back: size bytes of trunk_sec_info.stored.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT (other bytes, or of
/// a later version).
trunk_result trunk_sec_info_load(const uint8_t *stored, size_t size, struct trunk_sec_info *info);

/// Stores at matches whether a connection with info will do for whoever asked for wanted: our role,
/// both identities, how each was authenticated, both credentials and the trust are the same. A peer
/// without an identity is nobody in particular: without one, only the very same connection does. Of
/// the two structs only stored counts.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_sec_info_matches(const struct trunk_sec_info *info,
                                    const struct trunk_sec_info *wanted,
                                    uint32_t *matches);

/// Stores at same whether both are of one and the same connection, seen from the same side.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_sec_info_same_connection(const struct trunk_sec_info *info,
                                            const struct trunk_sec_info *other,
                                            uint32_t *same);

/// Fills struct_size bytes at stats with zeros and its size. Call it as
/// trunk_engine_stats_init(&stats).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_engine_stats_init_sized(struct trunk_engine_stats *stats, size_t struct_size);

/// Fills struct_size bytes at stats with zeros and its size. Call it as
/// trunk_shard_stats_init(&stats).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_shard_stats_init_sized(struct trunk_shard_stats *stats, size_t struct_size);

/// Fills struct_size bytes at stats with zeros and its size. Call it as
/// trunk_group_stats_init(&stats).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_group_stats_init_sized(struct trunk_group_stats *stats, size_t struct_size);

/// Stores counters of the engine.
///
/// Any thread, but not inside a callback; without threads the one that polls. Waits for the shards,
/// usually for microseconds. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WRONG_THREAD, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
trunk_result trunk_engine_get_stats(struct trunk_engine *engine, struct trunk_engine_stats *stats);

/// Stores counters and gauges of one shard, from 0 to one less than the number of shards.
///
/// Threads as trunk_engine_get_stats. Errors: as trunk_engine_get_stats, and
/// TRUNK_ERR_INVALID_ARGUMENT; TRUNK_ERR_FAILED when the shard does not answer.
trunk_result trunk_engine_get_shard_stats(struct trunk_engine *engine,
                                          uint32_t shard,
                                          struct trunk_shard_stats *stats);

/// Stores gauges of a poll group (0 = the engine's own).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FORKED.
trunk_result trunk_group_get_stats(struct trunk_engine *engine,
                                   trunk_group group,
                                   struct trunk_group_stats *stats);

/// Fills struct_size bytes at faults with the defaults. Call it as trunk_faults_init(&faults).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_faults_init_sized(struct trunk_faults *faults, size_t struct_size);

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_fault_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_fault_config_init_sized(struct trunk_fault_config *config, size_t struct_size);

/// Changes the faults of an engine that was made with trunk_engine_config.faults, and whose packets
/// they concern. config may be NULL, which ends them.
///
/// Any thread, never blocks; with config.conn it waits for the connection's shard, usually for
/// microseconds, and without threads belongs to the one that polls. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FORKED (with config.conn also
/// TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_WRONG_THREAD and
/// TRUNK_ERR_IN_CALLBACK).
trunk_result trunk_engine_set_faults(struct trunk_engine *engine,
                                     const struct trunk_fault_config *config);

/// Fills struct_size bytes at options with the defaults. Call it as
/// trunk_channel_options_init(&options).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_channel_options_init_sized(struct trunk_channel_options *options,
                                              size_t struct_size);

/// Asks the peer for a channel and stores its handle, which is valid until the channel has ended
/// (TRUNK_ITEM_CLOSED tells, and may still wait in the group) or its connection is closed. It can
/// be sent on at once. TRUNK_ITEM_READY or TRUNK_ITEM_CLOSED tells what the peer answered.
/// TRUNK_ITEM_CLOSED can come before trunk_channel_set_user: then its channel_user is NULL. name is
/// UTF-8, at most 1024 bytes, and need not be unique; options may be NULL.
///
/// Any thread, never blocks; with options.unique it waits for the shard, usually for microseconds,
/// and without threads belongs to the one that polls. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_LIMIT,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED (with options.unique also TRUNK_ERR_WRONG_THREAD and
/// TRUNK_ERR_IN_CALLBACK).
trunk_result trunk_channel_open(struct trunk_engine *engine,
                                trunk_conn conn,
                                const char *name,
                                const struct trunk_channel_options *options,
                                trunk_channel *channel);

/// Accepts a channel that came as TRUNK_ITEM_REQUEST. TRUNK_ITEM_READY follows; it can be sent on
/// at once. options may be NULL; of them kind, latest and expires_ms do not count: the opener's do.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
trunk_result trunk_channel_accept(struct trunk_engine *engine,
                                  trunk_channel channel,
                                  const struct trunk_channel_options *options);

/// Declines a channel that came as TRUNK_ITEM_REQUEST. The peer learns code, which is any number,
/// and text (UTF-8, cut to 127 bytes, NULL = none). The other channels are left alone.
///
/// Any thread, never blocks. Errors: as trunk_channel_accept.
trunk_result trunk_channel_decline(struct trunk_engine *engine,
                                   trunk_channel channel,
                                   uint32_t code,
                                   const char *text);

/// Ends our direction after everything sent so far: the peer gets TRUNK_ITEM_EOF after the last
/// byte. The other direction goes on; when both have ended and all is acknowledged,
/// TRUNK_ITEM_CLOSED is the channel's last item.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
trunk_result trunk_channel_close(struct trunk_engine *engine, trunk_channel channel);

/// Cancels what we send on a channel: what is not delivered yet never will be. The peer gets
/// TRUNK_ITEM_RESET with code, which is any number.
///
/// Any thread, never blocks. Errors: as trunk_channel_close.
trunk_result trunk_channel_reset(struct trunk_engine *engine, trunk_channel channel, uint32_t code);

/// Refuses the rest of what the peer sends on a channel. The peer gets TRUNK_ITEM_STOPPED with
/// code, which is any number.
///
/// Any thread, never blocks. Errors: as trunk_channel_close.
trunk_result trunk_channel_stop(struct trunk_engine *engine, trunk_channel channel, uint32_t code);

/// Stores the connection of a channel.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_channel_conn(struct trunk_engine *engine,
                                trunk_channel channel,
                                trunk_conn *conn);

/// Keeps a pointer of the application with a channel. Each item of the channel brings it along,
/// TRUNK_ITEM_CLOSED included; the engine only hands it back. An item carries the pointer that is
/// kept when it is received (a callback: when it is called), not when it happened. Nothing is told
/// about the channels of a connection that we close: TRUNK_ITEM_DEAD of the connection stands for
/// all of them.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_channel_set_user(struct trunk_engine *engine, trunk_channel channel, void *user);

/// Stores the pointer kept with a channel; NULL when there is none.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_channel_user(struct trunk_engine *engine, trunk_channel channel, void **user);

/// Fills struct_size bytes at info with zeros and its size. Call it as
/// trunk_channel_info_init(&info).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_channel_info_init_sized(struct trunk_channel_info *info, size_t struct_size);

/// Stores what is known of a channel.
///
/// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
/// microseconds. Errors: as trunk_conn_get_info.
trunk_result trunk_channel_get_info(struct trunk_engine *engine,
                                    trunk_channel channel,
                                    struct trunk_channel_info *info);

/// Stores the handles of a connection's channels at channels, at most capacity, in no particular
/// order, and at count how many there are, which may be more. channels may be NULL when capacity is
/// 0.
///
/// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
/// microseconds. Errors: as trunk_conn_get_info.
trunk_result trunk_conn_channels(struct trunk_engine *engine,
                                 trunk_conn conn,
                                 trunk_channel *channels,
                                 size_t capacity,
                                 size_t *count);

/// Sends a copy of size bytes at data: the next bytes of a stream, or one message. Sending nothing
/// on a stream does nothing; an empty message is a message. At most 16 MiB at once, 64 KiB on a
/// channel of TRUNK_KIND_DATAGRAMS.
///
/// What only the shard can know is told by TRUNK_ITEM_SEND_FAILED after TRUNK_OK: that our
/// direction is over, that the channel waits for our answer, or that the message is larger than the
/// peer takes. Inside a callback of that shard it is the result.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK (nothing was taken; TRUNK_ITEM_WRITABLE follows), TRUNK_ERR_DROPPED,
/// TRUNK_ERR_TOO_LARGE, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED; inside a callback of that shard
/// also TRUNK_ERR_WRONG_CHANNEL (our direction is over, or the channel waits for our answer) and
/// TRUNK_ERR_LIMIT (the bytes of one channel in its life).
trunk_result trunk_send(struct trunk_engine *engine,
                        trunk_channel channel,
                        const void *data,
                        size_t size);

/// The same, and TRUNK_ITEM_RECEIPT with token, which may be 0 here, when the peer has acknowledged
/// all of it. For reliable channels, and not for no bytes of a stream.
///
/// Any thread, never blocks. Errors: as trunk_send; inside a callback of that shard also
/// TRUNK_ERR_INVALID_ARGUMENT (no receipt is possible; elsewhere TRUNK_ITEM_SEND_FAILED says so).
trunk_result trunk_send_receipt(struct trunk_engine *engine,
                                trunk_channel channel,
                                const void *data,
                                size_t size,
                                uint64_t token);

/// Sends copies of count short messages with few queue operations, in order, and stores at sent,
/// which may be NULL, how many were taken. The first that was not taken gives the result; those
/// after it were not tried.
///
/// Any thread, never blocks. Errors: as trunk_send.
trunk_result trunk_send_many(struct trunk_engine *engine,
                             const struct trunk_outgoing *messages,
                             size_t count,
                             size_t *sent);

/// Takes one of the engine's send buffers, for at least size bytes, and stores it at buf. The
/// caller writes into it and gives it to trunk_send_buf, which sends it without a copy, or to
/// trunk_buf_free. Its bytes are arbitrary at first. It outlives its engine.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE;
/// TRUNK_ERR_WOULD_BLOCK when all buffers are in use or not acknowledged yet (try again when
/// something was received, or use trunk_send); TRUNK_ERR_TOO_LARGE when size is more than
/// send_buffer_bytes; TRUNK_ERR_FORKED.
trunk_result trunk_buf_alloc(struct trunk_engine *engine, size_t size, struct trunk_buf *buf);

/// Sends the first size bytes of a buffer of trunk_buf_alloc without a copy. When it is taken, the
/// buffer is the engine's again and the struct is empty; the memory is free for others when the
/// peer has acknowledged it. When it is not taken, the caller still has it, must not change what is
/// in it any more, and may try again with the same size. token, unless 0, asks for
/// TRUNK_ITEM_RECEIPT.
///
/// Any thread, never blocks. Errors: as trunk_send_receipt (TRUNK_ERR_INVALID_HANDLE also for a
/// buffer that was sent or freed), and TRUNK_ERR_INVALID_ARGUMENT when size is more than capacity
/// or differs from that of the first try.
trunk_result trunk_send_buf(struct trunk_engine *engine,
                            trunk_channel channel,
                            struct trunk_buf *buf,
                            size_t size,
                            uint64_t token);

/// Gives a buffer back without sending it. An empty struct is left alone.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_FORKED.
trunk_result trunk_buf_free(struct trunk_buf *buf);

/// Sends the bytes of a received item of TRUNK_ITEM_DATA on another channel, without a copy. The
/// item stays the caller's and can be sent on many channels; its memory is free when it is released
/// and all peers have acknowledged it. token, unless 0, asks for TRUNK_ITEM_RECEIPT.
///
/// Any thread, never blocks. Errors: as trunk_send_receipt, and TRUNK_ERR_INVALID_ARGUMENT when the
/// item has no data.
trunk_result trunk_send_item(struct trunk_engine *engine,
                             trunk_channel channel,
                             const struct trunk_item *item,
                             uint64_t token);

/// Sends now what waits on a channel to be sent together with more.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
trunk_result trunk_flush(struct trunk_engine *engine, trunk_channel channel);

/// Sends size bytes at data without a copy, at once the next bytes of a stream or one message. When
/// they are taken, they must not change until release, which may not be NULL, is called with user,
/// data and size. When they are not, release is not called. For long messages: a short one is sent
/// sooner by trunk_send. token, unless 0, asks for TRUNK_ITEM_RECEIPT.
///
/// Any thread, never blocks. Errors: as trunk_send_receipt.
trunk_result trunk_send_external(struct trunk_engine *engine,
                                 trunk_channel channel,
                                 const void *data,
                                 size_t size,
                                 trunk_release_fn release,
                                 void *user,
                                 uint64_t token);

/// Makes a further poll group and stores its handle, which is valid as long as the engine.
/// Connections come into it with trunk_connect_config.group or trunk_conn_set_group. At most 1023.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_LIMIT,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_group_new(struct trunk_engine *engine, trunk_group *group);

/// Ends the wait of every thread that is inside trunk_recv_many with this group (0 = the engine's
/// own), or the next such wait: the call returns with no items.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_group_wake(struct trunk_engine *engine, trunk_group group);

/// Takes at most capacity messages and events, and at most 4096 in one call, from a poll group
/// (0 = the engine's own), in order for each connection, and stores them at items and their number
/// at count. If there are none, waits for some for at most timeout_ns (TRUNK_WAIT_NOT,
/// TRUNK_WAIT_FOREVER, or nanoseconds) and may then store none. A thread-less engine never waits
/// here: call trunk_engine_poll first.
///
/// The caller owns the items and gives their memory back with trunk_message_release. The places at
/// items are overwritten without being looked at.
///
/// Any thread, several at once: each gets whole stretches in order. BLOCKS for at most timeout_ns.
/// Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT (a capacity of 0,
/// too), TRUNK_ERR_FORKED; TRUNK_ERR_STOPPED when the engine was shut down
/// and nothing is left.
trunk_result trunk_recv_many(struct trunk_engine *engine,
                             trunk_group group,
                             struct trunk_item *items,
                             size_t capacity,
                             int64_t timeout_ns,
                             size_t *count);

/// Gives back the memory of count items and makes them TRUNK_ITEM_NONE. Items that already are
/// TRUNK_ITEM_NONE are left alone. Until then, the bytes of a reliable channel count against what
/// its peer may send. Items outlive their engine.
///
/// Any thread, also another one than received them; never blocks. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_FORKED (the items were received by the parent process and are left alone).
trunk_result trunk_message_release(struct trunk_item *items, size_t count);

/// Fills struct_size bytes at callbacks with the defaults. Call it as
/// trunk_callbacks_init(&callbacks).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_callbacks_init_sized(struct trunk_callbacks *callbacks, size_t struct_size);

/// Makes a group whose connections call callbacks, and stores its handle, which is valid as long as
/// the engine. It is used as a group of trunk_group_new, but trunk_recv_many refuses it. What
/// callbacks.user points to must live until trunk_engine_destroy has returned.
///
/// Any thread, never blocks. Errors: as trunk_group_new, and TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_group_new_callbacks(struct trunk_engine *engine,
                                       const struct trunk_callbacks *callbacks,
                                       trunk_group *group);

/// Inside trunk_data_fn: keeps size bytes at data, which it was given, or a part of them, as an
/// item of TRUNK_ITEM_DATA without connection and channel: where they lie if that is worth it,
/// otherwise as a copy. They count against what the peer may send until trunk_message_release. For
/// other bytes, and elsewhere, it is a copy. The item can be sent on with trunk_send_item.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_message_keep(struct trunk_engine *engine,
                                const void *data,
                                size_t size,
                                struct trunk_item *item);

/// Asks a peer for a channel by name, over a connection that is there, one being made, or a new
/// one, as connect.reuse says, and stores the request's handle. Exactly one TRUNK_ITEM_OPENED
/// answers it, in the group of connect. A request whose connection dies is asked for again once,
/// over another one. connect.user is not used. options may be NULL.
///
/// Any thread. Reads the files that connect names, does not block otherwise. Errors: as
/// trunk_connect and trunk_channel_open.
trunk_result trunk_channel_request(struct trunk_engine *engine,
                                   const struct trunk_connect_config *connect,
                                   const char *name,
                                   const struct trunk_channel_options *options,
                                   trunk_open_request *request);

/// Gives a request up: TRUNK_OUTCOME_CANCELLED answers it. One that is answered stays so, and this
/// gives TRUNK_OK: its TRUNK_ITEM_OPENED may not have been received yet.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_NO_CONNECTION (its shard has ended), TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_open_request_cancel(struct trunk_engine *engine, trunk_open_request request);

/// Closes a connection gracefully when it is idle on both sides: no channel is open and nothing has
/// moved for hold_ns. Negative: it stays until it is closed. Connections that a channel request or
/// an association made do so after trunk_engine_config.idle_hold_ns.
///
/// Any thread, never blocks. Errors: as trunk_accept.
trunk_result trunk_conn_hold(struct trunk_engine *engine, trunk_conn conn, int64_t hold_ns);

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_association_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_association_config_init_sized(struct trunk_association_config *config,
                                                 size_t struct_size);

/// Fills struct_size bytes at security with the defaults. Call it as
/// trunk_send_security_init(&security).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_send_security_init_sized(struct trunk_send_security *security,
                                            size_t struct_size);

/// Stores the association of a name with a peer: the one that there is with the same settings, or a
/// new one, which gets the connection that it needs. TRUNK_ITEM_ASSOCIATION tells what happens to
/// it, in the group of connect; from TRUNK_ASSOCIATION_CONNECTED on it names the channel whose
/// TRUNK_ITEM_DATA are its messages.
///
/// Any thread. Reads the files that connect names, does not block otherwise. Errors: as
/// trunk_channel_request.
trunk_result trunk_associate(struct trunk_engine *engine,
                             const struct trunk_connect_config *connect,
                             const struct trunk_association_config *config,
                             trunk_association *association);

/// An association that waits for the peer with this fingerprint (NULL = for anybody) to ask for its
/// channel: the first that does so becomes its peer, without a TRUNK_ITEM_REQUEST. The connection
/// itself is accepted as ever. What happens to it goes to group (0 = the engine's own).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_NO_CONNECTION (the shards have ended),
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_association_listen(struct trunk_engine *engine,
                                      const uint8_t *peer,
                                      const struct trunk_association_config *config,
                                      trunk_group group,
                                      trunk_association *association);

/// Makes an association of a channel that a peer asks for (TRUNK_ITEM_REQUEST), instead of
/// trunk_channel_accept. Its name is the channel's.
///
/// Any thread, never blocks. Errors: as trunk_association_listen.
trunk_result trunk_association_accept(struct trunk_engine *engine,
                                      trunk_channel channel,
                                      const struct trunk_association_config *config,
                                      trunk_group group,
                                      trunk_association *association);

/// Sends a copy of size bytes at data as one message over an association. What becomes of it is
/// told with token: TRUNK_ITEM_DELIVERED or TRUNK_ITEM_UNDELIVERED, also when the association has
/// ended meanwhile. security may be NULL: as the connect says.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_TOO_LARGE, TRUNK_ERR_NO_CONNECTION (its shard has ended),
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_association_send(struct trunk_engine *engine,
                                    trunk_association association,
                                    const void *data,
                                    size_t size,
                                    uint64_t token,
                                    const struct trunk_send_security *security);

/// trunk_associate and trunk_association_send in one: stores the association, unless it is NULL;
/// security may be NULL, too.
///
/// Any thread. Reads the files that connect names, does not block otherwise. Errors: as
/// trunk_associate and trunk_association_send.
trunk_result trunk_send_to(struct trunk_engine *engine,
                           const struct trunk_connect_config *connect,
                           const struct trunk_association_config *config,
                           const void *data,
                           size_t size,
                           uint64_t token,
                           const struct trunk_send_security *security,
                           trunk_association *association);

/// Closes an association: what it was given before is delivered, and TRUNK_ASSOCIATION_DESTROYED is
/// told in the end. One that has ended stays so, and this gives TRUNK_OK.
///
/// Any thread, never blocks. Errors: as trunk_open_request_cancel.
trunk_result trunk_association_close(struct trunk_engine *engine, trunk_association association);

/// A static word for a state of a pairing, such as "interacting"; never NULL, "unknown" for other
/// values.
///
/// Any thread, never blocks.
const char *trunk_pairing_state_str(trunk_pairing_state state);

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_pairing_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_pairing_config_init_sized(struct trunk_pairing_config *config,
                                             size_t struct_size);

/// Fills struct_size bytes at status with zeros and its size. Call it as
/// trunk_pairing_status_init(&status).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_pairing_status_init_sized(struct trunk_pairing_status *status,
                                             size_t struct_size);

/// Begins a pairing, which is passive until trunk_pairing_set_active, and stores its handle, which
/// is valid until trunk_pairing_close. TRUNK_ITEM_PAIRING tells what happens to it.
///
/// Any thread; without threads the one that polls. Waits for its shard, usually for microseconds;
/// reads the files that config names. Errors: as trunk_connect and trunk_pairing_set_active.
trunk_result trunk_pairing_new(struct trunk_engine *engine,
                               const struct trunk_pairing_config *config,
                               trunk_pairing *pairing);

/// Whether the client is to be connected, and to reach its partner. Going passive tells the
/// partner.
///
/// Any thread; without threads the one that polls. Waits for its shard, usually for microseconds.
/// Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_NO_CONNECTION (the shard does not
/// answer), TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_WRONG_THREAD, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
trunk_result trunk_pairing_set_active(struct trunk_engine *engine,
                                      trunk_pairing pairing,
                                      uint32_t active);

/// Says who we are to the event source: 1 to 64 letters and digits of ASCII and characters of
/// "-._~:@+"; a client_id of NULL is nobody.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_pairing_assign_client_id(struct trunk_engine *engine,
                                            trunk_pairing pairing,
                                            const char *client_id);

/// Gives what lets us into the event source: an access token as trunk_token_mint makes it; a token
/// of NULL is none.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_pairing_assign_token(struct trunk_engine *engine,
                                        trunk_pairing pairing,
                                        const char *token);

/// Says with whom we pair: a client id as that of trunk_pairing_assign_client_id; a partner of NULL
/// is nobody.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_pairing_assign_partner(struct trunk_engine *engine,
                                          trunk_pairing pairing,
                                          const char *partner);

/// Sends an event of the application to the partner: size bytes at data, at most 8192, and subtype,
/// a number of the application up to 65535. One that is buffered may wait for the partner, and
/// queued, which may be NULL, gets whether it does.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_TOO_LARGE, TRUNK_ERR_LIMIT.
trunk_result trunk_pairing_send(struct trunk_engine *engine,
                                trunk_pairing pairing,
                                uint32_t subtype,
                                const void *data,
                                size_t size,
                                uint32_t buffered,
                                uint32_t *queued);

/// Sends a packet to the partner by way of the event source: for pairings with relay and without an
/// identity. Nobody says whether it arrives.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT for a pairing with an identity, TRUNK_ERR_NO_CONNECTION without a
/// partner or relay, TRUNK_ERR_TOO_LARGE.
trunk_result trunk_pairing_send_relayed(struct trunk_engine *engine,
                                        trunk_pairing pairing,
                                        const void *data,
                                        size_t size);

/// Stores what a pairing is now.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_pairing_get_status(struct trunk_engine *engine,
                                      trunk_pairing pairing,
                                      struct trunk_pairing_status *status);

/// Connects to the partner, which must prove that it has this fingerprint: over the event source at
/// first, and over a direct path as soon as one is found. TRUNK_ITEM_PEER names the connection.
/// Nothing happens while there is one. The partner calls trunk_pairing_accept.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active, and
/// TRUNK_ERR_INVALID_ARGUMENT for a pairing without an identity, TRUNK_ERR_NO_CONNECTION without a
/// partner.
trunk_result trunk_pairing_connect(struct trunk_engine *engine,
                                   trunk_pairing pairing,
                                   const uint8_t *fingerprint);

/// Accepts a connection of the partner, which must prove that it has this fingerprint.
///
/// Threads as trunk_pairing_connect. Errors: as trunk_pairing_connect.
trunk_result trunk_pairing_accept(struct trunk_engine *engine,
                                  trunk_pairing pairing,
                                  const uint8_t *fingerprint);

/// Ends the connection with the partner at once, and accepts none. (trunk_close with linger
/// delivers first.)
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active.
trunk_result trunk_pairing_leave(struct trunk_engine *engine, trunk_pairing pairing);

/// Ends a pairing: the partner is told, and the handle is stale.
///
/// Threads as trunk_pairing_set_active. Errors: as trunk_pairing_set_active.
trunk_result trunk_pairing_close(struct trunk_engine *engine, trunk_pairing pairing);

/// Fills struct_size bytes at grant with the defaults. Call it as
/// trunk_credential_grant_init(&grant).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_credential_grant_init_sized(struct trunk_credential_grant *grant,
                                               size_t struct_size);

/// Fills struct_size bytes at credential with zeros and its size. Call it as
/// trunk_credential_init(&credential).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_credential_init_sized(struct trunk_credential *credential, size_t struct_size);

/// Makes an issuer that signs with a secret which the verifiers share (HMAC-SHA256), and stores its
/// handle, which is valid until trunk_credential_issuer_close. audience is what its credentials are
/// for, a game or a fleet: UTF-8, at most 255 bytes, the same at the verifiers, and not sent.
/// key_id is the number under which the verifiers have the secret, of at least TRUNK_SECRET_BYTES
/// random bytes, which are copied.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_credential_issuer_with_secret(const char *audience,
                                                 uint32_t key_id,
                                                 const void *secret,
                                                 size_t secret_size,
                                                 trunk_credential_issuer *issuer);

/// The same with an Ed25519 key, of which the verifiers have the public half only: PKCS#8, as PEM
/// or DER, such as "openssl genpkey -algorithm ed25519" makes it; of a text of
/// trunk_identity_generate it takes the key. It is copied.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SECURITY
/// (no such key).
trunk_result trunk_credential_issuer_with_ed25519(const char *audience,
                                                  uint32_t key_id,
                                                  const void *private_key,
                                                  size_t private_key_size,
                                                  trunk_credential_issuer *issuer);

/// Stores the public half of an issuer's Ed25519 key, TRUNK_PUBLIC_KEY_BYTES bytes, for verifiers.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT (the issuer signs with a secret), TRUNK_ERR_FORKED.
trunk_result trunk_credential_issuer_public_key(trunk_credential_issuer issuer,
                                                uint8_t *public_key);

/// Makes a credential in the capacity bytes at credential, and stores its size at size also when
/// they are too few. TRUNK_CREDENTIAL_BYTES are always enough, and 119 bytes more than the claims.
/// The client gives it to trunk_connect_config.credential.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_BUFFER_TOO_SMALL, TRUNK_ERR_FORKED.
trunk_result trunk_credential_issue(trunk_credential_issuer issuer,
                                    const struct trunk_credential_grant *grant,
                                    uint8_t *credential,
                                    size_t capacity,
                                    size_t *size);

/// Ends an issuer; its handle is stale afterwards.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_credential_issuer_close(trunk_credential_issuer issuer);

/// Makes a verifier without keys, which accepts nothing, and stores its handle, which is valid
/// until trunk_credential_verifier_close. audience is that of the issuers.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_credential_verifier_new(const char *audience,
                                           trunk_credential_verifier *verifier);

/// Has a verifier accept what is signed with a secret of at least TRUNK_SECRET_BYTES, which is
/// copied, in place of what had the number before. To change keys, give verifiers the new one, then
/// let issuers use it, and remove the old one when its last credential has expired.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FORKED.
trunk_result trunk_credential_verifier_add_secret(trunk_credential_verifier verifier,
                                                  uint32_t key_id,
                                                  const void *secret,
                                                  size_t secret_size);

/// The same with the public half of an Ed25519 key, TRUNK_PUBLIC_KEY_BYTES bytes, as
/// trunk_credential_issuer_public_key gives it.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_credential_verifier_add_public_key(trunk_credential_verifier verifier,
                                                      uint32_t key_id,
                                                      const uint8_t *public_key);

/// Has a verifier accept nothing any more that is signed with this key. A key that it does not have
/// is no error.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_credential_verifier_remove_key(trunk_credential_verifier verifier,
                                                  uint32_t key_id);

/// Checks the size bytes at credential, as trunk_incoming has them, at now_s, in seconds of Unix
/// time (0 = now), and stores what it says at found. peer is the fingerprint that the client has
/// proved with its certificate (trunk_incoming.peer), or NULL if it has shown none. Nothing of a
/// credential is believed before its signature is good.
///
/// What is not accepted gives TRUNK_ERR_CREDENTIAL; found->error says why, and trunk_last_error in
/// words that are fit to be told to the client, as the text of trunk_reject.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_CREDENTIAL, TRUNK_ERR_FORKED.
trunk_result trunk_credential_verify(trunk_credential_verifier verifier,
                                     const void *credential,
                                     size_t size,
                                     uint64_t now_s,
                                     const uint8_t *peer,
                                     struct trunk_credential *found);

/// Ends a verifier; its handle is stale afterwards.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_credential_verifier_close(trunk_credential_verifier verifier);

/// Fills struct_size bytes at grant with the defaults. Call it as trunk_token_grant_init(&grant).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_token_grant_init_sized(struct trunk_token_grant *grant, size_t struct_size);

/// Fills struct_size bytes at token with zeros and its size. Call it as trunk_token_init(&token).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_token_init_sized(struct trunk_token *token, size_t struct_size);

/// Signs an access token with key, and stores it as a text with a final NUL in the capacity bytes
/// at token. TRUNK_TOKEN_TEXT_BYTES are always enough. size, which may be NULL, gets the bytes
/// needed, final NUL included. A token is as good as a password for as long as it holds.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_BUFFER_TOO_SMALL.
trunk_result trunk_token_mint(const struct trunk_token_key *key,
                              const struct trunk_token_grant *grant,
                              char *token,
                              size_t capacity,
                              size_t *size);

/// Checks an access token as an event source with these keys does, at now_s in seconds of Unix time
/// (0 = now), and stores what it says at found. Whether its client id and role fit is for the event
/// source to say.
///
/// What is not good gives TRUNK_ERR_CREDENTIAL; found->error says why, and trunk_last_error in
/// words.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_CREDENTIAL.
trunk_result trunk_token_verify(const struct trunk_token_key *keys,
                                size_t key_count,
                                const char *token,
                                uint64_t now_s,
                                struct trunk_token *found);

/// Stores at found what an access token says of itself, without any key: whether it is true, or
/// still holds, is not known. For showing it to people, never for deciding anything.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_CREDENTIAL (TRUNK_TOKEN_MALFORMED).
trunk_result trunk_token_dangerous_inspect(const char *token, struct trunk_token *found);

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_source_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_source_config_init_sized(struct trunk_source_config *config, size_t struct_size);

/// Fills struct_size bytes at stats with zeros and its size. Call it as
/// trunk_source_stats_init(&stats).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_source_stats_init_sized(struct trunk_source_stats *stats, size_t struct_size);

/// Starts an event source and stores its handle, which is valid until trunk_event_source_close. It
/// has an engine of its own, with threads: engine says how it is set up, without callbacks, and
/// source what the event source does, either of which may be NULL. Without engine->connection,
/// connections have settings that suit many clients with little traffic, not those of
/// trunk_connection_config_init. With engine->identity, the clients of an event source that was
/// killed learn at once that it was started again. Clients are let in with tokens that are signed
/// with one of key_count keys; without any, nobody is before trunk_event_source_set_keys.
/// Everything is copied.
///
/// Any thread; several event sources in one process are fine. Waits for the threads of the shards
/// to start and reads the files that engine names, does not block otherwise. Errors:
/// TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_DRIVER, TRUNK_ERR_SYSTEM, TRUNK_ERR_FILE,
/// TRUNK_ERR_SECURITY.
trunk_result trunk_event_source_start(const struct trunk_engine_config *engine,
                                      const struct trunk_source_config *source,
                                      const struct trunk_token_key *keys,
                                      size_t key_count,
                                      trunk_event_source *event_source);

/// Has an event source accept clients at an address, and stores the listener, which is valid until
/// trunk_event_source_unlisten. Can be called for several addresses. client_trust is usually NULL:
/// clients are known by their tokens. Everything that config points to is copied.
///
/// Any thread, but not inside a callback. Waits for the shards to take their sockets, for
/// microseconds; reads the files that config names. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SYSTEM (the address is taken or
/// not ours), TRUNK_ERR_FILE, TRUNK_ERR_SECURITY, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_STOPPED,
/// TRUNK_ERR_FORKED.
trunk_result trunk_event_source_listen(trunk_event_source event_source,
                                       const struct trunk_listen_config *config,
                                       trunk_listener *listener);

/// Stores the address of a listener of an event source, with the port that the system chose, as a
/// text with a final NUL in the capacity bytes at address. 64 bytes are always enough. size, which
/// may be NULL, gets the bytes needed.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_BUFFER_TOO_SMALL, TRUNK_ERR_FORKED.
trunk_result trunk_event_source_address(trunk_event_source event_source,
                                        trunk_listener listener,
                                        char *address,
                                        size_t capacity,
                                        size_t *size);

/// Has an event source accept no more clients there; those that are connected stay. The listener is
/// stale afterwards.
///
/// Any thread, but not inside a callback. Waits for the shards, for microseconds. Errors:
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_STOPPED, TRUNK_ERR_FORKED.
trunk_result trunk_event_source_unlisten(trunk_event_source event_source, trunk_listener listener);

/// Gives an event source other keys for the tokens of clients to come, in place of all it had.
/// Clients that are connected stay. To change a key, add the new one beside the old one, mint with
/// the new one, and take the old one away when its tokens have expired.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK (not every shard has them: call it again),
/// TRUNK_ERR_STOPPED, TRUNK_ERR_FORKED.
trunk_result trunk_event_source_set_keys(trunk_event_source event_source,
                                         const struct trunk_token_key *keys,
                                         size_t key_count);

/// Stores gauges and counters of an event source.
///
/// Any thread, but not inside a callback. Waits for the shards, usually for microseconds. Errors:
/// TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_IN_CALLBACK,
/// TRUNK_ERR_STOPPED, TRUNK_ERR_FORKED.
trunk_result trunk_event_source_get_stats(trunk_event_source event_source,
                                          struct trunk_source_stats *stats);

/// Stores counters of the engine of an event source.
///
/// Threads as trunk_event_source_get_stats. Errors: as trunk_event_source_get_stats.
trunk_result trunk_event_source_get_engine_stats(trunk_event_source event_source,
                                                 struct trunk_engine_stats *stats);

/// Stores counters and gauges of one shard of the engine of an event source, from 0 to one less
/// than the number of shards.
///
/// Threads as trunk_event_source_get_stats. Errors: as trunk_event_source_get_stats; and
/// TRUNK_ERR_FAILED when the shard does not answer.
trunk_result trunk_event_source_get_shard_stats(trunk_event_source event_source,
                                                uint32_t shard,
                                                struct trunk_shard_stats *stats);

/// Ends an event source: nobody is let in any more, and every client is told that it may come back
/// (to this event source when it is started again, or to another) and gets at most linger_ns to
/// take what it was sent (0 = nothing, TRUNK_LINGER_DEFAULT = the configured limit). report, which
/// may be NULL, says how that went; its connections must be NULL, as those of an event source have
/// no handles. trunk_event_source_close is still due.
///
/// Any thread. BLOCKS until every connection is gone, at most for the linger and the fin-wait
/// limits together. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT,
/// TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_STOPPED (a second shutdown), TRUNK_ERR_FORKED.
trunk_result trunk_event_source_shutdown(trunk_event_source event_source,
                                         int64_t linger_ns,
                                         struct trunk_shutdown_report *report);

/// Ends an event source, if trunk_event_source_shutdown has not, and frees what it has: clients are
/// not told and come back by themselves. Its handle and those of its listeners are stale at once.
///
/// Any thread. Waits for the threads of the shards, for milliseconds; a call with this event source
/// that another thread is inside of ends first, and waits for them instead. Errors:
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED.
trunk_result trunk_event_source_close(trunk_event_source event_source);

/// The name of a device type in small letters: a static string, never NULL, "other" for numbers
/// without a name.
///
/// Any thread, never blocks.
const char *trunk_device_type_str(trunk_device_type device_type);

/// The name of a mode in small letters: a static string, never NULL, "other" for numbers without a
/// name.
///
/// Any thread, never blocks.
const char *trunk_device_mode_str(trunk_device_mode mode);

/// Fills struct_size bytes at interfaces with the defaults. Call it as
/// trunk_interfaces_init(&interfaces).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_interfaces_init_sized(struct trunk_interfaces *interfaces, size_t struct_size);

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_discovery_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_discovery_config_init_sized(struct trunk_discovery_config *config,
                                               size_t struct_size);

/// Fills struct_size bytes at counts with zeros and its size. Call it as
/// trunk_discovery_counts_init(&counts).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_discovery_counts_init_sized(struct trunk_discovery_counts *counts,
                                               size_t struct_size);

/// Starts to look for devices and stores the discovery, which is valid until trunk_discovery_close.
/// The first question leaves with the first trunk_discovery_poll. config may be NULL: all devices
/// of all services on all interfaces. Everything that config points to is copied.
///
/// A discovery stands beside an engine, has no thread, and works only inside trunk_discovery_poll:
/// between two polls of more than heartbeat_ns all devices are lost. One thread at a time is inside
/// a discovery; while one polls, other calls with it give TRUNK_ERR_WOULD_BLOCK, except for
/// trunk_discovery_wake and trunk_discovery_close.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SYSTEM
/// (no interface can be used; trunk_last_error has the reason for each).
trunk_result trunk_discovery_start(const struct trunk_discovery_config *config,
                                   trunk_discovery *discovery);

/// Ends a discovery; the handle is stale afterwards. A thread that is inside
/// trunk_discovery_poll comes back at once, with TRUNK_ERR_INVALID_HANDLE.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED (nothing is freed).
trunk_result trunk_discovery_close(trunk_discovery discovery);

/// Asks, hears, forgets; stores at most capacity events at events and their number at count. If
/// there is nothing to tell, waits for something for at most timeout_ns (TRUNK_WAIT_NOT,
/// TRUNK_WAIT_FOREVER, or nanoseconds) and may then store none. Events for which there is no room
/// wait: the next calls give them first, without waiting, asking or hearing. With NULL for events
/// and 0 for capacity, events are dropped and only counted: for applications that look at
/// trunk_discovery_devices.
///
/// Any thread, one at a time. BLOCKS for at most timeout_ns; trunk_discovery_wake and
/// trunk_discovery_close end it. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK (another thread is inside), TRUNK_ERR_SYSTEM
/// (nothing that has to do with a single interface), TRUNK_ERR_FORKED.
trunk_result trunk_discovery_poll(trunk_discovery discovery,
                                  struct trunk_discovery_event *events,
                                  size_t capacity,
                                  int64_t timeout_ns,
                                  size_t *count);

/// Stores a file descriptor that is readable when trunk_discovery_poll has something to hear, for
/// an event loop of the application: wait until it is readable or trunk_discovery_next_timeout_ns
/// has passed, poll, and ask for the next timeout again. It belongs to the discovery: do not read
/// or close it.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_UNSUPPORTED (Windows), TRUNK_ERR_FORKED.
trunk_result trunk_discovery_fd(trunk_discovery discovery, int32_t *fd);

/// Stores how many nanoseconds may pass until trunk_discovery_poll has work even if nothing
/// arrives: 0 = now, also while events wait for which there was no room. Ask again after every
/// poll.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_next_timeout_ns(trunk_discovery discovery, int64_t *timeout_ns);

/// Ends the wait of the thread that is inside trunk_discovery_poll, or of the next one, or makes
/// the descriptor readable.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_SYSTEM, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_wake(trunk_discovery discovery);

/// Stores the devices that are there, in the order of their fingerprints: at most capacity of them
/// at devices (NULL with a capacity of 0), and at count how many there are, which may be more.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_devices(trunk_discovery discovery,
                                     struct trunk_device *devices,
                                     size_t capacity,
                                     size_t *count);

/// Looks for devices for duration_ns, from start to end in one call, and stores those that are
/// there then as trunk_discovery_devices does. config may be NULL, as with trunk_discovery_start.
///
/// Any thread. BLOCKS for duration_ns, and nothing ends it before. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SYSTEM.
trunk_result trunk_discovery_find(const struct trunk_discovery_config *config,
                                  int64_t duration_ns,
                                  struct trunk_device *devices,
                                  size_t capacity,
                                  size_t *count);

/// Stores the state of a discovery: TRUNK_PRESENCE_READY while a device is there, otherwise
/// TRUNK_PRESENCE_WAITING_FOR_RESPONSE.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_state(trunk_discovery discovery, trunk_presence_state *state);

/// Stores the state of the session that is sought at one destination: at a single host, named by
/// its address as in targets, or by multicast (NULL). One that ends is followed by another at once.
/// TRUNK_PRESENCE_NONE when nobody is asked there.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_session(trunk_discovery discovery,
                                     const char *address,
                                     trunk_presence_state *state);

/// Stores what a discovery has done with what it received.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_get_counts(trunk_discovery discovery,
                                        struct trunk_discovery_counts *counts);

/// Stores what goes wrong on single interfaces now: at most capacity problems at problems (NULL
/// with a capacity of 0), and at count how many there are, which may be more.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_problems(trunk_discovery discovery,
                                      struct trunk_presence_problem *problems,
                                      size_t capacity,
                                      size_t *count);

/// Tells a discovery that the network has changed: with the next poll it looks at the interfaces
/// and asks as at the beginning. Not needed, but faster than waiting.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WOULD_BLOCK,
/// TRUNK_ERR_FORKED.
trunk_result trunk_discovery_network_changed(trunk_discovery discovery);

/// Fills struct_size bytes at announcement with the defaults. Call it as
/// trunk_announcement_init(&announcement).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_announcement_init_sized(struct trunk_announcement *announcement,
                                           size_t struct_size);

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_announcer_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_announcer_config_init_sized(struct trunk_announcer_config *config,
                                               size_t struct_size);

/// Fills struct_size bytes at info with zeros and its size. Call it as
/// trunk_announcer_info_init(&info).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_announcer_info_init_sized(struct trunk_announcer_info *info, size_t struct_size);

/// Fills struct_size bytes at counts with zeros and its size. Call it as
/// trunk_announcer_counts_init(&counts).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_announcer_counts_init_sized(struct trunk_announcer_counts *counts,
                                               size_t struct_size);

/// Lets this device be found from now on and stores the announcer, which is valid until
/// trunk_announcer_close. Everything that config points to is copied.
///
/// An announcer stands beside an engine, has no thread, and answers only inside
/// trunk_announcer_poll. One thread at a time is inside an announcer; while one polls, other calls
/// with it give TRUNK_ERR_WOULD_BLOCK, except for trunk_announcer_wake and trunk_announcer_close.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SYSTEM
/// (no interface can be used; trunk_last_error has the reason for each).
trunk_result trunk_announcer_start(const struct trunk_announcer_config *config,
                                   trunk_announcer *announcer);

/// The same for a listener of an engine: its address and port are taken where config->listen and
/// config->announcement->port state none. The announcer does not end with the listener.
///
/// Any thread, never blocks. Errors: as trunk_announcer_start, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_FORKED.
trunk_result trunk_announcer_start_for_listener(struct trunk_engine *engine,
                                                trunk_listener listener,
                                                const struct trunk_announcer_config *config,
                                                trunk_announcer *announcer);

/// Ends an announcer and tells those who asked; the handle is stale afterwards. A
/// thread that is inside trunk_announcer_poll comes back at once, with TRUNK_ERR_INVALID_HANDLE.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED (nothing is freed).
trunk_result trunk_announcer_close(trunk_announcer announcer);

/// Answers questions for timeout_ns (TRUNK_WAIT_FOREVER, or nanoseconds); with TRUNK_WAIT_NOT,
/// those that are waiting.
///
/// Any thread, one at a time. BLOCKS for timeout_ns; trunk_announcer_wake and trunk_announcer_close
/// end it. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK
/// (another thread is inside), TRUNK_ERR_SYSTEM (nothing that has to do with a single interface),
/// TRUNK_ERR_FORKED.
trunk_result trunk_announcer_poll(trunk_announcer announcer, int64_t timeout_ns);

/// Stores a file descriptor that is readable when trunk_announcer_poll has something to hear, for
/// an event loop of the application: wait until it is readable or trunk_announcer_next_timeout_ns
/// has passed, poll with TRUNK_WAIT_NOT, and ask for the next timeout again. It belongs to the
/// announcer: do not read or close it.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_UNSUPPORTED (Windows), TRUNK_ERR_FORKED.
trunk_result trunk_announcer_fd(trunk_announcer announcer, int32_t *fd);

/// Stores how many nanoseconds may pass until trunk_announcer_poll has work even if nothing
/// arrives; 0 = now. Ask again after every poll.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_next_timeout_ns(trunk_announcer announcer, int64_t *timeout_ns);

/// Ends the wait of the thread that is inside trunk_announcer_poll, or of the next one, or makes
/// the descriptor readable.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_SYSTEM, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_wake(trunk_announcer announcer);

/// Tells something else from now on; those who ask learn of it with their next question. After
/// TRUNK_ERR_INVALID_ARGUMENT it is as before.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_announce(trunk_announcer announcer,
                                      const struct trunk_announcement *announcement);

/// Ends the announcement: those who asked are told, nothing is answered any more, and the state is
/// TRUNK_PRESENCE_ENDED for good. trunk_announcer_close is still due, and does the same by itself.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WOULD_BLOCK,
/// TRUNK_ERR_FORKED.
trunk_result trunk_announcer_withdraw(trunk_announcer announcer);

/// Stores the state of an announcer: TRUNK_PRESENCE_READY while somebody has asked within the
/// heartbeat, TRUNK_PRESENCE_ENDED once withdrawn, otherwise TRUNK_PRESENCE_WAITING_FOR_REQUEST.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_state(trunk_announcer announcer, trunk_presence_state *state);

/// Stores what an announcer tells those who ask, and how many have asked.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_get_info(trunk_announcer announcer, struct trunk_announcer_info *info);

/// Stores what an announcer has done with what it received.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_get_counts(trunk_announcer announcer,
                                        struct trunk_announcer_counts *counts);

/// Stores where questions are heard: at most capacity addresses at addresses (NULL with a capacity
/// of 0), and at count how many there are, which may be more.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_addresses(trunk_announcer announcer,
                                       struct trunk_presence_address *addresses,
                                       size_t capacity,
                                       size_t *count);

/// Stores what goes wrong on single interfaces now: at most capacity problems at problems (NULL
/// with a capacity of 0), and at count how many there are, which may be more.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
/// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_problems(trunk_announcer announcer,
                                      struct trunk_presence_problem *problems,
                                      size_t capacity,
                                      size_t *count);

/// Tells an announcer that the network has changed: with the next poll it looks at the interfaces.
/// Not needed, but faster than waiting.
///
/// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WOULD_BLOCK,
/// TRUNK_ERR_FORKED.
trunk_result trunk_announcer_network_changed(trunk_announcer announcer);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/** @{ */
/**
 * Initialisers: each fills in the size of the struct as the program knows it, and the defaults.
 * They can fail only for a NULL pointer.
 */
#define TRUNK_DEFINE_INIT(name)                                                                    \
    static inline trunk_result name##_init(name *value) {                                          \
        return name##_init_sized(value, sizeof *value);                                            \
    }

TRUNK_DEFINE_INIT(trunk_engine_config)
TRUNK_DEFINE_INIT(trunk_connection_config)
TRUNK_DEFINE_INIT(trunk_identity)
TRUNK_DEFINE_INIT(trunk_trust)
TRUNK_DEFINE_INIT(trunk_listen_config)
TRUNK_DEFINE_INIT(trunk_connect_config)
TRUNK_DEFINE_INIT(trunk_channel_options)
TRUNK_DEFINE_INIT(trunk_conn_info)
TRUNK_DEFINE_INIT(trunk_conn_stats)
TRUNK_DEFINE_INIT(trunk_engine_stats)
TRUNK_DEFINE_INIT(trunk_shutdown_report)
TRUNK_DEFINE_INIT(trunk_callbacks)
TRUNK_DEFINE_INIT(trunk_channel_info)
TRUNK_DEFINE_INIT(trunk_sec_info)
TRUNK_DEFINE_INIT(trunk_shard_stats)
TRUNK_DEFINE_INIT(trunk_group_stats)
TRUNK_DEFINE_INIT(trunk_faults)
TRUNK_DEFINE_INIT(trunk_fault_config)
TRUNK_DEFINE_INIT(trunk_association_config)
TRUNK_DEFINE_INIT(trunk_send_security)
TRUNK_DEFINE_INIT(trunk_pairing_config)
TRUNK_DEFINE_INIT(trunk_pairing_status)
TRUNK_DEFINE_INIT(trunk_credential_grant)
TRUNK_DEFINE_INIT(trunk_credential)
TRUNK_DEFINE_INIT(trunk_token_grant)
TRUNK_DEFINE_INIT(trunk_token)
TRUNK_DEFINE_INIT(trunk_source_config)
TRUNK_DEFINE_INIT(trunk_source_stats)
TRUNK_DEFINE_INIT(trunk_interfaces)
TRUNK_DEFINE_INIT(trunk_discovery_config)
TRUNK_DEFINE_INIT(trunk_discovery_counts)
TRUNK_DEFINE_INIT(trunk_announcement)
TRUNK_DEFINE_INIT(trunk_announcer_config)
TRUNK_DEFINE_INIT(trunk_announcer_info)
TRUNK_DEFINE_INIT(trunk_announcer_counts)

#undef TRUNK_DEFINE_INIT
/** @} */

#endif  /* TRUNKLINE_H */
