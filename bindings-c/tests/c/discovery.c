/* Devices find each other on the loopback interface, each test on a port of its own. */
#include "harness.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define HANDLE UINT64_C(0x1234567812345679)

/* ---- what the tests share ---- */

/* A socket on a free UDP port of 127.0.0.1, which it does not share. */
static int take_port(uint16_t *port) {
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static uint16_t free_port(void) {
    uint16_t port;
    close(take_port(&port));
    return port;
}

/* The loopback interface, over IPv4. */
static const trunk_interfaces *loopback(void) {
    static trunk_interfaces interfaces;
    static const char *names[1];
    names[0] = if_nametoindex("lo") != 0 ? "lo" : "lo0";
    OK(trunk_interfaces_init(&interfaces));
    CHECK(interfaces.loopback && interfaces.ipv4 && interfaces.ipv6);
    interfaces.names = names;
    interfaces.name_count = 1;
    interfaces.ipv6 = 0;
    return &interfaces;
}

typedef void change_announcer(trunk_announcer_config *, trunk_announcement *);
typedef void change_discovery(trunk_discovery_config *);

/* Announces "device n" with the port 7000 + n; `change` may alter it first. */
static trunk_announcer announce(uint16_t port, uint8_t n, change_announcer *change) {
    static const char *all[] = {"0.0.0.0"};
    char name[16];
    trunk_announcer announcer = 0;
    trunk_announcement told;
    trunk_announcer_config config;
    OK(trunk_announcement_init(&told));
    OK(trunk_announcer_config_init(&config));
    snprintf(name, sizeof name, "device %u", (unsigned)n);
    told.name = name;
    told.service = "test";
    memset(told.peer, n, sizeof told.peer);
    told.port = 7000u + n;
    config.announcement = &told;
    config.port = port;
    config.listen = all;
    config.listen_count = 1;
    config.interfaces = loopback();
    if (change != NULL) {
        change(&config, &told);
    }
    OK(trunk_announcer_start(&config, &announcer));
    CHECK(announcer != 0);
    return announcer;
}

static void configure(trunk_discovery_config *config, uint16_t port) {
    OK(trunk_discovery_config_init(config));
    config->port = port;
    config->interfaces = loopback();
}

static trunk_discovery discover(uint16_t port, change_discovery *change) {
    trunk_discovery discovery = 0;
    trunk_discovery_config config;
    configure(&config, port);
    if (change != NULL) {
        change(&config);
    }
    OK(trunk_discovery_start(&config, &discovery));
    CHECK(discovery != 0);
    return discovery;
}

static trunk_announcer answering[4]; /* announcers that waiting has to drive */

static void answer(void) {
    for (size_t i = 0; i < sizeof answering / sizeof *answering; i++) {
        if (answering[i] != 0) {
            OK(trunk_announcer_poll(answering[i], TRUNK_WAIT_NOT));
        }
    }
}

/* The next event of this type; what else is told meanwhile is passed over. */
static trunk_discovery_event until(trunk_discovery discovery, trunk_discovery_event_type type) {
    int64_t deadline = now_ns() + 20 * SECOND;
    for (;;) {
        trunk_discovery_event event;
        size_t count = 9;
        answer();
        OK(trunk_discovery_poll(discovery, &event, 1, SECOND / 500, &count));
        CHECK(count <= 1);
        if (count == 1 && event.type == type) {
            return event;
        }
        CHECK(now_ns() < deadline && "nothing more comes");
    }
}

static void pause_ms(long ms) {
    struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&wait, NULL);
}

/* Answers on a thread of its own until the announcer is closed. */
static void *answer_until_closed(void *announcer) {
    trunk_result result;
    do {
        result = trunk_announcer_poll(*(trunk_announcer *)announcer, TRUNK_WAIT_FOREVER);
    } while (result == TRUNK_OK);
    CHECK(result == TRUNK_ERR_INVALID_HANDLE);
    return NULL;
}

static pthread_t answer_elsewhere(trunk_announcer *announcer) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, answer_until_closed, announcer) == 0);
    return thread;
}

static void join(pthread_t thread) { CHECK(pthread_join(thread, NULL) == 0); }

/* ---- finding ---- */

