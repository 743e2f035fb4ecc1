// trunkline.hpp, all of it, with real engines over loopback. The program runs the tests that its
// arguments name, and lists them without any.
#include "trunkline.hpp"
// Both can be included again.
#include "trunkline.h"
#include "trunkline.hpp"

#include <cstring>
#include <ctime>
#include <fstream>
#include <poll.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace std::chrono_literals;

namespace {

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition,   \
                         trunk_last_error());                                                      \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

// A call, and the result that it must have.
#define GIVES(expected, call)                                                                      \
    do {                                                                                           \
        trunk::status status_ = status_of(call);                                                   \
        if (status_.code() != (expected)) {                                                        \
            std::fprintf(stderr, "%s:%d: %s gives %d, %s (%s)\n", __FILE__, __LINE__, #call,       \
                         static_cast<int>(status_.code()), status_.name(),                         \
                         status_.message().c_str());                                               \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

#define OK(call) GIVES(TRUNK_OK, call)

trunk::status status_of(trunk::status s) { return s; }
template <class T> trunk::status status_of(const trunk::result<T> &r) { return r.status(); }

// ---- engines, and waiting ----

trunk::config small(bool threadless = false) {
    trunk::config c;
    c.raw.threadless = threadless;
    c.raw.rx_buffers = 64; // tests run side by side
    c.raw.tx_buffers = 16;
    if (std::getenv("TEST_WITH_MIO") != nullptr) {
        c.raw.driver = TRUNK_DRIVER_MIO;
    }
    return c;
}

trunk::engine new_engine(bool threadless = false) {
    return trunk::engine::create(small(threadless)).must("engine");
}

// An engine that listens; what others need to connect to it.
struct host {
    trunk::engine engine;
    trunk::identity identity = trunk::identity::generate("host.test").must("identity");
    trunk::listener listener;

    explicit host(const trunk::config &c = small())
        : engine(trunk::engine::create(c).must("host")),
          listener(engine.listen("127.0.0.1:0", identity).must("listen")) {}
    trunk::peer peer() {
        auto pin = identity.fingerprint().must("fingerprint");
        return trunk::peer(listener.address().must("address"), trunk::trust::pin(pin));
    }
};

// Receives one item at a time, in a batch of its own.
struct inbox {
    trunk::group group;
    std::vector<const trunk::engine *> driven; // without threads
    trunk::items batch{1};

    explicit inbox(const trunk::engine &e) : group(e.own_group()) {}
    trunk::item next() {
        auto deadline = std::chrono::steady_clock::now() + 20s;
        do {
            CHECK(std::chrono::steady_clock::now() < deadline && "nothing more comes");
            for (auto engine : driven) {
                OK(engine->poll(1ms));
            }
            OK(group.receive(batch, driven.empty() ? 20ms : 0ms));
        } while (batch.size() == 0);
        return batch[0];
    }
    // The next item, which must be of this type.
    template <trunk_item_type Type> trunk::on<Type> expect() {
        trunk::item i = next();
        if (i.raw().type != Type) {
            std::fprintf(stderr, "item %u instead of %u\n", i.raw().type, Type);
            _exit(1);
        }
        return trunk::on<Type>(i);
    }
    // The same, skipping others; accepts connections and channels on the way.
    template <trunk_item_type Type> trunk::on<Type> until() {
        for (;;) {
            trunk::item i = next();
            if (i.raw().type == Type) {
                return trunk::on<Type>(i);
            }
            trunk::visit(i, trunk::overloaded{
                                [](trunk::on<TRUNK_ITEM_INCOMING> e) { OK(e.conn().accept()); },
                                [](trunk::on<TRUNK_ITEM_REQUEST> e) { OK(e.channel().accept()); },
                            });
        }
    }
};

// A host and a client that are connected, with a channel that both have accepted.
struct pair {
    host h;
    trunk::engine client;
    inbox at_host, at_client;
    trunk::connection ours, theirs;
    trunk::channel our_end, their_end;

    explicit pair(trunk_kind kind = TRUNK_KIND_MESSAGES, bool threadless = false)
        : h(small(threadless)), client(new_engine(threadless)), at_host(h.engine),
          at_client(client) {
        if (threadless) {
            at_host.driven = at_client.driven = {&h.engine, &client};
        }
        ours = client.connect(h.peer()).must("connect");
        theirs = at_host.expect<TRUNK_ITEM_INCOMING>().conn();
        OK(theirs.accept());
        CHECK(at_host.expect<TRUNK_ITEM_STATUS>()->new_status == TRUNK_STATUS_CONNECTED);
        CHECK(at_client.expect<TRUNK_ITEM_STATUS>()->new_status == TRUNK_STATUS_CONNECTED);
        our_end = ours.open("talk", trunk::options(kind)).must("open");
        auto request = at_host.expect<TRUNK_ITEM_REQUEST>();
        CHECK(std::strcmp(request->name, "talk") == 0 && request->options.kind == kind);
        their_end = request.channel();
        OK(their_end.accept());
        at_host.expect<TRUNK_ITEM_READY>();
        at_client.expect<TRUNK_ITEM_READY>();
    }
};

template <class F> void within_20_s(F done) {
    for (int i = 0; i < 20000 && !done(); i++) {
        std::this_thread::sleep_for(1ms);
    }
    CHECK(done());
}

// ---- values ----

// A batch is what it is: a copy would give its items back twice.
static_assert(!std::is_copy_constructible_v<trunk::items>);
static_assert(!std::is_copy_assignable_v<trunk::items>);

template <class T> void starts_with_its_size() {
    T value = trunk::init<T>();
    CHECK(value.struct_size == sizeof(T));
}

void structs_are_initialised() {
    starts_with_its_size<trunk_engine_config>();
    starts_with_its_size<trunk_connection_config>();
    starts_with_its_size<trunk_identity>();
    starts_with_its_size<trunk_trust>();
    starts_with_its_size<trunk_listen_config>();
    starts_with_its_size<trunk_connect_config>();
    starts_with_its_size<trunk_channel_options>();
    starts_with_its_size<trunk_conn_info>();
    starts_with_its_size<trunk_conn_stats>();
    starts_with_its_size<trunk_engine_stats>();
    starts_with_its_size<trunk_shutdown_report>();
    starts_with_its_size<trunk_callbacks>();
    starts_with_its_size<trunk_channel_info>();
    starts_with_its_size<trunk_sec_info>();
    starts_with_its_size<trunk_shard_stats>();
    starts_with_its_size<trunk_group_stats>();
    starts_with_its_size<trunk_faults>();
    starts_with_its_size<trunk_fault_config>();
    starts_with_its_size<trunk_association_config>();
    starts_with_its_size<trunk_send_security>();
    starts_with_its_size<trunk_pairing_config>();
    starts_with_its_size<trunk_pairing_status>();
    starts_with_its_size<trunk_credential_grant>();
    starts_with_its_size<trunk_credential>();
    starts_with_its_size<trunk_token_grant>();
    starts_with_its_size<trunk_token>();
    starts_with_its_size<trunk_source_config>();
    starts_with_its_size<trunk_source_stats>();
    starts_with_its_size<trunk_interfaces>();
    starts_with_its_size<trunk_discovery_config>();
    starts_with_its_size<trunk_discovery_counts>();
    starts_with_its_size<trunk_announcement>();
    starts_with_its_size<trunk_announcer_config>();
    starts_with_its_size<trunk_announcer_info>();
    starts_with_its_size<trunk_announcer_counts>();
    CHECK(trunk::init<trunk_connection_config>().keep_alive_ns == 3000000000u);
    auto o = trunk::options(TRUNK_KIND_DATAGRAMS);
    CHECK(o.kind == TRUNK_KIND_DATAGRAMS && o.priority == 4 && o.weight == 16);
}

bool same(trunk::bytes a, std::string_view b) {
    return std::string_view(static_cast<const char *>(a.data()), a.size()) == b;
}

void bytes_of_everything() {
    const std::string text = "one";
    const std::vector<unsigned char> list = {'t', 'w', 'o'};
    const std::array<std::byte, 1> byte = {std::byte{'3'}};
    const std::uint8_t raw[] = {'f', 'o', 'u', 'r'};
    CHECK(same(text, "one") && same(list, "two") && same(byte, "3"));
    CHECK(same({raw, sizeof raw}, "four") && same("literal", "literal") && same("", ""));
    CHECK(same(std::string_view("view"), "view"));
    CHECK(same(trunk::span<const std::uint8_t>(raw, 2), "fo"));
    static_assert(!std::is_constructible_v<trunk::bytes, std::vector<int>>, "ints are not bytes");
    trunk::span<const std::uint8_t> some(raw, sizeof raw);
    std::size_t sum = 0;
    for (auto b : some) {
        sum += b;
    }
    CHECK(sum == 'f' + 'o' + 'u' + 'r' && some[1] == 'o' && trunk::span<int>().size() == 0);
}

// What a call that does not return leaves behind: the exit code, or a signal and 1000.
template <class F> int ends(F f) {
    std::fflush(nullptr);
    pid_t child = fork();
    if (child == 0) {
        CHECK(std::freopen("/dev/null", "w", stderr) != nullptr);
        f();
        _exit(0);
    }
    int how = 0;
    CHECK(child > 0 && waitpid(child, &how, 0) == child);
    return WIFEXITED(how) ? WEXITSTATUS(how) : 1000 + WTERMSIG(how);
}

void results_and_fingerprints() {
    trunk::status done;
    CHECK(done && done.code() == TRUNK_OK && done.message().empty());
    auto bad = trunk::fingerprint::parse("xyz");
    CHECK(!bad && bad.status().code() == TRUNK_ERR_INVALID_ARGUMENT);
    CHECK(std::strcmp(bad.status().name(), "invalid argument") == 0);
    CHECK(!bad.status().message().empty());
    CHECK(trunk::status(TRUNK_ERR_WOULD_BLOCK).message().empty()); // not the words of another error
    std::string text(64, 'a');
    auto good = trunk::fingerprint::parse(text.c_str());
    CHECK(good && good->value[31] == 0xaa && (*good).text() == text);
    CHECK(ends([&] { bad.status().must("parse"); }) == 1);
    CHECK(ends([&] { (void)bad.must("parse"); }) == 1);
    CHECK(ends([&] { (void)good.must("parse"); }) == 0);
    CHECK(std::strlen(trunk_version_str()) >= 5);
}

void identities() {
    auto made = trunk::identity::generate("me.test").must("generate");
    auto other = trunk::identity::generate().must("generate");
    auto pin = made.fingerprint().must("fingerprint");
    CHECK(made.pem.find("PRIVATE KEY") != std::string::npos && made.pem.back() != '\0');
    CHECK(pin.value != other.fingerprint().must("fingerprint").value);
    // The same from files: all in one, and apart.
    const char *folder = std::getenv("TMPDIR");
    auto file = std::string(folder ? folder : "/tmp") + "/wrapper-" + std::to_string(getpid());
    auto at = made.pem.find("-----BEGIN CERTIFICATE");
    auto key = at == 0 ? made.pem.substr(made.pem.find("-----BEGIN", 1)) : made.pem.substr(0, at);
    auto chain = at == 0 ? made.pem.substr(0, made.pem.size() - key.size()) : made.pem.substr(at);
    std::ofstream(file + ".all") << made.pem;
    std::ofstream(file + ".chain") << chain;
    std::ofstream(file + ".key") << key;
    trunk::identity loaded;
    loaded.file = file + ".all";
    CHECK(loaded.fingerprint().must("one file").value == pin.value);
    loaded.file = file + ".chain";
    loaded.key_file = file + ".key";
    CHECK(loaded.fingerprint().must("two files").value == pin.value);
    for (auto end : {".all", ".chain", ".key"}) {
        CHECK(unlink((file + end).c_str()) == 0);
    }
    GIVES(TRUNK_ERR_FILE, loaded.fingerprint());
    CHECK(loaded.fingerprint().status().message().find(file) != std::string::npos);
    trunk::identity texts;
    texts.pem = chain;
    texts.key_pem = key;
    CHECK(texts.fingerprint().must("two texts").value == pin.value);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk::identity().fingerprint());
}

// ---- connections ----

void whole_life_with(bool threadless) {
    pair p(TRUNK_KIND_MESSAGES, threadless);
    int data = 0;
    OK(p.their_end.set_user(&data));
    OK(p.theirs.set_user(&p));
    OK(p.our_end.send_receipt("there", 7));
    auto i = p.at_host.expect<TRUNK_ITEM_DATA>();
    CHECK(i.text() == "there" && i.data().size() == 5 && i.data()[4] == 'e');
    CHECK(i.raw().channel_user == &data && i.raw().conn_user == &p);
    CHECK(i.channel() == p.their_end && i.conn() == p.theirs && i->kind == TRUNK_KIND_MESSAGES);
    OK(i.channel().send(i));    // without a copy
    OK(i.channel().send(i, 9)); // once more, with a receipt
    OK(i.channel().send_receipt(i.data(), 8)); // as a copy
    OK(p.our_end.send(std::vector<std::uint8_t>{}));
    CHECK(p.at_host.until<TRUNK_ITEM_DATA>().data().size() == 0); // receipts may come before
    int echoes = 0, receipts = 0;
    while (echoes < 3 || receipts < 1) {
        trunk::visit(p.at_client.next(),
                     trunk::overloaded{
                         [&](trunk::on<TRUNK_ITEM_DATA> e) { echoes += e.text() == "there"; },
                         [&](trunk::on<TRUNK_ITEM_RECEIPT> &e) { receipts += e->token == 7; },
                         [](trunk::item o) { CHECK(o.raw().type == TRUNK_ITEM_NONE); },
                     });
    }
    OK(p.our_end.flush());
    OK(p.ours.check());
    while (p.at_client.next().raw().type != TRUNK_ITEM_CHECK_ANSWERED) {
    }

    auto info = p.ours.info().must("info");
    auto pin = p.h.identity.fingerprint().must("fingerprint");
    CHECK(info.role == TRUNK_ROLE_CLIENT && std::memcmp(info.peer, pin.value.data(), 32) == 0);
    CHECK(p.ours.stats().must("stats").packets_sent > 0);
    CHECK(p.ours.sec_info().must("sec_info").proven);
    CHECK(p.ours.state().must("state") == TRUNK_STATUS_CONNECTED);
    CHECK(std::strcmp(p.our_end.info().must("info").name, "talk") == 0);
    CHECK(p.client.stats().must("stats").connections == 1);
    CHECK(p.at_client.group.stats().must("stats").dropped == 0);

    OK(p.our_end.close());
    while (p.at_host.next().raw().type != TRUNK_ITEM_EOF) {
    }
    OK(p.their_end.close());
    p.at_client.expect<TRUNK_ITEM_EOF>();
    auto closed = p.at_client.expect<TRUNK_ITEM_CLOSED>();
    CHECK(closed->end == TRUNK_END_FINISHED && closed.channel() == p.our_end);
    GIVES(TRUNK_ERR_INVALID_HANDLE, p.our_end.send("late"));

    OK(p.ours.close(trunk::default_linger, 1234, "good night"));
    GIVES(TRUNK_ERR_INVALID_HANDLE, p.ours.state());
    p.at_host.until<TRUNK_ITEM_CLOSED>();
    auto status = p.at_host.expect<TRUNK_ITEM_STATUS>();
    CHECK(status->new_status == TRUNK_STATUS_CLOSED_BY_PEER && status->reason == 1234);
    CHECK(std::strcmp(status->reason_text, "good night") == 0);
    std::vector<trunk_conn_report> details(4);
    auto report = p.h.engine.shutdown(1s, {details.data(), details.size()}).must("shutdown");
    CHECK(report.all_delivered && report.connection_count == 1 && report.acknowledged_bytes >= 15);
    CHECK(details[0].conn == p.theirs.id() && details[0].conn_user == &p);
    p.at_host.driven.clear();
    CHECK(p.at_host.expect<TRUNK_ITEM_DEAD>()->reason == 1234);
    GIVES(TRUNK_ERR_STOPPED, p.h.engine.receive(p.at_host.batch));
}

void whole_life() { whole_life_with(false); }
void whole_life_without_threads() { whole_life_with(true); }

// An event loop: what is readable, and when.
void event_loop() {
    host h;
    inbox at_host(h.engine);
    auto e = new_engine(true);
    auto conn = e.connect(h.peer()).must("connect");
    auto channel = conn.open("bytes", trunk::options(TRUNK_KIND_BYTES)).must("open");
    OK(channel.send("over it"));
    trunk::items batch;
    bool connected = false;
    while (!connected) {
        auto timeout = e.next_timeout().must("timeout");
        pollfd ready = {e.fd().must("fd"), POLLIN, 0};
        auto ms = timeout < 0ms ? 1000 : timeout / 1ms + 1; // forever is negative
        CHECK(poll(&ready, 1, static_cast<int>(std::min<std::int64_t>(ms, 100))) >= 0);
        OK(e.poll(trunk::no_wait));
        OK(e.receive(batch, trunk::no_wait));
        for (trunk::item i : batch) {
            if (i.raw().type == TRUNK_ITEM_STATUS) {
                connected = trunk::on<TRUNK_ITEM_STATUS>(i)->new_status == TRUNK_STATUS_CONNECTED;
            }
        }
        OK(h.engine.receive(at_host.batch, trunk::no_wait));
        for (trunk::item i : at_host.batch) {
            if (i.raw().type == TRUNK_ITEM_INCOMING) {
                OK(i.conn().accept());
            }
        }
    }
    std::thread other([&] {
        GIVES(TRUNK_ERR_WRONG_THREAD, e.poll(trunk::no_wait));
        OK(e.wake());
    });
    auto start = std::chrono::steady_clock::now();
    OK(e.poll(5s));
    CHECK(std::chrono::steady_clock::now() - start < 4s);
    other.join();
    GIVES(TRUNK_ERR_NOT_THREADLESS, h.engine.poll(trunk::no_wait));
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, e.poll(trunk::nanoseconds(-2)));
}

