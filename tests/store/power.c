/* A disk before a power cut, for LD_PRELOAD: beside every FILE.mdb, FILE.mdb.durable holds what was synced of it.

   A sync copies the whole file. A write through a descriptor with O_DSYNC is durable at once, and alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int durable(int fd) {
    char link[64], path[PATH_MAX + 16];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX);
    if (length < 4 || strncmp(path + length - 4, ".mdb", 4)) return -1;
    strcpy(path + length, ".durable");
    return open(path, O_RDWR | O_CREAT, 0600);
}

static void copy(int fd) {
    static char block[1 << 16];
    int copy = durable(fd);
    if (copy < 0) return;
    off_t at = 0;
    for (ssize_t n; (n = pread(fd, block, sizeof block, at)) > 0; at += n)
        if (write(copy, block, n) != n) _exit(99);
    if (ftruncate(copy, at)) _exit(99);
    close(copy);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static ssize_t through(int fd, const void *data, size_t size, off_t at, ssize_t written) {
    int copy = written > 0 && fcntl(fd, F_GETFL) & O_DSYNC ? durable(fd) : -1;
    if (copy >= 0) {
        if (REAL(pwrite)(copy, data, size, at) != (ssize_t)size) _exit(99);
        close(copy);
    }
    return written;
}

int fdatasync(int fd) { copy(fd); return REAL(fdatasync)(fd); }
int fsync(int fd) { copy(fd); return REAL(fsync)(fd); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return through(fd, data, size, at, REAL(pwrite)(fd, data, size, at));
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return through(fd, data, size, at, REAL(pwrite64)(fd, data, size, at));
}