static void as_a_console(trunk_announcer_config *config, trunk_announcement *told) {
    (void)config;
    told->name = "K\xc3\xbc" "che";
    told->device_type = TRUNK_DEVICE_TYPE_CONSOLE;
    told->mode = TRUNK_DEVICE_MODE_KNOWN;
    told->links = TRUNK_DEVICE_LINK_UDP | TRUNK_DEVICE_LINK_TLS;
}

static void found_changed_and_lost(void) {
    uint16_t port = free_port();
    trunk_presence_state state = 9;
    trunk_announcer announcer = answering[0] = announce(port, 1, as_a_console);
    trunk_discovery discovery = discover(port, NULL);
    OK(trunk_announcer_state(announcer, &state));
    CHECK(state == TRUNK_PRESENCE_WAITING_FOR_REQUEST);
    OK(trunk_discovery_state(discovery, &state));
    CHECK(state == TRUNK_PRESENCE_WAITING_FOR_RESPONSE);

    trunk_discovery_event event = until(discovery, TRUNK_DISCOVERY_FOUND);
    trunk_device *device = &event.device;
    CHECK(device->peer[0] == 1 && memcmp(device->peer, device->peer + 1, 31) == 0);
    CHECK(strcmp(device->name, "K\xc3\xbc" "che") == 0 && strcmp(device->service, "test") == 0);
    CHECK(strcmp(trunk_device_type_str(device->device_type), "console") == 0);
    CHECK(strcmp(trunk_device_mode_str(device->mode), "known") == 0);
    CHECK(device->links == (TRUNK_DEVICE_LINK_UDP | TRUNK_DEVICE_LINK_TLS));
    CHECK(device->port == 7001 && device->protocol != 0 && !device->id_proven);
    CHECK(device->state == TRUNK_PRESENCE_READY);
    CHECK(device->path_count == 1 && strcmp(device->paths[0].address, "127.0.0.1:7001") == 0);
    CHECK(device->paths[0].rtt_ns > 0 && device->paths[0].rtt_ns < (uint64_t)(10 * SECOND));
    CHECK(device->found_ns < (uint64_t)(10 * SECOND) && device->heard_ns <= device->found_ns);
    CHECK(device->ttl_ns > (uint64_t)(20 * SECOND) && device->ttl_ns <= (uint64_t)(35 * SECOND));
    CHECK(device->paths[1].address[0] == 0 && event.address[0] == 0);

    OK(trunk_announcer_state(announcer, &state));
    CHECK(state == TRUNK_PRESENCE_READY);
    OK(trunk_discovery_state(discovery, &state));
    CHECK(state == TRUNK_PRESENCE_READY);
    OK(trunk_discovery_session(discovery, NULL, &state));
    CHECK(state == TRUNK_PRESENCE_READY);
    OK(trunk_discovery_session(discovery, "127.0.0.1:1", &state));
    CHECK(state == TRUNK_PRESENCE_NONE && "nobody is asked there");
    trunk_discovery_counts counts;
    trunk_announcer_counts answered;
    OK(trunk_discovery_counts_init(&counts));
    OK(trunk_discovery_get_counts(discovery, &counts));
    CHECK(counts.asked >= 1 && counts.answers >= 1 && counts.malformed == 0);
    OK(trunk_announcer_counts_init(&answered));
    OK(trunk_announcer_get_counts(announcer, &answered));
    CHECK(answered.answered >= 1 && answered.sessions == 1 && answered.expired == 0);
    trunk_announcer_info info;
    OK(trunk_announcer_info_init(&info));
    OK(trunk_announcer_get_info(announcer, &info));
    CHECK(info.state == TRUNK_PRESENCE_READY && info.sessions == 1 && info.port == 7001);
    CHECK(strcmp(info.name, device->name) == 0 && strcmp(info.service, "test") == 0);
    CHECK(info.device_type == TRUNK_DEVICE_TYPE_CONSOLE && info.mode == TRUNK_DEVICE_MODE_KNOWN);
    CHECK(memcmp(info.peer, device->peer, sizeof info.peer) == 0 && info.links == 3);
    CHECK(!info.has_id && !info.local_only);
    trunk_presence_address hears[4];
    size_t count = 0;
    OK(trunk_announcer_addresses(announcer, hears, 4, &count));
    CHECK(count >= 1 && strcmp(hears[0].address, "127.0.0.1") == 0);
    CHECK(strcmp(hears[0].interface_name, loopback()->names[0]) == 0);

    /* Something else is told: heard with the next question. */
    trunk_announcement told;
    OK(trunk_announcement_init(&told));
    told.name = "Kitchen";
    told.service = "test";
    memset(told.peer, 1, sizeof told.peer);
    told.port = 7001;
    told.mode = 99;
    OK(trunk_announcer_announce(announcer, &told));
    OK(trunk_discovery_network_changed(discovery));
    OK(trunk_announcer_network_changed(announcer));
    event = until(discovery, TRUNK_DISCOVERY_CHANGED);
    CHECK(strcmp(device->name, "Kitchen") == 0 && device->mode == 99);
    CHECK(strcmp(trunk_device_mode_str(device->mode), "other") == 0);
    told.name = "a\nb";
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_announcer_announce(announcer, &told));
    OK(trunk_announcer_get_info(announcer, &info));
    CHECK(strcmp(info.name, "Kitchen") == 0 && "nothing changes after an error");

    /* It leaves and says so, which is faster than its heartbeat. */
    OK(trunk_announcer_withdraw(announcer));
    event = until(discovery, TRUNK_DISCOVERY_LOST);
    CHECK(device->state == TRUNK_PRESENCE_ENDED && device->peer[0] == 1 && device->port == 7001);
    CHECK(device->ttl_ns == 0 && device->path_count == 1);
    OK(trunk_announcer_state(announcer, &state));
    CHECK(state == TRUNK_PRESENCE_ENDED);
    OK(trunk_discovery_devices(discovery, NULL, 0, &count));
    CHECK(count == 0);
    OK(trunk_announcer_close(announcer));

    /* Closing says goodbye as well. */
    announcer = answering[0] = announce(port, 2, NULL);
    OK(trunk_discovery_network_changed(discovery));
    until(discovery, TRUNK_DISCOVERY_FOUND);
    answering[0] = 0;
    OK(trunk_announcer_close(announcer));
    event = until(discovery, TRUNK_DISCOVERY_LOST);
    CHECK(device->peer[0] == 2);
    OK(trunk_discovery_close(discovery));
}

