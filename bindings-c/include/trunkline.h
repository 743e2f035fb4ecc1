/*
 * Trunkline: encrypted, multiplexed connections over UDP.
 *
 * Made from the Rust sources by cbindgen; do not edit.
 * Licence: MIT OR Apache-2.0.
 *
 * THE LIFE OF A CONNECTION
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
 *             case TRUNK_ITEM_DATA: ... items[i].data, items[i].size ...
 *             }
 *         }
 *         trunk_message_release(items, count);
 *     }
 *
 * THREADS
 *
 * An engine has its own threads, one for each shard, and every function may be called by any
 * thread of the application. Or it has none (trunk_engine_config.threadless): then nothing happens
 * but inside trunk_engine_poll, which belongs to the thread that first calls it or another function
 * that says "the thread that polls first"; everything else may still be called by any thread. The
 * application sleeps in trunk_engine_poll, or in its own event loop on trunk_engine_fd and
 * trunk_engine_next_timeout_ns.
 *
 * Only trunk_engine_poll, trunk_recv_many, trunk_discovery_poll, trunk_discovery_find and
 * trunk_announcer_poll (for as long as the caller says) and trunk_shutdown block. A few others wait
 * for a shard's answer, usually for microseconds, and say so. All queues are bounded: a full one is
 * TRUNK_ERR_WOULD_BLOCK, and nothing was taken.
 *
 * The only callback is the log's; see trunk_log_fn.
 *
 * ERRORS
 *
 * Functions return 0 or a negative trunk_result, and store what they give at their last arguments;
 * on an error nothing else is stored unless stated. trunk_result_str has words for the code,
 * trunk_last_error the detail. Arguments are checked: NULL, ranges, sizes, UTF-8. No function
 * aborts the process, and no panic leaves the library. "Errors" below are those that can be
 * expected; any function can also give TRUNK_ERR_INTERNAL, and those with an engine
 * TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE (the engine was destroyed) and TRUNK_ERR_FORKED.
 *
 * HANDLES
 *
 * Connections, channels, listeners and poll groups are 64-bit values; 0 is none. A handle that is
 * stale, belongs to another engine or is of another kind gives TRUNK_ERR_INVALID_HANDLE, never
 * something that belongs to somebody else. Only the engine itself is a pointer. Discoveries and
 * announcers are handles too, and belong to no engine.
 *
 * DISCOVERY
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
 * does, when it is pinned to the fingerprint that was announced.
 *
 * FUNCTIONS, in the order of this header
 *
 *     version, results    trunk_version, trunk_result_str, trunk_last_error
 *     engine              trunk_engine_new, _driver, _set_deny, _network_changed, _get_stats,
 *                         trunk_shutdown, trunk_engine_destroy
 *     without threads     trunk_engine_poll, _fd, _next_timeout_ns, _wake
 *     security            trunk_identity_generate, trunk_identity_fingerprint,
 *                         trunk_fingerprint_parse, trunk_fingerprint_format
 *     listening           trunk_listen, trunk_listener_address, trunk_listener_close
 *     connections         trunk_connect, trunk_accept, trunk_reject, trunk_close,
 *                         trunk_conn_status, _check, _get_info, _get_stats, _set_user, _user,
 *                         _set_group
 *     channels            trunk_channel_open, _accept, _decline, _close, _reset, _stop, _conn,
 *                         _set_user, _user
 *     sending             trunk_send, trunk_send_receipt, trunk_send_many, trunk_buf_alloc,
 *                         trunk_send_buf, trunk_buf_free, trunk_send_item, trunk_flush
 *     receiving           trunk_group_new, trunk_group_wake, trunk_recv_many,
 *                         trunk_message_release
 *     finding devices     trunk_discovery_start, _close, _poll, _fd, _next_timeout_ns, _wake,
 *                         _devices, _find, _state, _session, _get_counts, _problems,
 *                         _network_changed, trunk_device_type_str, trunk_device_mode_str
 *     being found         trunk_announcer_start, _start_for_listener, _close, _poll, _fd,
 *                         _next_timeout_ns, _wake, _announce, _withdraw, _state, _get_info,
 *                         _get_counts, _addresses, _problems, _network_changed
 *
 * STRUCTS
 *
 * A struct that may grow starts with struct_size. Its trunk_..._init function fills in size and
 * defaults; call it first, always. A program that was built with an older header keeps working with
 * a newer library: the fields that it does not know have their defaults.
 *
 * MEMORY
 *
 * What the application passes in is copied before the function returns. What it gets is either
 * stored in its own memory, or belongs to an item (until trunk_message_release) or a trunk_buf
 * (until trunk_send_buf or trunk_buf_free).
 *
 * FORK
 *
 * An engine belongs to the process that made it. In a child made by fork(), every call with it
 * gives TRUNK_ERR_FORKED and leaves it alone; the child may make a new engine. So it is with
 * discoveries and announcers.
 */

#ifndef TRUNKLINE_H
#define TRUNKLINE_H

#include <stddef.h>
#include <stdint.h>

// Version of this header: incompatible changes.
#define TRUNK_VERSION_MAJOR 0

// Version of this header: additions.
#define TRUNK_VERSION_MINOR 1

// Version of this header: corrections.
#define TRUNK_VERSION_PATCH 0

// Bytes of a fingerprint.
#define TRUNK_FINGERPRINT_BYTES 32

// Bytes of a fingerprint as text, final NUL included.
#define TRUNK_FINGERPRINT_TEXT_BYTES 65

// For trunk_close and trunk_shutdown: linger as long as the configured linger_timeout_ns.
#define TRUNK_LINGER_DEFAULT -1

// For trunk_close and trunk_shutdown: do not linger, drop what is not delivered.
#define TRUNK_LINGER_NONE 0

// For trunk_recv_many and trunk_engine_poll: wait as long as it takes.
#define TRUNK_WAIT_FOREVER -1

// For trunk_recv_many and trunk_engine_poll: do not wait.
#define TRUNK_WAIT_NOT 0

// UDP port on which announcers hear questions. They come by multicast to 239.255.84.75 and
// ff12::d452:4b50, or to the announcer's own addresses.
#define TRUNK_PRESENCE_PORT 7477

// Bytes of the name of a device or a service, final NUL included.
#define TRUNK_DEVICE_NAME_BYTES 64

// Addresses of one device.
#define TRUNK_DEVICE_PATHS 8

// Devices that one discovery knows at once; others are counted and not shown.
#define TRUNK_MAX_DEVICES 1024

// An engine. Made by trunk_engine_new, and named by this pointer until trunk_engine_destroy; a
// call after that gives TRUNK_ERR_INVALID_HANDLE.
typedef struct trunk_engine trunk_engine;

// What a call answers: 0 or a negative error.
typedef int32_t trunk_result;

// What moves the packets.
typedef uint32_t trunk_driver;

// A certificate chain with its private key, as PEM: in files, or in memory. The own certificate
// comes first. Ed25519 and ECDSA P-256 keys are recommended.
//
// Give file or pem, not both. Key and certificates may be in one text, or the key in a second one.
typedef struct trunk_identity {
    // Size of this struct; set by trunk_identity_init.
    uint32_t struct_size;
    // Must be 0.
    uint32_t reserved;
    // PEM file with the certificates, and the key unless key_file is given. NULL.
    const char *file;
    // PEM file with the key. NULL.
    const char *key_file;
    // PEM text with the certificates, and the key unless key_pem is given. NULL.
    const char *pem;
    // Bytes of it; a final NUL does not count.
    size_t pem_size;
    // PEM text with the key. NULL.
    const char *key_pem;
    // Bytes of it.
    size_t key_pem_size;
} trunk_identity;

// Settings of connections. trunk_connection_config_init fills in the defaults, which are stated
// with each field. Times are nanoseconds, sizes bytes.
typedef struct trunk_connection_config {
    // Size of this struct; set by trunk_connection_config_init.
    uint32_t struct_size;
    // Whether to use ECN marks. 1.
    uint32_t ecn;
    // Limit of the handshake, and of finding a route after it. 10 s.
    uint64_t initial_timeout_ns;
    // No packet from the peer for this long ends the connection. 10 s.
    uint64_t connected_timeout_ns;
    // A ping goes out after this long without one that asks for an answer; at most half of
    // connected_timeout_ns. 3 s.
    uint64_t keep_alive_ns;
    // Limit of trunk_close with TRUNK_LINGER_DEFAULT. 30 s.
    uint64_t linger_timeout_ns;
    // How long a closed connection answers late packets. 5 s.
    uint64_t fin_wait_timeout_ns;
    // First retransmission of a handshake message; doubles. 250 ms.
    uint64_t handshake_retransmit_ns;
    // Longest delay of an acknowledgement. 25 ms.
    uint64_t max_ack_delay_ns;
    // Time for the answer to trunk_conn_check. 3 s.
    uint64_t check_timeout_ns;
    // How long an opened channel waits for its answer. 10 s.
    uint64_t channel_timeout_ns;
    // How long small writes wait for more while data is on its way, unless a channel has no_delay.
    // 5 ms; 0 = never.
    uint64_t coalesce_ns;
    // Fixed sending rate in bytes a second, for links whose rate is known. 0 = congestion control
    // (CUBIC).
    uint64_t fixed_rate;
    // UDP payload that packets start with; at least 1200. 1200.
    uint32_t initial_packet;
    // UDP payload up to which the size is searched. 1452; equal to initial_packet = no search.
    uint32_t max_packet;
    // Channels that the peer may have open at once. 65534.
    uint32_t max_channels;
    // Largest message sent and accepted; at most 16 MiB. 16 MiB.
    uint32_t max_message;
    // Bytes that a channel's peer may have on its way to us at first. 1 MiB.
    uint64_t channel_window;
    // The same for a busy channel. 16 MiB.
    uint64_t channel_window_max;
    // The same for all channels of the connection together. 64 MiB.
    uint64_t receive_budget;
    // Bytes that the peer may send on channels that are not answered yet. 256 KiB.
    uint64_t early_data;
    // Bytes of one channel that may wait or be unacknowledged before sends give
    // TRUNK_ERR_WOULD_BLOCK. 32 MiB.
    uint64_t channel_send_buffer;
    // The same for the connection. 128 MiB.
    uint64_t send_buffer;
    // Bytes of all channels that may wait for their first transmission before sends give
    // TRUNK_ERR_WOULD_BLOCK, once the connection stands. A channel that has nothing waiting always
    // takes a message, and one with less than its even share, at least 4 KiB. 512 KiB.
    uint64_t unsent_limit;
    // Bytes of unreliable messages of one channel that wait to be sent; the oldest goes first.
    // 1 MiB.
    uint64_t datagram_send_buffer;
} trunk_connection_config;

// When a peer must prove its address before the host remembers anything of it.
typedef uint32_t trunk_retry;

// How important a line of the log is; each level includes those before it.
typedef uint32_t trunk_log_level;

// Takes one line of an engine's log. target names the part of the engine, text the rest; both end
// with a NUL and are valid during the call.
//
// Called on the engine's threads, and on threads of the application inside calls of this engine,
// by several at once. It must not block for long and must not throw C++ exceptions or longjmp. It
// may call anything but trunk_shutdown and trunk_engine_destroy; what such calls log is dropped.
typedef void (*trunk_log_fn)(void *user, trunk_log_level level, const char *target, const char *text);

