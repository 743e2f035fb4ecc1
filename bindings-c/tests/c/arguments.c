/* Arguments, structs and handles that are wrong in every way. */
#include "harness.h"

#define HANDLE UINT64_C(0x1234567812345679)

static void null_engine(void) {
    uint64_t h;
    int32_t n;
    int64_t wide;
    size_t size;
    void *user;
    const char *text;
    trunk_item item;
    trunk_buf buf;
    trunk_conn_info info;
    trunk_conn_stats stats;
    trunk_engine_stats total;
    OK(trunk_conn_info_init(&info));
    OK(trunk_conn_stats_init(&stats));
    OK(trunk_engine_stats_init(&total));
    GIVES(TRUNK_ERR_NULL, trunk_engine_new(NULL, NULL));
    OK(trunk_engine_destroy(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_shutdown(NULL, 0, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_engine_driver(NULL, &text));
    GIVES(TRUNK_ERR_NULL, trunk_engine_set_deny(NULL, NULL, 0));
    GIVES(TRUNK_ERR_NULL, trunk_engine_network_changed(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_engine_get_stats(NULL, &total));
    GIVES(TRUNK_ERR_NULL, trunk_engine_poll(NULL, 0, &h));
    GIVES(TRUNK_ERR_NULL, trunk_engine_fd(NULL, &n));
    GIVES(TRUNK_ERR_NULL, trunk_engine_next_timeout_ns(NULL, &wide));
    GIVES(TRUNK_ERR_NULL, trunk_engine_wake(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_listen(NULL, NULL, &h));
    GIVES(TRUNK_ERR_NULL, trunk_listener_address(NULL, HANDLE, NULL, 0, &size));
    GIVES(TRUNK_ERR_NULL, trunk_listener_close(NULL, HANDLE, 0));
    GIVES(TRUNK_ERR_NULL, trunk_connect(NULL, NULL, &h));
    GIVES(TRUNK_ERR_NULL, trunk_accept(NULL, HANDLE));
    GIVES(TRUNK_ERR_NULL, trunk_reject(NULL, HANDLE, 0, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_close(NULL, HANDLE, 0, NULL, 0));
    GIVES(TRUNK_ERR_NULL, trunk_conn_status(NULL, HANDLE, &n));
    GIVES(TRUNK_ERR_NULL, trunk_conn_check(NULL, HANDLE));
    GIVES(TRUNK_ERR_NULL, trunk_conn_get_info(NULL, HANDLE, &info));
    GIVES(TRUNK_ERR_NULL, trunk_conn_get_stats(NULL, HANDLE, &stats));
    GIVES(TRUNK_ERR_NULL, trunk_conn_set_group(NULL, HANDLE, 0));
    GIVES(TRUNK_ERR_NULL, trunk_conn_set_user(NULL, HANDLE, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_conn_user(NULL, HANDLE, &user));
    GIVES(TRUNK_ERR_NULL, trunk_channel_open(NULL, HANDLE, "x", NULL, &h));
    GIVES(TRUNK_ERR_NULL, trunk_channel_accept(NULL, HANDLE, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_channel_decline(NULL, HANDLE, 0, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_channel_close(NULL, HANDLE));
    GIVES(TRUNK_ERR_NULL, trunk_channel_reset(NULL, HANDLE, 0));
    GIVES(TRUNK_ERR_NULL, trunk_channel_stop(NULL, HANDLE, 0));
    GIVES(TRUNK_ERR_NULL, trunk_channel_conn(NULL, HANDLE, &h));
    GIVES(TRUNK_ERR_NULL, trunk_channel_set_user(NULL, HANDLE, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_channel_user(NULL, HANDLE, &user));
    GIVES(TRUNK_ERR_NULL, trunk_send(NULL, HANDLE, "x", 1));
    GIVES(TRUNK_ERR_NULL, trunk_send_receipt(NULL, HANDLE, "x", 1, 1));
    size = 7;
    GIVES(TRUNK_ERR_NULL, trunk_send_many(NULL, NULL, 0, &size));
    CHECK(size == 0);
    GIVES(TRUNK_ERR_NULL, trunk_buf_alloc(NULL, 1, &buf));
    memset(&buf, 0, sizeof buf);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send_buf(NULL, HANDLE, &buf, 0, 0));
    GIVES(TRUNK_ERR_NULL, trunk_send_buf(NULL, HANDLE, NULL, 0, 0));
    GIVES(TRUNK_ERR_NULL, trunk_buf_free(NULL));
    OK(trunk_buf_free(&buf));
    GIVES(TRUNK_ERR_NULL, trunk_send_item(NULL, HANDLE, NULL, 0));
    GIVES(TRUNK_ERR_NULL, trunk_flush(NULL, HANDLE));
    GIVES(TRUNK_ERR_NULL, trunk_group_new(NULL, &h));
    GIVES(TRUNK_ERR_NULL, trunk_group_wake(NULL, 0));
    GIVES(TRUNK_ERR_NULL, trunk_recv_many(NULL, 0, &item, 1, 0, &size));
    GIVES(TRUNK_ERR_NULL, trunk_message_release(NULL, 1));
    OK(trunk_message_release(NULL, 0));
    GIVES(TRUNK_ERR_NULL, trunk_identity_fingerprint(NULL, (uint8_t *)&info));
    GIVES(TRUNK_ERR_NULL, trunk_fingerprint_parse(NULL, (uint8_t *)&info));
    GIVES(TRUNK_ERR_NULL, trunk_fingerprint_format(NULL, info.remote));
    GIVES(TRUNK_ERR_NULL, trunk_engine_config_init(NULL));
}

static void null_outputs(void) {
    pair p;
    size_t size;
    trunk_item item;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_BYTES, "x");
    GIVES(TRUNK_ERR_NULL, trunk_listen(p.client, NULL, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_listen(p.client, NULL, &p.at_host));
    GIVES(TRUNK_ERR_NULL, trunk_connect(p.client, NULL, &p.at_host));
    GIVES(TRUNK_ERR_NULL, trunk_channel_open(p.client, p.at_client, "x", NULL, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_channel_open(p.client, p.at_client, NULL, NULL, &ends.at_host));
    GIVES(TRUNK_ERR_NULL, trunk_conn_status(p.client, p.at_client, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_conn_get_info(p.client, p.at_client, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_conn_get_stats(p.client, p.at_client, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_conn_user(p.client, p.at_client, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_channel_user(p.client, ends.at_client, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_channel_conn(p.client, ends.at_client, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_send(p.client, ends.at_client, NULL, 1));
    GIVES(TRUNK_ERR_NULL, trunk_send_many(p.client, NULL, 1, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_recv_many(p.client, 0, NULL, 1, 0, &size));
    GIVES(TRUNK_ERR_NULL, trunk_recv_many(p.client, 0, &item, 1, 0, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_group_new(p.client, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_buf_alloc(p.client, 1, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_engine_driver(p.client, NULL));
    OK(trunk_send(p.client, ends.at_client, NULL, 0));
    char small[4];
    GIVES(TRUNK_ERR_BUFFER_TOO_SMALL,
          trunk_listener_address(p.host.engine, p.host.listener, small, sizeof small, &size));
    CHECK(size == strlen(p.host.address) + 1);
    CHECK(strstr(trunk_last_error(), "4 bytes") != NULL);
    end_pair(&p);
}

/* A program that was built when the structs had fewer, or more, fields. */
static void struct_sizes(void) {
    trunk_engine *engine;
    struct {
        trunk_engine_config config;
        uint64_t more[2];
    } newer;
    OK(trunk_engine_config_init_sized(&newer.config, sizeof newer));
    CHECK(newer.config.struct_size == sizeof newer && newer.more[0] == 0);
    OK(trunk_engine_new(&newer.config, &engine));
    OK(trunk_engine_destroy(engine));
    newer.more[1] = 1;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_engine_new(&newer.config, &engine));
    CHECK(strstr(trunk_last_error(), "trunk_engine_config") != NULL);

    unsigned char older[16 + 8];
    memset(older, 0xee, sizeof older);
    OK(trunk_engine_config_init_sized((trunk_engine_config *)(void *)older, 16));
    CHECK(older[16] == 0xee && "no byte beyond the old struct is written");
    uint64_t aligned[2];
    memcpy(aligned, older, 16);
    OK(trunk_engine_new((trunk_engine_config *)(void *)aligned, &engine));
    OK(trunk_engine_destroy(engine));

    trunk_engine_config empty;
    memset(&empty, 0, sizeof empty);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_engine_new(&empty, &engine));
    CHECK(strstr(trunk_last_error(), "struct_size") != NULL);

    pair p;
    new_pair(&p, 0);
    struct {
        uint32_t struct_size, channels;
        uint64_t rtt_ns, guard;
    } stats = {16, 7, 7, 7};
    OK(trunk_conn_get_stats(p.client, p.at_client, (trunk_conn_stats *)(void *)&stats));
    CHECK(stats.channels == 0 && stats.rtt_ns > 7 && stats.guard == 7);
    CHECK(stats.struct_size == 16);
    end_pair(&p);
}

static void wrong_settings(void) {
    trunk_engine *engine = (trunk_engine *)&engine;
    trunk_engine_config config;
    trunk_connection_config connection;
    OK(trunk_engine_config_init(&config));
    config.shards = 0;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_engine_new(&config, &engine));
    CHECK(strstr(trunk_last_error(), "shards") != NULL);
    CHECK(engine == (trunk_engine *)&engine && "nothing is stored on an error");
    OK(trunk_engine_config_init(&config));
    OK(trunk_connection_config_init(&connection));
    CHECK(connection.linger_timeout_ns == 30 * (uint64_t)SECOND);
    connection.keep_alive_ns = connection.connected_timeout_ns;
    config.connection = &connection;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_engine_new(&config, &engine));
    CHECK(strstr(trunk_last_error(), "keep_alive") != NULL);
    config.connection = NULL;
    const char *deny[] = {"192.0.2.0/24", "nonsense"};
    config.deny = deny;
    config.deny_count = 2;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_engine_new(&config, &engine));
    config.deny_count = 1;
    config.key_log_file = "/no/such/folder/keys";
    CHECK(trunk_engine_new(&config, &engine) < 0);
    CHECK(strstr(trunk_last_error(), "/no/such/folder/keys") != NULL);

    host h;
    trunk_conn conn;
    trunk_engine *client = engine_with(0);
    host_listen(&h, client);
    trunk_connect_config connect;
    OK(trunk_connect_config_init(&connect));
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_connect(client, &connect, &conn));
    const char *name[] = {"localhost:7470"};
    connect.addresses = name;
    connect.address_count = 1;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_connect(client, &connect, &conn));
    CHECK(strstr(trunk_last_error(), "localhost:7470") != NULL);
    name[0] = h.address;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_connect(client, &connect, &conn));
    CHECK(strstr(trunk_last_error(), "trust") != NULL);
    trunk_listen_config listen;
    trunk_listener listener;
    trunk_identity identity;
    OK(trunk_listen_config_init(&listen));
    OK(trunk_identity_init(&identity));
    listen.address = h.address;
    GIVES(TRUNK_ERR_NULL, trunk_listen(client, &listen, &listener));
    listen.identity = &identity;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_listen(client, &listen, &listener));
    identity.file = "/no/such/file.pem";
    GIVES(TRUNK_ERR_FILE, trunk_listen(client, &listen, &listener));
    identity.file = NULL;
    identity.pem = "not a certificate";
    identity.pem_size = strlen(identity.pem);
    GIVES(TRUNK_ERR_SECURITY, trunk_listen(client, &listen, &listener));
    identity.pem = h.pem;
    identity.pem_size = strlen(h.pem);
    listen.address = "192.0.2.1:7470";
    GIVES(TRUNK_ERR_SYSTEM, trunk_listen(client, &listen, &listener));
    CHECK(strstr(trunk_last_error(), "192.0.2.1:7470") != NULL);
    OK(trunk_engine_destroy(client));
}

static void handles(void) {
    pair p, other;
    uint64_t h;
    trunk_status status = 9;
    size_t size;
    new_pair(&p, 0);
    new_pair(&other, 0);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "x");
    open_channel(&other, TRUNK_KIND_MESSAGES, "x");

    /* Of nothing, of another engine, of another kind. */
    uint64_t wrong[] = {0, 1, HANDLE, UINT64_MAX, p.at_host, other.at_client, ends.at_client,
                        p.host.listener, p.at_client + 2, p.at_client ^ UINT64_C(1) << 40};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_conn_status(p.client, wrong[i], &status));
        CHECK(status == TRUNK_STATUS_NONE);
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_accept(p.client, wrong[i]));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_close(p.client, wrong[i], 0, NULL, 0));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_conn_set_user(p.client, wrong[i], &h));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_channel_open(p.client, wrong[i], "y", NULL, &h));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_listener_close(p.client, wrong[i], 0));
        if (wrong[i] != ends.at_client) {
            GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send(p.client, wrong[i], "x", 1));
            GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_channel_close(p.client, wrong[i]));
        }
        if (wrong[i] != 0) {
            GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_conn_set_group(p.client, p.at_client, wrong[i]));
            trunk_item item;
            GIVES(TRUNK_ERR_INVALID_HANDLE,
                  trunk_recv_many(p.client, wrong[i], &item, 1, 0, &size));
        }
    }
    OK(trunk_conn_status(p.client, p.at_client, &status));
    CHECK(status == TRUNK_STATUS_CONNECTED);

    /* Closed twice; what belongs to it is stale too. */
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_close(p.client, p.at_client, 999, NULL, 0));
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_close(p.client, p.at_client, 3000, NULL, 0));
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_close(p.client, p.at_client, 0, NULL, -2));
    OK(trunk_close(p.client, p.at_client, 0, NULL, TRUNK_LINGER_NONE));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_close(p.client, p.at_client, 0, NULL, 0));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_conn_status(p.client, p.at_client, &status));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send(p.client, ends.at_client, "x", 1));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_channel_conn(p.client, ends.at_client, &h));

    OK(trunk_listener_close(p.host.engine, p.host.listener, 0));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_listener_close(p.host.engine, p.host.listener, 0));
    GIVES(TRUNK_ERR_INVALID_HANDLE,
          trunk_listener_address(p.host.engine, p.host.listener, NULL, 0, NULL));
    end_pair(&other);

    /* A destroyed engine. */
    trunk_engine *gone = p.client;
    end_pair(&p);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_engine_destroy(gone));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send(gone, ends.at_client, "x", 1));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_shutdown(gone, 0, NULL));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_engine_poll(gone, 0, NULL));
}

