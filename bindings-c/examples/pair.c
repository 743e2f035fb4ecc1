/*
 * Two programs that know each other's names find each other over an event source, and get a
 * connection of their own: directly if the networks allow it, otherwise over the relay.
 *
 *     pair controller SOURCE FINGERPRINT TOKEN NAME PARTNER [--loopback]
 *     pair responder  SOURCE FINGERPRINT TOKEN NAME [--loopback]
 *
 * SOURCE is the event source's address, and FINGERPRINT its key's. All of it on one machine, each
 * line in a terminal of its own but the first two:
 *
 *     trunkline token key --out k1.key
 *     trunkline token mint --key k1=k1.key --app pair --client '*'            prints TOKEN
 *     trunkline event-source --key k1=k1.key                                  prints FINGERPRINT
 *     pair responder  127.0.0.1:7472 FINGERPRINT TOKEN bob --loopback
 *     pair controller 127.0.0.1:7472 FINGERPRINT TOKEN alice bob --loopback
 *
 * Build:  cc -std=c99 pair.c -ltrunkline -o pair
 */
#include "example.h"

enum { OUR_KEY = 1, MESSAGES = 3 }; /* OUR_KEY: subtype of the event with our fingerprint */

static trunk_engine *engine;
static trunk_pairing pairing;
static int controller, answers, done;
static uint8_t own[TRUNK_FINGERPRINT_BYTES];

/* Begins the pairing; nothing of this waits. */
static void begin(const place *source, const char *token, const char *name, const char *partner,
                  int loopback) {
    char pem[2048];
    trunk_identity identity;
    must(trunk_identity_generate(name, pem, sizeof pem, NULL), "new identity");
    trunk_identity_init(&identity);
    identity.pem = pem;
    identity.pem_size = strlen(pem);
    must(trunk_identity_fingerprint(&identity, own), "fingerprint");

    trunk_trust trust;
    trunk_trust_init(&trust);
    trust.kind = TRUNK_TRUST_PINS;
    trust.pins = source->fingerprint;
    trust.pin_count = 1;
    const char *address = source->address;
    trunk_connect_config connect;
    trunk_connect_config_init(&connect);
    connect.addresses = &address;
    connect.address_count = 1;
    connect.trust = &trust;
    connect.link = TRUNK_CONNECT_AUTO; /* gets through where UDP does not */

    trunk_pairing_config config;
    trunk_pairing_config_init(&config);
    config.role = controller ? TRUNK_PAIRING_CONTROLLER : TRUNK_PAIRING_RESPONDER;
    config.source = &connect;
    config.identity = &identity;
    config.relay = 1; /* what a connection with the partner begins over */
    config.allow_loopback = (uint32_t)loopback;
    must(trunk_pairing_new(engine, &config, &pairing), "pairing");
    must(trunk_pairing_assign_client_id(engine, pairing, name), "name");
    must(trunk_pairing_assign_token(engine, pairing, token), "token");
    must(trunk_pairing_assign_partner(engine, pairing, partner), "partner");
    must(trunk_pairing_set_active(engine, pairing, 1), "activate");
}

static void take_notice(const trunk_pairing_notice *notice) {
    char text[TRUNK_FINGERPRINT_TEXT_BYTES];
    switch (notice->type) {
    case TRUNK_NOTICE_STATE:
        printf("%s\n", trunk_pairing_state_str(notice->new_state));
        if (notice->new_state == TRUNK_PAIRING_INTERACTING) {
            must(trunk_pairing_send(engine, pairing, OUR_KEY, own, sizeof own, 1, NULL), "event");
        }
        break;
    case TRUNK_NOTICE_EVENT:
        if (notice->subtype != OUR_KEY || notice->size != TRUNK_FINGERPRINT_BYTES) {
            break;
        }
        /* The event source could put itself between the two here. If you do not want to trust it,
         * know the partner's fingerprint beforehand, or compare what is printed. */
        must(trunk_fingerprint_format(notice->data, text), "fingerprint");
        printf("partner %s has the key %s\n", notice->client, text);
        must(controller ? trunk_pairing_connect(engine, pairing, notice->data)
                        : trunk_pairing_accept(engine, pairing, notice->data),
             "connection with the partner");
        break;
    case TRUNK_NOTICE_REJECTED:
        fail(notice->client, "does not want us");
        break;
    case TRUNK_NOTICE_ABORTED:
        fprintf(stderr, "event source: sends us away (%u, see docs/pairing.md)\n",
                (unsigned)notice->code);
        exit(1);
    }
}

