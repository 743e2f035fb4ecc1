/* Data: buffers, items, user data, receipts, closing with and without linger. */
#include "harness.h"

static void messages_keep_their_borders(void) {
    pair p;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "m");
    size_t sizes[] = {0, 1, 100, 102, 103, 5000, 65536, 300000};
    unsigned char *bytes = malloc(300000);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < 300000; i++) {
        bytes[i] = (unsigned char)(i * 31 >> 3);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        OK(trunk_send(p.client, ends.at_client, bytes, sizes[i]));
    }
    OK(trunk_flush(p.client, ends.at_client));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        trunk_item item = expect(p.host.engine, TRUNK_ITEM_DATA);
        CHECK(item.kind == TRUNK_KIND_MESSAGES && item.size == sizes[i]);
        CHECK(item.conn == p.at_host && item.channel == ends.at_host);
        CHECK(memcmp(item.data, bytes, item.size) == 0);
        release(&item);
        CHECK(item.type == TRUNK_ITEM_NONE && item.data == NULL);
        release(&item); /* once more: nothing happens */
    }
    GIVES(TRUNK_ERR_TOO_LARGE, trunk_send(p.client, ends.at_client, bytes, (16 << 20) + 1));
    trunk_outgoing many[3] = {{ends.at_client, "a", 1}, {ends.at_client, "bc", 2}, {7, "d", 1}};
    size_t sent = 9;
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send_many(p.client, many, 3, &sent));
    CHECK(sent == 2);
    OK(trunk_send_many(p.client, many, 2, NULL));
    for (int i = 0; i < 4; i++) {
        trunk_item item = expect(p.host.engine, TRUNK_ITEM_DATA);
        CHECK(item.size == (size_t)(1 + i % 2));
        release(&item);
    }
    free(bytes);
    end_pair(&p);
}

static void datagrams(void) {
    pair p;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_DATAGRAMS, "d");
    static char big[65537];
    GIVES(TRUNK_ERR_TOO_LARGE, trunk_send(p.client, ends.at_client, big, sizeof big));
    int received = 0;
    for (int i = 0; i < 200 && received == 0; i++) {
        trunk_item item;
        size_t count;
        trunk_result result = trunk_send(p.client, ends.at_client, "now", 3);
        CHECK(result == TRUNK_OK || result == TRUNK_ERR_DROPPED);
        OK(trunk_recv_many(p.host.engine, 0, &item, 1, SECOND / 20, &count));
        if (count > 0) {
            CHECK(item.type == TRUNK_ITEM_DATA && item.kind == TRUNK_KIND_DATAGRAMS);
            CHECK(item.size == 3 && memcmp(item.data, "now", 3) == 0);
            release(&item);
            received++;
        }
    }
    CHECK(received > 0);
    end_pair(&p);
}

static void buffers(void) {
    pair p;
    trunk_buf buf, more[80];
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "b");
    GIVES(TRUNK_ERR_TOO_LARGE, trunk_buf_alloc(p.client, (64 << 10) + 1, &buf));
    CHECK(buf.data == NULL && buf.owner == NULL);
    OK(trunk_buf_alloc(p.client, 1000, &buf));
    CHECK(buf.capacity >= 1000);
    memset(buf.data, 'x', 1000);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_send_buf(p.client, ends.at_client, &buf, buf.capacity + 1, 0));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send_buf(p.client, 0, &buf, 1000, 0));
    OK(trunk_send_buf(p.client, ends.at_client, &buf, 1000, 77));
    CHECK(buf.data == NULL);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send_buf(p.client, ends.at_client, &buf, 1000, 0));
    OK(trunk_buf_free(&buf));
    trunk_item item = expect(p.host.engine, TRUNK_ITEM_DATA);
    CHECK(item.size == 1000 && item.data[999] == 'x');
    /* On it goes, without a copy; the item stays ours. */
    OK(trunk_send_item(p.host.engine, ends.at_host, &item, 0));
    OK(trunk_send_item(p.host.engine, ends.at_host, &item, 0));
    release(&item);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_send_item(p.host.engine, ends.at_host, &item, 0));
    int echoes = 0, receipts = 0;
    while (echoes < 2 || receipts < 1) {
        item = next(p.client);
        if (item.type == TRUNK_ITEM_RECEIPT) {
            CHECK(item.token == 77 && item.channel == ends.at_client);
            receipts++;
        } else {
            CHECK(item.type == TRUNK_ITEM_DATA && item.size == 1000);
            echoes++;
        }
        release(&item);
    }
    OK(trunk_send_receipt(p.client, ends.at_client, "r", 1, 78));
    item = expect(p.client, TRUNK_ITEM_RECEIPT);
    CHECK(item.token == 78);
    release(&item);
    /* There are 64; freed ones can be taken again, also after their engine. */
    int taken = 0;
    while (taken < 80 && trunk_buf_alloc(p.client, 1, &more[taken]) == TRUNK_OK) {
        taken++;
    }
    CHECK(taken > 32 && taken <= 64);
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_buf_alloc(p.client, 1, &buf));
    OK(trunk_buf_free(&more[0]));
    OK(trunk_buf_alloc(p.client, 1, &more[0]));
    end_pair(&p);
    for (int i = 0; i < taken; i++) {
        more[i].data[0] = 1;
        OK(trunk_buf_free(&more[i]));
    }
}

