/* Who is let in: credentials and access tokens. */
#include "trust.h"

#include <sys/wait.h>

/* ---- credentials ---- */

typedef struct ticket {
    uint8_t bytes[TRUNK_CREDENTIAL_BYTES];
    size_t size;
} ticket;

static trunk_credential_grant grant_until(uint64_t expires_s) {
    trunk_credential_grant grant;
    OK(trunk_credential_grant_init(&grant));
    grant.expires_s = expires_s;
    grant.claims = "player=42";
    grant.claims_size = 9;
    return grant;
}

static ticket issue(trunk_credential_issuer issuer, const trunk_credential_grant *grant) {
    ticket made;
    OK(trunk_credential_issue(issuer, grant, made.bytes, sizeof made.bytes, &made.size));
    return made;
}

static trunk_credential_issuer issuer_for(const char *audience, uint32_t key_id) {
    trunk_credential_issuer issuer;
    OK(trunk_credential_issuer_with_secret(audience, key_id, secret, sizeof secret, &issuer));
    return issuer;
}

static trunk_credential_verifier verifier_for(const char *audience) {
    trunk_credential_verifier verifier;
    OK(trunk_credential_verifier_new(audience, &verifier));
    OK(trunk_credential_verifier_add_secret(verifier, 1, secret, sizeof secret));
    return verifier;
}

/* What a verifier says of a credential at a time; the result must fit what is stored. */
static trunk_credential said(trunk_credential_verifier verifier, const ticket *shown,
                             uint64_t now_s, const uint8_t *peer) {
    trunk_credential found;
    OK(trunk_credential_init(&found));
    trunk_result result =
        trunk_credential_verify(verifier, shown->bytes, shown->size, now_s, peer, &found);
    CHECK(result == (found.error == TRUNK_CREDENTIAL_GOOD ? TRUNK_OK : TRUNK_ERR_CREDENTIAL));
    if (found.error != TRUNK_CREDENTIAL_GOOD) {
        CHECK(found.claims == NULL && found.claims_size == 0 && found.expires_s == 0);
    }
    return found;
}

/* The vectors of docs/credentials.md. */
static void documented_bytes(void) {
    static const char *hmac =
        "01010000000001000000006553f100000000006553ff10706c617965723d3432"
        "4dc6e10fe2b6a21c8ab8614b6a484c56d4dc279efa1b61a748fc4269bb2159a3";
    static const char *signed_ =
        "01020100000002000000006553f100000000006553ff10010101010101010101"
        "0101010101010101010101010101010101010101010101706c617965723d3432"
        "e9ea4ef2d2ddc9d0058b65822f4a351ed33bd514517323efd8b65216cf304537"
        "6271daecbb81497e56ba17003250faae72e88b3a95a3f1f5f66acb7803aa1e07";
    static const char *public_ = "fd1724385aa0c75b64fb78cd602fa1d991fdebf76b13c58ed702eac835e9f618";
    uint8_t expected[256], der[48], key[TRUNK_PUBLIC_KEY_BYTES];
    trunk_credential_grant grant = grant_until(1700003600);
    grant.issued_s = 1700000000;
    trunk_credential_issuer issuer = issuer_for("game", 1);
    ticket made = issue(issuer, &grant);
    hex(hmac, expected);
    CHECK(made.size == strlen(hmac) / 2 && memcmp(made.bytes, expected, made.size) == 0);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_credential_issuer_public_key(issuer, key));
    OK(trunk_credential_issuer_close(issuer));

    hex("302e020100300506032b657004220420", der);
    memset(der + 16, 9, 32);
    OK(trunk_credential_issuer_with_ed25519("game", 2, der, sizeof der, &issuer));
    OK(trunk_credential_issuer_public_key(issuer, key));
    hex(public_, expected);
    CHECK(memcmp(key, expected, sizeof key) == 0);
    grant.has_peer = 1;
    memset(grant.peer, 1, sizeof grant.peer);
    made = issue(issuer, &grant);
    hex(signed_, expected);
    CHECK(made.size == strlen(signed_) / 2 && memcmp(made.bytes, expected, made.size) == 0);
    OK(trunk_credential_issuer_close(issuer));

    trunk_credential_verifier verifier;
    OK(trunk_credential_verifier_new("game", &verifier));
    OK(trunk_credential_verifier_add_public_key(verifier, 2, key));
    trunk_credential found = said(verifier, &made, 1700000001, grant.peer);
    CHECK(found.error == TRUNK_CREDENTIAL_GOOD && found.key_id == 2 && found.has_peer);
    CHECK(found.issued_s == 1700000000 && found.expires_s == 1700003600);
    CHECK(memcmp(found.peer, grant.peer, sizeof found.peer) == 0);
    CHECK(found.claims_size == 9 && memcmp(found.claims, "player=42", 9) == 0);
    CHECK(found.claims > made.bytes && found.claims < made.bytes + made.size);
    OK(trunk_credential_verifier_close(verifier));
}

