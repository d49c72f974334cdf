/* Counts, records and breaks what a process does with files under one folder. For tools/faults.py, by LD_PRELOAD.
 *
 * faults_arm says which call under `root` goes wrong, and how: it fails once or from then on, it moves half of
 * its bytes, or the process is killed before it, or in the middle of it. What changes files is recorded on a
 * board that the parent shares, with the bytes that are written, so that the parent can play a power cut. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum mode { COUNT, FAIL, FAIL_ON, SHORT, KILL, TORN };
enum verdict { GO, BROKEN, HALF, HALF_AND_KILL };

struct board { long calls, used, size; char log[]; };

static struct board *board;
static char root[PATH_MAX];
static long chosen;
static enum mode how;
static int failure, jumps;

void faults_arm(struct board *shared, const char *folder, long call, int mode, int error, int clock) {
    snprintf(root, sizeof root, "%s/", folder);
    chosen = call, how = mode, failure = error, jumps = clock;
    board = shared;
    board->calls = board->used = 0;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

static void place(int folder, const char *name, char *path) {
    char link[64];
    if (name && name[0] == '/') { snprintf(path, PATH_MAX, "%s", name); return; }
    snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    path[size < 0 ? 0 : size] = 0;
    if (name) snprintf(path + strlen(path), PATH_MAX - strlen(path), "/%s", name);
}

/* A full disk lets files be read, closed and removed. */
static int takes_room(const char *line) {
    if (!strncmp(line, "open", 4)) return atoi(line + 5) & O_CREAT;
    return !!strchr("wmft", line[0]) || !strncmp(line, "ren", 3);
}

/* A line for the parent, and the bytes behind it; then what is to become of the call. */
static enum verdict step(const char *path, const void *data, size_t size, const char *format, ...) {
    if (!board || strncmp(path, root, strlen(root))) return GO;
    char line[3 * PATH_MAX];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (board->used + length + (long)size <= board->size) {
        memcpy(board->log + board->used, line, length);
        if (size) memcpy(board->log + board->used + length, data, size);
        board->used += length + size;
    }
    long call = board->calls++;
    if (how == COUNT || call < chosen || (call > chosen && how != FAIL_ON)) return GO;
    if (how == FAIL_ON && !takes_room(line)) return GO;
    if (how == KILL) raise(SIGKILL);
    errno = failure;
    return how == SHORT ? HALF : how == TORN ? HALF_AND_KILL : BROKEN;
}

static size_t part(enum verdict verdict, size_t size) { return verdict >= HALF && size > 1 ? size / 2 : size; }
static ssize_t end(enum verdict verdict, ssize_t result) { if (verdict == HALF_AND_KILL) raise(SIGKILL); return result; }

#define OPEN(name) int name(const char *path, int flags, ...) { \
    REAL(name); char at[PATH_MAX]; va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
    place(AT_FDCWD, path, at); \
    if (step(at, 0, 0, "open %d %s\n", flags, at)) return -1; \
    return real(path, flags, mode); }
#define OPENAT(name) int name(int folder, const char *path, int flags, ...) { \
    REAL(name); char at[PATH_MAX]; va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
    place(folder, path, at); \
    if (step(at, 0, 0, "open %d %s\n", flags, at)) return -1; \
    return real(folder, path, flags, mode); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

ssize_t read(int file, void *data, size_t size) {
    REAL(read); char at[PATH_MAX]; place(file, 0, at);
    enum verdict verdict = step(at, 0, 0, "read %s\n", at);
    return verdict == BROKEN ? -1 : real(file, data, part(verdict, size));
}

/* Python's os.preadv, whatever its flags */
#define PREADV(name) ssize_t name(int file, const struct iovec *parts, int count, off_t offset, int flags) { \
    REAL(name); char at[PATH_MAX]; place(file, 0, at); \
    enum verdict verdict = step(at, 0, 0, "read %s\n", at); \
    if (verdict == BROKEN) return -1; \
    if (verdict == GO || count != 1) return real(file, parts, count, offset, flags); \
    struct iovec half = {parts->iov_base, part(verdict, parts->iov_len)}; \
    return real(file, &half, 1, offset, flags); }
