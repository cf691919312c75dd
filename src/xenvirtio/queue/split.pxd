# C shape of split.py.

cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uintptr_t
from xenvirtio.memory.base cimport GuestMemory
from xenvirtio.memory.raw cimport (
    fence_acquire, fence_full, fence_release, load16, load32, load64, store16, store32,
)
from xenvirtio.queue.batch cimport Batch

cdef int AVAIL_IDX, HEAD, NEXT, LOOP, ORDER, OVERFLOW, BYTES
cdef int INDIRECT_OFF, INDIRECT_NEXT, INDIRECT_LENGTH, INDIRECT_HUGE, INDIRECT_NESTED, FULL
cdef unsigned int F_NEXT, F_WRITE, F_INDIRECT, NO_INTERRUPT, NO_NOTIFY
cdef uint64_t ADDRESS_MAX, CHAIN_MAX

@cython.final
cdef class SplitQueue:
    cdef readonly object config
    cdef readonly unsigned int index, size
    cdef readonly GuestMemory memory
    cdef bint _event_idx, _indirect, _signal
    cdef unsigned int _mask, _last_avail, _used_idx, _signalled
    cdef uintptr_t _desc, _avail, _used
    cdef object _rings, _tables
    cdef uintptr_t _tables_address
    cdef uint64_t _tables_length, _tables_used

    @cython.locals(rule=int, first=Py_ssize_t, taken=Py_ssize_t)
    cpdef Py_ssize_t take(self, Batch batch, Py_ssize_t limit=*) except -1
    cpdef int give(self, Batch batch) except -1
    cpdef int give_some(self, Batch batch, Py_ssize_t count) except -1
    cpdef bint should_notify(self)
    cpdef bint wants_kicks(self, bint on)
    cpdef unsigned int available(self)

    @cython.locals(first=Py_ssize_t, n=Py_ssize_t, k=Py_ssize_t, rule=int, slot=uint32_t)
    cdef int _collect(self, Batch batch, Py_ssize_t limit) noexcept nogil
    @cython.locals(
        index=uint32_t, rule=int, desc=uintptr_t, address=uint64_t, length=uint32_t, flags=uint32_t,
        following=uint32_t,
    )
    cdef int _chain(self, Batch batch, Py_ssize_t i, unsigned int head) noexcept nogil
    cdef int _segment(self, Batch batch, Py_ssize_t i, uint64_t address, uint32_t length, bint write) noexcept nogil
    @cython.locals(room=uint32_t)
    cdef int _reserve(self, Batch batch, Py_ssize_t i, uint64_t address, uint32_t length, bint more) noexcept nogil
    @cython.locals(i=Py_ssize_t, rule=int)
    cdef int _parse_tables(self, Batch batch, Py_ssize_t first) noexcept nogil
    @cython.locals(
        entries=uint32_t, index=uint32_t, seen=uint32_t, rule=int, desc=uintptr_t, table=uintptr_t,
        address=uint64_t, length=uint32_t, flags=uint32_t, following=uint32_t,
    )
    cdef int _parse_table(self, Batch batch, Py_ssize_t i) noexcept nogil
    @cython.locals(i=Py_ssize_t, written=uint64_t, element=uintptr_t)
    cdef void _publish(self, Batch batch, Py_ssize_t count) noexcept nogil
    @cython.locals(event=uint32_t, since=uint32_t, old=uint32_t)
    cdef bint _should_notify(self) noexcept nogil
    cdef bint _wants_kicks(self, bint on) noexcept nogil
