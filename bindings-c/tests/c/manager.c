/* Channels by peer and name, associations, the security callback, both links, statistics. */
#include "harness.h"

/* How a client reaches a host. */
typedef struct way {
    const char *addresses[1];
    trunk_trust trust;
    trunk_connect_config config;
} way;

static void find(way *w, const host *h) {
    w->addresses[0] = h->address;
    OK(trunk_trust_init(&w->trust));
    w->trust.kind = TRUNK_TRUST_PINS;
    w->trust.pins = h->fingerprint;
    w->trust.pin_count = 1;
    OK(trunk_connect_config_init(&w->config));
    w->config.addresses = w->addresses;
    w->config.address_count = 1;
    w->config.trust = &w->trust;
}

/* Accepts connections and channels until an item of this type comes, which the caller releases. */
static trunk_item welcome_until(trunk_engine *engine, trunk_item_type type) {
    for (;;) {
        trunk_item item = next(engine);
        if (item.type == type) {
            return item;
        }
        if (item.type == TRUNK_ITEM_INCOMING) {
            OK(trunk_accept(engine, item.conn));
        } else if (item.type == TRUNK_ITEM_REQUEST) {
            OK(trunk_channel_accept(engine, item.channel, NULL));
        }
        release(&item);
    }
}

static void channels_by_peer_and_name(void) {
    host h;
    way w;
    host_listen(&h, engine_with(0));
    trunk_engine *client = engine_with(0);
    find(&w, &h);
    trunk_open_request one, two_, gone;
    OK(trunk_channel_request(client, &w.config, "one", NULL, &one));
    OK(trunk_channel_request(client, &w.config, "two", NULL, &two_));
    CHECK(one != 0 && one != two_);
    int accepted = 0;
    while (accepted < 2) {
        trunk_item item = next(h.engine);
        if (item.type == TRUNK_ITEM_INCOMING) {
            OK(trunk_accept(h.engine, item.conn));
        } else if (item.type == TRUNK_ITEM_REQUEST) {
            if (strcmp(item.detail.request->name, "one") == 0) {
                OK(trunk_channel_accept(h.engine, item.channel, NULL));
            } else {
                OK(trunk_channel_decline(h.engine, item.channel, 44, "not two"));
            }
            accepted++;
        }
        release(&item);
    }
    trunk_conn conn = 0;
    for (int answers = 0; answers < 2;) {
        trunk_item item = next(client);
        if (item.type == TRUNK_ITEM_OPENED) {
            const trunk_opened *opened = item.detail.opened;
            if (opened->request == one) {
                CHECK(opened->outcome == TRUNK_OUTCOME_OPENED && item.channel != 0);
                conn = item.conn;
                OK(trunk_send(client, item.channel, "bytes", 5));
            } else {
                CHECK(opened->request == two_ && item.channel == 0);
                CHECK(opened->outcome == TRUNK_OUTCOME_DECLINED && opened->code == 44);
                CHECK(strcmp(opened->text, "not two") == 0);
            }
            answers++;
        }
        release(&item);
    }
    trunk_item item = welcome_until(h.engine, TRUNK_ITEM_DATA);
    CHECK(item.size == 5);
    release(&item);
    OK(trunk_conn_hold(client, conn, -1));
    OK(trunk_channel_request(client, &w.config, "never", NULL, &gone));
    OK(trunk_open_request_cancel(client, gone));
    item = welcome_until(client, TRUNK_ITEM_OPENED);
    CHECK(item.detail.opened->outcome == TRUNK_OUTCOME_CANCELLED);
    release(&item);
    /* The answer may be on its way while it is given up: an answered one stays so. */
    trunk_item more;
    size_t count;
    OK(trunk_open_request_cancel(client, gone));
    OK(trunk_open_request_cancel(client, one));
    do {
        OK(trunk_recv_many(client, 0, &more, 1, SECOND / 20, &count));
        CHECK(count == 0 || more.type != TRUNK_ITEM_OPENED);
        OK(trunk_message_release(&more, count));
    } while (count > 0);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_open_request_cancel(client, 1234567));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_open_request_cancel(h.engine, one));
    GIVES(TRUNK_ERR_NULL, trunk_channel_request(client, NULL, "x", NULL, &gone));
    GIVES(TRUNK_ERR_NULL, trunk_channel_request(client, &w.config, NULL, NULL, &gone));
    OK(trunk_engine_destroy(client));
    OK(trunk_engine_destroy(h.engine));
}

