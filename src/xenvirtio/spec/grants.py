"""Grant copies: Linux include/uapi/xen/gntdev.h, xen/include/public/grant_table.h."""

from __future__ import annotations

# struct gntdev_grant_copy_segment (byte offsets). Each side is a local address (u64), or
# {u32 ref, u16 offset, u16 domid} where its flag says that it is granted.
COPY_SIZE = 24
COPY_SOURCE = 0
COPY_DEST = 8
COPY_LEN = 16  # u16, bytes; a granted side must not cross its page's end
COPY_FLAGS = 18  # u16
COPY_STATUS = 20  # s16, out

GNTCOPY_SOURCE_GREF = 1
GNTCOPY_DEST_GREF = 2

GNTST_OKAY = 0
GNTST_BAD_DOMAIN = -2
GNTST_BAD_GNTREF = -3
GNTST_PERMISSION_DENIED = -8