static void *release_elsewhere(void *item) {
    release(item);
    return NULL;
}

static void items_outlive_everything(void) {
    pair p;
    pthread_t thread;
    trunk_item items[3];
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "m");
    static char bytes[100000];
    memset(bytes, 'k', sizeof bytes);
    for (int i = 0; i < 3; i++) {
        OK(trunk_send(p.client, ends.at_client, bytes, i == 0 ? 10 : sizeof bytes));
        items[i] = expect(p.host.engine, TRUNK_ITEM_DATA);
    }
    CHECK(pthread_create(&thread, NULL, release_elsewhere, &items[1]) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    end_pair(&p);
    CHECK(items[0].size == 10 && items[0].data[9] == 'k');
    CHECK(items[2].size == sizeof bytes && items[2].data[sizeof bytes - 1] == 'k');
    OK(trunk_message_release(items, 3));
}

/* What is not received stops the sender, and nothing is lost. */
static void back_pressure(void) {
    pair p;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_BYTES, "s");
    static unsigned char block[50000], seen;
    uint64_t sent = 0, received = 0;
    int blocked = 0;
    while (blocked < 2) {
        for (size_t i = 0; i < sizeof block; i++) {
            block[i] = (unsigned char)((sent + i) * 7 >> 4);
        }
        trunk_result result = trunk_send(p.client, ends.at_client, block, sizeof block);
        if (result == TRUNK_OK) {
            sent += sizeof block;
            CHECK(sent < UINT64_C(200) << 20);
            continue;
        }
        CHECK(result == TRUNK_ERR_WOULD_BLOCK);
        blocked++;
        trunk_item item;
        size_t count = 0;
        while (count == 0 && received < sent) {
            trunk_item data = next(p.host.engine);
            CHECK(data.type == TRUNK_ITEM_DATA && data.kind == TRUNK_KIND_BYTES);
            for (size_t i = 0; i < data.size; i++) {
                seen = (unsigned char)((received + i) * 7 >> 4);
                CHECK(data.data[i] == seen);
            }
            received += data.size;
            release(&data);
            OK(trunk_recv_many(p.client, 0, &item, 1, 0, &count));
        }
        if (count == 0) {
            item = next(p.client);
        }
        CHECK(item.type == TRUNK_ITEM_WRITABLE && item.channel == ends.at_client);
        release(&item);
    }
    OK(trunk_channel_close(p.client, ends.at_client));
    for (;;) {
        trunk_item item = next(p.host.engine);
        received += item.size;
        int end = item.type == TRUNK_ITEM_EOF;
        release(&item);
        if (end) {
            break;
        }
    }
    CHECK(received == sent);
    end_pair(&p);
}

