# C shape of grant.py.

cimport cython
from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from xenvirtio.memory.arena cimport Arena
from xenvirtio.memory.base cimport GuestMemory
from xenvirtio.memory.raw cimport load16, store8, store16, store32, store64
from xenvirtio.memory.segments cimport Segments

cdef unsigned int FAULT_MEMORY, FAULT_TABLE, FAULT_SIZE, NO_STATUS
cdef int NO_ROOM
cdef uint64_t REF_MAX, SPAN_MAX

cdef class GrantMemory(GuestMemory):
    cdef readonly object table
    cdef readonly unsigned int domid
    cdef object _memory
    cdef uint64_t _staging_bytes
    cdef uintptr_t _ops
    cdef Py_ssize_t _room, _count
    cdef uint32_t[::1] _row

    cpdef object map(self, uint64_t address, uint64_t length, bint writable=*)
    @cython.locals(arena=Arena, bad=bint)
    cpdef int begin(self, Segments batch, Py_ssize_t first=*) except -1
    @cython.locals(arena=Arena, done=Py_ssize_t)
    cpdef int finish(self, Segments batch, Py_ssize_t count=*) except -1
    @cython.locals(i=Py_ssize_t)
    cpdef bint fetch(self, uint64_t address, uint64_t length, uintptr_t destination) except *
    @cython.locals(i=Py_ssize_t, k=Py_ssize_t)
    cpdef int fetch_tables(self, Segments batch, Py_ssize_t first, uintptr_t destination) except -1

    cdef int _reserve(self, Py_ssize_t count) except -1
    cdef int _run(self, Py_ssize_t first) except -1
    @cython.locals(ref=uint32_t, offset=uint64_t, n=uint64_t, at=uintptr_t, granted=uintptr_t, ours=uintptr_t)
    cdef void _add(
        self, bint out, uint64_t address, uint64_t local, uint64_t length, Py_ssize_t row
    ) noexcept nogil
    cdef bint _granted(self, uint64_t address, uint64_t length) noexcept nogil
    @cython.locals(i=Py_ssize_t, start=uint64_t, result=int)
    cdef bint _stage(self, Segments batch, Arena arena, Py_ssize_t first) noexcept nogil
    @cython.locals(s=Py_ssize_t, k=Py_ssize_t, local=uint64_t)
    cdef int _stage_chain(self, Segments batch, Arena arena, Py_ssize_t i) noexcept nogil
    @cython.locals(s=Py_ssize_t, k=Py_ssize_t, local=uint64_t)
    cdef void _stage_status(self, Segments batch, Arena arena, Py_ssize_t i) noexcept nogil
    @cython.locals(k=Py_ssize_t, r=Py_ssize_t, i=Py_ssize_t)
    cdef void _check_reads(self, Segments batch) noexcept nogil
    @cython.locals(i=Py_ssize_t, s=Py_ssize_t, k=Py_ssize_t, left=uint64_t, n=uint64_t)
    cdef void _collect_writes(self, Segments batch, Py_ssize_t count) noexcept nogil
    @cython.locals(s=Py_ssize_t, n=uint64_t)
    cdef void _last_byte(self, Segments batch, Py_ssize_t i, unsigned int status) noexcept nogil
    @cython.locals(k=Py_ssize_t, i=Py_ssize_t, done=Py_ssize_t)
    cdef Py_ssize_t _check_writes(self, Segments batch) noexcept nogil
