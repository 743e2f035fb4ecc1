/*
 * Media forwarder: what one publisher sends goes to all subscribers, from the memory in which it
 * was received. Where that is not worth it (frames below 9 KiB, or no receive buffer to spare), the
 * engine copies a frame once for all of them.
 *
 *     forwarder [OPTIONS]                                   all of it in this process
 *     forwarder host ADDRESS [OPTIONS]                      until interrupted
 *     forwarder publish ADDRESS FINGERPRINT [OPTIONS]
 *     forwarder subscribe ADDRESS FINGERPRINT [OPTIONS]
 *
 *     --subscribers 100   --slow 1 (of them)   --seconds 5   --fps 60   --size 16384 (of a frame)
 *
 * A subscriber that is too slow misses frames and holds nobody up: when BACKLOG frames wait for it,
 * its sends give TRUNK_ERR_WOULD_BLOCK, and from there to TRUNK_ITEM_WRITABLE the forwarder skips
 * it. The channel is reliable, so nothing else is missing.
 *
 * Build:  cc -std=c99 forwarder.c -ltrunkline -lpthread -o forwarder
 */
#include "forwarder_clients.h"

#include <unistd.h>

/* Frames that may wait for a subscriber, besides those on their way. */
enum { MAX_SUBSCRIBERS = 1000, BACKLOG = 8 };
/* A subscriber that takes nothing for so long is sent away. */
#define PATIENCE (5 * SECOND)
/* Frames that some subscriber has not acknowledged count against what the publisher may send: this
 * must be more than all of their backlogs. */
#define PUBLISHER_WINDOW (48u << 20)

/* One who listens; user data of its channel and connection. */
typedef struct subscriber {
    trunk_channel channel; /* 0: nobody */
    int64_t blocked;       /* since when; 0: it is not */
} subscriber;

/* The host's state. It has one shard, and all calls come on its thread: nothing is locked. */
static trunk_engine *host;
static subscriber subscribers[MAX_SUBSCRIBERS];
static trunk_channel publisher; /* 0: none at the moment */
static long long frames, copied, forwarded, skipped;
static int announce; /* says what has become of each show */

/* A frame of the publisher. */
static void on_data(void *user, trunk_channel channel, void *channel_user, trunk_kind kind,
                    const uint8_t *data, size_t size) {
    trunk_item frame;
    (void)user;
    (void)channel_user;
    (void)kind;
    if (channel != publisher || trunk_message_keep(host, data, size, &frame) != TRUNK_OK) {
        return;
    }
    frames++;
    copied += frame.data != data;
    for (subscriber *at = subscribers; at < subscribers + MAX_SUBSCRIBERS; at++) {
        if (at->channel == 0) {
            continue;
        }
        if (at->blocked == 0 && trunk_send_item(host, at->channel, &frame, 0) == TRUNK_OK) {
            forwarded++;
            continue;
        }
        skipped++;
        at->blocked = at->blocked != 0 ? at->blocked : now_ns();
        if (now_ns() - at->blocked > PATIENCE) {
            trunk_channel_reset(host, at->channel, 1); /* frees what waits for it */
            at->channel = 0;
        }
    }
    trunk_message_release(&frame, 1); /* the memory is free when all have acknowledged it */
}

static void take_channel(const trunk_item *item) {
    const char *name = item->detail.request->name;
    subscriber *at = subscribers;
    trunk_channel_options options;
    trunk_channel_options_init(&options);
    while (at < subscribers + MAX_SUBSCRIBERS && at->channel != 0) {
        at++;
    }
    if (item->kind == TRUNK_KIND_MESSAGES && strcmp(name, "publish") == 0 && publisher == 0) {
        publisher = item->channel;
        options.window = PUBLISHER_WINDOW;
    } else if (item->kind == TRUNK_KIND_MESSAGES && strcmp(name, "subscribe") == 0 &&
               at < subscribers + MAX_SUBSCRIBERS) {
        *at = (subscriber){item->channel, 0};
        trunk_channel_set_user(host, item->channel, at);
    } else {
        trunk_channel_decline(host, item->channel, 1, "taken, or not known");
        return;
    }
    trunk_channel_accept(host, item->channel, &options);
}

/* The publisher has ended: so does what the subscribers get, after the last frame. */
static void end_of_show(void) {
    trunk_channel_close(host, publisher);
    publisher = 0;
    for (subscriber *at = subscribers; at < subscribers + MAX_SUBSCRIBERS; at++) {
        if (at->channel != 0) {
            trunk_channel_close(host, at->channel);
            at->channel = 0;
        }
    }
    if (announce) {
        printf("%lld frames, forwarded %lld times, skipped %lld times\n", frames, forwarded,
               skipped);
        fflush(stdout);
        frames = forwarded = skipped = 0;
    }
}

