/* Discoveries and announcers in the hands of several threads and processes, and used wrongly. */
#include "presence.h"

#include <stddef.h>
#include <sys/wait.h>

#define HANDLE UINT64_C(0x1234567812345679)

/* ---- threads ---- */

static void *poll_until_woken(void *discovery) {
    trunk_discovery_event event;
    size_t count = 9;
    OK(trunk_discovery_poll(*(trunk_discovery *)discovery, &event, 1, TRUNK_WAIT_FOREVER, &count));
    CHECK(count == 0);
    return NULL;
}

static void *poll_until_closed(void *argument) {
    trunk_discovery discovery = *(trunk_discovery *)argument;
    trunk_discovery_event event;
    size_t count = 9;
    GIVES(TRUNK_ERR_INVALID_HANDLE,
          trunk_discovery_poll(discovery, &event, 1, TRUNK_WAIT_FOREVER, &count));
    CHECK(count == 0);
    return NULL;
}

/* Waits until another thread is inside. */
static void until_busy(trunk_discovery discovery) {
    trunk_presence_state state;
    int64_t deadline = now_ns() + patience();
    trunk_result result;
    do {
        CHECK(now_ns() < deadline);
        result = trunk_discovery_state(discovery, &state);
    } while (result == TRUNK_OK);
    CHECK(result == TRUNK_ERR_WOULD_BLOCK);
}

static void busy_while_another_polls(void) {
    pthread_t thread;
    uint16_t port = free_port();
    trunk_discovery discovery = discover(port, NULL);
    CHECK(pthread_create(&thread, NULL, poll_until_woken, &discovery) == 0);
    until_busy(discovery);
    CHECK(strstr(trunk_last_error(), "another thread") != NULL);
    size_t count;
    int32_t fd;
    int64_t timeout;
    trunk_presence_state state;
    trunk_discovery_event event;
    trunk_discovery_counts counts;
    OK(trunk_discovery_counts_init(&counts));
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_discovery_poll(discovery, &event, 1, 0, &count));
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_discovery_fd(discovery, &fd));
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_discovery_next_timeout_ns(discovery, &timeout));
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_discovery_devices(discovery, NULL, 0, &count));
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_discovery_session(discovery, NULL, &state));
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_discovery_get_counts(discovery, &counts));
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_discovery_problems(discovery, NULL, 0, &count));
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_discovery_network_changed(discovery));
    OK(trunk_discovery_wake(discovery));
    join(thread);
    OK(trunk_discovery_state(discovery, &state));
    /* A wake that comes too early counts for the next poll. */
    OK(trunk_discovery_wake(discovery));
    poll_until_woken(&discovery);
    OK(trunk_discovery_close(discovery));

    trunk_announcer announcer = announce(port, 1, NULL);
    thread = answer_elsewhere(&announcer);
    trunk_result result;
    while ((result = trunk_announcer_state(announcer, &state)) == TRUNK_OK) {
    }
    CHECK(result == TRUNK_ERR_WOULD_BLOCK);
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_announcer_poll(announcer, 0));
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_announcer_withdraw(announcer));
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_announcer_addresses(announcer, NULL, 0, &count));
    GIVES(TRUNK_ERR_WOULD_BLOCK, trunk_announcer_problems(announcer, NULL, 0, &count));
    /* Between two polls of that thread there is a moment for others. */
    do {
        OK(trunk_announcer_wake(announcer));
        result = trunk_announcer_network_changed(announcer);
    } while (result == TRUNK_ERR_WOULD_BLOCK);
    CHECK(result == TRUNK_OK);
    OK(trunk_announcer_close(announcer));
    join(thread);
}

