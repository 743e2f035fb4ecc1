/* Callbacks: an echo inside them, what they may and may not call, keeping bytes, faults. */
#include "harness.h"

static void count_one(int *counter) { __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST); }
static int counted(int *counter) { return __atomic_load_n(counter, __ATOMIC_SEQ_CST); }

/* What a host that echoes in its callbacks needs to know. */
typedef struct told {
    trunk_engine *engine;
    trunk_engine *other; /* an engine that a callback may not destroy either */
    trunk_group called;  /* the group that a callback uses */
    int data, items, dead; /* counted on several threads */
    trunk_item kept;
} told;

static void on_data_echo(void *user, trunk_channel channel, void *channel_user, trunk_kind kind,
                         const uint8_t *data, size_t size) {
    told *t = user;
    CHECK(kind == TRUNK_KIND_MESSAGES && channel_user == &t->data);
    OK(trunk_send(t->engine, channel, data, size));
    count_one(&t->data);
}

static void on_item_host(void *user, const trunk_item *item) {
    told *t = user;
    count_one(&t->items);
    switch (item->type) {
    case TRUNK_ITEM_INCOMING:
        OK(trunk_accept(t->engine, item->conn));
        break;
    case TRUNK_ITEM_REQUEST:
        OK(trunk_channel_set_user(t->engine, item->channel, &t->data));
        OK(trunk_channel_accept(t->engine, item->channel, NULL));
        break;
    case TRUNK_ITEM_STATUS:
        if (item->detail.status->new_status == TRUNK_STATUS_CLOSED_BY_PEER) {
            OK(trunk_close(t->engine, item->conn, 0, NULL, TRUNK_LINGER_NONE));
        }
        break;
    case TRUNK_ITEM_DEAD:
        count_one(&t->dead);
        break;
    default:
        CHECK(item->type != TRUNK_ITEM_DATA);
    }
}

static trunk_engine *engine_that_calls(trunk_callbacks *callbacks, int threadless) {
    trunk_engine_config config;
    trunk_engine *engine;
    OK(trunk_engine_config_init(&config));
    config.callbacks = callbacks;
    config.threadless = (uint32_t)threadless;
    if (getenv("TEST_WITH_MIO") != NULL) {
        config.driver = TRUNK_DRIVER_MIO;
    }
    config.rx_buffers = 64;
    config.tx_buffers = 16;
    OK(trunk_engine_new(&config, &engine));
    return engine;
}

static void wait_for(int *counter, int value) {
    int64_t deadline = now_ns() + 20 * SECOND;
    while (counted(counter) < value) {
        struct timespec pause = {0, 1000 * 1000};
        drive();
        nanosleep(&pause, NULL);
        CHECK(now_ns() < deadline && "the callback does not come");
    }
}

static void echo_with(int threadless) {
    told t = {0};
    trunk_callbacks callbacks;
    host h;
    OK(trunk_callbacks_init(&callbacks));
    callbacks.on_data = on_data_echo;
    callbacks.on_item = on_item_host;
    callbacks.user = &t;
    t.engine = engine_that_calls(&callbacks, threadless);
    host_listen(&h, t.engine);
    trunk_engine *client = engine_with(threadless);
    if (threadless) {
        driven[0] = t.engine;
        driven[1] = client;
    }
    trunk_conn conn = connect_to(&h, client);
    trunk_channel channel;
    trunk_channel_options options;
    OK(trunk_channel_options_init(&options));
    options.kind = TRUNK_KIND_MESSAGES;
    OK(trunk_channel_open(client, conn, "echo", &options, &channel));
    static unsigned char bytes[3000];
    for (size_t i = 0; i < 100; i++) {
        memset(bytes, (int)i, sizeof bytes);
        trunk_result sent;
        while ((sent = trunk_send(client, channel, bytes, i * 30)) == TRUNK_ERR_WOULD_BLOCK) {
            drive();
        }
        OK(sent);
    }
    for (size_t i = 0; i < 100;) {
        trunk_item item = next(client);
        if (item.type == TRUNK_ITEM_DATA) {
            CHECK(item.size == i * 30 && (i == 0 || item.data[i * 30 - 1] == i));
            i++;
        }
        release(&item);
    }
    CHECK(counted(&t.data) == 100);
    trunk_item none;
    size_t count;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_recv_many(t.engine, 0, &none, 1, TRUNK_WAIT_NOT, &count));
    OK(trunk_close(client, conn, 0, NULL, TRUNK_LINGER_DEFAULT));
    wait_for(&t.dead, 1);
    driven[0] = driven[1] = NULL;
    OK(trunk_engine_destroy(client));
    OK(trunk_engine_destroy(t.engine));
}

