/*
 * File transfer: speaks the protocol of `trunkline send` and `trunkline recv` (see
 * docs/file-transfer.md), either side. Each file is a channel of kind bytes:
 *
 *     sender:    header (12 bytes), data, SHA-256 (32 bytes), end
 *     receiver:  code (1 byte), SHA-256 (32 bytes), length (1 byte), text, end
 *
 *     transfer recv ADDRESS FOLDER                     serves one sender
 *     transfer send ADDRESS FINGERPRINT FILE...
 *
 * Build:  cc -std=c99 transfer.c -ltrunkline -o transfer
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include "sha256.h"
#include "trunkline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER = 12, DIGEST = 32, MAX_ANSWER = 1 + DIGEST + 1 + 255, MAX_OPEN = 16 };
enum { STORED, DIGEST_DIFFERS, NAME_REFUSED, EXISTS, TOO_LARGE, NOT_STORED, MALFORMED };

static trunk_engine *engine;
static int failures;

static void must(trunk_result result, const char *what) {
    if (result != TRUNK_OK) {
        fprintf(stderr, "%s: %s (%s)\n", what, trunk_last_error(), trunk_result_str(result));
        exit(1);
    }
}

static void failed(const char *name, const char *why) {
    fprintf(stderr, "%s: %s\n", name, why);
    failures++;
}

/* ---- receiving ---------------------------------------------------------------------------- */

/* A file that arrives; user data of its channel. */
typedef struct incoming {
    struct incoming *next; /* of all that arrive */
    trunk_conn conn;
    trunk_channel channel;
    char name[256];
    char partial[64];
    int fd;
    int settled; /* the answer is on its way */
    uint8_t small[DIGEST]; /* header or digest, being put together */
    size_t filled;
    int has_header;
    uint64_t left; /* bytes of data to come */
    uint64_t seen;
    unsigned mode;
    sha256 hash;
} incoming;

static incoming *arriving;

/* One component that cannot lead out of the folder. */
static int is_safe(const char *name, size_t size) {
    if (size == 0 || size > 255 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        strncmp(name, ".trunkline-", 11) == 0) {
        return 0;
    }
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c < 0x20 || c == 0x7f || c == '/') { /* NUL too */
            return 0;
        }
    }
    return 1;
}

/* Ends a file: what is not stored by now never will be. */
static void drop(incoming *file) {
    incoming **at = &arriving;
    while (*at != file) {
        at = &(*at)->next;
    }
    *at = file->next;
    if (file->fd >= 0) {
        close(file->fd);
        unlink(file->partial);
    }
    free(file);
}

static void begin(const trunk_item *item) {
    static unsigned number;
    const trunk_request *request = item->detail.request;
    struct stat there;
    if (item->kind != TRUNK_KIND_BYTES || strncmp(request->name, "file://", 7) != 0 ||
        !is_safe(request->name + 7, request->name_size - 7)) {
        trunk_channel_decline(engine, item->channel, NAME_REFUSED, "not a name for a file");
        return;
    }
    if (lstat(request->name + 7, &there) == 0) {
        failed(request->name + 7, "exists");
        trunk_channel_decline(engine, item->channel, EXISTS, "there is a file of that name");
        return;
    }
    incoming *file = calloc(1, sizeof *file);
    if (file == NULL) {
        trunk_channel_decline(engine, item->channel, NOT_STORED, "no memory");
        return;
    }
    snprintf(file->name, sizeof file->name, "%s", request->name + 7);
    snprintf(file->partial, sizeof file->partial, ".trunkline-%ld-%u.part", (long)getpid(),
             number++);
    file->fd = open(file->partial, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (file->fd < 0) {
        failed(file->name, strerror(errno));
        trunk_channel_decline(engine, item->channel, NOT_STORED, "cannot write here");
        free(file);
        return;
    }
    sha256_init(&file->hash);
    file->conn = item->conn;
    file->channel = item->channel;
    file->next = arriving;
    arriving = file;
    if (trunk_channel_set_user(engine, item->channel, file) != TRUNK_OK) {
        failed(file->name, "the sender gave up"); /* TRUNK_ITEM_CLOSED comes without user data */
        drop(file);
        return;
    }
    /* It may have ended by now: then TRUNK_ITEM_CLOSED is next, and brings the file along. */
    trunk_channel_accept(engine, item->channel, NULL);
}

/* Tells the sender what became of its file. A few hundred bytes on a fresh direction always fit. */
static void answer(incoming *file, int code, const uint8_t digest[DIGEST], const char *text) {
    uint8_t bytes[MAX_ANSWER] = {0};
    size_t length = strlen(text);
    bytes[0] = (uint8_t)code;
    if (digest != NULL) {
        memcpy(bytes + 1, digest, DIGEST);
    }
    bytes[1 + DIGEST] = (uint8_t)length;
    memcpy(bytes + 2 + DIGEST, text, length);
    file->settled = 1;
    if (code == STORED) {
        printf("stored %s (%llu bytes)\n", file->name, (unsigned long long)file->seen);
    } else {
        failed(file->name, text);
        trunk_channel_stop(engine, file->channel, (uint32_t)code);
    }
    if (trunk_send(engine, file->channel, bytes, 2 + DIGEST + length) != TRUNK_OK ||
        trunk_channel_close(engine, file->channel) != TRUNK_OK) {
        trunk_channel_reset(engine, file->channel, NOT_STORED);
    }
}

static int write_all(int fd, const uint8_t *data, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno != EINTR) {
            return 0;
        }
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
    }
    return 1;
}

