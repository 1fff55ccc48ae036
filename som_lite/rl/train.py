"""The training loop: act, store, update; evaluate, write a row, save; continue where it stopped."""

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import flatdim
from tqdm import tqdm

from som_lite.rl.agents import AGENTS
from som_lite.rl.agents.common import derive
from som_lite.rl.config import TrainConfig
from som_lite.rl.envs import make_env
from som_lite.rl.evaluate import act, evaluate
from som_lite.rl.replay import Replay
from som_lite.rl.runs import Row, Run


def train(config: TrainConfig, on_row: "Callable[[Training], None] | None" = None) -> Path:
    """Train one agent and return its run folder.

    A folder that already holds a checkpoint of the same settings is continued, and the result is
    the one an uninterrupted run would have had, bit for bit; `steps` may be larger than before.
    Ctrl-C finishes the step under way, writes a checkpoint and raises KeyboardInterrupt.
    `on_row` is called with the state of the training after every new row of the curve.

    Raises ValueError for settings that cannot work here, or a folder that holds something else.
    """
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {config.device!r} was asked for, but this PyTorch sees no CUDA")
    make_env(config.env).close()  # an unknown task must not leave a folder behind
    run = Run.create(config)
    with _threads(config.threads), _interruptible() as interrupted:
        training = Training(config, run)
        bar = tqdm(
            total=config.steps,
            initial=training.step,
            disable=not config.progress,
            unit="step",
            desc=f"{config.agent} {config.env}",
            mininterval=0.5,
        )
        with bar:
            while training.step < config.steps and not interrupted.is_set():
                training.advance()
                bar.update()
                if training.rows and training.rows[-1]["step"] == training.step:
                    bar.set_postfix_str(f"return {training.rows[-1]['return_mean']:.1f}")
                    if on_row is not None:
                        on_row(training)
        if training.saved != training.step:
            training.save()
    if interrupted.is_set():
        raise KeyboardInterrupt(f"stopped at step {training.step}; the same command continues")
    return run.folder


