/*
 * Game server: no threads but its own, a fixed tick, and three channels for each player.
 *
 *     inputs   datagrams, player to server   what the player does; only the latest counts
 *     state    datagrams, server to player   the whole world, once a tick
 *     chat     messages, both ways           a line of one player goes to all
 *
 *     game_server [--hz 60] [--clients 200] [--seconds 10] [--json]
 *
 * The players are simulated by a second process (game_players.h), so that the server has a thread
 * to itself as it would have in earnest. At the end it says how late its ticks began.
 *
 * Build:  cc -std=c99 game_server.c -ltrunkline -o game_server
 */
#include "game_players.h"

#include <sys/wait.h>
#include <unistd.h>

/* One player; user data of its connection. */
typedef struct player {
    trunk_conn conn; /* 0: nobody */
    trunk_channel inputs, state, chat; /* 0 until asked for */
    game_input input;                  /* the latest */
} player;

static trunk_engine *engine;
static player players[MAX_PLAYERS];
static game_state world;
static game_totals total;
static int ready; /* players with all three channels */

static void join(trunk_conn conn) {
    uint32_t i = 0;
    while (i < MAX_PLAYERS && players[i].conn != 0) {
        i++;
    }
    if (i == MAX_PLAYERS) {
        trunk_reject(engine, conn, 0, "full");
        return;
    }
    if (trunk_conn_set_user(engine, conn, &players[i]) != TRUNK_OK) {
        return; /* gone by now */
    }
    players[i].conn = conn;
    world.players = i < world.players ? world.players : i + 1;
    trunk_accept(engine, conn); /* if it cannot be, an item will say why */
}

static void leave(player *who) {
    ready -= who->inputs != 0 && who->state != 0 && who->chat != 0;
    memset(who, 0, sizeof *who);
}

static void take_channel(player *who, const trunk_item *item) {
    const char *name = item->detail.request->name;
    trunk_kind kind = strcmp(name, "chat") == 0 ? TRUNK_KIND_MESSAGES : TRUNK_KIND_DATAGRAMS;
    trunk_channel *channel = strcmp(name, "inputs") == 0  ? &who->inputs
                             : strcmp(name, "state") == 0 ? &who->state
                             : strcmp(name, "chat") == 0  ? &who->chat
                                                          : NULL;
    if (channel == NULL || *channel != 0 || item->kind != kind) {
        trunk_channel_decline(engine, item->channel, 1, "not a channel of this game");
        return;
    }
    if (trunk_channel_accept(engine, item->channel, NULL) != TRUNK_OK) {
        return; /* it has ended by now: TRUNK_ITEM_CLOSED is next */
    }
    *channel = item->channel;
    ready += who->inputs != 0 && who->state != 0 && who->chat != 0;
}

/* A line goes to everybody. A player who does not take what waits for it is sent away: reliable
 * means that nothing is left out. */
static void chat(const trunk_item *line) {
    total.said++;
    for (int i = 0; i < MAX_PLAYERS; i++) {
        if (players[i].chat == 0) {
            continue;
        }
        if (trunk_send_item(engine, players[i].chat, line, 0) == TRUNK_OK) {
            total.lines++;
        } else {
            trunk_close(engine, players[i].conn, 1500, "does not read", TRUNK_LINGER_NONE);
            leave(&players[i]);
        }
    }
}

static void take(const trunk_item *item) {
    player *who = item->conn_user;
    if (item->type == TRUNK_ITEM_INCOMING) {
        join(item->conn);
    } else if (who == NULL || who->conn != item->conn) {
        return; /* of a player who was sent away */
    } else if (item->type == TRUNK_ITEM_REQUEST) {
        take_channel(who, item);
    } else if (item->type == TRUNK_ITEM_DATA && item->channel == who->chat) {
        chat(item);
    } else if (item->type == TRUNK_ITEM_DATA && item->channel == who->inputs &&
               item->size == sizeof who->input) {
        memcpy(&who->input, item->data, sizeof who->input);
        total.inputs++;
    } else if (item->type == TRUNK_ITEM_STATUS &&
               item->detail.status->new_status >= TRUNK_STATUS_CLOSED_BY_PEER) {
        trunk_close(engine, item->conn, 0, NULL, TRUNK_LINGER_NONE);
        leave(who);
        total.lost++;
    }
}