static const char *target[1];

static void only_the_target(trunk_discovery_config *config) {
    config->group = 0;
    config->targets = target;
    config->target_count = 1;
    config->interval_ns = (uint64_t)SECOND / 2;
    config->heartbeat_ns = 2 * (uint64_t)SECOND;
}

static void asked_at_their_addresses(void) {
    char text[64];
    uint16_t port = free_port();
    trunk_presence_state state;
    answering[0] = announce(port, 1, NULL);
    snprintf(text, sizeof text, "127.0.0.1:%u", (unsigned)port);
    target[0] = text;
    trunk_discovery discovery = discover(port, only_the_target);
    OK(trunk_discovery_session(discovery, text, &state));
    CHECK(state == TRUNK_PRESENCE_WAITING_FOR_RESPONSE);
    until(discovery, TRUNK_DISCOVERY_FOUND);
    OK(trunk_discovery_session(discovery, text, &state));
    CHECK(state == TRUNK_PRESENCE_READY);
    OK(trunk_discovery_session(discovery, NULL, &state));
    CHECK(state == TRUNK_PRESENCE_NONE);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_discovery_session(discovery, "nonsense", &state));
    OK(trunk_discovery_close(discovery));

    /* Where nobody is, nobody answers. */
    snprintf(text, sizeof text, "127.0.0.1:%u", (unsigned)free_port());
    discovery = discover(port, only_the_target);
    trunk_discovery_event event = until(discovery, TRUNK_DISCOVERY_SILENT);
    CHECK(strcmp(event.address, text) == 0 && event.device.path_count == 0);
    OK(trunk_discovery_close(discovery));
    OK(trunk_announcer_close(answering[0]));
}