static void every_reason(void) {
    uint8_t peer[TRUNK_FINGERPRINT_BYTES] = {5}, stranger[TRUNK_FINGERPRINT_BYTES] = {6};
    trunk_credential_issuer issuer = issuer_for("game", 1);
    trunk_credential_verifier verifier = verifier_for("game");
    uint64_t now = unix_s();
    trunk_credential_grant grant = grant_until(now + 60);
    grant.has_peer = 1;
    memcpy(grant.peer, peer, sizeof peer);
    ticket good = issue(issuer, &grant);
    trunk_credential found = said(verifier, &good, 0, peer);
    CHECK(found.error == TRUNK_CREDENTIAL_GOOD && found.expires_s == now + 60);
    CHECK(found.issued_s >= now && found.issued_s <= now + 20);

    CHECK(said(verifier, &good, 0, stranger).error == TRUNK_CREDENTIAL_WRONG_PEER);
    CHECK(said(verifier, &good, 0, NULL).error == TRUNK_CREDENTIAL_WRONG_PEER);
    CHECK(strcmp(trunk_last_error(), "credential belongs to another peer") == 0);
    CHECK(said(verifier, &good, now - 3600, peer).error == TRUNK_CREDENTIAL_NOT_YET_VALID);
    found = said(verifier, &good, now + 67, peer);
    CHECK(found.error == TRUNK_CREDENTIAL_EXPIRED && found.expired_by_s == 7);
    CHECK(said(verifier, &good, now + 60, peer).error == TRUNK_CREDENTIAL_EXPIRED);
    CHECK(said(verifier, &good, now + 59, peer).error == TRUNK_CREDENTIAL_GOOD);

    ticket bad = good;
    for (size_t i = 0; i < good.size; i++) {
        bad.bytes[i] ^= 1;
        CHECK(said(verifier, &bad, 0, peer).error != TRUNK_CREDENTIAL_GOOD);
        bad.bytes[i] ^= 1;
        bad.size = i;
        trunk_credential_error error = said(verifier, &bad, 0, peer).error;
        CHECK(error == (i == 0 ? TRUNK_CREDENTIAL_MISSING
                               : i < 23 + 32 + 32 ? TRUNK_CREDENTIAL_MALFORMED
                                                  : TRUNK_CREDENTIAL_WRONG_SIGNATURE));
        bad.size = good.size;
    }
    trunk_credential_verifier other = verifier_for("another game");
    CHECK(said(other, &good, 0, peer).error == TRUNK_CREDENTIAL_WRONG_SIGNATURE);
    OK(trunk_credential_verifier_add_secret(other, 1, other_secret, sizeof other_secret));

    /* Keys come and go; a number has one key at a time. */
    trunk_credential_issuer next_issuer = issuer_for("game", 0xfffffffe);
    grant.has_peer = 0;
    ticket newer = issue(next_issuer, &grant);
    found = said(verifier, &newer, 0, peer);
    CHECK(found.error == TRUNK_CREDENTIAL_UNKNOWN_KEY && found.key_id == 0xfffffffe);
    OK(trunk_credential_verifier_add_secret(verifier, 0xfffffffe, secret, sizeof secret));
    CHECK(said(verifier, &newer, 0, NULL).error == TRUNK_CREDENTIAL_GOOD);
    OK(trunk_credential_verifier_add_secret(verifier, 1, other_secret, sizeof other_secret));
    CHECK(said(verifier, &good, 0, peer).error == TRUNK_CREDENTIAL_WRONG_SIGNATURE);
    OK(trunk_credential_verifier_remove_key(verifier, 0xfffffffe));
    OK(trunk_credential_verifier_remove_key(verifier, 0xfffffffe));
    CHECK(said(verifier, &newer, 0, NULL).error == TRUNK_CREDENTIAL_UNKNOWN_KEY);
    /* A key is for one algorithm. */
    OK(trunk_credential_verifier_add_public_key(verifier, 1, stranger));
    CHECK(said(verifier, &good, 0, peer).error == TRUNK_CREDENTIAL_WRONG_SIGNATURE);
    OK(trunk_credential_verifier_close(other));
    OK(trunk_credential_verifier_close(verifier));
    OK(trunk_credential_issuer_close(next_issuer));
    OK(trunk_credential_issuer_close(issuer));
}

