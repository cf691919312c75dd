# C shape of foreign.py.

cimport cython
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from xenvirtio.memory.base cimport GuestMemory
from xenvirtio.memory.foreign_cache cimport FrameCache, FrameMaps, Frames
from xenvirtio.memory.raw cimport copy
from xenvirtio.memory.segments cimport Segments

cdef unsigned int FAULT_MEMORY, FAULT_SIZE

@cython.locals(s=Py_ssize_t, k=Py_ssize_t, total=Py_ssize_t)
cdef Py_ssize_t _pages(Segments batch, Py_ssize_t i) noexcept

@cython.locals(s=Py_ssize_t, address=uint64_t)
cdef set _frames_of(Segments batch, Py_ssize_t first, Py_ssize_t count)

cdef class ForeignMemory(GuestMemory):
    cdef FrameMaps _maps
    cdef FrameCache _cache
    cdef Py_ssize_t _chain_pages

    cpdef object map(self, uint64_t address, uint64_t length, bint writable=*)
    cpdef int begin(self, Segments batch, Py_ssize_t first=*) except -1
    cpdef int finish(self, Segments batch, Py_ssize_t count=*) except -1
    @cython.locals(own=Frames, offset=uint64_t, size=uint64_t)
    cpdef bint fetch(self, uint64_t address, uint64_t length, uintptr_t destination) except *

    @cython.locals(pages=Py_ssize_t, first=Py_ssize_t, filled=int)
    cdef bint _reach(self, Segments batch, Py_ssize_t i, list held) except *

    @cython.locals(s=Py_ssize_t, k=Py_ssize_t, write=bint, address=uint64_t, length=uint64_t, offset=uint64_t,
                   size=uint64_t, frame=uint64_t, local=int64_t)
    cdef int _fill(self, Segments batch, Py_ssize_t i, list held, Frames own) except -2

    cdef Frames _map_own(self, object read, object written, list held)
