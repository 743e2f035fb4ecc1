/*
 * One side of an exchange through the C interface, for `overhead`, which starts it:
 *
 *     overhead-c host   API SCENARIO SECONDS
 *     overhead-c client API SCENARIO SECONDS ADDRESS FINGERPRINT
 *
 * API: callbacks (on the shard's thread), callbacks-many (the same with trunk_send_many), groups (a
 * thread of the application), polled (one thread for everything). SCENARIO: rate (the client sends 64-byte messages, as many as go, and the host
 * counts) or latency (the host sends each message back, and the client measures).
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <trunkline.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)
#define WARM_UP (SECOND / 2)
#define MOST 4000000
#define BATCH 32

static trunk_engine *engine;
static trunk_channel channel;
static int echoes, is_client, polled, many;
static int ending; /* what callbacks still call gives errors */
static uint64_t received; /* written by one thread, read by another */
static uint8_t message[64];
static int64_t sent_at;
static uint32_t *samples;
static size_t sample_count;

static void check(trunk_result result, const char *what) {
    if (result != TRUNK_OK && !__atomic_load_n(&ending, __ATOMIC_RELAXED)) {
        fprintf(stderr, "%s: %s (%s)\n", what, trunk_result_str(result), trunk_last_error());
        exit(1);
    }
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* Whether everything was taken. */
static int is_taken(trunk_result result) {
    switch (result) {
    case TRUNK_ERR_WOULD_BLOCK:
    case TRUNK_ERR_INVALID_HANDLE: /* the other side has ended */
    case TRUNK_ERR_NO_CONNECTION:
        return 0;
    default:
        check(result, "send");
        return 1;
    }
}

static int say(trunk_channel to, const uint8_t *data, size_t size) {
    return is_taken(trunk_send(engine, to, data, size));
}

static int say_many(void) {
    trunk_outgoing list[BATCH];
    for (int i = 0; i < BATCH; i++) {
        list[i] = (trunk_outgoing){channel, message, sizeof message};
    }
    return is_taken(trunk_send_many(engine, list, BATCH, NULL));
}

/* Sends what goes: everything, or the one message of a round trip. */
static void pump(void) {
    if (echoes) {
        sent_at = now();
        say(channel, message, sizeof message);
        return;
    }
    while ((many ? say_many() : say(channel, message, sizeof message)) &&
           !__atomic_load_n(&ending, __ATOMIC_RELAXED)) {
    }
}

static void take(trunk_channel from, const uint8_t *data, size_t size) {
    __atomic_store_n(&received, received + 1, __ATOMIC_RELAXED);
    if (!echoes) {
        return;
    }
    if (!is_client) {
        say(from, data, size);
        return;
    }
    if (sample_count < MOST) {
        samples[sample_count++] = (uint32_t)(now() - sent_at);
    }
    pump();
}

static void hear(const trunk_item *item) {
    switch (item->type) {
    case TRUNK_ITEM_INCOMING:
        check(trunk_accept(engine, item->conn), "accept");
        break;
    case TRUNK_ITEM_REQUEST:
        check(trunk_channel_accept(engine, item->channel, NULL), "accept a channel");
        break;
    case TRUNK_ITEM_READY:
        if (is_client) {
            pump();
        }
        break;
    case TRUNK_ITEM_WRITABLE:
        pump();
        break;
    default:
        break;
    }
}

static void on_data(void *user, trunk_channel from, void *channel_user, trunk_kind kind,
                    const uint8_t *data, size_t size) {
    (void)user, (void)channel_user, (void)kind;
    take(from, data, size);
}

static void on_item(void *user, const trunk_item *item) {
    (void)user;
    hear(item);
}

/* Receives and polls until a time. */
static void run_until(int64_t end) {
    trunk_item items[256];
    size_t count;
    while (now() < end) {
        if (polled) {
            check(trunk_engine_poll(engine, SECOND / 100, NULL), "poll");
        }
        check(trunk_recv_many(engine, 0, items, 256, SECOND / 100, &count), "receive");
        for (size_t i = 0; i < count; i++) {
            if (items[i].type == TRUNK_ITEM_DATA) {
                take(items[i].channel, items[i].data, items[i].size);
            } else {
                hear(&items[i]);
            }
        }
        check(trunk_message_release(items, count), "release");
    }
}

static void pass(int callbacks, int64_t ns) {
    int64_t end = now() + ns;
    if (!callbacks) {
        run_until(end);
        return;
    }
    struct timespec wait = {ns / SECOND, ns % SECOND};
    nanosleep(&wait, NULL);
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void start_host(void) {
    char pem[2048], address[64], text[TRUNK_FINGERPRINT_TEXT_BYTES];
    uint8_t fingerprint[TRUNK_FINGERPRINT_BYTES];
    trunk_identity identity;
    trunk_listen_config config;
    trunk_listener listener;
    check(trunk_identity_generate(NULL, pem, sizeof pem, NULL), "identity");
    check(trunk_identity_init(&identity), "init");
    identity.pem = pem;
    identity.pem_size = strlen(pem);
    check(trunk_identity_fingerprint(&identity, fingerprint), "fingerprint");
    check(trunk_fingerprint_format(fingerprint, text), "fingerprint");
    check(trunk_listen_config_init(&config), "init");
    config.address = "127.0.0.1:0";
    config.identity = &identity;
    check(trunk_listen(engine, &config, &listener), "listen");
    check(trunk_listener_address(engine, listener, address, sizeof address, NULL), "address");
    printf("%s %s\n", address, text);
    fflush(stdout);
}

static void start_client(const char *address, const char *text) {
    uint8_t fingerprint[TRUNK_FINGERPRINT_BYTES];
    trunk_trust trust;
    trunk_connect_config config;
    trunk_channel_options options;
    trunk_conn conn;
    check(trunk_fingerprint_parse(text, fingerprint), "fingerprint");
    check(trunk_trust_init(&trust), "init");
    trust.kind = TRUNK_TRUST_PINS;
    trust.pins = fingerprint;
    trust.pin_count = 1;
    check(trunk_connect_config_init(&config), "init");
    config.addresses = &address;
    config.address_count = 1;
    config.trust = &trust;
    check(trunk_connect(engine, &config, &conn), "connect");
    check(trunk_channel_options_init(&options), "init");
    options.kind = TRUNK_KIND_MESSAGES;
    options.no_delay = (uint32_t)echoes;
    check(trunk_channel_open(engine, conn, "x", &options, &channel), "open");
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: overhead-c host|client API SCENARIO SECONDS [ADDRESS PIN]\n");
        return 2;
    }
    is_client = strcmp(argv[1], "client") == 0;
    many = strcmp(argv[2], "callbacks-many") == 0;
    int called = many || strcmp(argv[2], "callbacks") == 0;
    polled = strcmp(argv[2], "polled") == 0;
    echoes = strcmp(argv[3], "latency") == 0;
    int64_t time = (int64_t)(atof(argv[4]) * 1e9);
    samples = malloc(MOST * sizeof *samples);
    trunk_callbacks callbacks;
    trunk_engine_config config;
    check(trunk_callbacks_init(&callbacks), "init");
    callbacks.on_data = on_data;
    callbacks.on_item = on_item;
    check(trunk_engine_config_init(&config), "init");
    config.callbacks = called ? &callbacks : NULL;
    config.threadless = (uint32_t)polled;
    check(trunk_engine_new(&config, &engine), "engine");
    if (is_client) {
        start_client(argv[5], argv[6]);
    } else {
        start_host();
    }
    pass(called, WARM_UP);
    uint64_t before = __atomic_load_n(&received, __ATOMIC_RELAXED);
    size_t first = sample_count;
    int64_t begin = now();
    pass(called, time);
    uint64_t count = __atomic_load_n(&received, __ATOMIC_RELAXED) - before;
    double seconds = (double)(now() - begin) / 1e9;
    if (is_client && echoes) {
        size_t n = sample_count - first;
        qsort(samples + first, n, sizeof *samples, compare);
        printf("%" PRIu32 " %" PRIu32 "\n", n ? samples[first + n / 2] : 0,
               n ? samples[first + n / 100 * 99] : 0);
    } else {
        printf("%.0f\n", (double)count / seconds);
    }
    fflush(stdout);
    pass(called, SECOND / 5); /* the other side is a little later */
    __atomic_store_n(&ending, 1, __ATOMIC_RELAXED);
    trunk_engine_destroy(engine);
    free(samples);
    return 0;
}