static void credential_arguments(void) {
    uint64_t h = 5;
    size_t size = 0;
    static uint8_t big[TRUNK_CREDENTIAL_BYTES];
    uint8_t *bytes = big;
    char long_audience[257];
    trunk_credential found;
    memset(long_audience, 'a', 256);
    long_audience[256] = '\0';
    OK(trunk_credential_init(&found));
    GIVES(TRUNK_ERR_NULL, trunk_credential_grant_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_credential_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_credential_issuer_with_secret(NULL, 1, secret, 32, &h));
    GIVES(TRUNK_ERR_NULL, trunk_credential_issuer_with_secret("a", 1, NULL, 32, &h));
    GIVES(TRUNK_ERR_NULL, trunk_credential_issuer_with_secret("a", 1, secret, 32, NULL));
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_credential_issuer_with_secret("a", 1, NULL, 0, &h));
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_credential_issuer_with_secret("a", 1, secret, 31, &h));
    CHECK(strstr(trunk_last_error(), "secret") != NULL);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_credential_issuer_with_secret(long_audience, 1, secret, 32, &h));
    CHECK(strstr(trunk_last_error(), "audience") != NULL);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_credential_issuer_with_secret("\xff", 1, secret, 32, &h));
    GIVES(TRUNK_ERR_NULL, trunk_credential_issuer_with_ed25519("a", 1, NULL, 3, &h));
    GIVES(TRUNK_ERR_NULL, trunk_credential_issuer_with_ed25519("a", 1, secret, 32, NULL));
    GIVES(TRUNK_ERR_SECURITY, trunk_credential_issuer_with_ed25519("a", 1, NULL, 0, &h));
    GIVES(TRUNK_ERR_SECURITY, trunk_credential_issuer_with_ed25519("a", 1, secret, 32, &h));
    GIVES(TRUNK_ERR_NULL, trunk_credential_verifier_new(NULL, &h));
    GIVES(TRUNK_ERR_NULL, trunk_credential_verifier_new("a", NULL));
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_credential_verifier_new(long_audience, &h));
    CHECK(h == 5 && "nothing is stored on an error");

    trunk_credential_issuer issuer = issuer_for("", 1);
    trunk_credential_verifier verifier = verifier_for("");
    trunk_credential_grant grant = grant_until(unix_s() + 60);
    CHECK(issuer != 0 && verifier != 0 && issuer != verifier);
    GIVES(TRUNK_ERR_NULL, trunk_credential_issue(issuer, NULL, bytes, sizeof big, &size));
    GIVES(TRUNK_ERR_NULL, trunk_credential_issue(issuer, &grant, bytes, sizeof big, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_credential_issue(issuer, &grant, NULL, sizeof big, &size));
    GIVES(TRUNK_ERR_BUFFER_TOO_SMALL, trunk_credential_issue(issuer, &grant, NULL, 0, &size));
    CHECK(size == 23 + 9 + 32);
    GIVES(TRUNK_ERR_BUFFER_TOO_SMALL,
          trunk_credential_issue(issuer, &grant, bytes, size - 1, &size));
    CHECK(bytes[0] == 0 && size == 23 + 9 + 32);
    OK(trunk_credential_issue(issuer, &grant, bytes, size, &size));
    GIVES(TRUNK_ERR_NULL, trunk_credential_verify(verifier, bytes, size, 0, NULL, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_credential_verify(verifier, NULL, size, 0, NULL, &found));
    OK(trunk_credential_verify(verifier, bytes, size, 0, NULL, &found));
    GIVES(TRUNK_ERR_CREDENTIAL, trunk_credential_verify(verifier, NULL, 0, 0, NULL, &found));
    CHECK(found.error == TRUNK_CREDENTIAL_MISSING);
    GIVES(TRUNK_ERR_NULL, trunk_credential_issuer_public_key(issuer, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_credential_verifier_add_secret(verifier, 1, NULL, 32));
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_credential_verifier_add_secret(verifier, 1, secret, 31));
    GIVES(TRUNK_ERR_NULL, trunk_credential_verifier_add_public_key(verifier, 1, NULL));
    OK(trunk_credential_verify(verifier, bytes, size, 0, NULL, &found));

    grant.expires_s = 0;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_credential_issue(issuer, &grant, bytes, sizeof big, &size));
    CHECK(strstr(trunk_last_error(), "expires_s") != NULL);
    grant = grant_until(unix_s() + 60);
    grant.claims = NULL;
    GIVES(TRUNK_ERR_NULL, trunk_credential_issue(issuer, &grant, bytes, sizeof big, &size));
    grant.claims = big;
    grant.claims_size = TRUNK_CREDENTIAL_CLAIMS_BYTES + 1;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT,
          trunk_credential_issue(issuer, &grant, bytes, sizeof big, &size));
    CHECK(strstr(trunk_last_error(), "claims") != NULL);
    static uint8_t claims[TRUNK_CREDENTIAL_CLAIMS_BYTES];
    grant.claims = claims;
    grant.claims_size = sizeof claims;
    grant.has_peer = 1;
    OK(trunk_credential_issue(issuer, &grant, bytes, sizeof big, &size));
    CHECK(size == sizeof claims + 23 + 32 + 32);

    /* A program that was built when the struct had fewer fields. */
    uint32_t older[4] = {16, 9, 9, 9};
    GIVES(TRUNK_ERR_CREDENTIAL, trunk_credential_verify(verifier, bytes, size, 0, NULL,
                                                        (trunk_credential *)(void *)older));
    CHECK(older[0] == 16 && older[1] == TRUNK_CREDENTIAL_WRONG_PEER && older[2] == 0);

    uint64_t wrong[] = {0, 1, HANDLE, UINT64_MAX, issuer + 2, issuer ^ UINT64_C(1) << 63};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        GIVES(TRUNK_ERR_INVALID_HANDLE,
              trunk_credential_issue(wrong[i], &grant, bytes, sizeof big, &size));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_credential_issuer_public_key(wrong[i], bytes));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_credential_issuer_close(wrong[i]));
        GIVES(TRUNK_ERR_INVALID_HANDLE,
              trunk_credential_verify(wrong[i], bytes, size, 0, NULL, &found));
        GIVES(TRUNK_ERR_INVALID_HANDLE,
              trunk_credential_verifier_add_secret(wrong[i], 1, secret, 32));
        GIVES(TRUNK_ERR_INVALID_HANDLE,
              trunk_credential_verifier_add_public_key(wrong[i], 1, secret));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_credential_verifier_remove_key(wrong[i], 1));
        GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_credential_verifier_close(wrong[i]));
    }
    /* One of another kind, and one that is closed. */
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_credential_issuer_close(verifier));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_credential_verifier_close(issuer));
    OK(trunk_credential_issuer_close(issuer));
    OK(trunk_credential_verifier_close(verifier));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_credential_issuer_close(issuer));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_credential_verifier_close(verifier));
    GIVES(TRUNK_ERR_INVALID_HANDLE,
          trunk_credential_issue(issuer, &grant, bytes, sizeof big, &size));
}

