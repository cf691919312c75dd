# C shape of requests.py.

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from xenvirtio.memory.raw cimport load16, load32, store16

cdef uint32_t NEEDS_CSUM, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_ECN
cdef uint64_t ETH_HLEN, PACKET_MAX
cdef uint32_t TCP_HLEN, TCP_CSUM, IPV4_HLEN, IPV6_HLEN, GSO_SIZE_MIN
cdef uint32_t MULTICAST, VLAN_TAG
cdef uint64_t BROADCAST

@cython.final
cdef class HeaderRules:
    cdef bint csum, tso4, tso6, ecn

    @cython.locals(
        flags=uint32_t, gso=uint32_t, kind=uint32_t, header_length=uint32_t, gso_size=uint32_t, start=uint32_t,
        offset=uint32_t,
    )
    cdef bint check(self, uintptr_t header, uint64_t length) noexcept nogil

@cython.final
cdef class Offloads:
    cdef bint csum, tso4, tso6, ecn

    @cython.locals(flags=uint32_t, gso=uint32_t, kind=uint32_t)
    cdef bint takes(self, uintptr_t header) noexcept nogil

@cython.final
cdef class ReceiveFilter:
    cdef readonly uint64_t station
    cdef bint promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast
    cdef bint filter_vlans, unicast_overflow, multicast_overflow
    cdef Py_ssize_t unicast_count, multicast_count
    cdef uint64_t[::1] unicast, multicast
    cdef uint8_t[::1] vlans

    @cython.locals(target=uint64_t, number=uint32_t)
    cdef bint accepts(self, uintptr_t frame) noexcept nogil
    @cython.locals(i=Py_ssize_t)
    cdef bint _lists(self, uint64_t[::1] table, Py_ssize_t count, uint64_t target) noexcept nogil