static void on_item(void *user, const trunk_item *item) {
    subscriber *at = item->channel_user;
    (void)user;
    switch (item->type) {
    case TRUNK_ITEM_INCOMING:
        trunk_accept(host, item->conn);
        break;
    case TRUNK_ITEM_REQUEST:
        take_channel(item);
        break;
    case TRUNK_ITEM_WRITABLE: /* it has caught up */
        if (at != NULL && at->channel == item->channel) {
            at->blocked = 0;
        }
        break;
    case TRUNK_ITEM_EOF:
    case TRUNK_ITEM_CLOSED: /* comes for every channel of a connection that the peer ends, too */
        if (item->channel == publisher) {
            end_of_show();
        } else if (at != NULL && at->channel == item->channel) {
            trunk_channel_close(host, at->channel);
            at->channel = 0;
        }
        break;
    case TRUNK_ITEM_STATUS:
        if (item->detail.status->new_status >= TRUNK_STATUS_CLOSED_BY_PEER) {
            trunk_close(host, item->conn, 0, NULL, TRUNK_LINGER_NONE);
        }
        break;
    }
}

static place start_host(const char *address, const show_options *options) {
    trunk_callbacks callbacks;
    trunk_connection_config connection;
    trunk_engine_config config;
    trunk_callbacks_init(&callbacks);
    callbacks.on_data = on_data;
    callbacks.on_item = on_item;
    trunk_connection_config_init(&connection);
    /* Sends wait at two places: in the connection, and in the engine's queue before it. */
    connection.unsent_limit = (uint64_t)BACKLOG * (uint64_t)options->size;
    trunk_engine_config_init(&config);
    config.callbacks = &callbacks;
    config.connection = &connection;
    config.queue_channel_bytes = (uint64_t)options->size;
    config.handshakes_per_source_per_s = 0; /* our subscribers all come from one address */
    must(trunk_engine_new(&config, &host), "engine");
    return listen_at(host, address);
}

int main(int argc, char **argv) {
    show_options options = parse_options(&argc, argv);
    if (argc == 3 && strcmp(argv[1], "host") == 0) {
        announce = 1;
        place here = start_host(argv[2], &options);
        print_place(&here);
        for (;;) {
            pause();
        }
    } else if (argc == 4 && strcmp(argv[1], "publish") == 0) {
        place there = parse_place(argv[2], argv[3]);
        show_totals total = run_clients(&there, 1, 0, &options);
        printf("published %lld frames, left out %lld\n", total.published, total.left_out);
    } else if (argc == 4 && strcmp(argv[1], "subscribe") == 0) {
        place there = parse_place(argv[2], argv[3]);
        show_totals total = run_clients(&there, 0, options.subscribers, &options);
        printf("received %lld frames, missed %lld\n", total.received, total.missed);
    } else if (argc == 1) {
        place here = start_host("127.0.0.1:0", &options);
        show_totals total = run_clients(&here, 1, options.subscribers, &options);
        must(trunk_shutdown(host, TRUNK_LINGER_DEFAULT, NULL), "shutdown");
        must(trunk_engine_destroy(host), "destroy");
        double megabits = 8e-6 * (double)options.size / options.seconds;
        printf("%d subscribers, %d of them slow; %d frames a second of %d bytes\n\n",
               options.subscribers, options.slow, options.fps, options.size);
        printf("%-10s%10s%10s\n", "", "frames", "Mb/s");
        printf("%-10s%10lld%10.1f   %lld left out, %lld copied\n", "published", total.published,
               megabits * (double)total.published, total.left_out, copied);
        printf("%-10s%10lld%10.1f   %lld skipped\n", "forwarded", total.received,
               megabits * (double)total.received, skipped);
        if (total.published != frames || total.received != forwarded) {
            fail("forwarder", "a frame got lost that nobody skipped");
        }
    } else {
        fprintf(stderr,
                "usage: forwarder [OPTIONS] | forwarder host ADDRESS [OPTIONS]\n"
                "       forwarder publish|subscribe ADDRESS FINGERPRINT [OPTIONS]\n"
                "options: --subscribers 100 --slow 1 --seconds 5 --fps 60 --size 16384\n");
        return 2;
    }
    return 0;
}