static void closed_while_another_polls(void) {
    uint16_t port = free_port();
    for (int round = 0; round < 20; round++) {
        pthread_t thread;
        trunk_discovery discovery = discover(port, NULL);
        CHECK(pthread_create(&thread, NULL, poll_until_closed, &discovery) == 0);
        if (round % 2 == 0) {
            until_busy(discovery);
        }
        int64_t start = now_ns();
        OK(trunk_discovery_close(discovery));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_discovery_wake(discovery));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_discovery_close(discovery));
        join(thread);
        CHECK(now_ns() - start < 10 * SECOND);
    }
    /* Those who asked are told, although the thread that polls has to do it. */
    trunk_announcer announcer = announce(port, 1, NULL);
    pthread_t thread = answer_elsewhere(&announcer);
    trunk_discovery discovery = discover(port, NULL);
    until(discovery, TRUNK_DISCOVERY_FOUND);
    OK(trunk_announcer_close(announcer));
    join(thread);
    until(discovery, TRUNK_DISCOVERY_LOST);
    OK(trunk_discovery_close(discovery));
}

#define SHARED 3

typedef struct shared {
    pthread_mutex_t lock;
    uint16_t port;
    int over;
    uint64_t discoveries[SHARED], announcers[SHARED];
} shared;

static void harmless(trunk_result result) {
    CHECK(result == TRUNK_OK || result == TRUNK_ERR_WOULD_BLOCK ||
          result == TRUNK_ERR_INVALID_HANDLE);
}

static uint64_t one_of(shared *all, const uint64_t *handles, unsigned random) {
    pthread_mutex_lock(&all->lock);
    uint64_t handle = handles[random % SHARED];
    pthread_mutex_unlock(&all->lock);
    return handle;
}

static void *do_anything(void *argument) {
    shared *all = argument;
    unsigned random = (unsigned)(uintptr_t)&random;
    for (;;) {
        size_t count;
        trunk_discovery_event events[2];
        trunk_device device;
        trunk_presence_state state;
        random = random * 1664525u + 1013904223u;
        pthread_mutex_lock(&all->lock);
        int over = all->over;
        pthread_mutex_unlock(&all->lock);
        if (over) {
            return NULL;
        }
        uint64_t d = one_of(all, all->discoveries, random >> 8);
        uint64_t a = one_of(all, all->announcers, random >> 8);
        switch (random >> 16 & 7) {
        case 0:
            harmless(trunk_discovery_poll(d, events, 2, SECOND / 100, &count));
            break;
        case 1:
            harmless(trunk_announcer_poll(a, SECOND / 100));
            break;
        case 2:
            harmless(trunk_discovery_devices(d, &device, 1, &count));
            break;
        case 3:
            harmless(trunk_announcer_state(a, &state));
            break;
        case 4:
            harmless(trunk_discovery_wake(d));
            harmless(trunk_announcer_wake(a));
            break;
        case 5:
            harmless(trunk_discovery_network_changed(d));
            break;
        case 6:
            harmless(trunk_discovery_close(d));
            break;
        default:
            harmless(trunk_announcer_close(a));
            break;
        }
    }
}

static void many_threads(void) {
    static shared all = {PTHREAD_MUTEX_INITIALIZER, 0, 0, {0}, {0}};
    pthread_t threads[4];
    all.port = free_port();
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        CHECK(pthread_create(&threads[i], NULL, do_anything, &all) == 0);
    }
    int64_t end = now_ns() + 2 * SECOND;
    for (unsigned i = 0; now_ns() < end; i++) {
        uint64_t d = discover(all.port, NULL), a = announce(all.port, (uint8_t)(i % 9 + 1), NULL);
        pthread_mutex_lock(&all.lock);
        uint64_t old_d = all.discoveries[i % SHARED], old_a = all.announcers[i % SHARED];
        all.discoveries[i % SHARED] = d;
        all.announcers[i % SHARED] = a;
        pthread_mutex_unlock(&all.lock);
        harmless(trunk_discovery_close(old_d));
        harmless(trunk_announcer_close(old_a));
        pause_ms(2);
    }
    pthread_mutex_lock(&all.lock);
    all.over = 1;
    pthread_mutex_unlock(&all.lock);
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        join(threads[i]);
    }
}

/* ---- what is wrong ---- */