// Settings of an engine. trunk_engine_config_init fills in the defaults, which are stated with
// each field. Everything that it points to is copied by trunk_engine_new.
typedef struct trunk_engine_config {
    // Size of this struct; set by trunk_engine_config_init.
    uint32_t struct_size;
    // Shards: each has its own thread, sockets and connections, and shares nothing. At most 256. 1.
    uint32_t shards;
    // Not 0: no threads at all. One shard, which the application drives with trunk_engine_poll. 0.
    uint32_t threadless;
    // What moves the packets. TRUNK_DRIVER_AUTO.
    trunk_driver driver;
    // Processors for the shards' threads, the first for the first shard. NULL = anywhere.
    const uint32_t *cores;
    // Number of cores: 0, or at least shards.
    size_t core_count;
    // Who we are when we connect, unless the connect says otherwise. NULL = nobody.
    const struct trunk_identity *identity;
    // Settings of connections, unless a listen or connect says otherwise. NULL = defaults.
    const struct trunk_connection_config *connection;
    // Receive buffers of a shard, 64 KiB each. 256.
    uint32_t rx_buffers;
    // Transmit buffers of a shard, 64 KiB each. 64.
    uint32_t tx_buffers;
    // Buffers of trunk_buf_alloc. 64.
    uint32_t send_buffers;
    // Bytes of each of them. 64 KiB.
    uint32_t send_buffer_bytes;
    // Wanted size of the sockets' buffers. 4 MiB; 0 = the system's default.
    uint64_t socket_buffer_bytes;
    // Whether the system may cut large sends into packets. 1.
    uint32_t gso;
    // Whether the system may merge received packets. 1.
    uint32_t gro;
    // Calls that wait for one shard at once. 4096.
    uint32_t mailbox;
    // Connections of one shard at once. 65536.
    uint32_t max_connections;
    // Handshakes of one shard under way at once, as host. 4096.
    uint32_t max_handshakes;
    // Connection requests a second from one source that one shard answers. 200; 0 = any number.
    uint32_t handshakes_per_source_per_s;
    // When peers must prove their address first. TRUNK_RETRY_WHEN_LOADED.
    trunk_retry retry;
    // See TRUNK_RETRY_WHEN_LOADED. 512.
    uint32_t retry_handshakes;
    // Addresses and networks whose connection requests are dropped, such as "192.0.2.0/24". NULL.
    const char *const *deny;
    // Number of them.
    size_t deny_count;
    // TLS secrets are appended to this file, for protocol analysers: whoever can read it can read
    // every connection. NULL = none.
    const char *key_log_file;
    // How long a shard spins after the last work before it sleeps; 1 = not at all. 0: for at most
    // 20 µs, while at least four of five waits are shorter. 0.
    uint64_t busy_poll_ns;
    // Bytes sent on one channel that wait for their shard before sends give
    // TRUNK_ERR_WOULD_BLOCK. 1 MiB.
    uint64_t queue_channel_bytes;
    // The same for one shard. 256 MiB.
    uint64_t queue_shard_bytes;
    // Received bytes that wait in one poll group before unreliable messages are dropped. 16 MiB.
    uint64_t queue_group_bytes;
    // Server number, written into connection ids for load balancers; at most 255. 0.
    uint32_t server;
    // What log gets. TRUNK_LOG_WARN.
    trunk_log_level log_level;
    // Takes the engine's log. NULL = no log.
    trunk_log_fn log;
    // First argument of log.
    void *log_user;
} trunk_engine_config;

// A connection. 0 is none.
typedef uint64_t trunk_conn;

// Why a connection ended: 1000 to 1999 ordinary and 2000 to 2999 exceptional codes of the
// application, 3000 local, 4000 remote, 5000 other.
typedef uint32_t trunk_reason;

// What became of one connection. Of fixed size: it does not grow.
typedef struct trunk_conn_report {
    // The connection; its handle is stale.
    trunk_conn conn;
    // Its user data.
    void *conn_user;
    // Bytes of reliable channels that were handed over and that the peer acknowledged.
    uint64_t acknowledged_bytes;
    // Bytes of reliable channels that were handed over and not acknowledged.
    uint64_t undelivered_bytes;
    // Channels that still had undelivered data.
    uint32_t undelivered_channels;
    // The final reason.
    trunk_reason reason;
    // Whether the peer knows that the connection has ended.
    uint32_t peer_knows;
    // 0.
    uint32_t reserved[5];
} trunk_conn_report;

// How the connections of an engine ended. trunk_shutdown_report_init prepares it; the caller may
// then set connections and connection_capacity.
typedef struct trunk_shutdown_report {
    // Size of this struct; set by trunk_shutdown_report_init.
    uint32_t struct_size;
    // Whether every reliable byte of every connection was acknowledged.
    uint32_t all_delivered;
    // Connections that there were when the shutdown began.
    uint64_t connection_count;
    // Sum over all of them.
    uint64_t acknowledged_bytes;
    // Sum over all of them.
    uint64_t undelivered_bytes;
    // Shards that had failed, or did not answer.
    uint32_t failed_shards;
    // Must be 0.
    uint32_t reserved;
    // Caller's array for what became of each connection, or NULL.
    struct trunk_conn_report *connections;
    // Its places; connections beyond it are only counted.
    size_t connection_capacity;
} trunk_shutdown_report;

// What makes a peer's certificate acceptable.
typedef uint32_t trunk_trust_kind;

// Whom we believe.
typedef struct trunk_trust {
    // Size of this struct; set by trunk_trust_init.
    uint32_t struct_size;
    // How a peer is judged. TRUNK_TRUST_NONE.
    trunk_trust_kind kind;
    // TRUNK_TRUST_PINS: fingerprints, TRUNK_FINGERPRINT_BYTES each, back to back.
    const uint8_t *pins;
    // Number of fingerprints.
    size_t pin_count;
    // TRUNK_TRUST_CA: PEM file with CA certificates. NULL.
    const char *ca_file;
    // TRUNK_TRUST_CA: PEM text with CA certificates. NULL.
    const char *ca_pem;
    // Bytes of it.
    size_t ca_pem_size;
    // Hosts: a client may also show no certificate; if it shows one, it must be acceptable. 0.
    uint32_t optional;
    // Must be 0.
    uint32_t reserved;
} trunk_trust;

// How to listen. trunk_listen_config_init fills in the defaults.
typedef struct trunk_listen_config {
    // Size of this struct; set by trunk_listen_config_init.
    uint32_t struct_size;
    // Must be 0.
    uint32_t reserved;
    // Address and UDP port, such as "127.0.0.1:7470" or "[::]:7470"; port 0 lets the system
    // choose. Required.
    const char *address;
    // Who we are. Required.
    const struct trunk_identity *identity;
    // What clients must show. NULL = they are not asked.
    const struct trunk_trust *client_trust;
    // Settings of its connections. NULL = the engine's.
    const struct trunk_connection_config *connection;
} trunk_listen_config;

// Whether a connect may share a connection that exists.
typedef uint32_t trunk_reuse;

// A poll group. 0 is the engine's own group, which every connection is in at first.
typedef uint64_t trunk_group;

// How to connect. trunk_connect_config_init fills in the defaults.
typedef struct trunk_connect_config {
    // Size of this struct; set by trunk_connect_config_init.
    uint32_t struct_size;
    // Whether an existing connection will do. TRUNK_REUSE.
    trunk_reuse reuse;
    // Addresses of the one peer with their ports, such as "192.0.2.7:7470"; at most 16. The same
    // request goes to all, the first valid answer decides. Names are not resolved. Required.
    const char *const *addresses;
    // Number of addresses.
    size_t address_count;
    // Name of the host: checked with TRUNK_TRUST_CA, told to the host always. NULL = "trunkline".
    const char *server_name;
    // What makes the host acceptable. Required.
    const struct trunk_trust *trust;
    // Who we are. NULL = the engine's identity.
    const struct trunk_identity *identity;
    // Shown to the host's application after the handshake, sealed; at most 8 KiB. NULL = none.
    const void *credential;
    // Bytes of it.
    size_t credential_size;
    // Settings of the connection. NULL = the engine's.
    const struct trunk_connection_config *connection;
    // Poll group for what happens to it. 0 = the engine's own.
    trunk_group group;
    // User data of the connection; not changed when an existing one is shared. NULL.
    void *user;
} trunk_connect_config;

// An address that is listened at. 0 is none.
typedef uint64_t trunk_listener;

// What a connection is to its user.
typedef int32_t trunk_status;

// Which side of a connection we are.
typedef uint32_t trunk_role;

// What a role waits for while a connection is made, or how the attempt ended. It stays
// TRUNK_HANDSHAKE_READY when a connection that was made ends.
typedef uint32_t trunk_handshake;

// What is known of a connection. New fields come at the end.
typedef struct trunk_conn_info {
    // Size of this struct; set by trunk_conn_info_init.
    uint32_t struct_size;
    // The status.
    trunk_status status;
    // Our side.
    trunk_role role;
    // Whether the peer has shown a certificate, and peer is valid.
    uint32_t has_peer;
    // The peer's fingerprint.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    // The peer's address and port.
    char remote[64];
    // Our address towards the peer, without a port; empty when the system does not tell.
    char local[64];
    // TLS cipher suite; empty before the handshake.
    char suite[48];
    // Whether the TLS session was resumed.
    uint32_t resumed;
    // Why the connection ended; TRUNK_REASON_NONE while it has not.
    trunk_reason reason;
    // The reason in words.
    char reason_text[128];
    // What our role waits for while the connection is made, or how the attempt ended.
    trunk_handshake handshake;
    // Whether the peer closed and said that it had thrown away data which it had received.
    uint32_t peer_discarded;
} trunk_conn_info;

// Counters and gauges of a connection. New fields come at the end.
typedef struct trunk_conn_stats {
    // Size of this struct; set by trunk_conn_stats_init.
    uint32_t struct_size;
    // Channels open.
    uint32_t channels;
    // Smoothed round trip.
    uint64_t rtt_ns;
    // Smallest round trip.
    uint64_t rtt_min_ns;
    // Packets sent.
    uint64_t packets_sent;
    // Packets received and opened.
    uint64_t packets_received;
    // Packets declared lost.
    uint64_t packets_lost;
    // Packets received that could not be opened, or came twice.
    uint64_t packets_rejected;
    // Reliable frames sent again.
    uint64_t retransmits;
    // UDP payload bytes sent.
    uint64_t bytes_sent;
    // UDP payload bytes received.
    uint64_t bytes_received;
    // Congestion window in bytes.
    uint64_t window;
    // Bytes in flight.
    uint64_t in_flight;
    // Reliable bytes handed over and not acknowledged.
    uint64_t unacked_bytes;
    // UDP payload bytes of a full packet.
    uint64_t packet_size;
    // Unreliable messages dropped before they were sent.
    uint64_t datagrams_dropped;
} trunk_conn_stats;

// Counters of an engine, over all its shards. New fields come at the end.
typedef struct trunk_engine_stats {
    // Size of this struct; set by trunk_engine_stats_init.
    uint32_t struct_size;
    // Shards that answered.
    uint32_t shards;
    // Live connections.
    uint64_t connections;
    // Connections that were made or accepted.
    uint64_t connections_opened;
    // Connections that are gone.
    uint64_t connections_closed;
    // UDP datagrams received.
    uint64_t datagrams_received;
    // UDP datagrams sent.
    uint64_t datagrams_sent;
    // Bytes of them received.
    uint64_t bytes_received;
    // Bytes of them sent.
    uint64_t bytes_sent;
    // Connection requests dropped because their source is denied.
    uint64_t requests_denied;
    // Connection requests dropped because their source asked too often.
    uint64_t requests_limited;
} trunk_engine_stats;