void groups() {
    host h;
    inbox at_host(h.engine);
    auto e = new_engine();
    auto group = e.new_group().must("group");
    auto to = h.peer();
    to.more.group = group.id();
    int user = 0;
    to.more.user = &user;
    auto conn = e.connect(to).must("connect");
    OK(at_host.expect<TRUNK_ITEM_INCOMING>().conn().accept());
    inbox further(e);
    further.group = group;
    CHECK(further.expect<TRUNK_ITEM_STATUS>().raw().conn_user == &user);
    OK(conn.set_group(e.own_group()));
    OK(conn.check());
    inbox own(e);
    own.expect<TRUNK_ITEM_CHECK_ANSWERED>();
    std::thread waits([&] {
        trunk::items none;
        OK(group.receive(none, trunk::forever));
        CHECK(none.size() == 0);
    });
    std::this_thread::sleep_for(50ms);
    OK(group.wake());
    waits.join();
    trunk::items no_room(0);
    GIVES(TRUNK_ERR_NULL, group.receive(no_room));
}

// What can be said about a peer and shown to it, and how it refuses.
void peers() {
    host h;
    inbox at_host(h.engine);
    auto me = trunk::identity::generate("me.test").must("generate");
    auto my_pin = me.fingerprint().must("fingerprint");
    // A second address of the host, where clients must be who they should be.
    auto own = h.identity.raw();
    trunk::trust clients = trunk::trust::pin(my_pin);
    auto their = clients.raw();
    auto listen = trunk::init<trunk_listen_config>();
    listen.address = "127.0.0.1:0";
    listen.identity = &own;
    listen.client_trust = &their;
    auto listener = h.engine.listen(listen).must("listen");
    auto to = h.peer();
    to.addresses = {listener.address().must("address")};
    to.server_name = "host.test";
    to.identity = me;
    to.credential = std::string("tick\0et", 7);
    to.settings = trunk::init<trunk_connection_config>();
    to.settings->max_message = 500;
    auto config = small();
    config.settings = trunk::init<trunk_connection_config>();
    config.settings->max_message = 1000;
    config.identity = trunk::identity::generate().must("generate"); // not the one that is wanted
    auto e = trunk::engine::create(config).must("engine");
    inbox at_client(e);
    auto conn = e.connect(to).must("connect");
    auto incoming = at_host.expect<TRUNK_ITEM_INCOMING>();
    CHECK(std::strcmp(incoming->server_name, "host.test") == 0 && incoming->has_peer);
    CHECK(std::memcmp(incoming->peer, my_pin.value.data(), 32) == 0);
    CHECK(same({incoming->credential, incoming->credential_size}, std::string_view("tick\0et", 7)));
    OK(incoming.conn().accept());
    at_client.expect<TRUNK_ITEM_STATUS>();
    auto channel = conn.open("m", trunk::options(TRUNK_KIND_MESSAGES)).must("open");
    GIVES(TRUNK_ERR_TOO_LARGE, channel.send(std::string(501, 'x')));
    OK(channel.send(std::string(500, 'x')));
    OK(channel.close());
    OK(channel.send("too late"));
    auto failed = at_client.until<TRUNK_ITEM_SEND_FAILED>();
    CHECK(failed.channel() == channel && std::strlen(failed->detail.text) > 10);
    CHECK(e.connect(to).must("share") == conn);
    to.more.reuse = TRUNK_REUSE_FORCE_NEW;
    auto second = e.connect(to).must("connect");
    CHECK(second != conn && second);
    OK(at_host.until<TRUNK_ITEM_INCOMING>().conn().reject(1777, "not twice"));
    auto status = at_client.until<TRUNK_ITEM_STATUS>();
    CHECK(status.conn() == second && status->reason == 1777);
    to.identity.reset();
    OK(e.connect(to));
    CHECK(at_client.until<TRUNK_ITEM_STATUS>()->new_status != TRUNK_STATUS_CONNECTED);
    to.trust = {};
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, e.connect(to));
    to.trust.kind = TRUNK_TRUST_CA;
    to.trust.ca_file = "/nowhere.pem";
    GIVES(TRUNK_ERR_FILE, e.connect(to));
    to.trust = {};
    to.trust.kind = TRUNK_TRUST_DANGEROUS_ANY;
    to.identity = me;
    to.addresses.insert(to.addresses.begin(), "127.0.0.1:1");
    OK(e.connect(to));
    OK(at_host.until<TRUNK_ITEM_INCOMING>().conn().accept());
    OK(listener.close(true));
    GIVES(TRUNK_ERR_INVALID_HANDLE, listener.address());
}