/* A close right after many sends: with linger all of it arrives and is reported. */
static void linger(void) {
    pair p;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_BYTES, "l");
    static char block[60000];
    uint64_t sent = 0, received = 0;
    int status = 0;
    while (sent < 12000000) {
        trunk_result result = trunk_send(p.client, ends.at_client, block, sizeof block);
        if (result == TRUNK_ERR_WOULD_BLOCK) {
            trunk_item data = next(p.host.engine);
            received += data.size;
            release(&data);
            continue;
        }
        CHECK(result == TRUNK_OK);
        sent += sizeof block;
    }
    OK(trunk_close(p.client, p.at_client, 0, "sent it all", 20 * SECOND));
    while (status != TRUNK_STATUS_CLOSED_BY_PEER) {
        trunk_item item = next(p.host.engine);
        received += item.size;
        if (item.type == TRUNK_ITEM_STATUS) {
            status = item.detail.status->new_status;
        }
        release(&item);
    }
    CHECK(received == sent);
    OK(trunk_close(p.host.engine, p.at_host, 0, NULL, 0));
    for (;;) {
        trunk_item item = next(p.client);
        if (item.type == TRUNK_ITEM_DEAD) {
            CHECK(item.detail.dead->undelivered_bytes == 0);
            CHECK(item.detail.dead->acknowledged_bytes == sent);
            CHECK(item.detail.dead->reason == TRUNK_REASON_APP);
            release(&item);
            break;
        }
        release(&item);
    }
    end_pair(&p);
}

static void shutdown_reports(void) {
    pair p;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_BYTES, "s");
    int mark;
    OK(trunk_conn_set_user(p.client, p.at_client, &mark));
    OK(trunk_send(p.client, ends.at_client, "last words", 10));
    trunk_conn_report each[4];
    trunk_shutdown_report report;
    OK(trunk_shutdown_report_init(&report));
    report.connections = each;
    report.connection_capacity = 4;
    OK(trunk_shutdown(p.client, 5 * SECOND, &report));
    CHECK(report.connection_count == 1 && report.all_delivered && report.failed_shards == 0);
    CHECK(report.acknowledged_bytes == 10 && report.undelivered_bytes == 0);
    CHECK(each[0].conn == p.at_client && each[0].conn_user == &mark);
    CHECK(each[0].acknowledged_bytes == 10 && each[0].reason == TRUNK_REASON_SHUTDOWN);
    trunk_item item = expect(p.host.engine, TRUNK_ITEM_DATA);
    CHECK(item.size == 10 && memcmp(item.data, "last words", 10) == 0);
    release(&item);
    trunk_conn conn;
    CHECK(try_connect(&p.host, p.client, NULL, &conn) < 0);
    end_pair(&p);
}

static void user_data(void) {
    pair p;
    int a, b, c;
    void *user = &c;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "u");
    OK(trunk_conn_user(p.client, p.at_client, &user));
    CHECK(user == NULL);
    OK(trunk_conn_set_user(p.host.engine, p.at_host, &a));
    OK(trunk_channel_set_user(p.host.engine, ends.at_host, &b));
    OK(trunk_channel_user(p.host.engine, ends.at_host, &user));
    CHECK(user == &b);
    OK(trunk_send(p.client, ends.at_client, "x", 1));
    OK(trunk_channel_close(p.client, ends.at_client));
    OK(trunk_channel_close(p.host.engine, ends.at_host));
    /* Every item brings both, the last one of the channel too, though it is long gone by then. */
    static const trunk_item_type order[] = {TRUNK_ITEM_DATA, TRUNK_ITEM_EOF, TRUNK_ITEM_CLOSED};
    struct timespec wait = {0, 200 * 1000 * 1000};
    nanosleep(&wait, NULL);
    for (int i = 0; i < 3; i++) {
        trunk_item item = expect(p.host.engine, order[i]);
        CHECK(item.conn_user == &a && item.channel_user == &b);
        release(&item);
    }
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_channel_user(p.host.engine, ends.at_host, &user));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_channel_set_user(p.host.engine, ends.at_host, &b));
    OK(trunk_close(p.host.engine, p.at_host, 0, NULL, 0));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_conn_set_user(p.host.engine, p.at_host, &b));
    for (;;) {
        trunk_item item = next(p.host.engine);
        CHECK(item.conn_user == &a && item.channel_user == NULL);
        int dead = item.type == TRUNK_ITEM_DEAD;
        release(&item);
        if (dead) {
            break;
        }
    }
    end_pair(&p);
}

