/*
 * Two engines in one program: the client sends a message, the host answers with its SHA-256, and
 * the client compares. The digests are OpenSSL's, so that both libraries are in the program.
 */
#include <trunkline.h>

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGEST = 32, TURNS = 2000 };

static const char MESSAGE[] = "a message that is digested at both ends";

static void must(int good, const char *what) {
    if (!good) {
        fprintf(stderr, "%s: %s\n", what, trunk_last_error());
        exit(1);
    }
}

static void sha256(const void *data, size_t size, unsigned char digest[DIGEST]) {
    unsigned int length = 0;
    must(EVP_Digest(data, size, digest, &length, EVP_sha256(), NULL) == 1, "SHA-256");
    must(length == DIGEST, "length of a SHA-256");
}

static void listen_at(trunk_engine *host, char address[64],
                      uint8_t fingerprint[TRUNK_FINGERPRINT_BYTES]) {
    char pem[2048];
    trunk_identity identity;
    trunk_listen_config config;
    trunk_listener listener;
    must(trunk_identity_generate(NULL, pem, sizeof pem, NULL) == TRUNK_OK, "new identity");
    must(trunk_identity_init(&identity) == TRUNK_OK, "identity");
    identity.pem = pem;
    identity.pem_size = strlen(pem);
    must(trunk_identity_fingerprint(&identity, fingerprint) == TRUNK_OK, "fingerprint");
    must(trunk_listen_config_init(&config) == TRUNK_OK, "listen config");
    config.address = "127.0.0.1:0";
    config.identity = &identity;
    must(trunk_listen(host, &config, &listener) == TRUNK_OK, "listen");
    must(trunk_listener_address(host, listener, address, 64, NULL) == TRUNK_OK, "address");
}

static void ask(trunk_engine *client, const char *address, const uint8_t *fingerprint) {
    trunk_trust trust;
    trunk_connect_config config;
    trunk_channel_options options;
    trunk_conn conn;
    trunk_channel channel;
    must(trunk_trust_init(&trust) == TRUNK_OK, "trust");
    trust.kind = TRUNK_TRUST_PINS;
    trust.pins = fingerprint;
    trust.pin_count = 1;
    must(trunk_connect_config_init(&config) == TRUNK_OK, "connect config");
    config.addresses = &address;
    config.address_count = 1;
    config.trust = &trust;
    must(trunk_connect(client, &config, &conn) == TRUNK_OK, "connect");
    must(trunk_channel_options_init(&options) == TRUNK_OK, "channel options");
    options.kind = TRUNK_KIND_MESSAGES;
    must(trunk_channel_open(client, conn, "digest", &options, &channel) == TRUNK_OK, "open");
    must(trunk_send(client, channel, MESSAGE, sizeof MESSAGE) == TRUNK_OK, "send");
}

/* The host's part: let everybody in, and answer messages with their digest. */
static void serve(trunk_engine *host, const trunk_item *item) {
    unsigned char digest[DIGEST];
    switch (item->type) {
    case TRUNK_ITEM_INCOMING:
        must(trunk_accept(host, item->conn) == TRUNK_OK, "accept");
        break;
    case TRUNK_ITEM_REQUEST:
        must(trunk_channel_accept(host, item->channel, NULL) == TRUNK_OK, "accept a channel");
        break;
    case TRUNK_ITEM_DATA:
        sha256(item->data, item->size, digest);
        must(trunk_send(host, item->channel, digest, sizeof digest) == TRUNK_OK, "answer");
        break;
    default:
        break;
    }
}

/* The client's part: whether this is the answer, which must be right. */
static int check(const trunk_item *item) {
    unsigned char digest[DIGEST];
    if (item->type != TRUNK_ITEM_DATA) {
        return 0;
    }
    sha256(MESSAGE, sizeof MESSAGE, digest);
    must(item->size == DIGEST && memcmp(item->data, digest, DIGEST) == 0, "the answer");
    return 1;
}

int main(void) {
    trunk_engine *host, *client;
    char address[64];
    uint8_t fingerprint[TRUNK_FINGERPRINT_BYTES];
    int answered = 0, turn;
    must(trunk_engine_new(NULL, &host) == TRUNK_OK, "host");
    must(trunk_engine_new(NULL, &client) == TRUNK_OK, "client");
    listen_at(host, address, fingerprint);
    ask(client, address, fingerprint);
    for (turn = 0; turn < TURNS && !answered; turn++) {
        trunk_item items[8];
        size_t count, i;
        must(trunk_recv_many(host, 0, items, 8, 5000000, &count) == TRUNK_OK, "receive");
        for (i = 0; i < count; i++) {
            serve(host, &items[i]);
        }
        trunk_message_release(items, count);
        must(trunk_recv_many(client, 0, items, 8, 5000000, &count) == TRUNK_OK, "receive");
        for (i = 0; i < count; i++) {
            answered |= check(&items[i]);
        }
        trunk_message_release(items, count);
    }
    must(answered, "no answer");
    must(trunk_engine_destroy(client) == TRUNK_OK, "end of the client");
    must(trunk_engine_destroy(host) == TRUNK_OK, "end of the host");
    printf("right, with trunkline %s\n", trunk_version_str());
    return 0;
}
