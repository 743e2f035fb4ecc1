/* Event sources, and clients that pair over one. */
#include "trust.h"

#include <sys/wait.h>

static trunk_engine_config source_engine(void) {
    trunk_engine_config config;
    OK(trunk_engine_config_init(&config));
    if (getenv("TEST_WITH_MIO") != NULL) {
        config.driver = TRUNK_DRIVER_MIO;
    }
    config.rx_buffers = 64;
    config.tx_buffers = 16;
    return config;
}

static trunk_listener source_listen(trunk_event_source source, host *h) {
    person self;
    trunk_listener listener;
    trunk_listen_config config;
    make(&self);
    OK(trunk_listen_config_init(&config));
    config.address = "127.0.0.1:0";
    config.identity = &self.identity;
    OK(trunk_event_source_listen(source, &config, &listener));
    OK(trunk_event_source_address(source, listener, h->address, sizeof h->address, NULL));
    memcpy(h->fingerprint, self.fingerprint, sizeof h->fingerprint);
    h->listener = listener;
    return listener;
}

static char login[TRUNK_TOKEN_TEXT_BYTES + 2 * TRUNK_NAME_TEXT_BYTES];

static void with_login(trunk_connect_config *config) {
    config->reuse = TRUNK_REUSE_FORCE_NEW;
    config->credential = login;
    config->credential_size = strlen(login);
}

/* Connects to an event source as a client does; the reason with which it is refused, or 0. */
static trunk_reason log_in(const host *h, trunk_engine *client, const trunk_token_key *key,
                           const char *name, trunk_conn *conn) {
    char text[TRUNK_TOKEN_TEXT_BYTES];
    trunk_token_grant grant = token_grant("alice");
    OK(trunk_token_mint(key, &grant, text, sizeof text, NULL));
    snprintf(login, sizeof login, "%s %s controller", text, name);
    OK(try_connect(h, client, with_login, conn));
    trunk_item item = expect(client, TRUNK_ITEM_STATUS);
    trunk_reason reason = item.detail.status->reason;
    CHECK(item.conn == *conn);
    CHECK((reason == 0) == (item.detail.status->new_status == TRUNK_STATUS_CONNECTED));
    release(&item);
    return reason;
}

static trunk_source_stats stats_of(trunk_event_source source) {
    trunk_source_stats stats;
    OK(trunk_source_stats_init(&stats));
    OK(trunk_event_source_get_stats(source, &stats));
    return stats;
}

/* Stats in which the event source has received this many pings. */
static trunk_source_stats after_pings(trunk_event_source source, uint64_t pings) {
    int64_t deadline = now_ns() + 20 * SECOND;
    for (;;) {
        trunk_source_stats stats = stats_of(source);
        if (stats.received_ping == pings) {
            return stats;
        }
        CHECK(now_ns() < deadline && "no ping arrives");
        struct timespec wait = {0, 5 * 1000 * 1000};
        nanosleep(&wait, NULL);
    }
}