static void ends_of_channels(void) {
    pair p;
    trunk_channel channel;
    new_pair(&p, 0);
    OK(trunk_channel_open(p.client, p.at_client, "unwanted", NULL, &channel));
    trunk_item item = expect(p.host.engine, TRUNK_ITEM_REQUEST);
    CHECK(item.detail.request->name_size == 8 && item.kind == TRUNK_KIND_BYTES);
    CHECK(item.detail.request->options.struct_size == sizeof(trunk_channel_options));
    OK(trunk_channel_decline(p.host.engine, item.channel, 42, "no room"));
    release(&item);
    item = expect(p.client, TRUNK_ITEM_CLOSED);
    CHECK(item.channel == channel && item.detail.closed->end == TRUNK_END_DECLINED);
    CHECK(item.detail.closed->code == 42 && item.detail.closed->by_peer);
    CHECK(strcmp(item.detail.closed->text, "no room") == 0);
    release(&item);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send(p.client, channel, "x", 1));

    two ends = open_channel(&p, TRUNK_KIND_BYTES, "reset");
    trunk_conn conn;
    OK(trunk_channel_conn(p.client, ends.at_client, &conn));
    CHECK(conn == p.at_client);
    OK(trunk_channel_reset(p.client, ends.at_client, 7));
    item = expect(p.host.engine, TRUNK_ITEM_RESET);
    CHECK(item.code == 7 && item.channel == ends.at_host);
    release(&item);
    ends = open_channel(&p, TRUNK_KIND_BYTES, "stop");
    OK(trunk_channel_stop(p.host.engine, ends.at_host, 8));
    item = expect(p.client, TRUNK_ITEM_STOPPED);
    CHECK(item.code == 8 && item.channel == ends.at_client);
    release(&item);
    OK(trunk_conn_check(p.client, p.at_client));
    skip(p.client, TRUNK_ITEM_CHECK_ANSWERED);
    end_pair(&p);
}

static void groups(void) {
    pair p;
    trunk_group group;
    trunk_item item;
    size_t count;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "g");
    OK(trunk_group_new(p.host.engine, &group));
    OK(trunk_conn_set_group(p.host.engine, p.at_host, group));
    OK(trunk_send(p.client, ends.at_client, "x", 1));
    item = next_of(p.host.engine, group);
    CHECK(item.type == TRUNK_ITEM_DATA);
    release(&item);
    OK(trunk_recv_many(p.host.engine, 0, &item, 1, 0, &count));
    CHECK(count == 0);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_conn_set_group(p.client, p.at_client, group));
    end_pair(&p);
}

enum { SENDERS = 4, EACH = 5000 };
static pair many_pair;
static two many_channels[SENDERS];

static void *send_numbers(void *at) {
    trunk_channel channel = many_channels[(two *)at - many_channels].at_client;
    for (uint32_t i = 0; i < EACH;) {
        trunk_result result = trunk_send(many_pair.client, channel, &i, sizeof i);
        CHECK(result == TRUNK_OK || result == TRUNK_ERR_WOULD_BLOCK);
        i += result == TRUNK_OK;
    }
    return NULL;
}