void channels() {
    pair p(TRUNK_KIND_BYTES);
    auto how = trunk::options(TRUNK_KIND_DATAGRAMS);
    how.priority = 2;
    auto declined = p.ours.open("no", how).must("open");
    OK(p.at_host.expect<TRUNK_ITEM_REQUEST>().channel().decline(44, "no such thing"));
    auto closed = p.at_client.expect<TRUNK_ITEM_CLOSED>();
    CHECK(closed.channel() == declined && closed->end == TRUNK_END_DECLINED && closed->code == 44);
    CHECK(std::strcmp(closed->text, "no such thing") == 0);
    auto other = p.ours.open("other", trunk::options(TRUNK_KIND_BYTES)).must("open");
    auto theirs = p.at_host.expect<TRUNK_ITEM_REQUEST>().channel();
    auto own = trunk::options(TRUNK_KIND_BYTES);
    own.weight = 3;
    OK(theirs.accept(&own));
    p.at_host.expect<TRUNK_ITEM_READY>();
    CHECK(theirs.info().must("info").weight == 3);
    OK(other.reset(5));
    CHECK(p.at_host.expect<TRUNK_ITEM_RESET>()->code == 5);
    OK(p.our_end.stop(6));
    CHECK(p.at_host.until<TRUNK_ITEM_STOPPED>()->code == 6);
    // Many short ones at once; the first that is not taken is told.
    trunk_outgoing list[] = {{p.our_end.id(), "a", 1}, {p.our_end.id(), "b", 1}, {12345, "c", 1}};
    std::size_t sent = 9;
    OK(p.client.send({list, 2}, &sent));
    CHECK(sent == 2);
    GIVES(TRUNK_ERR_INVALID_HANDLE, p.client.send({list, 3}, &sent));
    CHECK(sent == 2);
    // Until the queues are full.
    trunk::status s;
    while (s) {
        s = p.our_end.send(std::string(100000, 'x'));
    }
    CHECK(s.code() == TRUNK_ERR_WOULD_BLOCK && s.message().empty());
    std::thread reads([&] {
        while (p.at_host.next().text().find('n') == std::string_view::npos) { // its last byte
        }
    });
    p.at_client.until<TRUNK_ITEM_WRITABLE>();
    OK(p.our_end.send("goes again"));
    reads.join();
}