static void null_pointers(void) {
    uint16_t port = free_port();
    uint64_t h;
    size_t count;
    trunk_device device;
    trunk_discovery_config config;
    trunk_announcer_config announce_config;
    trunk_discovery d = discover(port, NULL);
    trunk_announcer a = announce(port, 1, NULL);
    OK(trunk_discovery_config_init(&config));
    OK(trunk_announcer_config_init(&announce_config));
    GIVES(TRUNK_ERR_NULL, trunk_interfaces_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_config_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_counts_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcement_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_config_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_info_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_counts_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_start(&config, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_find(&config, 0, &device, 1, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_find(&config, 0, NULL, 1, &count));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_poll(d, NULL, 1, 0, &count));
    CHECK(count == 0);
    trunk_discovery_event event;
    GIVES(TRUNK_ERR_NULL, trunk_discovery_poll(d, &event, 1, 0, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_fd(d, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_next_timeout_ns(d, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_devices(d, NULL, 1, &count));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_devices(d, &device, 1, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_state(d, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_session(d, NULL, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_get_counts(d, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_problems(d, NULL, 1, &count));
    GIVES(TRUNK_ERR_NULL, trunk_discovery_problems(d, NULL, 0, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_start(NULL, &h));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_start(&announce_config, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_fd(a, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_next_timeout_ns(a, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_announce(a, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_state(a, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_get_info(a, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_get_counts(a, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_addresses(a, NULL, 1, &count));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_addresses(a, NULL, 0, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_announcer_problems(a, NULL, 1, &count));
    OK(trunk_discovery_close(d));
    OK(trunk_announcer_close(a));
    /* The defaults look on all interfaces of this machine. */
    OK(trunk_discovery_start(NULL, &h));
    OK(trunk_discovery_problems(h, NULL, 0, &count));
    OK(trunk_discovery_close(h));
    OK(trunk_discovery_find(NULL, 0, NULL, 0, &count));
}

/* Every function with a handle that names no discovery and no announcer of this process. */
static void all_give(trunk_result expected, uint64_t d, uint64_t a) {
    size_t count;
    int32_t fd;
    int64_t timeout;
    trunk_presence_state state;
    trunk_discovery_event event;
    trunk_discovery_counts counts;
    trunk_announcer_counts answered;
    trunk_announcer_info info;
    trunk_announcement told;
    OK(trunk_discovery_counts_init(&counts));
    OK(trunk_announcer_counts_init(&answered));
    OK(trunk_announcer_info_init(&info));
    OK(trunk_announcement_init(&told));
    GIVES(expected, trunk_discovery_poll(d, &event, 1, 0, &count));
    GIVES(expected, trunk_discovery_fd(d, &fd));
    GIVES(expected, trunk_discovery_next_timeout_ns(d, &timeout));
    GIVES(expected, trunk_discovery_wake(d));
    GIVES(expected, trunk_discovery_devices(d, NULL, 0, &count));
    GIVES(expected, trunk_discovery_state(d, &state));
    GIVES(expected, trunk_discovery_session(d, NULL, &state));
    GIVES(expected, trunk_discovery_get_counts(d, &counts));
    GIVES(expected, trunk_discovery_problems(d, NULL, 0, &count));
    GIVES(expected, trunk_discovery_network_changed(d));
    GIVES(expected, trunk_announcer_poll(a, 0));
    GIVES(expected, trunk_announcer_fd(a, &fd));
    GIVES(expected, trunk_announcer_next_timeout_ns(a, &timeout));
    GIVES(expected, trunk_announcer_wake(a));
    GIVES(expected, trunk_announcer_announce(a, &told));
    GIVES(expected, trunk_announcer_withdraw(a));
    GIVES(expected, trunk_announcer_state(a, &state));
    GIVES(expected, trunk_announcer_get_info(a, &info));
    GIVES(expected, trunk_announcer_get_counts(a, &answered));
    GIVES(expected, trunk_announcer_addresses(a, NULL, 0, &count));
    GIVES(expected, trunk_announcer_problems(a, NULL, 0, &count));
    GIVES(expected, trunk_announcer_network_changed(a));
    GIVES(expected, trunk_discovery_close(d));
    GIVES(expected, trunk_announcer_close(a));
}

static void wrong_handles(void) {
    uint16_t port = free_port();
    trunk_presence_state state;
    host h;
    host_listen(&h, engine_with(0));
    trunk_discovery d = discover(port, NULL), stale_d = discover(port, NULL);
    trunk_announcer a = announce(port, 1, NULL), stale_a = announce(port, 1, NULL);
    CHECK(d != stale_d && a != stale_a && d != a);
    OK(trunk_discovery_close(stale_d));
    OK(trunk_announcer_close(stale_a));
    all_give(TRUNK_ERR_INVALID_HANDLE, stale_d, stale_a);
    all_give(TRUNK_ERR_INVALID_HANDLE, a, d);
    uint64_t wrong[] = {0, 1, HANDLE, UINT64_MAX, h.listener, d ^ 1, d + 2, d ^ UINT64_C(1) << 40};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (i + 1 < sizeof wrong / sizeof *wrong) {
            all_give(TRUNK_ERR_INVALID_HANDLE, wrong[i], wrong[i]);
        } else {
            CHECK(trunk_discovery_state(wrong[i], &state) < 0);
        }
    }
    OK(trunk_discovery_state(d, &state));
    OK(trunk_announcer_state(a, &state));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_listener_close(h.engine, a, 0));
    OK(trunk_discovery_close(d));
    OK(trunk_announcer_close(a));
    OK(trunk_engine_destroy(h.engine));
}

static trunk_result try_discovery(void (*change)(trunk_discovery_config *)) {
    trunk_discovery discovery = 77;
    trunk_discovery_config config;
    basic(&config, free_port());
    change(&config);
    trunk_result result = trunk_discovery_start(&config, &discovery);
    CHECK(result < 0 && discovery == 77 && "nothing is stored on an error");
    size_t count = 77;
    CHECK(trunk_discovery_find(&config, 0, NULL, 0, &count) == result && count == 77);
    return result;
}

static void bad_service(trunk_discovery_config *c) { c->service = "a b"; }
static void bad_interval(trunk_discovery_config *c) { c->interval_ns = 1; }
static void bad_port(trunk_discovery_config *c) { c->port = 65536; }
static void no_target(trunk_discovery_config *c) { c->group = 0; }
static void bad_target(trunk_discovery_config *c) {
    static const char *target[] = {"localhost:7477"};
    c->targets = target;
    c->target_count = 1;
}
static void look_on(trunk_discovery_config *c, const char *const *name) {
    static trunk_interfaces one;
    OK(trunk_interfaces_init(&one));
    one.names = name;
    one.name_count = 1;
    c->interfaces = &one;
}
static void no_interface(trunk_discovery_config *c) {
    static const char *const name[] = {"no such"};
    look_on(c, name);
}
static void null_name(trunk_discovery_config *c) {
    static const char *const name[] = {NULL};
    look_on(c, name);
}

#define NAMES(word) CHECK(strstr(trunk_last_error(), word) != NULL)

static void wrong_settings(void) {
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, try_discovery(bad_service));
    NAMES("service");
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, try_discovery(bad_interval));
    NAMES("interval");
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, try_discovery(bad_port));
    NAMES("port");
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, try_discovery(no_target));
    NAMES("targets");
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, try_discovery(bad_target));
    NAMES("localhost:7477");
    GIVES(TRUNK_ERR_NULL, try_discovery(null_name));
    NAMES("names");
    GIVES(TRUNK_ERR_SYSTEM, try_discovery(no_interface));
    NAMES("no network interface");

    static const char *listen[] = {"127.0.0.1:7"};
    trunk_announcer announcer = 77;
    trunk_announcement told;
    trunk_announcer_config config;
    OK(trunk_announcement_init(&told));
    OK(trunk_announcer_config_init(&config));
    config.interfaces = loopback();
    config.listen = listen;
    config.listen_count = 1;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_announcer_start(&config, &announcer));
    NAMES("127.0.0.1:7");
    listen[0] = "127.0.0.1";
    GIVES(TRUNK_ERR_NULL, trunk_announcer_start(&config, &announcer));
    NAMES("announcement");
    config.announcement = &told;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_announcer_start(&config, &announcer));
    NAMES("peer");
    told.peer[0] = 1;
    told.port = 7000;
    GIVES(TRUNK_ERR_NULL, trunk_announcer_start(&config, &announcer));
    NAMES("name");
    told.name = "x";
    told.service = "x";
    told.links = 0;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_announcer_start(&config, &announcer));
    NAMES("links");
    told.links = 1;
    config.reach = 7;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_announcer_start(&config, &announcer));
    NAMES("reach");
    config.reach = TRUNK_REACH_LINK;
    listen[0] = "192.0.2.1";
    config.port = free_port();
    GIVES(TRUNK_ERR_SYSTEM, trunk_announcer_start(&config, &announcer));
    CHECK(announcer == 77);

    uint16_t port = free_port();
    size_t count;
    trunk_discovery d = discover(port, NULL);
    trunk_discovery_event event;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_discovery_poll(d, &event, 1, -2, &count));
    NAMES("timeout_ns");
    OK(trunk_discovery_close(d));
    trunk_announcer a = announce(port, 1, NULL);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_announcer_poll(a, -2));
    OK(trunk_announcer_close(a));
}

/* A program that was built when the structs had fewer, or more, fields. */
static void struct_sizes(void) {
    struct {
        trunk_discovery_config config;
        uint64_t more;
    } newer;
    trunk_discovery d;
    OK(trunk_discovery_config_init_sized(&newer.config, sizeof newer));
    CHECK(newer.config.struct_size == sizeof newer && newer.more == 0);
    CHECK(newer.config.group == 1 && newer.config.port == TRUNK_PRESENCE_PORT);
    newer.config.interfaces = loopback();
    newer.config.port = free_port();
    OK(trunk_discovery_start(&newer.config, &d));
    newer.more = 1;
    trunk_discovery none;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_discovery_start(&newer.config, &none));
    NAMES("trunk_discovery_config");
    struct {
        uint32_t struct_size, reserved;
        uint64_t asked, guard;
    } counts = {16, 7, 7, 7};
    OK(trunk_discovery_get_counts(d, (trunk_discovery_counts *)(void *)&counts));
    CHECK(counts.asked == 0 && counts.guard == 7 && counts.struct_size == 16);
    OK(trunk_discovery_close(d));
    trunk_announcer_config empty;
    trunk_announcer a;
    memset(&empty, 0, sizeof empty);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_announcer_start(&empty, &a));
    NAMES("struct_size");
}