// What a channel carries.
typedef uint32_t trunk_kind;

// How a channel is opened or accepted. Each side chooses its own priority, weight and window.
// trunk_channel_options_init fills in the defaults.
typedef struct trunk_channel_options {
    // Size of this struct; set by trunk_channel_options_init.
    uint32_t struct_size;
    // What it carries; the opener's counts. TRUNK_KIND_BYTES.
    trunk_kind kind;
    // Strict priority class of what we send, 0 first, at most 7. 4.
    uint32_t priority;
    // Share within the class, 1 to 255. 16.
    uint32_t weight;
    // Bytes that the peer may have on their way to us at first. 0 = the connection's
    // channel_window.
    uint64_t window;
    // Not 0: small writes never wait for more. 0.
    uint32_t no_delay;
    // Opener. Not 0: data waits until the peer has answered. 0.
    uint32_t wait_for_answer;
    // Datagrams. Not 0: a message that arrives after a newer one is dropped. 0.
    uint32_t latest;
    // Datagrams: messages that could not be sent within this many milliseconds are dropped. 0 =
    // never.
    uint32_t expires_ms;
} trunk_channel_options;

// A channel of a connection. 0 is none.
typedef uint64_t trunk_channel;

// One message of trunk_send_many. Of fixed size: it does not grow.
typedef struct trunk_outgoing {
    // Where it goes.
    trunk_channel channel;
    // The bytes.
    const void *data;
    // Number of bytes.
    size_t size;
} trunk_outgoing;

// A buffer of the engine that the caller writes into. Of fixed size: it does not grow. A struct
// assignment moves the buffer: use one of the two.
typedef struct trunk_buf {
    // Where to write; NULL when the struct has no buffer.
    uint8_t *data;
    // Bytes that fit, at least as many as were asked for.
    size_t capacity;
    // The engine's.
    void *owner;
    // 0.
    uint64_t reserved;
} trunk_buf;

// What an item is.
typedef uint32_t trunk_item_type;

// Of TRUNK_ITEM_STATUS. New fields come at the end.
typedef struct trunk_status_change {
    // Size of this struct as the library knows it.
    uint32_t struct_size;
    // The status before.
    trunk_status old_status;
    // The status now.
    trunk_status new_status;
    // Why, when the new status is an end; otherwise TRUNK_REASON_NONE.
    trunk_reason reason;
    // The reason in words; never NULL.
    const char *reason_text;
} trunk_status_change;

// Of TRUNK_ITEM_INCOMING. New fields come at the end.
typedef struct trunk_incoming {
    // Size of this struct as the library knows it.
    uint32_t struct_size;
    // Whether the peer has shown a certificate, and peer is valid.
    uint32_t has_peer;
    // The peer's fingerprint.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    // The peer's address and port; never NULL.
    const char *remote;
    // The name it asked for, or NULL.
    const char *server_name;
    // The credential that it presented.
    const uint8_t *credential;
    // Bytes of it.
    size_t credential_size;
} trunk_incoming;

// Of TRUNK_ITEM_REQUEST. New fields come at the end.
typedef struct trunk_request {
    // Size of this struct as the library knows it.
    uint32_t struct_size;
    // Its id on the wire.
    uint32_t wire_id;
    // The name that the peer chose, UTF-8, with a final NUL; never NULL.
    const char *name;
    // Bytes of it without the final NUL. It may hold other NULs.
    size_t name_size;
    // The peer's options: its kind, and what concerns the peer's sending.
    struct trunk_channel_options options;
} trunk_request;

// How a channel ended.
typedef uint32_t trunk_end;

// Of TRUNK_ITEM_CLOSED. New fields come at the end.
typedef struct trunk_closed {
    // Size of this struct as the library knows it.
    uint32_t struct_size;
    // How it ended.
    trunk_end end;
    // The code given with it.
    uint32_t code;
    // Whether the peer started it.
    uint32_t by_peer;
    // TRUNK_END_CONNECTION: why.
    trunk_reason reason;
    // 0.
    uint32_t reserved;
    // Words for people; never NULL.
    const char *text;
} trunk_closed;

// Of TRUNK_ITEM_DEAD: what became of the reliable data of a connection. New fields come at the
// end.
typedef struct trunk_dead {
    // Size of this struct as the library knows it.
    uint32_t struct_size;
    // Whether the peer knows that the connection has ended.
    uint32_t peer_knows;
    // Bytes handed over that the peer acknowledged.
    uint64_t acknowledged_bytes;
    // Bytes handed over and not acknowledged.
    uint64_t undelivered_bytes;
    // Channels that still had undelivered data.
    uint32_t undelivered_channels;
    // The final reason.
    trunk_reason reason;
    // The reason in words; never NULL.
    const char *reason_text;
    // Whether the peer said that it had thrown away data which it had received.
    uint32_t peer_discarded;
    // 0.
    uint32_t reserved;
} trunk_dead;

// What an item has beyond its own fields; type says which member, if any, is valid.
typedef union trunk_item_detail {
    // TRUNK_ITEM_STATUS.
    const struct trunk_status_change *status;
    // TRUNK_ITEM_INCOMING.
    const struct trunk_incoming *incoming;
    // TRUNK_ITEM_REQUEST.
    const struct trunk_request *request;
    // TRUNK_ITEM_CLOSED.
    const struct trunk_closed *closed;
    // TRUNK_ITEM_DEAD.
    const struct trunk_dead *dead;
    // TRUNK_ITEM_SEND_FAILED, TRUNK_ITEM_SHARD_FAILED.
    const char *text;
} trunk_item_detail;

// One message or event. Everything it points to belongs to the engine and stays valid until the
// item is given to trunk_message_release, which every item wants, on any thread. A struct
// assignment moves the item: release one of the two. Of fixed size: it does not grow.
typedef struct trunk_item {
    // What it is.
    trunk_item_type type;
    // TRUNK_ITEM_DATA, TRUNK_ITEM_REQUEST: what the channel carries.
    trunk_kind kind;
    // The connection that it is about.
    trunk_conn conn;
    // The channel that it is about; 0 when it is about the connection.
    trunk_channel channel;
    // User data of the connection, or NULL.
    void *conn_user;
    // User data of the channel, or NULL.
    void *channel_user;
    // TRUNK_ITEM_DATA: the bytes.
    const uint8_t *data;
    // TRUNK_ITEM_DATA: number of bytes; a message may have none.
    size_t size;
    // TRUNK_ITEM_RECEIPT: the token given with the message.
    uint64_t token;
    // TRUNK_ITEM_RESET, TRUNK_ITEM_STOPPED: the peer's code.
    uint32_t code;
    // 0.
    uint32_t reserved;
    // More about it, as type says.
    union trunk_item_detail detail;
    // The engine's.
    uint64_t owner[6];
} trunk_item;

// What kind of device it is: one of these, or another number up to 255.
typedef uint32_t trunk_device_type;

// Whom a device lets in: one of these, or another number up to 255.
typedef uint32_t trunk_device_mode;

// Which network interfaces take part. trunk_interfaces_init fills in the defaults, which are
// stated with each field.
typedef struct trunk_interfaces {
    // Size of this struct; set by trunk_interfaces_init.
    uint32_t struct_size;
    // The loopback interface too, so that programs of this machine find each other without any
    // network. Not looked at for interfaces that are named. 1.
    uint32_t loopback;
    // Names of interfaces, such as "eth0". NULL = all that are up.
    const char *const *names;
    // Number of them.
    size_t name_count;
    // Over IPv4. 1.
    uint32_t ipv4;
    // Over IPv6. 1.
    uint32_t ipv6;
    // How often interfaces are looked for that have come or gone; at least 100 ms. 5 s.
    uint64_t rescan_ns;
} trunk_interfaces;

// Whom to look for, and where. trunk_discovery_config_init fills in the defaults, which are stated
// with each field. Times are nanoseconds.
typedef struct trunk_discovery_config {
    // Size of this struct; set by trunk_discovery_config_init.
    uint32_t struct_size;
    // Whether all devices of the local network are asked, by multicast. 1.
    uint32_t group;
    // Find only devices of this service. NULL = of all.
    const char *service;
    // Find only the device that has this id, 1 to 64 bytes, and have it prove that. NULL.
    const void *id;
    // Bytes of it.
    size_t id_size;
    // Fingerprints of devices to overlook, such as our own, TRUNK_FINGERPRINT_BYTES each, back to
    // back; at most 16. NULL.
    const uint8_t *ignore;
    // Number of them.
    size_t ignore_count;
    // Single hosts to ask too, whether or not multicast reaches them: addresses with their ports,
    // such as "192.0.2.7:7477"; at most 64. NULL.
    const char *const *targets;
    // Number of them.
    size_t target_count;
    // On which interfaces devices are asked by multicast. NULL = the defaults.
    const struct trunk_interfaces *interfaces;
    // Between two questions once the first ones are asked; 500 ms to 10 min. 10 s.
    uint64_t interval_ns;
    // A device from which nothing is heard for so long is lost; at least twice interval_ns and a
    // second, at most 2 h. 35 s.
    uint64_t heartbeat_ns;
    // UDP port of those who are asked by multicast. TRUNK_PRESENCE_PORT.
    uint32_t port;
    // Must be 0.
    uint32_t reserved;
} trunk_discovery_config;

// What a discovery has done with what it received. New fields come at the end.
typedef struct trunk_discovery_counts {
    // Size of this struct; set by trunk_discovery_counts_init.
    uint32_t struct_size;
    // 0.
    uint32_t reserved;
    // Questions asked.
    uint64_t asked;
    // Valid answers.
    uint64_t answers;
    // No presence message, or a malformed one.
    uint64_t malformed;
    // Questions of others.
    uint64_t not_answers;
    // Answers to nothing that was asked there, or that was asked too long ago.
    uint64_t unasked;
    // Answers of another service, of a device that does not know the id, or of one to overlook.
    uint64_t unwanted;
    // Answers for which there was no room.
    uint64_t full;
} trunk_discovery_counts;

// A discovery. 0 is none. Discoveries and announcers belong to no engine.
typedef uint64_t trunk_discovery;

// What a discovery has to tell.
typedef uint32_t trunk_discovery_event_type;

// Which links a device listens on, all at one port number: one of these, or both, added up.
typedef uint32_t trunk_device_links;

// What a session is between one who asks and one who answers.
typedef uint32_t trunk_presence_state;

// A way to a device.
typedef struct trunk_device_path {
    // Where it listens, with the port, as trunk_connect takes it.
    char address[64];
    // Between question and answer. A device can make it shorter by lying.
    uint64_t rtt_ns;
    // For how long nothing has been heard from there.
    uint64_t heard_ns;
} trunk_device_path;

