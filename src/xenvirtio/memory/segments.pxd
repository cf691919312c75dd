# C shape of segments.py.

cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uintptr_t

cdef class Segments:
    cdef readonly Py_ssize_t chains, segments, iovecs
    cdef public Py_ssize_t count, seg_used, iov_used
    cdef readonly uint16_t[::1] head, on_fault
    cdef readonly uint32_t[::1] fault, depth
    cdef readonly uint32_t[::1] seg_first, seg_read, seg_write
    cdef readonly uint32_t[::1] iov_first, iov_read, iov_write
    cdef readonly uint64_t[::1] read_bytes, write_bytes, written, staged
    cdef readonly uint64_t[::1] table_address
    cdef readonly uint32_t[::1] table_length, table_offset
    cdef readonly uint64_t[::1] seg_address, seg_local
    cdef readonly uint32_t[::1] seg_length
    cdef readonly uint64_t[::1] iov
    cdef readonly uintptr_t iov_address
    cdef public object staging

    cdef void begin_chain(self, Py_ssize_t i, uint16_t head) noexcept nogil
    @cython.locals(pos=Py_ssize_t)
    cdef bint add_segment(self, Py_ssize_t i, bint write, uint64_t address, uint32_t length) noexcept nogil
    @cython.locals(last=Py_ssize_t)
    cdef bint add_iovec(self, Py_ssize_t i, bint write, uint64_t base, uint64_t length) noexcept nogil
    cdef void no_iovecs(self, Py_ssize_t i) noexcept nogil
    cdef void truncate(self, Py_ssize_t count) noexcept nogil
    @cython.locals(left=Py_ssize_t, i=Py_ssize_t, k=Py_ssize_t, seg=Py_ssize_t, iov=Py_ssize_t)
    cdef void drop(self, Py_ssize_t count) noexcept nogil
    cdef void _move_chain(self, Py_ssize_t to, Py_ssize_t i, Py_ssize_t seg, Py_ssize_t iov) noexcept nogil
