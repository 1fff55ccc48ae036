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
SIZE = 168  # pixels of a robot in the strip


def film(task: str, folder: Path) -> tuple[np.ndarray, str]:
    """Frames (n, SIZE, SIZE, 3), and a line that says how the first episode went.

    A robot that falls early begins again: the next episode follows in the same film.
    """
    agent = Run(folder).load_agent()
    agent.generator.manual_seed(0)
    env = make_env(task, render_mode="rgb_array")
    frames, lines, seed = [], [], 0
    with off_screen():
        while len(frames) < SECONDS * FPS:
            lines.append(episode(task, agent, env, seed, frames))
            seed += 1
    env.close()
    return np.stack(frames), lines[0]


def episode(task: str, agent, env, seed: int, frames: list[np.ndarray]) -> str:
    """One episode to its end; adds frames while some are missing. How far it went, and how long."""
    total, took, seen, done = 0.0, 0.0, 0, False
    obs, _ = env.reset(seed=seed)
    body = env.unwrapped
    start = body.data.qpos[0]
    while not done:
        if took >= SKIP + seen / FPS and len(frames) < SECONDS * FPS:
            frame = Image.fromarray(picture(env, task))
            frames.append(np.asarray(frame.resize((SIZE, SIZE), Image.Resampling.LANCZOS)))
            seen += 1
        obs, reward, terminated, truncated, _ = env.step(act(agent, obs))
        total, took = total + float(reward), took + body.dt
        done = terminated or truncated
    way = body.data.qpos[0] - start
    return f"{task}: {way:.1f} m in {took:.1f} s, return {total:.0f}"


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