// A device as it describes itself: believe nothing of it that no connection has proved. Connect to
// the addresses of its paths, all of them at once, and pin peer (TRUNK_TRUST_PINS). One device is
// told from another by peer, port and service. Of fixed size: it does not grow.
typedef struct trunk_device {
    // Its fingerprint.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    // For people: UTF-8 without control characters.
    char name[TRUNK_DEVICE_NAME_BYTES];
    // Which application it is.
    char service[TRUNK_DEVICE_NAME_BYTES];
    // What kind of device it is.
    trunk_device_type device_type;
    // Whom it lets in.
    trunk_device_mode mode;
    // Which links it listens on.
    trunk_device_links links;
    // The port that it listens on.
    uint32_t port;
    // Version of the connection protocol that it speaks.
    uint32_t protocol;
    // Whether it has shown that it knows the id that was asked for.
    uint32_t id_proven;
    // TRUNK_PRESENCE_READY, or TRUNK_PRESENCE_ENDED for one that is lost.
    trunk_presence_state state;
    // Paths that are valid, 1 to TRUNK_DEVICE_PATHS.
    uint32_t path_count;
    // For how long it has been known.
    uint64_t found_ns;
    // For how long nothing has been heard from it.
    uint64_t heard_ns;
    // It is lost after so long unless something is heard; 0 for one that is lost.
    uint64_t ttl_ns;
    // Where it listens, the shortest way first.
    struct trunk_device_path paths[TRUNK_DEVICE_PATHS];
    // 0.
    uint64_t reserved[8];
} trunk_device;

// One event of a discovery. It points to nothing and belongs to the caller. Of fixed size: it does
// not grow.
typedef struct trunk_discovery_event {
    // What it is.
    trunk_discovery_event_type type;
    // 0.
    uint32_t reserved;
    // TRUNK_DISCOVERY_SILENT: the single host that was asked; empty for all by multicast.
    char address[64];
    // The device; all 0 with TRUNK_DISCOVERY_SILENT.
    struct trunk_device device;
} trunk_discovery_event;

// What is wrong on an interface.
typedef uint32_t trunk_problem_kind;

// Something that goes wrong on one interface. Nothing else suffers from it, and it is tried again
// and again. Of fixed size: it does not grow. Texts are cut to their fields and end with a NUL.
typedef struct trunk_presence_problem {
    // What is wrong.
    trunk_problem_kind kind;
    // 0.
    uint32_t reserved;
    // The interface's name.
    char interface_name[64];
    // Its address that was to be used, without a port.
    char address[64];
    // What was being done.
    char doing[128];
    // The system's words for what is wrong.
    char error[128];
} trunk_presence_problem;

// What is told to those who ask. trunk_announcement_init fills in the defaults, which are stated
// with each field.
typedef struct trunk_announcement {
    // Size of this struct; set by trunk_announcement_init.
    uint32_t struct_size;
    // What kind of device it is. TRUNK_DEVICE_TYPE_UNSPECIFIED.
    trunk_device_type device_type;
    // For people: 1 to 63 bytes of UTF-8 without control characters. Required.
    const char *name;
    // Which application it is: 1 to 63 letters, digits, ".", "-" or "_". Required.
    const char *service;
    // An id of 1 to 64 bytes that the application chooses and hands out, such as a random number of
    // 128 bits: lets those who know it find this device among all others. It is never sent. NULL.
    const void *id;
    // Bytes of it.
    size_t id_size;
    // Our fingerprint, which connections will prove; see trunk_identity_fingerprint. Required.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    // Whom it lets in. TRUNK_DEVICE_MODE_OPEN.
    trunk_device_mode mode;
    // Which links it listens on. TRUNK_DEVICE_LINK_UDP.
    trunk_device_links links;
    // The port that it listens on. Required, but see trunk_announcer_start_for_listener.
    uint32_t port;
    // Must be 0.
    uint32_t reserved;
} trunk_announcement;

// Which questions are answered.
typedef uint32_t trunk_answers;

// From how far away a question to one of our own addresses may come. Questions by multicast are
// answered only on the link, whatever this says.
typedef uint32_t trunk_reach;

// What to announce, and where. trunk_announcer_config_init fills in the defaults, which are stated
// with each field. Times are nanoseconds.
typedef struct trunk_announcer_config {
    // Size of this struct; set by trunk_announcer_config_init.
    uint32_t struct_size;
    // UDP port on which questions are heard. TRUNK_PRESENCE_PORT.
    uint32_t port;
    // What is told to those who ask. Required.
    const struct trunk_announcement *announcement;
    // Addresses, without ports, that listeners are bound to: only over these is anything answered,
    // so that whoever finds us can also connect. "0.0.0.0" and "::" stand for all of their family.
    // Required, but see trunk_announcer_start_for_listener.
    const char *const *listen;
    // Number of them.
    size_t listen_count;
    // On which interfaces. NULL = the defaults.
    const struct trunk_interfaces *interfaces;
    // A session ends when nothing is heard for so long; 1 s to 1 h. 35 s.
    uint64_t heartbeat_ns;
    // Answers to questions by multicast are held back by up to so much, at random, so that those of
    // many devices do not collide; at most 1 s. 100 ms.
    uint64_t spread_ns;
    // Which questions are answered. TRUNK_ANSWERS_EVERYBODY.
    trunk_answers answers;
    // From how far away. TRUNK_REACH_SITE.
    trunk_reach reach;
    // Answers a second in all, 1 to 10000, and twice as many at once. 50.
    uint32_t answers_per_second;
    // Answers a second to one source address, at most answers_per_second, and twice as many at
    // once. 5.
    uint32_t answers_per_source;
} trunk_announcer_config;

// What an announcer tells those who ask, and whether there are any. New fields come at the end.
typedef struct trunk_announcer_info {
    // Size of this struct; set by trunk_announcer_info_init.
    uint32_t struct_size;
    // The state.
    trunk_presence_state state;
    // Devices that asked within the heartbeat.
    uint64_t sessions;
    // Our fingerprint.
    uint8_t peer[TRUNK_FINGERPRINT_BYTES];
    // The name.
    char name[TRUNK_DEVICE_NAME_BYTES];
    // The service.
    char service[TRUNK_DEVICE_NAME_BYTES];
    // What kind of device it is.
    trunk_device_type device_type;
    // Whom it lets in.
    trunk_device_mode mode;
    // Which links it listens on.
    trunk_device_links links;
    // The port that it listens on.
    uint32_t port;
    // Whether it has an id.
    uint32_t has_id;
    // Whether its listeners can be reached from this machine only.
    uint32_t local_only;
} trunk_announcer_info;

// What an announcer has done with what it received. New fields come at the end.
typedef struct trunk_announcer_counts {
    // Size of this struct; set by trunk_announcer_counts_init.
    uint32_t struct_size;
    // 0.
    uint32_t reserved;
    // Answers given, farewells included.
    uint64_t answered;
    // No presence message, or a malformed one.
    uint64_t malformed;
    // Answers of others.
    uint64_t not_questions;
    // From an address that could not have asked, or from too far away.
    uint64_t wrong_source;
    // For another service or another device.
    uint64_t not_for_us;
    // Above a rate.
    uint64_t rate_limited;
    // The answer to the same question was waiting already.
    uint64_t repeated;
    // Too many answers were waiting.
    uint64_t full;
    // Sessions begun.
    uint64_t sessions;
    // Sessions that ended because their heartbeat expired.
    uint64_t expired;
} trunk_announcer_counts;

// An announcer. 0 is none. Discoveries and announcers belong to no engine.
typedef uint64_t trunk_announcer;

// An address at which an announcer hears. Of fixed size: it does not grow.
typedef struct trunk_presence_address {
    // The interface's name.
    char interface_name[64];
    // Its address, without a port.
    char address[64];
} trunk_presence_address;

// Done.
#define TRUNK_OK 0

// A pointer that must not be NULL is NULL.
#define TRUNK_ERR_NULL -1

// An argument or a field is out of range; trunk_last_error names it.
#define TRUNK_ERR_INVALID_ARGUMENT -2

// The handle is stale, was already closed, belongs to another engine, or is of another kind.
#define TRUNK_ERR_INVALID_HANDLE -3

// The connection has ended or is not in a state that allows the call.
#define TRUNK_ERR_NO_CONNECTION -4

// A bounded queue is full: nothing was taken. TRUNK_ITEM_WRITABLE follows where the call was a
// send; otherwise try again later. Discoveries and announcers: another thread is inside.
#define TRUNK_ERR_WOULD_BLOCK -5

// The message is larger than the channel or the peer takes.
#define TRUNK_ERR_TOO_LARGE -6

// Not possible on this channel: its kind or its state does not know the call.
#define TRUNK_ERR_WRONG_CHANNEL -7

// A configured or built-in limit is reached.
#define TRUNK_ERR_LIMIT -8

// The unreliable message could not go now and was dropped, as its kind allows.
#define TRUNK_ERR_DROPPED -9

// A certificate, key or TLS setting is unusable.
#define TRUNK_ERR_SECURITY -10

// The operating system refused something.
#define TRUNK_ERR_SYSTEM -11

// The driver that was asked for does not work here.
#define TRUNK_ERR_DRIVER -12

// The engine was shut down, and everything it had was received.
#define TRUNK_ERR_STOPPED -13

// A thread-less engine is driven by another thread.
#define TRUNK_ERR_WRONG_THREAD -14

// The call is for thread-less engines, and this one has threads.
#define TRUNK_ERR_NOT_THREADLESS -15

// The process has forked since the engine, discovery or announcer was made, which belongs to the
// parent.
#define TRUNK_ERR_FORKED -16

// A shard of the engine has failed: a mistake of this library, please report it.
#define TRUNK_ERR_FAILED -17

// A mistake of this library inside this call; please report it.
#define TRUNK_ERR_INTERNAL -18

// A file cannot be read or written.
#define TRUNK_ERR_FILE -19

// The caller's buffer is too small; the size that is needed was stored.
#define TRUNK_ERR_BUFFER_TOO_SMALL -20

// The call is not allowed inside a callback.
#define TRUNK_ERR_IN_CALLBACK -21

// Not available on this system or with this driver.
#define TRUNK_ERR_UNSUPPORTED -22

// Nothing.
#define TRUNK_LOG_OFF 0

// Something failed.
#define TRUNK_LOG_ERROR 1

// Something is not as it should be, and the engine goes on. The default.
#define TRUNK_LOG_WARN 2

// What an operator wants to know.
#define TRUNK_LOG_INFO 3

// What a developer wants to know.
#define TRUNK_LOG_DEBUG 4

// Everything.
#define TRUNK_LOG_TRACE 5

// The best that works here.
#define TRUNK_DRIVER_AUTO 0

// io_uring, or an error.
#define TRUNK_DRIVER_URING 1

// recvmsg and sendmsg: works everywhere.
#define TRUNK_DRIVER_MIO 2

// Never.
#define TRUNK_RETRY_NEVER 0

// While at least retry_handshakes handshakes are under way.
#define TRUNK_RETRY_WHEN_LOADED 1

// Always; costs each connection a round trip.
#define TRUNK_RETRY_ALWAYS 2

// Nothing is said. Clients: an error. Hosts: clients are not asked who they are.
#define TRUNK_TRUST_NONE 0

// Its public key is one of the pins. Names, dates and issuers play no part, as with ssh.
#define TRUNK_TRUST_PINS 1

// It chains to one of the CA certificates; clients check the server name too.
#define TRUNK_TRUST_CA 2

// Any certificate at all: the connection is encrypted, but anybody on the path can be the other
// end.
#define TRUNK_TRUST_DANGEROUS_ANY 3

// Unknown or already closed handle: every call with it gives TRUNK_ERR_INVALID_HANDLE.
#define TRUNK_STATUS_NONE 0

// The handshake is under way. Reliable sends wait, unreliable ones are dropped, nothing is
// received; closing drops what waits.
#define TRUNK_STATUS_CONNECTING 1

