/*
 * What the larger examples share: an end with words, the clock, a host with a new identity, and a
 * client that knows it. echo.c does the same without this header. Include it first.
 */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#define _POSIX_C_SOURCE 200809L

#include "trunkline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MILLISECOND INT64_C(1000000)
#define SECOND INT64_C(1000000000)

/* Ends the program with words. */
static inline void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* Ends the program when a call that must work does not. */
static inline void must(trunk_result result, const char *what) {
    if (result != TRUNK_OK) {
        fprintf(stderr, "%s: %s (%s)\n", what, trunk_last_error(), trunk_result_str(result));
        exit(1);
    }
}

/* Nanoseconds that only go forward. */
static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* Where a host is, and how clients know that it is the right one. */
typedef struct place {
    char address[64];
    uint8_t fingerprint[TRUNK_FINGERPRINT_BYTES];
} place;

/* Listens at an address as a new identity. */
static inline place listen_at(trunk_engine *engine, const char *address) {
    char pem[2048];
    place here;
    trunk_listener listener;
    trunk_identity identity;
    trunk_listen_config config;
    must(trunk_identity_generate(NULL, pem, sizeof pem, NULL), "new identity");
    trunk_identity_init(&identity);
    identity.pem = pem;
    identity.pem_size = strlen(pem);
    trunk_listen_config_init(&config);
    config.address = address;
    config.identity = &identity;
    must(trunk_listen(engine, &config, &listener), "listen");
    must(trunk_listener_address(engine, listener, here.address, sizeof here.address, NULL),
         "address");
    must(trunk_identity_fingerprint(&identity, here.fingerprint), "fingerprint");
    return here;
}

/* Makes a connection of its own, with user data; it does not wait. */
static inline trunk_conn connect_to(trunk_engine *engine, const place *there, void *user) {
    const char *address = there->address;
    trunk_conn conn;
    trunk_trust trust;
    trunk_connect_config config;
    trunk_trust_init(&trust);
    trust.kind = TRUNK_TRUST_PINS;
    trust.pins = there->fingerprint;
    trust.pin_count = 1;
    trunk_connect_config_init(&config);
    config.reuse = TRUNK_REUSE_FORCE_NEW;
    config.addresses = &address;
    config.address_count = 1;
    config.trust = &trust;
    config.user = user;
    must(trunk_connect(engine, &config, &conn), "connect");
    return conn;
}

/* Prints where a host is, for the command line of clients. */
static inline void print_place(const place *here) {
    char text[TRUNK_FINGERPRINT_TEXT_BYTES];
    must(trunk_fingerprint_format(here->fingerprint, text), "fingerprint");
    printf("%s %s\n", here->address, text);
    fflush(stdout);
}

/* Reads such a command line. */
static inline place parse_place(const char *address, const char *fingerprint) {
    place there;
    snprintf(there.address, sizeof there.address, "%s", address);
    must(trunk_fingerprint_parse(fingerprint, there.fingerprint), "fingerprint");
    return there;
}

/* Opens a channel of a kind. */
static inline trunk_channel open_channel(trunk_engine *engine, trunk_conn conn, const char *name,
                                         trunk_kind kind) {
    trunk_channel channel;
    trunk_channel_options options;
    trunk_channel_options_init(&options);
    options.kind = kind;
    options.latest = kind == TRUNK_KIND_DATAGRAMS;
    must(trunk_channel_open(engine, conn, name, &options, &channel), "open a channel");
    return channel;
}

/* Takes an option without a value out of the command line; whether it was there. */
static inline int take_flag(int *argc, char **argv, const char *name) {
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], name) == 0) {
            memmove(argv + i, argv + i + 1, (size_t)(*argc - i) * sizeof *argv);
            --*argc;
            return 1;
        }
    }
    return 0;
}

/* The same for one with a number from `least` to `most`. */
static inline int take_number(int *argc, char **argv, const char *name, int otherwise, int least,
                              int most) {
    for (int i = 1; i + 1 < *argc; i++) {
        if (strcmp(argv[i], name) == 0) {
            char *end;
            long value = strtol(argv[i + 1], &end, 10);
            if (*end != '\0' || end == argv[i + 1] || value < least || value > most) {
                fprintf(stderr, "%s: a number from %d to %d\n", name, least, most);
                exit(2);
            }
            take_flag(argc, argv, name);
            memmove(argv + i, argv + i + 1, (size_t)(*argc - i) * sizeof *argv);
            --*argc;
            return (int)value;
        }
    }
    return otherwise;
}

#endif