/* Collects `want` bytes of header or digest; whether they are complete. */
static int fill(incoming *file, size_t want, const uint8_t **data, size_t *size) {
    size_t n = want - file->filled < *size ? want - file->filled : *size;
    memcpy(file->small + file->filled, *data, n);
    file->filled += n;
    *data += n;
    *size -= n;
    return file->filled == want;
}

static void receive(incoming *file, const uint8_t *data, size_t size) {
    if (!file->settled && !file->has_header && fill(file, HEADER, &data, &size)) {
        if (file->small[0] != 1 || file->small[1] != 0) {
            answer(file, MALFORMED, NULL, "unknown version");
            return;
        }
        file->mode = (unsigned)file->small[2] << 8 | file->small[3];
        for (int i = 4; i < HEADER; i++) {
            file->left = file->left << 8 | file->small[i];
        }
        file->has_header = 1;
        file->filled = 0;
    }
    if (file->settled || !file->has_header) {
        return;
    }
    size_t n = file->left < size ? (size_t)file->left : size;
    if (!write_all(file->fd, data, n)) {
        answer(file, NOT_STORED, NULL, strerror(errno));
        return;
    }
    sha256_add(&file->hash, data, n);
    file->seen += n;
    file->left -= n;
    data += n;
    size -= n;
    if (file->left == 0) {
        fill(file, DIGEST, &data, &size);
        if (size > 0) {
            answer(file, MALFORMED, NULL, "bytes beyond the digest");
        }
    }
}

/* Everything is here: the file gets its name, in one step that never replaces another file. */
static void finish(incoming *file) {
    uint8_t digest[DIGEST];
    if (file->settled) {
        return;
    }
    if (!file->has_header || file->left > 0 || file->filled < DIGEST) {
        answer(file, MALFORMED, NULL, "ended before its digest");
        return;
    }
    sha256_end(&file->hash, digest);
    if (memcmp(digest, file->small, DIGEST) != 0) {
        answer(file, DIGEST_DIFFERS, digest, "what arrived is not what was sent");
        return;
    }
    if (file->mode != 0) {
        fchmod(file->fd, file->mode & 0777);
    }
    int closed = close(file->fd);
    file->fd = -1;
    int stored = closed == 0 && link(file->partial, file->name) == 0;
    int why = errno;
    unlink(file->partial);
    if (stored) {
        answer(file, STORED, digest, "");
    } else {
        answer(file, why == EEXIST ? EXISTS : NOT_STORED, digest, strerror(why));
    }
}