static void in_one_call(void) {
    uint16_t port = free_port();
    trunk_announcer one = announce(port, 1, NULL), two = announce(port, 2, NULL);
    pthread_t threads[2] = {answer_elsewhere(&one), answer_elsewhere(&two)};
    trunk_discovery_config config;
    trunk_device devices[4];
    size_t count = 0;
    configure(&config, port);
    config.service = "test";
    int64_t start = now_ns();
    OK(trunk_discovery_find(&config, SECOND, devices, 4, &count));
    CHECK(now_ns() - start >= SECOND && count == 2);
    CHECK(devices[0].peer[0] == 1 && devices[1].peer[0] == 2);
    CHECK(strcmp(devices[0].name, "device 1") == 0 && devices[0].ttl_ns > 0);
    /* More than there is room for. */
    memset(devices, 0xee, sizeof devices);
    OK(trunk_discovery_find(&config, SECOND, devices, 1, &count));
    CHECK(count == 2 && devices[0].peer[0] == 1 && devices[1].peer[0] == 0xee);
    /* One is overlooked, and others are not meant. */
    uint8_t mine[TRUNK_FINGERPRINT_BYTES];
    memset(mine, 1, sizeof mine);
    config.ignore = mine;
    config.ignore_count = 1;
    OK(trunk_discovery_find(&config, SECOND, devices, 4, &count));
    CHECK(count == 1 && devices[0].peer[0] == 2);
    config.service = "chess";
    OK(trunk_discovery_find(&config, SECOND / 2, NULL, 0, &count));
    CHECK(count == 0);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_discovery_find(&config, -1, devices, 4, &count));
    OK(trunk_announcer_close(one));
    OK(trunk_announcer_close(two));
    join(threads[0]);
    join(threads[1]);
}

static void hide(trunk_announcer_config *config, trunk_announcement *told) {
    config->answers = TRUNK_ANSWERS_THOSE_WHO_KNOW_THE_ID;
    told->id = "a \0 secret";
    told->id_size = 10;
}

static void know_it(trunk_discovery_config *config) {
    config->id = "a \0 secret";
    config->id_size = 10;
}

static void guess_it(trunk_discovery_config *config) {
    config->id = "a \0 guess";
    config->id_size = 9;
}

static void found_by_those_who_know_the_id(void) {
    uint16_t port = free_port();
    trunk_announcer_counts counts;
    trunk_announcer_info info;
    answering[0] = announce(port, 1, hide);
    trunk_discovery others[2] = {discover(port, NULL), discover(port, guess_it)};
    trunk_discovery friend = discover(port, know_it);
    size_t count = 9;
    for (int i = 0; i < 2; i++) {
        OK(trunk_discovery_poll(others[i], NULL, 0, SECOND / 10, &count));
        CHECK(count == 0);
    }
    trunk_discovery_event event = until(friend, TRUNK_DISCOVERY_FOUND);
    CHECK(event.device.id_proven);
    for (int i = 0; i < 2; i++) {
        OK(trunk_discovery_devices(others[i], NULL, 0, &count));
        CHECK(count == 0);
        OK(trunk_discovery_close(others[i]));
    }
    OK(trunk_announcer_counts_init(&counts));
    OK(trunk_announcer_get_counts(answering[0], &counts));
    CHECK(counts.not_for_us >= 2);
    OK(trunk_announcer_info_init(&info));
    OK(trunk_announcer_get_info(answering[0], &info));
    CHECK(info.has_id);
    OK(trunk_discovery_close(friend));
    OK(trunk_announcer_close(answering[0]));
}

