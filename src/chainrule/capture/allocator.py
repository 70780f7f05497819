"""Fresh memory is dear: each page of 4 KB costs some microseconds when it is first written, more than most sums over it."""

from __future__ import annotations

import torch

LARGEST = 31 * 2**20  # bytes; the GNU C library looks no further than blocks of 32 MiB


def keep_freed_memory() -> None:
    """Let the C library keep up to 62 MB of freed memory for the next tensors, in place of giving it back each time.

    It adapts to what a program does: once a block has been allocated and freed, blocks of that size come from the heap, of
    which twice as much may lie idle (mallopt(3), M_MMAP_THRESHOLD). So one block is allocated, never written, and freed.
    Every program that frees one tensor of this size does the same. Without effect where there is no such allocator.
    """
    torch.empty(LARGEST, dtype=torch.uint8, device="cpu")
