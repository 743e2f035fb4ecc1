/* What runs out, what must not grow, and many threads at once. */
#include "interface.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/resource.h>

/* ---- what the process has ---- */

static int entries(const char *path) {
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    int count = 0;
    while (readdir(dir) != NULL) {
        count++;
    }
    CHECK(closedir(dir) == 0);
    return count - 2; /* . and .. */
}

/* Without the directory that is being read. */
static int descriptors(void) { return entries("/proc/self/fd") - 1; }
static int threads(void) { return entries("/proc/self/task"); }

static long resident_kib(void) {
    long pages, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%ld %ld", &pages, &resident) == 2);
    CHECK(fclose(file) == 0);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* A thread that was joined may be listed for a moment still. */
static void settle(int expected) {
    int64_t start = now_ns();
    while (threads() != expected) {
        CHECK(now_ns() - start < 5 * SECOND && "the engine's threads are gone");
        sched_yield();
    }
}

/* ---- nothing grows ---- */

static void nothing_grows_with(int threadless) {
    int rounds = is_checked() ? 12 : 60, warm = is_checked() ? 4 : 20;
    int files = descriptors(), tasks = threads();
    long after_warm = 0;
    for (int i = 0; i < rounds; i++) {
        pair p;
        new_pair(&p, threadless);
        two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "x");
        static char bytes[100000];
        OK(trunk_send(p.client, ends.at_client, bytes, sizeof bytes));
        OK(trunk_send(p.client, ends.at_client, bytes, 10));
        trunk_item item = expect(p.host.engine, TRUNK_ITEM_DATA);
        /* Some end with everything open, others in order. */
        if (i % 2 == 0) {
            OK(trunk_close(p.client, p.at_client, 0, NULL, TRUNK_LINGER_NONE));
            skip(p.client, TRUNK_ITEM_DEAD);
        }
        end_pair(&p);
        release(&item);
        settle(tasks);
        CHECK(descriptors() == files && "every descriptor is closed");
        if (i == warm) {
            after_warm = resident_kib();
        }
    }
    long grown = resident_kib() - after_warm;
    if (grown > 2048 && !is_checked()) {
        fprintf(stderr, "%ld KiB more after %d engines\n", grown, 2 * (rounds - warm));
        _exit(1);
    }
}

static void nothing_grows(void) { nothing_grows_with(0); }
static void nothing_grows_without_threads(void) { nothing_grows_with(1); }

/* Connections and channels of one engine come and go. */
static void nothing_grows_in_an_engine(void) {
    int rounds = is_checked() ? 20 : 300, warm = rounds / 3;
    long after_warm = 0;
    host h;
    configure = hurry;
    host_listen(&h, engine_with(0));
    trunk_engine *client = engine_with(0);
    pair p = {h, client, 0, 0};
    for (int i = 0; i < rounds; i++) {
        connect_pair(&p);
        two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "x");
        OK(trunk_send(client, ends.at_client, "x", 1));
        skip(h.engine, TRUNK_ITEM_DATA);
        OK(trunk_close(client, p.at_client, 0, NULL, TRUNK_LINGER_NONE));
        skip(h.engine, TRUNK_ITEM_CLOSED);
        becomes(h.engine, TRUNK_STATUS_CLOSED_BY_PEER);
        OK(trunk_close(h.engine, p.at_host, 0, NULL, TRUNK_LINGER_NONE));
        skip(h.engine, TRUNK_ITEM_DEAD);
        skip(client, TRUNK_ITEM_DEAD);
        if (i == warm) {
            after_warm = resident_kib();
        }
    }
    CHECK(is_checked() || resident_kib() - after_warm < 2048);
    trunk_engine_stats total;
    OK(trunk_engine_stats_init(&total));
    OK(trunk_engine_get_stats(client, &total));
    CHECK(total.connections == 0 && total.connections_closed == (uint64_t)rounds);
    end_pair(&p);
}

/* ---- no threads ---- */