/* Whether the sender has gone. */
static int recv_step(const trunk_item *item) {
    incoming *file = item->channel_user;
    switch (item->type) {
    case TRUNK_ITEM_INCOMING:
        trunk_accept(engine, item->conn); /* if it cannot be, an item will say why */
        break;
    case TRUNK_ITEM_REQUEST:
        begin(item);
        break;
    case TRUNK_ITEM_DATA:
        if (file != NULL) {
            receive(file, item->data, item->size);
        }
        break;
    case TRUNK_ITEM_EOF:
        if (file != NULL) {
            finish(file);
        }
        break;
    case TRUNK_ITEM_CLOSED: /* of whatever kind: after its end, or because something broke */
        if (file != NULL) {
            if (!file->settled) {
                failed(file->name, "the sender gave up");
            }
            drop(file);
        }
        break;
    case TRUNK_ITEM_STATUS:
        if (item->detail.status->new_status == TRUNK_STATUS_PROBLEM_DETECTED_LOCALLY) {
            failed("connection", item->detail.status->reason_text);
        }
        if (item->detail.status->new_status >= TRUNK_STATUS_CLOSED_BY_PEER) {
            trunk_close(engine, item->conn, 0, NULL, TRUNK_LINGER_NONE);
        }
        break;
    case TRUNK_ITEM_DEAD: /* nothing more is told about its channels */
        for (incoming *at = arriving, *next; at != NULL; at = next) {
            next = at->next;
            if (at->conn == item->conn) {
                if (!at->settled) {
                    failed(at->name, "the sender was lost");
                }
                drop(at);
            }
        }
        return 1;
    }
    return 0;
}

static void recv_begin(const char *address, const char *folder) {
    char pem[2048], text[TRUNK_FINGERPRINT_TEXT_BYTES], local[64];
    uint8_t fingerprint[TRUNK_FINGERPRINT_BYTES];
    if (chdir(folder) != 0) {
        perror(folder);
        exit(1);
    }
    must(trunk_identity_generate(NULL, pem, sizeof pem, NULL), "new identity");
    trunk_identity identity;
    trunk_identity_init(&identity);
    identity.pem = pem;
    identity.pem_size = strlen(pem);
    trunk_trust anybody; /* a sender may say who it is */
    trunk_trust_init(&anybody);
    anybody.kind = TRUNK_TRUST_DANGEROUS_ANY;
    anybody.optional = 1;
    trunk_listen_config config;
    trunk_listen_config_init(&config);
    config.address = address;
    config.identity = &identity;
    config.client_trust = &anybody;
    trunk_listener listener;
    must(trunk_listen(engine, &config, &listener), "listen");
    must(trunk_listener_address(engine, listener, local, sizeof local, NULL), "address");
    must(trunk_identity_fingerprint(&identity, fingerprint), "fingerprint");
    must(trunk_fingerprint_format(fingerprint, text), "fingerprint");
    printf("%s %s\n", local, text);
    fflush(stdout);
}

/* ---- sending ------------------------------------------------------------------------------ */

enum stage { WAITING, AT_HEADER, AT_DATA, AT_DIGEST, AT_END, AT_ANSWER, SETTLED };

/* A file that is sent; user data of its channel. */
typedef struct outgoing {
    const char *path, *name;
    enum stage stage;
    trunk_channel channel;
    int fd;
    uint64_t left;
    uint8_t header[HEADER], digest[DIGEST], answer[MAX_ANSWER];
    size_t answered;
    trunk_buf block; /* read, and not taken yet */
    size_t block_size;
    sha256 hash;
} outgoing;

static outgoing *files;
static int file_count, open_count, settled_count;
static trunk_conn conn;
static int starving; /* something was not taken, and no item will say when to try again */

static void settle(outgoing *file, const char *error) {
    if (file->stage == SETTLED) {
        return;
    }
    if (error != NULL) {
        failed(file->name, error);
    } else {
        printf("sent %s\n", file->name);
    }
    if (file->stage != WAITING) {
        open_count--;
    }
    if (file->fd >= 0) {
        close(file->fd);
        file->fd = -1;
    }
    trunk_buf_free(&file->block);
    file->stage = SETTLED;
    settled_count++;
}

/* The file cannot be sent to its end: the receiver drops it. */
static void give_up(outgoing *file, const char *error) {
    enum { SOURCE_CHANGED = 8 };
    trunk_channel_reset(engine, file->channel, SOURCE_CHANGED);
    settle(file, error);
}