static void event_source_with(uint32_t shards) {
    host h;
    trunk_conn conn, other;
    trunk_event_source source;
    trunk_connection_config connection;
    trunk_source_config config;
    trunk_engine_config engine = source_engine();
    trunk_token_key keys[2] = {key_of("k1", secret), key_of("k2", other_secret)};
    const char *apps[] = {"go", "chess"};
    engine.shards = shards;
    OK(trunk_connection_config_init(&connection));
    connection.fin_wait_timeout_ns = SECOND / 4;
    engine.connection = &connection;
    OK(trunk_source_config_init(&config));
    CHECK(config.max_clients == 65536 && config.stall_limit_ns == 10 * (uint64_t)SECOND);
    config.apps = apps;
    config.app_count = 2;
    OK(trunk_event_source_start(&engine, &config, keys, 1, &source));
    trunk_listener listener = source_listen(source, &h);
    CHECK(strncmp(h.address, "127.0.0.1:", 10) == 0 && strcmp(h.address, "127.0.0.1:0") != 0);
    trunk_source_stats stats = stats_of(source);
    CHECK(stats.shards == shards && stats.failed_shards == 0 && stats.clients == 0);

    trunk_engine *client = engine_with(0);
    CHECK(log_in(&h, client, &keys[0], "alice", &conn) == 0);
    stats = stats_of(source);
    CHECK(stats.clients == 1 && stats.attached == 1 && stats.refused_invalid_access_token == 0);
    trunk_engine_stats total;
    OK(trunk_engine_stats_init(&total));
    OK(trunk_event_source_get_engine_stats(source, &total));
    CHECK(total.shards == shards && total.connections == 1 && total.datagrams_received > 0);
    trunk_shard_stats shard;
    OK(trunk_shard_stats_init(&shard));
    uint64_t connections = 0;
    for (uint32_t i = 0; i < shards; i++) {
        OK(trunk_event_source_get_shard_stats(source, i, &shard));
        CHECK(!shard.failed);
        connections += shard.connections;
    }
    CHECK(connections == 1);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_event_source_get_shard_stats(source, shards, &shard));

    /* A ping for bob, who is not there: the bytes of docs/pairing.md. */
    trunk_channel events;
    trunk_channel_options options;
    uint8_t ping[14];
    hex("990100a0a3626f62c00100c2c400", ping);
    OK(trunk_channel_options_init(&options));
    options.kind = TRUNK_KIND_MESSAGES;
    OK(trunk_channel_open(client, conn, "events", &options, &events));
    skip(client, TRUNK_ITEM_READY);
    OK(trunk_send(client, events, ping, sizeof ping));
    stats = after_pings(source, 1);
    CHECK(stats.absent == 1 && stats.delivered == 0 && stats.malformed == 0);

    /* Refused for a name that the token does not allow, and for a key that is not known. */
    CHECK(log_in(&h, client, &keys[0], "bob", &other) == 1102);
    CHECK(log_in(&h, client, &keys[1], "alice", &other) == 1103);
    stats = stats_of(source);
    CHECK(stats.clients == 1 && stats.attached == 1 && stats.refused_invalid_client_id == 1);
    CHECK(stats.refused_invalid_access_token == 1 && stats.aborted_released_by_other == 0);

    /* Other keys are for clients to come; a newer connection takes the place of the older. */
    OK(trunk_event_source_set_keys(source, &keys[1], 1));
    CHECK(log_in(&h, client, &keys[0], "alice", &other) == 1103);
    CHECK(stats_of(source).clients == 1);
    keys[0].id = "not a name";
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_event_source_set_keys(source, keys, 2));
    CHECK(strncmp(trunk_last_error(), "keys[0]: ", 9) == 0);
    GIVES(TRUNK_ERR_NULL, trunk_event_source_set_keys(source, NULL, 2));
    char text[TRUNK_TOKEN_TEXT_BYTES];
    trunk_token_grant grant = token_grant("alice");
    OK(trunk_token_mint(&keys[1], &grant, text, sizeof text, NULL));
    snprintf(login, sizeof login, "%s alice responder", text);
    OK(try_connect(&h, client, with_login, &other));
    int let_in = 0, released = 0;
    while (!let_in || !released) {
        trunk_item item = next(client);
        if (item.type == TRUNK_ITEM_STATUS && item.conn == other) {
            CHECK(item.detail.status->new_status == TRUNK_STATUS_CONNECTED);
            let_in = 1;
        } else if (item.type == TRUNK_ITEM_STATUS) {
            CHECK(item.conn == conn && item.detail.status->reason == 1105);
            released = 1;
        }
        release(&item);
    }
    stats = stats_of(source);
    CHECK(stats.clients == 1 && stats.attached == 2 && stats.aborted_released_by_other == 1);

    /* Who is there stays when nobody more is let in. */
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_unlisten(source, listener + 2));
    OK(trunk_event_source_unlisten(source, listener));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_unlisten(source, listener));
    GIVES(TRUNK_ERR_INVALID_HANDLE,
          trunk_event_source_address(source, listener, text, sizeof text, NULL));
    CHECK(stats_of(source).clients == 1);
    source_listen(source, &h);

    trunk_shutdown_report report;
    OK(trunk_shutdown_report_init(&report));
    trunk_conn_report each[4];
    report.connections = each;
    report.connection_capacity = 4;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_event_source_shutdown(source, SECOND, &report));
    OK(trunk_shutdown_report_init(&report));
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_event_source_shutdown(source, -2, &report));
    OK(trunk_event_source_shutdown(source, 5 * SECOND, &report));
    CHECK(report.connection_count >= 1 && report.all_delivered && report.failed_shards == 0);
    for (;;) {
        trunk_item item = next(client);
        int ended = item.type == TRUNK_ITEM_STATUS && item.conn == other;
        if (ended) {
            CHECK(item.detail.status->new_status == TRUNK_STATUS_CLOSED_BY_PEER);
            CHECK(item.detail.status->reason == TRUNK_REASON_SHUTDOWN);
        }
        release(&item);
        if (ended) {
            break;
        }
    }
    GIVES(TRUNK_ERR_STOPPED, trunk_event_source_shutdown(source, 0, NULL));
    GIVES(TRUNK_ERR_STOPPED, trunk_event_source_get_stats(source, &stats));
    GIVES(TRUNK_ERR_STOPPED, trunk_event_source_get_engine_stats(source, &total));
    GIVES(TRUNK_ERR_STOPPED, trunk_event_source_set_keys(source, &keys[1], 1));
    GIVES(TRUNK_ERR_STOPPED, trunk_event_source_listen(source, NULL, &listener));
    OK(trunk_event_source_close(source));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_close(source));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_get_stats(source, &stats));
    OK(trunk_engine_destroy(client));
}

