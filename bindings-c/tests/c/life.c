/* Connections and engines from beginning to end: closing, threads, forks, the log. */
#include "harness.h"

#include <poll.h>
#include <stddef.h>
#include <sys/wait.h>

/* Sends text on a channel and receives it at the other side. */
static void say(trunk_engine *from, trunk_channel channel, trunk_engine *to, const char *text) {
    OK(trunk_send(from, channel, text, strlen(text)));
    trunk_item item = expect(to, TRUNK_ITEM_DATA);
    CHECK(item.size == strlen(text) && memcmp(item.data, text, item.size) == 0);
    release(&item);
}

static void whole_life_with(int threadless) {
    pair p;
    new_pair(&p, threadless);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "talk");
    say(p.client, ends.at_client, p.host.engine, "there");
    say(p.host.engine, ends.at_host, p.client, "and back");

    trunk_conn_info info;
    OK(trunk_conn_info_init(&info));
    OK(trunk_conn_get_info(p.client, p.at_client, &info));
    CHECK(info.status == TRUNK_STATUS_CONNECTED && info.role == TRUNK_ROLE_CLIENT);
    CHECK(info.handshake == TRUNK_HANDSHAKE_READY);
    CHECK(info.has_peer && memcmp(info.peer, p.host.fingerprint, sizeof info.peer) == 0);
    CHECK(strcmp(info.remote, p.host.address) == 0 && strncmp(info.suite, "TLS13", 5) == 0);
    trunk_conn_stats stats;
    OK(trunk_conn_stats_init(&stats));
    OK(trunk_conn_get_stats(p.client, p.at_client, &stats));
    CHECK(stats.channels == 1 && stats.packets_sent > 0 && stats.rtt_ns > 0);
    trunk_engine_stats total;
    OK(trunk_engine_stats_init(&total));
    OK(trunk_engine_get_stats(p.client, &total));
    CHECK(total.shards == 1 && total.connections == 1 && total.datagrams_sent > 0);
    const char *driver;
    OK(trunk_engine_driver(p.client, &driver));
    CHECK(strcmp(driver, "uring") == 0 || strcmp(driver, "mio") == 0);

    OK(trunk_channel_close(p.client, ends.at_client));
    skip(p.host.engine, TRUNK_ITEM_EOF);
    OK(trunk_channel_close(p.host.engine, ends.at_host));
    skip(p.client, TRUNK_ITEM_EOF);
    trunk_item item = expect(p.client, TRUNK_ITEM_CLOSED);
    CHECK(item.detail.closed->end == TRUNK_END_FINISHED && item.channel == ends.at_client);
    release(&item);
    skip(p.host.engine, TRUNK_ITEM_CLOSED);

    OK(trunk_close(p.client, p.at_client, 1234, "good night", TRUNK_LINGER_DEFAULT));
    item = expect(p.host.engine, TRUNK_ITEM_STATUS);
    const trunk_status_change *change = item.detail.status;
    CHECK(change->new_status == TRUNK_STATUS_CLOSED_BY_PEER && change->reason == 1234);
    CHECK(strcmp(change->reason_text, "good night") == 0);
    release(&item);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send(p.host.engine, ends.at_host, "x", 1));
    trunk_channel channel;
    GIVES(TRUNK_ERR_NO_CONNECTION,
          trunk_channel_open(p.host.engine, p.at_host, "late", NULL, &channel));
    OK(trunk_close(p.host.engine, p.at_host, 0, NULL, TRUNK_LINGER_NONE));
    skip(p.host.engine, TRUNK_ITEM_DEAD);
    do {
        item = next(p.client); /* status changes after our own close come before its end */
        CHECK(item.type == TRUNK_ITEM_STATUS || item.type == TRUNK_ITEM_DEAD);
        if (item.type == TRUNK_ITEM_DEAD) {
            CHECK(item.detail.dead->undelivered_bytes == 0 && item.detail.dead->peer_knows);
            CHECK(item.detail.dead->acknowledged_bytes >= 5);
        }
    } while (item.type != TRUNK_ITEM_DEAD && (release(&item), 1));
    release(&item);

    trunk_shutdown_report report;
    OK(trunk_shutdown_report_init(&report));
    OK(trunk_shutdown(p.client, SECOND, &report));
    CHECK(report.all_delivered && report.connection_count == 0);
    size_t count;
    driven[1] = NULL;
    GIVES(TRUNK_ERR_STOPPED, trunk_recv_many(p.client, 0, &item, 1, TRUNK_WAIT_FOREVER, &count));
    if (threadless) {
        GIVES(TRUNK_ERR_STOPPED, trunk_engine_poll(p.client, 0, NULL));
    } else {
        GIVES(TRUNK_ERR_NOT_THREADLESS, trunk_engine_poll(p.client, 0, NULL));
    }
    end_pair(&p);
}

