/*
 * The other half of game_server.c: the messages of the game, players that are simulated, and the
 * report.
 */
#ifndef GAME_PLAYERS_H
#define GAME_PLAYERS_H

#include "example.h"

#include <unistd.h>

enum { MAX_PLAYERS = 1000 };

/* Messages. Both sides are this program on this machine, hence no byte order to agree on. */
typedef struct game_input {
    uint32_t number;
    int16_t dx, dy;
} game_input;

typedef struct game_state {
    uint32_t tick, players;
    struct {
        int16_t x, y;
    } at[MAX_PLAYERS]; /* those that there are, are sent */
} game_state;

static inline size_t state_size(uint32_t players) {
    return offsetof(game_state, at) + players * sizeof(((game_state *)0)->at[0]);
}

typedef struct game_options {
    int hz, clients, seconds, json;
} game_options;

/* What one side has counted: messages sent and received, as that side sees them. */
typedef struct game_totals {
    long long inputs, states, said, lines; /* said: lines to the server; lines: those to players */
    long long ticks, ticks_missed, skipped, lost; /* the server's */
} game_totals;

static inline game_options parse_options(int argc, char **argv) {
    game_options options;
    options.hz = take_number(&argc, argv, "--hz", 60, 1, 1000);
    options.clients = take_number(&argc, argv, "--clients", 200, 1, MAX_PLAYERS);
    options.seconds = take_number(&argc, argv, "--seconds", 10, 1, 3600);
    options.json = take_flag(&argc, argv, "--json");
    if (argc != 1) {
        fprintf(stderr, "usage: game_server [--hz 60] [--clients 200] [--seconds 10] [--json]\n");
        exit(2);
    }
    return options;
}

/* ---- players: one thread-less engine with a connection for each ---------------------------- */

typedef struct game_client {
    trunk_conn conn;
    trunk_channel inputs, state, chat;
    uint32_t tick; /* of the newest state */
    uint32_t number;
} game_client;

/* Deals with one item; whether it was the last of its connection. */
static inline int client_take(trunk_engine *engine, game_totals *total, const trunk_item *item) {
    game_client *me = item->conn_user;
    if (item->type == TRUNK_ITEM_DATA && item->channel == me->chat) {
        total->lines++;
    } else if (item->type == TRUNK_ITEM_DATA) {
        uint32_t tick = 0;
        memcpy(&tick, item->data, item->size < state_size(0) ? 0 : sizeof tick);
        if (tick <= me->tick) {
            fail("player", "an old state, or none");
        }
        me->tick = tick;
        total->states++;
    } else if (item->type == TRUNK_ITEM_STATUS &&
               item->detail.status->new_status >= TRUNK_STATUS_CLOSED_BY_PEER) {
        if (item->detail.status->reason != TRUNK_REASON_SHUTDOWN) {
            fail("player", item->detail.status->reason_text);
        }
        trunk_close(engine, item->conn, 0, NULL, TRUNK_LINGER_NONE);
    }
    return item->type == TRUNK_ITEM_DEAD;
}

/* Sends the next input; now and then one player says something to all. */
static inline void client_act(trunk_engine *engine, game_totals *total, game_client *me,
                              const game_options *options) {
    game_input input = {++me->number, (int16_t)(me->number % 3), -1};
    /* Dropped while connecting or when the line is full: the next one says more. */
    total->inputs += trunk_send(engine, me->inputs, &input, sizeof input) == TRUNK_OK;
    if (me->tick > 0 && total->inputs % (options->clients * options->hz / 2 + 1) == 0) {
        total->said += trunk_send(engine, me->chat, "over here", 9) == TRUNK_OK;
    }
}

/* Plays until the server ends it. Reads from `in` where the server is, and writes to `out` what it
 * has counted. */