class Training:
    """The state of a run in memory; `advance` takes it one environment step further."""

    def __init__(self, config: TrainConfig, run: Run):
        self.config, self.run = config, run
        self.env = make_env(config.env)
        self.sizes = flatdim(self.env.observation_space), flatdim(self.env.action_space)
        make_agent = AGENTS[config.agent][1]
        seed = derive(config.seed, 0)
        self.agent = make_agent(*self.sizes, config.config, seed=seed, device=config.device)
        self.replay = Replay(min(config.capacity, config.steps), *self.sizes, config.device)
        self.generator = torch.Generator(config.device).manual_seed(derive(config.seed, 1))
        self.step = self.updates = self.episode = 0
        self.saved = 0  # step of the last checkpoint
        self.sums: dict[str, torch.Tensor] = {}  # of every metric since the last row
        self.counts: dict[str, int] = {}  # and how often it came
        self.rows: list[Row] = []
        self.wall_s, self.since = 0.0, time.monotonic()
        self.begin_episode()
        if saved := run.load_checkpoint():
            self.restore(*saved)

    def advance(self) -> None:
        """One step of the environment, the updates that are due, and what else falls on it."""
        self.interact()
        due = int((self.step - self.config.start_steps) * self.config.utd)
        while self.updates < due:
            self.learn()
        if self.step % self.config.eval_every == 0 or self.step == self.config.steps:
            self.evaluate()
        if self.step % self.config.checkpoint_every == 0:
            self.save()

    def interact(self) -> None:
        """Act, store what happened, and begin a new episode when this one is over."""
        if self.step < self.config.start_steps:
            uniform = torch.rand(
                self.sizes[1], generator=self.generator, device=self.generator.device
            )
            action = (2 * uniform - 1).cpu().numpy()
        else:
            action = act(self.agent, self.obs[None], explore=True)[0]
        next_obs, reward, terminated, truncated, _ = self.env.step(action)
        self.replay.add(self.obs, action, float(reward), next_obs, terminated)
        self.actions.append(action)
        self.obs = next_obs
        self.step += 1
        if terminated or truncated:
            self.episode += 1
            self.begin_episode()

    def learn(self) -> None:
        """One update; its metrics stay tensors and are summed until the next row."""
        batch = self.replay.sample(self.agent.config.batch, self.generator)
        for name, value in self.agent.update(batch).items():
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.updates += 1

    def evaluate(self) -> None:
        """Write one row of the curve: returns now, and every metric averaged since the last row."""
        config = self.config
        seed = derive(config.seed, 3, self.step)
        returns = evaluate(self.agent, config.env, config.eval_episodes, seed)
        row = {"step": self.step, "wall_s": round(self.wall(), 2)}
        row |= {"return_mean": float(returns.mean()), "return_std": float(returns.std())}
        row |= {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.rows.append(row)
        self.sums, self.counts = {}, {}
        self.run.save_curve(self.rows)

    def begin_episode(self) -> None:
        """Reset with a seed of the episode's own, so that it can be begun again after a resume."""
        self.obs, _ = self.env.reset(seed=derive(self.config.seed, 2, self.episode))
        self.actions: list[np.ndarray] = []

    def wall(self) -> float:
        """Seconds of training so far, over all sittings."""
        return self.wall_s + time.monotonic() - self.since

    def save(self) -> None:
        """Write the policy and a checkpoint of everything."""
        actions = np.array(self.actions, np.float32).reshape(-1, self.sizes[1])
        tensors = {"generator": self.generator.get_state(), "actions": torch.from_numpy(actions)}
        tensors |= {f"agent.{k}": x for k, x in self.agent.state_dict().items()}
        tensors |= {f"replay.{k}": x for k, x in self.replay.state_dict().items()}
        tensors |= {f"sums.{k}": x for k, x in self.sums.items()}
        counters = {k: getattr(self, k) for k in ("step", "updates", "episode", "counts", "rows")}
        self.run.save_checkpoint(tensors, counters | {"wall_s": self.wall()})
        self.run.save_policy(self.agent, *self.sizes)
        self.run.describe(self.config, self.wall())
        self.saved = self.step

    def restore(self, tensors: dict[str, torch.Tensor], counters: dict) -> None:
        """Take everything back. Raises ValueError when fewer steps are asked for than are done."""
        if counters["step"] > self.config.steps:
            raise ValueError(
                f"steps must be at least the {counters['step']} that {self.run.folder} has done, "
                f"got {self.config.steps}"
            )
        vars(self).update(counters, saved=counters["step"])
        self.generator.set_state(tensors["generator"])
        self.agent.load_state_dict(_under("agent.", tensors))
        self.replay.load_state_dict(_under("replay.", tensors))
        device = self.config.device
        self.sums = {k: x.to(device) for k, x in _under("sums.", tensors).items()}
        if self.rows:
            self.run.save_curve(self.rows)  # drops the rows that are about to be made again
        self.repeat_episode(tensors["actions"].numpy())

    def repeat_episode(self, actions: np.ndarray) -> None:
        """Bring the simulator back to where it was: the same start, then the same actions."""
        self.begin_episode()
        for action in actions:
            self.obs = self.env.step(action)[0]
            self.actions.append(action)
        expected = self.replay.data.next_obs[(self.replay.count - 1) % self.replay.capacity]
        if len(actions) and not np.array_equal(self.obs, expected.cpu().numpy()):
            warnings.warn(
                "the episode under way cannot be repeated on this machine: a new one begins, "
                "and the run will differ from an uninterrupted one",
                stacklevel=2,
            )
            self.episode += 1
            self.begin_episode()


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets; the second one interrupts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may handle signals
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(*_: object) -> None:
        event.set()
        restore()

    for number in before:
        signal.signal(number, first)
    try:
        yield event
    finally:
        restore()