// The peer has agreed and a route is not proven yet; otherwise as TRUNK_STATUS_CONNECTING.
#define TRUNK_STATUS_FINDING_ROUTE 2

// Everything works.
#define TRUNK_STATUS_CONNECTED 3

// The peer has closed. What was received can still be read, sends give TRUNK_ERR_NO_CONNECTION,
// and the handle must be closed.
#define TRUNK_STATUS_CLOSED_BY_PEER 4

// A timeout, bad crypto, a protocol error or the like ended the connection; otherwise as
// TRUNK_STATUS_CLOSED_BY_PEER.
#define TRUNK_STATUS_PROBLEM_DETECTED_LOCALLY 5

// Closed by us: late packets are answered with the reason. The handle is stale.
#define TRUNK_STATUS_FIN_WAIT -1

// Closed by us: reliable data is still being delivered. The handle is stale.
#define TRUNK_STATUS_LINGER -2

// Gone. The handle is stale.
#define TRUNK_STATUS_DEAD -3

// Not known: the library is older than this field.
#define TRUNK_HANDSHAKE_NONE 0

// Client: the ConnectionRequest is sent.
#define TRUNK_HANDSHAKE_WAITING_FOR_CONNECTION_RESPONSE 1

// Client: the host has proved itself and the AuthenticationRequest is sent.
#define TRUNK_HANDSHAKE_WAITING_FOR_AUTHENTICATION_RESPONSE 2

// Host: it listens.
#define TRUNK_HANDSHAKE_WAITING_FOR_CONNECTION_REQUEST 3

// Host: the client's proof, or the answer of our application, has not come.
#define TRUNK_HANDSHAKE_WAITING_FOR_AUTHENTICATION_REQUEST 4

// The connection was made.
#define TRUNK_HANDSHAKE_READY 5

// The attempt failed: no answer in time.
#define TRUNK_HANDSHAKE_FAILED_TIMEOUT 6

// The attempt failed: a proof was missing or wrong, or the host's application denied the client.
#define TRUNK_HANDSHAKE_FAILED_AUTHENTICATION 7

// The attempt failed for another reason.
#define TRUNK_HANDSHAKE_FAILED_OTHER 8

// None: the connection has not ended.
#define TRUNK_REASON_NONE 0

// An ordinary close by the application, without a code of its own.
#define TRUNK_REASON_APP 1000

// The application did not want the connection or channel.
#define TRUNK_REASON_APP_REJECTED 1001

// The last code that the application may choose; the first is TRUNK_REASON_APP.
#define TRUNK_REASON_APP_MAX 2999

// The engine was shut down.
#define TRUNK_REASON_SHUTDOWN 3001

// A local limit was reached.
#define TRUNK_REASON_LOCAL_LIMIT 3002

// The local system refused to send.
#define TRUNK_REASON_LOCAL_NETWORK 3003

// Nothing was heard from the peer in time.
#define TRUNK_REASON_TIMEOUT 4001

// Packets could not be authenticated, or key rules were broken.
#define TRUNK_REASON_BAD_CRYPTO 4002

// The peer's certificate or key was not accepted.
#define TRUNK_REASON_BAD_CERTIFICATE 4003

// The peer did not authenticate, or its credential was denied.
#define TRUNK_REASON_AUTHENTICATION 4004

// The peer broke the protocol.
#define TRUNK_REASON_PROTOCOL 4005

// The peer speaks no version that we know.
#define TRUNK_REASON_VERSION 4006

// The peer has lost its state.
#define TRUNK_REASON_RESET 4007

// The peer refuses because it is overloaded or limits our address.
#define TRUNK_REASON_REFUSED 4008

// Unclassified.
#define TRUNK_REASON_MISC 5001

// A mistake of this library; please report it.
#define TRUNK_REASON_INTERNAL 5002

// The linger limit ran out and undelivered data was dropped.
#define TRUNK_REASON_LINGER_EXPIRED 5003

// Share a live connection, or one being made, that agrees in everything: trust, addresses, server
// name, identity and credential. Otherwise make one.
#define TRUNK_REUSE 0

// Always make a new one.
#define TRUNK_REUSE_FORCE_NEW 1

// Share one, or fail with TRUNK_ERR_NO_CONNECTION.
#define TRUNK_REUSE_NEVER_NEW 2

// We connected.
#define TRUNK_ROLE_CLIENT 0

// We accepted.
#define TRUNK_ROLE_HOST 1

// A reliable, ordered stream of bytes.
#define TRUNK_KIND_BYTES 0

// Reliable, ordered messages.
#define TRUNK_KIND_MESSAGES 1

// Unreliable messages.
#define TRUNK_KIND_DATAGRAMS 2

// Nothing: an item that was released.
#define TRUNK_ITEM_NONE 0

// Data of a channel: data and size. The next bytes of a stream, or one whole message, as kind
// says.
#define TRUNK_ITEM_DATA 1

// The status of a connection changed: detail.status.
#define TRUNK_ITEM_STATUS 2

// Host: a peer has proved itself and waits for trunk_accept or trunk_reject: detail.incoming.
#define TRUNK_ITEM_INCOMING 3

// The peer asks for a channel and waits for trunk_channel_accept or trunk_channel_decline:
// detail.request.
#define TRUNK_ITEM_REQUEST 4

// A channel is usable: the peer has accepted it, or we have.
#define TRUNK_ITEM_READY 5

// A channel ended and its handle is stale; its last item: detail.closed.
#define TRUNK_ITEM_CLOSED 6

// The peer sends no more on a channel, and everything before was received.
#define TRUNK_ITEM_EOF 7

// The peer cancelled what it was sending on a channel: code.
#define TRUNK_ITEM_RESET 8

// The peer refuses the rest of what we send on a channel: code.
#define TRUNK_ITEM_STOPPED 9

// A send on a channel gave TRUNK_ERR_WOULD_BLOCK, and there is room again.
#define TRUNK_ITEM_WRITABLE 10

// The peer has acknowledged all of what was sent with this token.
#define TRUNK_ITEM_RECEIPT 11

// What was taken for sending on a channel could not be handed to its connection: detail.text says
// why.
#define TRUNK_ITEM_SEND_FAILED 12

// The peer has answered trunk_conn_check.
#define TRUNK_ITEM_CHECK_ANSWERED 13

// A connection is gone for good; its last item: detail.dead.
#define TRUNK_ITEM_DEAD 14

// A shard has failed, and nothing more is heard of its connections: detail.text says why. conn is
// 0.
#define TRUNK_ITEM_SHARD_FAILED 15

// Both sides have sent everything, and everything was acknowledged.
#define TRUNK_END_FINISHED 0

// The peer declined it: code, text.
#define TRUNK_END_DECLINED 1

// A side cancelled its sending or refused the other's: code, by_peer.
#define TRUNK_END_RESET 2

// No answer came to the request in time.
#define TRUNK_END_TIMED_OUT 3

// The connection ended, or could not carry the channel: reason, text.
#define TRUNK_END_CONNECTION 4

// In a way that this version has no name for.
#define TRUNK_END_OTHER 5

// Not said.
#define TRUNK_DEVICE_TYPE_UNSPECIFIED 0

// Desktop computer.
#define TRUNK_DEVICE_TYPE_DESKTOP 1

// Laptop.
#define TRUNK_DEVICE_TYPE_LAPTOP 2

// Server.
#define TRUNK_DEVICE_TYPE_SERVER 3

// Phone.
#define TRUNK_DEVICE_TYPE_PHONE 4

// Tablet.
#define TRUNK_DEVICE_TYPE_TABLET 5

// Game console.
#define TRUNK_DEVICE_TYPE_CONSOLE 6

// Television or set-top box.
#define TRUNK_DEVICE_TYPE_TELEVISION 7

// Headset for virtual or augmented reality.
#define TRUNK_DEVICE_TYPE_HEADSET 8

// Built into something: camera, speaker, instrument.
#define TRUNK_DEVICE_TYPE_EMBEDDED 9

// Anybody may connect.
#define TRUNK_DEVICE_MODE_OPEN 0

// Only those whom it knows: by key, credential or list.
#define TRUNK_DEVICE_MODE_KNOWN 1

// It is ready to be paired with a new peer.
#define TRUNK_DEVICE_MODE_PAIRING 2

// It takes nobody at the moment.
#define TRUNK_DEVICE_MODE_BUSY 3

// UDP.
#define TRUNK_DEVICE_LINK_UDP 1

// TLS over TCP.
#define TRUNK_DEVICE_LINK_TLS 2

// There is none.
#define TRUNK_PRESENCE_NONE 0

// Asking: a question was published, and no answer has come.
#define TRUNK_PRESENCE_WAITING_FOR_RESPONSE 1

// Announcing: nobody has asked.
#define TRUNK_PRESENCE_WAITING_FOR_REQUEST 2

// The other side was heard within the heartbeat.
#define TRUNK_PRESENCE_READY 3

// Over: the heartbeat has expired, or the device has left.
#define TRUNK_PRESENCE_ENDED 4

// Something else than the following.
#define TRUNK_PROBLEM_OTHER 0

// Another program has the port and does not share it.
#define TRUNK_PROBLEM_ADDRESS_IN_USE 1

// The address cannot be used, or not yet.
#define TRUNK_PROBLEM_ADDRESS_NOT_AVAILABLE 2

// The system does not allow it, such as by a firewall.
#define TRUNK_PROBLEM_PERMISSION_DENIED 3

// The network is down, or what is sent reaches nobody.
#define TRUNK_PROBLEM_UNREACHABLE 4

// A device that was not known answered: device.
#define TRUNK_DISCOVERY_FOUND 1

// A device says something else of itself, or has one more address: device.
#define TRUNK_DISCOVERY_CHANGED 2

// A device left, or its heartbeat expired: device.
#define TRUNK_DISCOVERY_LOST 3

// Nobody there has answered for the heartbeat; asking goes on: address.
#define TRUNK_DISCOVERY_SILENT 4

// From the link.
#define TRUNK_REACH_LINK 0

// From the link and from private addresses.
#define TRUNK_REACH_SITE 1

// From everywhere.
#define TRUNK_REACH_ANYWHERE 2

// All that are meant for us.
#define TRUNK_ANSWERS_EVERYBODY 0

// Only those that show that they know our id: the device shows itself to nobody else.
#define TRUNK_ANSWERS_THOSE_WHO_KNOW_THE_ID 1

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library that is running: major << 16 | minor << 8 | patch.
//
// Any thread, never blocks.
uint32_t trunk_version(void);

// The same as a static text, such as "0.1.0".
//
// Any thread, never blocks.
const char *trunk_version_str(void);

// A code in words: a static string, never NULL, "unknown result" for other values.
//
// Any thread, never blocks.
const char *trunk_result_str(trunk_result result);

// The detail, in words, of the last call of this thread that failed: which argument, which file,
// which limit. Never NULL; empty when no call of this thread has failed. Calls that succeed leave
// it alone. Valid until the next call of this thread that fails; other threads do not change it.
//
// Any thread, never blocks.
const char *trunk_last_error(void);

// Fills struct_size bytes at config with the defaults. Call it as
// trunk_engine_config_init(&config).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_engine_config_init_sized(struct trunk_engine_config *config, size_t struct_size);

// Fills struct_size bytes at config with the defaults. Call it as
// trunk_connection_config_init(&config).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_connection_config_init_sized(struct trunk_connection_config *config,
                                                size_t struct_size);

