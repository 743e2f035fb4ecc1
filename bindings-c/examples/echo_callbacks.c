/*
 * Echo with callbacks, the fast path: what arrives is handed over on the thread of the connection's
 * shard, and what is sent there leaves without a queue between threads. Host and client are two
 * engines of this process; the client keeps one message on its way and counts the round trips.
 *
 *     echo_callbacks [ROUND_TRIPS [BYTES]]           10000, of 64 bytes
 *
 * Build:  cc -std=c99 echo_callbacks.c -ltrunkline -lpthread -o echo_callbacks
 */
#include "example.h"

#include <pthread.h>

/* User data of the callbacks of both sides. Only the shard's thread touches it while it runs. */
typedef struct side {
    trunk_engine *engine; /* set before a connection calls */
    long left;            /* client: round trips to go */
    const char *error;
} side;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int ended; /* the client's connection is gone */

/* Both sides: a message comes, and goes back from where it lies. */
static void on_data(void *user, trunk_channel channel, void *channel_user, trunk_kind kind,
                    const uint8_t *data, size_t size) {
    side *me = user;
    trunk_conn conn;
    (void)channel_user;
    (void)kind;
    if (me->left > 0 && --me->left == 0) { /* the client has all that it wanted */
        if (trunk_channel_conn(me->engine, channel, &conn) == TRUNK_OK) {
            trunk_close(me->engine, conn, 0, "done", TRUNK_LINGER_DEFAULT);
        }
    } else if (trunk_send(me->engine, channel, data, size) != TRUNK_OK) {
        /* The peer sends and does not read. Blocking here would stop the whole shard. */
        trunk_channel_reset(me->engine, channel, 1);
    }
}

static void host_item(void *user, const trunk_item *item) {
    side *me = user;
    if (item->type == TRUNK_ITEM_INCOMING) {
        trunk_accept(me->engine, item->conn);
    } else if (item->type == TRUNK_ITEM_REQUEST) {
        trunk_channel_accept(me->engine, item->channel, NULL);
    } else if (item->type == TRUNK_ITEM_STATUS &&
               item->detail.status->new_status >= TRUNK_STATUS_CLOSED_BY_PEER) {
        trunk_close(me->engine, item->conn, 0, NULL, TRUNK_LINGER_NONE);
    }
}

static void client_item(void *user, const trunk_item *item) {
    side *me = user;
    /* A lost connection ends the channel, too: TRUNK_ITEM_STATUS tells that. */
    int refused = item->type == TRUNK_ITEM_CLOSED &&
                  item->detail.closed->end != TRUNK_END_FINISHED &&
                  item->detail.closed->end != TRUNK_END_CONNECTION;
    if (item->type == TRUNK_ITEM_RESET || refused) {
        me->error = "the host does not echo";
        trunk_close(me->engine, item->conn, 0, NULL, TRUNK_LINGER_NONE);
    } else if (item->type == TRUNK_ITEM_STATUS &&
               item->detail.status->new_status >= TRUNK_STATUS_CLOSED_BY_PEER) {
        me->error = "the connection was lost";
        trunk_close(me->engine, item->conn, 0, NULL, TRUNK_LINGER_NONE);
    } else if (item->type == TRUNK_ITEM_DEAD) {
        pthread_mutex_lock(&lock);
        ended = 1;
        pthread_cond_signal(&changed);
        pthread_mutex_unlock(&lock);
    }
}

/* An engine whose own group calls. Before it listens or connects, only the failure of a shard is
 * told, which may be before trunk_engine_new has stored the engine. */
static void start(side *me, trunk_item_fn on_item) {
    trunk_callbacks callbacks;
    trunk_engine_config config;
    trunk_callbacks_init(&callbacks);
    callbacks.on_data = on_data;
    callbacks.on_item = on_item;
    callbacks.user = me;
    trunk_engine_config_init(&config);
    config.callbacks = &callbacks;
    must(trunk_engine_new(&config, &me->engine), "engine");
}

int main(int argc, char **argv) {
    long count = argc > 1 ? atol(argv[1]) : 10000, size = argc > 2 ? atol(argv[2]) : 64;
    static uint8_t message[65536];
    side host = {0}, client = {0};
    if (argc > 3 || count < 1 || size < 1 || size > (long)sizeof message) {
        fprintf(stderr, "usage: echo_callbacks [ROUND_TRIPS [BYTES]], up to 65536 bytes\n");
        return 2;
    }
    start(&host, host_item);
    start(&client, client_item);
    place there = listen_at(host.engine, "127.0.0.1:0");
    client.left = count;

    int64_t began = now_ns();
    trunk_conn conn = connect_to(client.engine, &there, NULL);
    trunk_channel channel = open_channel(client.engine, conn, "echo", TRUNK_KIND_MESSAGES);
    must(trunk_send(client.engine, channel, message, (size_t)size), "send");
    pthread_mutex_lock(&lock);
    while (!ended) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    double us = (double)(now_ns() - began) / 1e3;

    must(trunk_engine_destroy(client.engine), "destroy");
    must(trunk_shutdown(host.engine, TRUNK_LINGER_DEFAULT, NULL), "shutdown");
    must(trunk_engine_destroy(host.engine), "destroy");
    if (client.error != NULL || client.left != 0) {
        fail("echo", client.error != NULL ? client.error : "messages are missing");
    }
    printf("%ld round trips of %ld bytes, %.1f us each\n", count, size, us / (double)count);
    return 0;
}