static void whole_life(void) { whole_life_with(0); }
static void whole_life_without_threads(void) { whole_life_with(1); }

/* Both ends in one poll(2) loop of the application. */
static void own_event_loop(void) {
    pair p;
    new_pair(&p, 1);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "loop");
    trunk_engine *engines[2] = {p.host.engine, p.client};
    struct pollfd fds[2] = {{0, 0, 0}, {0, 0, 0}};
    for (int i = 0; i < 2; i++) {
        trunk_result result = trunk_engine_fd(engines[i], &fds[i].fd);
        if (result == TRUNK_ERR_UNSUPPORTED) {
            end_pair(&p);
            return;
        }
        CHECK(result == TRUNK_OK && fds[i].fd >= 0);
        fds[i].events = POLLIN;
    }
    int sent = 0, received = 0;
    int64_t start = now_ns();
    while (received < 200) {
        CHECK(now_ns() - start < 20 * SECOND);
        while (sent < 200 && sent - received < 10) {
            OK(trunk_send(p.client, ends.at_client, &sent, sizeof sent));
            sent++;
        }
        int64_t timeout = SECOND;
        for (int i = 0; i < 2; i++) {
            int64_t one;
            OK(trunk_engine_next_timeout_ns(engines[i], &one));
            timeout = one >= 0 && one < timeout ? one : timeout;
        }
        CHECK(poll(fds, 2, (int)((timeout + 999999) / 1000000)) >= 0);
        for (int i = 0; i < 2; i++) {
            trunk_item items[16];
            size_t count;
            OK(trunk_engine_poll(engines[i], TRUNK_WAIT_NOT, NULL));
            OK(trunk_recv_many(engines[i], 0, items, 16, TRUNK_WAIT_FOREVER, &count));
            for (size_t k = 0; k < count; k++) {
                if (items[k].type == TRUNK_ITEM_DATA) {
                    CHECK(items[k].size == sizeof received &&
                          memcmp(items[k].data, &received, sizeof received) == 0);
                    received++;
                }
            }
            OK(trunk_message_release(items, count));
        }
    }
    end_pair(&p);
}

static void *drive_elsewhere(void *engine) {
    int32_t fd;
    int64_t timeout;
    trunk_engine_stats total;
    trunk_engine_stats_init(&total);
    GIVES(TRUNK_ERR_WRONG_THREAD, trunk_engine_poll(engine, 0, NULL));
    GIVES(TRUNK_ERR_WRONG_THREAD, trunk_engine_fd(engine, &fd));
    GIVES(TRUNK_ERR_WRONG_THREAD, trunk_engine_next_timeout_ns(engine, &timeout));
    GIVES(TRUNK_ERR_WRONG_THREAD, trunk_shutdown(engine, 0, NULL));
    GIVES(TRUNK_ERR_WRONG_THREAD, trunk_engine_get_stats(engine, &total));
    OK(trunk_engine_wake(engine));
    return NULL;
}

static pair shared_pair;
static two shared_channel;

static void *send_elsewhere(void *unused) {
    (void)unused;
    OK(trunk_send(shared_pair.client, shared_channel.at_client, "elsewhere", 9));
    return NULL;
}