static void print_path(trunk_conn conn) {
    trunk_conn_info info;
    trunk_conn_info_init(&info);
    must(trunk_conn_get_info(engine, conn, &info), "connection");
    if (info.relayed) {
        printf("path: over the relay\n");
    } else {
        printf("path: direct, to %s\n", info.remote);
    }
}

/* The controller's side once the two are connected. */
static void say_hello(trunk_conn conn) {
    trunk_channel channel = open_channel(engine, conn, "talk", TRUNK_KIND_MESSAGES);
    for (int i = 1; i <= MESSAGES; i++) {
        char text[32];
        int size = snprintf(text, sizeof text, "hello %d", i);
        must(trunk_send(engine, channel, text, (size_t)size), "send");
    }
}

static void take(const trunk_item *item) {
    switch (item->type) {
    case TRUNK_ITEM_PAIRING:
        take_notice(item->detail.pairing);
        break;
    case TRUNK_ITEM_STATUS: /* of the connection with the partner; no other is told about */
        if (item->detail.status->new_status == TRUNK_STATUS_CONNECTED && controller) {
            say_hello(item->conn);
        } else if (item->detail.status->reason > TRUNK_REASON_APP) {
            fail("partner", item->detail.status->reason_text);
        }
        break;
    case TRUNK_ITEM_REQUEST:
        /* It may have ended by now: then TRUNK_ITEM_CLOSED is next, and there is nothing to do. */
        trunk_channel_accept(engine, item->channel, NULL);
        break;
    case TRUNK_ITEM_DATA:
        printf("partner: %.*s\n", (int)item->size, (const char *)item->data);
        answers++;
        if (!controller) {
            must(trunk_send_item(engine, item->channel, item, 0), "send");
        } else if (answers == MESSAGES) {
            must(trunk_channel_close(engine, item->channel), "end of what we send");
        }
        break;
    case TRUNK_ITEM_EOF:
        print_path(item->conn);
        if (controller) {
            must(trunk_close(engine, item->conn, 0, "done", TRUNK_LINGER_DEFAULT), "close");
        } else {
            must(trunk_channel_close(engine, item->channel), "end of what we send");
        }
        break;
    case TRUNK_ITEM_PATH:
        printf("the connection moves %s\n",
               item->detail.path->relayed ? "to the relay" : "off the relay");
        break;
    case TRUNK_ITEM_DEAD: /* it was freed by itself */
        done = 1;
        break;
    }
}

int main(int argc, char **argv) {
    int loopback = take_flag(&argc, argv, "--loopback");
    controller = argc == 7 && strcmp(argv[1], "controller") == 0;
    if (!controller && (argc != 6 || strcmp(argv[1], "responder") != 0)) {
        fprintf(stderr,
                "usage: pair controller SOURCE FINGERPRINT TOKEN NAME PARTNER [--loopback]\n"
                "       pair responder SOURCE FINGERPRINT TOKEN NAME [--loopback]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    place source = parse_place(argv[2], argv[3]);
    must(trunk_engine_new(NULL, &engine), "engine");
    begin(&source, argv[4], argv[5], controller ? argv[6] : NULL, loopback);
    while (!done) {
        trunk_item items[16];
        size_t count;
        must(trunk_recv_many(engine, 0, items, 16, TRUNK_WAIT_FOREVER, &count), "receive");
        for (size_t i = 0; i < count; i++) {
            take(&items[i]);
        }
        trunk_message_release(items, count);
    }
    must(trunk_pairing_close(engine, pairing), "end of the pairing");
    must(trunk_shutdown(engine, TRUNK_LINGER_DEFAULT, NULL), "shutdown");
    must(trunk_engine_destroy(engine), "destroy");
    if (answers < MESSAGES) {
        fail("partner", "left before all was said");
    }
    return 0;
}