/* ---- credentials of connections ---- */

/* Listens, and has clients show who they are if they can. */
static void listen_and_ask(host *h, trunk_engine *engine) {
    person self;
    trunk_trust anybody;
    trunk_listen_config config;
    make(&self);
    OK(trunk_trust_init(&anybody));
    anybody.kind = TRUNK_TRUST_DANGEROUS_ANY;
    anybody.optional = 1;
    OK(trunk_listen_config_init(&config));
    config.address = "127.0.0.1:0";
    config.identity = &self.identity;
    config.client_trust = &anybody;
    h->engine = engine;
    memcpy(h->fingerprint, self.fingerprint, sizeof h->fingerprint);
    OK(trunk_listen(engine, &config, &h->listener));
    OK(trunk_listener_address(engine, h->listener, h->address, sizeof h->address, NULL));
}

static const ticket *shown;
static const person *shower;

static void as_shown(trunk_connect_config *config) {
    config->reuse = TRUNK_REUSE_FORCE_NEW;
    config->credential = shown->bytes;
    config->credential_size = shown->size;
    config->identity = shower == NULL ? NULL : &shower->identity;
}

/* A client presents a credential; what the host makes of it. */
static trunk_credential_error present(const host *h, trunk_engine *client,
                                      trunk_credential_verifier verifier, const ticket *credential,
                                      const person *who) {
    trunk_conn conn;
    trunk_credential found;
    shown = credential;
    shower = who;
    OK(try_connect(h, client, as_shown, &conn));
    trunk_item item = expect(h->engine, TRUNK_ITEM_INCOMING);
    const trunk_incoming *incoming = item.detail.incoming;
    CHECK(incoming->has_peer == (who != NULL));
    OK(trunk_credential_init(&found));
    trunk_result result = trunk_credential_verify(
        verifier, incoming->credential, incoming->credential_size, 0,
        incoming->has_peer ? incoming->peer : NULL, &found);
    if (result == TRUNK_OK) {
        CHECK(found.claims_size == 9 && memcmp(found.claims, "player=42", 9) == 0);
        OK(trunk_accept(h->engine, item.conn));
        becomes(h->engine, TRUNK_STATUS_CONNECTED);
        becomes(client, TRUNK_STATUS_CONNECTED);
        OK(trunk_close(h->engine, item.conn, 0, NULL, 0));
        becomes(client, TRUNK_STATUS_CLOSED_BY_PEER);
    } else {
        CHECK(result == TRUNK_ERR_CREDENTIAL);
        char words[128];
        snprintf(words, sizeof words, "%s", trunk_last_error());
        OK(trunk_reject(h->engine, item.conn, 0, trunk_last_error()));
        trunk_item told = expect(client, TRUNK_ITEM_STATUS);
        CHECK(told.detail.status->reason == TRUNK_REASON_APP_REJECTED);
        CHECK(strcmp(told.detail.status->reason_text, words) == 0);
        release(&told);
    }
    release(&item);
    OK(trunk_close(client, conn, 0, NULL, 0));
    skip(h->engine, TRUNK_ITEM_DEAD);
    skip(client, TRUNK_ITEM_DEAD);
    return found.error;
}

