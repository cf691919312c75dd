# Loads, stores and fences on local addresses, inline C; raw.py is the interpreted twin.
# Volatile, so that one call is one access: what a guest writes is read exactly once (XSA-155).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    static inline uint8_t xv_load8(uintptr_t a) { return *(volatile uint8_t *)a; }
    static inline uint16_t xv_load16(uintptr_t a) { return *(volatile uint16_t *)a; }
    static inline uint32_t xv_load32(uintptr_t a) { return *(volatile uint32_t *)a; }
    static inline uint64_t xv_load64(uintptr_t a) { return *(volatile uint64_t *)a; }

    static inline void xv_store8(uintptr_t a, uint8_t v) { *(volatile uint8_t *)a = v; }
    static inline void xv_store16(uintptr_t a, uint16_t v) { *(volatile uint16_t *)a = v; }
    static inline void xv_store32(uintptr_t a, uint32_t v) { *(volatile uint32_t *)a = v; }
    static inline void xv_store64(uintptr_t a, uint64_t v) { *(volatile uint64_t *)a = v; }

    static inline void xv_copy(uintptr_t d, uintptr_t s, uint64_t n) { memmove((void *)d, (const void *)s, n); }
    static inline void xv_fill(uintptr_t d, uint8_t v, uint64_t n) { memset((void *)d, v, n); }

    static inline void xv_fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
    static inline void xv_fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
    static inline void xv_fence_full(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    """
    uint8_t load8 "xv_load8"(uintptr_t address) noexcept nogil
    uint16_t load16 "xv_load16"(uintptr_t address) noexcept nogil
    uint32_t load32 "xv_load32"(uintptr_t address) noexcept nogil
    uint64_t load64 "xv_load64"(uintptr_t address) noexcept nogil
    void store8 "xv_store8"(uintptr_t address, uint8_t value) noexcept nogil
    void store16 "xv_store16"(uintptr_t address, uint16_t value) noexcept nogil
    void store32 "xv_store32"(uintptr_t address, uint32_t value) noexcept nogil
    void store64 "xv_store64"(uintptr_t address, uint64_t value) noexcept nogil
    void copy "xv_copy"(uintptr_t destination, uintptr_t source, uint64_t length) noexcept nogil
    void fill "xv_fill"(uintptr_t address, uint8_t byte, uint64_t length) noexcept nogil
    void fence_acquire "xv_fence_acquire"() noexcept nogil
    void fence_release "xv_fence_release"() noexcept nogil
    void fence_full "xv_fence_full"() noexcept nogil
