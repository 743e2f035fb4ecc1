/*
 * What the tests of discoveries and announcers share: they find each other on the loopback
 * interface, each test on a port of its own.
 */
#ifndef PRESENCE_H
#define PRESENCE_H

#include "harness.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* Longest that anything here may take. */
static inline int64_t patience(void) { return (is_checked() ? 100 : 20) * SECOND; }

/* A socket on a free UDP port of 127.0.0.1, which it does not share. */
static inline int take_port(uint16_t *port) {
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static inline uint16_t free_port(void) {
    uint16_t port;
    close(take_port(&port));
    return port;
}

static trunk_interfaces loopback_only;

static inline void make_loopback(void) {
    static const char *names[1];
    names[0] = if_nametoindex("lo") != 0 ? "lo" : "lo0";
    OK(trunk_interfaces_init(&loopback_only));
    CHECK(loopback_only.loopback && loopback_only.ipv4 && loopback_only.ipv6);
    loopback_only.names = names;
    loopback_only.name_count = 1;
    loopback_only.ipv6 = 0;
}

/* The loopback interface, over IPv4. */
static inline const trunk_interfaces *loopback(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CHECK(pthread_once(&once, make_loopback) == 0);
    return &loopback_only;
}

typedef void change_announcer(trunk_announcer_config *, trunk_announcement *);
typedef void change_discovery(trunk_discovery_config *);

/* Announces "device n" with the port 7000 + n; `change` may alter it first. */
static inline trunk_announcer announce(uint16_t port, uint8_t n, change_announcer *change) {
    static const char *all[] = {"0.0.0.0"};
    char name[16];
    trunk_announcer announcer = 0;
    trunk_announcement told;
    trunk_announcer_config config;
    OK(trunk_announcement_init(&told));
    OK(trunk_announcer_config_init(&config));
    snprintf(name, sizeof name, "device %u", (unsigned)n);
    told.name = name;
    told.service = "test";
    memset(told.peer, n, sizeof told.peer);
    told.port = 7000u + n;
    config.announcement = &told;
    config.port = port;
    config.listen = all;
    config.listen_count = 1;
    config.interfaces = loopback();
    if (change != NULL) {
        change(&config, &told);
    }
    OK(trunk_announcer_start(&config, &announcer));
    CHECK(announcer != 0);
    return announcer;
}

static inline void basic(trunk_discovery_config *config, uint16_t port) {
    OK(trunk_discovery_config_init(config));
    config->port = port;
    config->interfaces = loopback();
}

static inline trunk_discovery discover(uint16_t port, change_discovery *change) {
    trunk_discovery discovery = 0;
    trunk_discovery_config config;
    basic(&config, port);
    if (change != NULL) {
        change(&config);
    }
    OK(trunk_discovery_start(&config, &discovery));
    CHECK(discovery != 0);
    return discovery;
}

static trunk_announcer answering[4]; /* announcers that waiting has to drive */

static inline void answer(void) {
    for (size_t i = 0; i < sizeof answering / sizeof *answering; i++) {
        if (answering[i] != 0) {
            OK(trunk_announcer_poll(answering[i], TRUNK_WAIT_NOT));
        }
    }
}

/* Ends the announcers that are driven. */
static inline void stop_answering(void) {
    for (size_t i = 0; i < sizeof answering / sizeof *answering; i++) {
        if (answering[i] != 0) {
            OK(trunk_announcer_close(answering[i]));
            answering[i] = 0;
        }
    }
}

/* The next event of this type; what else is told meanwhile is passed over. */
static inline trunk_discovery_event until(trunk_discovery discovery,
                                          trunk_discovery_event_type type) {
    int64_t deadline = now_ns() + patience();
    for (;;) {
        trunk_discovery_event event;
        size_t count = 9;
        answer();
        OK(trunk_discovery_poll(discovery, &event, 1, SECOND / 500, &count));
        CHECK(count <= 1);
        if (count == 1 && event.type == type) {
            return event;
        }
        CHECK(now_ns() < deadline && "nothing more comes");
    }
}

static inline void pause_ms(long ms) {
    struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&wait, NULL);
}

/* Answers on a thread of its own until the announcer is closed. */
static inline void *answer_until_closed(void *announcer) {
    trunk_result result;
    do {
        result = trunk_announcer_poll(*(trunk_announcer *)announcer, TRUNK_WAIT_FOREVER);
    } while (result == TRUNK_OK);
    CHECK(result == TRUNK_ERR_INVALID_HANDLE);
    return NULL;
}

static inline pthread_t answer_elsewhere(trunk_announcer *announcer) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, answer_until_closed, announcer) == 0);
    return thread;
}

static inline void join(pthread_t thread) { CHECK(pthread_join(thread, NULL) == 0); }

#endif
