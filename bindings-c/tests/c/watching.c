/* Files that engines keep: captures and figures. */
#include "harness.h"

#include <sys/stat.h>

static char paths[4][128];
static int used;
static uint64_t most;

/* A new name for each engine, unless the test needs none. */
static const char *new_path(const char *what) {
    CHECK(used < 4);
    const char *folder = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    snprintf(paths[used], sizeof paths[used], "%s/trunkline-%s-%d-%d", folder, what, (int)getpid(),
             used);
    return paths[used++];
}

static void capturing(trunk_engine_config *config) {
    CHECK(config->capture_file == NULL && config->capture_max_bytes == 1u << 30);
    config->capture_file = new_path("capture");
    if (most != 0) {
        config->capture_max_bytes = most;
    }
}

static void keeping_figures(trunk_engine_config *config) {
    CHECK(config->stats_file == NULL);
    config->stats_file = new_path("stats");
}

/* All of a file, which is then removed; only its owner could read it. */
static unsigned char *contents(const char *path, size_t *size) {
    struct stat about;
    CHECK(stat(path, &about) == 0 && (about.st_mode & 0777) == 0600);
    *size = (size_t)about.st_size;
    unsigned char *bytes = malloc(*size);
    FILE *file = fopen(path, "rb");
    CHECK(bytes != NULL && file != NULL && fread(bytes, 1, *size, file) == *size);
    fclose(file);
    CHECK(unlink(path) == 0);
    return bytes;
}

static uint32_t word(const unsigned char *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* What the blocks of a pcapng file say. */
typedef struct capture {
    uint64_t packets, received, dropped;
} capture;

static capture walk(const unsigned char *bytes, size_t size) {
    capture found = {0, 0, 0};
    size_t at = 0;
    CHECK(size > 28 && word(bytes) == 0x0A0D0D0A && word(bytes + 8) == 0x1A2B3C4D);
    while (at < size) {
        CHECK(size - at >= 12);
        uint32_t type = word(bytes + at), length = word(bytes + at + 4);
        CHECK(length % 4 == 0 && length >= 12 && length <= size - at);
        CHECK(word(bytes + at + length - 4) == length);
        if (type == 6) {
            found.packets++;
        } else if (type == 5) {
            /* Interface and time, then two options of 8 bytes: received, dropped. */
            const unsigned char *options = bytes + at + 20;
            CHECK(word(options) == (4 | 8u << 16) && word(options + 12) == (5 | 8u << 16));
            found.received += word(options + 4);
            found.dropped += word(options + 16);
        }
        at += length;
    }
    return found;
}

static int holds(const unsigned char *bytes, size_t size, const char *text) {
    size_t length = strlen(text);
    for (size_t at = 0; at + length <= size; at++) {
        if (memcmp(bytes + at, text, length) == 0) {
            return 1;
        }
    }
    return 0;
}

static void captures_have_what_was_said(void) {
    pair p;
    size_t size;
    const char *said = "spoken behind closed doors";
    configure = capturing;
    new_pair(&p, 0);
    configure = NULL;
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "m");
    OK(trunk_send(p.client, ends.at_client, said, strlen(said)));
    skip(p.host.engine, TRUNK_ITEM_DATA);
    end_pair(&p);
    CHECK(used == 2);
    for (int i = 0; i < used; i++) {
        unsigned char *bytes = contents(paths[i], &size);
        capture found = walk(bytes, size);
        CHECK(found.packets > 4 && found.received == found.packets && found.dropped == 0);
        CHECK(holds(bytes, size, said) && holds(bytes, size, "CLIENT_TRAFFIC_SECRET_0"));
        free(bytes);
    }
}

static void a_full_capture_keeps_nothing_up(void) {
    pair p;
    size_t size, all = 3000000, got = 0;
    char *bytes = calloc(1, all);
    CHECK(bytes != NULL);
    configure = capturing;
    most = 256 << 10;
    new_pair(&p, 0);
    configure = NULL;
    two ends = open_channel(&p, TRUNK_KIND_MESSAGES, "m");
    OK(trunk_send(p.client, ends.at_client, bytes, all));
    while (got < all) {
        trunk_item item = expect(p.host.engine, TRUNK_ITEM_DATA);
        got += item.size;
        release(&item);
    }
    end_pair(&p);
    free(bytes);
    for (int i = 0; i < used; i++) {
        unsigned char *file = contents(paths[i], &size);
        capture found = walk(file, size);
        CHECK(size <= 256 << 10 && found.packets > 4);
        CHECK(found.dropped > 0 && found.received == found.packets + found.dropped);
        free(file);
    }
}

static void captures_that_cannot_be(void) {
    trunk_engine *engine = NULL;
    trunk_engine_config config;
    engine_init(&config);
    config.capture_file = new_path("capture");
    config.capture_max_bytes = 1000;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_engine_new(&config, &engine));
    CHECK(strstr(trunk_last_error(), "capture.max_bytes") != NULL);
    config.capture_max_bytes = 1 << 20;
    config.capture_file = "/";
    CHECK(trunk_engine_new(&config, &engine) != TRUNK_OK && engine == NULL);
    CHECK(strstr(trunk_last_error(), "capture /") != NULL);
    config.capture_file = "/no/such/folder/capture";
    CHECK(trunk_engine_new(&config, &engine) != TRUNK_OK && engine == NULL);
}

static void figures_are_kept(void) {
    pair p;
    size_t size;
    configure = keeping_figures;
    new_pair(&p, 0);
    configure = NULL;
    CHECK(access(paths[0], R_OK) == 0);
    end_pair(&p);
    for (int i = 0; i < used; i++) {
        unsigned char *bytes = contents(paths[i], &size);
        CHECK(size > 256 && memcmp(bytes, "TRNKSTAT", 8) == 0);
        CHECK(holds(bytes, size, "g connections\n") && holds(bytes, size, "c packets_lost\n"));
        free(bytes);
    }
    trunk_engine *engine = NULL;
    trunk_engine_config config;
    engine_init(&config);
    config.stats_file = "/no/such/folder/stats";
    CHECK(trunk_engine_new(&config, &engine) != TRUNK_OK && engine == NULL);
    CHECK(strstr(trunk_last_error(), "stats file /no/such/folder/stats") != NULL);
}

static const test tests[] = {
    {"captures_have_what_was_said", captures_have_what_was_said},
    {"a_full_capture_keeps_nothing_up", a_full_capture_keeps_nothing_up},
    {"captures_that_cannot_be", captures_that_cannot_be},
    {"figures_are_kept", figures_are_kept},
};
MAIN(tests)
