"""Pictures of an environment, also on a machine without a screen."""

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

FPS = 30  # of a video, where the environment does not say


@contextmanager
def off_screen() -> Iterator[None]:
    """MuJoCo draws without a screen while this is open: on Linux, where MUJOCO_GL is empty.

    EGL is taken if it works, then OSMesa, else what Gymnasium finds: with a screen, GLFW.
    """
    before = os.environ.get("MUJOCO_GL")
    if sys.platform != "linux" or (before or "").strip():
        yield
        return
    os.environ.pop("MUJOCO_GL", None)  # Gymnasium does not take an empty one
    if found := next(filter(_works, ("egl", "osmesa")), None):
        os.environ["MUJOCO_GL"] = found
    try:
        yield
    finally:
        os.environ.pop("MUJOCO_GL", None)
        if before is not None:
            os.environ["MUJOCO_GL"] = before


def _works(library: str) -> bool:
    try:
        context = importlib.import_module(f"mujoco.{library}").GLContext(64, 64)
        context.make_current()
        context.free()
    except Exception:  # each library fails in its own way
        return False
    return True


def picture(env: gym.Env, name: str) -> np.ndarray:
    """What `env` shows now, (height, width, 3 or 4) of uint8. ValueError, in a line, if nothing."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="glfw")  # an exception follows
            frame = env.render()
    except Exception as error:  # each graphics library fails in its own way
        raise ValueError(f"cannot draw {name}: {_reason(error)}") from error
    if not isinstance(frame, np.ndarray):
        raise ValueError(f"cannot draw {name}: its render() gave {frame!r:.40}, not an array")
    if frame.ndim != 3 or frame.shape[2] not in (3, 4) or frame.dtype != np.uint8:
        given = f"{frame.dtype} of shape {frame.shape}"
        raise ValueError(f"cannot draw {name}: its render() gave {given}, not uint8 (h, w, 3)")
    return frame


def _reason(error: Exception) -> str:
    if isinstance(error, NotImplementedError):
        return "its render() is not implemented"
    text = " ".join(str(error).split()) or type(error).__name__
    chosen = os.environ.get("MUJOCO_GL", "egl")
    return text if chosen == "egl" else f"{text} (with MUJOCO_GL={chosen}; empty, EGL is tried)"


def track(env: gym.Env) -> None:
    """MuJoCo's camera goes along with the robot; Gymnasium's stays where the robot started.

    Of bodies Gymnasium names the one to look at, or none: then it is the first, a robot's trunk.
    """
    renderer = getattr(env.unwrapped, "mujoco_renderer", None)
    if renderer is not None:
        view = {"trackbodyid": 1} | (renderer.default_cam_config or {})
        if view["trackbodyid"] > 0:
            tracking = mujoco.mjtCamera.mjCAMERA_TRACKING  # pyright: ignore[reportAttributeAccessIssue]
            renderer.default_cam_config = view | {"type": tracking.value}
            renderer.camera_id = None  # a number would set the camera's type back


def frame_rate(env: gym.Env, suffix: str) -> dict[str, Any]:
    """What `env` says, or 30 a second, as imageio wants it for the type of file."""
    fps = float(env.metadata.get("render_fps") or FPS)
    return {"duration": 1000 / fps} if suffix == ".gif" else {"fps": fps}
