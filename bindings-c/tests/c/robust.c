/* Every function of the interface with arguments, at times and in places that are wrong. */
#include "interface.h"

#include <pthread.h>
#include <sys/wait.h>

static subject s;

static void valid_arguments_with(int threadless) {
    begin(&s, threadless);
    for EACH_FUNCTION (f) {
        uint64_t a[MOST_PARAMS];
        arguments(&s, f, a);
        trunk_result result = invoke(f, a, "valid arguments");
        if (result != expects(&s, f)) {
            COMPLAIN("%s: %s", f->name, trunk_result_str(result));
        }
        /* Once more: closed twice, sent twice, and so on. */
        if (!is(f->name, "trunk_buf_alloc")) {
            tidy(&s);
            invoke(f, a, "once more");
        }
        renew(&s);
    }
    end(&s);
    conclude();
}

static void valid_arguments(void) { valid_arguments_with(0); }
static void valid_arguments_without_threads(void) { valid_arguments_with(1); }

/* ---- NULL ---- */

static void zeros(void) {
    for EACH_FUNCTION (f) {
        uint64_t a[MOST_PARAMS] = {0};
        trunk_result result = invoke(f, a, "all arguments 0");
        if (has_engine(f) && result == TRUNK_OK && !is(f->name, "trunk_engine_destroy")) {
            COMPLAIN("%s succeeds with nothing but zeros", f->name);
        }
    }
    conclude();
}

static void null_pointers_with(int threadless) {
    begin(&s, threadless);
    for EACH_FUNCTION (f) {
        if (expects(&s, f) == TRUNK_ERR_NOT_THREADLESS) {
            continue;
        }
        for (int i = 0; i < f->count; i++) {
            uint64_t a[MOST_PARAMS];
            unsigned flags = f->params[i].flags;
            if (!(flags & (IS_POINTER | IS_CALLBACK))) {
                continue;
            }
            arguments(&s, f, a);
            a[i] = 0;
            trunk_result result = invoke(f, a, f->params[i].name);
            if (!(flags & MAY_BE_NULL) && result != TRUNK_ERR_NULL) {
                COMPLAIN("%s: %s is NULL, which its comment does not allow: %s", f->name,
                         f->params[i].name, trunk_result_str(result));
            }
            if (result == TRUNK_OK) {
                renew(&s);
            }
        }
    }
    end(&s);
    conclude();
}

static void null_pointers(void) { null_pointers_with(0); }
static void null_pointers_without_threads(void) { null_pointers_with(1); }

/* ---- handles ---- */

enum { MOST_WRONG = 4096 };
static uint64_t wrong[MOST_WRONG];
static size_t wrong_count;

static void add_wrong(uint64_t handle) {
    CHECK(wrong_count < MOST_WRONG);
    wrong[wrong_count++] = handle;
}

/* Handles of what has ended. */
static void add_stale(trunk_engine *engine) {
    trunk_listen_config config;
    trunk_listener listener;
    trunk_conn unused;
    trunk_channel channel;
    OK(trunk_listen_config_init(&config));
    fill(&s, "trunk_listen_config", &config);
    OK(trunk_listen(engine, &config, &listener));
    OK(trunk_listener_close(engine, listener, 0));
    add_wrong(listener);
    OK(try_connect(&s.p.host, s.p.client, forced, &unused));
    trunk_item item = expect(engine, TRUNK_ITEM_INCOMING);
    OK(trunk_accept(engine, item.conn));
    becomes(engine, TRUNK_STATUS_CONNECTED);
    OK(trunk_channel_open(engine, item.conn, "stale", NULL, &channel));
    OK(trunk_close(engine, item.conn, 0, NULL, TRUNK_LINGER_NONE));
    add_wrong(item.conn);
    add_wrong(channel);
    release(&item);
}

static uint64_t next_random(void) {
    static uint64_t state = UINT64_C(0x9e3779b97f4a7c15);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * UINT64_C(0x2545f4914f6cdd1d);
}

static void try_wrong(const function *f, int i) {
    uint64_t a[MOST_PARAMS];
    arguments(&s, f, a);
    uint64_t right = a[i];
    for (size_t k = 0; k < wrong_count + 64; k++) {
        /* Those of the list, and the right one with one bit turned. */
        a[i] = k < wrong_count ? wrong[k] : right ^ UINT64_C(1) << (k - wrong_count);
        int is_none = a[i] == 0 && is(f->params[i].type, "trunk_group");
        if (a[i] == right || is_none) {
            continue;
        }
        trunk_result result = f->call(a);
        if (result != TRUNK_ERR_INVALID_HANDLE) {
            COMPLAIN("%s: %s is %#llx, no valid handle: %s", f->name, f->params[i].name,
                     (unsigned long long)a[i], trunk_result_str(result));
            return;
        }
    }
}

