# C shape of walk.py.

cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uintptr_t
from xenvirtio.memory.raw cimport load16, load32, load64
from xenvirtio.queue.batch cimport Batch

cdef int HEAD, NEXT, LOOP, ORDER, OVERFLOW, BYTES
cdef int INDIRECT_OFF, INDIRECT_NEXT, INDIRECT_LENGTH, INDIRECT_HUGE, INDIRECT_NESTED, FULL
cdef unsigned int F_NEXT, F_WRITE, F_INDIRECT
cdef uint64_t ADDRESS_MAX, CHAIN_MAX

@cython.final
cdef class Walker:
    cdef uintptr_t _desc
    cdef bint _indirect
    cdef object _tables
    cdef uint64_t _tables_length
    cdef readonly unsigned int size, longest
    cdef readonly uintptr_t tables_address
    cdef public uint64_t tables_used

    @cython.locals(
        index=uint32_t, rule=int, desc=uintptr_t, address=uint64_t, length=uint32_t, flags=uint32_t,
        following=uint32_t,
    )
    cdef int chain(self, Batch batch, Py_ssize_t i, unsigned int head) noexcept nogil
    cdef int _segment(self, Batch batch, Py_ssize_t i, uint64_t address, uint32_t length, bint write) noexcept nogil
    @cython.locals(room=uint32_t)
    cdef int _reserve(self, Batch batch, Py_ssize_t i, uint64_t address, uint32_t length, bint more) noexcept nogil
    @cython.locals(i=Py_ssize_t, rule=int)
    cdef int parse_tables(self, Batch batch, Py_ssize_t first) noexcept nogil
    @cython.locals(
        entries=uint32_t, index=uint32_t, seen=uint32_t, rule=int, desc=uintptr_t, table=uintptr_t,
        address=uint64_t, length=uint32_t, flags=uint32_t, following=uint32_t,
    )
    cdef int _parse_table(self, Batch batch, Py_ssize_t i) noexcept nogil