/* From the listener of an engine to a connection with it. */
static void of_a_listener(void) {
    uint16_t port = free_port();
    host h;
    trunk_announcer announcer = 9;
    trunk_announcement told;
    trunk_announcer_config config;
    trunk_announcer_info info;
    host_listen(&h, engine_with(0));
    OK(trunk_announcement_init(&told));
    OK(trunk_announcer_config_init(&config));
    told.name = "host";
    told.service = "test";
    memcpy(told.peer, h.fingerprint, sizeof told.peer);
    config.announcement = &told;
    config.port = port;
    config.interfaces = loopback();
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_announcer_start(&config, &announcer));
    CHECK(strstr(trunk_last_error(), "listen") != NULL && announcer == 9);
    GIVES(TRUNK_ERR_INVALID_HANDLE,
          trunk_announcer_start_for_listener(h.engine, HANDLE, &config, &announcer));
    GIVES(TRUNK_ERR_NULL,
          trunk_announcer_start_for_listener(NULL, h.listener, &config, &announcer));
    GIVES(TRUNK_ERR_NULL,
          trunk_announcer_start_for_listener(h.engine, h.listener, NULL, &announcer));
    OK(trunk_announcer_start_for_listener(h.engine, h.listener, &config, &announcer));
    OK(trunk_announcer_info_init(&info));
    OK(trunk_announcer_get_info(announcer, &info));
    CHECK(info.local_only && "it listens at 127.0.0.1");

    answering[0] = announcer;
    trunk_discovery discovery = discover(port, NULL);
    trunk_discovery_event event = until(discovery, TRUNK_DISCOVERY_FOUND);
    CHECK(strcmp(event.device.paths[0].address, h.address) == 0);
    const char *addresses[TRUNK_DEVICE_PATHS];
    for (uint32_t i = 0; i < event.device.path_count; i++) {
        addresses[i] = event.device.paths[i].address;
    }
    trunk_trust trust;
    trunk_connect_config connect;
    trunk_conn conn;
    OK(trunk_trust_init(&trust));
    trust.kind = TRUNK_TRUST_PINS;
    trust.pins = event.device.peer;
    trust.pin_count = 1;
    OK(trunk_connect_config_init(&connect));
    connect.addresses = addresses;
    connect.address_count = event.device.path_count;
    connect.trust = &trust;
    trunk_engine *client = engine_with(0);
    OK(trunk_connect(client, &connect, &conn));
    trunk_item item = expect(h.engine, TRUNK_ITEM_INCOMING);
    OK(trunk_accept(h.engine, item.conn));
    release(&item);
    becomes(client, TRUNK_STATUS_CONNECTED);
    OK(trunk_engine_destroy(client));

    OK(trunk_listener_close(h.engine, h.listener, 1));
    GIVES(TRUNK_ERR_INVALID_HANDLE,
          trunk_announcer_start_for_listener(h.engine, h.listener, &config, &announcer));
    OK(trunk_engine_destroy(h.engine));
    GIVES(TRUNK_ERR_INVALID_HANDLE,
          trunk_announcer_start_for_listener(h.engine, h.listener, &config, &announcer));
    OK(trunk_announcer_state(announcer, &info.state));
    OK(trunk_announcer_close(announcer));
    OK(trunk_discovery_close(discovery));
}

/* What does not fit comes with the next calls. */
static void little_room(void) {
    uint16_t port = free_port();
    size_t count;
    for (uint8_t n = 1; n <= 4; n++) {
        answering[n - 1] = announce(port, n, NULL);
    }
    trunk_discovery discovery = discover(port, NULL);
    /* One question, and then all answers are there before the next poll. */
    OK(trunk_discovery_poll(discovery, NULL, 0, SECOND / 20, &count));
    int64_t deadline = now_ns() + 20 * SECOND;
    trunk_announcer_counts counts;
    OK(trunk_announcer_counts_init(&counts));
    for (size_t i = 0; i < 4; i++) {
        do {
            answer();
            pause_ms(1);
            OK(trunk_announcer_get_counts(answering[i], &counts));
            CHECK(now_ns() < deadline);
        } while (counts.answered == 0);
    }
    unsigned seen = 0;
    int waited = 0;
    trunk_discovery_event events[2];
    memset(events, 0xee, sizeof events);
    while (seen != 0x1e) {
        int64_t timeout;
        answer();
        OK(trunk_discovery_poll(discovery, events, 1, SECOND / 100, &count));
        CHECK(count <= 1 && events[1].type == 0xeeeeeeee && now_ns() < deadline);
        if (count == 1 && events[0].type == TRUNK_DISCOVERY_FOUND) {
            seen |= 1u << events[0].device.peer[0];
        }
        OK(trunk_discovery_next_timeout_ns(discovery, &timeout));
        CHECK(timeout >= 0 && timeout <= 10 * SECOND);
        waited += count == 1 && timeout == 0;
    }
    CHECK(waited >= 1 && "events that wait are work");
    /* The list, with room for some and for all. */
    trunk_device devices[8];
    memset(devices, 0xee, sizeof devices);
    OK(trunk_discovery_devices(discovery, devices, 2, &count));
    CHECK(count == 4 && devices[1].peer[0] == 2 && devices[2].peer[0] == 0xee);
    OK(trunk_discovery_devices(discovery, devices, 8, &count));
    CHECK(count == 4 && devices[3].peer[0] == 4 && devices[4].peer[0] == 0xee);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_discovery_poll(discovery, events, 0, 0, &count));
    CHECK(strstr(trunk_last_error(), "capacity") != NULL);
    OK(trunk_discovery_close(discovery));
    for (size_t i = 0; i < 4; i++) {
        OK(trunk_announcer_close(answering[i]));
    }
}

