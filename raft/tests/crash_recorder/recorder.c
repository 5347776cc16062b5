/*
 * Records what a process does to the files under one directory.
 *
 * Loaded with LD_PRELOAD. Every change of a file or a name below
 * CRASH_RECORDER_DIR, every sync, and every line written to
 * CRASH_RECORDER_NOTES becomes one record of the file CRASH_RECORDER_TRACE, in
 * the order in which they happened: a call and its record are made under one
 * lock. From the trace, the disk can be rebuilt as a power cut could have left
 * it at any moment.
 *
 * A record: kind u8, path length u32, second path length u32, position u64,
 * data length u64, then paths and data. Integers are little-endian as on every
 * machine this runs on.
 *
 *   W write   position = offset, data = bytes     T truncate  position = length
 *   C create  M mkdir  U unlink  R rename         S fsync or fdatasync
 *   P sync_file_range, which is no sync           N note, data = the line
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static int trace_fd = -1;
static char watched_dir[PATH_MAX];
static size_t watched_dir_len;
static char notes_path[PATH_MAX];

__attribute__((constructor)) static void start(void) {
    const char *dir = getenv("CRASH_RECORDER_DIR");
    const char *trace = getenv("CRASH_RECORDER_TRACE");
    const char *notes = getenv("CRASH_RECORDER_NOTES");
    if (dir == NULL || trace == NULL || notes == NULL) {
        return;
    }
    if (realpath(dir, watched_dir) == NULL) {
        fprintf(stderr, "crash recorder: %s cannot be resolved\n", dir);
        abort();
    }
    watched_dir_len = strlen(watched_dir);
    snprintf(notes_path, sizeof notes_path, "%s", notes);
    trace_fd = (int)syscall(SYS_openat, AT_FDCWD, trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace_fd < 0) {
        fprintf(stderr, "crash recorder: %s cannot be written\n", trace);
        abort();
    }
}

static void put(const void *bytes, size_t len) {
    const char *next = bytes;
    while (len > 0) {
        long written = syscall(SYS_write, trace_fd, next, len);
        if (written <= 0) {
            abort();
        }
        next += written;
        len -= (size_t)written;
    }
}

static void record(char kind, const char *path, const char *path2, uint64_t position, const void *data,
                   uint64_t data_len) {
    uint32_t path_len = (uint32_t)strlen(path);
    uint32_t path2_len = (uint32_t)strlen(path2);
    char header[25];
    header[0] = kind;
    memcpy(header + 1, &path_len, 4);
    memcpy(header + 5, &path2_len, 4);
    memcpy(header + 9, &position, 8);
    memcpy(header + 17, &data_len, 8);
    put(header, sizeof header);
    put(path, path_len);
    put(path2, path2_len);
    put(data, data_len);
}

/* Path relative to the watched directory, or NULL if it is not below it. */
static const char *relative(const char *absolute) {
    if (trace_fd < 0 || strncmp(absolute, watched_dir, watched_dir_len) != 0) {
        return NULL;
    }
    if (absolute[watched_dir_len] == '\0') {
        return "";
    }
    return absolute[watched_dir_len] == '/' ? absolute + watched_dir_len + 1 : NULL;
}

/* The absolute path of an open descriptor. */
static const char *path_of(int fd, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, buffer, PATH_MAX - 1);
    if (len < 0) {
        return "";
    }
    buffer[len] = '\0';
    return buffer;
}

/* The absolute path of a name that may not exist: its directory, resolved, and the name. */
static const char *path_at(int dir_fd, const char *name, char *buffer) {
    char joined[PATH_MAX * 2];
    if (name[0] == '/') {
        snprintf(joined, sizeof joined, "%s", name);
    } else if (dir_fd == AT_FDCWD) {
        char cwd[PATH_MAX];
        if (getcwd(cwd, sizeof cwd) == NULL) {
            return "";
        }
        snprintf(joined, sizeof joined, "%s/%s", cwd, name);
    } else {
        char dir[PATH_MAX];
        snprintf(joined, sizeof joined, "%s/%s", path_of(dir_fd, dir), name);
    }
    char *slash = strrchr(joined, '/');
    if (slash == NULL) {
        return "";
    }
    *slash = '\0';
    char resolved[PATH_MAX];
    if (realpath(joined[0] == '\0' ? "/" : joined, resolved) == NULL) {
        return "";
    }
    if ((size_t)snprintf(buffer, PATH_MAX, "%s/%s", resolved, slash + 1) >= PATH_MAX) {
        return "";
    }
    return buffer;
}

static int exists(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0;
}

typedef int (*open_call)(int dir_fd, const char *name, int flags, mode_t mode);