// Makes an engine and stores it. config may be NULL: one shard with a thread of its own, and the
// defaults of trunk_engine_config. Everything that config points to is copied. The caller owns the
// engine and ends it with trunk_engine_destroy.
//
// Any thread; several engines in one process are fine. Waits for the threads of the shards to
// start and reads the files that config names, does not block otherwise. Errors: TRUNK_ERR_NULL,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_DRIVER, TRUNK_ERR_SYSTEM, TRUNK_ERR_FILE,
// TRUNK_ERR_SECURITY.
trunk_result trunk_engine_new(const struct trunk_engine_config *config,
                              struct trunk_engine **engine);

// Ends an engine and frees what it has: connections that are still there end at once (see
// trunk_shutdown for the patient way), and its threads are gone when the call returns. NULL is
// allowed. Received items stay valid, and trunk_message_release still takes them; buffers of
// trunk_buf_alloc too. A thread-less engine is to be destroyed by the thread that polled it;
// destroyed by another one, its sockets stay open until that thread ends.
//
// Any thread, but no other call with this engine may be going on or follow: one that follows gives
// TRUNK_ERR_INVALID_HANDLE. Waits for the engine's threads, for milliseconds. Errors:
// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED (nothing is freed), TRUNK_ERR_IN_CALLBACK.
trunk_result trunk_engine_destroy(struct trunk_engine *engine);

// Fills struct_size bytes at report with the defaults. Call it as
// trunk_shutdown_report_init(&report).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_shutdown_report_init_sized(struct trunk_shutdown_report *report,
                                              size_t struct_size);

// Ends every connection of an engine: what was sent reliably is delivered first, for at most
// linger_ns (0 = drop it, TRUNK_LINGER_DEFAULT = the configured limit), and the peers are told.
// report, which may be NULL, says what was delivered and what was not. Nothing can be opened or
// sent afterwards; what was received can still be read with trunk_recv_many, which gives
// TRUNK_ERR_STOPPED after the last item. trunk_engine_destroy is still due.
//
// Any thread; without threads the one that polls. BLOCKS until every connection is gone, at most
// for the linger and the fin-wait limits together. Errors: TRUNK_ERR_NULL,
// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WRONG_THREAD,
// TRUNK_ERR_IN_CALLBACK, TRUNK_ERR_FORKED, TRUNK_ERR_STOPPED.
trunk_result trunk_shutdown(struct trunk_engine *engine,
                            int64_t linger_ns,
                            struct trunk_shutdown_report *report);

// The name of the driver in use, a static string: "uring" or "mio". A thread-less engine knows it
// once it was polled, and on the thread that polls; it is empty before.
//
// Any thread; without threads the one that polls. Never blocks. Errors: TRUNK_ERR_NULL,
// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WRONG_THREAD, TRUNK_ERR_FORKED.
trunk_result trunk_engine_driver(struct trunk_engine *engine, const char **name);

// Replaces the list of addresses and networks whose connection requests are dropped.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FORKED.
trunk_result trunk_engine_set_deny(struct trunk_engine *engine,
                                   const char *const *networks,
                                   size_t count);

// Tells the engine that the local network has changed: connections are checked at once, and
// clients move theirs.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_engine_network_changed(struct trunk_engine *engine);

// Drives a thread-less engine: receives, sends, and does what is due, then returns. If there is
// nothing to do, waits for something for at most budget_ns (TRUNK_WAIT_NOT, TRUNK_WAIT_FOREVER, or
// nanoseconds). Stores at happened, which may be NULL, how many things happened; what the
// application is told about is then taken with trunk_recv_many. To be called again soon while
// trunk_engine_next_timeout_ns says 0.
//
// The thread that polls first. BLOCKS for at most budget_ns. Errors: TRUNK_ERR_NULL,
// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_NOT_THREADLESS, TRUNK_ERR_WRONG_THREAD,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_STOPPED, TRUNK_ERR_FORKED; TRUNK_ERR_DRIVER and
// TRUNK_ERR_SYSTEM when the first call cannot set the driver up, or the driver fails.
trunk_result trunk_engine_poll(struct trunk_engine *engine, int64_t budget_ns, uint64_t *happened);

// Stores a file descriptor that is readable when trunk_engine_poll has work, for an event loop of
// the application: wait until it is readable or trunk_engine_next_timeout_ns has passed, poll,
// receive, and ask for the next timeout again. It belongs to the engine: do not read or close it.
//
// The thread that polls first. Never blocks. Errors: as trunk_engine_poll; TRUNK_ERR_UNSUPPORTED
// where the driver has none.
trunk_result trunk_engine_fd(struct trunk_engine *engine, int32_t *fd);

// Stores how many nanoseconds may pass until trunk_engine_poll has work even if nothing arrives:
// 0 = now, TRUNK_WAIT_FOREVER = nothing is planned. Ask again after every poll.
//
// The thread that polls first. Never blocks. Errors: as trunk_engine_poll.
trunk_result trunk_engine_next_timeout_ns(struct trunk_engine *engine, int64_t *timeout_ns);

// Ends the wait of trunk_engine_poll, or makes the descriptor readable. Sends from other threads
// do so by themselves.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_engine_wake(struct trunk_engine *engine);

// Fills struct_size bytes at identity with the defaults. Call it as
// trunk_identity_init(&identity).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_identity_init_sized(struct trunk_identity *identity, size_t struct_size);

// Fills struct_size bytes at trust with the defaults. Call it as trunk_trust_init(&trust).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_trust_init_sized(struct trunk_trust *trust, size_t struct_size);

// Makes an Ed25519 key and a self-signed certificate for name (NULL = "trunkline"), and stores
// both as one PEM text with a final NUL in the capacity bytes at pem. Keep it to yourself: it
// holds the private key. size, which may be NULL, gets the bytes needed, final NUL included; 2048
// bytes are always enough for a name of up to 255 bytes. Each call makes another key.
//
// Any thread, never blocks. Errors: TRUNK_ERR_BUFFER_TOO_SMALL, TRUNK_ERR_INVALID_ARGUMENT,
// TRUNK_ERR_SECURITY.
trunk_result trunk_identity_generate(const char *name, char *pem, size_t capacity, size_t *size);

// Loads an identity and stores its fingerprint, TRUNK_FINGERPRINT_BYTES bytes: the SHA-256 of its
// public key, which peers pin. Reads the files that the identity names.
//
// Any thread; reads files, does not block otherwise. Errors: TRUNK_ERR_NULL,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FILE, TRUNK_ERR_SECURITY.
trunk_result trunk_identity_fingerprint(const struct trunk_identity *identity,
                                        uint8_t *fingerprint);

// Reads a fingerprint of 64 hexadecimal digits, colons between bytes allowed, and stores its
// TRUNK_FINGERPRINT_BYTES bytes.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_fingerprint_parse(const char *text, uint8_t *fingerprint);

// Writes a fingerprint as 64 hexadecimal digits and a NUL, TRUNK_FINGERPRINT_TEXT_BYTES bytes.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL.
trunk_result trunk_fingerprint_format(const uint8_t *fingerprint, char *text);

// Fills struct_size bytes at config with the defaults. Call it as
// trunk_listen_config_init(&config).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_listen_config_init_sized(struct trunk_listen_config *config, size_t struct_size);

// Fills struct_size bytes at config with the defaults. Call it as
// trunk_connect_config_init(&config).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_connect_config_init_sized(struct trunk_connect_config *config,
                                             size_t struct_size);

// Accepts connections at an address and stores the listener, which is valid until
// trunk_listener_close. Each connection shows up as TRUNK_ITEM_INCOMING in the engine's own poll
// group and waits for trunk_accept or trunk_reject. Everything that config points to is copied.
//
// Any thread. Waits for the shards to take their sockets, for microseconds; reads the files that
// config names. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT,
// TRUNK_ERR_SYSTEM (the address is taken or not ours), TRUNK_ERR_FILE, TRUNK_ERR_SECURITY,
// TRUNK_ERR_STOPPED, TRUNK_ERR_FORKED.
trunk_result trunk_listen(struct trunk_engine *engine,
                          const struct trunk_listen_config *config,
                          trunk_listener *listener);

// Stores the address of a listener, with the port that the system chose, as a text with a final
// NUL in the capacity bytes at address. 64 bytes are always enough. size, which may be NULL, gets
// the bytes needed.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_BUFFER_TOO_SMALL, TRUNK_ERR_FORKED.
trunk_result trunk_listener_address(struct trunk_engine *engine,
                                    trunk_listener listener,
                                    char *address,
                                    size_t capacity,
                                    size_t *size);

// Accepts no more connections there; the handle is stale afterwards. Connections that exist live
// on, unless close_connections is not 0.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_listener_close(struct trunk_engine *engine,
                                  trunk_listener listener,
                                  uint32_t close_connections);

// Starts a connection, or finds one to share, and stores its handle, which is valid until
// trunk_close. Channels can be opened and reliable data sent on them at once; TRUNK_ITEM_STATUS
// tells how it went. Whoever shares a connection shares its handle: one close closes it for all.
// Everything that config points to is copied.
//
// Any thread. Reads the files that config names, does not block otherwise. Errors:
// TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_NO_CONNECTION,
// TRUNK_ERR_LIMIT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FILE, TRUNK_ERR_SECURITY, TRUNK_ERR_FORKED.
trunk_result trunk_connect(struct trunk_engine *engine,
                           const struct trunk_connect_config *config,
                           trunk_conn *conn);

// Host: takes a connection that came as TRUNK_ITEM_INCOMING. Neglected for longer than the initial
// timeout, it fails. TRUNK_ITEM_STATUS tells when it is connected.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
trunk_result trunk_accept(struct trunk_engine *engine, trunk_conn conn);

// Host: refuses a connection that came as TRUNK_ITEM_INCOMING; its handle is stale afterwards, and
// TRUNK_ITEM_DEAD is its last item. The peer learns reason (TRUNK_REASON_APP to
// TRUNK_REASON_APP_MAX, 0 = TRUNK_REASON_APP_REJECTED) and text (UTF-8, cut to 127 bytes, NULL =
// none).
//
// Any thread, never blocks. Errors: as trunk_accept, and TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_reject(struct trunk_engine *engine,
                          trunk_conn conn,
                          trunk_reason reason,
                          const char *text);

// Closes a connection; its handle and those of its channels are stale at once. With linger_ns > 0
// what was sent reliably is delivered first, for at most that long, and the peer sees no sign of
// the close before the last byte; TRUNK_LINGER_DEFAULT takes the engine's limit,
// TRUNK_LINGER_NONE drops what is not delivered. Nothing more is told about its channels;
// TRUNK_ITEM_DEAD is its last item and says what was delivered. reason and text as in trunk_reject
// (0 = TRUNK_REASON_APP). A connection that has ended by itself must be closed too.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE (a second close),
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
trunk_result trunk_close(struct trunk_engine *engine,
                         trunk_conn conn,
                         trunk_reason reason,
                         const char *text,
                         int64_t linger_ns);

// Stores the status of a connection. For a stale handle it stores TRUNK_STATUS_NONE and gives
// TRUNK_ERR_INVALID_HANDLE.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_conn_status(struct trunk_engine *engine, trunk_conn conn, trunk_status *status);