static void presented(trunk_credential_issuer issuer, trunk_credential_issuer of_another_audience,
                      trunk_credential_issuer forger, trunk_credential_verifier verifier) {
    host h;
    person alice, mallory;
    static const ticket none;
    make(&alice);
    make(&mallory);
    listen_and_ask(&h, engine_with(0));
    trunk_engine *client = engine_with(0);

    trunk_credential_grant grant = grant_until(unix_s() + 60);
    ticket anybodys = issue(issuer, &grant);
    ticket elsewhere = issue(of_another_audience, &grant);
    ticket forged = issue(forger, &grant);
    grant.has_peer = 1;
    memcpy(grant.peer, alice.fingerprint, sizeof grant.peer);
    ticket bound = issue(issuer, &grant);
    grant.issued_s = unix_s() - 20;
    grant.expires_s = unix_s() - 10;
    ticket old = issue(issuer, &grant);

    CHECK(present(&h, client, verifier, &anybodys, NULL) == TRUNK_CREDENTIAL_GOOD);
    CHECK(present(&h, client, verifier, &anybodys, &mallory) == TRUNK_CREDENTIAL_GOOD);
    CHECK(present(&h, client, verifier, &bound, &alice) == TRUNK_CREDENTIAL_GOOD);
    CHECK(present(&h, client, verifier, &bound, &mallory) == TRUNK_CREDENTIAL_WRONG_PEER);
    CHECK(present(&h, client, verifier, &bound, NULL) == TRUNK_CREDENTIAL_WRONG_PEER);
    CHECK(present(&h, client, verifier, &old, &alice) == TRUNK_CREDENTIAL_EXPIRED);
    CHECK(present(&h, client, verifier, &elsewhere, &alice) == TRUNK_CREDENTIAL_WRONG_SIGNATURE);
    CHECK(present(&h, client, verifier, &forged, &alice) == TRUNK_CREDENTIAL_WRONG_SIGNATURE);
    CHECK(present(&h, client, verifier, &none, &alice) == TRUNK_CREDENTIAL_MISSING);
    OK(trunk_engine_destroy(client));
    OK(trunk_engine_destroy(h.engine));
}

static void presented_with_a_secret(void) {
    trunk_credential_issuer forger;
    OK(trunk_credential_issuer_with_secret("game", 1, other_secret, 32, &forger));
    presented(issuer_for("game", 1), issuer_for("another", 1), forger, verifier_for("game"));
}