void handles() {
    trunk::connection none;
    CHECK(!none && none == trunk::connection() && none.engine() == nullptr);
    GIVES(TRUNK_ERR_NULL, none.accept());
    trunk::connection conn, foreign;
    trunk::channel channel;
    {
        pair p;
        conn = p.ours;
        channel = p.our_end;
        foreign = trunk::connection(p.h.engine.raw(), conn.id()); // of the other engine
        CHECK(conn && conn != none && conn != foreign && conn.engine() == p.client.raw());
        GIVES(TRUNK_ERR_INVALID_HANDLE, foreign.info());
        auto moved = std::move(p.client); // the handles stay good
        OK(channel.send("still"));
        CHECK(p.at_host.expect<TRUNK_ITEM_DATA>().text() == "still");
        CHECK(p.client.raw() == nullptr);
        GIVES(TRUNK_ERR_NULL, p.client.wake());
        trunk::engine target;
        target = std::move(moved);
        OK(channel.flush());
    }
    GIVES(TRUNK_ERR_INVALID_HANDLE, conn.info());
    GIVES(TRUNK_ERR_INVALID_HANDLE, channel.send("late"));
}

// ---- owners ----

void buffers() {
    trunk::buffer outlives;
    {
        pair p;
        auto b = p.client.allocate(5).must("allocate");
        CHECK(b.data() != nullptr && b.capacity() >= 5);
        std::memcpy(b.data(), "hello", 5);
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk::channel(p.client.raw(), 1).send(std::move(b), 5));
        CHECK(b.data() != nullptr); // not taken
        auto moved = std::move(b);
        CHECK(b.data() == nullptr && b.capacity() == 0);
        OK(p.our_end.send(std::move(moved), 5, 3));
        CHECK(moved.data() == nullptr);
        GIVES(TRUNK_ERR_INVALID_HANDLE, p.our_end.send(std::move(moved), 5));
        CHECK(p.at_host.expect<TRUNK_ITEM_DATA>().text() == "hello");
        CHECK(p.at_client.expect<TRUNK_ITEM_RECEIPT>()->token == 3);
        // A pointer and a size are a part of a text, whatever comes after it.
        const char *text = "hello, and more";
        OK(p.our_end.send(text, 5));
        CHECK(p.at_host.expect<TRUNK_ITEM_DATA>().text() == "hello");
        // They come back when they are dropped.
        std::vector<trunk::buffer> all;
        trunk::status s;
        for (;;) {
            auto more = p.client.allocate(1);
            if (!more) {
                s = more.status();
                break;
            }
            all.push_back(std::move(*more));
        }
        CHECK(s.code() == TRUNK_ERR_WOULD_BLOCK && all.size() >= 60);
        all.clear();
        outlives = p.client.allocate(100).must("allocate");
        GIVES(TRUNK_ERR_TOO_LARGE, p.client.allocate(1 << 20));
    }
    outlives.data()[99] = 1;
}

