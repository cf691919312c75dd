# C shape of arena.py.

cimport cython
from libc.stdint cimport uint64_t

cdef uint64_t MIRRORED

@cython.final
cdef class Arena:
    cdef object _memory
    cdef readonly uint64_t address, length
    cdef public uint64_t head, tail
    @cython.locals(pos=uint64_t, room=uint64_t)
    cdef uint64_t place(self, uint64_t length, uint64_t offset) noexcept nogil
