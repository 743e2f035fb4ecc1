/*
 * Many threads at one pair of engines: senders, receivers, one that opens and closes channels and
 * connections, and one that asks for figures. All that is sent must arrive, in order.
 *
 * TEST_EACH is how many messages each sender sends: fewer are enough where something watches.
 */
#include "harness.h"

enum { SENDERS = 4, RECEIVERS = 3, MOST = 12000 };

static pair pairs[SENDERS];      /* the first has the engines of all */
static two channels[SENDERS];    /* one on each connection */
static trunk_group to_sender[SENDERS], to_receiver[RECEIVERS];
static uint32_t next_number[SENDERS]; /* of each channel, by its receiver */
static uint32_t each = 3000;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int stopped;

static int is_stopped(void) {
    CHECK(pthread_mutex_lock(&lock) == 0);
    int is = stopped;
    CHECK(pthread_mutex_unlock(&lock) == 0);
    return is;
}

/* Connections of their own. */
static void force_new(trunk_connect_config *config) { config->reuse = TRUNK_REUSE_FORCE_NEW; }

/* In the command itself, copied, and kept where it was received, in turn. */
static size_t size_of(uint32_t number) {
    static const size_t sizes[] = {4, 60, 102, 103, 2000, 9000, MOST};
    return sizes[number % (sizeof sizes / sizeof *sizes)];
}

static void fill(unsigned char *bytes, uint32_t number) {
    memset(bytes, (int)(number % 251), size_of(number));
    memcpy(bytes, &number, sizeof number);
}

static void *send_all(void *at) {
    size_t i = (size_t)((two *)at - channels);
    trunk_engine *engine = pairs[0].client;
    unsigned char bytes[MOST];
    for (uint32_t number = 0; number < each;) {
        trunk_result result;
        fill(bytes, number);
        if (number % 3 == 0) {
            trunk_outgoing message = {channels[i].at_client, bytes, size_of(number)};
            result = trunk_send_many(engine, &message, 1, NULL);
        } else {
            result = trunk_send(engine, channels[i].at_client, bytes, size_of(number));
        }
        if (result == TRUNK_OK) {
            number++;
            continue;
        }
        CHECK(result == TRUNK_ERR_WOULD_BLOCK);
        trunk_item item = next_of(engine, to_sender[i]);
        CHECK(item.type == TRUNK_ITEM_WRITABLE && item.channel == channels[i].at_client);
        release(&item);
    }
    OK(trunk_channel_close(engine, channels[i].at_client));
    return NULL;
}

static void take(trunk_item *item) {
    uint32_t *number = item->channel_user;
    unsigned char bytes[MOST];
    if (item->type == TRUNK_ITEM_EOF) {
        CHECK(*number == each);
        OK(trunk_channel_close(pairs[0].host.engine, item->channel));
        return;
    }
    CHECK(item->type == TRUNK_ITEM_DATA && item->size == size_of(*number));
    fill(bytes, *number);
    CHECK(memcmp(item->data, bytes, item->size) == 0);
    ++*number;
}

static void *receive_all(void *at) {
    size_t i = (size_t)((trunk_group *)at - to_receiver);
    size_t left = 0;
    for (size_t sender = 0; sender < SENDERS; sender++) {
        left += sender % RECEIVERS == i;
    }
    while (left > 0) {
        trunk_item items[20];
        size_t count;
        OK(trunk_recv_many(pairs[0].host.engine, to_receiver[i], items, 20, 60 * SECOND, &count));
        CHECK(count > 0);
        for (size_t at_item = 0; at_item < count; at_item++) {
            if (items[at_item].type == TRUNK_ITEM_CLOSED) {
                left--;
            } else {
                take(&items[at_item]);
            }
        }
        OK(trunk_message_release(items, count));
    }
    return NULL;
}

