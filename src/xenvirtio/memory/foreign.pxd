# C shape of foreign.py.

cimport cython
from libc.stdint cimport uint64_t, uintptr_t
from xenvirtio.memory.base cimport GuestMemory
from xenvirtio.memory.raw cimport copy
from xenvirtio.memory.segments cimport Segments

cdef unsigned int FAULT_MEMORY, FAULT_SIZE

@cython.final
cdef class ForeignMemory(GuestMemory):
    cdef readonly object mapper
    cdef readonly unsigned int domid
    cdef readonly bint cached
    cdef Py_ssize_t _bucket_pages, _buckets_max
    cdef object _buckets

    cpdef object map(self, uint64_t address, uint64_t length, bint writable=*)
    cpdef int begin(self, Segments batch, Py_ssize_t first=*) except -1
    cpdef int finish(self, Segments batch, Py_ssize_t count=*) except -1
    cpdef bint fetch(self, uint64_t address, uint64_t length, uintptr_t destination) except *
