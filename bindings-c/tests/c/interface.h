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

enum { IS_POINTER = 1, IS_READ_ONLY = 2, IS_HANDLE = 4, IS_CALLBACK = 8, MAY_BE_NULL = 16 };

typedef struct param {
    const char *type, *name;
    const char *of; /* the struct that it points to, if that may grow */
    unsigned flags; /* MAY_BE_NULL: so says the function's comment */
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

/* An engine that has everything, and the peer of its connection. */
typedef struct subject {
    pair p; /* the host is the engine that is called */
    int threadless;
    int forked; /* this is a child, and all of it belongs to the parent */
    two ends;
    trunk_item item; /* data */
    trunk_buf buf;
    trunk_group group;
    trunk_identity identity;
    trunk_trust trust;
    const char *addresses[1];
    trunk_outgoing outgoing;
    /* What calls store. */
    trunk_engine *made;
    trunk_item items[16];
    uint64_t stores[MOST_PARAMS][512];
    uint64_t places[MOST_PARAMS][128];
} subject;

static const char hex_text[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
static const char *const some_networks[1] = {"192.0.2.0/24"};
static uint8_t some_bytes[4096];

/* A shutdown waits as long for peers that are not driven meanwhile. */
static inline void hurry(trunk_engine_config *config) {
    static trunk_connection_config connection;
    connection_init(&connection);
    connection.fin_wait_timeout_ns = SECOND / 20;
    config->connection = &connection;
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
    s->outgoing.channel = s->ends.at_host;
    s->outgoing.data = "x";
    s->outgoing.size = 1;
}

static inline void end(subject *s) {
    driven[0] = driven[1] = NULL;
    OK(trunk_message_release(&s->item, 1));
    OK(trunk_message_release(s->items, COUNT(s->items)));
    OK(trunk_buf_free(&s->buf));
    OK(trunk_engine_destroy(s->made));
    trunk_result result = trunk_engine_destroy(s->p.host.engine);
    CHECK(result == TRUNK_OK || result == TRUNK_ERR_INVALID_HANDLE);
    OK(trunk_engine_destroy(s->p.client));
}

/* After a call that may have changed something. */
static inline void renew(subject *s) {
    end(s);
    begin(s, s->threadless);
}

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
    }
}

static inline uint64_t number(const param *p, const param *before) {
    if (is(p->name, "struct_size")) {
        return struct_named(before->of)->size;
    }
    if (is(p->name, "capacity")) {
        return is(before->type, "char *") ? sizeof(uint64_t[512]) : 1;
    }
    return is(p->type, "size_t") ? 1 : 0;
}

static inline uint64_t handle(const subject *s, const char *type) {
    if (is(type, "trunk_conn")) {
        return s->p.at_host;
    }
    if (is(type, "trunk_channel")) {
        return s->ends.at_host;
    }
    if (is(type, "trunk_listener")) {
        return s->p.host.listener;
    }
    if (is(type, "trunk_group")) {
        return s->group;
    }
    fprintf(stderr, "tests/c/interface.h has no handle of type %s\n", type);
    _exit(1);
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
        fill(s, p->of, s->places[i]);
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
        int wanted = !is(f->name, "trunk_buf_alloc"), is_there = s->buf.data != NULL;
        if (wanted && !is_there) {
            OK(trunk_buf_alloc(s->p.host.engine, 100, &s->buf));
        } else if (is_there && !wanted && !s->forked) {
            OK(trunk_buf_free(&s->buf)); /* it is overwritten */
        }
        return &s->buf;
    }
    if (is(p->type, "const struct trunk_outgoing *")) {
        return &s->outgoing;
    }
    if (is(p->type, "const char *")) {
        return hex_text;
    }
    if (is(p->type, "const char *const *")) {
        return some_networks;
    }
    if (is(p->type, "const void *") || is(p->type, "const uint8_t *")) {
        return some_bytes;
    }
    static const char *const stored[] = {
        "void *", "char *", "uint8_t *", "size_t *", "int32_t *", "uint32_t *", "int64_t *",
        "uint64_t *", "void **", "const char **", "trunk_conn *", "trunk_channel *",
        "trunk_listener *", "trunk_group *", "trunk_status *",
    };
    for (size_t k = 0; k < COUNT(stored); k++) {
        if (is(p->type, stored[k])) {
            return s->stores[i];
        }
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
            a[i] = handle(s, p->type);
        } else {
            a[i] = number(p, i > 0 ? p - 1 : NULL);
        }
    }
}

static inline int has_engine(const function *f) {
    return f->count > 0 && is(f->params[0].type, "struct trunk_engine *");
}

#endif