static void presented_with_a_key_pair(void) {
    person login, thief;
    uint8_t key[TRUNK_PUBLIC_KEY_BYTES];
    trunk_credential_issuer issuer, another, forger;
    trunk_credential_verifier verifier;
    make(&login);
    make(&thief);
    OK(trunk_credential_issuer_with_ed25519("game", 1, login.pem, strlen(login.pem), &issuer));
    OK(trunk_credential_issuer_with_ed25519("another", 1, login.pem, strlen(login.pem), &another));
    OK(trunk_credential_issuer_with_ed25519("game", 1, thief.pem, strlen(thief.pem), &forger));
    OK(trunk_credential_issuer_public_key(issuer, key));
    OK(trunk_credential_verifier_new("game", &verifier));
    OK(trunk_credential_verifier_add_public_key(verifier, 1, key));
    presented(issuer, another, forger, verifier);
}

/* The login service is another process, and shares nothing but the secret. */
static void issued_by_another_process(void) {
    int ends[2];
    ticket made;
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        trunk_credential_grant grant = grant_until(unix_s() + 60);
        made = issue(issuer_for("game", 1), &grant);
        CHECK(write(ends[1], made.bytes, made.size) == (ssize_t)made.size);
        exit(0);
    }
    close(ends[1]);
    made.size = 0;
    ssize_t got;
    while ((got = read(ends[0], made.bytes + made.size, sizeof made.bytes - made.size)) > 0) {
        made.size += (size_t)got;
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(made.size > 0);
    host h;
    listen_and_ask(&h, engine_with(0));
    trunk_engine *client = engine_with(0);
    CHECK(present(&h, client, verifier_for("game"), &made, NULL) == TRUNK_CREDENTIAL_GOOD);
    CHECK(present(&h, client, verifier_for("chess"), &made, NULL) ==
          TRUNK_CREDENTIAL_WRONG_SIGNATURE);
    OK(trunk_engine_destroy(client));
    OK(trunk_engine_destroy(h.engine));
}

/* ---- access tokens ---- */

static trunk_token checked(const trunk_token_key *keys, size_t count, const char *token,
                           uint64_t now_s) {
    trunk_token found;
    OK(trunk_token_init(&found));
    trunk_result result = trunk_token_verify(keys, count, token, now_s, &found);
    CHECK(result == (found.error == TRUNK_TOKEN_GOOD ? TRUNK_OK : TRUNK_ERR_CREDENTIAL));
    return found;
}