static void wrong_thread(void) {
    pthread_t thread;
    /* Made and told to listen here, driven by whoever polls first. */
    trunk_engine *engine = engine_with(1);
    host h;
    host_listen(&h, engine);
    OK(trunk_engine_poll(engine, 0, NULL));
    CHECK(pthread_create(&thread, NULL, drive_elsewhere, engine) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    OK(trunk_engine_poll(engine, 0, NULL));
    OK(trunk_engine_destroy(engine));

    /* Everything else is for any thread. */
    new_pair(&shared_pair, 1);
    shared_channel = open_channel(&shared_pair, TRUNK_KIND_MESSAGES, "x");
    CHECK(pthread_create(&thread, NULL, send_elsewhere, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    skip(shared_pair.host.engine, TRUNK_ITEM_DATA);
    end_pair(&shared_pair);
}

static void *poll_first(void *engine) {
    OK(trunk_engine_poll(engine, 0, NULL));
    int32_t fd;
    trunk_result result = trunk_engine_fd(engine, &fd);
    CHECK(result == TRUNK_OK || result == TRUNK_ERR_UNSUPPORTED);
    OK(trunk_shutdown(engine, 0, NULL));
    GIVES(TRUNK_ERR_STOPPED, trunk_shutdown(engine, 0, NULL));
    return NULL;
}

static void the_first_that_polls_drives(void) {
    pthread_t thread;
    host h;
    trunk_engine *engine = engine_with(1);
    host_listen(&h, engine);
    CHECK(pthread_create(&thread, NULL, poll_first, engine) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    GIVES(TRUNK_ERR_WRONG_THREAD, trunk_engine_poll(engine, 0, NULL));
    OK(trunk_engine_destroy(engine));
}

static void in_the_child(pair *p, two ends, trunk_item *item, trunk_buf *buf) {
    trunk_item none;
    size_t count;
    trunk_status status;
    trunk_conn conn;
    GIVES(TRUNK_ERR_FORKED, trunk_send(p->client, ends.at_client, "x", 1));
    GIVES(TRUNK_ERR_FORKED, trunk_recv_many(p->client, 0, &none, 1, 0, &count));
    GIVES(TRUNK_ERR_FORKED, trunk_conn_status(p->client, p->at_client, &status));
    GIVES(TRUNK_ERR_FORKED, try_connect(&p->host, p->client, NULL, &conn));
    GIVES(TRUNK_ERR_FORKED, trunk_engine_wake(p->client));
    GIVES(TRUNK_ERR_FORKED, trunk_shutdown(p->client, 0, NULL));
    GIVES(TRUNK_ERR_FORKED, trunk_engine_destroy(p->client));
    GIVES(TRUNK_ERR_FORKED, trunk_message_release(item, 1));
    GIVES(TRUNK_ERR_FORKED, trunk_buf_free(buf));
    /* An engine of its own works, also with the parent's host. */
    trunk_engine *own = engine_with(0);
    conn = connect_to(&p->host, own);
    becomes(own, TRUNK_STATUS_CONNECTED);
    OK(trunk_close(own, conn, 0, "child", TRUNK_LINGER_NONE));
    pair inside;
    new_pair(&inside, 0);
    two mine = open_channel(&inside, TRUNK_KIND_MESSAGES, "child");
    say(inside.client, mine.at_client, inside.host.engine, "in the child");
    end_pair(&inside);
    OK(trunk_engine_destroy(own));
}

static void forked_with(int threadless) {
    pair p;
    trunk_buf buf;
    new_pair(&p, threadless);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "x");
    OK(trunk_send(p.client, ends.at_client, "kept", 4));
    trunk_item item = expect(p.host.engine, TRUNK_ITEM_DATA);
    OK(trunk_buf_alloc(p.client, 10, &buf));
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        driven[0] = driven[1] = NULL;
        in_the_child(&p, ends, &item, &buf);
        exit(0); /* with destructors, as a program would */
    }
    trunk_item incoming = expect(p.host.engine, TRUNK_ITEM_INCOMING);
    trunk_conn conn = incoming.conn;
    release(&incoming);
    OK(trunk_accept(p.host.engine, conn));
    becomes(p.host.engine, TRUNK_STATUS_CONNECTED);
    becomes(p.host.engine, TRUNK_STATUS_CLOSED_BY_PEER);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    release(&item);
    OK(trunk_buf_free(&buf));
    say(p.client, ends.at_client, p.host.engine, "the parent goes on");
    end_pair(&p);
}

static void fork_with_threads(void) { forked_with(0); }
static void fork_without_threads(void) { forked_with(1); }

static void rejected(void) {
    host h;
    host_listen(&h, engine_with(0));
    trunk_engine *client = engine_with(0);
    trunk_conn conn = connect_to(&h, client);
    trunk_item item = expect(h.engine, TRUNK_ITEM_INCOMING);
    CHECK(!item.detail.incoming->has_peer && item.detail.incoming->credential_size == 0);
    CHECK(strcmp(item.detail.incoming->server_name, "trunkline") == 0);
    trunk_conn_info info;
    OK(trunk_conn_info_init(&info));
    OK(trunk_conn_get_info(h.engine, item.conn, &info));
    CHECK(info.handshake == TRUNK_HANDSHAKE_WAITING_FOR_AUTHENTICATION_REQUEST);
    /* A program that was built before the field existed gets all that it knows. */
    memset(&info, 0xff, sizeof info);
    info.struct_size = offsetof(trunk_conn_info, handshake);
    OK(trunk_conn_get_info(h.engine, item.conn, &info));
    CHECK(info.role == TRUNK_ROLE_HOST && info.handshake == 0xffffffff);
    OK(trunk_reject(h.engine, item.conn, 1500, "full"));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_reject(h.engine, item.conn, 0, NULL));
    release(&item);
    item = expect(client, TRUNK_ITEM_STATUS);
    CHECK(item.conn == conn && item.detail.status->reason == 1500);
    CHECK(strcmp(item.detail.status->reason_text, "full") == 0);
    release(&item);
    OK(trunk_conn_info_init(&info));
    OK(trunk_conn_get_info(client, conn, &info));
    CHECK(info.handshake == TRUNK_HANDSHAKE_FAILED_AUTHENTICATION);
    OK(trunk_close(client, conn, 0, NULL, 0));
    skip(client, TRUNK_ITEM_DEAD);
    OK(trunk_engine_destroy(client));
    OK(trunk_engine_destroy(h.engine));
}

static const uint8_t wrong_pin[TRUNK_FINGERPRINT_BYTES] = {1, 2, 3};
static trunk_trust other_trust;

static void with_other_trust(trunk_connect_config *config) { config->trust = &other_trust; }

static void trust(void) {
    host h;
    trunk_conn conn;
    host_listen(&h, engine_with(0));
    trunk_engine *client = engine_with(0);
    OK(trunk_trust_init(&other_trust));
    other_trust.kind = TRUNK_TRUST_PINS;
    other_trust.pins = wrong_pin;
    other_trust.pin_count = 1;
    OK(try_connect(&h, client, with_other_trust, &conn));
    trunk_item item = expect(client, TRUNK_ITEM_STATUS);
    CHECK(item.detail.status->new_status == TRUNK_STATUS_PROBLEM_DETECTED_LOCALLY);
    CHECK(item.detail.status->reason == TRUNK_REASON_BAD_CERTIFICATE);
    release(&item);
    OK(trunk_close(client, conn, 0, NULL, 0));
    skip(client, TRUNK_ITEM_DEAD);

    OK(trunk_trust_init(&other_trust));
    other_trust.kind = TRUNK_TRUST_CA;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, try_connect(&h, client, with_other_trust, &conn));
    other_trust.ca_file = "/no/such/ca.pem";
    GIVES(TRUNK_ERR_FILE, try_connect(&h, client, with_other_trust, &conn));
    OK(trunk_trust_init(&other_trust));
    other_trust.kind = TRUNK_TRUST_DANGEROUS_ANY;
    OK(try_connect(&h, client, with_other_trust, &conn));
    item = expect(h.engine, TRUNK_ITEM_INCOMING);
    OK(trunk_accept(h.engine, item.conn));
    release(&item);
    becomes(client, TRUNK_STATUS_CONNECTED);
    OK(trunk_engine_destroy(client));
    OK(trunk_engine_destroy(h.engine));
}