static void no_threads_without_threads(void) {
    pair p;
    int before = threads();
    configure = hurry;
    new_pair(&p, 1);
    CHECK(threads() == before && "the handshake makes none");
    two ends = open_channel(&p, TRUNK_KIND_BYTES, "x");
    static char bytes[1 << 16];
    uint64_t sent = 0, received = 0;
    while (received < UINT64_C(8) << 20) {
        trunk_item items[16];
        size_t count;
        trunk_result result = trunk_send(p.client, ends.at_client, bytes, sizeof bytes);
        CHECK(result == TRUNK_OK || result == TRUNK_ERR_WOULD_BLOCK);
        sent += result == TRUNK_OK ? sizeof bytes : 0;
        drive();
        OK(trunk_recv_many(p.host.engine, 0, items, 16, TRUNK_WAIT_NOT, &count));
        for (size_t i = 0; i < count; i++) {
            received += items[i].size;
        }
        OK(trunk_message_release(items, count));
        CHECK(threads() == before && "traffic makes none");
    }
    CHECK(received <= sent);
    trunk_conn_info info;
    OK(trunk_conn_info_init(&info));
    OK(trunk_conn_get_info(p.client, p.at_client, &info));
    OK(trunk_shutdown(p.client, 0, NULL));
    CHECK(threads() == before && "the shutdown makes none");
    end_pair(&p);
    CHECK(threads() == before);
}

static void *make_and_poll(void *at) {
    pair *p = at;
    host_listen(&p->host, engine_with(1));
    for (int i = 0; i < 3; i++) {
        OK(trunk_engine_poll(p->host.engine, 0, NULL));
    }
    return NULL;
}

static pthread_barrier_t meeting;

static void *make_poll_and_stay(void *at) {
    make_and_poll(at);
    pthread_barrier_wait(&meeting); /* to be destroyed */
    pthread_barrier_wait(&meeting); /* it was destroyed */
    return NULL;
}

/* A thread-less engine whose thread has ended, or is another one, is destroyed all the same. */
static void destroyed_by_another_thread(void) {
    pair p;
    pthread_t thread;
    int before = descriptors();
    CHECK(pthread_create(&thread, NULL, make_and_poll, &p) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    GIVES(TRUNK_ERR_WRONG_THREAD, trunk_engine_poll(p.host.engine, 0, NULL));
    OK(trunk_engine_destroy(p.host.engine));
    CHECK(descriptors() == before);

    CHECK(pthread_barrier_init(&meeting, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, make_poll_and_stay, &p) == 0);
    pthread_barrier_wait(&meeting);
    OK(trunk_engine_destroy(p.host.engine));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_engine_wake(p.host.engine));
    pthread_barrier_wait(&meeting);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(descriptors() == before);
}

/* ---- pools and queues ---- */

static void with_few_buffers(trunk_engine_config *config) {
    config->send_buffers = 4;
    config->send_buffer_bytes = 4096;
}

static size_t take_all(trunk_engine *engine, trunk_buf *bufs, size_t most) {
    size_t taken = 0;
    while (taken < most && trunk_buf_alloc(engine, 100, &bufs[taken]) == TRUNK_OK) {
        taken++;
    }
    trunk_buf none;
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_buf_alloc(engine, 100, &none));
    CHECK(none.data == NULL);
    return taken;
}

static void *free_elsewhere(void *buf) {
    OK(trunk_buf_free(buf));
    return NULL;
}

static void send_buffers_come_back(void) {
    pair p;
    trunk_buf bufs[16];
    configure = with_few_buffers;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "b");
    size_t whole = take_all(p.client, bufs, 16);
    CHECK(whole >= 1 && whole < 16);
    for (int round = 0; round < 20; round++) {
        pthread_t thread;
        /* One is freed, on another thread, the others are sent. */
        CHECK(pthread_create(&thread, NULL, free_elsewhere, &bufs[0]) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        for (size_t i = 1; i < whole; i++) {
            OK(trunk_send_buf(p.client, ends.at_client, &bufs[i], 100, i));
            OK(trunk_buf_free(&bufs[i])); /* it is empty */
        }
        size_t received = 0, receipts = 0;
        while (received < whole - 1) {
            skip(p.host.engine, TRUNK_ITEM_DATA);
            received++;
        }
        while (receipts < whole - 1) {
            skip(p.client, TRUNK_ITEM_RECEIPT);
            receipts++;
        }
        /* The receipt may be told a moment before the memory is free. */
        int64_t start = now_ns();
        size_t taken = 0;
        while (taken < whole) {
            CHECK(now_ns() - start < 10 * SECOND && "every buffer comes back");
            taken += trunk_buf_alloc(p.client, 100, &bufs[taken]) == TRUNK_OK;
        }
    }
    for (size_t i = 0; i < whole; i++) {
        OK(trunk_buf_free(&bufs[i]));
    }
    end_pair(&p);
}