void memory_of_the_application() {
    std::atomic<int> given_back{0};
    auto release = [](void *user, const void *, std::size_t size) {
        *static_cast<std::atomic<int> *>(user) += static_cast<int>(size);
    };
    const std::string text(100000, 'x');
    pair p;
    trunk::channel none(p.client.raw(), 1);
    GIVES(TRUNK_ERR_INVALID_HANDLE,
          none.send_external(text.data(), text.size(), release, &given_back));
    CHECK(given_back == 0); // refused
    OK(p.our_end.send_external(text.data(), text.size(), release, &given_back, 4));
    CHECK(p.at_host.expect<TRUNK_ITEM_DATA>().text() == text);
    CHECK(p.at_client.expect<TRUNK_ITEM_RECEIPT>()->token == 4);
    within_20_s([&] { return given_back == 100000; });
}

void items_are_given_back() {
    trunk::message kept, none;
    trunk::items batch(8);
    CHECK(none.item().raw().type == TRUNK_ITEM_NONE);
    {
        pair p;
        OK(p.our_end.send("one"));
        OK(p.our_end.send("two"));
        OK(p.our_end.send("three"));
        std::vector<trunk::message> all;
        while (all.size() < 3) {
            OK(p.h.engine.receive(batch, 20ms));
            for (std::size_t i = 0; i < batch.size(); i++) {
                all.push_back(batch.take(i));
                CHECK(batch[i].raw().type == TRUNK_ITEM_NONE);
            }
        }
        batch.clear();
        CHECK(batch.size() == 0 && !(batch.begin() != batch.end()));
        CHECK(all[0].item().text() == "one" && all[2].item().text() == "three");
        OK(p.their_end.send(all[1].item()));
        kept = std::move(all[2]);
        all.clear();
        CHECK(p.at_client.expect<TRUNK_ITEM_DATA>().text() == "two");
        OK(p.our_end.send("last"));
        do {
            OK(p.h.engine.receive(batch, 20ms));
        } while (batch.size() == 0);
    }
    // Both outlive their engine.
    CHECK(kept.item().text() == "three" && batch[0].text() == "last");
    GIVES(TRUNK_ERR_INVALID_HANDLE, kept.item().channel().send("late"));
}