static void event_source(void) { event_source_with(1); }
static void event_source_of_two_shards(void) { event_source_with(2); }

static void event_source_arguments(void) {
    host h;
    size_t size;
    trunk_event_source source = 5, second;
    trunk_listener listener = 5;
    trunk_source_stats stats;
    trunk_engine_stats total;
    trunk_source_config config;
    trunk_engine_config engine = source_engine();
    trunk_token_key key = key_of("k1", secret);
    trunk_shard_stats shard;
    OK(trunk_source_stats_init(&stats));
    OK(trunk_engine_stats_init(&total));
    OK(trunk_shard_stats_init(&shard));
    OK(trunk_source_config_init(&config));
    GIVES(TRUNK_ERR_NULL, trunk_source_config_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_source_stats_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_event_source_start(&engine, &config, &key, 1, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_event_source_start(&engine, &config, NULL, 1, &source));
    engine.threadless = 1;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_event_source_start(&engine, &config, &key, 1, &source));
    CHECK(strstr(trunk_last_error(), "threadless") != NULL);
    engine.threadless = 0;
    trunk_callbacks callbacks;
    OK(trunk_callbacks_init(&callbacks));
    engine.callbacks = &callbacks;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_event_source_start(&engine, &config, &key, 1, &source));
    CHECK(strstr(trunk_last_error(), "callbacks") != NULL);
    engine.callbacks = NULL;
    config.queue_bytes = 1;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_event_source_start(&engine, &config, &key, 1, &source));
    CHECK(strstr(trunk_last_error(), "queue_bytes") != NULL);
    const char *apps[] = {"chess", NULL};
    OK(trunk_source_config_init(&config));
    config.apps = apps;
    config.app_count = 2;
    GIVES(TRUNK_ERR_NULL, trunk_event_source_start(&engine, &config, &key, 1, &source));
    apps[1] = "no name";
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_event_source_start(&engine, &config, &key, 1, &source));
    CHECK(strstr(trunk_last_error(), "no name") != NULL);
    config.app_count = 1;
    trunk_token_key twice[] = {key, key};
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_event_source_start(&engine, &config, twice, 2, &source));
    CHECK(strncmp(trunk_last_error(), "keys[1]: ", 9) == 0);
    CHECK(source == 5 && "nothing is stored on an error");

    /* Nothing but defaults, and no key: nobody is let in. */
    OK(trunk_event_source_start(&engine, NULL, NULL, 0, &source));
    OK(trunk_event_source_start(&engine, &config, &key, 1, &second));
    GIVES(TRUNK_ERR_NULL, trunk_event_source_listen(source, NULL, &listener));
    trunk_listen_config listen;
    OK(trunk_listen_config_init(&listen));
    GIVES(TRUNK_ERR_NULL, trunk_event_source_listen(source, &listen, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_event_source_listen(source, &listen, &listener));
    CHECK(listener == 5);
    listener = source_listen(source, &h);
    GIVES(TRUNK_ERR_BUFFER_TOO_SMALL,
          trunk_event_source_address(source, listener, h.address, 3, &size));
    CHECK(size == strlen(h.address) + 1);
    GIVES(TRUNK_ERR_INVALID_HANDLE,
          trunk_event_source_address(second, listener, h.address, sizeof h.address, NULL));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_unlisten(second, listener));
    GIVES(TRUNK_ERR_NULL, trunk_event_source_get_stats(source, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_event_source_get_engine_stats(source, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_event_source_get_shard_stats(source, 0, NULL));
    trunk_conn conn;
    trunk_engine *client = engine_with(0);
    CHECK(log_in(&h, client, &key, "alice", &conn) == 1103);
    OK(trunk_event_source_set_keys(source, &key, 1));
    CHECK(log_in(&h, client, &key, "alice", &conn) == 0);
    CHECK(stats_of(source).attached == 1 && stats_of(second).attached == 0);

    /* A program that was built when the struct had fewer fields. */
    struct {
        uint32_t struct_size, shards;
        uint64_t guard;
    } older = {8, 9, 9};
    OK(trunk_event_source_get_stats(source, (trunk_source_stats *)(void *)&older));
    CHECK(older.struct_size == 8 && older.shards == 1 && older.guard == 9);

    trunk_credential_issuer issuer;
    OK(trunk_credential_issuer_with_secret("game", 1, secret, sizeof secret, &issuer));
    uint64_t wrong[] = {0, 1, HANDLE, UINT64_MAX, issuer, conn, listener};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_listen(wrong[i], &listen, &h.listener));
        GIVES(TRUNK_ERR_INVALID_HANDLE,
              trunk_event_source_address(wrong[i], listener, h.address, 64, NULL));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_unlisten(wrong[i], listener));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_set_keys(wrong[i], &key, 1));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_get_stats(wrong[i], &stats));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_get_engine_stats(wrong[i], &total));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_get_shard_stats(wrong[i], 0, &shard));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_shutdown(wrong[i], 0, NULL));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_close(wrong[i]));
    }
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_credential_issuer_close(source));
    /* Closed without a shutdown: the client hears of it sooner or later. */
    OK(trunk_event_source_close(source));
    OK(trunk_event_source_close(second));
    OK(trunk_engine_destroy(client));
}