/* Without events: only the list is looked at. */
static void events_that_nobody_wants(void) {
    uint16_t port = free_port();
    size_t count = 0, dropped = 0;
    trunk_device device;
    answering[0] = announce(port, 3, NULL);
    trunk_discovery discovery = discover(port, NULL);
    int64_t deadline = now_ns() + 20 * SECOND;
    while (count == 0) {
        size_t now;
        answer();
        OK(trunk_discovery_poll(discovery, NULL, 0, SECOND / 500, &now));
        dropped += now;
        OK(trunk_discovery_devices(discovery, &device, 1, &count));
        CHECK(now_ns() < deadline);
    }
    CHECK(dropped >= 1 && device.peer[0] == 3);
    OK(trunk_discovery_close(discovery));
    OK(trunk_announcer_close(answering[0]));
}

/* Both in one poll(2) loop of the application. */
static void own_event_loop(void) {
    uint16_t port = free_port();
    trunk_announcer announcer = announce(port, 1, NULL);
    trunk_discovery discovery = discover(port, NULL);
    struct pollfd fds[2] = {{0, POLLIN, 0}, {0, POLLIN, 0}};
    OK(trunk_announcer_fd(announcer, &fds[0].fd));
    OK(trunk_discovery_fd(discovery, &fds[1].fd));
    CHECK(fds[0].fd >= 0 && fds[1].fd >= 0 && fds[0].fd != fds[1].fd);
    int64_t deadline = now_ns() + 20 * SECOND;
    size_t count = 0;
    trunk_discovery_event event;
    while (count == 0) {
        int64_t one, two;
        OK(trunk_announcer_next_timeout_ns(announcer, &one));
        OK(trunk_discovery_next_timeout_ns(discovery, &two));
        CHECK(one >= 0 && two >= 0 && now_ns() < deadline);
        CHECK(poll(fds, 2, (int)(((one < two ? one : two) + 999999) / 1000000)) >= 0);
        OK(trunk_announcer_poll(announcer, TRUNK_WAIT_NOT));
        OK(trunk_discovery_poll(discovery, &event, 1, TRUNK_WAIT_NOT, &count));
    }
    CHECK(event.type == TRUNK_DISCOVERY_FOUND);
    /* A wake from anywhere makes them readable. */
    while (poll(fds, 2, 0) > 0) {
        OK(trunk_announcer_poll(announcer, TRUNK_WAIT_NOT));
        OK(trunk_discovery_poll(discovery, &event, 1, TRUNK_WAIT_NOT, &count));
    }
    OK(trunk_announcer_wake(announcer));
    OK(trunk_discovery_wake(discovery));
    CHECK(poll(&fds[0], 1, 10000) == 1 && poll(&fds[1], 1, 10000) == 1);
    OK(trunk_announcer_close(announcer));
    OK(trunk_discovery_close(discovery));
}

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
    int64_t deadline = now_ns() + 20 * SECOND;
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
    OK(trunk_discovery_close(0));
    OK(trunk_announcer_close(0));
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
    if (d != 0 && a != 0) {
        GIVES(expected, trunk_discovery_close(d));
        GIVES(expected, trunk_announcer_close(a));
    }
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
    configure(&config, free_port());
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
    target[0] = "localhost:7477";
    c->targets = target;
    c->target_count = 1;
}
static void no_interface(trunk_discovery_config *c) {
    static trunk_interfaces none;
    static const char *name[] = {"no such"};
    OK(trunk_interfaces_init(&none));
    none.names = name;
    none.name_count = 1;
    c->interfaces = &none;
}
static void null_name(trunk_discovery_config *c) {
    static trunk_interfaces none;
    static const char *name[] = {NULL};
    OK(trunk_interfaces_init(&none));
    none.names = name;
    none.name_count = 1;
    c->interfaces = &none;
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
        configure(&config, port);
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
    {"found_changed_and_lost", found_changed_and_lost},
    {"asked_at_their_addresses", asked_at_their_addresses},
    {"in_one_call", in_one_call},
    {"found_by_those_who_know_the_id", found_by_those_who_know_the_id},
    {"of_a_listener", of_a_listener},
    {"little_room", little_room},
    {"events_that_nobody_wants", events_that_nobody_wants},
    {"own_event_loop", own_event_loop},
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