// Asks the peer for a sign of life. TRUNK_ITEM_CHECK_ANSWERED follows; without an answer within
// check_timeout_ns the connection ends with TRUNK_REASON_TIMEOUT.
//
// Any thread, never blocks. Errors: as trunk_accept.
trunk_result trunk_conn_check(struct trunk_engine *engine, trunk_conn conn);

// Has what happens to a connection from now on go to a poll group (0 = the engine's own). Items
// that are already in another group stay there.
//
// Any thread, never blocks. Errors: as trunk_accept.
trunk_result trunk_conn_set_group(struct trunk_engine *engine, trunk_conn conn, trunk_group group);

// Keeps a pointer of the application with a connection. Each item of the connection brings it
// along, TRUNK_ITEM_DEAD included; the engine only hands it back.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_conn_set_user(struct trunk_engine *engine, trunk_conn conn, void *user);

// Stores the pointer kept with a connection; NULL when there is none.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_conn_user(struct trunk_engine *engine, trunk_conn conn, void **user);

// Fills struct_size bytes at info with zeros and its size. Call it as trunk_conn_info_init(&info).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_conn_info_init_sized(struct trunk_conn_info *info, size_t struct_size);

// Fills struct_size bytes at stats with zeros and its size. Call it as
// trunk_conn_stats_init(&stats).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_conn_stats_init_sized(struct trunk_conn_stats *stats, size_t struct_size);

// Fills struct_size bytes at stats with zeros and its size. Call it as
// trunk_engine_stats_init(&stats).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_engine_stats_init_sized(struct trunk_engine_stats *stats, size_t struct_size);

// Stores what is known of a connection.
//
// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
// microseconds. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT,
// TRUNK_ERR_NO_CONNECTION (the shard does not answer), TRUNK_ERR_WOULD_BLOCK,
// TRUNK_ERR_WRONG_THREAD, TRUNK_ERR_FORKED.
trunk_result trunk_conn_get_info(struct trunk_engine *engine,
                                 trunk_conn conn,
                                 struct trunk_conn_info *info);

// Stores counters and gauges of a connection.
//
// Any thread; without threads the one that polls. Waits for the connection's shard, usually for
// microseconds. Errors: as trunk_conn_get_info.
trunk_result trunk_conn_get_stats(struct trunk_engine *engine,
                                  trunk_conn conn,
                                  struct trunk_conn_stats *stats);

// Stores counters of the engine.
//
// Any thread; without threads the one that polls. Waits for the shards, usually for microseconds.
// Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT,
// TRUNK_ERR_WRONG_THREAD, TRUNK_ERR_FORKED.
trunk_result trunk_engine_get_stats(struct trunk_engine *engine, struct trunk_engine_stats *stats);

// Fills struct_size bytes at options with the defaults. Call it as
// trunk_channel_options_init(&options).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_channel_options_init_sized(struct trunk_channel_options *options,
                                              size_t struct_size);

// Asks the peer for a channel and stores its handle, which is valid until TRUNK_ITEM_CLOSED or the
// close of its connection. It can be sent on at once. TRUNK_ITEM_READY or TRUNK_ITEM_CLOSED tells
// what the peer answered. name is UTF-8, at most 1024 bytes, and need not be unique; options may
// be NULL.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_LIMIT, TRUNK_ERR_WOULD_BLOCK,
// TRUNK_ERR_FORKED.
trunk_result trunk_channel_open(struct trunk_engine *engine,
                                trunk_conn conn,
                                const char *name,
                                const struct trunk_channel_options *options,
                                trunk_channel *channel);

// Accepts a channel that came as TRUNK_ITEM_REQUEST. TRUNK_ITEM_READY follows; it can be sent on
// at once. options may be NULL; its kind does not count.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
trunk_result trunk_channel_accept(struct trunk_engine *engine,
                                  trunk_channel channel,
                                  const struct trunk_channel_options *options);

// Declines a channel that came as TRUNK_ITEM_REQUEST. The peer learns code, which is any number,
// and text (UTF-8, cut to 127 bytes, NULL = none). The other channels are left alone.
//
// Any thread, never blocks. Errors: as trunk_channel_accept.
trunk_result trunk_channel_decline(struct trunk_engine *engine,
                                   trunk_channel channel,
                                   uint32_t code,
                                   const char *text);

// Ends our direction after everything sent so far: the peer gets TRUNK_ITEM_EOF after the last
// byte. The other direction goes on; when both have ended and all is acknowledged,
// TRUNK_ITEM_CLOSED is the channel's last item.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
trunk_result trunk_channel_close(struct trunk_engine *engine, trunk_channel channel);

// Cancels what we send on a channel: what is not delivered yet never will be. The peer gets
// TRUNK_ITEM_RESET with code, which is any number.
//
// Any thread, never blocks. Errors: as trunk_channel_close.
trunk_result trunk_channel_reset(struct trunk_engine *engine, trunk_channel channel, uint32_t code);

// Refuses the rest of what the peer sends on a channel. The peer gets TRUNK_ITEM_STOPPED with
// code, which is any number.
//
// Any thread, never blocks. Errors: as trunk_channel_close.
trunk_result trunk_channel_stop(struct trunk_engine *engine, trunk_channel channel, uint32_t code);

// Stores the connection of a channel.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_channel_conn(struct trunk_engine *engine,
                                trunk_channel channel,
                                trunk_conn *conn);

// Keeps a pointer of the application with a channel. Each item of the channel brings it along,
// TRUNK_ITEM_CLOSED included; the engine only hands it back. Nothing is told about the channels of
// a connection that we close: TRUNK_ITEM_DEAD of the connection stands for all of them.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_channel_set_user(struct trunk_engine *engine, trunk_channel channel, void *user);

// Stores the pointer kept with a channel; NULL when there is none.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_channel_user(struct trunk_engine *engine, trunk_channel channel, void **user);

// Sends a copy of size bytes at data: the next bytes of a stream, or one message. Sending nothing
// on a stream does nothing; an empty message is a message. At most 16 MiB at once, 64 KiB on a
// channel of TRUNK_KIND_DATAGRAMS.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK (nothing was taken; TRUNK_ITEM_WRITABLE follows), TRUNK_ERR_DROPPED,
// TRUNK_ERR_TOO_LARGE, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
trunk_result trunk_send(struct trunk_engine *engine,
                        trunk_channel channel,
                        const void *data,
                        size_t size);

// The same, and TRUNK_ITEM_RECEIPT with token when the peer has acknowledged all of it. For
// reliable channels.
//
// Any thread, never blocks. Errors: as trunk_send.
trunk_result trunk_send_receipt(struct trunk_engine *engine,
                                trunk_channel channel,
                                const void *data,
                                size_t size,
                                uint64_t token);

// Sends copies of count short messages with few queue operations, in order, and stores at sent,
// which may be NULL, how many were taken. The first that was not taken gives the result; those
// after it were not tried.
//
// Any thread, never blocks. Errors: as trunk_send.
trunk_result trunk_send_many(struct trunk_engine *engine,
                             const struct trunk_outgoing *messages,
                             size_t count,
                             size_t *sent);

// Takes one of the engine's send buffers, for at least size bytes, and stores it at buf. The
// caller writes into it and gives it to trunk_send_buf, which sends it without a copy, or to
// trunk_buf_free. Its bytes are arbitrary at first. It outlives its engine.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE; TRUNK_ERR_WOULD_BLOCK
// when all buffers are in use or not acknowledged yet (try again when something was received, or
// use trunk_send); TRUNK_ERR_TOO_LARGE when size is more than send_buffer_bytes; TRUNK_ERR_FORKED.
trunk_result trunk_buf_alloc(struct trunk_engine *engine, size_t size, struct trunk_buf *buf);

// Sends the first size bytes of a buffer of trunk_buf_alloc without a copy. When it is taken, the
// buffer is the engine's again and the struct is empty; the memory is free for others when the
// peer has acknowledged it. When it is not taken, the caller still has it, must not change what is
// in it any more, and may try again with the same size. token, unless 0, asks for
// TRUNK_ITEM_RECEIPT.
//
// Any thread, never blocks. Errors: as trunk_send, and TRUNK_ERR_INVALID_ARGUMENT when size is
// more than capacity.
trunk_result trunk_send_buf(struct trunk_engine *engine,
                            trunk_channel channel,
                            struct trunk_buf *buf,
                            size_t size,
                            uint64_t token);

// Gives a buffer back without sending it. An empty struct is left alone.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_FORKED.
trunk_result trunk_buf_free(struct trunk_buf *buf);

// Sends the bytes of a received item of TRUNK_ITEM_DATA on another channel, without a copy. The
// item stays the caller's and can be sent on many channels; its memory is free when it is released
// and all peers have acknowledged it. token, unless 0, asks for TRUNK_ITEM_RECEIPT.
//
// Any thread, never blocks. Errors: as trunk_send, and TRUNK_ERR_INVALID_ARGUMENT when the item
// has no data.
trunk_result trunk_send_item(struct trunk_engine *engine,
                             trunk_channel channel,
                             const struct trunk_item *item,
                             uint64_t token);

// Sends now what waits on a channel to be sent together with more.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_FORKED.
trunk_result trunk_flush(struct trunk_engine *engine, trunk_channel channel);

// Makes a further poll group and stores its handle, which is valid as long as the engine.
// Connections come into it with trunk_connect_config.group or trunk_conn_set_group. At most 1023.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_LIMIT,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_group_new(struct trunk_engine *engine, trunk_group *group);

// Ends the wait of every thread that is inside trunk_recv_many with this group (0 = the engine's
// own): the call returns with no items.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED.
trunk_result trunk_group_wake(struct trunk_engine *engine, trunk_group group);

// Takes at most capacity messages and events from a poll group (0 = the engine's own), in order
// for each connection, and stores them at items and their number at count. If there are none,
// waits for some for at most timeout_ns (TRUNK_WAIT_NOT, TRUNK_WAIT_FOREVER, or nanoseconds) and
// may then store none. A thread-less engine never waits here: call trunk_engine_poll first.
//
// The caller owns the items and gives their memory back with trunk_message_release. The places at
// items are overwritten without being looked at.
//
// Any thread, several at once: each gets whole stretches in order. BLOCKS for at most timeout_ns.
// Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FORKED;
// TRUNK_ERR_STOPPED when the engine was shut down and nothing is left.
trunk_result trunk_recv_many(struct trunk_engine *engine,
                             trunk_group group,
                             struct trunk_item *items,
                             size_t capacity,
                             int64_t timeout_ns,
                             size_t *count);

// Gives back the memory of count items and makes them TRUNK_ITEM_NONE; those that already are stay
// it. Until then, the bytes of a reliable channel count against what its peer may send. Items
// outlive their engine.
//
// Any thread, also another one than received them; never blocks. Errors: TRUNK_ERR_NULL,
// TRUNK_ERR_FORKED (the items were received by the parent process and are left alone).
trunk_result trunk_message_release(struct trunk_item *items, size_t count);

// The name of a device type in small letters: a static string, never NULL, "other" for numbers
// without a name.
//
// Any thread, never blocks.
const char *trunk_device_type_str(trunk_device_type device_type);

// The name of a mode in small letters: a static string, never NULL, "other" for numbers without a
// name.
//
// Any thread, never blocks.
const char *trunk_device_mode_str(trunk_device_mode mode);

// Fills struct_size bytes at interfaces with the defaults. Call it as
// trunk_interfaces_init(&interfaces).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_interfaces_init_sized(struct trunk_interfaces *interfaces, size_t struct_size);