/* A buffer that was not taken stays the caller's, with its size. */
static void a_refused_buffer_stays(void) {
    pair p;
    trunk_buf buf;
    static char big[60000];
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_BYTES, "b");
    OK(trunk_buf_alloc(p.client, 1000, &buf));
    memset(buf.data, 'k', 1000);
    uint64_t sent = 0, received = 0;
    while (trunk_send(p.client, ends.at_client, big, sizeof big) == TRUNK_OK) {
        sent += sizeof big;
    }
    trunk_result result = trunk_send_buf(p.client, ends.at_client, &buf, 1000, 0);
    if (result != TRUNK_OK) {
        CHECK(result == TRUNK_ERR_WOULD_BLOCK && buf.data != NULL && buf.data[999] == 'k');
        GIVES(TRUNK_ERR_INVALID_ARGUMENT,
              trunk_send_buf(p.client, ends.at_client, &buf, 999, 0));
        while (received < sent) {
            trunk_item item = expect(p.host.engine, TRUNK_ITEM_DATA);
            received += item.size;
            release(&item);
        }
        int64_t start = now_ns();
        do {
            result = trunk_send_buf(p.client, ends.at_client, &buf, 1000, 0);
            CHECK(now_ns() - start < 10 * SECOND);
        } while (result == TRUNK_ERR_WOULD_BLOCK);
        CHECK(result == TRUNK_OK && buf.data == NULL);
    }
    while (received < sent + 1000) {
        trunk_item item = expect(p.host.engine, TRUNK_ITEM_DATA);
        received += item.size;
        CHECK(received < sent + 1000 || item.data[item.size - 1] == 'k');
        release(&item);
    }
    end_pair(&p);
}

static void with_short_queues(trunk_engine_config *config) {
    static trunk_connection_config connection;
    connection_init(&connection);
    connection.channel_send_buffer = 65536;
    connection.send_buffer = 65536;
    connection.max_message = 32768;
    config->connection = &connection;
    config->queue_channel_bytes = 65536;
    config->queue_shard_bytes = 65536;
    config->queue_group_bytes = 65536;
    config->mailbox = 16;
    config->rx_buffers = 16;
    config->tx_buffers = 8;
}

/* Full queues refuse, tell when there is room, and lose nothing. */
static void short_queues(void) {
    enum { MESSAGES = 400 };
    pair p;
    configure = with_short_queues;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "q");
    static uint32_t message[5000];
    uint32_t sent = 0, received = 0, refused = 0;
    while (received < MESSAGES) {
        while (sent < MESSAGES) {
            size_t size = 4 * (1 + sent * 37 % 5000);
            message[0] = sent;
            trunk_result result = trunk_send(p.client, ends.at_client, message, size);
            if (result != TRUNK_OK) {
                CHECK(result == TRUNK_ERR_WOULD_BLOCK);
                refused++;
                break;
            }
            sent++;
        }
        trunk_item item;
        size_t count;
        OK(trunk_recv_many(p.host.engine, 0, &item, 1, SECOND / 100, &count));
        if (count == 1) {
            CHECK(item.type == TRUNK_ITEM_DATA && item.size == 4 * (1 + received * 37 % 5000));
            CHECK(memcmp(item.data, &received, sizeof received) == 0);
            received++;
            release(&item);
        }
        OK(trunk_recv_many(p.client, 0, &item, 1, TRUNK_WAIT_NOT, &count));
        if (count == 1) {
            CHECK(item.type == TRUNK_ITEM_WRITABLE && item.channel == ends.at_client);
            release(&item);
        }
    }
    CHECK(refused > 0);
    end_pair(&p);
}

/* More than all receive buffers wait for the application. Nothing is lost when it takes them. */
static void everything_is_kept(void) {
    enum { MOST = 500 };
    static trunk_item items[MOST];
    static char bytes[9000];
    pair p;
    configure = with_short_queues;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "k");
    size_t sent = 0, kept = 0;
    int64_t quiet = now_ns();
    while (now_ns() - quiet < SECOND / 2 && kept < MOST) {
        size_t count;
        bytes[0] = (char)sent;
        sent += trunk_send(p.client, ends.at_client, bytes, sizeof bytes) == TRUNK_OK;
        OK(trunk_recv_many(p.host.engine, 0, &items[kept], 1, SECOND / 1000, &count));
        if (count == 1) {
            kept++;
            quiet = now_ns();
        }
    }
    for (size_t i = 0; i < kept; i++) {
        CHECK(items[i].type == TRUNK_ITEM_DATA && items[i].size == sizeof bytes);
        CHECK(items[i].data[0] == (uint8_t)i);
        release(&items[i]);
    }
    while (kept < sent) {
        trunk_item item = expect(p.host.engine, TRUNK_ITEM_DATA);
        CHECK(item.data[0] == (uint8_t)kept);
        kept++;
        release(&item);
    }
    end_pair(&p);
}

