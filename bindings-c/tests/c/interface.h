/*
 * The interface as a table, which tests/common/table.rs makes of trunkline.h, and arguments for
 * every function in it. Tests that go through the table cover functions and structs that are added
 * to the header; where one needs a value of a new type, they fail until it is given below.
 */
#ifndef INTERFACE_H
#define INTERFACE_H

#include "harness.h"

#include <stddef.h>
#include <sys/mman.h>

enum {
    IS_POINTER = 1,
    IS_READ_ONLY = 2,
    IS_STORE = 4, /* numbers, bytes or pointers are stored there */
    IS_HANDLE = 8,
    IS_CALLBACK = 16,
    MAY_BE_NULL = 32, /* so says the function's comment */
};

typedef struct param {
    const char *type, *name;
    const char *of; /* the struct that it points to, if that may grow */
    unsigned flags;
} param;

typedef struct function {
    const char *name;
    trunk_result (*call)(const uint64_t *arguments);
    int count;
    const param *params;
    const trunk_result *errors; /* that its comment names; ends with TRUNK_OK */
} function;

typedef struct field {
    const char *type, *name;
    size_t offset, size;
    const char *of; /* the struct that it points to, if that may grow */
} field;

/* A struct that may grow. */
typedef struct sized {
    const char *name;
    size_t size, align;
    trunk_result (*init)(void *at, size_t size);
    size_t count;
    const field *fields;
} sized;

typedef struct callback {
    const char *name;
    uintptr_t stub; /* one that does nothing */
} callback;

#include "table.inc"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define MOST_PARAMS 12

static inline int is(const char *a, const char *b) { return strcmp(a, b) == 0; }

/* ---- saying everything that is wrong, not only the first ---- */

static int complaints;

#define COMPLAIN(...)                                                                              \
    do {                                                                                           \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fprintf(stderr, " (last error: %s)\n", trunk_last_error());                                \
        complaints++;                                                                              \
    } while (0)

static inline void conclude(void) {
    if (complaints > 0) {
        _exit(1);
    }
}

static inline const sized *struct_named(const char *name) {
    for (size_t i = 0; i < COUNT(structs); i++) {
        if (is(structs[i].name, name)) {
            return &structs[i];
        }
    }
    fprintf(stderr, "no struct %s\n", name);
    _exit(1);
}

static inline int documents(const function *f, trunk_result result) {
    const trunk_result *error = f->errors;
    while (*error != TRUNK_OK && *error != result) {
        error++;
    }
    return *error == result; /* TRUNK_OK ends the list */
}

/* A call whose result its comment must name. TEST_TALKS=1 says which one a crash was in. */
static inline trunk_result invoke(const function *f, const uint64_t *arguments, const char *how) {
    if (getenv("TEST_TALKS") != NULL) {
        fprintf(stderr, "%s: %s\n", f->name, how);
    }
    trunk_result result = f->call(arguments);
    if (!documents(f, result)) {
        COMPLAIN("%s, %s: gives %s, which its comment does not name", f->name, how,
                 trunk_result_str(result));
    }
    return result;
}

/* ---- what calls are made with ---- */

/* An engine that has everything, the peer of its connection, and what belongs to no engine. */
typedef struct subject {
    pair p; /* the host is the engine that is called */
    int threadless;
    int forked; /* this is a child, and all of it belongs to the parent */
    two ends;
    trunk_item item; /* data */
    trunk_buf buf;
    trunk_group group;
    trunk_association association;
    trunk_open_request request; /* from here on made when they are asked for */
    trunk_pairing pairing;
    trunk_event_source source;
    trunk_listener source_listener;
    trunk_credential_issuer issuer;
    trunk_credential_verifier verifier;
    trunk_discovery discovery;
    trunk_announcer announcer;
    /* What structs and arguments point to. */
    trunk_identity identity;
    trunk_trust trust;
    trunk_connect_config connect;
    trunk_sec_info sec_info;
    trunk_interfaces interfaces;
    trunk_announcement announcement;
    const char *addresses[1];
    trunk_outgoing outgoing;
    uint8_t credential[TRUNK_CREDENTIAL_BYTES];
    size_t credential_size;
    char token[TRUNK_TOKEN_TEXT_BYTES];
    /* What calls store. */
    trunk_engine *made;
    trunk_item items[16];
    uint64_t stores[MOST_PARAMS][512];
    uint64_t places[MOST_PARAMS][128];
} subject;