// ---- callbacks ----

void echo_with(bool threadless) {
    std::atomic<int> data{0}, dead{0};
    std::optional<trunk::message> kept;
    trunk::handler calls(
        [&](const trunk::arrival &a) {
            CHECK(a.kind == TRUNK_KIND_MESSAGES && a.channel_user == &data);
            if (data == 0) {
                kept = a.keep().must("keep");
            }
            OK(a.channel.send(a.data));
            data++;
        },
        [&](trunk::item i) {
            trunk::visit(i, trunk::overloaded{
                                [](trunk::on<TRUNK_ITEM_INCOMING> e) { OK(e.conn().accept()); },
                                [&](trunk::on<TRUNK_ITEM_REQUEST> e) {
                                    OK(e.channel().set_user(&data));
                                    OK(e.channel().accept());
                                },
                                [](trunk::on<TRUNK_ITEM_STATUS> e) {
                                    if (e->new_status == TRUNK_STATUS_CLOSED_BY_PEER) {
                                        OK(e.conn().close(trunk::no_linger));
                                    }
                                },
                                [&](trunk::on<TRUNK_ITEM_DEAD>) { dead++; },
                            });
        });
    auto config = small(threadless);
    config.handler = &calls;
    host h(config);
    auto e = new_engine();
    inbox at_client(e);
    if (threadless) {
        at_client.driven = {&h.engine};
    }
    auto conn = e.connect(h.peer()).must("connect");
    auto channel = conn.open("echo", trunk::options(TRUNK_KIND_MESSAGES)).must("open");
    for (int i = 0; i < 100; i++) {
        OK(channel.send("message " + std::to_string(i)));
    }
    at_client.until<TRUNK_ITEM_READY>();
    for (int i = 0; i < 100; i++) {
        CHECK(at_client.expect<TRUNK_ITEM_DATA>().text() == "message " + std::to_string(i));
    }
    OK(conn.close());
    within_20_s([&] {
        if (threadless) {
            OK(h.engine.poll(1ms));
        }
        return dead == 1;
    });
    CHECK(data == 100 && kept->item().text() == "message 0");
    trunk::items none;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, h.engine.receive(none));
}

void callbacks() { echo_with(false); }
void callbacks_without_threads() { echo_with(true); }

void a_group_with_callbacks() {
    std::atomic<int> connected{0};
    trunk::engine *engine = nullptr;
    trunk::handler calls([](const trunk::arrival &) {},
                         [&](trunk::item i) {
                             if (i.raw().type == TRUNK_ITEM_STATUS) {
                                 CHECK(i.conn().engine() == engine->raw());
                                 GIVES(TRUNK_ERR_IN_CALLBACK, engine->shutdown());
                                 connected++;
                             }
                         });
    host h;
    inbox at_host(h.engine);
    auto e = new_engine();
    engine = &e;
    auto to = h.peer();
    to.more.group = e.new_group(calls).must("group").id();
    OK(e.connect(to));
    OK(at_host.expect<TRUNK_ITEM_INCOMING>().conn().accept());
    within_20_s([&] { return connected == 1; });
}

// An exception that leaves a function of the application ends the program.
void exceptions_end_the_program() {
#ifdef __cpp_exceptions
    auto throws = [] {
        std::set_terminate([] { _exit(77); });
        trunk::handler calls([](const trunk::arrival &) {}, [](trunk::item) { throw 1; });
        auto config = small();
        config.handler = &calls;
        host h(config);
        auto e = new_engine();
        OK(e.connect(h.peer()));
        std::this_thread::sleep_for(20s);
    };
    CHECK(ends(throws) == 77);
#endif
}