/* ---- pairing ---- */

static void pairing_at(const host *h, trunk_engine *engine, const trunk_token_key *key,
                       const char *name, trunk_pairing_role role, trunk_pairing *pairing) {
    char text[TRUNK_TOKEN_TEXT_BYTES];
    const char *addresses[] = {h->address};
    trunk_trust trust;
    trunk_connect_config connect;
    trunk_pairing_config config;
    trunk_token_grant grant = token_grant(name);
    grant.roles = role == TRUNK_PAIRING_CONTROLLER ? TRUNK_TOKEN_CONTROLLER : TRUNK_TOKEN_RESPONDER;
    OK(trunk_token_mint(key, &grant, text, sizeof text, NULL));
    OK(trunk_trust_init(&trust));
    trust.kind = TRUNK_TRUST_PINS;
    trust.pins = h->fingerprint;
    trust.pin_count = 1;
    OK(trunk_connect_config_init(&connect));
    connect.addresses = addresses;
    connect.address_count = 1;
    connect.trust = &trust;
    OK(trunk_pairing_config_init(&config));
    config.source = &connect;
    config.role = role;
    config.searching_ping_ns = SECOND / 5;
    OK(trunk_pairing_new(engine, &config, pairing));
    OK(trunk_pairing_assign_client_id(engine, *pairing, name));
    OK(trunk_pairing_assign_token(engine, *pairing, text));
    OK(trunk_pairing_set_active(engine, *pairing, 1));
}

/* The next notice of this type; others are passed over. */
static trunk_item notice(trunk_engine *engine, trunk_pairing_notice_type type) {
    for (;;) {
        trunk_item item = expect(engine, TRUNK_ITEM_PAIRING);
        CHECK(item.detail.pairing->type != TRUNK_NOTICE_ABORTED);
        if (item.detail.pairing->type == type) {
            return item;
        }
        release(&item);
    }
}

