/* A slow disk and a clock that jumps, for a process that has this loaded before the C library (LD_PRELOAD).

   SLOW_PATH: what files and folders have in their paths on which each fsync, fdatasync, rename and fwrite takes
   SLOW_MSEC milliseconds more. The file SLOW_LOG gets a line for each fsync that is done, its path.
   JUMP_SEC: so many seconds the clock of the day, not the steady one, is wrong for Python, now ahead, now behind: it
   jumps with each tenth look at it. Libraries see the true one: they hand times on to the system, which has no other. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REAL(name)                     \
    static __typeof__(name) *real;     \
    if (real == NULL) real = dlsym(RTLD_NEXT, #name)

static int delay(const char *path) {
    const char *part = getenv("SLOW_PATH");
    if (part == NULL || strstr(path, part) == NULL) return 0;
    long msec = atol(getenv("SLOW_MSEC"));
    struct timespec time = {msec / 1000, msec % 1000 * 1000000};
    nanosleep(&time, NULL);
    return 1;
}

static int delay_file(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, 4095);
    path[length < 0 ? 0 : length] = 0;
    return delay(path);
}

static int note(int result, const char *path) {
    if (result != 0) return result;
    char line[4100];
    int length = snprintf(line, sizeof line, "%s\n", path);
    int log = open(getenv("SLOW_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (write(log, line, length) != length) abort();
    close(log);
    return result;
}

int fsync(int file) {
    REAL(fsync);
    char path[4096];
    return delay_file(file, path) ? note(real(file), path) : real(file);
}

int fdatasync(int file) {
    REAL(fdatasync);
    char path[4096];
    return delay_file(file, path) ? note(real(file), path) : real(file);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    delay(to);
    return real(from, to);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    REAL(fwrite);
    char path[4096];
    delay_file(fileno(file), path);
    return real(data, size, count, file);
}

static int is_python(const void *caller) {
    static const void *others[1024]; /* looking them up in TensorFlow's symbols takes long */
    const void **other = &others[(size_t)caller / 4 % 1024];
    Dl_info found;
    if (*other == caller) return 0;
    if (dladdr(caller, &found) && strstr(found.dli_fname, "python") && !strstr(found.dli_fname, "site-packages")) return 1;
    *other = caller;
    return 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    static long looks;
    int result = real(clock, now);
    const char *sec = getenv("JUMP_SEC");
    if (sec != NULL && clock == CLOCK_REALTIME && is_python(__builtin_return_address(0)))
        now->tv_sec += __atomic_add_fetch(&looks, 1, __ATOMIC_RELAXED) / 10 % 2 ? atol(sec) : -atol(sec);
    return result;
}