static void echo(void) { echo_with(0); }
static void echo_without_threads(void) { echo_with(1); }

/* Everything that a callback may ask and do, and the few things that it may not. */
static void on_data_everything(void *user, trunk_channel channel, void *channel_user,
                               trunk_kind kind, const uint8_t *data, size_t size) {
    told *t = user;
    trunk_conn conn;
    trunk_conn_info info;
    trunk_conn_stats stats;
    trunk_channel_info about;
    trunk_sec_info security;
    trunk_channel list[4], more;
    size_t count;
    trunk_shutdown_report report;
    trunk_engine_stats all;
    (void)kind;
    CHECK(channel_user == NULL && size == 5 && memcmp(data, "hello", 5) == 0);
    OK(trunk_channel_conn(t->engine, channel, &conn));
    OK(trunk_conn_info_init(&info));
    OK(trunk_conn_get_info(t->engine, conn, &info));
    CHECK(info.status == TRUNK_STATUS_CONNECTED && info.link == TRUNK_LINK_DATAGRAM);
    OK(trunk_conn_stats_init(&stats));
    OK(trunk_conn_get_stats(t->engine, conn, &stats));
    CHECK(stats.rtt_var_ns > 0);
    OK(trunk_channel_info_init(&about));
    OK(trunk_channel_get_info(t->engine, channel, &about));
    CHECK(strcmp(about.name, "talk") == 0 && about.phase == TRUNK_PHASE_OPEN && about.ours);
    OK(trunk_conn_channels(t->engine, conn, list, 4, &count));
    CHECK(count == 1 && list[0] == channel);
    OK(trunk_sec_info_init(&security));
    OK(trunk_conn_get_sec_info(t->engine, conn, &security));
    CHECK(security.proven && security.peer.method == TRUNK_AUTH_PIN);
    OK(trunk_channel_open(t->engine, conn, "more", NULL, &more));
    OK(trunk_send(t->engine, more, "x", 1));
    /* Several at once: the first that is not taken gives the result, those before it have gone. */
    trunk_outgoing many[3] = {{more, "a", 1}, {more, "bc", 2}, {more, "d", 1}};
    OK(trunk_send_many(t->engine, many, 3, &count));
    CHECK(count == 3);
    many[1].channel ^= 2;
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send_many(t->engine, many, 3, &count));
    CHECK(count == 1);
    many[1] = (trunk_outgoing){more, NULL, 1};
    GIVES(TRUNK_ERR_NULL, trunk_send_many(t->engine, many, 3, &count));
    CHECK(count == 1);
    many[1] = (trunk_outgoing){more, "e", 1};
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send_many(t->other, many, 3, &count));
    CHECK(count == 0);
    OK(trunk_channel_close(t->engine, more));
    OK(trunk_message_keep(t->engine, data, size, &t->kept));
    /* What it may not do: end an engine, poll one, wait for its own shard. */
    GIVES(TRUNK_ERR_IN_CALLBACK, trunk_engine_destroy(t->engine));
    GIVES(TRUNK_ERR_IN_CALLBACK, trunk_engine_destroy(t->other));
    OK(trunk_shutdown_report_init(&report));
    GIVES(TRUNK_ERR_IN_CALLBACK, trunk_shutdown(t->engine, 0, &report));
    OK(trunk_engine_stats_init(&all));
    GIVES(TRUNK_ERR_IN_CALLBACK, trunk_engine_get_stats(t->engine, &all));
    GIVES(TRUNK_ERR_NOT_THREADLESS, trunk_engine_poll(t->engine, 0, NULL));
    /* It closes what calls it. */
    OK(trunk_close(t->engine, conn, 1777, "from inside", TRUNK_LINGER_DEFAULT));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send(t->engine, channel, "x", 1));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_close(t->engine, conn, 0, NULL, 0));
    count_one(&t->data);
}

static void on_item_count(void *user, const trunk_item *item) {
    told *t = user;
    if (item->type == TRUNK_ITEM_DEAD) {
        CHECK(item->detail.dead->reason == 1777 && item->conn_user == &t->dead);
        count_one(&t->dead);
    }
    count_one(&t->items);
}

