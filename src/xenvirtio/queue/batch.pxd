# C shape of batch.py.

cimport cython
from libc.stdint cimport uint64_t, uintptr_t
from xenvirtio.memory.raw cimport copy
from xenvirtio.memory.segments cimport Segments

@cython.final
cdef class Batch(Segments):
    cpdef bint gather(self, Py_ssize_t i, uint64_t offset, uintptr_t destination, uint64_t length) noexcept nogil
    cpdef bint scatter(self, Py_ssize_t i, uint64_t offset, uintptr_t source, uint64_t length) noexcept nogil
    @cython.locals(k=Py_ssize_t, base=uint64_t, size=uint64_t)
    cdef bint _move(
        self, Py_ssize_t row, Py_ssize_t rows, uint64_t offset, uintptr_t local, uint64_t length, bint out
    ) noexcept nogil