static inline int play(const game_options *options, int in, int out) {
    static game_client clients[MAX_PLAYERS];
    game_totals total = {0};
    trunk_engine *engine;
    trunk_connection_config connection;
    trunk_engine_config config;
    place there;
    if (read(in, &there, sizeof there) != sizeof there) {
        fail("player", "there is no server");
    }
    trunk_connection_config_init(&connection);
    connection.initial_timeout_ns = 30 * SECOND; /* all connect in one moment */
    trunk_engine_config_init(&config);
    config.connection = &connection;
    config.threadless = 1;
    must(trunk_engine_new(&config, &engine), "engine");
    for (int i = 0; i < options->clients; i++) {
        game_client *me = &clients[i];
        me->conn = connect_to(engine, &there, me);
        me->inputs = open_channel(engine, me->conn, "inputs", TRUNK_KIND_DATAGRAMS);
        me->state = open_channel(engine, me->conn, "state", TRUNK_KIND_DATAGRAMS);
        me->chat = open_channel(engine, me->conn, "chat", TRUNK_KIND_MESSAGES);
    }
    /* Their inputs are spread over the tick, as those of people would be. */
    int64_t start = now_ns(), sent = 0;
    for (int alive = options->clients; alive > 0;) {
        trunk_item items[64];
        size_t count;
        int64_t due = (int64_t)((double)(now_ns() - start) / 1e9 * options->hz * options->clients);
        for (; sent < due; sent++) {
            client_act(engine, &total, &clients[sent % options->clients], options);
        }
        must(trunk_engine_poll(engine, MILLISECOND, NULL), "poll");
        do {
            must(trunk_recv_many(engine, 0, items, 64, TRUNK_WAIT_NOT, &count), "receive");
            for (size_t i = 0; i < count; i++) {
                alive -= client_take(engine, &total, &items[i]);
            }
            trunk_message_release(items, count);
        } while (count == 64);
    }
    must(trunk_engine_destroy(engine), "destroy");
    return write(out, &total, sizeof total) == sizeof total ? 0 : 1;
}

/* ---- report --------------------------------------------------------------------------------- */

static inline int compare(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* `late` is how late each tick began, in nanoseconds. */
static inline void print_report(const game_options *options, const game_totals *server,
                                const game_totals *players, int64_t *late) {
    size_t n = (size_t)server->ticks;
    qsort(late, n, sizeof *late, compare);
    double min = (double)late[0] / 1e3, median = (double)late[n / 2] / 1e3,
           p99 = (double)late[n - 1 - n / 100] / 1e3, max = (double)late[n - 1] / 1e3;
    if (options->json) {
        printf("{\"clients\":%d,\"hz\":%d,\"ticks\":%lld,\"ticks_missed\":%lld,"
               "\"late_us\":{\"min\":%.1f,\"median\":%.1f,\"p99\":%.1f,\"max\":%.1f},",
               options->clients, options->hz, server->ticks, server->ticks_missed, min, median,
               p99, max);
        printf("\"inputs\":{\"sent\":%lld,\"received\":%lld},"
               "\"states\":{\"sent\":%lld,\"received\":%lld,\"skipped\":%lld},"
               "\"lines\":{\"said\":%lld,\"received\":%lld,\"sent\":%lld,\"heard\":%lld}}\n",
               players->inputs, server->inputs, server->states, players->states, server->skipped,
               players->said, server->said, server->lines, players->lines);
        return;
    }
    printf("%d players, %d Hz: %lld ticks, %lld missed\n\n", options->clients, options->hz,
           server->ticks, server->ticks_missed);
    printf("%-20s%10s%10s%10s%10s\n", "us", "min", "median", "p99", "max");
    printf("%-20s%10.1f%10.1f%10.1f%10.1f\n\n", "lateness of a tick", min, median, p99, max);
    printf("%-20s%10s%10s\n", "messages", "sent", "received");
    printf("%-20s%10lld%10lld\n", "inputs", players->inputs, server->inputs);
    printf("%-20s%10lld%10lld   %lld skipped\n", "states", server->states, players->states,
           server->skipped);
    printf("%-20s%10lld%10lld\n", "lines to the server", players->said, server->said);
    printf("%-20s%10lld%10lld\n", "lines to players", server->lines, players->lines);
}

#endif
