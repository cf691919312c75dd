# C shape of foreign_cache.py.

cimport cython
from libc.stdint cimport int64_t, uint64_t
from xenvirtio.memory.base cimport MemoryCounters

cdef class Frames:
    cdef public dict pages
    cdef public list mapped
    cdef public Py_ssize_t count, users, own_pages
    cdef public bint kept

cdef class Bucket(Frames):
    cdef public uint64_t base
    cdef public bytes good

cdef class FrameMaps:
    cdef readonly object mapper
    cdef readonly unsigned int domid
    cdef readonly MemoryCounters counters
    cdef public Py_ssize_t own_pages
    cdef set _live

    @cython.locals(held=Frames)
    cpdef object release(self, list users)

cdef class FrameCache:
    cdef FrameMaps _maps
    cdef MemoryCounters _counters
    cdef uint64_t _bucket_pages
    cdef Py_ssize_t _buckets_max
    cdef object _buckets

    @cython.locals(number=uint64_t, k=Py_ssize_t, bucket=Bucket)
    cpdef int64_t find(self, uint64_t frame, list held) except? -2
    @cython.locals(bucket=Bucket)
    cdef Bucket _new(self, uint64_t number)