static void problems_are_told(void) {
    static const char *listen[] = {"127.0.0.1"};
    uint16_t port;
    int fd = take_port(&port); /* by somebody who does not share it */
    trunk_announcer announcer;
    trunk_announcement told;
    trunk_announcer_config config;
    OK(trunk_announcement_init(&told));
    OK(trunk_announcer_config_init(&config));
    told.name = told.service = "x";
    told.peer[0] = 1;
    told.port = 7000;
    config.announcement = &told;
    config.port = port;
    config.listen = listen;
    config.listen_count = 1;
    config.interfaces = loopback();
    trunk_result result = trunk_announcer_start(&config, &announcer);
    if (result == TRUNK_OK) {
        /* The group's socket could be had. */
        trunk_presence_problem problems[4];
        size_t count;
        memset(problems, 0xee, sizeof problems);
        OK(trunk_announcer_problems(announcer, problems, 4, &count));
        CHECK(count == 1 && problems[0].kind == TRUNK_PROBLEM_ADDRESS_IN_USE);
        CHECK(strcmp(problems[0].interface_name, loopback()->names[0]) == 0);
        CHECK(strcmp(problems[0].address, "127.0.0.1") == 0);
        CHECK(strstr(problems[0].doing, "bind 127.0.0.1:") != NULL && problems[0].error[0] != 0);
        OK(trunk_announcer_problems(announcer, NULL, 0, &count));
        CHECK(count == 1);
        OK(trunk_announcer_close(announcer));
    } else {
        CHECK(result == TRUNK_ERR_SYSTEM);
        NAMES("bind 127.0.0.1:");
    }
    close(fd);
}