static void wrong_handles(void) {
    trunk_group group;
    begin(&s, 0);
    OK(trunk_group_new(s.p.client, &group));
    add_stale(s.p.host.engine);
    add_wrong(0);
    add_wrong(1);
    add_wrong(UINT64_MAX);
    for EACH_FUNCTION (f) {
        for (int i = 0; i < f->count; i++) {
            if (f->params[i].flags & IS_HANDLE) {
                add_wrong(handle(&s, f, f->params[i].type));
            }
        }
    }
    add_wrong(s.p.at_client);
    add_wrong(s.ends.at_client);
    add_wrong(group);
    while (wrong_count < (is_checked() ? 100 : MOST_WRONG)) {
        add_wrong(next_random());
    }
    for EACH_FUNCTION (f) {
        for (int i = 0; i < f->count; i++) {
            if (f->params[i].flags & IS_HANDLE) {
                try_wrong(f, i);
            }
        }
    }
    /* What is there was left alone. */
    trunk_status status;
    OK(trunk_conn_status(s.p.host.engine, s.p.at_host, &status));
    CHECK(status == TRUNK_STATUS_CONNECTED);
    OK(trunk_send(s.p.client, s.ends.at_client, "x", 1));
    end(&s);
    conclude();
}

/* ---- engines that have ended ---- */

static void destroyed_engines(void) {
    trunk_engine *gone = engine_with(0);
    OK(trunk_engine_destroy(gone));
    begin(&s, 0);
    for EACH_FUNCTION (f) {
        uint64_t a[MOST_PARAMS];
        if (has_engine(f)) {
            arguments(&s, f, a);
            a[0] = (uintptr_t)gone;
            trunk_result result = invoke(f, a, "destroyed engine");
            if (result != TRUNK_ERR_INVALID_HANDLE) {
                COMPLAIN("%s with a destroyed engine: %s", f->name, trunk_result_str(result));
            }
        }
    }
    end(&s);
    conclude();
}

static void after_shutdown_with(int threadless) {
    begin(&s, threadless);
    OK(trunk_buf_alloc(s.p.host.engine, 100, &s.buf));
    OK(trunk_shutdown(s.p.host.engine, 0, NULL));
    for EACH_FUNCTION (f) {
        uint64_t a[MOST_PARAMS];
        if (has_engine(f) && !is(f->name, "trunk_engine_destroy")) {
            arguments(&s, f, a);
            invoke(f, a, "after the shutdown");
        }
    }
    end(&s);
    conclude();
}

static void after_shutdown(void) { after_shutdown_with(0); }
static void after_shutdown_without_threads(void) { after_shutdown_with(1); }

/* ---- threads ---- */

typedef struct elsewhere {
    const function *f;
    uint64_t a[MOST_PARAMS];
    trunk_result result;
} elsewhere;

static void *call_elsewhere(void *at) {
    elsewhere *call = at;
    call->result = invoke(call->f, call->a, "on another thread");
    return NULL;
}

/* A thread-less engine refuses another thread where the comment says so, and only there. */
static void another_thread(void) {
    begin(&s, 1);
    for EACH_FUNCTION (f) {
        elsewhere call = {f, {0}, 0};
        pthread_t thread;
        arguments(&s, f, call.a);
        CHECK(pthread_create(&thread, NULL, call_elsewhere, &call) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        trunk_result wanted =
            documents(f, TRUNK_ERR_WRONG_THREAD) ? TRUNK_ERR_WRONG_THREAD : TRUNK_OK;
        if (call.result != wanted) {
            COMPLAIN("%s on another thread: %s", f->name, trunk_result_str(call.result));
        }
        if (call.result == TRUNK_OK) {
            renew(&s);
        }
    }
    end(&s);
    conclude();
}

/* ---- fork ---- */

static void in_the_child(void) {
    s.forked = 1;
    for EACH_FUNCTION (f) {
        uint64_t a[MOST_PARAMS];
        /* Its comment says so of what belongs to the parent. */
        int belongs = documents(f, TRUNK_ERR_FORKED);
        arguments(&s, f, a);
        if (is(f->name, "trunk_message_release")) {
            a[0] = (uintptr_t)&s.item;
        }
        trunk_result result = invoke(f, a, "in a forked child");
        if (result != (belongs ? TRUNK_ERR_FORKED : TRUNK_OK)) {
            COMPLAIN("%s in a forked child: %s", f->name, trunk_result_str(result));
        }
    }
    tidy(&s);

    /* The child's own engine is like any other, and knows nothing of the parent's. */
    static subject own;
    trunk_status status;
    begin(&own, s.threadless);
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_conn_status(own.p.client, s.p.at_client, &status));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_send(own.p.client, s.ends.at_client, "x", 1));
    end(&own);
    conclude();
}