static void with_credential(trunk_connect_config *config) {
    config->credential = "ticket \0 7";
    config->credential_size = 10;
    config->server_name = "game.test";
    config->user = &shared_pair;
}

static void never_new(trunk_connect_config *config) { config->reuse = TRUNK_REUSE_NEVER_NEW; }

static void credentials_and_reuse(void) {
    host h;
    trunk_conn conn, again, other;
    host_listen(&h, engine_with(0));
    trunk_engine *client = engine_with(0);
    GIVES(TRUNK_ERR_NO_CONNECTION, try_connect(&h, client, never_new, &conn));
    OK(try_connect(&h, client, with_credential, &conn));
    trunk_item item = expect(h.engine, TRUNK_ITEM_INCOMING);
    CHECK(item.detail.incoming->credential_size == 10);
    CHECK(memcmp(item.detail.incoming->credential, "ticket \0 7", 10) == 0);
    CHECK(strcmp(item.detail.incoming->server_name, "game.test") == 0);
    OK(trunk_accept(h.engine, item.conn));
    release(&item);
    item = expect(client, TRUNK_ITEM_STATUS);
    CHECK(item.conn_user == &shared_pair);
    release(&item);
    /* Only what agrees in everything is shared. */
    OK(try_connect(&h, client, with_credential, &again));
    CHECK(again == conn);
    GIVES(TRUNK_ERR_NO_CONNECTION, try_connect(&h, client, never_new, &other));
    OK(try_connect(&h, client, NULL, &other));
    CHECK(other != conn);
    OK(try_connect(&h, client, never_new, &again));
    CHECK(again == other);
    OK(try_connect(&h, client, forced, &again));
    CHECK(again != other && again != conn);
    OK(trunk_engine_destroy(client));
    OK(trunk_engine_destroy(h.engine));
}

typedef struct lines {
    pthread_mutex_t lock;
    int count, refused;
    trunk_engine *engine;
} lines;

