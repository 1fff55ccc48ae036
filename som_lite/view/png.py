"""PNGs of drawings: written quickly for a slider, or small for a notebook."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
from scipy.spatial import KDTree


def quick_png(pixels: np.ndarray) -> bytes:
    """The picture (height, width, 3 or 4) of bytes as an opaque RGB PNG, lightly compressed.

    Pillow tries five filters on every row, which on a drawing takes two thirds of its time and
    saves nothing. Here no row is filtered.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a row begins with its filter, 0 for none
    for colour in range(3):  # a quarter of the time that copying all at once takes
        rows[:, 1 + colour :: 3] = pixels[..., colour]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows.data, 1)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def in_few_colours(pictures: list[np.ndarray], colours: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures (height, width, 3) as indices (height, width) into one palette (at most colours, 3).

    A third of the palette are the most frequent colours, unchanged: the flat areas of a drawing.
    The others cover the rest evenly, so that a small mark keeps its colour as well.
    """
    together = Image.fromarray(np.concatenate(pictures))
    counted = sorted(together.getcolors(maxcolors=1 << 24) or [], reverse=True)
    every = np.array([colour for _, colour in counted])
    frequent = every[: colours // 3]
    rest = colours - len(frequent)
    spread = together.quantize(rest, Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = np.concatenate([frequent, np.reshape(spread, (-1, 3))[:rest]])
    # Pillow's own way from colour to palette is rough: white would turn grey.
    table = np.zeros(1 << 24, np.uint8)
    table[_code(every)] = KDTree(palette).query(every)[1]
    return [table[_code(picture)] for picture in pictures], palette


def _code(colour: np.ndarray) -> np.ndarray:
    """Red, green and blue of (..., 3) in one number."""
    return colour.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def palette_png(indices: np.ndarray, palette: np.ndarray, transparent: int | None = None) -> bytes:
    """A well compressed PNG of indices into a palette; one index may be `transparent`."""
    picture = Image.fromarray(indices.astype(np.uint8))
    picture.putpalette(palette.ravel().tolist())
    see_through = {} if transparent is None else {"transparency": transparent}
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, **see_through)
    return buffer.getvalue()