static void many_threads(void) {
    pthread_t threads[SENDERS];
    uint32_t next_number[SENDERS] = {0};
    new_pair(&many_pair, 0);
    for (size_t i = 0; i < SENDERS; i++) {
        many_channels[i] = open_channel(&many_pair, TRUNK_KIND_MESSAGES, "n");
        OK(trunk_channel_set_user(many_pair.host.engine, many_channels[i].at_host,
                                  &next_number[i]));
    }
    for (size_t i = 0; i < SENDERS; i++) {
        CHECK(pthread_create(&threads[i], NULL, send_numbers, &many_channels[i]) == 0);
    }
    for (int left = SENDERS * EACH; left > 0;) {
        trunk_item items[100];
        size_t count;
        OK(trunk_recv_many(many_pair.host.engine, 0, items, 100, 20 * SECOND, &count));
        CHECK(count > 0);
        for (size_t i = 0; i < count; i++) {
            uint32_t *expected = items[i].channel_user;
            CHECK(items[i].type == TRUNK_ITEM_DATA && items[i].size == sizeof *expected);
            CHECK(memcmp(items[i].data, expected, sizeof *expected) == 0);
            ++*expected;
            left--;
        }
        OK(trunk_message_release(items, count));
    }
    for (size_t i = 0; i < SENDERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    end_pair(&many_pair);
}

/* Memory of the application: what came back, and what its release tries. */
typedef struct lent {
    pair p;
    two ends;
    int released;
    trunk_result asked; /* of a call that waits, from inside */
} lent;

static uint8_t frame[256 << 10];

static void on_release(void *user, const void *data, size_t size) {
    lent *l = user;
    trunk_conn_stats stats;
    CHECK(data == frame && (size == sizeof frame || size == 0));
    OK(trunk_conn_stats_init(&stats));
    l->asked = trunk_conn_get_stats(l->p.client, l->p.at_client, &stats);
    __atomic_fetch_add(&l->released, 1, __ATOMIC_SEQ_CST);
    trunk_send(l->p.client, l->ends.at_client, "next", 4);
}

static int given_back(lent *l) { return __atomic_load_n(&l->released, __ATOMIC_SEQ_CST); }

static void memory_of_the_application(int threadless) {
    static lent l;
    memset(&l, 0, sizeof l);
    new_pair(&l.p, threadless);
    l.ends = open_channel(&l.p, TRUNK_KIND_MESSAGES, "frames");
    memset(frame, 'f', sizeof frame);
    /* What is not taken is not given back. */
    GIVES(TRUNK_ERR_NULL, trunk_send_external(l.p.client, l.ends.at_client, frame, 1, NULL, &l, 0));
    GIVES(TRUNK_ERR_NULL,
          trunk_send_external(l.p.client, l.ends.at_client, NULL, 1, on_release, &l, 0));
    GIVES(TRUNK_ERR_INVALID_HANDLE,
          trunk_send_external(l.p.client, 0, frame, sizeof frame, on_release, &l, 0));
    GIVES(TRUNK_ERR_TOO_LARGE, trunk_send_external(l.p.client, l.ends.at_client, frame,
                                                   (16 << 20) + 1, on_release, &l, 0));
    CHECK(given_back(&l) == 0);
    OK(trunk_send_external(l.p.client, l.ends.at_client, frame, sizeof frame, on_release, &l, 5));
    trunk_item item = expect(l.p.host.engine, TRUNK_ITEM_DATA);
    CHECK(item.size == sizeof frame && memcmp(item.data, frame, sizeof frame) == 0);
    release(&item);
    item = expect(l.p.client, TRUNK_ITEM_RECEIPT);
    CHECK(item.token == 5);
    release(&item);
    item = expect(l.p.host.engine, TRUNK_ITEM_DATA); /* sent when the memory came back */
    CHECK(item.size == 4 && memcmp(item.data, "next", 4) == 0);
    release(&item);
    CHECK(given_back(&l) == 1 && l.asked == TRUNK_ERR_WOULD_BLOCK);
    OK(trunk_send_external(l.p.client, l.ends.at_client, frame, 0, on_release, &l, 0));
    item = expect(l.p.host.engine, TRUNK_ITEM_DATA);
    CHECK(item.size == 0);
    release(&item);
    /* With the engine everything comes back. */
    int sent = 0;
    while (trunk_send_external(l.p.client, l.ends.at_client, frame, sizeof frame, on_release, &l,
                               0) == TRUNK_OK) {
        sent++;
    }
    CHECK(sent > 0);
    end_pair(&l.p);
    CHECK(given_back(&l) == sent + 2);
}

static void external(void) { memory_of_the_application(0); }
static void external_without_threads(void) { memory_of_the_application(1); }

static const test tests[] = {
    {"messages_keep_their_borders", messages_keep_their_borders},
    {"datagrams", datagrams},
    {"buffers", buffers},
    {"external", external},
    {"external_without_threads", external_without_threads},
    {"items_outlive_everything", items_outlive_everything},
    {"back_pressure", back_pressure},
    {"linger", linger},
    {"shutdown_reports", shutdown_reports},
    {"user_data", user_data},
    {"ends_of_channels", ends_of_channels},
    {"groups", groups},
    {"many_threads", many_threads},
};
MAIN(tests)