static void open_file(outgoing *file) {
    struct stat about;
    char channel_name[7 + 256];
    file->fd = open(file->path, O_RDONLY);
    if (file->fd < 0 || fstat(file->fd, &about) != 0 || !S_ISREG(about.st_mode)) {
        settle(file, "cannot be read as a file");
        return;
    }
    file->left = (uint64_t)about.st_size;
    file->header[0] = 1;
    file->header[2] = (uint8_t)((about.st_mode & 0777) >> 8);
    file->header[3] = (uint8_t)about.st_mode;
    for (int i = 0; i < 8; i++) {
        file->header[4 + i] = (uint8_t)(file->left >> (56 - 8 * i));
    }
    sha256_init(&file->hash);
    snprintf(channel_name, sizeof channel_name, "file://%s", file->name);
    if (trunk_channel_open(engine, conn, channel_name, NULL, &file->channel) != TRUNK_OK) {
        settle(file, trunk_last_error());
        return;
    }
    file->stage = AT_HEADER;
    open_count++;
    if (trunk_channel_set_user(engine, file->channel, file) != TRUNK_OK) {
        settle(file, "the channel has ended"); /* TRUNK_ITEM_CLOSED comes without user data */
    }
}

/* Reads the next block straight into the engine's memory. */
static trunk_result read_block(outgoing *file) {
    trunk_result result = trunk_buf_alloc(engine, 1, &file->block);
    if (result != TRUNK_OK) {
        starving = 1; /* buffers come back with acknowledgements, which nobody tells us of */
        return result;
    }
    size_t want = file->left < file->block.capacity ? (size_t)file->left : file->block.capacity;
    ssize_t n = read(file->fd, file->block.data, want);
    if (n <= 0) {
        give_up(file, "changed while it was read");
        return TRUNK_ERR_STOPPED;
    }
    sha256_add(&file->hash, file->block.data, (size_t)n);
    file->block_size = (size_t)n;
    file->left -= (uint64_t)n;
    return TRUNK_OK;
}

/* Sends as much as is taken; TRUNK_ITEM_WRITABLE brings us back. */
static void pump(outgoing *file) {
    trunk_result result = TRUNK_OK;
    while (result == TRUNK_OK) {
        switch (file->stage) {
        case AT_HEADER:
            result = trunk_send(engine, file->channel, file->header, HEADER);
            file->stage = result == TRUNK_OK ? AT_DATA : AT_HEADER;
            break;
        case AT_DATA:
            if (file->block.data == NULL && file->left == 0) {
                sha256_end(&file->hash, file->digest);
                file->stage = AT_DIGEST;
                break;
            }
            if (file->block.data == NULL) {
                result = read_block(file);
            }
            if (result == TRUNK_OK) {
                result = trunk_send_buf(engine, file->channel, &file->block, file->block_size, 0);
            }
            break;
        case AT_DIGEST:
            result = trunk_send(engine, file->channel, file->digest, DIGEST);
            file->stage = result == TRUNK_OK ? AT_END : AT_DIGEST;
            break;
        case AT_END:
            result = trunk_channel_close(engine, file->channel);
            starving |= result == TRUNK_ERR_WOULD_BLOCK;
            file->stage = result == TRUNK_OK ? AT_ANSWER : AT_END;
            break;
        default: /* not begun, or nothing left to send */
            return;
        }
    }
    if (result != TRUNK_ERR_WOULD_BLOCK && file->stage != SETTLED) {
        settle(file, trunk_last_error());
    }
}

/* Keeps enough files open, and closes the connection after the last one. */
static void advance(void) {
    static int next, closing;
    while (open_count < MAX_OPEN && next < file_count) {
        open_file(&files[next]);
        pump(&files[next++]);
    }
    if (settled_count == file_count && !closing) {
        closing = 1;
        must(trunk_close(engine, conn, 0, "done", TRUNK_LINGER_DEFAULT), "close");
    }
}

static void take_answer(outgoing *file, const trunk_item *item) {
    if (file->answered + item->size > MAX_ANSWER) {
        settle(file, "the answer is too long");
        return;
    }
    memcpy(file->answer + file->answered, item->data, item->size);
    file->answered += item->size;
}

