/* Between a process and its files below the folder $TORTURE_ROOT, for LD_PRELOAD.

   With $TORTURE_LOG, all that changes these files is appended to that file, in the order in which it happened.
   torture_arm() has one call fail, or a stretch of calls; torture_disarm() returns how many did. Calls are counted from
   0, those of all functions below, and malloc() and its kin as far as LMDB calls them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MAX_CALLS 65536
#define SHORT (-1)

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static const char *root;
static size_t root_size;
static int log_file = -1;

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("TORTURE_LOG");
    root = getenv("TORTURE_ROOT");
    root_size = root ? strlen(root) : 0;
    if (root && log) log_file = syscall(SYS_open, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_below(const char *path) { return root && !strncmp(path, root, root_size); }

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    path[size < 0 ? 0 : size] = 0;
    return is_below(path);
}

/* Calls that fail. */

static volatile int armed;
static long num_calls, first, last, num_failed;
static int error;
static char kinds[MAX_CALLS];
static uintptr_t lmdb_start, lmdb_end;

static int find_lmdb(struct dl_phdr_info *info, size_t size, void *data) {
    if (!strstr(info->dlpi_name, "lmdb")) return 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
            lmdb_start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            lmdb_end = lmdb_start + info->dlpi_phdr[i].p_memsz;
        }
    return 1;
}

void torture_arm(long from, long count, int with) {
    dl_iterate_phdr(find_lmdb, NULL);
    num_calls = num_failed = 0;
    first = from, last = from + count, error = with, armed = 1;
}

long torture_disarm(void) { return armed = 0, num_failed; }
long torture_count(void) { return num_calls; }
char torture_kind(long number) { return number < MAX_CALLS ? kinds[number] : 0; }

static int fails(char kind) {
    if (!armed) return 0;
    long number = __sync_fetch_and_add(&num_calls, 1);
    if (number < MAX_CALLS) kinds[number] = kind;
    if (number < first || number >= last) return 0;
    __sync_fetch_and_add(&num_failed, 1);
    errno = error;
    return 1;
}

static int fails_at(int fd, char kind) {
    char path[PATH_MAX];
    return armed && path_of(fd, path) && fails(kind);
}

/* The log: a head, the path and the data. */

struct __attribute__((packed)) head {
    char what;
    uint32_t path_size;
    uint64_t inode, at, size;
};

static void note(char what, uint64_t inode, uint64_t at, const char *path, const void *data, uint64_t size) {
    struct head head = {what, strlen(path), inode, at, size};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)path, head.path_size}, {(void *)data, size}};
    if (syscall(SYS_writev, log_file, parts, 3) != (long)(sizeof head + head.path_size + size)) _exit(99);
}

static void note_file(char what, int fd, uint64_t at, const void *data, uint64_t size) {
    char path[PATH_MAX];
    struct stat facts;
    if (log_file < 0 || !path_of(fd, path) || fstat(fd, &facts)) return;
    if (what == 'S' && S_ISDIR(facts.st_mode)) what = 'F';
    if (what == 'W' && fcntl(fd, F_GETFL) & O_DSYNC) what = 'D';
    note(what, facts.st_ino, at, path, data, size);
}

#define LOCKED(type, call, then)        \
    pthread_mutex_lock(&lock);          \
    type result = call;                 \
    int failure = errno;                \
    then;                               \
    pthread_mutex_unlock(&lock);        \
    errno = failure;                    \
    return result;

static int opened(int fd, int flags, int was_there) {
    if (fd >= 0 && !was_there) note_file('C', fd, 0, NULL, 0);
    if (fd >= 0 && flags & O_TRUNC) note_file('T', fd, 0, NULL, 0);
    return fd;
}

static int open_file(int folder, const char *path, int flags, mode_t mode) {
    if (is_below(path) && fails('o') && error != SHORT) return -1;
    int was_there = !(flags & O_CREAT) || !faccessat(folder, path, F_OK, 0);
    LOCKED(int, opened(syscall(SYS_openat, folder, path, flags, mode), flags, was_there), )
}

#define MODE                                                                    \
    va_list rest;                                                               \
    va_start(rest, flags);                                                      \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;     \
    va_end(rest);

