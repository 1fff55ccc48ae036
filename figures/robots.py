"""Film the trained robots: `make robots` writes robots.webp, a moving strip, and a still of it.

Each robot is the recorded SOM run of its task, seed 0, in real time, with the averaged actor and
the best of N, as its curve was evaluated. Prints how far each of them went. Needs EGL or a screen.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from som_lite.rl.drawing import off_screen, picture
from som_lite.rl.envs import make_env
from som_lite.rl.evaluate import act
from som_lite.rl.runs import Run

HERE = Path(__file__).resolve().parent
RECORDED = HERE.parent / "chapters" / "recorded" / "som"
ROBOTS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5")
SKIP, SECONDS, FPS = 1.0, 4.0, 20  # of simulated time: left out, shown, frames in each
SIZE, LARGE = 168, 480  # pixels of a robot in the strip, and as MuJoCo draws it


def film(task: str, folder: Path, seed: int = 0) -> tuple[np.ndarray, str]:
    """Frames (n, SIZE, SIZE, 3) of one episode, and a line that says how it went."""
    agent = Run(folder).load_agent()
    agent.generator.manual_seed(seed)
    env = make_env(task, render_mode="rgb_array")
    frames, total, took, done = [], 0.0, 0.0, False
    with off_screen():
        obs, _ = env.reset(seed=seed)
        start = env.unwrapped.data.qpos[0]  # pyright: ignore[reportAttributeAccessIssue]
        while not done:
            if took >= SKIP + len(frames) / FPS and len(frames) < SECONDS * FPS:
                frame = Image.fromarray(picture(env, task)).crop((0, 0, LARGE, LARGE))
                frames.append(np.asarray(frame.resize((SIZE, SIZE), Image.Resampling.LANCZOS)))
            obs, reward, terminated, truncated, _ = env.step(act(agent, obs))
            total, took = total + float(reward), took + env.unwrapped.dt  # pyright: ignore
            done = terminated or truncated
        way = env.unwrapped.data.qpos[0] - start  # pyright: ignore[reportAttributeAccessIssue]
    env.close()
    return np.stack(frames), f"{task}: {way:.1f} m in {took:.1f} s, return {total:.0f}"


def strip(films: list[np.ndarray]) -> list[Image.Image]:
    """The films side by side, (n, SIZE, robots * SIZE, 3), as images."""
    return [Image.fromarray(np.concatenate(row, axis=1)) for row in zip(*films, strict=True)]


def main() -> None:
    films = []
    for task in ROBOTS:
        frames, line = film(task, RECORDED / task / "seed0")
        films.append(frames)
        print(line)
    first, *others = strip(films)
    first.save(HERE / "robots.png")
    first.save(
        HERE / "robots.webp",
        save_all=True,
        append_images=others,
        duration=1000 // FPS,
        loop=0,
        quality=60,
        method=4,
    )


if __name__ == "__main__":
    main()
