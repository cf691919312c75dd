# C shape of foreign.py.

cimport cython
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from xenvirtio.memory.base cimport GuestMemory
from xenvirtio.memory.raw cimport copy
from xenvirtio.memory.segments cimport Segments

cdef unsigned int FAULT_MEMORY, FAULT_SIZE

@cython.locals(s=Py_ssize_t, k=Py_ssize_t, total=Py_ssize_t)
cdef Py_ssize_t _pages(Segments batch, Py_ssize_t i) noexcept

@cython.locals(s=Py_ssize_t, address=uint64_t)
cdef set _frames_of(Segments batch, Py_ssize_t first, Py_ssize_t count)

cdef class ForeignMemory(GuestMemory):
    cdef readonly object mapper
    cdef readonly unsigned int domid
    cdef readonly bint cached
    cdef Py_ssize_t _bucket_pages, _buckets_max
    cdef object _buckets, _live
    cdef Py_ssize_t _own_pages

    cpdef object map(self, uint64_t address, uint64_t length, bint writable=*)
    cpdef int begin(self, Segments batch, Py_ssize_t first=*) except -1
    cpdef int finish(self, Segments batch, Py_ssize_t count=*) except -1
    cpdef bint fetch(self, uint64_t address, uint64_t length, uintptr_t destination) except *

    @cython.locals(s=Py_ssize_t, k=Py_ssize_t, pages=Py_ssize_t, first=Py_ssize_t, write=bint, base=int64_t, size=uint64_t)
    cdef bint _reach(self, Segments batch, Py_ssize_t i, list held, Py_ssize_t limit) except *