static void associations(void) {
    host h;
    way w;
    host_listen(&h, engine_with(0));
    trunk_engine *client = engine_with(0);
    find(&w, &h);
    trunk_association_config config;
    OK(trunk_association_config_init(&config));
    trunk_association at_client, at_host;
    GIVES(TRUNK_ERR_NULL, trunk_associate(client, &w.config, &config, &at_client));
    config.name = "signals";
    OK(trunk_association_listen(h.engine, NULL, &config, 0, &at_host));
    OK(trunk_associate(client, &w.config, &config, &at_client));
    OK(trunk_association_send(client, at_client, "early", 5, 7, NULL));

    trunk_item item = welcome_until(h.engine, TRUNK_ITEM_ASSOCIATION);
    CHECK(item.detail.association->association == at_host);
    CHECK(item.detail.association->new_state == TRUNK_ASSOCIATION_CONNECTED);
    trunk_channel channel = item.channel;
    release(&item);
    item = welcome_until(h.engine, TRUNK_ITEM_DATA);
    CHECK(item.channel == channel && item.size == 5 && memcmp(item.data, "early", 5) == 0);
    release(&item);
    item = welcome_until(client, TRUNK_ITEM_ASSOCIATION);
    const trunk_association_change *change = item.detail.association;
    CHECK(change->association == at_client && change->sec_info != NULL);
    CHECK(change->new_state == TRUNK_ASSOCIATION_CONNECTED);
    CHECK(change->end == TRUNK_ASSOCIATION_END_NONE);
    trunk_sec_info info = *change->sec_info;
    trunk_conn conn = item.conn;
    release(&item);
    item = welcome_until(client, TRUNK_ITEM_DELIVERED);
    CHECK(item.token == 7 && item.detail.delivery->association == at_client);
    release(&item);

    /* SecInfo: stored, compared, asked for. */
    trunk_sec_info same, other;
    uint32_t yes = 9;
    OK(trunk_sec_info_init(&same));
    OK(trunk_sec_info_load(info.stored, info.stored_size, &same));
    CHECK(memcmp(same.exporter, info.exporter, 32) == 0 && same.peer.method == TRUNK_AUTH_PIN);
    CHECK(memcmp(same.peer.identity, h.fingerprint, 32) == 0);
    OK(trunk_sec_info_matches(&info, &same, &yes));
    CHECK(yes == 1);
    OK(trunk_sec_info_same_connection(&info, &same, &yes));
    CHECK(yes == 1);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_sec_info_load(info.stored, 10, &same));
    OK(trunk_sec_info_init(&other));
    OK(trunk_conn_get_sec_info(client, conn, &other));
    OK(trunk_sec_info_matches(&other, &info, &yes));
    CHECK(yes == 1);
    trunk_send_security security;
    OK(trunk_send_security_init(&security));
    security.sec_info = &other;
    OK(trunk_association_send(client, at_client, "safe", 4, 8, &security));
    item = welcome_until(client, TRUNK_ITEM_DELIVERED);
    CHECK(item.token == 8);
    release(&item);
    /* Another trust: nothing is sent. */
    other.stored[20] ^= 1;
    OK(trunk_association_send(client, at_client, "no", 2, 9, &security));
    item = welcome_until(client, TRUNK_ITEM_UNDELIVERED);
    CHECK(item.token == 9 && item.detail.delivery->error == TRUNK_DELIVERY_SECURITY);
    release(&item);
    security.has_sec_handle = 1;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_association_send(client, at_client, "no", 2, 9, &security));

    /* One call for everything finds the association that there is. */
    trunk_association again = 0;
    OK(trunk_send_to(client, &w.config, &config, "more", 4, 10, NULL, &again));
    CHECK(again == at_client);
    OK(trunk_association_close(client, at_client));
    for (;;) {
        item = welcome_until(client, TRUNK_ITEM_ASSOCIATION);
        change = item.detail.association;
        uint32_t state = change->new_state, end = change->end;
        release(&item);
        if (state == TRUNK_ASSOCIATION_DESTROYED) {
            CHECK(end == TRUNK_ASSOCIATION_END_CLOSED);
            break;
        }
    }
    OK(trunk_association_send(client, at_client, "late", 4, 11, NULL));
    item = welcome_until(client, TRUNK_ITEM_UNDELIVERED);
    CHECK(item.token == 11 && item.detail.delivery->error == TRUNK_DELIVERY_REFUSED);
    CHECK(item.detail.delivery->result == TRUNK_ERR_INVALID_HANDLE);
    release(&item);
    OK(trunk_engine_destroy(client));
    OK(trunk_engine_destroy(h.engine));
}