static void with_few_connections(trunk_engine_config *config) {
    static trunk_connection_config connection;
    connection_init(&connection);
    connection.max_channels = 3;
    connection.fin_wait_timeout_ns = SECOND / 20;
    config->connection = &connection;
    config->max_connections = 4;
}

static void limits_of_numbers(void) {
    pair p;
    trunk_conn conns[8];
    configure = with_few_connections;
    new_pair(&p, 0);
    size_t made = 0;
    while (made < 8 && try_connect(&p.host, p.client, forced, &conns[made]) == TRUNK_OK) {
        made++;
    }
    CHECK(made >= 3 && made < 8 && "with the first there are four");
    GIVES(TRUNK_ERR_LIMIT, try_connect(&p.host, p.client, forced, &conns[made]));
    /* Some may have been taken that the shard has no room for. */
    for (size_t i = 3; i < made; i++) {
        trunk_item item = expect(p.client, TRUNK_ITEM_STATUS);
        CHECK(item.detail.status->reason == TRUNK_REASON_LOCAL_LIMIT);
        release(&item);
    }
    for (size_t i = 0; i < made; i++) {
        OK(trunk_close(p.client, conns[i], 0, NULL, TRUNK_LINGER_NONE));
    }
    for (size_t i = 0; i < made; i++) {
        skip(p.client, TRUNK_ITEM_DEAD);
    }

    /* The peer declines what is too much; the other channels go on. */
    trunk_channel channels[4];
    for (size_t i = 0; i < 4; i++) {
        OK(trunk_channel_open(p.client, p.at_client, "c", NULL, &channels[i]));
    }
    size_t ready = 0, closed = 0;
    while (ready + closed < 4) {
        trunk_item item;
        size_t count;
        OK(trunk_recv_many(p.host.engine, 0, &item, 1, SECOND / 100, &count));
        if (count == 1) {
            if (item.type == TRUNK_ITEM_REQUEST) {
                OK(trunk_channel_accept(p.host.engine, item.channel, NULL));
            }
            release(&item);
        }
        OK(trunk_recv_many(p.client, 0, &item, 1, SECOND / 100, &count));
        if (count == 1) {
            ready += item.type == TRUNK_ITEM_READY;
            closed += item.type == TRUNK_ITEM_CLOSED;
            release(&item);
        }
    }
    CHECK(ready == 3 && closed == 1);

    trunk_group group;
    for (int i = 0; i < 1023; i++) {
        OK(trunk_group_new(p.client, &group));
    }
    GIVES(TRUNK_ERR_LIMIT, trunk_group_new(p.client, &group));
    end_pair(&p);
}

/* Without descriptors no engine is made, nothing is lost, and later everything works again. */
static void no_descriptors_left(void) {
    struct rlimit limit, none;
    int before = descriptors();
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int spare = 0; spare < 12; spare++) {
        trunk_engine *engine = NULL;
        trunk_engine_config config;
        engine_init(&config);
        none = limit;
        none.rlim_cur = (rlim_t)(before + spare);
        CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
        trunk_result result = trunk_engine_new(&config, &engine);
        if (result == TRUNK_OK) {
            host h;
            h.engine = engine;
            trunk_identity identity;
            trunk_listen_config listen;
            OK(trunk_identity_generate(NULL, h.pem, sizeof h.pem, NULL));
            OK(trunk_identity_init(&identity));
            identity.pem = h.pem;
            identity.pem_size = strlen(h.pem);
            OK(trunk_listen_config_init(&listen));
            listen.address = "127.0.0.1:0";
            listen.identity = &identity;
            result = trunk_listen(engine, &listen, &h.listener);
            CHECK(result == TRUNK_OK || result == TRUNK_ERR_SYSTEM);
        } else {
            CHECK(result == TRUNK_ERR_SYSTEM || result == TRUNK_ERR_DRIVER);
            CHECK(engine == NULL);
        }
        OK(trunk_engine_destroy(engine));
        CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        CHECK(descriptors() == before);
    }
    pair p;
    new_pair(&p, 0);
    end_pair(&p);
}