PREADV(preadv2) PREADV(preadv64v2)

DIR *opendir(const char *path) {
    REAL(opendir); char at[PATH_MAX]; place(AT_FDCWD, path, at);
    return step(at, 0, 0, "open %d %s\n", O_DIRECTORY, at) ? NULL : real(path);
}

ssize_t write(int file, const void *data, size_t size) {
    REAL(write); char at[PATH_MAX]; place(file, 0, at);
    enum verdict verdict = step(at, data, size, "write %lld %zu %s\n", (long long)lseek(file, 0, SEEK_CUR), size, at);
    return verdict == BROKEN ? -1 : end(verdict, real(file, data, part(verdict, size)));
}

#define SENDFILE(name) ssize_t name(int to, int from, off_t *offset, size_t size) { \
    REAL(name); char at[PATH_MAX], data[1 << 16]; place(to, 0, at); \
    ssize_t there = pread(from, data, sizeof data, offset ? *offset : lseek(from, 0, SEEK_CUR)); \
    size_t moved = there < 0 ? 0 : (size_t)there < size ? (size_t)there : size; \
    long long start = lseek(to, 0, SEEK_CUR); \
    enum verdict verdict = step(at, data, moved, "write %lld %zu %s\n", start, moved, at); \
    return verdict == BROKEN ? -1 : end(verdict, real(to, from, offset, part(verdict, moved))); }
SENDFILE(sendfile) SENDFILE(sendfile64)

#define SYNC(name) int name(int file) { \
    REAL(name); char at[PATH_MAX]; place(file, 0, at); \
    return step(at, 0, 0, "fsync %s\n", at) ? -1 : real(file); }
SYNC(fsync) SYNC(fdatasync)

int close(int file) {
    REAL(close); char at[PATH_MAX]; place(file, 0, at);
    int broken = step(at, 0, 0, "close %s\n", at), error = errno, result = real(file); /* it is closed all the same */
    if (broken) errno = error;
    return broken ? -1 : result;
}

#define TRUNCATE(name) int name(int file, off_t size) { \
    REAL(name); char at[PATH_MAX]; place(file, 0, at); \
    return step(at, 0, 0, "truncate %lld %s\n", (long long)size, at) ? -1 : real(file, size); }
TRUNCATE(ftruncate) TRUNCATE(ftruncate64)

int rename(const char *from, const char *to) {
    REAL(rename); char at[PATH_MAX], there[PATH_MAX]; place(AT_FDCWD, from, at); place(AT_FDCWD, to, there);
    return step(at, 0, 0, "rename %s\t%s\n", at, there) ? -1 : real(from, to);
}
int unlink(const char *path) {
    REAL(unlink); char at[PATH_MAX]; place(AT_FDCWD, path, at);
    return step(at, 0, 0, "unlink %s\n", at) ? -1 : real(path);
}
int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat); char at[PATH_MAX]; place(folder, path, at);
    return step(at, 0, 0, "%s %s\n", flags & AT_REMOVEDIR ? "rmdir" : "unlink", at) ? -1 : real(folder, path, flags);
}
int rmdir(const char *path) {
    REAL(rmdir); char at[PATH_MAX]; place(AT_FDCWD, path, at);
    return step(at, 0, 0, "rmdir %s\n", at) ? -1 : real(path);
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir); char at[PATH_MAX]; place(AT_FDCWD, path, at);
    return step(at, 0, 0, "mkdir %s\n", at) ? -1 : real(path, mode);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int result = real(clock, now);
    if (jumps && clock == CLOCK_REALTIME) now->tv_sec += (jumps = -jumps) * 400000000L; /* 12 years, to and fro */
    return result;
}
