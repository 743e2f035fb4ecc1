/* Every function of the interface inside every callback. */
#include "interface.h"

static subject s;

/* A call that waits for a callback to make it. */
static struct {
    pthread_mutex_t lock;
    enum { NOTHING, WANTED, RUNNING, DONE } state;
    enum { BY_ENGINE, BY_POLL, BY_CALL } by; /* whose thread it is, and inside of what */
    pthread_t main;
    const function *f;
    uint64_t a[MOST_PARAMS];
    trunk_result result;
    int64_t took_ns;
} inside = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int inside_state(void) {
    pthread_mutex_lock(&inside.lock);
    int state = inside.state;
    pthread_mutex_unlock(&inside.lock);
    return state;
}

static int is_on_right_thread(void) {
    int is_main = pthread_equal(inside.main, pthread_self()) != 0;
    return is_main == (inside.by != BY_ENGINE);
}

/* In every callback: makes the call that is wanted. */
static void call_inside_if(int is_right) {
    pthread_mutex_lock(&inside.lock);
    if (inside.state == WANTED && is_right) {
        inside.state = RUNNING;
        pthread_mutex_unlock(&inside.lock);
        int64_t start = now_ns();
        trunk_result result = invoke(inside.f, inside.a, "inside a callback");
        pthread_mutex_lock(&inside.lock);
        inside.result = result;
        inside.took_ns = now_ns() - start;
        inside.state = DONE;
    }
    pthread_mutex_unlock(&inside.lock);
}

static void call_inside(void) { call_inside_if(is_on_right_thread()); }

static void call_inside_log(void *user, trunk_log_level level, const char *target,
                            const char *text) {
    (void)user, (void)level, (void)target, (void)text;
    call_inside();
}

static void call_inside_security(void *user, const trunk_security_query *query,
                                 trunk_security_choice *choice) {
    (void)user, (void)query, (void)choice;
    call_inside();
}

static void call_inside_data(void *user, trunk_channel channel, void *channel_user,
                             trunk_kind kind, const uint8_t *data, size_t size) {
    (void)user, (void)channel, (void)channel_user, (void)kind, (void)data, (void)size;
    call_inside();
}

static void call_inside_item(void *user, const trunk_item *item) {
    (void)user, (void)item;
    call_inside();
}

static void call_inside_release(void *user, const void *data, size_t size) {
    (void)user, (void)data, (void)size;
    call_inside_if(1); /* comes on ours, too, if the shard was quicker */
}

static void with_log_that_calls(trunk_engine_config *config) {
    hurry(config);
    config->log = call_inside_log;
    config->log_level = TRUNK_LOG_TRACE;
}

static void with_security_that_calls(trunk_engine_config *config) {
    hurry(config);
    config->security = call_inside_security;
}

/* Has the log say something. */
static void provoke_log(void) {
    trunk_conn conn;
    trunk_listener listener;
    trunk_listen_config config;
    if (inside.by == BY_CALL) {
        OK(trunk_listen_config_init(&config));
        fill(&s, "trunk_listen_config", &config);
        OK(trunk_listen(s.p.host.engine, &config, &listener));
    } else {
        OK(try_connect(&s.p.host, s.p.client, forced, &conn));
    }
}

/* Connects the engine to itself: it asks when the connection begins, and its shard asks again. */
static void provoke_security(void) {
    trunk_conn conn;
    OK(try_connect(&s.p.host, s.p.host.engine, forced, &conn));
}

/* The connection's group calls from now on. */
static void call_with(trunk_data_fn on_data, trunk_item_fn on_item) {
    trunk_group group;
    trunk_callbacks config;
    OK(trunk_callbacks_init(&config));
    config.on_data = on_data;
    config.on_item = on_item;
    OK(trunk_group_new_callbacks(s.p.host.engine, &config, &group));
    OK(trunk_conn_set_group(s.p.host.engine, s.p.at_host, group));
}

/* Drives a thread-less host with calls that wait for its shard, until one of them has called. */
static void drive_by_calls(void) {
    int64_t start = now_ns();
    trunk_conn_info info;
    OK(trunk_conn_info_init(&info));
    while (inside.by == BY_CALL && inside_state() != DONE) {
        OK(trunk_engine_poll(s.p.client, SECOND / 1000, NULL));
        trunk_conn_get_info(s.p.host.engine, s.p.at_host, &info);
        CHECK(now_ns() - start < 20 * SECOND && "a callback comes inside a call");
    }
}

