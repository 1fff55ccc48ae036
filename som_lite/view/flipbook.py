"""A flip-book: the pictures of one slider in a page of its own, with no kernel and no network.

The still stays as the background; the other pictures hold only the pixels that differ from it. All
share one palette. So eleven pictures of 840 x 490 take less than 200 kB, and nothing flickers. The
attribute data-lm-suppress-shortcuts leaves the arrow keys to the slider in JupyterLab, where they
move between cells otherwise.
"""

import base64
import html
import json

import numpy as np

from som_lite.view.png import in_few_colours, palette_png

COLOURS = 95

PAGE = """<figure style="margin:0">
<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{still}"><br>
<input type="range" min="0" max="{last}" value="{start}" aria-label="{name}" \
aria-valuetext="{caption}" data-lm-suppress-shortcuts="true">
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
    pictures: list[np.ndarray], captions: list[str], start: int, name: str, alt: str, note: str
) -> tuple[str, str]:
    """Return the page, as an HTML fragment, and its picture `start` as a PNG in base64.

    pictures (height, width, 3) of bytes, all of one size, with a caption each.
    `name` is what a screen reader calls the slider, `alt` what it says of the picture.
    """
    frames, palette = in_few_colours(pictures, COLOURS)
    clear = len(palette)  # one more index, to see the still through
    changes = [np.where(frame == frames[start], clear, frame) for frame in frames]
    still = _base64(palette_png(frames[start], palette))
    layers = [_base64(palette_png(c, np.vstack([palette, palette[:1]]), clear)) for c in changes]
    page = PAGE.format(
        alt=html.escape(alt),
        still=still,
        last=len(frames) - 1,
        start=start,
        name=html.escape(name),
        caption=html.escape(captions[start]),
        note=html.escape(note),
        data=json.dumps([captions, layers]).replace("<", "\\u003c"),
    )
    return page, still


def still_picture(pixels: np.ndarray) -> str:
    """One picture (height, width, 3 or more) in the colours of a flip-book, as PNG in base64."""
    (frame,), palette = in_few_colours([pixels[..., :3]], COLOURS)
    return _base64(palette_png(frame, palette))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