// ---- by peer and name ----

void requests() {
    host h;
    inbox at_host(h.engine);
    auto e = new_engine();
    inbox at_client(e);
    auto how = trunk::options(TRUNK_KIND_MESSAGES);
    auto one = e.request(h.peer(), "one", how).must("request");
    at_host.until<TRUNK_ITEM_READY>();
    auto opened = at_client.until<TRUNK_ITEM_OPENED>();
    CHECK(opened->request == one.id() && opened->outcome == TRUNK_OUTCOME_OPENED);
    OK(opened.channel().send("by name"));
    CHECK(at_host.until<TRUNK_ITEM_DATA>().text() == "by name");
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk::open_request(e.raw(), 1234567).cancel());
    auto never = e.request(h.peer(), "never", how).must("request");
    OK(never.cancel());
    auto gone = at_client.until<TRUNK_ITEM_OPENED>();
    CHECK(gone->outcome == TRUNK_OUTCOME_CANCELLED && !gone.channel());
}

void associations() {
    host h;
    inbox at_host(h.engine);
    auto e = new_engine();
    inbox at_client(e);
    auto how = trunk::init<trunk_association_config>();
    GIVES(TRUNK_ERR_NULL, e.associate(h.peer(), how));
    how.name = "signals";
    auto waits = h.engine.await(how).must("await");
    auto ours = e.associate(h.peer(), how).must("associate");
    OK(ours.send("early", 7));
    auto change = at_host.until<TRUNK_ITEM_ASSOCIATION>();
    CHECK(change->association == waits.id());
    CHECK(at_host.until<TRUNK_ITEM_DATA>().text() == "early");
    auto delivered = at_client.until<TRUNK_ITEM_DELIVERED>();
    CHECK(delivered->association == ours.id() && delivered.raw().token == 7);
    auto security = trunk::init<trunk_send_security>();
    auto info = trunk::init<trunk_sec_info>(); // nothing that was stored
    security.sec_info = &info;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, ours.send("odd", 8, &security));
    OK(waits.send("back", 9));
    CHECK(at_client.until<TRUNK_ITEM_DATA>().text() == "back");
    // One that is made of a request.
    how.name = "second";
    auto second = e.associate(h.peer(), how).must("associate");
    auto theirs = at_host.until<TRUNK_ITEM_REQUEST>().channel().accept(how).must("accept");
    OK(theirs.send("hello", 1));
    CHECK(at_client.until<TRUNK_ITEM_DATA>().text() == "hello");
    OK(second.close());
    for (;;) {
        auto told = at_client.until<TRUNK_ITEM_ASSOCIATION>();
        if (told->new_state == TRUNK_ASSOCIATION_DESTROYED) {
            CHECK(told->association == second.id() && told->end == TRUNK_ASSOCIATION_END_CLOSED);
            break;
        }
    }
    auto pin = h.identity.fingerprint().must("fingerprint");
    OK(h.engine.await(how, &pin, h.engine.own_group()));
}

// ---- pairing ----

// Without an event source that answers.
void a_pairing_alone() {
    host h; // an ordinary one, which accepts nobody
    auto e = new_engine();
    inbox told(e);
    auto config = trunk::init<trunk_pairing_config>();
    config.role = TRUNK_PAIRING_RESPONDER;
    auto p = e.pair(h.peer(), config).must("pair");
    CHECK(p.state().must("state").state == TRUNK_PAIRING_PASSIVE);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, p.assign_client_id("not an id"));
    OK(p.assign_client_id("alice"));
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, p.assign_token("not a token"));
    OK(p.assign_token(nullptr));
    OK(p.assign_partner("bob"));
    CHECK(std::strcmp(p.state().must("state").partner, "bob") == 0);
    OK(p.set_active(true));
    auto notice = told.expect<TRUNK_ITEM_PAIRING>();
    CHECK(notice->type == TRUNK_NOTICE_STATE && notice->pairing == p.id());
    std::uint32_t waits = 9;
    OK(p.send(1, "waits", true, &waits));
    CHECK(waits == 1);
    CHECK(p.state().must("state").waiting_events == 1);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, p.connect(trunk::fingerprint())); // no identity
    OK(p.close());
    GIVES(TRUNK_ERR_INVALID_HANDLE, p.leave());
}

struct partner {
    trunk::engine engine = new_engine();
    inbox told{engine};
    trunk::identity me = trunk::identity::generate().must("generate");
    trunk::fingerprint pin = me.fingerprint().must("fingerprint");
    trunk::pairing pairing;

    partner(const trunk::peer &source, const char *token, const char *id, const char *other,
            trunk_pairing_role role) {
        auto own = me.raw();
        auto config = trunk::init<trunk_pairing_config>();
        config.role = role;
        config.relay = 1;
        config.identity = &own;
        config.event_interval_ns = 0;
        pairing = engine.pair(source, config).must("pair");
        OK(pairing.assign_token(token));
        OK(pairing.assign_client_id(id));
        OK(pairing.assign_partner(other));
        OK(pairing.set_active(true));
    }
    void becomes(trunk_pairing_state state) {
        for (;;) {
            auto notice = told.until<TRUNK_ITEM_PAIRING>();
            CHECK(notice->type == TRUNK_NOTICE_STATE);
            if (notice->new_state == state) {
                return;
            }
        }
    }
};