static void becomes_paired(trunk_engine *engine) {
    for (int interacting = 0; !interacting;) {
        trunk_item item = notice(engine, TRUNK_NOTICE_STATE);
        interacting = item.detail.pairing->new_state == TRUNK_PAIRING_INTERACTING;
        release(&item);
    }
}

static void clients_pair_over_it(void) {
    host h;
    trunk_event_source source;
    trunk_pairing alice, bob;
    trunk_engine_config engine = source_engine();
    trunk_token_key key = key_of("k1", secret);
    OK(trunk_event_source_start(&engine, NULL, &key, 1, &source));
    source_listen(source, &h);
    trunk_engine *at_alice = engine_with(0), *at_bob = engine_with(0);
    pairing_at(&h, at_bob, &key, "bob", TRUNK_PAIRING_RESPONDER, &bob);
    pairing_at(&h, at_alice, &key, "alice", TRUNK_PAIRING_CONTROLLER, &alice);
    OK(trunk_pairing_assign_partner(at_alice, alice, "bob"));
    becomes_paired(at_alice);
    becomes_paired(at_bob);
    OK(trunk_pairing_send(at_alice, alice, 7, "e2e4", 4, 1, NULL));
    trunk_item item = notice(at_bob, TRUNK_NOTICE_EVENT);
    const trunk_pairing_notice *event = item.detail.pairing;
    CHECK(event->pairing == bob && event->subtype == 7 && strcmp(event->client, "alice") == 0);
    CHECK(event->size == 4 && memcmp(event->data, "e2e4", 4) == 0);
    release(&item);
    trunk_source_stats stats = stats_of(source);
    CHECK(stats.clients == 2 && stats.attached == 2 && stats.received_application == 1);
    CHECK(stats.received_ping >= 2 && stats.delivered >= 3 && stats.waiting_events == 0);
    CHECK(stats.malformed + stats.forged + stats.oversize + stats.limited == 0);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_close(alice));
    OK(trunk_engine_destroy(at_alice));
    OK(trunk_engine_destroy(at_bob));
    OK(trunk_event_source_close(source));
}

/* ---- threads, callbacks, forks ---- */

enum { THREADS = 4 };
static trunk_event_source shared_source;

static void *ask_until_closed(void *unused) {
    (void)unused;
    trunk_source_stats stats;
    OK(trunk_source_stats_init(&stats));
    trunk_result result;
    do {
        result = trunk_event_source_get_stats(shared_source, &stats);
        CHECK(result != TRUNK_OK || stats.shards == 1);
    } while (result == TRUNK_OK);
    CHECK(result == TRUNK_ERR_INVALID_HANDLE);
    return NULL;
}

static void closed_while_others_use_it(void) {
    host h;
    pthread_t threads[THREADS];
    trunk_engine_config engine = source_engine();
    OK(trunk_event_source_start(&engine, NULL, NULL, 0, &shared_source));
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, ask_until_closed, NULL) == 0);
    }
    for (int i = 0; i < 40; i++) {
        OK(trunk_event_source_unlisten(shared_source, source_listen(shared_source, &h)));
    }
    OK(trunk_event_source_close(shared_source));
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static int log_lines;
static trunk_event_source logged_source;
static trunk_token_key logged_key;

static void take_line(void *user, trunk_log_level level, const char *target, const char *text) {
    CHECK(user == &log_lines && level <= TRUNK_LOG_INFO && target[0] != '\0');
    CHECK(strstr(text, "tk1.") == NULL && "a token is not logged");
    pthread_mutex_lock(&log_lock);
    log_lines++;
    if (logged_source != 0) {
        GIVES(TRUNK_ERR_IN_CALLBACK, trunk_event_source_close(logged_source));
        GIVES(TRUNK_ERR_IN_CALLBACK, trunk_event_source_shutdown(logged_source, 0, NULL));
        trunk_source_stats stats;
        OK(trunk_source_stats_init(&stats));
        GIVES(TRUNK_ERR_IN_CALLBACK, trunk_event_source_get_stats(logged_source, &stats));
        OK(trunk_event_source_set_keys(logged_source, &logged_key, 1));
    }
    pthread_mutex_unlock(&log_lock);
}