static void tokens(void) {
    trunk_token_key keys[2] = {key_of("k1", secret), key_of("k2", other_secret)};
    trunk_token_grant grant = token_grant("player-*");
    char text[TRUNK_TOKEN_TEXT_BYTES], again[TRUNK_TOKEN_TEXT_BYTES];
    size_t size = 0;
    trunk_token found;
    grant.roles = TRUNK_TOKEN_RESPONDER;
    OK(trunk_token_mint(&keys[1], &grant, text, sizeof text, &size));
    CHECK(size == strlen(text) + 1 && strncmp(text, "tk1.k2.", 7) == 0);
    OK(trunk_token_mint(&keys[1], &grant, again, size, NULL));
    CHECK(strcmp(text, again) == 0);
    found = checked(keys, 2, text, 0);
    CHECK(found.error == TRUNK_TOKEN_GOOD && found.roles == TRUNK_TOKEN_RESPONDER);
    CHECK(strcmp(found.app, "chess") == 0 && strcmp(found.client, "player-*") == 0);
    CHECK(strcmp(found.key_id, "k2") == 0 && found.expires_s == grant.expires_s);
    found = checked(keys, 2, text, grant.expires_s + 5);
    CHECK(found.error == TRUNK_TOKEN_EXPIRED && found.expired_by_s == 5 && found.expires_s == 0);
    CHECK(checked(keys, 2, text, grant.expires_s - 1).error == TRUNK_TOKEN_GOOD);
    CHECK(checked(keys, 1, text, 0).error == TRUNK_TOKEN_UNKNOWN_KEY);
    CHECK(checked(NULL, 0, text, 0).error == TRUNK_TOKEN_UNKNOWN_KEY);
    trunk_token_key false_key = key_of("k2", secret);
    CHECK(checked(&false_key, 1, text, 0).error == TRUNK_TOKEN_WRONG_SIGNATURE);
    CHECK(checked(keys, 2, "tk1.k2", 0).error == TRUNK_TOKEN_MALFORMED);
    CHECK(checked(keys, 2, "", 0).error == TRUNK_TOKEN_MALFORMED);
    CHECK(strstr(trunk_last_error(), "malformed token") != NULL);

    OK(trunk_token_init(&found));
    OK(trunk_token_dangerous_inspect(text, &found));
    CHECK(strcmp(found.key_id, "k2") == 0 && strcmp(found.client, "player-*") == 0);
    GIVES(TRUNK_ERR_CREDENTIAL, trunk_token_dangerous_inspect("nonsense", &found));
    CHECK(found.error == TRUNK_TOKEN_MALFORMED && found.key_id[0] == '\0');

    /* Arguments. */
    GIVES(TRUNK_ERR_NULL, trunk_token_grant_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_token_init(NULL));
    GIVES(TRUNK_ERR_NULL, trunk_token_mint(NULL, &grant, text, sizeof text, &size));
    GIVES(TRUNK_ERR_NULL, trunk_token_mint(keys, NULL, text, sizeof text, &size));
    GIVES(TRUNK_ERR_NULL, trunk_token_mint(keys, &grant, NULL, sizeof text, &size));
    GIVES(TRUNK_ERR_BUFFER_TOO_SMALL, trunk_token_mint(keys, &grant, text, 10, &size));
    CHECK(size > 60 && size < sizeof text);
    GIVES(TRUNK_ERR_NULL, trunk_token_verify(NULL, 1, text, 0, &found));
    GIVES(TRUNK_ERR_NULL, trunk_token_verify(keys, 2, NULL, 0, &found));
    GIVES(TRUNK_ERR_NULL, trunk_token_verify(keys, 2, text, 0, NULL));
    GIVES(TRUNK_ERR_NULL, trunk_token_dangerous_inspect(NULL, &found));
    GIVES(TRUNK_ERR_NULL, trunk_token_dangerous_inspect(text, NULL));
    trunk_token_key bad = key_of("a key", secret);
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_token_mint(&bad, &grant, text, sizeof text, &size));
    bad = key_of("k1", secret);
    bad.secret_size = 31;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_token_mint(&bad, &grant, text, sizeof text, &size));
    bad = key_of(NULL, secret);
    GIVES(TRUNK_ERR_NULL, trunk_token_mint(&bad, &grant, text, sizeof text, &size));
    bad = key_of("k1", NULL);
    GIVES(TRUNK_ERR_NULL, trunk_token_mint(&bad, &grant, text, sizeof text, &size));
    grant.app = "a b";
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_token_mint(keys, &grant, text, sizeof text, &size));
    CHECK(strncmp(trunk_last_error(), "app ", 4) == 0);
    grant = token_grant("*****");
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_token_mint(keys, &grant, text, sizeof text, &size));
    CHECK(strncmp(trunk_last_error(), "client", 6) == 0);
    grant = token_grant(NULL);
    GIVES(TRUNK_ERR_NULL, trunk_token_mint(keys, &grant, text, sizeof text, &size));
    grant = token_grant("x");
    grant.roles = 0;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_token_mint(keys, &grant, text, sizeof text, &size));
    grant = token_grant("x");
    grant.expires_s = 0;
    GIVES(TRUNK_ERR_INVALID_ARGUMENT, trunk_token_mint(keys, &grant, text, sizeof text, &size));
}

/* ---- threads, forks ---- */

enum { THREADS = 4 };
static trunk_credential_verifier shared_verifier;
static ticket shared_ticket;

static void *verify_until_closed(void *unused) {
    (void)unused;
    for (;;) {
        trunk_credential found;
        OK(trunk_credential_init(&found));
        trunk_result result = trunk_credential_verify(shared_verifier, shared_ticket.bytes,
                                                      shared_ticket.size, 0, NULL, &found);
        if (result == TRUNK_ERR_INVALID_HANDLE) {
            return NULL;
        }
        CHECK(result == TRUNK_OK || found.error == TRUNK_CREDENTIAL_UNKNOWN_KEY);
    }
}

static void closed_while_others_use_it(void) {
    pthread_t threads[THREADS];
    trunk_credential_grant grant = grant_until(unix_s() + 600);
    shared_ticket = issue(issuer_for("game", 1), &grant);
    shared_verifier = verifier_for("game");
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, verify_until_closed, NULL) == 0);
    }
    for (int i = 0; i < 200; i++) {
        OK(trunk_credential_verifier_remove_key(shared_verifier, 1));
        OK(trunk_credential_verifier_add_secret(shared_verifier, 1, secret, sizeof secret));
    }
    OK(trunk_credential_verifier_close(shared_verifier));
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