// With an event source, which has no wrapper: what trunk::init and raw() are for.
void a_pairing() {
    const char secret[TRUNK_SECRET_BYTES] = "not for anything else";
    trunk_token_key key = {"k1", secret, sizeof secret};
    auto config = small();
    auto rules = trunk::init<trunk_source_config>();
    trunk_event_source started = 0;
    OK(trunk::status(trunk_event_source_start(&config.raw, &rules, &key, 1, &started)));
    auto me = trunk::identity::generate().must("identity");
    auto own = me.raw();
    auto listen = trunk::init<trunk_listen_config>();
    listen.address = "127.0.0.1:0";
    listen.identity = &own;
    trunk_listener at = 0;
    char address[64], token[TRUNK_TOKEN_TEXT_BYTES];
    OK(trunk::status(trunk_event_source_listen(started, &listen, &at)));
    OK(trunk::status(trunk_event_source_address(started, at, address, sizeof address, nullptr)));
    auto grant = trunk::init<trunk_token_grant>();
    grant.app = "chess";
    grant.client = "*";
    grant.expires_s = static_cast<std::uint64_t>(std::time(nullptr)) + 3600;
    OK(trunk::status(trunk_token_mint(&key, &grant, token, sizeof token, nullptr)));
    trunk::peer source(address, trunk::trust::pin(me.fingerprint().must("fingerprint")));
    partner a(source, token, "alice", "bob", TRUNK_PAIRING_CONTROLLER);
    partner b(source, token, "bob", "alice", TRUNK_PAIRING_RESPONDER);
    a.becomes(TRUNK_PAIRING_INTERACTING);
    b.becomes(TRUNK_PAIRING_INTERACTING);
    OK(a.pairing.send(77, "event"));
    auto event = b.told.until<TRUNK_ITEM_PAIRING>();
    CHECK(event->type == TRUNK_NOTICE_EVENT && event->subtype == 77);
    CHECK(same({event->data, event->size}, "event") && std::strcmp(event->client, "alice") == 0);
    OK(b.pairing.accept(a.pin));
    OK(a.pairing.connect(b.pin));
    auto peer = a.told.until<TRUNK_ITEM_PEER>();
    CHECK(peer->pairing == a.pairing.id());
    auto channel = peer.conn().open("direct", trunk::options(TRUNK_KIND_MESSAGES)).must("open");
    OK(channel.send("to the partner"));
    CHECK(b.told.until<TRUNK_ITEM_DATA>().text() == "to the partner");
    OK(a.pairing.leave());
    OK(a.pairing.set_active(false));
    b.becomes(TRUNK_PAIRING_SEARCHING);
    OK(trunk::status(trunk_event_source_close(started)));
}

// ---- visitors ----

void visitors() {
    trunk_item raw{};
    trunk::item i(raw, nullptr);
    int known = 0, others = 0;
    auto visitor = trunk::overloaded{
        [&](trunk::on<TRUNK_ITEM_EOF>) { known++; },
        [&](const trunk::on<TRUNK_ITEM_SHARD_FAILED> &e) {
            CHECK(std::strcmp(e->detail.text, "why") == 0);
            known++;
        },
        [&](trunk::item of) { others += of.raw().type != TRUNK_ITEM_EOF; },
    };
    raw.type = TRUNK_ITEM_EOF;
    trunk::visit(i, visitor);
    raw.type = TRUNK_ITEM_SHARD_FAILED;
    raw.detail.text = "why";
    trunk::visit(i, visitor);
    CHECK(known == 2 && others == 0);
    for (trunk_item_type type : {0u, 1u, 24u, 1000u}) { // nothing, data, a path, of a later version
        raw.type = type;
        trunk::visit(i, visitor);
    }
    CHECK(known == 2 && others == 4);
    trunk::visit(i, [&](trunk::on<TRUNK_ITEM_DATA>) { known++; }); // skipped
    raw.type = TRUNK_ITEM_DATA;
    trunk::visit(i, [&](trunk::on<TRUNK_ITEM_DATA> &) { known++; });
    CHECK(known == 3);
    // Each type has its struct.
    trunk_path path{};
    raw.type = TRUNK_ITEM_PATH;
    raw.detail.path = &path;
    CHECK(trunk::on<TRUNK_ITEM_PATH>(i).operator->() == &path);
    trunk_relayed relayed{};
    raw.detail.relayed = &relayed;
    CHECK(trunk::on<TRUNK_ITEM_RELAYED>(i)->data == nullptr);
}

const struct {
    const char *name;
    void (*run)();
} tests[] = {
    {"structs_are_initialised", structs_are_initialised},
    {"bytes_of_everything", bytes_of_everything},
    {"results_and_fingerprints", results_and_fingerprints},
    {"identities", identities},
    {"whole_life", whole_life},
    {"whole_life_without_threads", whole_life_without_threads},
    {"event_loop", event_loop},
    {"groups", groups},
    {"peers", peers},
    {"channels", channels},
    {"handles", handles},
    {"buffers", buffers},
    {"memory_of_the_application", memory_of_the_application},
    {"items_are_given_back", items_are_given_back},
    {"callbacks", callbacks},
    {"callbacks_without_threads", callbacks_without_threads},
    {"a_group_with_callbacks", a_group_with_callbacks},
    {"exceptions_end_the_program", exceptions_end_the_program},
    {"requests", requests},
    {"associations", associations},
    {"a_pairing_alone", a_pairing_alone},
    {"a_pairing", a_pairing},
    {"visitors", visitors},
};

} // namespace

int main(int argc, char **argv) {
    for (const auto &test : tests) {
        bool wanted = false;
        for (int i = 1; i < argc; i++) {
            wanted |= std::strcmp(argv[i], test.name) == 0;
        }
        if (argc == 1) {
            std::puts(test.name);
        } else if (wanted) {
            test.run();
        }
    }
}