static void provoke_data(void) {
    call_with(call_inside_data, stub_trunk_item_fn);
    OK(trunk_send(s.p.client, s.ends.at_client, "x", 1));
    drive_by_calls();
}

static void provoke_item(void) {
    trunk_channel channel;
    call_with(stub_trunk_data_fn, call_inside_item);
    OK(trunk_channel_open(s.p.client, s.p.at_client, "asked for", NULL, &channel));
    drive_by_calls();
}

/* The peer acknowledges memory of ours. */
static void provoke_release(void) {
    static const char memory[64 << 10];
    OK(trunk_send_external(s.p.host.engine, s.ends.at_host, memory, sizeof memory,
                           call_inside_release, NULL, 0));
    drive_by_calls();
}

/* Which callbacks there are, and how they are made to come. A new one belongs here. */
static const struct {
    const char *type;
    void (*set)(trunk_engine_config *);
    void (*provoke)(void);
    int is_of_shard; /* told by the shard, which answers meanwhile; otherwise it waits, too */
} callers[] = {
    {"trunk_log_fn", with_log_that_calls, provoke_log, 0},
    {"trunk_security_fn", with_security_that_calls, provoke_security, 0},
    {"trunk_data_fn", hurry, provoke_data, 1},
    {"trunk_item_fn", hurry, provoke_item, 1},
    {"trunk_release_fn", hurry, provoke_release, 1},
};

static void call_each_inside(size_t k, int threadless, int by) {
    inside.main = pthread_self();
    inside.by = by;
    configure = callers[k].set;
    begin(&s, threadless);
    for EACH_FUNCTION (f) {
        arguments(&s, f, inside.a);
        inside.f = f;
        pthread_mutex_lock(&inside.lock);
        inside.state = WANTED;
        pthread_mutex_unlock(&inside.lock);
        callers[k].provoke();
        int64_t start = now_ns();
        while (inside_state() != DONE) {
            if (now_ns() - start > 20 * SECOND) {
                COMPLAIN("%s inside %s: the callback does not come, or its call does not return", f->name,
                         callers[k].type);
                conclude();
            }
            drive();
        }
        int is_refused = inside.result == TRUNK_ERR_IN_CALLBACK;
        int is_to_be = documents(f, TRUNK_ERR_IN_CALLBACK) &&
                       expects(&s, f) != TRUNK_ERR_NOT_THREADLESS;
        if (!callers[k].is_of_shard && is_refused != is_to_be) {
            COMPLAIN("%s inside %s: %s", f->name, callers[k].type,
                     trunk_result_str(inside.result));
        }
        if (inside.took_ns > SECOND / 2) {
            COMPLAIN("%s inside %s takes %lld ms", f->name, callers[k].type,
                     (long long)(inside.took_ns / 1000000));
        }
        renew(&s);
    }
    end(&s);
    conclude();
}

static void inside_callbacks_of(const char *type) {
    size_t k = 0;
    while (!is(callers[k].type, type)) {
        k++;
    }
    call_each_inside(k, 0, BY_ENGINE);
    if (!callers[k].is_of_shard) {
        call_each_inside(k, 0, BY_CALL);
    }
    call_each_inside(k, 1, BY_CALL);
    call_each_inside(k, 1, BY_POLL);
}

static void inside_log(void) { inside_callbacks_of("trunk_log_fn"); }
static void inside_security(void) { inside_callbacks_of("trunk_security_fn"); }
static void inside_data(void) { inside_callbacks_of("trunk_data_fn"); }
static void inside_item(void) { inside_callbacks_of("trunk_item_fn"); }

static void inside_release(void) { inside_callbacks_of("trunk_release_fn"); }

static void inside_all_callbacks(void) {
    for (size_t i = 0; i < COUNT(callbacks); i++) {
        size_t k = 0;
        while (k < COUNT(callers) && !is(callers[k].type, callbacks[i].name)) {
            k++;
        }
        if (k == COUNT(callers)) {
            COMPLAIN("nothing is tried inside %s", callbacks[i].name);
        }
    }
    conclude();
}

static const test tests[] = {
    {"inside_log", inside_log},
    {"inside_security", inside_security},
    {"inside_data", inside_data},
    {"inside_item", inside_item},
    {"inside_release", inside_release},
    {"inside_all_callbacks", inside_all_callbacks},
};
MAIN(tests)
