# C shape of engine.py.

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from xenvirtio.device.block.requests cimport (
    FLAG_UNMAP, S_IOERR, S_OK, S_PENDING, S_UNSUPP, T_DISCARD, T_FLUSH, T_GET_ID, T_IN, T_OUT, T_WRITE_ZEROES,
    Requests,
)
from xenvirtio.device.syscalls cimport discard, fallocate, fdatasync, preadv, pwrite, pwritev
from xenvirtio.memory.raw cimport fill, store8
from xenvirtio.queue.batch cimport Batch

cdef long EINTR, EIO, EOPNOTSUPP
cdef int IOV_MAX, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
cdef uint64_t ID_SIZE, ZEROES

@cython.final
cdef class Engine:
    cdef int fd
    cdef bint is_device
    cdef public bint writeback
    cdef readonly bint lost
    cdef object _zeroes, _id, _status
    cdef uintptr_t _zeroes_address, _id_address, _status_address
    cdef uint64_t reads, writes, flushes, discards, zeroings, get_ids
    cdef uint64_t unsupported, errors, syncs, bytes_read, bytes_written

    cpdef object run(self, Batch batch, Requests requests)
    @cython.locals(i=Py_ssize_t, kind=uint32_t)
    cdef void _submit(self, Batch batch, Requests requests) noexcept nogil
    @cython.locals(i=Py_ssize_t, wanted=bint, stable=bint)
    cdef void _complete(self, Batch batch, Requests requests) noexcept nogil
    cdef bint _changes(self, uint32_t kind) noexcept nogil
    @cython.locals(
        row=Py_ssize_t, left=Py_ssize_t, offset=uint64_t, address=uintptr_t, moved=long, done=uint64_t, size=uint64_t,
    )
    cdef uint32_t _move(self, Requests requests, Py_ssize_t i, bint into_guest) noexcept nogil
    @cython.locals(count=int, row=int, result=long)
    cdef uint32_t _punch(self, Batch batch, Requests requests, Py_ssize_t i) noexcept nogil
    @cython.locals(result=long)
    cdef long _discard(self, uint64_t offset, uint64_t length) noexcept nogil
    @cython.locals(result=long)
    cdef long _zero(self, uint64_t offset, uint64_t length, bint unmap) noexcept nogil
    @cython.locals(result=long)
    cdef long _sync(self) noexcept nogil
    @cython.locals(covered=uint64_t, room=uint64_t)
    cdef void _answer(self, Batch batch, Requests requests, Py_ssize_t i) noexcept nogil
    @cython.locals(row=Py_ssize_t, at=uint64_t, size=uint64_t, first=uint64_t)
    cdef void _clear(self, Batch batch, Py_ssize_t i, uint64_t begin, uint64_t end) noexcept nogil
    @cython.locals(kind=uint32_t)
    cdef void _count(self, Requests requests, Py_ssize_t i) noexcept nogil