/* ---- forks ---- */

static void wait_for(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void forked(void) {
    uint16_t port = free_port();
    trunk_announcer announcer = announce(port, 1, NULL);
    pthread_t thread = answer_elsewhere(&announcer);
    trunk_discovery discovery = discover(port, NULL);
    until(discovery, TRUNK_DISCOVERY_FOUND);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        size_t count;
        trunk_device device;
        trunk_discovery_config config;
        all_give(TRUNK_ERR_FORKED, discovery, announcer);
        /* Its own ones work, with each other and with the parent's. */
        trunk_announcer own = announce(port, 2, NULL);
        trunk_discovery seeks = discover(port, NULL);
        answering[0] = own;
        unsigned seen = 0;
        while (seen != 6) {
            seen |= 1u << until(seeks, TRUNK_DISCOVERY_FOUND).device.peer[0];
        }
        OK(trunk_discovery_close(seeks));
        OK(trunk_announcer_close(own));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_announcer_close(own));
        basic(&config, port);
        OK(trunk_discovery_find(&config, SECOND, &device, 1, &count));
        CHECK(count == 1 && device.peer[0] == 1);
        exit(0); /* with destructors, as a program would */
    }
    wait_for(child);
    /* The parent goes on: its device is still there, and the child has said no goodbye for it. */
    size_t count;
    trunk_device device;
    OK(trunk_discovery_poll(discovery, NULL, 0, SECOND / 20, &count));
    OK(trunk_discovery_devices(discovery, &device, 1, &count));
    CHECK(count >= 1 && device.peer[0] == 1);
    OK(trunk_announcer_close(announcer));
    join(thread);
    OK(trunk_discovery_close(discovery));
}