/* A channel of messages that a peer asks for becomes an association. */
static void an_association_of_a_request(void) {
    host h;
    way w;
    host_listen(&h, engine_with(0));
    trunk_engine *client = engine_with(0);
    find(&w, &h);
    trunk_association_config config;
    OK(trunk_association_config_init(&config));
    config.name = "signals";
    trunk_association at_client, at_host;
    OK(trunk_associate(client, &w.config, &config, &at_client));
    trunk_item item = expect(h.engine, TRUNK_ITEM_INCOMING);
    OK(trunk_accept(h.engine, item.conn));
    release(&item);
    skip(h.engine, TRUNK_ITEM_STATUS);
    item = expect(h.engine, TRUNK_ITEM_REQUEST);
    OK(trunk_association_accept(h.engine, item.channel, &config, 0, &at_host));
    release(&item);
    item = expect(h.engine, TRUNK_ITEM_ASSOCIATION);
    CHECK(item.detail.association->association == at_host);
    release(&item);
    OK(trunk_association_send(h.engine, at_host, "hello", 5, 1, NULL));
    item = welcome_until(client, TRUNK_ITEM_DATA);
    CHECK(item.size == 5);
    release(&item);
    OK(trunk_engine_destroy(client));
    OK(trunk_engine_destroy(h.engine));
}

static int beginnings, proofs;

static void choose(void *user, const trunk_security_query *query, trunk_security_choice *choice) {
    CHECK(user == &beginnings && query->address_count == 1);
    CHECK(strcmp(query->server_name, "trunkline") == 0 && query->info != NULL);
    CHECK(choice->credential == NULL && choice->refusal == NULL);
    if (query->stage == TRUNK_SECURITY_BEGINNING) {
        beginnings++;
        CHECK(!query->info->proven);
        return;
    }
    proofs++;
    CHECK(query->info->proven && query->has_sec_handle);
    if (query->sec_handle == 42) {
        choice->credential = "ticket";
        choice->credential_size = 6;
    } else {
        choice->refusal = "not with this peer";
    }
}

static void security_callback(void) {
    host h;
    way w;
    trunk_engine_config config;
    trunk_engine *client;
    host_listen(&h, engine_with(0));
    OK(trunk_engine_config_init(&config));
    config.security = choose;
    config.security_user = &beginnings;
    OK(trunk_engine_new(&config, &client));
    find(&w, &h);
    w.config.has_sec_handle = 1;
    w.config.sec_handle = 42;
    trunk_conn conn;
    OK(trunk_connect(client, &w.config, &conn));
    trunk_item item = expect(h.engine, TRUNK_ITEM_INCOMING);
    CHECK(item.detail.incoming->credential_size == 6);
    CHECK(memcmp(item.detail.incoming->credential, "ticket", 6) == 0);
    OK(trunk_accept(h.engine, item.conn));
    release(&item);
    becomes(client, TRUNK_STATUS_CONNECTED);
    CHECK(beginnings == 1 && proofs == 1);
    w.config.sec_handle = 43;
    w.config.reuse = TRUNK_REUSE_FORCE_NEW;
    OK(trunk_connect(client, &w.config, &conn));
    item = expect(client, TRUNK_ITEM_STATUS);
    CHECK(item.detail.status->new_status == TRUNK_STATUS_PROBLEM_DETECTED_LOCALLY);
    CHECK(item.detail.status->reason == TRUNK_REASON_AUTHENTICATION);
    CHECK(strstr(item.detail.status->reason_text, "not with this peer") != NULL);
    release(&item);
    OK(trunk_engine_destroy(client));
    OK(trunk_engine_destroy(h.engine));
}

