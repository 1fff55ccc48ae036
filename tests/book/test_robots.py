"""The film of the robots: small, of all five, and in motion in every one of its parts."""

import numpy as np
from PIL import Image, ImageSequence

from figures.robots import FPS, HERE, RECORDED, ROBOTS, SECONDS, SIZE

MB = 2**20


def test_the_film_shows_five_robots_that_move():
    path = HERE / "robots.webp"
    assert path.stat().st_size <= 3 * MB
    with Image.open(path) as film:
        frames = [np.asarray(f.convert("L"), float) for f in ImageSequence.Iterator(film)]
    assert len(frames) == SECONDS * FPS
    assert frames[0].shape == (SIZE, len(ROBOTS) * SIZE)
    parts = np.stack(frames).reshape(len(frames), SIZE, len(ROBOTS), SIZE)
    for task, part in zip(ROBOTS, np.moveaxis(parts, 2, 0), strict=True):
        # A robot that stands, or that the camera lost, leaves equal frames: changes below 1 of 255.
        assert np.abs(np.diff(part, axis=0)).mean() > 1, task


def test_every_robot_of_the_film_is_recorded():
    assert all((RECORDED / task / "seed0" / "policy.safetensors").is_file() for task in ROBOTS)
