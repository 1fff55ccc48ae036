import io

import numpy as np
import pytest
from PIL import Image

from som_lite.view.png import quick_png


@pytest.mark.parametrize("channels", [3, 4])
def test_pillow_reads_back_the_same_pixels(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, channels), dtype=np.uint8)
    picture = Image.open(io.BytesIO(quick_png(pixels)))
    picture.load()
    assert picture.mode == "RGB" and picture.size == (53, 37)
    np.testing.assert_array_equal(np.asarray(picture), pixels[..., :3])