static const char hex_text[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
static const char *const some_networks[1] = {"192.0.2.0/24"};
static const char *const this_machine[1] = {"127.0.0.1"};
#ifdef __linux__
static const char *const loopback_interface[1] = {"lo"};
#else
static const char *const loopback_interface[1] = {"lo0"};
#endif
static const uint8_t some_bytes[4096];
/* An Ed25519 key as PKCS #8. */
static const uint8_t some_key[48] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                     0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20, 9};
static const trunk_token_key token_key = {"k1", some_bytes, TRUNK_SECRET_BYTES};

/* Fills a struct of its defaults so that a call with it succeeds. */
static inline void fill(subject *s, const char *name, void *at) {
    if (is(name, "trunk_engine_config")) {
        engine_init(at);
    } else if (is(name, "trunk_identity")) {
        *(trunk_identity *)at = s->identity;
    } else if (is(name, "trunk_trust")) {
        *(trunk_trust *)at = s->trust;
    } else if (is(name, "trunk_listen_config")) {
        trunk_listen_config *config = at;
        config->address = "127.0.0.1:0";
        config->identity = &s->identity;
    } else if (is(name, "trunk_connect_config")) {
        trunk_connect_config *config = at;
        config->addresses = s->addresses;
        config->address_count = 1;
        config->trust = &s->trust;
    } else if (is(name, "trunk_sec_info")) {
        *(trunk_sec_info *)at = s->sec_info;
    } else if (is(name, "trunk_callbacks")) {
        trunk_callbacks *config = at;
        config->on_data = stub_trunk_data_fn;
        config->on_item = stub_trunk_item_fn;
    } else if (is(name, "trunk_association_config")) {
        ((trunk_association_config *)at)->name = "signals";
    } else if (is(name, "trunk_pairing_config")) {
        trunk_pairing_config *config = at;
        config->source = &s->connect;
        config->relay = 1;
        config->identity = &s->identity;
    } else if (is(name, "trunk_credential_grant")) {
        ((trunk_credential_grant *)at)->expires_s = (uint64_t)time(NULL) + 3600;
    } else if (is(name, "trunk_token_grant")) {
        trunk_token_grant *grant = at;
        grant->app = "chess";
        grant->client = "alice";
        grant->expires_s = (uint64_t)time(NULL) + 3600;
    } else if (is(name, "trunk_interfaces")) {
        *(trunk_interfaces *)at = s->interfaces;
    } else if (is(name, "trunk_announcement")) {
        *(trunk_announcement *)at = s->announcement;
    } else if (is(name, "trunk_discovery_config")) {
        ((trunk_discovery_config *)at)->interfaces = &s->interfaces;
    } else if (is(name, "trunk_announcer_config")) {
        trunk_announcer_config *config = at;
        config->announcement = &s->announcement;
        config->listen = this_machine;
        config->listen_count = 1;
        config->interfaces = &s->interfaces;
    }
}

/* What engines are made with. A shutdown waits so long for peers that are not driven meanwhile. */
static inline void hurry(trunk_engine_config *config) {
    static trunk_connection_config connection;
    static trunk_fault_config faults;
    connection_init(&connection);
    connection.fin_wait_timeout_ns = SECOND / 20;
    config->connection = &connection;
    OK(trunk_fault_config_init(&faults)); /* none, but they can be changed */
    config->faults = &faults;
}

/* What belongs to no engine. */
static inline void begin_alone(subject *s) {
    trunk_credential_grant grant;
    trunk_token_grant allowed;
    uint8_t key[TRUNK_PUBLIC_KEY_BYTES];
    OK(trunk_credential_issuer_with_ed25519("game", 1, some_key, sizeof some_key, &s->issuer));
    OK(trunk_credential_issuer_public_key(s->issuer, key));
    OK(trunk_credential_verifier_new("game", &s->verifier));
    OK(trunk_credential_verifier_add_public_key(s->verifier, 1, key));
    OK(trunk_credential_grant_init(&grant));
    fill(s, "trunk_credential_grant", &grant);
    OK(trunk_credential_issue(s->issuer, &grant, s->credential, sizeof s->credential,
                              &s->credential_size));
    OK(trunk_token_grant_init(&allowed));
    fill(s, "trunk_token_grant", &allowed);
    OK(trunk_token_mint(&token_key, &allowed, s->token, sizeof s->token, NULL));
    OK(trunk_interfaces_init(&s->interfaces));
    s->interfaces.names = loopback_interface;
    s->interfaces.name_count = 1;
    OK(trunk_announcement_init(&s->announcement));
    s->announcement.name = "subject";
    s->announcement.service = "test";
    s->announcement.port = 7470;
    s->announcement.peer[0] = 1;
}