/* TLS over TCP, and both links at once. */
static void over(uint32_t listen, trunk_connect_link link, trunk_link expected) {
    host h;
    trunk_identity identity;
    trunk_listen_config config;
    h.engine = engine_with(0);
    OK(trunk_identity_generate("host.test", h.pem, sizeof h.pem, NULL));
    OK(trunk_identity_init(&identity));
    identity.pem = h.pem;
    identity.pem_size = strlen(h.pem);
    OK(trunk_identity_fingerprint(&identity, h.fingerprint));
    OK(trunk_listen_config_init(&config));
    config.address = "127.0.0.1:0";
    config.identity = &identity;
    config.links = listen;
    config.stun = (listen & TRUNK_LISTEN_DATAGRAM) != 0;
    OK(trunk_listen(h.engine, &config, &h.listener));
    OK(trunk_listener_address(h.engine, h.listener, h.address, sizeof h.address, NULL));
    trunk_engine *client = engine_with(0);
    way w;
    find(&w, &h);
    w.config.link = link;
    trunk_conn conn;
    trunk_channel channel;
    OK(trunk_connect(client, &w.config, &conn));
    OK(trunk_channel_open(client, conn, "bytes", NULL, &channel));
    OK(trunk_send(client, channel, "over it", 7));
    trunk_item item = welcome_until(h.engine, TRUNK_ITEM_DATA);
    CHECK(item.size == 7);
    release(&item);
    trunk_conn_info info;
    OK(trunk_conn_info_init(&info));
    OK(trunk_conn_get_info(client, conn, &info));
    /* Which of two is the first, a busy machine decides. */
    int either = link == TRUNK_CONNECT_AUTO && listen != TRUNK_LISTEN_STREAM;
    CHECK((either || info.link == expected) && !info.relayed);
    CHECK(info.plain == (link == TRUNK_CONNECT_PLAIN));
    OK(trunk_engine_destroy(client));
    OK(trunk_engine_destroy(h.engine));
}

static void both_links(void) {
    uint32_t both = TRUNK_LISTEN_DATAGRAM | TRUNK_LISTEN_STREAM;
    over(TRUNK_LISTEN_STREAM, TRUNK_CONNECT_STREAM, TRUNK_LINK_STREAM);
    over(TRUNK_LISTEN_STREAM | TRUNK_LISTEN_PLAIN, TRUNK_CONNECT_PLAIN, TRUNK_LINK_STREAM);
    over(both, TRUNK_CONNECT_AUTO, TRUNK_LINK_DATAGRAM);
    over(TRUNK_LISTEN_STREAM, TRUNK_CONNECT_AUTO, TRUNK_LINK_STREAM);
    host h;
    host_listen(&h, engine_with(0));
    trunk_listen_config config;
    trunk_identity identity;
    trunk_listener listener;
    OK(trunk_identity_init(&identity));
    identity.pem = h.pem;
    identity.pem_size = strlen(h.pem);
    OK(trunk_listen_config_init(&config));
    config.address = "127.0.0.1:0";
    config.identity = &identity;
    config.links = 8;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_listen(h.engine, &config, &listener));
    config.links = 0;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_listen(h.engine, &config, &listener));
    config.links = TRUNK_LISTEN_STREAM;
    config.stun = 1;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_listen(h.engine, &config, &listener));
    CHECK(strstr(trunk_last_error(), "stun") != NULL);
    way w;
    find(&w, &h);
    trunk_conn conn;
    w.config.link = 4;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_connect(h.engine, &w.config, &conn));
    OK(trunk_engine_destroy(h.engine));
}