static int open_plain(int dir_fd, const char *name, int flags, mode_t mode) {
    return (int)syscall(SYS_openat, dir_fd, name, flags, mode);
}

static int recorded_open(int dir_fd, const char *name, int flags, mode_t mode, open_call call) {
    char buffer[PATH_MAX];
    const char *path = (flags & (O_CREAT | O_TRUNC)) ? relative(path_at(dir_fd, name, buffer)) : NULL;
    if (path == NULL) {
        return call(dir_fd, name, flags, mode);
    }
    pthread_mutex_lock(&order);
    int existed = exists(buffer);
    int fd = call(dir_fd, name, flags, mode);
    int error = errno;
    if (fd >= 0 && !existed) {
        record('C', path, "", 0, "", 0);
    } else if (fd >= 0 && (flags & O_TRUNC)) {
        record('T', path, "", 0, "", 0);
    }
    pthread_mutex_unlock(&order);
    errno = error;
    return fd;
}

#define OPEN_MODE(flags)                                                                                         \
    mode_t mode = 0;                                                                                             \
    if ((flags) & O_CREAT) {                                                                                     \
        va_list arguments;                                                                                       \
        va_start(arguments, flags);                                                                              \
        mode = va_arg(arguments, mode_t);                                                                        \
        va_end(arguments);                                                                                       \
    }

int open(const char *name, int flags, ...) {
    OPEN_MODE(flags)
    return recorded_open(AT_FDCWD, name, flags, mode, open_plain);
}

int open64(const char *name, int flags, ...) {
    OPEN_MODE(flags)
    return recorded_open(AT_FDCWD, name, flags, mode, open_plain);
}

int openat(int dir_fd, const char *name, int flags, ...) {
    OPEN_MODE(flags)
    return recorded_open(dir_fd, name, flags, mode, open_plain);
}

int openat64(int dir_fd, const char *name, int flags, ...) {
    OPEN_MODE(flags)
    return recorded_open(dir_fd, name, flags, mode, open_plain);
}

/* Writes at `offset`, or where the descriptor stands if that is negative. */
static ssize_t recorded_write(int fd, const void *data, size_t len, off_t offset) {
    char buffer[PATH_MAX];
    const char *absolute = trace_fd < 0 ? "" : path_of(fd, buffer);
    const char *path = relative(absolute);
    int is_note = trace_fd >= 0 && strcmp(absolute, notes_path) == 0;
    if (path == NULL && !is_note) {
        return offset < 0 ? syscall(SYS_write, fd, data, len) : syscall(SYS_pwrite64, fd, data, len, offset);
    }
    pthread_mutex_lock(&order);
    off_t start = offset;
    if (offset < 0) {
        int appends = fcntl(fd, F_GETFL) & O_APPEND;
        start = lseek(fd, 0, appends ? SEEK_END : SEEK_CUR);
    }
    ssize_t written = offset < 0 ? syscall(SYS_write, fd, data, len) : syscall(SYS_pwrite64, fd, data, len, offset);
    int error = errno;
    if (written > 0 && is_note) {
        record('N', "", "", 0, data, (uint64_t)written);
    } else if (written > 0) {
        record('W', path, "", (uint64_t)start, data, (uint64_t)written);
    }
    pthread_mutex_unlock(&order);
    errno = error;
    return written;
}