static void count_line(void *user, trunk_log_level level, const char *target, const char *text) {
    lines *seen = user;
    CHECK(level >= TRUNK_LOG_ERROR && level <= TRUNK_LOG_DEBUG);
    CHECK(strncmp(target, "trunkline", 9) == 0 && strlen(text) > 0);
    pthread_mutex_lock(&seen->lock);
    seen->count++;
    if (seen->engine != NULL) {
        GIVES(TRUNK_ERR_IN_CALLBACK, trunk_engine_destroy(seen->engine));
        GIVES(TRUNK_ERR_IN_CALLBACK, trunk_shutdown(seen->engine, 0, NULL));
        OK(trunk_engine_wake(seen->engine));
        seen->refused++;
    }
    pthread_mutex_unlock(&seen->lock);
}

static void logs_of_engines(void) {
    lines one = {PTHREAD_MUTEX_INITIALIZER, 0, 0, NULL};
    lines two_ = {PTHREAD_MUTEX_INITIALIZER, 0, 0, NULL};
    trunk_engine_config config;
    trunk_engine *a, *b;
    engine_init(&config);
    config.log = count_line;
    config.log_user = &one;
    config.log_level = TRUNK_LOG_DEBUG;
    OK(trunk_engine_new(&config, &a));
    config.log_user = &two_;
    config.log_level = TRUNK_LOG_ERROR;
    OK(trunk_engine_new(&config, &b));
    config.log_level = 77;
    trunk_engine *none;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_engine_new(&config, &none));
    CHECK(one.count > 0);
    pthread_mutex_lock(&one.lock);
    one.engine = a;
    pthread_mutex_unlock(&one.lock);
    host h;
    host_listen(&h, a);
    pthread_mutex_lock(&one.lock);
    CHECK(one.refused > 0);
    one.engine = NULL;
    pthread_mutex_unlock(&one.lock);
    OK(trunk_engine_destroy(a));
    OK(trunk_engine_destroy(b));
    CHECK(two_.count == 0);
}

static pthread_mutex_t woken_lock = PTHREAD_MUTEX_INITIALIZER;
static int woken;

static int was_woken(int now) {
    pthread_mutex_lock(&woken_lock);
    int before = woken;
    woken = before || now;
    pthread_mutex_unlock(&woken_lock);
    return before;
}

/* Again and again: the first time may be before the other thread waits. */
static void *wake_later(void *engine) {
    struct timespec wait = {0, 50 * 1000 * 1000};
    while (!was_woken(0)) {
        nanosleep(&wait, NULL);
        OK(trunk_group_wake(engine, 0));
    }
    return NULL;
}

static void *shut_down_later(void *engine) {
    struct timespec wait = {0, 50 * 1000 * 1000};
    nanosleep(&wait, NULL);
    OK(trunk_shutdown(engine, 0, NULL));
    return NULL;
}

static void waits_end(void) {
    trunk_item item;
    size_t count = 9;
    pthread_t thread;
    trunk_engine *engine = engine_with(0);
    int64_t start = now_ns();
    OK(trunk_recv_many(engine, 0, &item, 1, SECOND / 20, &count));
    CHECK(count == 0 && now_ns() - start >= SECOND / 20 - SECOND / 1000);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_recv_many(engine, 0, &item, 1, -2, &count));
    CHECK(pthread_create(&thread, NULL, wake_later, engine) == 0);
    OK(trunk_recv_many(engine, 0, &item, 1, TRUNK_WAIT_FOREVER, &count));
    CHECK(count == 0);
    was_woken(1);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(pthread_create(&thread, NULL, shut_down_later, engine) == 0);
    trunk_result result;
    do {
        result = trunk_recv_many(engine, 0, &item, 1, TRUNK_WAIT_FOREVER, &count);
    } while (result == TRUNK_OK);
    CHECK(result == TRUNK_ERR_STOPPED);
    CHECK(pthread_join(thread, NULL) == 0);
    GIVES(TRUNK_ERR_STOPPED, trunk_shutdown(engine, 0, NULL));
    OK(trunk_engine_destroy(engine));
}

static const test tests[] = {
    {"whole_life", whole_life},
    {"whole_life_without_threads", whole_life_without_threads},
    {"own_event_loop", own_event_loop},
    {"wrong_thread", wrong_thread},
    {"the_first_that_polls_drives", the_first_that_polls_drives},
    {"fork_with_threads", fork_with_threads},
    {"fork_without_threads", fork_without_threads},
    {"rejected", rejected},
    {"trust", trust},
    {"credentials_and_reuse", credentials_and_reuse},
    {"logs_of_engines", logs_of_engines},
    {"waits_end", waits_end},
};
MAIN(tests)
