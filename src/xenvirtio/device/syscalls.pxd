# System calls on local addresses, for the engines: compiled twin of syscalls.py.
# Each returns what the system call returned, or -errno.

from libc.stdint cimport uintptr_t, int64_t, uint64_t

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <linux/falloc.h>
    #include <linux/fs.h>
    #include <sys/ioctl.h>
    #include <sys/uio.h>
    #include <unistd.h>

    static inline long xv_result(long value) { return value >= 0 ? value : -(long)errno; }

    static inline long xv_preadv(int fd, uintptr_t iov, int count, int64_t offset)
    { return xv_result(preadv(fd, (const struct iovec *)iov, count, offset)); }

    static inline long xv_pwritev(int fd, uintptr_t iov, int count, int64_t offset)
    { return xv_result(pwritev(fd, (const struct iovec *)iov, count, offset)); }

    static inline long xv_pwrite(int fd, uintptr_t source, uint64_t length, int64_t offset)
    { return xv_result(pwrite(fd, (const void *)source, length, offset)); }

    static inline long xv_readv(int fd, uintptr_t iov, int count)
    { return xv_result(readv(fd, (const struct iovec *)iov, count)); }

    static inline long xv_writev(int fd, uintptr_t iov, int count)
    { return xv_result(writev(fd, (const struct iovec *)iov, count)); }

    static inline long xv_fdatasync(int fd)
    { return xv_result(fdatasync(fd)); }

    static inline long xv_fallocate(int fd, int mode, int64_t offset, int64_t length)
    { return xv_result(fallocate(fd, mode, offset, length)); }

    static inline long xv_discard(int fd, uint64_t offset, uint64_t length)
    { uint64_t span[2] = { offset, length }; return xv_result(ioctl(fd, BLKDISCARD, span)); }
    """
    long preadv "xv_preadv"(int fd, uintptr_t iov, int count, int64_t offset) nogil
    long pwritev "xv_pwritev"(int fd, uintptr_t iov, int count, int64_t offset) nogil
    long pwrite "xv_pwrite"(int fd, uintptr_t source, uint64_t length, int64_t offset) nogil
    long readv "xv_readv"(int fd, uintptr_t iov, int count) nogil
    long writev "xv_writev"(int fd, uintptr_t iov, int count) nogil
    long fdatasync "xv_fdatasync"(int fd) nogil
    long fallocate "xv_fallocate"(int fd, int mode, int64_t offset, int64_t length) nogil
    long discard "xv_discard"(int fd, uint64_t offset, uint64_t length) nogil