int open(const char *path, int flags, ...) { MODE return open_file(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return open_file(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE return open_file(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE return open_file(folder, path, flags, mode); }

ssize_t write(int fd, const void *data, size_t size) {
    if (fails_at(fd, 'w')) {
        if (error != SHORT) return -1;
        size -= size / 2;
    }
    LOCKED(ssize_t, REAL(write)(fd, data, size),
           if (result > 0) note_file('W', fd, lseek(fd, 0, SEEK_CUR) - result, data, result))
}

static ssize_t write_at(int fd, const void *data, size_t size, off_t at) {
    if (fails_at(fd, 'w')) {
        if (error != SHORT) return -1;
        size -= size / 2;
    }
    LOCKED(ssize_t, REAL(pwrite)(fd, data, size, at), if (result > 0) note_file('W', fd, at, data, result))
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return write_at(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return write_at(fd, data, size, at); }

static void note_parts(int fd, const struct iovec *parts, int count, off_t at, ssize_t size) {
    for (int i = 0; i < count && size > 0; i++) {
        ssize_t piece = (ssize_t)parts[i].iov_len < size ? (ssize_t)parts[i].iov_len : size;
        note_file('W', fd, at, parts[i].iov_base, piece);
        at += piece, size -= piece;
    }
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (fails_at(fd, 'w')) {
        if (error != SHORT) return -1;
        if (count > 1) count /= 2;
    }
    LOCKED(ssize_t, REAL(writev)(fd, parts, count),
           if (result > 0) note_parts(fd, parts, count, lseek(fd, 0, SEEK_CUR) - result, result))
}

static ssize_t writev_at(int fd, const struct iovec *parts, int count, off_t at) {
    if (fails_at(fd, 'w')) {
        if (error != SHORT) return -1;
        if (count > 1) count /= 2;
    }
    LOCKED(ssize_t, REAL(pwritev)(fd, parts, count, at), if (result > 0) note_parts(fd, parts, count, at, result))
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return writev_at(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return writev_at(fd, parts, count, at); }

static ssize_t read_at(int fd, void *data, size_t size, off_t at) {
    if (fails_at(fd, 'r')) {
        if (error != SHORT) return -1;
        size -= size / 2;
    }
    return REAL(pread)(fd, data, size, at);
}

ssize_t pread(int fd, void *data, size_t size, off_t at) { return read_at(fd, data, size, at); }
ssize_t pread64(int fd, void *data, size_t size, off64_t at) { return read_at(fd, data, size, at); }

ssize_t read(int fd, void *data, size_t size) {
    if (fails_at(fd, 'r')) {
        if (error != SHORT) return -1;
        size -= size / 2;
    }
    return REAL(read)(fd, data, size);
}

static int synced(int fd, int (*sync)(int)) {
    if (fails_at(fd, 's') && error != SHORT) return -1;
    LOCKED(int, sync(fd), if (!result) note_file('S', fd, 0, NULL, 0))
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

static int cut(int fd, off_t size) {
    if (fails_at(fd, 't') && error != SHORT) return -1;
    LOCKED(int, REAL(ftruncate)(fd, size), if (!result) note_file('T', fd, size, NULL, 0))
}

int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }

static int allocated(int fd, off_t at, off_t size) {
    return fails_at(fd, 't') && error != SHORT ? error : REAL(posix_fallocate)(fd, at, size);
}

int posix_fallocate(int fd, off_t at, off_t size) { return allocated(fd, at, size); }
int posix_fallocate64(int fd, off64_t at, off64_t size) { return allocated(fd, at, size); }

int rename(const char *from, const char *to) {
    if (is_below(from) && fails('n') && error != SHORT) return -1;
    LOCKED(int, REAL(rename)(from, to),
           if (!result && log_file >= 0 && is_below(from)) note('R', 0, 0, from, to, strlen(to)))
}

static int unlinked(int folder, const char *path, int flags) {
    char full[2 * PATH_MAX];
    /* shutil.rmtree() names files by their folder's descriptor. */
    if (path[0] != '/' && folder != AT_FDCWD && path_of(folder, full))
        strcat(strcat(full, "/"), path);
    else
        strcpy(full, path);
    if (is_below(full) && fails('u') && error != SHORT) return -1;
    LOCKED(int, syscall(SYS_unlinkat, folder, path, flags),
           if (!result && log_file >= 0 && is_below(full)) note('U', 0, 0, full, NULL, 0))
}

int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return unlinked(folder, path, flags); }

static void *mapped(void *at, size_t size, int protection, int flags, int fd, off_t from) {
    if (fd >= 0 && fails_at(fd, 'm') && error != SHORT) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, from);
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t from) {
    return mapped(at, size, protection, flags, fd, from);
}
void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t from) {
    return mapped(at, size, protection, flags, fd, from);
}

/* Memory. */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);

static int is_refused(void *caller) {
    return armed && (uintptr_t)caller >= lmdb_start && (uintptr_t)caller < lmdb_end && fails('a') && error != SHORT;
}

void *malloc(size_t size) { return is_refused(__builtin_return_address(0)) ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) {
    return is_refused(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}
void *realloc(void *old, size_t size) {
    return is_refused(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}
