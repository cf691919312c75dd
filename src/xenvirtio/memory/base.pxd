# C shape of base.py.

cimport cython
from libc.stdint cimport uint64_t, uintptr_t
from xenvirtio.memory.segments cimport Segments

cdef class MemoryCounters:
    cdef public uint64_t grants_copied, bytes_copied, frames_mapped, frames_unmapped, hypercalls
    cdef public uint64_t cache_hits, cache_misses, cache_evictions, invalidations

cdef class GuestMemory:
    cdef readonly MemoryCounters counters

    cpdef object map(self, uint64_t address, uint64_t length, bint writable=*)
    cpdef int begin(self, Segments batch, Py_ssize_t first=*) except -1
    cpdef int finish(self, Segments batch, Py_ssize_t count=*) except -1
    cpdef bint fetch(self, uint64_t address, uint64_t length, uintptr_t destination) except *
    @cython.locals(i=Py_ssize_t)
    cpdef int fetch_tables(self, Segments batch, Py_ssize_t first, uintptr_t destination) except -1