static void *start_and_close(void *argument) {
    shared *all = argument;
    int over = 0;
    while (!over) {
        trunk_presence_state state;
        trunk_discovery d = discover(all->port, NULL);
        OK(trunk_discovery_state(d, &state));
        OK(trunk_discovery_close(d));
        pthread_mutex_lock(&all->lock);
        over = all->over;
        pthread_mutex_unlock(&all->lock);
    }
    return NULL;
}

/* A child is not held up by what other threads were doing when it was made. */
static void forked_while_in_use(void) {
    static shared all = {PTHREAD_MUTEX_INITIALIZER, 0, 0, {0}, {0}};
    pthread_t threads[2];
    all.port = free_port();
    trunk_discovery discovery = discover(all.port, NULL);
    for (size_t i = 0; i < 2; i++) {
        CHECK(pthread_create(&threads[i], NULL, start_and_close, &all) == 0);
    }
    for (int round = 0; round < 50; round++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            trunk_presence_state state;
            alarm(20);
            GIVES(TRUNK_ERR_FORKED, trunk_discovery_state(discovery, &state));
            trunk_discovery own = discover(all.port, NULL);
            OK(trunk_discovery_state(own, &state));
            OK(trunk_discovery_close(own));
            _exit(0);
        }
        wait_for(child);
    }
    pthread_mutex_lock(&all.lock);
    all.over = 1;
    pthread_mutex_unlock(&all.lock);
    join(threads[0]);
    join(threads[1]);
    OK(trunk_discovery_close(discovery));
}

static const test tests[] = {
    {"busy_while_another_polls", busy_while_another_polls},
    {"closed_while_another_polls", closed_while_another_polls},
    {"many_threads", many_threads},
    {"null_pointers", null_pointers},
    {"wrong_handles", wrong_handles},
    {"wrong_settings", wrong_settings},
    {"struct_sizes", struct_sizes},
    {"problems_are_told", problems_are_told},
    {"forked", forked},
    {"forked_while_in_use", forked_while_in_use},
};
MAIN(tests)