static trunk_group group_for_connect;
static void *user_for_connect;
static void with_group(trunk_connect_config *config) {
    config->group = group_for_connect;
    config->user = user_for_connect;
}

static void all_calls_from_inside(void) {
    told t = {0};
    host h;
    trunk_callbacks callbacks;
    host_listen(&h, engine_with(0));
    t.engine = engine_with(0);
    t.other = engine_with(1);
    OK(trunk_callbacks_init(&callbacks));
    GIVES(TRUNK_ERR_NULL, trunk_group_new_callbacks(t.engine, &callbacks, &t.called));
    callbacks.on_data = on_data_everything;
    callbacks.on_item = on_item_count;
    callbacks.user = &t;
    GIVES(TRUNK_ERR_NULL, trunk_group_new_callbacks(t.engine, NULL, &t.called));
    OK(trunk_group_new_callbacks(t.engine, &callbacks, &t.called));
    group_for_connect = t.called;
    user_for_connect = &t.dead;
    trunk_conn conn;
    OK(try_connect(&h, t.engine, with_group, &conn));
    trunk_channel channel;
    trunk_channel_options options;
    OK(trunk_channel_options_init(&options));
    options.kind = TRUNK_KIND_MESSAGES;
    OK(trunk_channel_open(t.engine, conn, "talk", &options, &channel));
    trunk_item item = expect(h.engine, TRUNK_ITEM_INCOMING);
    OK(trunk_accept(h.engine, item.conn));
    release(&item);
    skip(h.engine, TRUNK_ITEM_STATUS);
    item = expect(h.engine, TRUNK_ITEM_REQUEST);
    OK(trunk_channel_accept(h.engine, item.channel, NULL));
    OK(trunk_send(h.engine, item.channel, "hello", 5));
    release(&item);
    wait_for(&t.data, 1);
    wait_for(&t.dead, 1);
    CHECK(t.kept.type == TRUNK_ITEM_DATA && memcmp(t.kept.data, "hello", 5) == 0);
    OK(trunk_engine_destroy(t.engine));
    CHECK(memcmp(t.kept.data, "hello", 5) == 0);
    OK(trunk_message_release(&t.kept, 1));
    OK(trunk_engine_destroy(t.other));
    OK(trunk_engine_destroy(h.engine));
}

/* Unreliable messages are lost while all packets are. */
static void faults_come_and_go(void) {
    trunk_engine_config config;
    trunk_fault_config faults;
    trunk_faults all;
    pair p;
    OK(trunk_fault_config_init(&faults));
    OK(trunk_faults_init(&all));
    OK(trunk_engine_config_init(&config));
    config.faults = &faults;
    config.driver = getenv("TEST_WITH_MIO") != NULL ? TRUNK_DRIVER_MIO : TRUNK_DRIVER_AUTO;
    host_listen(&p.host, engine_with(0));
    OK(trunk_engine_new(&config, &p.client));
    connect_pair(&p);
    two ends = open_channel(&p, TRUNK_KIND_DATAGRAMS, "lossy");
    all.loss = 1.5;
    faults.outbound = &all;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_engine_set_faults(p.client, &faults));
    CHECK(strstr(trunk_last_error(), "loss") != NULL);
    all.loss = 1;
    faults.conn = p.at_client;
    OK(trunk_engine_set_faults(p.client, &faults));
    struct timespec pause = {0, 100 * 1000 * 1000};
    nanosleep(&pause, NULL);
    OK(trunk_send(p.client, ends.at_client, "lost", 4));
    nanosleep(&pause, NULL);
    OK(trunk_engine_set_faults(p.client, NULL));
    nanosleep(&pause, NULL);
    OK(trunk_send(p.client, ends.at_client, "found", 5));
    trunk_item item = expect(p.host.engine, TRUNK_ITEM_DATA);
    CHECK(item.size == 5 && memcmp(item.data, "found", 5) == 0);
    release(&item);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_engine_set_faults(p.host.engine, &faults));
    faults.conn = 0;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_engine_set_faults(p.host.engine, &faults));
    end_pair(&p);
}

static const test tests[] = {
    {"echo", echo},
    {"echo_without_threads", echo_without_threads},
    {"all_calls_from_inside", all_calls_from_inside},
    {"faults_come_and_go", faults_come_and_go},
};
MAIN(tests)