ssize_t write(int fd, const void *data, size_t len) {
    return recorded_write(fd, data, len, -1);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset) {
    return recorded_write(fd, data, len, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) {
    return recorded_write(fd, data, len, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t written = recorded_write(fd, parts[i].iov_base, parts[i].iov_len, -1);
        if (written < 0) {
            return total > 0 ? total : written;
        }
        total += written;
        if ((size_t)written < parts[i].iov_len) {
            break;
        }
    }
    return total;
}

static int recorded_truncate(int fd, off_t length) {
    char buffer[PATH_MAX];
    const char *path = trace_fd < 0 ? NULL : relative(path_of(fd, buffer));
    if (path == NULL) {
        return (int)syscall(SYS_ftruncate, fd, length);
    }
    pthread_mutex_lock(&order);
    int result = (int)syscall(SYS_ftruncate, fd, length);
    int error = errno;
    if (result == 0) {
        record('T', path, "", (uint64_t)length, "", 0);
    }
    pthread_mutex_unlock(&order);
    errno = error;
    return result;
}

int ftruncate(int fd, off_t length) {
    return recorded_truncate(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    return recorded_truncate(fd, length);
}

/* Only the growth of a file matters for what is read back. */
static int recorded_allocate(int fd, int mode, off_t offset, off_t len) {
    char buffer[PATH_MAX];
    const char *path = trace_fd < 0 ? NULL : relative(path_of(fd, buffer));
    if (path == NULL) {
        return (int)syscall(SYS_fallocate, fd, mode, offset, len);
    }
    pthread_mutex_lock(&order);
    struct stat before;
    int known = fstat(fd, &before) == 0;
    int result = (int)syscall(SYS_fallocate, fd, mode, offset, len);
    int error = errno;
    if (result == 0 && mode == 0 && known && offset + len > before.st_size) {
        record('T', path, "", (uint64_t)(offset + len), "", 0);
    }
    pthread_mutex_unlock(&order);
    errno = error;
    return result;
}

int fallocate(int fd, int mode, off_t offset, off_t len) {
    return recorded_allocate(fd, mode, offset, len);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t len) {
    return recorded_allocate(fd, mode, offset, len);
}

int posix_fallocate64(int fd, off64_t offset, off64_t len) {
    return recorded_allocate(fd, 0, offset, len) == 0 ? 0 : errno;
}

static int recorded_sync(int fd, long call) {
    char buffer[PATH_MAX];
    const char *path = trace_fd < 0 ? NULL : relative(path_of(fd, buffer));
    if (path == NULL) {
        return (int)syscall(call, fd);
    }
    pthread_mutex_lock(&order);
    int result = (int)syscall(call, fd);
    int error = errno;
    if (result == 0) {
        record('S', path, "", 0, "", 0);
    }
    pthread_mutex_unlock(&order);
    errno = error;
    return result;
}

int fsync(int fd) {
    return recorded_sync(fd, SYS_fsync);
}

int fdatasync(int fd) {
    return recorded_sync(fd, SYS_fdatasync);
}

int sync_file_range(int fd, off64_t offset, off64_t len, unsigned int flags) {
    char buffer[PATH_MAX];
    const char *path = trace_fd < 0 ? NULL : relative(path_of(fd, buffer));
    if (path != NULL) {
        pthread_mutex_lock(&order);
        record('P', path, "", (uint64_t)offset, "", 0);
        pthread_mutex_unlock(&order);
    }
    return (int)syscall(SYS_sync_file_range, fd, offset, len, flags);
}

static int recorded_rename(int from_fd, const char *from, int to_fd, const char *to) {
    char from_buffer[PATH_MAX];
    char to_buffer[PATH_MAX];
    const char *from_path = relative(path_at(from_fd, from, from_buffer));
    const char *to_path = relative(path_at(to_fd, to, to_buffer));
    pthread_mutex_lock(&order);
    int result = (int)syscall(SYS_renameat, from_fd, from, to_fd, to);
    int error = errno;
    if (result == 0 && from_path != NULL && to_path != NULL) {
        record('R', from_path, to_path, 0, "", 0);
    }
    pthread_mutex_unlock(&order);
    errno = error;
    return result;
}

int rename(const char *from, const char *to) {
    return recorded_rename(AT_FDCWD, from, AT_FDCWD, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    return recorded_rename(from_fd, from, to_fd, to);
}

static int recorded_unlink(int dir_fd, const char *name, int flags) {
    char buffer[PATH_MAX];
    const char *path = relative(path_at(dir_fd, name, buffer));
    pthread_mutex_lock(&order);
    int result = (int)syscall(SYS_unlinkat, dir_fd, name, flags);
    int error = errno;
    if (result == 0 && path != NULL) {
        record('U', path, "", 0, "", 0);
    }
    pthread_mutex_unlock(&order);
    errno = error;
    return result;
}

int unlink(const char *name) {
    return recorded_unlink(AT_FDCWD, name, 0);
}

int rmdir(const char *name) {
    return recorded_unlink(AT_FDCWD, name, AT_REMOVEDIR);
}

int unlinkat(int dir_fd, const char *name, int flags) {
    return recorded_unlink(dir_fd, name, flags);
}

static int recorded_mkdir(int dir_fd, const char *name, mode_t mode) {
    char buffer[PATH_MAX];
    const char *path = relative(path_at(dir_fd, name, buffer));
    pthread_mutex_lock(&order);
    int result = (int)syscall(SYS_mkdirat, dir_fd, name, mode);
    int error = errno;
    if (result == 0 && path != NULL) {
        record('M', path, "", 0, "", 0);
    }
    pthread_mutex_unlock(&order);
    errno = error;
    return result;
}

int mkdir(const char *name, mode_t mode) {
    return recorded_mkdir(AT_FDCWD, name, mode);
}

int mkdirat(int dir_fd, const char *name, mode_t mode) {
    return recorded_mkdir(dir_fd, name, mode);
}
