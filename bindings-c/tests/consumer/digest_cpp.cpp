// The same as digest_c.c in C++: a message, its SHA-256 from the other end, and OpenSSL's beside it.

// The C++ header includes trunkline.h; where it is installed, it is held to these warnings too.
#if __has_include(<trunkline.hpp>)
#include <trunkline.hpp>
#else
#include <trunkline.h>
#endif

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>

namespace {

using Digest = std::array<unsigned char, 32>;
using namespace std::chrono_literals;

constexpr std::string_view message = "a message that is digested at both ends";

void must(bool good, std::string_view what) {
    if (!good) {
        std::cerr << what << ": " << trunk_last_error() << '\n';
        std::exit(1);
    }
}

void must(trunk_result result, std::string_view what) { must(result == TRUNK_OK, what); }

Digest sha256(std::string_view data) {
    Digest digest{};
    unsigned length = 0;
    must(EVP_Digest(data.data(), data.size(), digest.data(), &length, EVP_sha256(), nullptr) == 1,
         "SHA-256");
    must(length == digest.size(), "length of a SHA-256");
    return digest;
}

std::string_view data_of(const trunk_item &item) {
    return {reinterpret_cast<const char *>(item.data), item.size};
}

struct Destroy {
    void operator()(trunk_engine *engine) const { must(trunk_engine_destroy(engine), "destroy"); }
};
using Engine = std::unique_ptr<trunk_engine, Destroy>;

Engine new_engine() {
    trunk_engine *engine = nullptr;
    must(trunk_engine_new(nullptr, &engine), "engine");
    return Engine(engine);
}

struct Host {
    Engine engine = new_engine();
    std::array<char, 64> address{};
    std::array<std::uint8_t, TRUNK_FINGERPRINT_BYTES> fingerprint{};

    Host() {
        std::array<char, 2048> pem{};
        trunk_identity identity;
        trunk_listen_config config;
        trunk_listener listener = 0;
        must(trunk_identity_generate(nullptr, pem.data(), pem.size(), nullptr), "new identity");
        must(trunk_identity_init(&identity), "identity");
        identity.pem = pem.data();
        identity.pem_size = std::string_view(pem.data()).size();
        must(trunk_identity_fingerprint(&identity, fingerprint.data()), "fingerprint");
        must(trunk_listen_config_init(&config), "listen config");
        config.address = "127.0.0.1:0";
        config.identity = &identity;
        must(trunk_listen(engine.get(), &config, &listener), "listen");
        must(trunk_listener_address(engine.get(), listener, address.data(), address.size(), nullptr),
             "address");
    }

    // Lets everybody in, and answers messages with their digest.
    void serve(const trunk_item &item) {
        if (item.type == TRUNK_ITEM_INCOMING) {
            must(trunk_accept(engine.get(), item.conn), "accept");
        } else if (item.type == TRUNK_ITEM_REQUEST) {
            must(trunk_channel_accept(engine.get(), item.channel, nullptr), "accept a channel");
        } else if (item.type == TRUNK_ITEM_DATA) {
            const Digest digest = sha256(data_of(item));
            must(trunk_send(engine.get(), item.channel, digest.data(), digest.size()), "answer");
        }
    }
};

struct Client {
    Engine engine = new_engine();
    bool answered = false;

    explicit Client(const Host &host) {
        const char *address = host.address.data();
        trunk_trust trust;
        trunk_connect_config config;
        trunk_channel_options options;
        trunk_conn conn = 0;
        trunk_channel channel = 0;
        must(trunk_trust_init(&trust), "trust");
        trust.kind = TRUNK_TRUST_PINS;
        trust.pins = host.fingerprint.data();
        trust.pin_count = 1;
        must(trunk_connect_config_init(&config), "connect config");
        config.addresses = &address;
        config.address_count = 1;
        config.trust = &trust;
        must(trunk_connect(engine.get(), &config, &conn), "connect");
        must(trunk_channel_options_init(&options), "channel options");
        options.kind = TRUNK_KIND_MESSAGES;
        must(trunk_channel_open(engine.get(), conn, "digest", &options, &channel), "open");
        must(trunk_send(engine.get(), channel, message.data(), message.size()), "send");
    }

    void check(const trunk_item &item) {
        if (item.type == TRUNK_ITEM_DATA) {
            const Digest digest = sha256(message);
            const std::string_view own(reinterpret_cast<const char *>(digest.data()), digest.size());
            must(data_of(item) == own, "the answer");
            answered = true;
        }
    }
};

// Deals with what an engine has received, or waits for it a little.
template <typename Deal> void receive(const Engine &engine, Deal deal) {
    std::array<trunk_item, 8> items{};
    std::size_t count = 0;
    const std::chrono::nanoseconds wait = 5ms;
    must(trunk_recv_many(engine.get(), 0, items.data(), items.size(), wait.count(), &count),
         "receive");
    std::for_each_n(items.begin(), count, deal);
    must(trunk_message_release(items.data(), count), "release");
}

} // namespace

int main() {
    Host host;
    Client client(host);
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!client.answered && std::chrono::steady_clock::now() < end) {
        receive(host.engine, [&](const trunk_item &item) { host.serve(item); });
        receive(client.engine, [&](const trunk_item &item) { client.check(item); });
    }
    must(client.answered, "no answer");
    std::cout << "right, with trunkline " << trunk_version_str() << '\n';
}