static void *make_and_close(void *stop) {
    while (!__atomic_load_n((int *)stop, __ATOMIC_RELAXED)) {
        OK(trunk_credential_issuer_close(issuer_for("game", 1)));
        OK(trunk_credential_verifier_close(verifier_for("game")));
    }
    return NULL;
}

static void in_the_child(trunk_credential_issuer issuer, trunk_credential_verifier verifier) {
    size_t size;
    uint8_t bytes[256];
    trunk_credential found;
    trunk_credential_grant grant = grant_until(unix_s() + 60);
    OK(trunk_credential_init(&found));
    GIVES(TRUNK_ERR_FORKED, trunk_credential_issue(issuer, &grant, bytes, sizeof bytes, &size));
    GIVES(TRUNK_ERR_FORKED, trunk_credential_issuer_public_key(issuer, bytes));
    GIVES(TRUNK_ERR_FORKED, trunk_credential_issuer_close(issuer));
    GIVES(TRUNK_ERR_FORKED, trunk_credential_verifier_add_secret(verifier, 1, secret, 32));
    GIVES(TRUNK_ERR_FORKED, trunk_credential_verifier_add_public_key(verifier, 1, secret));
    GIVES(TRUNK_ERR_FORKED, trunk_credential_verifier_remove_key(verifier, 1));
    GIVES(TRUNK_ERR_FORKED, trunk_credential_verify(verifier, bytes, 1, 0, NULL, &found));
    GIVES(TRUNK_ERR_FORKED, trunk_credential_verifier_close(verifier));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_credential_verifier_close(HANDLE));

    /* Its own work, and are not the parent's. */
    trunk_credential_issuer own = issuer_for("game", 1);
    trunk_credential_verifier own_verifier = verifier_for("game");
    CHECK(own != issuer && own_verifier != verifier);
    ticket made = issue(own, &grant);
    CHECK(said(own_verifier, &made, 0, NULL).error == TRUNK_CREDENTIAL_GOOD);
    OK(trunk_credential_verifier_close(own_verifier));
    OK(trunk_credential_issuer_close(own));
    GIVES(TRUNK_ERR_INVALID_HANDLE, trunk_credential_issuer_close(own));
    GIVES(TRUNK_ERR_FORKED, trunk_credential_issuer_close(issuer));
}

static void forks(void) {
    enum { MAKERS = 2, CHILDREN = 20 };
    int stop = 0;
    pthread_t makers[MAKERS];
    trunk_credential_issuer issuer = issuer_for("game", 1);
    trunk_credential_verifier verifier = verifier_for("game");
    /* Whatever other threads are at when the process forks, the child does not wait for them. */
    for (int i = 0; i < MAKERS; i++) {
        CHECK(pthread_create(&makers[i], NULL, make_and_close, &stop) == 0);
    }
    for (int i = 0; i < CHILDREN; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            in_the_child(issuer, verifier);
            /* And a child of the child. */
            trunk_credential_issuer own = issuer_for("game", 1);
            pid_t grandchild = fork();
            CHECK(grandchild >= 0);
            if (grandchild == 0) {
                in_the_child(own, verifier);
                exit(0);
            }
            int ended;
            CHECK(waitpid(grandchild, &ended, 0) == grandchild && ended == 0);
            exit(0); /* with destructors, as a program would */
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < MAKERS; i++) {
        CHECK(pthread_join(makers[i], NULL) == 0);
    }
    /* The parent goes on. */
    trunk_credential_grant grant = grant_until(unix_s() + 60);
    ticket made = issue(issuer, &grant);
    CHECK(said(verifier, &made, 0, NULL).error == TRUNK_CREDENTIAL_GOOD);
    OK(trunk_credential_issuer_close(issuer));
    OK(trunk_credential_verifier_close(verifier));
}

static const test tests[] = {
    {"documented_bytes", documented_bytes},
    {"every_reason", every_reason},
    {"credential_arguments", credential_arguments},
    {"presented_with_a_secret", presented_with_a_secret},
    {"presented_with_a_key_pair", presented_with_a_key_pair},
    {"issued_by_another_process", issued_by_another_process},
    {"tokens", tokens},
    {"closed_while_others_use_it", closed_while_others_use_it},
    {"forks", forks},
};
MAIN(tests)