/* Moves everybody and sends the world to everybody. What cannot go now is left out: the next tick
 * sends a newer one. */
static void tick(void) {
    static trunk_outgoing messages[MAX_PLAYERS];
    size_t count = 0, sent = 0;
    world.tick++;
    for (uint32_t i = 0; i < world.players; i++) {
        world.at[i].x += players[i].input.dx;
        world.at[i].y += players[i].input.dy;
        if (players[i].state != 0) {
            messages[count++] =
                (trunk_outgoing){players[i].state, &world, state_size(world.players)};
        }
    }
    for (size_t at = 0; at < count; at += sent + 1) {
        int all = trunk_send_many(engine, messages + at, count - at, &sent) == TRUNK_OK;
        total.states += (long long)sent;
        total.skipped += !all;
        if (all) {
            break;
        }
    }
}

/* Drives the engine until a moment: the wait is the tick's sleep. */
static void drive_until(int64_t moment) {
    int64_t left;
    do {
        trunk_item items[64];
        size_t count;
        left = moment - now_ns();
        must(trunk_engine_poll(engine, left > 0 ? left : TRUNK_WAIT_NOT, NULL), "poll");
        do {
            must(trunk_recv_many(engine, 0, items, 64, TRUNK_WAIT_NOT, &count), "receive");
            for (size_t i = 0; i < count; i++) {
                take(&items[i]);
            }
            trunk_message_release(items, count);
        } while (count == 64);
    } while (moment - now_ns() > 0);
}

int main(int argc, char **argv) {
    game_options options = parse_options(argc, argv);
    int to_players[2], from_players[2];
    if (pipe(to_players) != 0 || pipe(from_players) != 0) {
        fail("pipe", "no more descriptors");
    }
    pid_t child = fork(); /* before there is an engine: those stay with their process */
    if (child == 0) {
        close(from_players[0]);
        close(to_players[1]);
        return play(&options, to_players[0], from_players[1]);
    }
    close(to_players[0]);
    close(from_players[1]);
    trunk_engine_config config;
    trunk_engine_config_init(&config);
    config.threadless = 1;
    config.handshakes_per_source_per_s = 0; /* all players come from one address */
    must(trunk_engine_new(&config, &engine), "engine");
    place here = listen_at(engine, "127.0.0.1:0");
    if (child < 0 || write(to_players[1], &here, sizeof here) != sizeof here) {
        fail("players", "do not start");
    }
    int64_t period = SECOND / options.hz, start = now_ns();
    while (ready < options.clients && now_ns() - start < 40 * SECOND) {
        drive_until(now_ns() + period);
    }
    total.ticks = options.seconds * options.hz;
    int64_t *late = calloc((size_t)total.ticks, sizeof *late), next = now_ns() + period;
    if (ready < options.clients || late == NULL) {
        fail("players", "not all are there after 40 s");
    }
    for (int64_t i = 0; i < total.ticks; i++) {
        drive_until(next);
        late[i] = now_ns() - next;
        tick();
        for (next += period; next + period < now_ns() && i + 1 < total.ticks; next += period) {
            total.ticks--; /* a whole period late: its time is that of the one after it */
            total.ticks_missed++;
        }
    }
    drive_until(next); /* the last states leave, and with the next line what came of it */
    must(trunk_engine_poll(engine, TRUNK_WAIT_NOT, NULL), "poll");
    must(trunk_shutdown(engine, TRUNK_LINGER_DEFAULT, NULL), "shutdown"); /* delivers the chat */
    must(trunk_engine_destroy(engine), "destroy");

    game_totals heard;
    int status = 1;
    if (read(from_players[0], &heard, sizeof heard) != sizeof heard ||
        waitpid(child, &status, 0) != child || status != 0) {
        fail("players", "did not come to a good end");
    }
    print_report(&options, &total, &heard, late);
    free(late);
    if (total.lost > 0 || heard.lines != total.lines) {
        fail("game", "players or lines of the chat were lost");
    }
    return 0;
}
