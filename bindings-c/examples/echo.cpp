// Echo in C++: a host that sends every message back in its callbacks, and a client that asks it and
// receives from a poll group. Both in this process; two differ in nothing but address and
// fingerprint. echo.c is the same in C.
//
//     echo [TEXT...]
//
// Build:  c++ -std=c++17 echo.cpp -ltrunkline -o echo
#include "trunkline.hpp"

#include <iostream>

using trunk::on;

// Connects, sends all texts on a channel, and prints what comes back. Returns whether all did.
bool ask(trunk::engine &client, trunk::peer host, const std::vector<std::string> &texts) {
    auto conn = client.connect(host).must("connect"); // nothing of this waits
    auto channel = conn.open("echo", trunk::options(TRUNK_KIND_MESSAGES)).must("open a channel");
    for (const auto &text : texts) {
        channel.send(text).must("send");
    }
    channel.close().must("end of what we send");

    bool gone = false, failed = false;
    trunk::items batch;
    while (!gone) {
        client.receive(batch).must("receive"); // gives back what the last one brought
        for (trunk::item item : batch) {
            trunk::visit(item, trunk::overloaded{
                                   [](on<TRUNK_ITEM_DATA> i) { std::cout << i.text() << '\n'; },
                                   [](on<TRUNK_ITEM_EOF> i) { (void)i.conn().close(); },
                                   [&](on<TRUNK_ITEM_STATUS> i) {
                                       if (i->new_status >= TRUNK_STATUS_CLOSED_BY_PEER) {
                                           std::cerr << "lost: " << i->reason_text << '\n';
                                           failed = true;
                                           (void)i.conn().close(trunk::no_linger);
                                       }
                                   },
                                   [&](on<TRUNK_ITEM_DEAD>) { gone = true; },
                               });
        }
    }
    return !failed;
}

int main(int argc, char **argv) {
    std::vector<std::string> texts(argv + 1, argv + argc);
    if (texts.empty()) {
        texts = {"hello", "from", "one process"};
    }

    // The host. Its callbacks run on the engine's thread and must not block. The handler is made
    // before the engine that calls it, and so outlives it.
    trunk::handler echo(
        [](const trunk::arrival &a) {
            if (a.channel.send(a.data).code() == TRUNK_ERR_WOULD_BLOCK) {
                // This client sends and does not read. A patient host would a.keep() the message
                // and try again at TRUNK_ITEM_WRITABLE.
                (void)a.channel.reset(1);
            }
        },
        [](trunk::item item) {
            // What has ended by now cannot be accepted: another item says so.
            trunk::visit(item, trunk::overloaded{
                                   [](on<TRUNK_ITEM_INCOMING> i) { (void)i.conn().accept(); },
                                   [](on<TRUNK_ITEM_REQUEST> i) { (void)i.channel().accept(); },
                                   [](on<TRUNK_ITEM_EOF> i) { (void)i.channel().close(); },
                                   [](on<TRUNK_ITEM_STATUS> i) {
                                       if (i->new_status >= TRUNK_STATUS_CLOSED_BY_PEER) {
                                           (void)i.conn().close(trunk::no_linger);
                                       }
                                   },
                               });
        });

    trunk::config config;
    config.handler = &echo;
    auto host = trunk::engine::create(config).must("host");
    auto identity = trunk::identity::generate().must("new identity");
    auto listener = host.listen("127.0.0.1:0", identity).must("listen");
    auto fingerprint = identity.fingerprint().must("fingerprint");

    auto client = trunk::engine::create().must("client");
    trunk::peer there(listener.address().must("address"), trunk::trust::pin(fingerprint));
    bool good = ask(client, there, texts);

    client.shutdown().must("shutdown");
    host.shutdown().must("shutdown");
    return good ? 0 : 1;
}