/* The only one that receives from the groups of the engines themselves. */
static void *open_and_close(void *at) {
    (void)at;
    pair p = pairs[0];
    for (int round = 0; round < 5; round++) {
        connect_pair_as(&p, force_new);
        for (int i = 0; i < 20; i++) {
            two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "short");
            OK(trunk_send(p.client, ends.at_client, "x", 1));
            skip(p.host.engine, TRUNK_ITEM_DATA);
            OK(trunk_channel_close(p.client, ends.at_client));
            skip(p.host.engine, TRUNK_ITEM_EOF);
            OK(trunk_channel_close(p.host.engine, ends.at_host));
            skip(p.client, TRUNK_ITEM_EOF);
            skip(p.client, TRUNK_ITEM_CLOSED);
            skip(p.host.engine, TRUNK_ITEM_CLOSED);
        }
        OK(trunk_close(p.client, p.at_client, 1000, "next", TRUNK_LINGER_NONE));
        becomes(p.host.engine, TRUNK_STATUS_CLOSED_BY_PEER);
        OK(trunk_close(p.host.engine, p.at_host, 1000, NULL, TRUNK_LINGER_NONE));
        skip(p.host.engine, TRUNK_ITEM_DEAD);
        for (int dead = 0; !dead;) {
            trunk_item item = next(p.client);
            dead = item.type == TRUNK_ITEM_DEAD;
            release(&item);
        }
    }
    return NULL;
}

static void *ask(void *at) {
    (void)at;
    while (!is_stopped()) {
        trunk_engine_stats total;
        trunk_conn_stats stats;
        trunk_conn_info info;
        struct timespec wait = {0, 1000000};
        OK(trunk_engine_stats_init(&total));
        OK(trunk_conn_stats_init(&stats));
        OK(trunk_conn_info_init(&info));
        OK(trunk_engine_get_stats(pairs[0].client, &total));
        CHECK(total.shards == 1);
        for (int i = 0; i < SENDERS; i++) {
            OK(trunk_conn_get_stats(pairs[0].client, pairs[i].at_client, &stats));
            OK(trunk_conn_get_info(pairs[0].host.engine, pairs[i].at_host, &info));
        }
        nanosleep(&wait, NULL);
    }
    return NULL;
}

static void all_at_once(void) {
    pthread_t senders[SENDERS], receivers[RECEIVERS], opener, asker;
    if (getenv("TEST_EACH") != NULL) {
        each = (uint32_t)strtoul(getenv("TEST_EACH"), NULL, 10);
    }
    new_pair(&pairs[0], 0);
    pair *p = &pairs[0];
    for (size_t i = 0; i < RECEIVERS; i++) {
        OK(trunk_group_new(p->host.engine, &to_receiver[i]));
    }
    for (size_t i = 0; i < SENDERS; i++) {
        if (i > 0) {
            pairs[i] = pairs[0];
            connect_pair_as(&pairs[i], force_new);
        }
        channels[i] = open_channel(&pairs[i], TRUNK_KIND_MESSAGES, "numbers");
        OK(trunk_channel_set_user(p->host.engine, channels[i].at_host, &next_number[i]));
        OK(trunk_group_new(p->client, &to_sender[i]));
        OK(trunk_conn_set_group(p->client, pairs[i].at_client, to_sender[i]));
        OK(trunk_conn_set_group(p->host.engine, pairs[i].at_host, to_receiver[i % RECEIVERS]));
    }
    for (size_t i = 0; i < RECEIVERS; i++) {
        CHECK(pthread_create(&receivers[i], NULL, receive_all, &to_receiver[i]) == 0);
    }
    for (size_t i = 0; i < SENDERS; i++) {
        CHECK(pthread_create(&senders[i], NULL, send_all, &channels[i]) == 0);
    }
    CHECK(pthread_create(&opener, NULL, open_and_close, NULL) == 0);
    CHECK(pthread_create(&asker, NULL, ask, NULL) == 0);
    for (size_t i = 0; i < SENDERS; i++) {
        CHECK(pthread_join(senders[i], NULL) == 0);
    }
    for (size_t i = 0; i < RECEIVERS; i++) {
        CHECK(pthread_join(receivers[i], NULL) == 0);
    }
    CHECK(pthread_join(opener, NULL) == 0);
    CHECK(pthread_mutex_lock(&lock) == 0);
    stopped = 1;
    CHECK(pthread_mutex_unlock(&lock) == 0);
    CHECK(pthread_join(asker, NULL) == 0);
    for (size_t i = 0; i < SENDERS; i++) {
        CHECK(next_number[i] == each);
    }
    end_pair(p);
}

static const test tests[] = {
    {"all_at_once", all_at_once},
};
MAIN(tests)
