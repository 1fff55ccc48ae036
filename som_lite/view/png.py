"""A PNG written quickly: for drawings, whose rows are mostly flat colour."""

import struct
import zlib

import numpy as np


def quick_png(pixels: np.ndarray) -> bytes:
    """The picture (height, width, 3 or 4) of bytes as an opaque RGB PNG, lightly compressed.

    Pillow tries five filters on every row, which on a drawing takes two thirds of its time and
    saves nothing. Here no row is filtered.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a row begins with its filter, 0 for none
    rows[:, 1:] = pixels[..., :3].reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), level=1)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
