# C shape of engine.py.

cimport cython
from libc.stdint cimport uint64_t, uintptr_t
from xenvirtio.device.net.requests cimport HeaderRules, Offloads, ReceiveFilter
from xenvirtio.device.syscalls cimport readv, writev
from xenvirtio.memory.raw cimport copy, store16
from xenvirtio.queue.batch cimport Batch

cdef long EINTR, EAGAIN, ENODEV
cdef uint64_t HEADER, NUM_BUFFERS, ETH_HLEN, HEAD, FULL
cdef Py_ssize_t IOVECS, DRAIN_MAX
cdef int DRAINED, STARVED, BUDGET, GONE

@cython.final
cdef class Engine:
    cdef int fd
    cdef readonly int end
    cdef HeaderRules rules
    cdef ReceiveFilter filter
    cdef bint mergeable
    cdef public Offloads offloads
    cdef object _iov_array, _local, _store
    cdef uint64_t[::1] _iov
    cdef uintptr_t _iov_address, _head, _waiting
    cdef uint64_t _waiting_length
    cdef Py_ssize_t _count, _chains
    cdef uint64_t tx_packets, tx_bytes, tx_dropped, tx_invalid
    cdef uint64_t rx_packets, rx_bytes, rx_dropped, rx_filtered

    cpdef object transmit(self, Batch batch)
    @cython.locals(i=Py_ssize_t)
    cdef void _transmit(self, Batch batch) noexcept nogil
    @cython.locals(length=uint64_t, sent=long, count=Py_ssize_t, row=Py_ssize_t, skip=uint64_t, size=uint64_t)
    cdef void _send(self, Batch batch, Py_ssize_t i) noexcept nogil
    cdef Py_ssize_t _start(self, uint64_t length) noexcept nogil
    @cython.locals(length=long)
    cpdef object drain(self)
    @cython.locals(used=Py_ssize_t)
    cpdef Py_ssize_t receive(self, Batch batch, bint full, int budget)
    @cython.locals(cursor=Py_ssize_t, room=uint64_t, length=long, size=uint64_t)
    cdef Py_ssize_t _receive(self, Batch batch, bint full, int budget) noexcept nogil
    @cython.locals(room=uint64_t, size=uint64_t, skip=uint64_t, row=Py_ssize_t, end=Py_ssize_t, chain=Py_ssize_t)
    cdef uint64_t _list_buffers(self, Batch batch, Py_ssize_t cursor) noexcept nogil
    @cython.locals(length=long, count=Py_ssize_t, size=uint64_t)
    cdef long _read(self, uint64_t room) noexcept nogil
    cdef void _drop(self) noexcept nogil
    @cython.locals(at=uint64_t, row=Py_ssize_t)
    cdef void _keep(self, uint64_t length) noexcept nogil
    @cython.locals(chain=Py_ssize_t, left=uint64_t)
    cdef Py_ssize_t _deliver(self, Batch batch, Py_ssize_t cursor, uint64_t length) noexcept nogil
    @cython.locals(part=uint64_t)
    cdef void _spread(self, Batch batch, Py_ssize_t chain, uintptr_t source, uint64_t length) noexcept nogil
