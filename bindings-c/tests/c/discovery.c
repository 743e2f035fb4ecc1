/* Devices find each other. */
#include "presence.h"

#include <poll.h>

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
    stop_answering();

    /* Closing says goodbye as well. */
    answering[0] = announce(port, 2, NULL);
    OK(trunk_discovery_network_changed(discovery));
    until(discovery, TRUNK_DISCOVERY_FOUND);
    stop_answering();
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
    stop_answering();
}

static void in_one_call(void) {
    uint16_t port = free_port();
    trunk_announcer one = announce(port, 1, NULL), two = announce(port, 2, NULL);
    pthread_t threads[2] = {answer_elsewhere(&one), answer_elsewhere(&two)};
    trunk_discovery_config config;
    trunk_device devices[4];
    size_t count = 0;
    basic(&config, port);
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
    stop_answering();
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
          trunk_announcer_start_for_listener(h.engine, 77, &config, &announcer));
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
    stop_answering();
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
    int64_t deadline = now_ns() + patience();
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
    stop_answering();
}

/* Without events: only the list is looked at. */
static void events_that_nobody_wants(void) {
    uint16_t port = free_port();
    size_t count = 0, dropped = 0;
    trunk_device device;
    answering[0] = announce(port, 3, NULL);
    trunk_discovery discovery = discover(port, NULL);
    int64_t deadline = now_ns() + patience();
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
    stop_answering();
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
    int64_t deadline = now_ns() + patience();
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

static const test tests[] = {
    {"found_changed_and_lost", found_changed_and_lost},
    {"asked_at_their_addresses", asked_at_their_addresses},
    {"in_one_call", in_one_call},
    {"found_by_those_who_know_the_id", found_by_those_who_know_the_id},
    {"of_a_listener", of_a_listener},
    {"little_room", little_room},
    {"events_that_nobody_wants", events_that_nobody_wants},
    {"own_event_loop", own_event_loop},
};
MAIN(tests)
