import io

import numpy as np
import pytest
from PIL import Image

from som_lite.view.png import in_few_colours, palette_png, quick_png


@pytest.mark.parametrize("channels", [3, 4])
def test_pillow_reads_back_the_same_pixels(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, channels), dtype=np.uint8)
    picture = Image.open(io.BytesIO(quick_png(pixels)))
    picture.load()
    assert picture.mode == "RGB" and picture.size == (53, 37)
    np.testing.assert_array_equal(np.asarray(picture), pixels[..., :3])


def photo(indices: np.ndarray, palette: np.ndarray) -> np.ndarray:
    data = palette_png(indices, palette)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_few_colours_keep_flat_areas_exactly_and_small_marks_nearly():
    rng = np.random.default_rng(1)
    picture = np.full((60, 60, 3), 255, np.uint8)
    picture[:30] = (230, 241, 248)  # a pale flat area
    picture[40:50, :] = rng.integers(100, 256, (10, 60, 3))  # many colours
    picture[55, 55] = (204, 121, 167)  # one pixel of a colour of its own
    (indices,), palette = in_few_colours([picture], 60)
    assert len(palette) <= 60
    seen = photo(indices, palette).astype(int)
    for row in (0, 29, 35, 59):
        np.testing.assert_array_equal(seen[row, :50], picture[row, :50])
    # Sixty colours for a cube of 156 steps a side are 40 apart.
    assert np.abs(seen - picture)[55, 55].max() < 40
    assert np.abs(seen - picture).max() < 80


def test_few_colours_are_one_palette_for_all_pictures():
    red, blue = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    frames, palette = in_few_colours([red, blue], 8)
    np.testing.assert_array_equal(photo(frames[0], palette), red)
    np.testing.assert_array_equal(photo(frames[1], palette), blue)


def test_transparent_index_is_seen_through():
    data = palette_png(np.array([[0, 1]]), np.array([[0] * 3, [255] * 3]), transparent=1)
    alpha = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3]
    assert alpha.tolist() == [[255, 0]]
