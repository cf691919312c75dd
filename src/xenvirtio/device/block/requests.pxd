# C shape of requests.py.

cimport cython
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from xenvirtio.memory.raw cimport load32, load64
from xenvirtio.queue.batch cimport Batch

cdef uint32_t T_IN, T_OUT, T_FLUSH, T_GET_ID, T_DISCARD, T_WRITE_ZEROES
cdef uint32_t S_OK, S_IOERR, S_UNSUPP, S_PENDING, FLAG_UNMAP
cdef uint64_t SECTOR, HEADER, RANGE, RANGES_MAX, DATA_MAX, DISCARD_MAX, ZERO_MAX

@cython.final
cdef class Requests:
    cdef readonly uint64_t sectors
    cdef readonly bint read_only
    cdef bint may_discard, may_zero
    cdef readonly uint32_t[::1] kind, status
    cdef readonly uint64_t[::1] offset, length
    cdef readonly uint32_t[::1] iov_first, iov_count
    cdef readonly uint64_t[::1] iov
    cdef uintptr_t iov_address
    cdef readonly uint64_t[::1] range_offset, range_length
    cdef readonly uint32_t[::1] range_flags
    cdef object _copy
    cdef uintptr_t _copy_address

    cpdef object parse(self, Batch batch)
    @cython.locals(i=Py_ssize_t)
    cdef int _parse(self, Batch batch) noexcept nogil
    @cython.locals(kind=uint32_t, read=uint64_t, write=uint64_t)
    cdef uint32_t _check(self, Batch batch, Py_ssize_t i, uint64_t sector) noexcept nogil
    cdef bint _inside(self, uint64_t sector, uint64_t length) noexcept nogil
    @cython.locals(skip=uint64_t, source=Py_ssize_t, target=Py_ssize_t, base=uint64_t, size=uint64_t)
    cdef void _place(self, Batch batch, Py_ssize_t i, uint64_t sector, uint64_t length, bint into_guest) noexcept nogil
    @cython.locals(
        discards=bint, count=int, row=int, sector=uint64_t, sectors=uint64_t, flags=uint32_t,
    )
    cpdef int ranges(self, Batch batch, Py_ssize_t i) noexcept nogil
