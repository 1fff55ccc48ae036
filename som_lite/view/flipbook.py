"""A flip-book: the pictures of one slider in a page of its own, with no kernel and no network.

The still stays as the background; the other pictures hold only the pixels that differ from it. All
share one palette. So eleven pictures of 840 x 490 take about 150 kB, and nothing flickers.
"""

import base64
import html
import io
import json

import numpy as np
from PIL import Image

COLOURS = 63  # and one more index that is transparent

PAGE = """<figure style="margin:0">
<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{still}"><br>
<input type="range" min="0" max="{last}" value="{start}" aria-label="{name}" \
aria-valuetext="{caption}">
<output>{caption}</output> <small>{note}</small>
<script>(() => {{
const [captions, changes] = {data}, figure = document.currentScript.parentElement;
const [image, range, caption] = ["img", "input", "output"].map(tag => figure.querySelector(tag));
image.style.background = `url(${{image.src}}) 0 0 / 100% 100%`;
range.oninput = () => {{
  image.src = "data:image/png;base64," + changes[range.value];
  caption.value = captions[range.value];
  range.setAttribute("aria-valuetext", caption.value);
}};
}})()</script></figure>"""


def flip_book(
    pictures: list[Image.Image], captions: list[str], start: int, name: str, alt: str, note: str
) -> tuple[str, str]:
    """Return the page, as an HTML fragment, and its picture `start` as a PNG in base64.

    `name` is what a screen reader calls the slider, `alt` what it says of the picture.
    """
    together = Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures]))
    palette = together.quantize(COLOURS)
    frames = [
        np.asarray(picture.quantize(palette=palette, dither=Image.Dither.NONE))
        for picture in pictures
    ]
    still = _png(frames[start], palette)
    changes = [_png(np.where(f == frames[start], COLOURS, f), palette) for f in frames]
    page = PAGE.format(
        alt=html.escape(alt),
        still=still,
        last=len(frames) - 1,
        start=start,
        name=html.escape(name),
        caption=html.escape(captions[start]),
        note=html.escape(note),
        data=json.dumps([captions, changes]).replace("<", "\\u003c"),
    )
    return page, still


def _png(indices: np.ndarray, palette: Image.Image) -> str:
    picture = Image.fromarray(indices.astype(np.uint8))
    colours = (palette.getpalette() or [])[: 3 * COLOURS]
    picture.putpalette(colours + [255] * (3 * COLOURS + 3 - len(colours)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, transparency=COLOURS)
    return base64.b64encode(buffer.getvalue()).decode()
