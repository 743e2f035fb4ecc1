/*
 * Echo: a host that sends every message back, and a client that asks it.
 *
 *     echo                                       both in this process
 *     echo host ADDRESS                          until interrupted
 *     echo client ADDRESS FINGERPRINT TEXT...    prints what comes back
 *
 * Build:  cc -std=c99 echo.c -ltrunkline -o echo
 */
#include "trunkline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the program when a call that must work does not. */
static void must(trunk_result result, const char *what) {
    if (result != TRUNK_OK) {
        fprintf(stderr, "%s: %s (%s)\n", what, trunk_last_error(), trunk_result_str(result));
        exit(1);
    }
}

/* Listens at an address as a new identity, and says where and as whom. */
static void listen_at(trunk_engine *engine, const char *where, char address[64],
                      uint8_t fingerprint[TRUNK_FINGERPRINT_BYTES]) {
    char pem[2048];
    must(trunk_identity_generate(NULL, pem, sizeof pem, NULL), "new identity");
    trunk_identity identity;
    trunk_identity_init(&identity);
    identity.pem = pem;
    identity.pem_size = strlen(pem);

    trunk_listen_config config;
    trunk_listen_config_init(&config);
    config.address = where;
    config.identity = &identity;
    trunk_listener listener;
    must(trunk_listen(engine, &config, &listener), "listen");
    must(trunk_listener_address(engine, listener, address, 64, NULL), "address");
    must(trunk_identity_fingerprint(&identity, fingerprint), "fingerprint");
}

/* Connects, opens a channel of messages, and sends all texts; nothing of this waits. */
static trunk_conn ask(trunk_engine *engine, const char *address,
                      const uint8_t fingerprint[TRUNK_FINGERPRINT_BYTES], char **texts, int count) {
    trunk_trust trust;
    trunk_trust_init(&trust);
    trust.kind = TRUNK_TRUST_PINS;
    trust.pins = fingerprint;
    trust.pin_count = 1;

    trunk_connect_config config;
    trunk_connect_config_init(&config);
    config.addresses = &address;
    config.address_count = 1;
    config.trust = &trust;
    trunk_conn conn;
    must(trunk_connect(engine, &config, &conn), "connect");

    trunk_channel_options options;
    trunk_channel_options_init(&options);
    options.kind = TRUNK_KIND_MESSAGES;
    trunk_channel channel;
    trunk_result result = trunk_channel_open(engine, conn, "echo", &options, &channel);
    for (int i = 0; i < count && result == TRUNK_OK; i++) {
        result = trunk_send(engine, channel, texts[i], strlen(texts[i]));
    }
    if (result == TRUNK_OK) {
        result = trunk_channel_close(engine, channel); /* the end of what we send */
    }
    /* These two: the connection has failed in the meantime. An item will say why. */
    if (result != TRUNK_ERR_NO_CONNECTION && result != TRUNK_ERR_INVALID_HANDLE) {
        must(result, "send");
    }
    return conn;
}

/*
 * Deals with one item. `ours` is the client's connection, 0 if there is none; every other one
 * belongs to the host. Returns whether `ours` is gone; what it found goes to `failed`.
 */
static int step(trunk_engine *engine, const trunk_item *item, trunk_conn ours, int *failed) {
    switch (item->type) {
    case TRUNK_ITEM_INCOMING: /* host: a client has proved itself */
        trunk_accept(engine, item->conn); /* if it cannot be, an item will say why */
        break;
    case TRUNK_ITEM_REQUEST: /* host: it asks for a channel */
        /* It may have ended by now: then TRUNK_ITEM_CLOSED is next, and there is nothing to do. */
        trunk_channel_accept(engine, item->channel, NULL);
        break;
    case TRUNK_ITEM_DATA:
        if (item->conn == ours) {
            printf("%.*s\n", (int)item->size, (const char *)item->data);
        } else if (trunk_send_item(engine, item->channel, item, 0) == TRUNK_ERR_WOULD_BLOCK) {
            /* This client sends and does not read. A patient host would keep the item and try
             * again at TRUNK_ITEM_WRITABLE: that stops the client. */
            trunk_channel_reset(engine, item->channel, 1);
        }
        break;
    case TRUNK_ITEM_EOF: /* everything was received */
        if (item->conn == ours) {
            trunk_close(engine, ours, 0, "done", TRUNK_LINGER_DEFAULT);
        } else {
            trunk_channel_close(engine, item->channel);
        }
        break;
    case TRUNK_ITEM_STATUS:
        switch (item->detail.status->new_status) {
        case TRUNK_STATUS_PROBLEM_DETECTED_LOCALLY:
        case TRUNK_STATUS_CLOSED_BY_PEER: /* it ended; the handle is still to be closed */
            if (item->conn == ours) {
                fprintf(stderr, "lost: %s (%u)\n", item->detail.status->reason_text,
                        (unsigned)item->detail.status->reason);
                *failed = 1;
            }
            trunk_close(engine, item->conn, 0, NULL, TRUNK_LINGER_NONE);
            break;
        }
        break;
    case TRUNK_ITEM_DEAD:
        return item->conn == ours;
    }
    return 0;
}

/* Until the client's connection is gone; without one, for ever. */
static int run(trunk_engine *engine, trunk_conn ours) {
    int failed = 0, done = 0;
    while (!done) {
        trunk_item items[32];
        size_t count;
        must(trunk_recv_many(engine, 0, items, 32, TRUNK_WAIT_FOREVER, &count), "receive");
        for (size_t i = 0; i < count; i++) {
            done |= step(engine, &items[i], ours, &failed);
        }
        trunk_message_release(items, count);
    }
    return failed;
}

int main(int argc, char **argv) {
    char address[64];
    uint8_t fingerprint[TRUNK_FINGERPRINT_BYTES];
    trunk_engine *engine;
    trunk_conn ours = 0;
    must(trunk_engine_new(NULL, &engine), "engine");

    if (argc == 1) {
        char *texts[] = {"hello", "from", "one process"};
        listen_at(engine, "127.0.0.1:0", address, fingerprint);
        ours = ask(engine, address, fingerprint, texts, 3);
    } else if (argc == 3 && strcmp(argv[1], "host") == 0) {
        char text[TRUNK_FINGERPRINT_TEXT_BYTES];
        listen_at(engine, argv[2], address, fingerprint);
        must(trunk_fingerprint_format(fingerprint, text), "fingerprint");
        printf("%s %s\n", address, text);
        fflush(stdout);
    } else if (argc > 4 && strcmp(argv[1], "client") == 0) {
        must(trunk_fingerprint_parse(argv[3], fingerprint), "fingerprint");
        ours = ask(engine, argv[2], fingerprint, argv + 4, argc - 4);
    } else {
        fprintf(stderr, "usage: echo | echo host ADDRESS | "
                        "echo client ADDRESS FINGERPRINT TEXT...\n");
        return 2;
    }

    int failed = run(engine, ours);
    must(trunk_shutdown(engine, TRUNK_LINGER_DEFAULT, NULL), "shutdown");
    must(trunk_engine_destroy(engine), "destroy");
    return failed;
}