static void fingerprints(void) {
    uint8_t bytes[TRUNK_FINGERPRINT_BYTES], again[TRUNK_FINGERPRINT_BYTES];
    char text[TRUNK_FINGERPRINT_TEXT_BYTES], pem[2048], small[8];
    size_t size = 0;
    for (int i = 0; i < TRUNK_FINGERPRINT_BYTES; i++) {
        bytes[i] = (uint8_t)(i * 7);
    }
    OK(trunk_fingerprint_format(bytes, text));
    CHECK(strlen(text) == 64 && strncmp(text, "00070e15", 8) == 0);
    OK(trunk_fingerprint_parse(text, again));
    CHECK(memcmp(bytes, again, sizeof bytes) == 0);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_fingerprint_parse("12", again));
    GIVES(TRUNK_ERR_BUFFER_TOO_SMALL, trunk_identity_generate(NULL, small, sizeof small, &size));
    CHECK(size > 200 && size < sizeof pem);
    OK(trunk_identity_generate("two.test", pem, sizeof pem, &size));
    CHECK(size == strlen(pem) + 1 && strstr(pem, "PRIVATE KEY") != NULL);
}

static void *fail_elsewhere(void *unused) {
    (void)unused;
    CHECK(strcmp(trunk_last_error(), "") == 0);
    GIVES(TRUNK_ERR_NULL, trunk_fingerprint_parse(NULL, NULL));
    CHECK(strstr(trunk_last_error(), "fingerprint") != NULL);
    return NULL;
}

static void last_errors_belong_to_threads(void) {
    pthread_t thread;
    CHECK(strcmp(trunk_last_error(), "") == 0);
    GIVES(TRUNK_ERR_NULL, trunk_shutdown(NULL, 0, NULL));
    CHECK(strcmp(trunk_last_error(), "engine is NULL") == 0);
    CHECK(pthread_create(&thread, NULL, fail_elsewhere, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(strcmp(trunk_last_error(), "engine is NULL") == 0);
    CHECK(strcmp(trunk_result_str(TRUNK_ERR_NULL), trunk_result_str(TRUNK_ERR_SYSTEM)) != 0);
    CHECK(trunk_version() == (TRUNK_VERSION_MAJOR << 16 | TRUNK_VERSION_MINOR << 8 |
                              TRUNK_VERSION_PATCH));
}

static const test tests[] = {
    {"null_engine", null_engine},
    {"null_outputs", null_outputs},
    {"struct_sizes", struct_sizes},
    {"wrong_settings", wrong_settings},
    {"handles", handles},
    {"fingerprints", fingerprints},
    {"last_errors_belong_to_threads", last_errors_belong_to_threads},
};
MAIN(tests)
