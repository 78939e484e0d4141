/* A clock that runs fast, for LD_PRELOAD: RIG_CLOCK_FAST_PPM=500 gains 500 us a second, counted from the start of the
 * process. Waits of epoll are shorter by as much, as the kernel's are when its clock is slewed. RIG_CLOCK_MARK names a
 * file that shows that the library is in use. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CLOCKS 12
static const long long SECOND = 1000000000LL;

static long long ppm;
static long long first[CLOCKS];

/* Clocks of processes and threads measure work, not time. */
static int tells_time(clockid_t clock) {
    return clock >= 0 && clock < CLOCKS && clock != CLOCK_PROCESS_CPUTIME_ID && clock != CLOCK_THREAD_CPUTIME_ID;
}

__attribute__((constructor)) static void start(void) {
    for (clockid_t clock = 0; clock < CLOCKS; clock++) {
        struct timespec now;
        if (syscall(SYS_clock_gettime, clock, &now) == 0) {
            first[clock] = now.tv_sec * SECOND + now.tv_nsec;
        }
    }
    const char *gain = getenv("RIG_CLOCK_FAST_PPM");
    ppm = gain ? atoll(gain) : 0;
    const char *mark = getenv("RIG_CLOCK_MARK");
    if (ppm != 0 && mark) {
        close(open(mark, O_CREAT | O_WRONLY, 0600));
    }
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int code = (int)syscall(SYS_clock_gettime, clock, now);
    if (code == 0 && ppm != 0 && tells_time(clock)) {
        long long at = now->tv_sec * SECOND + now->tv_nsec;
        at += (at - first[clock]) / 1000 * ppm / 1000;
        now->tv_sec = at / SECOND;
        now->tv_nsec = at % SECOND;
    }
    return code;
}

int epoll_pwait(int epoll, struct epoll_event *events, int most, int timeout, const sigset_t *mask) {
    if (timeout > 0) {
        timeout = (int)((timeout * 1000000LL + 500000) / (1000000 + ppm));
    }
    return (int)syscall(SYS_epoll_pwait, epoll, events, most, timeout, mask, _NSIG / 8);
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout) {
    return epoll_pwait(epoll, events, most, timeout, NULL);
}