static void log_of_an_event_source(void) {
    host h;
    trunk_conn conn;
    trunk_event_source source;
    trunk_engine_config engine = source_engine();
    trunk_token_key key = key_of("k1", secret);
    engine.log = take_line;
    engine.log_user = &log_lines;
    engine.log_level = TRUNK_LOG_INFO;
    OK(trunk_event_source_start(&engine, NULL, &key, 1, &source));
    source_listen(source, &h);
    pthread_mutex_lock(&log_lock);
    int before = log_lines;
    logged_source = source;
    logged_key = key;
    pthread_mutex_unlock(&log_lock);
    trunk_engine *client = engine_with(0);
    CHECK(log_in(&h, client, &key, "alice", &conn) == 0);
    CHECK(log_in(&h, client, &key, "bob", &conn) == 1102);
    pthread_mutex_lock(&log_lock);
    CHECK(log_lines >= before + 2);
    logged_source = 0;
    pthread_mutex_unlock(&log_lock);
    OK(trunk_event_source_close(source));
    OK(trunk_engine_destroy(client));
    engine.log_level = 77;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_event_source_start(&engine, NULL, &key, 1, &source));
}

static void in_the_child(trunk_event_source source, const host *h) {
    char text[64];
    trunk_source_stats stats;
    trunk_engine_stats total;
    trunk_shard_stats shard;
    trunk_listener listener;
    trunk_listen_config listen;
    trunk_token_key key = key_of("k1", secret);
    OK(trunk_source_stats_init(&stats));
    OK(trunk_engine_stats_init(&total));
    OK(trunk_shard_stats_init(&shard));
    OK(trunk_listen_config_init(&listen));
    GIVES(TRUNK_ERR_FORKED, trunk_event_source_listen(source, &listen, &listener));
    GIVES(TRUNK_ERR_FORKED,
          trunk_event_source_address(source, h->listener, text, sizeof text, NULL));
    GIVES(TRUNK_ERR_FORKED, trunk_event_source_unlisten(source, h->listener));
    GIVES(TRUNK_ERR_FORKED, trunk_event_source_set_keys(source, &key, 1));
    GIVES(TRUNK_ERR_FORKED, trunk_event_source_get_stats(source, &stats));
    GIVES(TRUNK_ERR_FORKED, trunk_event_source_get_engine_stats(source, &total));
    GIVES(TRUNK_ERR_FORKED, trunk_event_source_get_shard_stats(source, 0, &shard));
    GIVES(TRUNK_ERR_FORKED, trunk_event_source_shutdown(source, 0, NULL));
    GIVES(TRUNK_ERR_FORKED, trunk_event_source_close(source));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_event_source_close(HANDLE));

    /* One of its own works. */
    host own;
    trunk_conn conn;
    trunk_event_source mine;
    trunk_engine_config engine = source_engine();
    OK(trunk_event_source_start(&engine, NULL, &key, 1, &mine));
    source_listen(mine, &own);
    trunk_engine *client = engine_with(0);
    CHECK(log_in(&own, client, &key, "alice", &conn) == 0);
    OK(trunk_event_source_close(mine));
    OK(trunk_engine_destroy(client));
}

static void forks(void) {
    host h;
    trunk_conn conn;
    trunk_event_source source;
    trunk_engine_config engine = source_engine();
    trunk_token_key key = key_of("k1", secret);
    OK(trunk_event_source_start(&engine, NULL, &key, 1, &source));
    source_listen(source, &h);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        in_the_child(source, &h);
        exit(0); /* with destructors, as a program would */
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* The parent goes on. */
    trunk_engine *client = engine_with(0);
    CHECK(log_in(&h, client, &key, "alice", &conn) == 0);
    CHECK(stats_of(source).clients == 1);
    OK(trunk_engine_destroy(client));
    OK(trunk_event_source_close(source));
}

static const test tests[] = {
    {"event_source", event_source},
    {"event_source_of_two_shards", event_source_of_two_shards},
    {"event_source_arguments", event_source_arguments},
    {"clients_pair_over_it", clients_pair_over_it},
    {"closed_while_others_use_it", closed_while_others_use_it},
    {"log_of_an_event_source", log_of_an_event_source},
    {"forks", forks},
};
MAIN(tests)