/* ---- many threads, and everything at once ---- */

enum { CALLERS = 3 };

static subject shared;
static int is_over;
static pthread_mutex_t over_lock = PTHREAD_MUTEX_INITIALIZER;

static int over(int set) {
    pthread_mutex_lock(&over_lock);
    is_over |= set;
    int is = is_over;
    pthread_mutex_unlock(&over_lock);
    return is;
}

/* Accepts whatever comes and gives all items back. */
static void *serve(void *unused) {
    (void)unused;
    trunk_engine *engine = shared.p.host.engine;
    while (!over(0)) {
        trunk_item items[32];
        size_t count;
        OK(trunk_recv_many(engine, 0, items, 32, SECOND / 100, &count));
        for (size_t i = 0; i < count; i++) {
            if (items[i].type == TRUNK_ITEM_INCOMING) {
                trunk_accept(engine, items[i].conn);
            } else if (items[i].type == TRUNK_ITEM_REQUEST) {
                trunk_channel_accept(engine, items[i].channel, NULL);
            }
        }
        OK(trunk_message_release(items, count));
    }
    return NULL;
}

static uint32_t next_random(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

/* Calls one function after the other with arguments that were valid a moment ago. */
static void *call_everything(void *at) {
    uint64_t state = *(const uint64_t *)at;
    subject *own = malloc(sizeof *own);
    CHECK(own != NULL);
    *own = shared;
    memset(&own->buf, 0, sizeof own->buf);
    OK(trunk_group_new(own->p.host.engine, &own->group));
    int calls = is_checked() ? 500 : 2000;
    for (int i = 0; i < calls; i++) {
        const function *f = &functions[next_random(&state) % COUNT(functions)];
        uint64_t a[MOST_PARAMS];
        if (is(f->name, "trunk_engine_destroy") || is(f->name, "trunk_shutdown")) {
            continue;
        }
        if (i % 10 == 0) {
            /* To oneself, and a channel on it. */
            try_connect(&own->p.host, own->p.host.engine, forced, &own->p.at_host);
            trunk_channel_open(own->p.host.engine, own->p.at_host, "c", NULL,
                               &own->ends.at_host);
            own->outgoing.channel = own->ends.at_host;
        }
        arguments(own, f, a);
        trunk_result result = invoke(f, a, "among many");
        if (result == TRUNK_OK && is(f->name, "trunk_listen")) {
            OK(trunk_listener_close(own->p.host.engine, own->stores[2][0], 0));
        }
        tidy(own);
        if (i % 10 == 9) {
            trunk_close(own->p.host.engine, own->p.at_host, 0, NULL, TRUNK_LINGER_NONE);
        }
    }
    OK(trunk_buf_free(&own->buf));
    free(own);
    return NULL;
}

static void everything_at_once(void) {
    pthread_t server, callers[CALLERS];
    static const uint64_t seeds[CALLERS] = {1, 2, 3};
    begin(&shared, 0);
    shared.outgoing.channel = 0;
    CHECK(pthread_create(&server, NULL, serve, NULL) == 0);
    for (size_t i = 0; i < CALLERS; i++) {
        CHECK(pthread_create(&callers[i], NULL, call_everything,
                             (void *)(uintptr_t)&seeds[i]) == 0);
    }
    for (size_t i = 0; i < CALLERS; i++) {
        CHECK(pthread_join(callers[i], NULL) == 0);
    }
    over(1);
    CHECK(pthread_join(server, NULL) == 0);
    end(&shared);
    conclude();
}

static const test tests[] = {
    {"nothing_grows", nothing_grows},
    {"nothing_grows_without_threads", nothing_grows_without_threads},
    {"nothing_grows_in_an_engine", nothing_grows_in_an_engine},
    {"no_threads_without_threads", no_threads_without_threads},
    {"destroyed_by_another_thread", destroyed_by_another_thread},
    {"send_buffers_come_back", send_buffers_come_back},
    {"a_refused_buffer_stays", a_refused_buffer_stays},
    {"short_queues", short_queues},
    {"everything_is_kept", everything_is_kept},
    {"limits_of_numbers", limits_of_numbers},
    {"no_descriptors_left", no_descriptors_left},
    {"everything_at_once", everything_at_once},
};
MAIN(tests)
