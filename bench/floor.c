/* The raw loop: one send(2) of the same bytes to each descriptor in turn, nothing else.
 *
 * Returns the nanoseconds of wall time; *cpu_ns gets the thread's CPU time and *refused how many sends were not taken
 * whole (the socket was full). Compiled when the bench runs, if there is a C compiler; see floor.py.
 */
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

static int64_t nanoseconds(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

int64_t sweep(const int *descriptors, int64_t count, const char *bytes, int64_t size, int64_t *cpu_ns, int64_t *refused)
{
    int64_t wall = nanoseconds(CLOCK_MONOTONIC);
    int64_t cpu = nanoseconds(CLOCK_THREAD_CPUTIME_ID);
    int64_t failed = 0;
    for (int64_t i = 0; i < count; i++)
        if (send(descriptors[i], bytes, (size_t)size, MSG_NOSIGNAL) != (ssize_t)size)
            failed++;
    *cpu_ns = nanoseconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
    *refused = failed;
    return nanoseconds(CLOCK_MONOTONIC) - wall;
}