static void judge(outgoing *file) {
    if (file->answered < 2 + DIGEST || file->answered < 2u + DIGEST + file->answer[1 + DIGEST]) {
        settle(file, "the answer is incomplete");
    } else if (file->answer[0] != STORED) {
        char text[256] = {0};
        memcpy(text, file->answer + 2 + DIGEST, file->answer[1 + DIGEST]);
        settle(file, text);
        trunk_channel_reset(engine, file->channel, 0);
    } else if (memcmp(file->answer + 1, file->digest, DIGEST) != 0) {
        settle(file, "the receiver stored something else");
    } else {
        settle(file, NULL);
    }
}

/* Whether the connection is gone. */
static int send_step(const trunk_item *item) {
    outgoing *file = item->channel_user;
    if (item->channel != 0 && file == NULL) {
        return 0; /* of a channel that ended before it had user data */
    }
    switch (item->type) {
    case TRUNK_ITEM_WRITABLE:
        pump(file);
        break;
    case TRUNK_ITEM_STOPPED: /* wanted no more; the answer says why */
        if (file->stage < AT_ANSWER) {
            file->stage = AT_ANSWER;
        }
        break;
    case TRUNK_ITEM_DATA:
        take_answer(file, item);
        break;
    case TRUNK_ITEM_EOF:
        judge(file);
        break;
    case TRUNK_ITEM_CLOSED:
        settle(file, item->detail.closed->text);
        break;
    case TRUNK_ITEM_STATUS:
        if (item->detail.status->new_status >= TRUNK_STATUS_CLOSED_BY_PEER) {
            const char *why = item->detail.status->reason_text;
            failed("connection", why);
            for (int i = 0; i < file_count; i++) {
                settle(&files[i], why);
            }
        }
        break;
    case TRUNK_ITEM_DEAD:
        return 1;
    }
    return 0;
}

static void send_begin(const char *address, const char *fingerprint, char **paths, int count) {
    uint8_t pin[TRUNK_FINGERPRINT_BYTES];
    must(trunk_fingerprint_parse(fingerprint, pin), "fingerprint");
    files = calloc((size_t)count, sizeof *files);
    if (files == NULL) {
        exit(1);
    }
    file_count = count;
    for (int i = 0; i < count; i++) {
        const char *slash = strrchr(paths[i], '/');
        files[i].path = paths[i];
        files[i].name = slash != NULL ? slash + 1 : paths[i];
        files[i].fd = -1;
    }
    trunk_trust trust;
    trunk_trust_init(&trust);
    trust.kind = TRUNK_TRUST_PINS;
    trust.pins = pin;
    trust.pin_count = 1;
    trunk_connect_config config;
    trunk_connect_config_init(&config);
    config.addresses = &address;
    config.address_count = 1;
    config.trust = &trust;
    must(trunk_connect(engine, &config, &conn), "connect");
}

/* ------------------------------------------------------------------------------------------- */

int main(int argc, char **argv) {
    int sends = argc > 4 && strcmp(argv[1], "send") == 0, done = 0;
    if (!sends && (argc != 4 || strcmp(argv[1], "recv") != 0)) {
        fprintf(stderr, "usage: transfer recv ADDRESS FOLDER\n"
                        "       transfer send ADDRESS FINGERPRINT FILE...\n");
        return 2;
    }
    must(trunk_engine_new(NULL, &engine), "engine");
    if (sends) {
        send_begin(argv[2], argv[3], argv + 4, argc - 4);
    } else {
        recv_begin(argv[2], argv[3]);
    }
    while (!done) {
        trunk_item items[64];
        size_t count;
        if (starving) {
            starving = 0;
            for (int i = 0; i < file_count; i++) {
                pump(&files[i]);
            }
        }
        if (sends) {
            advance();
        }
        int64_t wait = starving ? 1000000 : TRUNK_WAIT_FOREVER;
        must(trunk_recv_many(engine, 0, items, 64, wait, &count), "receive");
        for (size_t i = 0; i < count; i++) {
            done |= sends ? send_step(&items[i]) : recv_step(&items[i]);
        }
        trunk_message_release(items, count);
    }
    must(trunk_shutdown(engine, TRUNK_LINGER_DEFAULT, NULL), "shutdown");
    must(trunk_engine_destroy(engine), "destroy");
    free(files);
    return failures > 0;
}