// Fills struct_size bytes at config with the defaults. Call it as
// trunk_discovery_config_init(&config).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_discovery_config_init_sized(struct trunk_discovery_config *config,
                                               size_t struct_size);

// Fills struct_size bytes at counts with zeros and its size. Call it as
// trunk_discovery_counts_init(&counts).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_discovery_counts_init_sized(struct trunk_discovery_counts *counts,
                                               size_t struct_size);

// Starts to look for devices and stores the discovery, which is valid until trunk_discovery_close.
// The first question leaves with the first trunk_discovery_poll. config may be NULL: all devices
// of all services on all interfaces. Everything that config points to is copied.
//
// A discovery stands beside an engine, has no thread, and works only inside trunk_discovery_poll:
// between two polls of more than heartbeat_ns all devices are lost. One thread at a time is inside
// a discovery; while one polls, other calls with it give TRUNK_ERR_WOULD_BLOCK, except for
// trunk_discovery_wake and trunk_discovery_close.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SYSTEM
// (no interface can be used; trunk_last_error has the reason for each).
trunk_result trunk_discovery_start(const struct trunk_discovery_config *config,
                                   trunk_discovery *discovery);

// Ends a discovery; the handle is stale afterwards. 0 is allowed. A thread that is inside
// trunk_discovery_poll comes back at once, with TRUNK_ERR_INVALID_HANDLE.
//
// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED (nothing is freed).
trunk_result trunk_discovery_close(trunk_discovery discovery);

// Asks, hears, forgets; stores at most capacity events at events and their number at count. If
// there is nothing to tell, waits for something for at most timeout_ns (TRUNK_WAIT_NOT,
// TRUNK_WAIT_FOREVER, or nanoseconds) and may then store none. Events for which there is no room
// wait: the next calls give them first, without waiting, asking or hearing. With NULL for events
// and 0 for capacity, events are dropped and only counted: for applications that look at
// trunk_discovery_devices.
//
// Any thread, one at a time. BLOCKS for at most timeout_ns; trunk_discovery_wake and
// trunk_discovery_close end it. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK (another thread is inside), TRUNK_ERR_SYSTEM
// (nothing that has to do with a single interface), TRUNK_ERR_FORKED.
trunk_result trunk_discovery_poll(trunk_discovery discovery,
                                  struct trunk_discovery_event *events,
                                  size_t capacity,
                                  int64_t timeout_ns,
                                  size_t *count);

// Stores a file descriptor that is readable when trunk_discovery_poll has something to hear, for
// an event loop of the application: wait until it is readable or trunk_discovery_next_timeout_ns
// has passed, poll, and ask for the next timeout again. It belongs to the discovery: do not read or
// close it.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_UNSUPPORTED (Windows), TRUNK_ERR_FORKED.
trunk_result trunk_discovery_fd(trunk_discovery discovery, int32_t *fd);

// Stores how many nanoseconds may pass until trunk_discovery_poll has work even if nothing
// arrives: 0 = now, also while events wait for which there was no room. Ask again after every poll.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_next_timeout_ns(trunk_discovery discovery, int64_t *timeout_ns);

// Ends the wait of the thread that is inside trunk_discovery_poll, or of the next one, or makes the
// descriptor readable.
//
// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_SYSTEM, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_wake(trunk_discovery discovery);

// Stores the devices that are there, in the order of their fingerprints: at most capacity of them
// at devices (NULL with a capacity of 0), and at count how many there are, which may be more.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_devices(trunk_discovery discovery,
                                     struct trunk_device *devices,
                                     size_t capacity,
                                     size_t *count);

// Looks for devices for duration_ns, from start to end in one call, and stores those that are there
// then as trunk_discovery_devices does. config may be NULL, as with trunk_discovery_start.
//
// Any thread. BLOCKS for duration_ns, and nothing ends it before. Errors: TRUNK_ERR_NULL,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SYSTEM.
trunk_result trunk_discovery_find(const struct trunk_discovery_config *config,
                                  int64_t duration_ns,
                                  struct trunk_device *devices,
                                  size_t capacity,
                                  size_t *count);

// Stores the state of a discovery: TRUNK_PRESENCE_READY while a device is there, otherwise
// TRUNK_PRESENCE_WAITING_FOR_RESPONSE.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_state(trunk_discovery discovery, trunk_presence_state *state);

// Stores the state of the session that is sought at one destination: at a single host, named by its
// address as in targets, or by multicast (NULL). One that ends is followed by another at once.
// TRUNK_PRESENCE_NONE when nobody is asked there.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_session(trunk_discovery discovery,
                                     const char *address,
                                     trunk_presence_state *state);

// Stores what a discovery has done with what it received.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_get_counts(trunk_discovery discovery,
                                        struct trunk_discovery_counts *counts);

// Stores what goes wrong on single interfaces now: at most capacity problems at problems (NULL with
// a capacity of 0), and at count how many there are, which may be more.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_discovery_problems(trunk_discovery discovery,
                                      struct trunk_presence_problem *problems,
                                      size_t capacity,
                                      size_t *count);

// Tells a discovery that the network has changed: with the next poll it looks at the interfaces and
// asks as at the beginning. Not needed, but faster than waiting.
//
// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WOULD_BLOCK,
// TRUNK_ERR_FORKED.
trunk_result trunk_discovery_network_changed(trunk_discovery discovery);

// Fills struct_size bytes at announcement with the defaults. Call it as
// trunk_announcement_init(&announcement).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_announcement_init_sized(struct trunk_announcement *announcement,
                                           size_t struct_size);

// Fills struct_size bytes at config with the defaults. Call it as
// trunk_announcer_config_init(&config).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_announcer_config_init_sized(struct trunk_announcer_config *config,
                                               size_t struct_size);

// Fills struct_size bytes at info with zeros and its size. Call it as
// trunk_announcer_info_init(&info).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_announcer_info_init_sized(struct trunk_announcer_info *info, size_t struct_size);

// Fills struct_size bytes at counts with zeros and its size. Call it as
// trunk_announcer_counts_init(&counts).
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
trunk_result trunk_announcer_counts_init_sized(struct trunk_announcer_counts *counts,
                                               size_t struct_size);

// Lets this device be found from now on and stores the announcer, which is valid until
// trunk_announcer_close. Everything that config points to is copied.
//
// An announcer stands beside an engine, has no thread, and answers only inside
// trunk_announcer_poll. One thread at a time is inside an announcer; while one polls, other calls
// with it give TRUNK_ERR_WOULD_BLOCK, except for trunk_announcer_wake and trunk_announcer_close.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_SYSTEM
// (no interface can be used; trunk_last_error has the reason for each).
trunk_result trunk_announcer_start(const struct trunk_announcer_config *config,
                                   trunk_announcer *announcer);

// The same for a listener of an engine: its address and port are taken where config->listen and
// config->announcement->port state none. The announcer does not end with the listener.
//
// Any thread, never blocks. Errors: as trunk_announcer_start, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_FORKED.
trunk_result trunk_announcer_start_for_listener(struct trunk_engine *engine,
                                                trunk_listener listener,
                                                const struct trunk_announcer_config *config,
                                                trunk_announcer *announcer);

// Ends an announcer and tells those who asked; the handle is stale afterwards. 0 is allowed. A
// thread that is inside trunk_announcer_poll comes back at once, with TRUNK_ERR_INVALID_HANDLE.
//
// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_FORKED (nothing is freed).
trunk_result trunk_announcer_close(trunk_announcer announcer);

// Answers questions for timeout_ns (TRUNK_WAIT_FOREVER, or nanoseconds); with TRUNK_WAIT_NOT, those
// that are waiting.
//
// Any thread, one at a time. BLOCKS for timeout_ns; trunk_announcer_wake and trunk_announcer_close
// end it. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK
// (another thread is inside), TRUNK_ERR_SYSTEM (nothing that has to do with a single interface),
// TRUNK_ERR_FORKED.
trunk_result trunk_announcer_poll(trunk_announcer announcer, int64_t timeout_ns);

// Stores a file descriptor that is readable when trunk_announcer_poll has something to hear, for an
// event loop of the application: wait until it is readable or trunk_announcer_next_timeout_ns has
// passed, poll with TRUNK_WAIT_NOT, and ask for the next timeout again. It belongs to the
// announcer: do not read or close it.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_UNSUPPORTED (Windows), TRUNK_ERR_FORKED.
trunk_result trunk_announcer_fd(trunk_announcer announcer, int32_t *fd);

// Stores how many nanoseconds may pass until trunk_announcer_poll has work even if nothing arrives;
// 0 = now. Ask again after every poll.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_next_timeout_ns(trunk_announcer announcer, int64_t *timeout_ns);

// Ends the wait of the thread that is inside trunk_announcer_poll, or of the next one, or makes the
// descriptor readable.
//
// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_SYSTEM, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_wake(trunk_announcer announcer);

// Tells something else from now on; those who ask learn of it with their next question. After
// TRUNK_ERR_INVALID_ARGUMENT it is as before.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_announce(trunk_announcer announcer,
                                      const struct trunk_announcement *announcement);

// Ends the announcement: those who asked are told, nothing is answered any more, and the state is
// TRUNK_PRESENCE_ENDED for good. trunk_announcer_close is still due, and does the same by itself.
//
// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WOULD_BLOCK,
// TRUNK_ERR_FORKED.
trunk_result trunk_announcer_withdraw(trunk_announcer announcer);

// Stores the state of an announcer: TRUNK_PRESENCE_READY while somebody has asked within the
// heartbeat, TRUNK_PRESENCE_ENDED once withdrawn, otherwise TRUNK_PRESENCE_WAITING_FOR_REQUEST.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_state(trunk_announcer announcer, trunk_presence_state *state);

// Stores what an announcer tells those who ask, and how many have asked.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_get_info(trunk_announcer announcer, struct trunk_announcer_info *info);

// Stores what an announcer has done with what it received.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_get_counts(trunk_announcer announcer,
                                        struct trunk_announcer_counts *counts);

// Stores where questions are heard: at most capacity addresses at addresses (NULL with a capacity
// of 0), and at count how many there are, which may be more.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_addresses(trunk_announcer announcer,
                                       struct trunk_presence_address *addresses,
                                       size_t capacity,
                                       size_t *count);

// Stores what goes wrong on single interfaces now: at most capacity problems at problems (NULL with
// a capacity of 0), and at count how many there are, which may be more.
//
// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_HANDLE,
// TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_FORKED.
trunk_result trunk_announcer_problems(trunk_announcer announcer,
                                      struct trunk_presence_problem *problems,
                                      size_t capacity,
                                      size_t *count);

// Tells an announcer that the network has changed: with the next poll it looks at the interfaces.
// Not needed, but faster than waiting.
//
// Any thread, never blocks. Errors: TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_WOULD_BLOCK,
// TRUNK_ERR_FORKED.
trunk_result trunk_announcer_network_changed(trunk_announcer announcer);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRUNKLINE_H */

/*
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
TRUNK_DEFINE_INIT(trunk_interfaces)
TRUNK_DEFINE_INIT(trunk_discovery_config)
TRUNK_DEFINE_INIT(trunk_discovery_counts)
TRUNK_DEFINE_INIT(trunk_announcement)
TRUNK_DEFINE_INIT(trunk_announcer_config)
TRUNK_DEFINE_INIT(trunk_announcer_info)
TRUNK_DEFINE_INIT(trunk_announcer_counts)

#undef TRUNK_DEFINE_INIT