static void forked_with(int threadless) {
    int status;
    begin(&s, threadless);
    OK(trunk_buf_alloc(s.p.host.engine, 100, &s.buf));
    source(&s);
    discovery(&s);
    announcer(&s);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        driven[0] = driven[1] = NULL;
        in_the_child();
        exit(0); /* with destructors, as a program would */
    }
    pid_t ended = 0;
    while (ended == 0) {
        /* The parent goes on meanwhile. */
        OK(trunk_send(s.p.client, s.ends.at_client, "x", 1));
        skip(s.p.host.engine, TRUNK_ITEM_DATA);
        ended = waitpid(child, &status, WNOHANG);
    }
    CHECK(ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    renew(&s);
    end(&s);
}

static void forked(void) { forked_with(0); }
static void forked_without_threads(void) { forked_with(1); }

/* ---- structs of other versions ---- */

/* Memory of a size that ends where the process has none: what goes beyond it crashes. */
static unsigned char *fenced(size_t size) {
    static unsigned char *fence;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (fence == NULL) {
        fence = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(fence != MAP_FAILED && mprotect(fence + page, page, PROT_NONE) == 0);
    }
    CHECK(size <= page);
    memset(fence, 0xee, page);
    return fence + page - size;
}

/* The first bytes of a valid struct, as a program has it that knew no more, or knows more. */
static unsigned char *cut(const sized *one, const uint64_t *valid, size_t size) {
    unsigned char *at = fenced(size < sizeof(uint32_t) ? sizeof(uint32_t) : size);
    uint32_t stated = (uint32_t)size;
    memset(at, 0, size);
    memcpy(at, valid, size < one->size ? size : one->size);
    memcpy(at, &stated, sizeof stated);
    return at;
}

static int is_possible(const sized *one, size_t size) {
    return size >= 2 * sizeof(uint32_t) && size % one->align == 0;
}

static void initialisers(void) {
    uint64_t all[512], byte[512];
    for (const sized *one = structs; one < structs + COUNT(structs); one++) {
        CHECK(one->size + 64 <= sizeof all);
        OK(one->init(all, one->size));
        for (size_t size = 0; size <= one->size + 64; size++) {
            unsigned char *at = fenced(size);
            memcpy(byte, at, size);
            trunk_result result = one->init(at, size);
            if (!is_possible(one, size)) {
                if (result != TRUNK_ERR_INVALID_ARGUMENT || memcmp(at, byte, size) != 0) {
                    COMPLAIN("%s of %zu bytes: %s", one->name, size, trunk_result_str(result));
                }
                continue;
            }
            uint32_t stated;
            memcpy(&stated, at, sizeof stated);
            int is_same = 1;
            for (size_t i = sizeof stated; i < size; i++) {
                is_same = is_same && at[i] == (i < one->size ? ((unsigned char *)all)[i] : 0);
            }
            if (result != TRUNK_OK || stated != size || !is_same || at[-1] != 0xee) {
                COMPLAIN("%s of %zu bytes has other defaults", one->name, size);
            }
        }
        GIVES(TRUNK_ERR_INVALID_ARGUMENT, one->init(all, SIZE_MAX));
        GIVES(TRUNK_ERR_INVALID_ARGUMENT, one->init(all, (size_t)1 << 32));
    }
    conclude();
}

/* What a call gives when a struct is as it should be. */
static trunk_result expects_of(const function *f, const sized *one) {
    if (is(f->name, "trunk_send_to") && is(one->name, "trunk_sec_info")) {
        return TRUNK_ERR_NO_CONNECTION; /* it is wanted for another one than there is */
    }
    if (is(f->name, "trunk_event_source_start") && is(one->name, "trunk_callbacks")) {
        return TRUNK_ERR_INVALID_ARGUMENT; /* it does not call */
    }
    return expects(&s, f);
}