static inline void begin(subject *s, int threadless) {
    memset(s, 0, sizeof *s);
    s->threadless = threadless;
    configure = configure == NULL ? hurry : configure;
    new_pair(&s->p, threadless);
    s->ends = open_channel(&s->p, TRUNK_KIND_MESSAGES, "subject");
    OK(trunk_send(s->p.client, s->ends.at_client, "data", 4));
    s->item = expect(s->p.host.engine, TRUNK_ITEM_DATA);
    OK(trunk_group_new(s->p.host.engine, &s->group));
    OK(trunk_identity_init(&s->identity));
    s->identity.pem = s->p.host.pem;
    s->identity.pem_size = strlen(s->p.host.pem);
    OK(trunk_trust_init(&s->trust));
    s->trust.kind = TRUNK_TRUST_PINS;
    s->trust.pins = s->p.host.fingerprint;
    s->trust.pin_count = 1;
    s->addresses[0] = s->p.host.address;
    OK(trunk_connect_config_init(&s->connect));
    fill(s, "trunk_connect_config", &s->connect);
    OK(trunk_sec_info_init(&s->sec_info));
    OK(trunk_conn_get_sec_info(s->p.host.engine, s->p.at_host, &s->sec_info));
    trunk_association_config config;
    OK(trunk_association_config_init(&config));
    fill(s, "trunk_association_config", &config);
    OK(trunk_association_listen(s->p.host.engine, NULL, &config, 0, &s->association));
    s->outgoing.channel = s->ends.at_host;
    s->outgoing.data = "x";
    s->outgoing.size = 1;
    begin_alone(s);
}

/* Gives back what calls have stored. */
static inline void tidy(subject *s) {
    OK(trunk_message_release(s->items, COUNT(s->items)));
    OK(trunk_engine_destroy(s->made));
    s->made = NULL;
    for (size_t i = 0; i < MOST_PARAMS; i++) {
        /* A handle of another kind, or bytes that are none, are refused. */
        trunk_event_source_close(s->stores[i][0]);
        trunk_credential_issuer_close(s->stores[i][0]);
        trunk_credential_verifier_close(s->stores[i][0]);
        trunk_discovery_close(s->stores[i][0]);
        trunk_announcer_close(s->stores[i][0]);
        s->stores[i][0] = 0;
    }
}

static inline void end(subject *s) {
    driven[0] = driven[1] = NULL;
    tidy(s);
    OK(trunk_message_release(&s->item, 1));
    OK(trunk_buf_free(&s->buf));
    trunk_event_source_close(s->source);
    trunk_credential_issuer_close(s->issuer);
    trunk_credential_verifier_close(s->verifier);
    trunk_discovery_close(s->discovery);
    trunk_announcer_close(s->announcer);
    trunk_result result = trunk_engine_destroy(s->p.host.engine);
    CHECK(result == TRUNK_OK || result == TRUNK_ERR_INVALID_HANDLE);
    OK(trunk_engine_destroy(s->p.client));
}

/* After a call that may have changed something. */
static inline void renew(subject *s) {
    end(s);
    begin(s, s->threadless);
}

/* An event source with a listener. */
static inline trunk_event_source source(subject *s) {
    trunk_engine_config engine;
    trunk_listen_config config;
    if (s->source == 0 && !s->forked) {
        engine_init(&engine);
        engine.rx_buffers = 64;
        engine.tx_buffers = 16;
        OK(trunk_listen_config_init(&config));
        fill(s, "trunk_listen_config", &config);
        OK(trunk_event_source_start(&engine, NULL, &token_key, 1, &s->source));
        OK(trunk_event_source_listen(s->source, &config, &s->source_listener));
    }
    return s->source;
}