static void statistics(void) {
    pair p;
    new_pair(&p, 0);
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "m");
    OK(trunk_send(p.client, ends.at_client, "x", 1));
    skip(p.host.engine, TRUNK_ITEM_DATA);
    trunk_shard_stats shard;
    OK(trunk_shard_stats_init(&shard));
    OK(trunk_engine_get_shard_stats(p.client, 0, &shard));
    CHECK(shard.connections == 1 && shard.turns > 0 && shard.datagrams_sent > 0 && !shard.failed);
    CHECK(shard.rtt_us.count == 1 && shard.rtt_us.max > 0);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_engine_get_shard_stats(p.client, 1, &shard));
    trunk_group_stats group;
    OK(trunk_group_stats_init(&group));
    OK(trunk_group_get_stats(p.client, 0, &group));
    CHECK(group.waiting_bytes == 0 && group.dropped == 0);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_group_get_stats(p.client, 77, &group));
    trunk_channel_options options;
    trunk_channel one, same;
    OK(trunk_channel_options_init(&options));
    options.unique = 1;
    OK(trunk_channel_open(p.client, p.at_client, "unique", &options, &one));
    OK(trunk_channel_open(p.client, p.at_client, "unique", &options, &same));
    CHECK(one == same);
    trunk_channel list[1];
    size_t count = 0;
    OK(trunk_conn_channels(p.client, p.at_client, NULL, 0, &count));
    CHECK(count == 2);
    OK(trunk_conn_channels(p.client, p.at_client, list, 1, &count));
    CHECK(count == 2 && (list[0] == one || list[0] == ends.at_client));
    GIVES(TRUNK_ERR_NULL, trunk_conn_channels(p.client, p.at_client, NULL, 1, &count));
    trunk_conn conns[2] = {0, 0};
    OK(trunk_engine_conns(p.client, conns, 2, &count));
    CHECK(count == 1 && conns[0] == p.at_client && conns[1] == 0);
    OK(trunk_engine_conns(p.client, NULL, 0, &count));
    CHECK(count == 1);
    GIVES(TRUNK_ERR_NULL, trunk_engine_conns(p.client, NULL, 1, &count));
    uint32_t on = 7;
    OK(trunk_conn_shard(p.client, p.at_client, &on));
    CHECK(on == 0);
    trunk_sec_info security;
    uint64_t now, later;
    OK(trunk_sec_info_init(&security));
    OK(trunk_conn_get_sec_info(p.client, p.at_client, &security));
    OK(trunk_engine_now(p.client, &now));
    OK(trunk_engine_now(p.client, &later));
    CHECK(security.established_ns <= now && now <= later &&
          now - security.established_ns < 60 * (uint64_t)SECOND);
    OK(trunk_close(p.client, p.at_client, 0, NULL, TRUNK_LINGER_NONE));
    OK(trunk_engine_conns(p.client, conns, 2, &count));
    CHECK(count == 0);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_conn_shard(p.client, p.at_client, &on));
    end_pair(&p);
}

static void hardware_profiles(void) {
    trunk_engine_config config;
    trunk_engine *engine;
    char text[4096];
    size_t size = 0;
    OK(trunk_engine_config_init(&config));
    OK(trunk_engine_config_load_profile(&config, "virtio", text, sizeof text, &size));
    CHECK(config.rx_buffers == 512 && size == strlen(text) + 1);
    CHECK(strstr(text, "rx_buffers = 512: ") != NULL);
    OK(trunk_engine_config_load_profile(&config, "r8169", text, sizeof text, &size));
    CHECK(config.gso_segments == 32 && strstr(text, "gso_segments = 32: ") != NULL);
    config.gso_segments = 64;
    OK(trunk_engine_config_load_profile(&config, "ice", text, sizeof text, &size));
    CHECK(config.pin == 2 && strstr(text, "placement = processors ") != NULL);
    OK(trunk_engine_config_load_profile(&config, "auto", NULL, 0, &size));
    CHECK(size > 1);
    GIVES(TRUNK_ERR_BUFFER_TOO_SMALL,
          trunk_engine_config_load_profile(&config, "loopback", text, 3, &size));
    CHECK(config.shards == 1);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_engine_config_load_profile(&config, "nonsense", NULL, 0, NULL));
    CHECK(strstr(trunk_last_error(), "loopback") != NULL);
    GIVES(TRUNK_ERR_FILE,
          trunk_engine_config_load_profile(&config, "/no/such/file.toml", NULL, 0, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_engine_config_load_profile(&config, NULL, NULL, 0, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_engine_config_load_profile(NULL, "auto", NULL, 0, NULL));
    config.threadless = 1;
    OK(trunk_engine_config_load_profile(&config, "generic", NULL, 0, NULL));
    CHECK(config.shards == 1);
    config.threadless = 0;
    config.pin = 1;
    OK(trunk_engine_new(&config, &engine));
    OK(trunk_engine_destroy(engine));
}

static const test tests[] = {
    {"hardware_profiles", hardware_profiles},
    {"channels_by_peer_and_name", channels_by_peer_and_name},
    {"associations", associations},
    {"an_association_of_a_request", an_association_of_a_request},
    {"security_callback", security_callback},
    {"both_links", both_links},
    {"statistics", statistics},
};
MAIN(tests)