/* A call with one struct of a certain size; `at` is where the call finds the struct. */
static void call_of_size(const function *f, const param *p, const sized *one, uint64_t *a,
                      uint64_t *place, const uint64_t *valid, size_t size) {
    char how[200];
    int is_read = (p->flags & IS_READ_ONLY) != 0;
    snprintf(how, sizeof how, "%s of %zu bytes", one->name, size);
    unsigned char *at = cut(one, valid, size);
    *place = (uintptr_t)at;
    trunk_result result = invoke(f, a, how);
    uint32_t stated;
    memcpy(&stated, at, sizeof stated);
    if (stated != size) {
        COMPLAIN("%s, %s: its size has changed", f->name, how);
    }
    if (!is_possible(one, size)) {
        if (result != TRUNK_ERR_INVALID_ARGUMENT) {
            COMPLAIN("%s, %s: %s", f->name, how, trunk_result_str(result));
        }
    } else if (size >= one->size || !is_read) {
        if (result != expects_of(f, one)) {
            COMPLAIN("%s, %s: %s", f->name, how, trunk_result_str(result));
        }
    } /* Otherwise a field that is required may be missing. */
    for (size_t i = one->size; i < size; i++) {
        CHECK(at[i] == 0 && "what the library does not know it leaves alone");
    }
}

/* A newer program that has set what this library does not know. */
static void call_with_unknown(const function *f, const param *p, const sized *one, uint64_t *a,
                              uint64_t *place, const uint64_t *valid) {
    size_t size = one->size + 64;
    unsigned char *at = cut(one, valid, size);
    at[size - 1] = 1;
    *place = (uintptr_t)at;
    trunk_result result = invoke(f, a, "fields of a newer version");
    int is_fine = result == TRUNK_ERR_INVALID_ARGUMENT ||
                  (result == TRUNK_OK && !(p->flags & IS_READ_ONLY));
    if (!is_fine || at[size - 1] != 1) {
        COMPLAIN("%s, %s with unknown fields: %s", f->name, one->name, trunk_result_str(result));
    }
}

/* A struct in every size that it ever had, and in sizes to come. `outer` is the struct that points
 * to it at `offset`, or NULL when the function itself is given it. */
static void all_sizes(const function *f, int i, const sized *one, const sized *outer,
                      size_t offset) {
    static uint64_t valid[512];
    size_t more[] = {0, 4, one->size, one->size + one->align, one->size + 64};
    for (size_t k = 0; k <= one->count + COUNT(more); k++) {
        uint64_t a[MOST_PARAMS];
        arguments(&s, f, a);
        OK(one->init(valid, one->size));
        fill(&s, one->name, valid);
        uint64_t *place = &a[i];
        if (outer != NULL) {
            place = (uint64_t *)(void *)((unsigned char *)(uintptr_t)a[i] + offset);
        }
        if (k < one->count) {
            call_of_size(f, &f->params[i], one, a, place, valid, one->fields[k].offset);
        } else if (k < one->count + COUNT(more)) {
            call_of_size(f, &f->params[i], one, a, place, valid, more[k - one->count]);
        } else {
            call_with_unknown(f, &f->params[i], one, a, place, valid);
        }
        settle_after(&s, f);
    }
}

static void struct_sizes(void) {
    int tried[COUNT(structs)] = {0};
    begin(&s, 0);
    for EACH_FUNCTION (f) {
        for (int i = 0; i < f->count; i++) {
            if (f->params[i].of == NULL || strstr(f->name, "_init_sized") != NULL) {
                continue;
            }
            const sized *one = struct_named(f->params[i].of);
            all_sizes(f, i, one, NULL, 0);
            tried[one - structs] = 1;
            int is_read = (f->params[i].flags & IS_READ_ONLY) != 0;
            for (size_t k = 0; k < one->count && is_read; k++) {
                if (one->fields[k].of != NULL) {
                    const sized *inner = struct_named(one->fields[k].of);
                    all_sizes(f, i, inner, one, one->fields[k].offset);
                    tried[inner - structs] = 1;
                }
            }
        }
    }
    for (size_t i = 0; i < COUNT(structs); i++) {
        if (!tried[i]) {
            COMPLAIN("no function takes %s", structs[i].name);
        }
    }
    end(&s);
    conclude();
}

/* ---- settings ---- */

/* A number of the application's choice: not a length that goes with a pointer. */
static int is_number(const field *one) {
    static const char *const others[] = {"size_t", "void *"};
    for (size_t i = 0; i < COUNT(others); i++) {
        if (is(one->type, others[i])) {
            return 0;
        }
    }
    return strchr(one->type, '*') == NULL && strchr(one->type, '[') == NULL &&
           strstr(one->type, "_fn") == NULL && (one->size == 4 || one->size == 8) &&
           !is(one->name, "struct_size");
}

