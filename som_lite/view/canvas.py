"""The HTML layer of the field explorers: a flow that moves in the browser, with no kernel.

The page holds a table of velocities, one byte a number, and the script canvas.js, which lets
particles drift in it. In an untrusted notebook scripts do not run: there the still picture remains.
"""

import base64
import html
import json
from collections.abc import Callable
from importlib.resources import files

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from som_lite.view import plots
from som_lite.view.png import in_few_colours, palette_png
from som_lite.view.style import COLOURS, figure, plane

Velocity = Callable[[Tensor, Tensor], Tensor]
AverageVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]
# Grid points a side, layers in time, and how far beyond the picture they reach. Half of the paths
# then end within a quarter of a pixel of the truth; near a watershed of the flow a path may miss.
CELLS, TIMES, REACH = 41, 21, 1.2
AVERAGE_CELLS, AVERAGE_TIMES = 25, 9  # u is smoother, and has a layer for each pair r <= t

PAGE = """<figure style="margin:0">
<img class="still" alt="{alt}" style="max-width:100%" src="data:image/png;base64,{still}">
<p class="still"><small>A still picture: run the cell to move it.</small></p>
<script>(() => {{
{script}
flowCanvas(document.currentScript.parentElement, {data});
}})()</script></figure>"""


def flow_canvas(
    velocity: Velocity,
    log_prob: Callable[[Tensor], Tensor],
    noise: Float[Tensor, "n 2"],
    point: tuple[float, float],
    steps: list[int],
    start: int,
    *,
    limit=3.0,
    interval: tuple[float, float] | None = None,
    average: AverageVelocity | None = None,
    still: str,
    name: str,
    alt: str,
) -> str:
    """Return the moving picture as an HTML fragment that is complete in itself.

    velocity  v(a, t) with a (n, 2) and t (n, 1), evaluated on a grid here and interpolated there
    log_prob  the target's log density, (n, 2) -> (n,)
    noise     the particles at t = 1; `point` is where the reader's own point starts
    steps     numbers of Euler steps to choose from, `start` the first choice
    interval  sliders for (r, t) with these starts; without it all happens over [0, 1]
    average   u(a, r, t) for the jumps of the interval; by default the truth, which the browser
              finds by following the path
    still     PNG in base64, shown where no script runs; `alt` describes it
    """
    data = {
        "velocity": _table(velocity, CELLS, _times(TIMES), limit),
        "average": average and _table(average, AVERAGE_CELLS, _pairs(AVERAGE_TIMES), limit),
        "noise": noise.double().numpy().round(3).tolist(),
        "point": list(point),
        "interval": interval,
        "steps": steps,
        "start": steps.index(start),
        "limit": limit,
        "backdrop": "data:image/png;base64," + _backdrop(log_prob, limit),
        "colours": {kind: COLOURS[kind] for kind in ("noise", "flow", "average", "reference")},
        "legends": _legends(interval is not None),
        "name": name,
        "alt": alt,
    }
    return PAGE.format(
        alt=html.escape(alt),
        still=still,
        script=files("som_lite.view").joinpath("canvas.js").read_text(encoding="utf-8").strip(),
        data=json.dumps(data).replace("<", "\\u003c"),
    )


def _times(count: int) -> Float[Tensor, "layers 1"]:
    return torch.linspace(0, 1, count)[:, None]


def _pairs(count: int) -> Float[Tensor, "layers 2"]:
    """All r <= t in the order in which canvas.js looks them up."""
    times = torch.linspace(0, 1, count)
    return torch.stack([torch.stack([r, t]) for k, t in enumerate(times) for r in times[: k + 1]])


def _table(function: Callable, cells: int, times: Float[Tensor, "layers k"], limit: float) -> dict:
    """function(a, *times) on a grid, every layer scaled to signed bytes of its own."""
    reach = REACH * limit
    x = torch.linspace(-reach, reach, cells)
    where = torch.stack(torch.meshgrid(x, x, indexing="xy"), dim=-1).reshape(-1, 2)
    columns = times.repeat_interleave(len(where), dim=0).T[..., None]
    with torch.no_grad():
        values = function(where.repeat(len(times), 1), *columns).reshape(len(times), -1)
    scales = values.abs().amax(dim=1).clamp(min=1e-9) / 127
    data = (values / scales[:, None]).round().to(torch.int8).numpy().tobytes()
    return {
        "bytes": base64.b64encode(data).decode(),
        "scales": [float(f"{scale:.5g}") for scale in scales],
        "cells": cells,
        "reach": reach,
    }


def _backdrop(log_prob: Callable[[Tensor], Tensor], limit: float) -> str:
    """The target in pale shades that fill the picture, as a PNG in base64."""
    fig, ax = figure(4.2, 4.2)
    fig.set_layout_engine("none")
    ax.set_position((0, 0, 1, 1))
    plane(ax, limit).set_axis_off()
    plots.backdrop(ax, log_prob)
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())[..., :3]  # pyright: ignore
    (indices,), palette = in_few_colours([pixels], 16)
    return base64.b64encode(palette_png(indices, palette)).decode()


def _legends(interval: bool) -> list[list[tuple[str, str, str]]]:
    """For both panels sign, colour and meaning of what is drawn."""
    flow, average, noise = COLOURS["flow"], COLOURS["average"], COLOURS["noise"]
    own = [
        ("◯", "inherit", "your point: drag it, or use the arrow keys"),
        ("✕", "inherit", "where its flow line ends"),
        ("→", flow, "−v, and one Euler step of it"),
    ]
    euler = ("▲", flow, "after the Euler steps")
    if interval:
        also = [
            ("→", average, "one step of u"),
            ("▲", flow, "particles that follow v"),
            ("◆", average, "the same ones, straight along u"),
        ]
        return [own + also, [euler, ("◆", average, "after one step of u from t = 1 to 0")]]
    return [[*own, ("●", noise, "particles")], [euler, ("✕", "inherit", "where the flow ends")]]
