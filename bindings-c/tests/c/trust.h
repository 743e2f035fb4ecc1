/* What the tests of credentials, tokens and event sources share. */
#ifndef TRUST_H
#define TRUST_H

#include "harness.h"

#define HANDLE UINT64_C(0x1234567812345679)

static const uint8_t secret[TRUNK_SECRET_BYTES] = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
                                                   7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
                                                   7, 7, 7, 7, 7, 7, 7, 7, 7, 7};
static const uint8_t other_secret[TRUNK_SECRET_BYTES] = {8};

static inline uint64_t unix_s(void) { return (uint64_t)time(NULL); }

static inline void hex(const char *text, uint8_t *bytes) {
    for (size_t i = 0; text[2 * i] != '\0'; i++) {
        char two[3] = {text[2 * i], text[2 * i + 1], '\0'};
        bytes[i] = (uint8_t)strtoul(two, NULL, 16);
    }
}

typedef struct person {
    char pem[2048];
    trunk_identity identity;
    uint8_t fingerprint[TRUNK_FINGERPRINT_BYTES];
} person;

static inline void make(person *p) {
    OK(trunk_identity_generate(NULL, p->pem, sizeof p->pem, NULL));
    OK(trunk_identity_init(&p->identity));
    p->identity.pem = p->pem;
    p->identity.pem_size = strlen(p->pem);
    OK(trunk_identity_fingerprint(&p->identity, p->fingerprint));
}

static inline trunk_token_key key_of(const char *id, const uint8_t *bytes) {
    trunk_token_key key = {id, bytes, TRUNK_SECRET_BYTES};
    return key;
}

static inline trunk_token_grant token_grant(const char *client) {
    trunk_token_grant grant;
    OK(trunk_token_grant_init(&grant));
    CHECK(grant.roles == TRUNK_TOKEN_ANY_ROLE);
    grant.app = "chess";
    grant.client = client;
    grant.expires_s = unix_s() + 600;
    return grant;
}

#endif
