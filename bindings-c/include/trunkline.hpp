/// @file
/// Trunkline for C++17 and later: trunkline.h with owners, values and results.
///
/// Header-only, and NOT part of the stable ABI: a program has in it what its compiler made of this
/// file, which may change with every version. Keep these types out of the interfaces of shared
/// libraries, and compile all files of a program for one standard. The library is called through
/// trunkline.h alone, which is stable. What has no wrapper is called there, with raw() and id().
///
/// Exceptions and RTTI are not needed. Calls answer a trunk::status or a trunk::result, and nothing
/// here throws but the standard library for want of memory. An exception that leaves a function of
/// the application which the library calls (trunk::handler) ends the program with std::terminate.
///
/// What is one call of trunkline.h is that function: threads, waits and errors stand there. Other
/// functions are for any thread and do not block, unless they say so. What is passed in is copied,
/// but for trunk::channel::send_external.
/// Handles and engines may be used by several threads at once, the rest as long as none changes it.
#ifndef TRUNKLINE_HPP
#define TRUNKLINE_HPP

#include "trunkline.h"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif

/// All of trunkline.hpp.
namespace trunk {

#if __cplusplus >= 202002L
using std::span;
#else
/// As much of std::span as is needed, where there is none. Owns nothing.
template <class T> class span {
    T *data_ = nullptr;
    std::size_t size_ = 0;
public:
    constexpr span() noexcept = default;                                             ///< Of none.
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {} ///< Of these.
    constexpr T *data() const noexcept { return data_; }                             ///< The first.
    constexpr std::size_t size() const noexcept { return size_; }                    ///< How many.
    constexpr T *begin() const noexcept { return data_; }                            ///< The first.
    constexpr T *end() const noexcept { return data_ + size_; }                      ///< After all.
    constexpr T &operator[](std::size_t i) const { return data_[i]; }                ///< One.
};
#endif

using nanoseconds = std::chrono::nanoseconds;                      ///< All times.
inline constexpr nanoseconds forever{TRUNK_WAIT_FOREVER};          ///< Wait as long as it takes.
inline constexpr nanoseconds no_wait{TRUNK_WAIT_NOT};              ///< Do not wait.
inline constexpr nanoseconds default_linger{TRUNK_LINGER_DEFAULT}; ///< As long as is configured.
inline constexpr nanoseconds no_linger{TRUNK_LINGER_NONE};         ///< Drop what is not delivered.

/// Bytes to send, for the length of a call: a text, some memory, or a container of bytes.
class bytes {
    const void *data_;
    std::size_t size_;
public:
    bytes(const void *data, std::size_t size) noexcept : data_(data), size_(size) {} ///< These.
    bytes(const char *text) noexcept : bytes(std::string_view(text)) {} ///< Without its NUL.
    /// Of anything that has data() and size() and consists of bytes.
    template <class C, class = std::enable_if_t<sizeof(*std::declval<const C &>().data()) == 1>>
    bytes(const C &all) noexcept : data_(all.data()), size_(all.size()) {}
    const void *data() const noexcept { return data_; } ///< The first one.
    std::size_t size() const noexcept { return size_; } ///< Number of bytes.
};

/// What a call answers: done, or an error with its words.
class [[nodiscard]] status {
    trunk_result code_;
    std::string message_;
public:
    /// What a function gave, with trunk_last_error. The usual WOULD_BLOCK and DROPPED go without.
    explicit status(trunk_result code = TRUNK_OK) : code_(code) {
        if (code != TRUNK_OK && code != TRUNK_ERR_WOULD_BLOCK && code != TRUNK_ERR_DROPPED) {
            message_ = trunk_last_error();
        }
    }
    trunk_result code() const noexcept { return code_; }                  ///< TRUNK_OK or an error.
    const char *name() const noexcept { return trunk_result_str(code_); } ///< The code in words.
    const std::string &message() const noexcept { return message_; }      ///< The detail in words.
    explicit operator bool() const noexcept { return code_ == TRUNK_OK; } ///< Whether it is done.
    /// Ends the program (std::exit), with the words on standard error, unless it is done. Not for
    /// callbacks, nor while an engine may call a handler of static lifetime.
    void must(const char *what) const {
        if (code_ != TRUNK_OK) {
            std::fprintf(stderr, "%s: %s (%s)\n", what, message_.c_str(), name());
            std::exit(1);
        }
    }
};

/// What a call gives, or an error. Owns it.
template <class T> class [[nodiscard]] result {
    std::optional<T> value_;
    trunk::status status_;
public:
    result(T value) : value_(std::move(value)) {}                    ///< What it gives.
    result(trunk::status error) : status_(std::move(error)) {}       ///< An error.
    explicit operator bool() const noexcept { return !!value_; }     ///< Whether it has a value.
    const trunk::status &status() const noexcept { return status_; } ///< Done, or the error.
    T &operator*() noexcept { return *value_; }                      ///< The value that it has.
    T *operator->() noexcept { return &*value_; }                    ///< The same.
    /// The value, moved out. Without one, ends the program as trunk::status::must.
    T must(const char *what) {
        status_.must(what);
        return std::move(*value_);
    }
};

/// @cond
namespace detail {
template <class T> void init(T &) noexcept {} // not a struct that grows
#define TRUNK_INIT_(name)                                                                          \
    inline void init(trunk_##name &to) noexcept { trunk_##name##_init_sized(&to, sizeof to); }
TRUNK_INIT_(engine_config) TRUNK_INIT_(connection_config) TRUNK_INIT_(identity) TRUNK_INIT_(trust)
TRUNK_INIT_(listen_config) TRUNK_INIT_(connect_config) TRUNK_INIT_(channel_options)
TRUNK_INIT_(conn_info) TRUNK_INIT_(conn_stats) TRUNK_INIT_(engine_stats)
TRUNK_INIT_(shutdown_report) TRUNK_INIT_(callbacks) TRUNK_INIT_(channel_info) TRUNK_INIT_(sec_info)
TRUNK_INIT_(shard_stats) TRUNK_INIT_(group_stats) TRUNK_INIT_(faults) TRUNK_INIT_(fault_config)
TRUNK_INIT_(association_config) TRUNK_INIT_(send_security) TRUNK_INIT_(pairing_config)
TRUNK_INIT_(pairing_status) TRUNK_INIT_(credential_grant) TRUNK_INIT_(credential)
TRUNK_INIT_(token_grant) TRUNK_INIT_(token) TRUNK_INIT_(source_config) TRUNK_INIT_(source_stats)
TRUNK_INIT_(interfaces) TRUNK_INIT_(discovery_config) TRUNK_INIT_(discovery_counts)
TRUNK_INIT_(announcement) TRUNK_INIT_(announcer_config) TRUNK_INIT_(announcer_info)
TRUNK_INIT_(announcer_counts)
#undef TRUNK_INIT_
// What a call with this code has stored.
template <class T> result<T> stored(trunk_result code, T &value) {
    return code == TRUNK_OK ? result<T>(std::move(value)) : result<T>(status(code));
}
// What f(arguments..., &value) stores: in trunkline.h, outputs are last.
template <class T, class F, class... A> result<T> output(F f, A... arguments) {
    T value{};
    init(value);
    return stored(f(arguments..., &value), value);
}
// The handle that f(engine, arguments..., &handle) stores.
template <class H, class F, class... A> result<H> made(trunk_engine *engine, F f, A... arguments) {
    auto id = output<std::uint64_t>(f, engine, arguments...);
    return id ? result<H>(H(engine, *id)) : id.status();
}
// A C struct that can be moved, and that Free gives back: all zeros are nothing.
template <class T, auto Free> struct owner {
    T raw_;
    explicit owner(const T &raw = {}) noexcept : raw_(raw) {}
    owner(owner &&other) noexcept : raw_(std::exchange(other.raw_, T{})) {}
    owner &operator=(owner &&other) noexcept {
        owner old(std::exchange(raw_, std::exchange(other.raw_, T{})));
        return *this;
    }
    ~owner() { Free(&raw_); }
};
inline void release(trunk_item *item) noexcept { trunk_message_release(item, 1); }
inline void destroy(trunk_engine **engine) noexcept { trunk_engine_destroy(*engine); }
inline const char *text(const std::string &s) noexcept { return s.empty() ? nullptr : s.c_str(); }
} // namespace detail
/// @endcond

/// A struct of trunkline.h with its size and its defaults, as its _init function makes it.
template <class T> T init() noexcept {
    T value{};
    detail::init(value);
    return value;
}

/// Options of a channel of this kind, otherwise with the defaults.
inline trunk_channel_options options(trunk_kind kind) noexcept {
    auto value = init<trunk_channel_options>();
    return value.kind = kind, value;
}

/// SHA-256 of a public key, which peers pin.
struct fingerprint {
    std::array<std::uint8_t, TRUNK_FINGERPRINT_BYTES> value{}; ///< Its bytes.
    /// Of 64 hexadecimal digits: trunk_fingerprint_parse.
    static result<fingerprint> parse(const char *text) {
        fingerprint f;
        return detail::stored(trunk_fingerprint_parse(text, f.value.data()), f);
    }
    /// As 64 hexadecimal digits: trunk_fingerprint_format.
    std::string text() const {
        char text[TRUNK_FINGERPRINT_TEXT_BYTES] = "";
        trunk_fingerprint_format(value.data(), text);
        return text;
    }
};
static_assert(sizeof(fingerprint) == TRUNK_FINGERPRINT_BYTES, "trunk_trust wants them so");

/// A certificate chain with its private key, as PEM: in files, or as texts, which it owns.
struct identity {
    std::string file;     ///< File with the chain, and the key unless key_file is given.
    std::string key_file; ///< File with the key.
    std::string pem;      ///< Text with the chain, and the key unless key_pem is given.
    std::string key_pem;  ///< Text with the key.
    /// A new key with a certificate for name (NULL = "trunkline"), in pem: trunk_identity_generate.
    static result<identity> generate(const char *name = nullptr) {
        identity made;
        made.pem.resize(4096);
        std::size_t size = 0;
        auto code = trunk_identity_generate(name, made.pem.data(), made.pem.size(), &size);
        made.pem.resize(code == TRUNK_OK ? size - 1 : 0);
        return detail::stored(code, made);
    }
    /// For C, as long as this object stays as it is.
    trunk_identity raw() const noexcept {
        auto c = init<trunk_identity>();
        c.file = detail::text(file), c.key_file = detail::text(key_file);
        c.pem = detail::text(pem), c.pem_size = pem.size();
        c.key_pem = detail::text(key_pem), c.key_pem_size = key_pem.size();
        return c;
    }
    /// What peers pin: trunk_identity_fingerprint. Reads the files.
    result<trunk::fingerprint> fingerprint() const {
        trunk::fingerprint f;
        auto c = raw();
        return detail::stored(trunk_identity_fingerprint(&c, f.value.data()), f);
    }
};

/// What makes a certificate acceptable. Owns its texts.
struct trust {
    trunk_trust_kind kind = TRUNK_TRUST_NONE; ///< How it is judged.
    std::vector<fingerprint> pins;            ///< TRUNK_TRUST_PINS: those that will do.
    std::string ca_file;                      ///< TRUNK_TRUST_CA: PEM file.
    std::string ca_pem;                       ///< TRUNK_TRUST_CA: PEM text.
    bool optional = false;                    ///< Hosts: clients may also show no certificate.
    /// Whoever has this key.
    static trust pin(const fingerprint &key) { return {TRUNK_TRUST_PINS, {key}, {}, {}, false}; }
    /// For C, as long as this object stays as it is.
    trunk_trust raw() const noexcept {
        auto c = init<trunk_trust>();
        c.kind = kind, c.optional = optional, c.ca_file = detail::text(ca_file);
        c.pins = pins.empty() ? nullptr : pins.front().value.data(), c.pin_count = pins.size();
        c.ca_pem = detail::text(ca_pem), c.ca_pem_size = ca_pem.size();
        return c;
    }
};

/// How to reach a peer. Owns what it has.
struct peer {
    std::vector<std::string> addresses;              ///< Its addresses, with ports.
    trunk::trust trust;                              ///< What makes it acceptable.
    std::string server_name;                         ///< Its name; empty = as in trunkline.h.
    std::optional<trunk::identity> identity;         ///< Who we are; none = as the engine says.
    std::string credential;                          ///< What is shown to it.
    std::optional<trunk_connection_config> settings; ///< Of connections; none = the engine's.
    trunk_connect_config more = init<trunk_connect_config>(); ///< reuse, group, user, link ...
    /// One with an address.
    peer(std::string address, trunk::trust who) : addresses{address}, trust(std::move(who)) {}
    /// Calls f with all of it for C, valid during the call, and gives what f gives.
    template <class F> auto with(F f) const {
        std::vector<const char *> list;
        for (const auto &address : addresses) list.push_back(address.c_str());
        auto who = trust.raw();
        auto own = identity ? identity->raw() : init<trunk_identity>();
        auto c = more;
        c.addresses = list.data(), c.address_count = list.size();
        c.trust = &who, c.identity = identity ? &own : nullptr;
        c.credential = detail::text(credential), c.credential_size = credential.size();
        c.server_name = detail::text(server_name), c.connection = settings ? &*settings : nullptr;
        return f(c);
    }
};

struct connection;
struct channel;

/// A look at a message or event, which trunk::items or trunk::message owns, or a callback's engine.
class item {
    const trunk_item *raw_;
    trunk_engine *engine_;
public:
    /// At an item of an engine.
    item(const trunk_item &raw, trunk_engine *engine) noexcept : raw_(&raw), engine_(engine) {}
    const trunk_item &raw() const noexcept { return *raw_; } ///< Its type, token, code ...
    connection conn() const noexcept;                        ///< The connection, or none.
    trunk::channel channel() const noexcept;                 ///< The channel, or none.
    /// TRUNK_ITEM_DATA: the bytes.
    span<const std::uint8_t> data() const noexcept { return {raw_->data, raw_->size}; }
    /// TRUNK_ITEM_DATA: the bytes as a text.
    std::string_view text() const noexcept {
        return {reinterpret_cast<const char *>(raw_->data), raw_->size};
    }
};

/// Owns one item: from trunk::items::take or trunk::arrival::keep. Outlives its engine.
class message : detail::owner<trunk_item, detail::release> {
    trunk_engine *engine_ = nullptr;
public:
    message() noexcept = default; ///< None.
    /// Takes an item over: no copy of it may be released.
    message(const trunk_item &raw, trunk_engine *engine) noexcept : owner(raw), engine_(engine) {}
    trunk::item item() const noexcept { return {raw_, engine_}; } ///< A look at it.
};

/// A batch of items: room to receive into again and again. Outlives its engine.
class items {
    std::vector<trunk_item> raw_;
    std::size_t n_ = 0;
    trunk_engine *engine_ = nullptr;
    friend struct group;
public:
    /// Iterates over a batch.
    struct iterator {
        const trunk_item *at;                                             ///< Where it is.
        trunk_engine *engine;                                             ///< Whose items they are.
        item operator*() const noexcept { return {*at, engine}; }         ///< The item.
        iterator &operator++() noexcept { return ++at, *this; }           ///< To the next one.
        bool operator!=(iterator b) const noexcept { return at != b.at; } ///< Whether elsewhere.
    };
    explicit items(std::size_t capacity = 64) : raw_(capacity) {} ///< Of this size.
    items(const items &) = delete;                                ///< It stays where it is.
    items &operator=(const items &) = delete;                     ///< The same.
    ~items() { clear(); }                                         ///< Gives all back.
    /// Gives all back: trunk_message_release.
    void clear() noexcept { trunk_message_release(raw_.data(), std::exchange(n_, 0)); }
    std::size_t size() const noexcept { return n_; }                      ///< How many.
    item operator[](std::size_t i) const { return {raw_[i], engine_}; }   ///< One of them.
    iterator begin() const noexcept { return {raw_.data(), engine_}; }    ///< The first one.
    iterator end() const noexcept { return {raw_.data() + n_, engine_}; } ///< After the last.
    /// Takes one out, to own it longer than the batch does; TRUNK_ITEM_NONE is left in its place.
    message take(std::size_t i) { return {std::exchange(raw_[i], {}), engine_}; }
};

/// Owns a send buffer, and frees it unless it is sent. Outlives its engine.
class buffer : detail::owner<trunk_buf, trunk_buf_free> {
public:
    using owner::owner;
    std::uint8_t *data() noexcept { return raw_.data; }             ///< Where to write, or NULL.
    std::size_t capacity() const noexcept { return raw_.capacity; } ///< Bytes that fit.
    trunk_buf *raw() noexcept { return &raw_; }                     ///< For C.
};

/// A handle with its engine: a small value that owns nothing. One that is stale, or whose engine is
/// gone, gives TRUNK_ERR_INVALID_HANDLE.
template <class Self> class handle {
    trunk_engine *engine_ = nullptr;
    std::uint64_t id_ = 0;

protected:
    /// What f(engine, handle, arguments...) answers.
    template <class F, class... A> status call(F f, A... arguments) const {
        return status(f(engine_, id_, arguments...));
    }
    /// What f(engine, handle, &value) stores.
    template <class T> result<T> get(trunk_result (*f)(trunk_engine *, std::uint64_t, T *)) const {
        return detail::output<T>(f, engine_, id_);
    }
public:
    constexpr handle() noexcept = default; ///< None.
    /// Of an engine and a handle of trunkline.h.
    constexpr handle(trunk_engine *engine, std::uint64_t id) noexcept : engine_(engine), id_(id) {}
    trunk_engine *engine() const noexcept { return engine_; }    ///< For C.
    std::uint64_t id() const noexcept { return id_; }            ///< For C.
    explicit operator bool() const noexcept { return id_ != 0; } ///< Whether it is one.
    /// Whether both name the same.
    friend bool operator==(Self a, Self b) { return a.id_ == b.id_ && a.engine_ == b.engine_; }
    friend bool operator!=(Self a, Self b) { return !(a == b); } ///< Whether they do not.
};

/// A poll group, as long as its engine. The engine's own has no id.
struct group : handle<group> {
    using handle::handle;
    /// Clears a batch, then receives into it: trunk_recv_many. BLOCKS for at most timeout.
    status receive(items &into, nanoseconds timeout = forever) const {
        into.clear(), into.engine_ = engine();
        return call(trunk_recv_many, into.raw_.data(), into.raw_.size(), timeout.count(), &into.n_);
    }
    status wake() const { return call(trunk_group_wake); } ///< Ends the wait of receive().
    result<trunk_group_stats> stats() const { return get(trunk_group_get_stats); } ///< What waits.
};

/// An address that is listened at, until close() or the end of its engine.
struct listener : handle<listener> {
    using handle::handle;
    /// With the port that the system chose: trunk_listener_address.
    result<std::string> address() const {
        char text[64] = "";
        auto s = call(trunk_listener_address, text, sizeof text, nullptr);
        return s ? result<std::string>(text) : s;
    }
    /// Accepts no more connections, and may close those that there are.
    status close(bool connections = false) const { return call(trunk_listener_close, connections); }
};

/// An association, until it is told to be TRUNK_ASSOCIATION_DESTROYED.
struct association : handle<association> {
    using handle::handle;
    /// Sends a copy as one message; items with its token tell what becomes of it.
    status send(bytes data, std::uint64_t token, const trunk_send_security *how = nullptr) const {
        return call(trunk_association_send, data.data(), data.size(), token, how);
    }
    status close() const { return call(trunk_association_close); } ///< Delivers first.
};

/// A request for a channel, until TRUNK_ITEM_OPENED answers it.
struct open_request : handle<open_request> {
    using handle::handle;
    status cancel() const { return call(trunk_open_request_cancel); } ///< Gives it up.
};

/// A channel, until it has ended or its connection is closed.
struct channel : handle<channel> {
    using handle::handle;
    /// Takes a request; NULL = with default options.
    status accept(const trunk_channel_options *own = nullptr) const {
        return call(trunk_channel_accept, own);
    }
    /// Makes an association of a request.
    result<association> accept(const trunk_association_config &how, group in = {}) const {
        return detail::made<association>(engine(), trunk_association_accept, id(), &how, in.id());
    }
    /// Declines a request.
    status decline(std::uint32_t code = 0, const char *text = nullptr) const {
        return call(trunk_channel_decline, code, text);
    }
    /// Sends a copy.
    status send(bytes data) const { return call(trunk_send, data.data(), data.size()); }
    /// Sends a copy of size bytes.
    status send(const void *data, std::size_t size) const { return call(trunk_send, data, size); }
    /// Sends a copy; TRUNK_ITEM_RECEIPT with the token, which may be 0, tells when it has arrived.
    status send_receipt(bytes data, std::uint64_t token) const {
        return call(trunk_send_receipt, data.data(), data.size(), token);
    }
    /// Sends size bytes without a copy. Unless it is refused, release gives them back, which is
    /// called with user, data and size: trunk_send_external. Token 0 = no receipt.
    status send_external(const void *data, std::size_t size, trunk_release_fn release, void *user,
                         std::uint64_t token = 0) const {
        return call(trunk_send_external, data, size, release, user, token);
    }
    /// Sends the first size bytes without a copy. If they are not taken, the caller still has the
    /// buffer, and may try again with the same size. Token 0 = no receipt.
    status send(buffer &&from, std::size_t size, std::uint64_t token = 0) const {
        return call(trunk_send_buf, from.raw(), size, token);
    }
    /// Sends received data without a copy; the item stays with its owner. Token 0 = no receipt.
    status send(item from, std::uint64_t token = 0) const {
        return call(trunk_send_item, &from.raw(), token);
    }
    status flush() const { return call(trunk_flush); }         ///< Sends now what waits for more.
    status close() const { return call(trunk_channel_close); } ///< Ends our direction.
    status reset(std::uint32_t code) const { return call(trunk_channel_reset, code); } ///< Aborts.
    status stop(std::uint32_t code) const { return call(trunk_channel_stop, code); } ///< Refuses.
    result<trunk_channel_info> info() const { return get(trunk_channel_get_info); } ///< About it.
    /// Keeps a pointer with it, which stays the caller's and comes with its items.
    status set_user(void *user) const { return call(trunk_channel_set_user, user); }
};

/// A connection, until close(), which those that have ended by themselves want too.
struct connection : handle<connection> {
    using handle::handle;
    status accept() const { return call(trunk_accept); } ///< Takes what is incoming.
    /// Refuses what is incoming.
    status reject(trunk_reason reason = 0, const char *text = nullptr) const {
        return call(trunk_reject, reason, text);
    }
    /// Closes it; what it lingers for goes on afterwards.
    status close(nanoseconds linger = default_linger, trunk_reason reason = 0,
                 const char *text = nullptr) const {
        return call(trunk_close, reason, text, linger.count());
    }
    /// Asks the peer for a channel, which can be sent on at once: trunk_channel_open.
    result<channel> open(const char *name, const trunk_channel_options &how) const {
        return detail::made<channel>(engine(), trunk_channel_open, id(), name, &how);
    }
    status check() const { return call(trunk_conn_check); } ///< Asks for a sign of life.
    status set_group(group to) const { return call(trunk_conn_set_group, to.id()); } ///< Moves it.
    /// Keeps a pointer with it, which stays the caller's and comes with its items.
    status set_user(void *user) const { return call(trunk_conn_set_user, user); }
    result<trunk_status> state() const { return get(trunk_conn_status); }            ///< Status.
    result<trunk_conn_info> info() const { return get(trunk_conn_get_info); }        ///< About it.
    result<trunk_conn_stats> stats() const { return get(trunk_conn_get_stats); }     ///< Counters.
    result<trunk_sec_info> sec_info() const { return get(trunk_conn_get_sec_info); } ///< Security.
};

/// A pairing, until close().
struct pairing : handle<pairing> {
    using handle::handle;
    /// @{
    /// As the functions trunk_pairing_... of the same names.
    status set_active(bool yes) const { return call(trunk_pairing_set_active, yes); }
    status assign_client_id(const char *i) const { return call(trunk_pairing_assign_client_id, i); }
    status assign_token(const char *token) const { return call(trunk_pairing_assign_token, token); }
    status assign_partner(const char *i) const { return call(trunk_pairing_assign_partner, i); }
    status connect(fingerprint to) const { return call(trunk_pairing_connect, to.value.data()); }
    status accept(fingerprint of) const { return call(trunk_pairing_accept, of.value.data()); }
    status leave() const { return call(trunk_pairing_leave); }
    status close() const { return call(trunk_pairing_close); }
    status send_relayed(bytes data) const {
        return call(trunk_pairing_send_relayed, data.data(), data.size());
    }
    result<trunk_pairing_status> state() const { return get(trunk_pairing_get_status); }
    /// @}
    /// Sends an event to the partner. waits, which may be NULL, gets whether it has to wait for it.
    status send(std::uint32_t subtype, bytes body, bool buffered = false,
                std::uint32_t *waits = nullptr) const {
        return call(trunk_pairing_send, subtype, body.data(), body.size(), buffered, waits);
    }
};

inline connection item::conn() const noexcept { return {engine_, raw_->conn}; }
inline channel item::channel() const noexcept { return {engine_, raw_->channel}; }

/// An item of a type, such as trunk::on<TRUNK_ITEM_DATA>: what trunk::visit hands out.
template <trunk_item_type Type> struct on : item {
    explicit on(item of) noexcept : item(of) {} ///< Of an item of this type.
    /// The struct that belongs to the type, trunk_status_change for instance; the item without one.
    auto operator->() const noexcept {
        [[maybe_unused]] const trunk_item_detail &d = raw().detail;
        if constexpr (Type == TRUNK_ITEM_STATUS) return d.status;
        else if constexpr (Type == TRUNK_ITEM_INCOMING) return d.incoming;
        else if constexpr (Type == TRUNK_ITEM_REQUEST) return d.request;
        else if constexpr (Type == TRUNK_ITEM_CLOSED) return d.closed;
        else if constexpr (Type == TRUNK_ITEM_DEAD) return d.dead;
        else if constexpr (Type == TRUNK_ITEM_OPENED) return d.opened;
        else if constexpr (Type == TRUNK_ITEM_ASSOCIATION) return d.association;
        else if constexpr (Type == TRUNK_ITEM_DELIVERED) return d.delivery;
        else if constexpr (Type == TRUNK_ITEM_UNDELIVERED) return d.delivery;
        else if constexpr (Type == TRUNK_ITEM_PAIRING) return d.pairing;
        else if constexpr (Type == TRUNK_ITEM_RELAYED) return d.relayed;
        else if constexpr (Type == TRUNK_ITEM_PEER) return d.peer;
        else if constexpr (Type == TRUNK_ITEM_PATH) return d.path;
        else return &raw();
    }
};

/// Calls the visitor with an item as the trunk::on that it is, unless it takes no such thing. One
/// that takes a trunk::item gets all that it has nothing better for, also of types yet unknown.
template <trunk_item_type Type = TRUNK_ITEM_PATH, class V> void visit(item of, V &&visitor) {
    if constexpr (Type == TRUNK_ITEM_NONE) {
        if constexpr (std::is_invocable_v<V &, item &>) visitor(of);
    } else if (of.raw().type != Type) {
        visit<Type - 1>(of, visitor);
    } else if constexpr (std::is_invocable_v<V &, on<Type> &>) {
        on<Type> known(of);
        visitor(known);
    }
}

/// Several lambdas as one visitor.
template <class... F> struct overloaded : F... {
    using F::operator()...; ///< Each of them.
};
template <class... F> overloaded(F...) -> overloaded<F...>; ///< Of these.

/// Data that a group with callbacks is told of; valid during the call.
struct arrival {
    trunk::channel channel;        ///< Where it came.
    void *channel_user;            ///< The channel's user data.
    trunk_kind kind;               ///< What the channel carries.
    span<const std::uint8_t> data; ///< Some bytes, or one message.
    /// Owns the bytes for longer: trunk_message_keep.
    result<message> keep() const {
        auto at = channel.engine();
        auto kept = detail::output<trunk_item>(trunk_message_keep, at, data.data(), data.size());
        return kept ? result<message>(message(*kept, at)) : kept.status();
    }
};

/// What a group calls, on the threads of the shards, several at once; see trunk_data_fn for what it
/// may do. It belongs to the caller, is for one engine, and must outlive it.
class handler {
    std::function<void(const arrival &)> on_data_;
    std::function<void(item)> on_item_;
    std::atomic<trunk_engine *> engine_{nullptr};
    friend class engine;
    trunk_callbacks raw(trunk_engine *engine) noexcept {
        engine_ = engine;
        auto c = init<trunk_callbacks>();
        c.user = this;
        c.on_data = [](void *user, trunk_channel channel, void *channel_user, trunk_kind kind,
                       const std::uint8_t *data, std::size_t size) noexcept {
            auto self = static_cast<handler *>(user);
            self->on_data_({{self->engine_, channel}, channel_user, kind, {data, size}});
        };
        c.on_item = [](void *user, const trunk_item *raw) noexcept {
            auto self = static_cast<handler *>(user);
            self->on_item_({*raw, self->engine_});
        };
        return c;
    }
public:
    /// Calls one function for data, the other for everything else.
    handler(std::function<void(const arrival &)> on_data, std::function<void(item)> on_item)
        : on_data_(std::move(on_data)), on_item_(std::move(on_item)) {}
};

/// Settings of an engine. Owns what it has, but not what the fields of raw point to.
struct config {
    trunk_engine_config raw = init<trunk_engine_config>(); ///< All settings but the following.
    std::optional<trunk::identity> identity;               ///< Who we are when we connect.
    std::optional<trunk_connection_config> settings;       ///< Of connections.
    trunk::handler *handler = nullptr;                     ///< Of the engine's own group.
};

/// Owns an engine, and ends it when it is destroyed, which must not happen inside a callback.
class engine : detail::owner<trunk_engine *, detail::destroy> {
    template <class T> result<T> get(trunk_result (*f)(trunk_engine *, T *)) const {
        return detail::output<T>(f, raw_);
    }
    template <class H, class F, class... A> result<H> reach(const peer &p, F f, A... more) const {
        return p.with([&](const auto &c) { return detail::made<H>(raw_, f, &c, more...); });
    }
public:
    engine() noexcept = default; ///< None.
    /// Makes one: trunk_engine_new.
    static result<engine> create(const config &with = {}) {
        auto c = with.raw;
        auto own = with.identity ? with.identity->raw() : init<trunk_identity>();
        auto calls = with.handler ? with.handler->raw(nullptr) : init<trunk_callbacks>();
        c.identity = with.identity ? &own : c.identity;
        c.connection = with.settings ? &*with.settings : c.connection;
        c.callbacks = with.handler ? &calls : c.callbacks;
        engine made;
        auto code = trunk_engine_new(&c, &made.raw_);
        if (with.handler) with.handler->engine_ = made.raw_;
        return detail::stored(code, made);
    }
    trunk_engine *raw() const noexcept { return raw_; } ///< For C.
    /// trunk_shutdown; details gets what became of each connection, if they fit. BLOCKS.
    result<trunk_shutdown_report> shutdown(nanoseconds linger = default_linger,
                                           span<trunk_conn_report> details = {}) const {
        auto report = init<trunk_shutdown_report>();
        report.connections = details.data(), report.connection_capacity = details.size();
        return detail::stored(trunk_shutdown(raw_, linger.count(), &report), report);
    }
    /// Without threads: drives the engine, BLOCKING for at most budget. Gives what happened.
    result<std::uint64_t> poll(nanoseconds budget) const {
        return detail::output<std::uint64_t>(trunk_engine_poll, raw_, budget.count());
    }
    result<std::int32_t> fd() const { return get(trunk_engine_fd); } ///< For an event loop.
    /// For an event loop: trunk_engine_next_timeout_ns.
    result<nanoseconds> next_timeout() const {
        auto ns = get(trunk_engine_next_timeout_ns);
        return ns ? result<nanoseconds>(nanoseconds(*ns)) : ns.status();
    }
    status wake() const { return status(trunk_engine_wake(raw_)); } ///< Ends the wait of poll().
    result<trunk_engine_stats> stats() const { return get(trunk_engine_get_stats); } ///< Counters.
    group own_group() const noexcept { return {raw_, 0}; } ///< What connections are in at first.
    /// A further one.
    result<group> new_group() const { return detail::made<group>(raw_, trunk_group_new); }
    /// One that calls.
    result<group> new_group(handler &to) const {
        auto c = to.raw(raw_);
        return detail::made<group>(raw_, trunk_group_new_callbacks, &c);
    }
    /// Receives from the engine's own group: trunk::group::receive. BLOCKS for at most timeout.
    status receive(items &into, nanoseconds timeout = forever) const {
        return own_group().receive(into, timeout);
    }
    /// Listens. Clients are not asked who they are.
    result<listener> listen(const char *address, const identity &as) const {
        auto own = as.raw();
        auto c = init<trunk_listen_config>();
        c.address = address, c.identity = &own;
        return listen(c);
    }
    /// Listens as it is told.
    result<listener> listen(const trunk_listen_config &how) const {
        return detail::made<listener>(raw_, trunk_listen, &how);
    }
    /// Connects, or shares a connection: trunk_connect.
    result<connection> connect(const peer &p) const { return reach<connection>(p, trunk_connect); }
    /// Asks a peer for a channel by name: trunk_channel_request.
    result<open_request> request(const peer &to, const char *name,
                                 const trunk_channel_options &how) const {
        return reach<open_request>(to, trunk_channel_request, name, &how);
    }
    /// Makes or finds an association with a peer: trunk_associate.
    result<association> associate(const peer &to, const trunk_association_config &how) const {
        return reach<association>(to, trunk_associate, &how);
    }
    /// Makes one that waits for a peer (NULL = anybody) to ask for it: trunk_association_listen.
    result<association> await(const trunk_association_config &how, const fingerprint *of = nullptr,
                              group in = {}) const {
        auto pin = of ? of->value.data() : nullptr;
        return detail::made<association>(raw_, trunk_association_listen, pin, &how, in.id());
    }
    /// Begins a pairing over an event source, which is the source of the config: trunk_pairing_new.
    result<pairing> pair(const peer &source, trunk_pairing_config how) const {
        return source.with([&](const auto &c) {
            how.source = &c;
            return detail::made<pairing>(raw_, trunk_pairing_new, &how);
        });
    }
    /// Takes a send buffer for at least size bytes: trunk_buf_alloc.
    result<buffer> allocate(std::size_t size) const {
        auto raw = detail::output<trunk_buf>(trunk_buf_alloc, raw_, size);
        return raw ? result<buffer>(buffer(*raw)) : raw.status();
    }
    /// Sends many short messages: trunk_send_many. sent may be NULL.
    status send(span<const trunk_outgoing> messages, std::size_t *sent = nullptr) const {
        return status(trunk_send_many(raw_, messages.data(), messages.size(), sent));
    }
};

} // namespace trunk

#endif
