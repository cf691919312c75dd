# C shape of split.py.

cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uintptr_t
from xenvirtio.memory.base cimport GuestMemory
from xenvirtio.memory.raw cimport fence_acquire, fence_full, fence_release, load16, store16, store32
from xenvirtio.queue.batch cimport Batch
from xenvirtio.queue.walk cimport Walker

cdef int AVAIL_IDX, FULL
cdef unsigned int NO_INTERRUPT, NO_NOTIFY

@cython.final
cdef class SplitQueue:
    cdef readonly object config
    cdef readonly unsigned int index, size
    cdef readonly GuestMemory memory
    cdef bint _event_idx, _signal
    cdef unsigned int _mask, _last_avail, _used_idx, _signalled
    cdef uintptr_t _avail, _used
    cdef Walker _walker
    cdef object _rings

    @cython.locals(rule=int, first=Py_ssize_t, taken=Py_ssize_t)
    cpdef Py_ssize_t take(self, Batch batch, Py_ssize_t limit=*) except -1
    cpdef int give(self, Batch batch) except -1
    cpdef int give_some(self, Batch batch, Py_ssize_t count) except -1
    cpdef bint should_notify(self)
    cpdef bint wants_kicks(self, bint on)
    cpdef unsigned int available(self)

    @cython.locals(first=Py_ssize_t, n=Py_ssize_t, k=Py_ssize_t, rule=int, slot=uint32_t)
    cdef int _collect(self, Batch batch, Py_ssize_t limit) noexcept nogil
    @cython.locals(i=Py_ssize_t, written=uint64_t, element=uintptr_t)
    cdef void _publish(self, Batch batch, Py_ssize_t count) noexcept nogil
    @cython.locals(event=uint32_t, since=uint32_t, old=uint32_t)
    cdef bint _should_notify(self) noexcept nogil
    cdef bint _wants_kicks(self, bint on) noexcept nogil