static void set_extreme(const function *f, int i, const sized *one, const sized *outer,
                        size_t offset) {
    static uint64_t inner[512];
    static const uint64_t extremes[] = {0, 1, UINT32_MAX, INT32_MAX, UINT64_MAX, INT64_MAX,
                                        UINT64_C(1) << 40, 100000};
    for (const field *changed = one->fields; changed < one->fields + one->count; changed++) {
        for (size_t k = 0; k < COUNT(extremes) && is_number(changed); k++) {
            uint64_t a[MOST_PARAMS];
            char how[200];
            arguments(&s, f, a);
            unsigned char *at = (unsigned char *)(uintptr_t)a[i];
            if (outer != NULL) {
                uint64_t place = (uintptr_t)inner;
                OK(one->init(inner, one->size));
                fill(&s, one->name, inner);
                memcpy(at + offset, &place, sizeof place);
                at = (unsigned char *)inner;
            }
            memcpy(at + changed->offset, &extremes[k], changed->size);
            snprintf(how, sizeof how, "%s.%s = %llu", one->name, changed->name,
                     (unsigned long long)extremes[k]);
            if (invoke(f, a, how) == TRUNK_OK) {
                settle_after(&s, f);
            }
        }
    }
}

static void extreme_numbers(void) {
    begin(&s, 0);
    for EACH_FUNCTION (f) {
        for (int i = 0; i < f->count; i++) {
            const param *p = &f->params[i];
            int64_t values[] = {0, 1, -1, -2, INT64_MIN, INT32_MIN, INT32_MAX};
            size_t count = COUNT(values);
            if (p->flags & (IS_POINTER | IS_HANDLE | IS_CALLBACK)) {
                continue;
            }
            if (is(p->type, "size_t")) {
                count = 1; /* others go with a pointer */
            } else if (is(p->type, "int64_t") && strstr(p->name, "_ns") != NULL) {
                values[2] = values[6] = 0; /* -1 waits forever */
            }
            for (size_t k = 0; k < count; k++) {
                uint64_t a[MOST_PARAMS];
                arguments(&s, f, a);
                a[i] = (uint64_t)values[k];
                if (invoke(f, a, p->name) == TRUNK_OK) {
                    renew(&s);
                }
            }
        }
    }
    end(&s);
    conclude();
}

static void strange_texts(void) {
    static char longest[100000];
    const char *const texts[] = {"", "\xff\xfe", "\xc3", longest};
    memset(longest, 'a', sizeof longest - 1);
    begin(&s, 0);
    for EACH_FUNCTION (f) {
        for (int i = 0; i < f->count; i++) {
            for (size_t k = 0; k < COUNT(texts) && is(f->params[i].type, "const char *"); k++) {
                uint64_t a[MOST_PARAMS];
                arguments(&s, f, a);
                a[i] = (uintptr_t)texts[k];
                trunk_result result = invoke(f, a, f->params[i].name);
                if (result == TRUNK_OK) {
                    renew(&s);
                }
                if (result == TRUNK_OK && (k == 1 || k == 2)) {
                    COMPLAIN("%s takes a %s that is not UTF-8", f->name, f->params[i].name);
                }
            }
        }
    }
    end(&s);
    conclude();
}

static void extreme_settings(void) {
    begin(&s, 0);
    for EACH_FUNCTION (f) {
        for (int i = 0; i < f->count; i++) {
            const param *p = &f->params[i];
            if (p->of == NULL || !(p->flags & IS_READ_ONLY)) {
                continue;
            }
            const sized *one = struct_named(p->of);
            set_extreme(f, i, one, NULL, 0);
            for (size_t k = 0; k < one->count; k++) {
                if (one->fields[k].of != NULL) {
                    const sized *inner = struct_named(one->fields[k].of);
                    set_extreme(f, i, inner, one, one->fields[k].offset);
                }
            }
        }
    }
    end(&s);
    conclude();
}

static const test tests[] = {
    {"valid_arguments", valid_arguments},
    {"valid_arguments_without_threads", valid_arguments_without_threads},
    {"zeros", zeros},
    {"null_pointers", null_pointers},
    {"null_pointers_without_threads", null_pointers_without_threads},
    {"wrong_handles", wrong_handles},
    {"destroyed_engines", destroyed_engines},
    {"after_shutdown", after_shutdown},
    {"after_shutdown_without_threads", after_shutdown_without_threads},
    {"another_thread", another_thread},
    {"forked", forked},
    {"forked_without_threads", forked_without_threads},
    {"initialisers", initialisers},
    {"struct_sizes", struct_sizes},
    {"extreme_settings", extreme_settings},
    {"extreme_numbers", extreme_numbers},
    {"strange_texts", strange_texts},
};
MAIN(tests)