static inline trunk_discovery discovery(subject *s) {
    trunk_discovery_config config;
    if (s->discovery == 0 && !s->forked) {
        OK(trunk_discovery_config_init(&config));
        fill(s, "trunk_discovery_config", &config);
        OK(trunk_discovery_start(&config, &s->discovery));
    }
    return s->discovery;
}

static inline trunk_announcer announcer(subject *s) {
    trunk_announcer_config config;
    if (s->announcer == 0 && !s->forked) {
        OK(trunk_announcer_config_init(&config));
        fill(s, "trunk_announcer_config", &config);
        OK(trunk_announcer_start(&config, &s->announcer));
    }
    return s->announcer;
}

/* A handle of what function `f` is about; what is not there yet is made. */
static inline uint64_t handle(subject *s, const function *f, const char *type) {
    if (is(type, "trunk_conn")) {
        return s->p.at_host;
    }
    if (is(type, "trunk_channel")) {
        return s->ends.at_host;
    }
    if (is(type, "trunk_listener")) {
        int of_source = is(f->params[0].type, "trunk_event_source");
        return of_source && source(s) != 0 ? s->source_listener : s->p.host.listener;
    }
    if (is(type, "trunk_group")) {
        return s->group;
    }
    if (is(type, "trunk_association")) {
        return s->association;
    }
    if (is(type, "trunk_open_request")) {
        if (s->request == 0) {
            /* Fails when the engine is not ours any more; the handle does not matter then. */
            trunk_channel_request(s->p.host.engine, &s->connect, "asked", NULL, &s->request);
        }
        return s->request;
    }
    if (is(type, "trunk_pairing")) {
        trunk_pairing_config config;
        OK(trunk_pairing_config_init(&config));
        fill(s, "trunk_pairing_config", &config);
        if (s->pairing == 0) {
            trunk_pairing_new(s->p.host.engine, &config, &s->pairing);
        }
        return s->pairing;
    }
    if (is(type, "trunk_event_source")) {
        return source(s);
    }
    if (is(type, "trunk_credential_issuer")) {
        return s->issuer;
    }
    if (is(type, "trunk_credential_verifier")) {
        return s->verifier;
    }
    if (is(type, "trunk_discovery")) {
        return discovery(s);
    }
    if (is(type, "trunk_announcer")) {
        return announcer(s);
    }
    fprintf(stderr, "tests/c/interface.h has no handle of type %s\n", type);
    _exit(1);
}

static inline uint64_t number(subject *s, const param *p, const param *before) {
    if (is(p->name, "struct_size")) {
        return struct_named(before->of)->size;
    }
    if (!is(p->type, "size_t")) {
        return 0;
    }
    if (before->flags & IS_STORE) {
        return is(before->type, "char *") || is(before->type, "uint8_t *") ? sizeof s->stores[0]
                                                                           : 1;
    }
    if (is(before->name, "credential")) {
        return s->credential_size;
    }
    if (is(before->name, "stored")) {
        return s->sec_info.stored_size;
    }
    if (is(before->name, "private_key")) {
        return sizeof some_key;
    }
    return is(before->type, "const void *") || is(before->type, "const uint8_t *") ? 64 : 1;
}

static inline const void *text(subject *s, const char *name) {
    if (is(name, "which")) {
        return "generic";
    }
    if (is(name, "address")) {
        return "127.0.0.1:7470";
    }
    return is(name, "token") ? s->token : hex_text;
}

static inline const void *bytes(subject *s, const char *name) {
    if (is(name, "credential")) {
        return s->credential;
    }
    if (is(name, "stored")) {
        return s->sec_info.stored;
    }
    return is(name, "private_key") ? some_key : some_bytes;
}

static inline const void *buffer(subject *s, const function *f) {
    int wanted = !is(f->name, "trunk_buf_alloc"), is_there = s->buf.data != NULL;
    if (wanted && !is_there) {
        OK(trunk_buf_alloc(s->p.host.engine, 100, &s->buf));
    } else if (is_there && !wanted && !s->forked) {
        OK(trunk_buf_free(&s->buf)); /* it is overwritten */
    }
    return &s->buf;
}

