/*
 * An engine without threads inside a plain epoll loop, beside a timer of the application.
 *
 *     loop_epoll                                 echo host and client, both in this loop
 *     loop_epoll host ADDRESS                    until interrupted
 *     loop_epoll client ADDRESS FINGERPRINT
 *
 * The engine gives the loop two things: a descriptor that is readable when it has work, and how
 * long it can wait even if that does not happen. A timerfd keeps that time to the nanosecond; the
 * timeout of epoll_wait has milliseconds, which is coarse for the pace at which packets leave.
 *
 * Build:  cc -std=c99 loop_epoll.c -ltrunkline -o loop_epoll
 */
#include "loop_app.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

static int epoll;

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        fail("epoll", strerror(errno));
    }
}

/* Sets a timer that fires once after `first` nanoseconds, then every `period`; 0 = not. */
static void set_timer(int timer, int64_t first, int64_t period) {
    struct itimerspec spec = {
        .it_interval = {.tv_sec = period / SECOND, .tv_nsec = period % SECOND},
        .it_value = {.tv_sec = first / SECOND, .tv_nsec = first % SECOND},
    };
    if (timerfd_settime(timer, 0, &spec, NULL) != 0) {
        fail("timer", strerror(errno));
    }
}

int main(int argc, char **argv) {
    app me = {0};
    app_start(&me, argc, argv);

    int engine_fd;
    must(trunk_engine_fd(me.engine, &engine_fd), "descriptor"); /* from now on this thread's */
    int engine_timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int tick_timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(engine_fd);
    watch(engine_timer);
    watch(tick_timer);
    set_timer(tick_timer, TICK_MS * MILLISECOND, TICK_MS * MILLISECOND);

    for (;;) {
        /* After everything else of a turn: whatever the application did, the engine hears of it. */
        int64_t timeout = app_drive(&me);
        if (me.done) {
            break;
        }
        /* Setting it also makes it unreadable again. The least time stands for "at once", as 0
         * stops it: other descriptors have their turn even while the engine always has work. */
        set_timer(engine_timer, timeout == 0 ? 1 : timeout == TRUNK_WAIT_FOREVER ? 0 : timeout, 0);

        struct epoll_event events[8];
        int count = epoll_wait(epoll, events, 8, -1);
        if (count < 0 && errno != EINTR) {
            fail("epoll", strerror(errno));
        }
        for (int i = 0; i < count; i++) {
            uint64_t times;
            if (events[i].data.fd == tick_timer &&
                read(tick_timer, &times, sizeof times) == sizeof times) {
                app_tick(&me);
            } /* the engine's two need nothing but the call above */
        }
    }
    close(tick_timer);
    close(engine_timer);
    close(epoll); /* before the engine's descriptor goes */
    return app_end(&me);
}
