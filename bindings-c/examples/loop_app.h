/*
 * What loop_epoll.c and loop_uv.c drive: an engine without threads, an echo host, and a client that
 * says something at every tick of the application's own timer.
 */
#ifndef LOOP_APP_H
#define LOOP_APP_H

#include "example.h"

enum { TICKS = 50, TICK_MS = 20 };

typedef struct app {
    trunk_engine *engine;
    trunk_conn conn;       /* the client's; 0 without one */
    trunk_channel channel; /* the client's */
    int said, heard, ended;
    int64_t slowest; /* round trip */
    int done;
} app;

/* Both sides in this engine, or one of them. */
static inline void app_start(app *me, int argc, char **argv) {
    place there;
    trunk_engine_config config;
    trunk_engine_config_init(&config);
    config.threadless = 1;
    must(trunk_engine_new(&config, &me->engine), "engine");
    if (argc == 1) {
        there = listen_at(me->engine, "127.0.0.1:0");
    } else if (argc == 3 && strcmp(argv[1], "host") == 0) {
        there = listen_at(me->engine, argv[2]);
        print_place(&there);
        return;
    } else if (argc == 4 && strcmp(argv[1], "client") == 0) {
        there = parse_place(argv[2], argv[3]);
    } else {
        fprintf(stderr, "usage: %s | %s host ADDRESS | %s client ADDRESS FINGERPRINT\n", argv[0],
                argv[0], argv[0]);
        exit(2);
    }
    me->conn = connect_to(me->engine, &there, NULL);
    me->channel = open_channel(me->engine, me->conn, "echo", TRUNK_KIND_MESSAGES);
}

/* The application's timer: the client says what time it is. */
static inline void app_tick(app *me) {
    int64_t now = now_ns();
    /* What is not taken now is tried again at the next tick. If the connection has failed, an item
     * will say why. */
    if (me->conn != 0 && me->said < TICKS) {
        me->said += trunk_send(me->engine, me->channel, &now, sizeof now) == TRUNK_OK;
    } else if (me->conn != 0 && !me->ended) {
        me->ended = trunk_channel_close(me->engine, me->channel) == TRUNK_OK;
    }
}

static inline void app_take(app *me, const trunk_item *item) {
    int ours = item->conn == me->conn;
    switch (item->type) {
    case TRUNK_ITEM_INCOMING:
        trunk_accept(me->engine, item->conn); /* if it cannot be, an item will say why */
        break;
    case TRUNK_ITEM_REQUEST:
        /* It may have ended by now: then TRUNK_ITEM_CLOSED is next, and there is nothing to do. */
        trunk_channel_accept(me->engine, item->channel, NULL);
        break;
    case TRUNK_ITEM_DATA:
        if (ours && item->size == sizeof(int64_t)) {
            int64_t then;
            memcpy(&then, item->data, sizeof then);
            me->heard++;
            me->slowest = now_ns() - then > me->slowest ? now_ns() - then : me->slowest;
        } else if (trunk_send_item(me->engine, item->channel, item, 0) != TRUNK_OK) {
            trunk_channel_reset(me->engine, item->channel, 1); /* sends and does not read */
        }
        break;
    case TRUNK_ITEM_EOF:
        if (ours) {
            must(trunk_close(me->engine, item->conn, 0, "done", TRUNK_LINGER_DEFAULT), "close");
        } else {
            trunk_channel_close(me->engine, item->channel);
        }
        break;
    case TRUNK_ITEM_STATUS:
        if (item->detail.status->new_status >= TRUNK_STATUS_CLOSED_BY_PEER) {
            if (ours) {
                fail("host", item->detail.status->reason_text);
            }
            trunk_close(me->engine, item->conn, 0, NULL, TRUNK_LINGER_NONE);
        }
        break;
    case TRUNK_ITEM_DEAD:
        me->done |= ours;
        break;
    }
}

/* What the loop calls whenever the engine may have work: carries it out, takes what has happened,
 * and says after how many nanoseconds to come again at the latest (TRUNK_WAIT_FOREVER: only when
 * the descriptor is readable). What the application sends before this call leaves in it; what it
 * sends while it takes items makes the answer 0. */
static inline int64_t app_drive(app *me) {
    trunk_item items[64];
    size_t count;
    int64_t timeout;
    must(trunk_engine_poll(me->engine, TRUNK_WAIT_NOT, NULL), "poll");
    do {
        must(trunk_recv_many(me->engine, 0, items, 64, TRUNK_WAIT_NOT, &count), "receive");
        for (size_t i = 0; i < count; i++) {
            app_take(me, &items[i]);
        }
        trunk_message_release(items, count);
    } while (count == 64);
    must(trunk_engine_next_timeout_ns(me->engine, &timeout), "timeout");
    return timeout;
}

/* Ends everything; what to give to exit. */
static inline int app_end(app *me) {
    must(trunk_shutdown(me->engine, TRUNK_LINGER_DEFAULT, NULL), "shutdown");
    must(trunk_engine_destroy(me->engine), "destroy");
    printf("%d said, %d heard, slowest round trip %.1f ms\n", me->said, me->heard,
           (double)me->slowest / 1e6);
    return me->said != TICKS || me->heard != TICKS;
}

#endif
