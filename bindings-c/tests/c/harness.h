/*
 * What the C tests share: checks, engines that find each other, and waiting for items.
 *
 * A test program runs the tests that its arguments name. Everything is one file that includes this
 * header, as an application would include trunkline.h.
 */
#ifndef HARNESS_H
#define HARNESS_H

#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE

#include "trunkline.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition,        \
                    trunk_last_error());                                                           \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* A call and the result that it must have. */
#define GIVES(expected, call)                                                                      \
    do {                                                                                           \
        trunk_result result_ = (call);                                                             \
        if (result_ != (expected)) {                                                               \
            fprintf(stderr, "%s:%d: %s gives %d, %s (last error: %s)\n", __FILE__, __LINE__,       \
                    #call, (int)result_, trunk_result_str(result_), trunk_last_error());           \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

#define OK(call) GIVES(TRUNK_OK, call)

#define SECOND INT64_C(1000000000)

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* ---- engines ---- */

/* Under a memory checker everything is slow, and freed memory is kept for a while. */
static inline int is_checked(void) { return getenv("TEST_MEMORY_CHECKED") != NULL; }

/* Settings of connections for tests. */
static inline void connection_init(trunk_connection_config *config) {
    OK(trunk_connection_config_init(config));
    if (is_checked()) {
        config->initial_timeout_ns *= 10;
        config->connected_timeout_ns *= 10;
    }
}

/* With the driver that the test is for. */
static inline void engine_init(trunk_engine_config *config) {
    OK(trunk_engine_config_init(config));
    if (getenv("TEST_WITH_MIO") != NULL) {
        config->driver = TRUNK_DRIVER_MIO;
    }
}

/* Changes the settings of the engines that are made from now on, unless NULL. */
static void (*configure)(trunk_engine_config *);

static inline trunk_engine *engine_with(int threadless) {
    trunk_engine *engine;
    trunk_engine_config config;
    trunk_connection_config connection;
    engine_init(&config);
    connection_init(&connection);
    config.connection = &connection;
    config.threadless = (uint32_t)threadless;
    config.rx_buffers = 64; /* tests run side by side */
    config.tx_buffers = 16;
    if (configure != NULL) {
        configure(&config);
    }
    OK(trunk_engine_new(&config, &engine));
    return engine;
}

typedef struct host {
    trunk_engine *engine;
    trunk_listener listener;
    char pem[2048];
    char address[64];
    uint8_t fingerprint[TRUNK_FINGERPRINT_BYTES];
} host;

static inline void host_listen(host *h, trunk_engine *engine) {
    trunk_identity identity;
    trunk_listen_config config;
    h->engine = engine;
    OK(trunk_identity_generate("host.test", h->pem, sizeof h->pem, NULL));
    OK(trunk_identity_init(&identity));
    identity.pem = h->pem;
    identity.pem_size = strlen(h->pem);
    OK(trunk_identity_fingerprint(&identity, h->fingerprint));
    OK(trunk_listen_config_init(&config));
    config.address = "127.0.0.1:0";
    config.identity = &identity;
    OK(trunk_listen(engine, &config, &h->listener));
    OK(trunk_listener_address(engine, h->listener, h->address, sizeof h->address, NULL));
}

/* Connects to a host as its pinned self; `change` may alter the config first. */
static inline trunk_result try_connect(const host *h, trunk_engine *engine,
                                       void (*change)(trunk_connect_config *), trunk_conn *conn) {
    const char *addresses[] = {h->address};
    trunk_trust trust;
    trunk_connect_config config;
    OK(trunk_trust_init(&trust));
    trust.kind = TRUNK_TRUST_PINS;
    trust.pins = h->fingerprint;
    trust.pin_count = 1;
    OK(trunk_connect_config_init(&config));
    config.addresses = addresses;
    config.address_count = 1;
    config.trust = &trust;
    if (change != NULL) {
        change(&config);
    }
    return trunk_connect(engine, &config, conn);
}

/* For try_connect: a connection of its own. */
static inline void forced(trunk_connect_config *config) {
    config->reuse = TRUNK_REUSE_FORCE_NEW;
}

static inline trunk_conn connect_to(const host *h, trunk_engine *engine) {
    trunk_conn conn;
    OK(try_connect(h, engine, NULL, &conn));
    return conn;
}

/* ---- waiting ---- */

static trunk_engine *driven[4]; /* thread-less engines that waiting has to drive */

static inline void drive(void) {
    for (size_t i = 0; i < sizeof driven / sizeof *driven; i++) {
        if (driven[i] != NULL) {
            OK(trunk_engine_poll(driven[i], SECOND / 1000, NULL));
        }
    }
}

/* The next item of a group; the caller releases it. */
static inline trunk_item next_of(trunk_engine *engine, trunk_group group) {
    int64_t deadline = now_ns() + (is_checked() ? 100 : 20) * SECOND;
    for (;;) {
        trunk_item item;
        size_t count;
        drive();
        OK(trunk_recv_many(engine, group, &item, 1, SECOND / 50, &count));
        if (count == 1) {
            return item;
        }
        CHECK(now_ns() < deadline && "nothing more comes");
    }
}

static inline trunk_item next(trunk_engine *engine) { return next_of(engine, 0); }

/* The next item, which must be of this type. */
static inline trunk_item expect(trunk_engine *engine, trunk_item_type type) {
    trunk_item item = next(engine);
    if (item.type != type) {
        fprintf(stderr, "item %u instead of %u\n", (unsigned)item.type, (unsigned)type);
        _exit(1);
    }
    return item;
}

static inline void release(trunk_item *item) { OK(trunk_message_release(item, 1)); }

/* The same, for items of which only the type matters. */
static inline void skip(trunk_engine *engine, trunk_item_type type) {
    trunk_item item = expect(engine, type);
    release(&item);
}

/* The next status change of a connection must be to this status. */
static inline void becomes(trunk_engine *engine, trunk_status status) {
    trunk_item item = expect(engine, TRUNK_ITEM_STATUS);
    if (item.detail.status->new_status != status) {
        fprintf(stderr, "status %d (%s) instead of %d\n", (int)item.detail.status->new_status,
                item.detail.status->reason_text, (int)status);
        _exit(1);
    }
    release(&item);
}

/* ---- pairs ---- */

/* A host and a client that are connected. */
typedef struct pair {
    host host;
    trunk_engine *client;
    trunk_conn at_host, at_client;
} pair;

static inline void connect_pair_as(pair *p, void (*change)(trunk_connect_config *)) {
    OK(try_connect(&p->host, p->client, change, &p->at_client));
    trunk_item item = expect(p->host.engine, TRUNK_ITEM_INCOMING);
    p->at_host = item.conn;
    release(&item);
    OK(trunk_accept(p->host.engine, p->at_host));
    becomes(p->host.engine, TRUNK_STATUS_CONNECTED);
    becomes(p->client, TRUNK_STATUS_CONNECTED);
}

static inline void connect_pair(pair *p) { connect_pair_as(p, NULL); }

static inline void new_pair(pair *p, int threadless) {
    host_listen(&p->host, engine_with(threadless));
    p->client = engine_with(threadless);
    if (threadless) {
        driven[0] = p->host.engine;
        driven[1] = p->client;
    }
    connect_pair(p);
}

static inline void end_pair(pair *p) {
    driven[0] = driven[1] = NULL;
    OK(trunk_engine_destroy(p->client));
    OK(trunk_engine_destroy(p->host.engine));
}

/* A channel of the pair that both have accepted. */
typedef struct two {
    trunk_channel at_client, at_host;
} two;

static inline two open_channel(pair *p, trunk_kind kind, const char *name) {
    two ends;
    trunk_channel_options options;
    OK(trunk_channel_options_init(&options));
    options.kind = kind;
    OK(trunk_channel_open(p->client, p->at_client, name, &options, &ends.at_client));
    trunk_item item = expect(p->host.engine, TRUNK_ITEM_REQUEST);
    CHECK(strcmp(item.detail.request->name, name) == 0 && item.kind == kind);
    ends.at_host = item.channel;
    release(&item);
    OK(trunk_channel_accept(p->host.engine, ends.at_host, NULL));
    skip(p->host.engine, TRUNK_ITEM_READY);
    skip(p->client, TRUNK_ITEM_READY);
    return ends;
}

/* ---- running ---- */

typedef struct test {
    const char *name;
    void (*run)(void);
} test;

/* Runs the tests that the arguments name, or lists all. */
static inline int run_named(const test *tests, size_t count, int argc, char **argv) {
    for (size_t i = 0; i < count && argc == 1; i++) {
        puts(tests[i].name);
    }
    for (int k = 1; k < argc; k++) {
        size_t i = 0;
        while (i < count && strcmp(argv[k], tests[i].name) != 0) {
            i++;
        }
        if (i == count) {
            fprintf(stderr, "no test %s\n", argv[k]);
            return 2;
        }
        configure = NULL;
        driven[0] = driven[1] = NULL;
        tests[i].run();
    }
    return 0;
}

#define MAIN(tests)                                                                                \
    int main(int argc, char **argv) {                                                              \
        return run_named(tests, sizeof tests / sizeof *tests, argc, argv);                         \
    }

#endif
