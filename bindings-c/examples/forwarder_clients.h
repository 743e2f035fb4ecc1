/*
 * The other half of forwarder.c: a publisher and subscribers, each with a connection of its own, in
 * one engine and one thread.
 */
#ifndef FORWARDER_CLIENTS_H
#define FORWARDER_CLIENTS_H

#include "example.h"

typedef struct show_options {
    int subscribers, slow, seconds, fps, size;
} show_options;

typedef struct show_totals {
    long long published, left_out, received, missed;
    int ready, gone;
} show_totals;

static inline show_options parse_options(int *argc, char **argv) {
    show_options options;
    options.subscribers = take_number(argc, argv, "--subscribers", 100, 1, 1000);
    options.slow = take_number(argc, argv, "--slow", 1, 0, 1000);
    options.seconds = take_number(argc, argv, "--seconds", 5, 1, 3600);
    options.fps = take_number(argc, argv, "--fps", 60, 1, 10000);
    options.size = take_number(argc, argv, "--size", 16384, 4096, 65536);
    return options;
}

/* Frames that a subscriber may have received and not looked at. More would only be stale. */
enum { WINDOW = 32 };

/* A publisher or subscriber; user data of its connection. */
typedef struct client {
    trunk_conn conn; /* 0: closed */
    trunk_channel channel;
    int publishes;
    uint64_t next; /* number of the next frame; 0: not known yet */
} client;

/* Sends the next frame out of the engine's own memory, with its number at both ends. A live picture
 * cannot wait: while there is no room, frames are left out. */
static inline void publish(trunk_engine *engine, client *me, const show_options *options,
                           show_totals *total) {
    size_t size = (size_t)options->size;
    trunk_buf frame;
    trunk_result result = trunk_buf_alloc(engine, size, &frame);
    if (result == TRUNK_OK) {
        memset(frame.data, 0, size);
        memcpy(frame.data, &me->next, 8);
        memcpy(frame.data + size - 8, &me->next, 8);
        result = trunk_send_buf(engine, me->channel, &frame, size, 0);
        trunk_buf_free(&frame); /* empty if it was taken */
    }
    /* If there was room, the connection has failed, and an item will say why. */
    me->next += result == TRUNK_OK;
    total->published += result == TRUNK_OK;
    total->left_out += result != TRUNK_OK;
}

static inline void check_frame(client *me, const trunk_item *item, show_totals *total) {
    uint64_t first = 0, last = 0;
    if (item->size >= 16) {
        memcpy(&first, item->data, 8);
        memcpy(&last, item->data + item->size - 8, 8);
    }
    if (first == 0 || first != last || first < me->next) {
        fail("subscriber", "a frame is damaged, or came twice");
    }
    total->missed += me->next != 0 ? (long long)(first - me->next) : 0;
    total->received++;
    me->next = first + 1;
}

static inline void client_close(trunk_engine *engine, client *me, const char *error) {
    if (me->conn != 0) {
        must(trunk_close(engine, me->conn, 0, "done", TRUNK_LINGER_DEFAULT), "close");
        me->conn = 0;
        if (error != NULL) {
            fail(me->publishes ? "publisher" : "subscriber", error);
        }
    }
}

/* Deals with one item. */
static inline void client_take(trunk_engine *engine, const trunk_item *item, show_totals *total) {
    client *me = item->conn_user;
    switch (item->type) {
    case TRUNK_ITEM_READY:
        total->ready++;
        break;
    case TRUNK_ITEM_DATA:
        check_frame(me, item, total);
        break;
    case TRUNK_ITEM_EOF: /* the show is over */
        client_close(engine, me, NULL);
        break;
    case TRUNK_ITEM_RESET:
        client_close(engine, me, "sent away: too slow");
        break;
    case TRUNK_ITEM_CLOSED:
        client_close(engine, me, item->detail.closed->text);
        break;
    case TRUNK_ITEM_STATUS:
        if (item->detail.status->new_status >= TRUNK_STATUS_CLOSED_BY_PEER) {
            client_close(engine, me, item->detail.status->reason_text);
        }
        break;
    case TRUNK_ITEM_DEAD:
        total->gone++;
        break;
    }
}

/* Takes what there is in a group; waits for something for at most `wait` nanoseconds. */
static inline void take_all(trunk_engine *engine, trunk_group group, int64_t wait,
                            show_totals *total) {
    trunk_item items[64];
    size_t count;
    do {
        must(trunk_recv_many(engine, group, items, 64, wait, &count), "receive");
        for (size_t i = 0; i < count; i++) {
            client_take(engine, &items[i], total);
        }
        trunk_message_release(items, count);
        wait = TRUNK_WAIT_NOT;
    } while (count == 64);
}

/* `slow` is the group of the slow subscribers. */
static inline client *start_clients(trunk_engine *engine, const place *there, int publishers,
                                    int count, trunk_group slow, const show_options *options) {
    client *clients = calloc((size_t)count, sizeof *clients);
    if (clients == NULL) {
        fail("clients", "no memory");
    }
    for (int i = 0; i < count; i++) {
        client *me = &clients[i];
        trunk_channel_options channel;
        trunk_channel_options_init(&channel);
        channel.kind = TRUNK_KIND_MESSAGES;
        me->publishes = i < publishers;
        me->next = me->publishes ? 1 : 0;
        me->conn = connect_to(engine, there, me);
        if (!me->publishes && i - publishers < options->slow) {
            must(trunk_conn_set_group(engine, me->conn, slow), "group");
        }
        must(trunk_channel_open(engine, me->conn, me->publishes ? "publish" : "subscribe", &channel,
                                &me->channel),
             "open a channel");
    }
    return clients;
}

/* One publisher or none, and subscribers, until the show is over. */
static inline show_totals run_clients(const place *there, int publishers, int subscribers,
                                      const show_options *options) {
    int count = publishers + subscribers;
    int64_t next = 0, end = 0, wake = now_ns();
    show_totals total = {0};
    trunk_group slow;
    trunk_engine *engine;
    trunk_engine_config config;
    trunk_connection_config connection;
    trunk_engine_config_init(&config);
    trunk_connection_config_init(&connection);
    connection.channel_window = connection.channel_window_max = WINDOW * (uint64_t)options->size;
    connection.initial_timeout_ns = 30 * SECOND; /* all connect in one moment */
    config.connection = &connection;
    must(trunk_engine_new(&config, &engine), "engine");
    must(trunk_group_new(engine, &slow), "group");
    client *clients = start_clients(engine, there, publishers, count, slow, options);
    while (total.gone < count) {
        int64_t now = now_ns();
        if (publishers == 1 && end == 0 && total.ready == count) {
            next = now;
            end = now + options->seconds * SECOND;
        }
        if (next != 0 && now >= end) {
            next = trunk_channel_close(engine, clients[0].channel) == TRUNK_OK ? 0 : now;
        } else if (next != 0 && now >= next) {
            publish(engine, &clients[0], options, &total);
            next += SECOND / options->fps;
            next = next > now ? next : now; /* a camera does not make up for lost time */
        }
        if (now >= wake) { /* during the show the slow ones look up only once a second */
            int show = total.ready == count && total.gone == 0;
            take_all(engine, slow, TRUNK_WAIT_NOT, &total);
            wake = now + (show ? SECOND : 10 * MILLISECOND);
        }
        int64_t wait = (next != 0 && next < wake ? next : wake) - now;
        take_all(engine, 0, wait > 0 ? wait : TRUNK_WAIT_NOT, &total);
    }
    must(trunk_engine_destroy(engine), "destroy");
    free(clients);
    return total;
}

#endif
