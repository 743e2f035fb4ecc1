/*
 * An engine without threads inside a libuv loop, beside a timer of the application.
 *
 *     loop_uv                                    echo host and client, both in this loop
 *     loop_uv host ADDRESS                       until interrupted
 *     loop_uv client ADDRESS FINGERPRINT
 *
 * loop_epoll.c does the same with nothing but the system, and says what an engine gives to a loop.
 * Timers of libuv have milliseconds; what is due is rounded up, so that the loop does not spin.
 *
 * Build:  cc -std=c99 loop_uv.c -ltrunkline $(pkg-config --cflags --libs libuv) -o loop_uv
 */
#include "loop_app.h"

#include <uv.h>

static app me;
static uv_poll_t readable;
static uv_timer_t engine_timer, tick_timer;
static uv_prepare_t before_sleep;

static void uv_must(int result, const char *what) {
    if (result != 0) {
        fail(what, uv_strerror(result));
    }
}

/* These two only wake the loop: drive() runs at the end of every turn. */
static void on_readable(uv_poll_t *handle, int status, int events) {
    (void)handle;
    (void)events;
    uv_must(status, "poll");
}

static void on_engine_timer(uv_timer_t *handle) {
    (void)handle;
}

static void on_tick(uv_timer_t *handle) {
    (void)handle;
    app_tick(&me);
}

/* Right before the loop sleeps: whatever the application did in this turn, the engine hears. */
static void drive(uv_prepare_t *handle) {
    int64_t timeout = app_drive(&me);
    if (me.done) {
        uv_close((uv_handle_t *)handle, NULL);
        uv_close((uv_handle_t *)&readable, NULL);
        uv_close((uv_handle_t *)&engine_timer, NULL);
        uv_close((uv_handle_t *)&tick_timer, NULL); /* the last handle: the loop ends */
    } else if (timeout == TRUNK_WAIT_FOREVER) {
        uv_must(uv_timer_stop(&engine_timer), "timer");
    } else {
        uint64_t ms = (uint64_t)(timeout + MILLISECOND - 1) / MILLISECOND;
        uv_must(uv_timer_start(&engine_timer, on_engine_timer, ms, 0), "timer");
    }
}

int main(int argc, char **argv) {
    uv_loop_t *loop = uv_default_loop();
    int fd;
    app_start(&me, argc, argv);
    must(trunk_engine_fd(me.engine, &fd), "descriptor"); /* from now on this thread's */
    uv_must(uv_poll_init(loop, &readable, fd), "poll");
    uv_must(uv_poll_start(&readable, UV_READABLE, on_readable), "poll");
    uv_must(uv_timer_init(loop, &engine_timer), "timer");
    uv_must(uv_timer_init(loop, &tick_timer), "timer");
    uv_must(uv_timer_start(&tick_timer, on_tick, TICK_MS, TICK_MS), "timer");
    uv_must(uv_prepare_init(loop, &before_sleep), "prepare");
    uv_must(uv_prepare_start(&before_sleep, drive), "prepare");
    uv_must(uv_run(loop, UV_RUN_DEFAULT), "loop");
    uv_must(uv_loop_close(loop), "loop");
    return app_end(&me);
}