static inline const void *pointer(subject *s, const function *f, int i) {
    const param *p = &f->params[i];
    if (is(p->type, "struct trunk_engine *")) {
        return s->p.host.engine;
    }
    if (p->of != NULL) {
        const sized *one = struct_named(p->of);
        CHECK(one->size <= sizeof s->places[i]);
        OK(one->init(s->places[i], one->size));
        if (p->flags & IS_READ_ONLY) {
            fill(s, p->of, s->places[i]);
        }
        return s->places[i];
    }
    if (is(p->type, "struct trunk_engine **")) {
        return &s->made;
    }
    if (is(p->type, "const struct trunk_item *")) {
        return &s->item;
    }
    if (is(p->type, "struct trunk_item *")) {
        return s->items;
    }
    if (is(p->type, "struct trunk_buf *")) {
        return buffer(s, f);
    }
    if (is(p->type, "const struct trunk_outgoing *")) {
        return &s->outgoing;
    }
    if (is(p->type, "const struct trunk_token_key *")) {
        return &token_key;
    }
    if (is(p->type, "const char *const *")) {
        return some_networks;
    }
    if (is(p->type, "const char *")) {
        return text(s, p->name);
    }
    if (is(p->type, "const void *") || is(p->type, "const uint8_t *")) {
        return bytes(s, p->name);
    }
    static const char *const stored[] = {
        "void *",
        "struct trunk_device *",
        "struct trunk_discovery_event *",
        "struct trunk_presence_address *",
        "struct trunk_presence_problem *",
    };
    int is_stored = (p->flags & IS_STORE) != 0;
    for (size_t k = 0; k < COUNT(stored); k++) {
        is_stored = is_stored || is(p->type, stored[k]);
    }
    if (is_stored) {
        return s->stores[i];
    }
    fprintf(stderr, "tests/c/interface.h has no value of type %s, for %s\n", p->type, f->name);
    _exit(1);
}

/* Arguments that are all valid. */
static inline void arguments(subject *s, const function *f, uint64_t *a) {
    CHECK(f->count <= MOST_PARAMS);
    for (int i = 0; i < f->count; i++) {
        const param *p = &f->params[i];
        if (p->flags & IS_CALLBACK) {
            for (size_t k = 0; k < COUNT(callbacks); k++) {
                if (is(callbacks[k].name, p->type)) {
                    a[i] = callbacks[k].stub;
                }
            }
        } else if (p->flags & IS_POINTER) {
            a[i] = (uintptr_t)pointer(s, f, i);
        } else if (p->flags & IS_HANDLE) {
            a[i] = handle(s, f, p->type);
        } else {
            a[i] = number(s, p, i > 0 ? p - 1 : NULL);
        }
    }
}

#define EACH_FUNCTION(f)                                                                           \
    (const function *f = functions; f < functions + COUNT(functions); f++)

/* What a call with valid arguments gives. */
static inline trunk_result expects(const subject *s, const function *f) {
    static const struct {
        const char *name;
        trunk_result with_threads, without;
    } expected[] = {
        {"trunk_engine_poll", TRUNK_ERR_NOT_THREADLESS, TRUNK_OK},
        {"trunk_engine_fd", TRUNK_ERR_NOT_THREADLESS, TRUNK_OK},
        {"trunk_engine_next_timeout_ns", TRUNK_ERR_NOT_THREADLESS, TRUNK_OK},
        /* There is no partner, and there is an identity. */
        {"trunk_pairing_send", TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_NO_CONNECTION},
        {"trunk_pairing_send_relayed", TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_INVALID_ARGUMENT},
        {"trunk_pairing_connect", TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_NO_CONNECTION},
        {"trunk_pairing_accept", TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_NO_CONNECTION},
    };
    for (size_t i = 0; i < COUNT(expected); i++) {
        if (is(expected[i].name, f->name)) {
            return s->threadless ? expected[i].without : expected[i].with_threads;
        }
    }
    return TRUNK_OK;
}

static inline int has_engine(const function *f) {
    return f->count > 0 && is(f->params[0].type, "struct trunk_engine *");
}

/* After a call: what is about nothing that was there before has left it as it is. */
static inline void settle_after(subject *s, const function *f) {
    int is_about = has_engine(f);
    for (int i = 0; i < f->count; i++) {
        is_about = is_about || (f->params[i].flags & IS_HANDLE);
    }
    if (is_about) {
        renew(s);
    } else {
        tidy(s);
    }
}

#endif
