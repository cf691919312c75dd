# C shape of regions.py.

cimport cython
from libc.stdint cimport uint64_t, uintptr_t
from xenvirtio.memory.base cimport GuestMemory
from xenvirtio.memory.raw cimport copy
from xenvirtio.memory.segments cimport Segments

cdef unsigned int FAULT_SIZE
cdef uint64_t ADDRESS_MAX

cdef class RegionMemory(GuestMemory):
    cdef readonly object regions
    cdef Py_ssize_t _count, _last
    cdef uint64_t[::1] _guest, _length, _local

    cpdef object map(self, uint64_t address, uint64_t length, bint writable=*)
    @cython.locals(hole=bint)
    cpdef int begin(self, Segments batch, Py_ssize_t first=*) except -1
    cpdef int finish(self, Segments batch, Py_ssize_t count=*) except -1
    @cython.locals(i=Py_ssize_t, n=uint64_t)
    cpdef bint fetch(self, uint64_t address, uint64_t length, uintptr_t destination) except *
    @cython.locals(i=Py_ssize_t)
    cpdef int fetch_tables(self, Segments batch, Py_ssize_t first, uintptr_t destination) except -1
    @cython.locals(low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t)
    cdef Py_ssize_t _find(self, uint64_t address) noexcept nogil
    @cython.locals(i=Py_ssize_t, s=Py_ssize_t, k=Py_ssize_t, result=int)
    cdef bint _begin(self, Segments batch, Py_ssize_t first) noexcept nogil
    @cython.locals(r=Py_ssize_t, n=uint64_t)
    cdef int _place(self, Segments batch, Py_ssize_t i, bint write, uint64_t address, uint64_t length) noexcept nogil
