"""The state of a training: act, store, update; evaluate, write a row, save; go on where it was."""

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from gymnasium.spaces import flatdim
from torch import Tensor

from som_lite.rl.agents import AGENTS
from som_lite.rl.agents.common import derive
from som_lite.rl.config import TrainConfig
from som_lite.rl.envs import make_env
from som_lite.rl.evaluate import act, evaluate
from som_lite.rl.finite import not_finite
from som_lite.rl.replay import Replay
from som_lite.rl.runs import BEST, Row, Run


class Training:
    """The state of a run in memory; `advance` takes it one environment step further.

    `stop` may be set to a function that tells when to leave a step's work half done: what is left
    is due when the training goes on, and no number depends on it.
    """

    def __init__(self, config: TrainConfig, run: Run):
        self.config, self.run, self.checkpoints = config, run, run.checkpoints
        self.stop: Callable[[], bool] = lambda: False
        self.env = make_env(config.env)
        self.sizes = flatdim(self.env.observation_space), flatdim(self.env.action_space)
        make_agent = AGENTS[config.agent][1]
        seed = derive(config.seed, 0)
        self.agent = make_agent(*self.sizes, config.config, seed=seed, device=config.device)
        self.replay = Replay(min(config.capacity, config.steps), *self.sizes, config.device)
        self.generator = torch.Generator(config.device).manual_seed(derive(config.seed, 1))
        self.step = self.updates = self.episode = 0
        self.sums: dict[str, Tensor] = {}  # of every metric since the last row
        self.counts: dict[str, int] = {}  # and how often it came
        self.rows: list[Row] = []  # at every multiple of eval_every
        self.last: Row | None = None  # the last row, which the end of a run may add between two
        self.unsaved = False  # is there anything that the last checkpoint does not hold?
        self.wall_s, self.since = 0.0, time.monotonic()
        self.begin_episode()
        if saved := self.checkpoints.load(self.replay):
            self.restore(*saved)
        else:
            self.save()

    def advance(self) -> None:
        """One step of the environment, and all that falls due with it."""
        self.interact()
        self.settle()

    def settle(self) -> None:
        """The updates, the row and the checkpoint that are due at this step, as far as they are."""
        due = int((self.step - self.config.start_steps) * self.config.utd)
        while self.updates < due and not self.stop():
            self.learn()
        if self.row_is_due() and not self.stop():
            self.evaluate()
        if self.step % self.config.checkpoint_every == 0 and self.unsaved and not self.stop():
            self.save()

    def row_is_due(self) -> bool:
        """At every multiple of eval_every and at the end."""
        last = self.last["step"] if self.last else 0
        at_end = self.step == self.config.steps
        return last != self.step and (at_end or self.step % self.config.eval_every == 0)

    def interact(self) -> None:
        """Act, store what happened, and begin a new episode when this one is over."""
        if self.step < self.config.start_steps:
            uniform = torch.rand(
                self.sizes[1], generator=self.generator, device=self.generator.device
            )
            action = (2 * uniform - 1).cpu().numpy()
        else:
            action = act(self.agent, self.obs[None], explore=True)[0]
        if not np.isfinite(action).all():
            self.check_finite(action=torch.from_numpy(action))
        next_obs, reward, terminated, truncated, _ = self.env.step(action)
        self.replay.add(self.obs, action, float(reward), next_obs, terminated)
        self.actions.append(action)
        self.obs = next_obs
        self.step, self.unsaved = self.step + 1, True
        if terminated or truncated:
            self.episode += 1
            self.begin_episode()

    def learn(self) -> None:
        """One update; its metrics stay tensors and are summed until the next row."""
        batch = self.replay.sample(self.agent.config.batch, self.generator)
        for name, value in self.agent.update(batch).items():
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.updates, self.unsaved = self.updates + 1, True

    def evaluate(self) -> None:
        """Write a row of the curve (returns now, every metric averaged since the last row) and the
        policy, which is kept apart as well while it is the best one.

        A row between two multiples of eval_every, at the end of a run, leaves no trace in the
        state: a run of more steps goes on as if it had never been.
        """
        self.check_finite()
        config = self.config
        seed = derive(config.seed, 3, self.step)
        try:
            returns = evaluate(self.agent, config.env, config.eval_episodes, seed, stop=self.stop)
        except KeyboardInterrupt:
            if self.stop():
                return  # the row stays due
            raise
        row: Row = {"step": self.step, "wall_s": round(self.wall(), 2)}
        row |= {"return_mean": float(returns.mean()), "return_std": float(returns.std())}
        row |= {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.last, self.unsaved = row, True
        self.run.save_policy(self.agent, *self.sizes)
        if self.step % config.eval_every == 0:
            if all(row["return_mean"] > other["return_mean"] for other in self.rows):
                self.run.save_policy(self.agent, *self.sizes, BEST)
            self.rows.append(row)
            self.sums, self.counts = {}, {}
            self.run.save_curve(self.rows)
        else:
            self.run.save_curve([*self.rows, row])
        self.run.describe(config, self.wall())

    def kept_rows(self) -> list[Row]:
        """The rows that stay; one between two multiples of eval_every only where the run ends."""
        if self.last is None or self.last in self.rows or self.step < self.config.steps:
            return self.rows
        return [*self.rows, self.last]

    def begin_episode(self) -> None:
        """Reset with a seed of the episode's own, so that it can be begun again after a resume."""
        self.obs, _ = self.env.reset(seed=derive(self.config.seed, 2, self.episode))
        self.actions: list[np.ndarray] = []

    def wall(self) -> float:
        """Seconds of training so far, over all sittings."""
        return self.wall_s + time.monotonic() - self.since

    def check_finite(self, **more: Tensor) -> None:
        """Raise ValueError, naming them, when metrics, weights or moments are no longer finite."""
        bad = [*not_finite(self.sums | more), *not_finite(self.agent.state_dict())]
        if bad:
            parts = dict.fromkeys(name.partition(".")[0] for name in bad)
            raise ValueError(f"no longer finite: {', '.join(parts)}")

    def save(self) -> None:
        """Write the policy and a checkpoint of everything. Raises ValueError, and writes nothing,
        when anything in it is not finite."""
        self.check_finite()
        if self.step:
            self.run.save_policy(self.agent, *self.sizes)
            self.run.describe(self.config, self.wall())
        actions = np.array(self.actions, np.float32).reshape(-1, self.sizes[1])
        tensors = {"generator": self.generator.get_state(), "actions": torch.from_numpy(actions)}
        tensors |= {f"agent.{k}": x for k, x in self.agent.state_dict().items()}
        tensors |= {f"sums.{k}": x for k, x in self.sums.items()}
        names = ("step", "updates", "episode", "counts", "rows", "last")
        counters = {k: getattr(self, k) for k in names} | {"wall_s": self.wall()}
        self.checkpoints.save(self.step, tensors, counters, self.replay)
        self.unsaved = False

    def restore(self, tensors: dict[str, Tensor], counters: dict) -> None:
        """Take everything back. Raises ValueError when fewer steps are asked for than are done."""
        if counters["step"] > self.config.steps:
            raise ValueError(
                f"steps must be at least the {counters['step']} that {self.run.folder} has done, "
                f"got {self.config.steps}"
            )
        names = ("step", "updates", "episode", "counts", "rows", "last", "wall_s")
        vars(self).update({k: counters[k] for k in names}, unsaved=False)
        state = _under("agent.", tensors)
        if len(tensors["generator"]) != len(self.generator.get_state()):
            self.reseed(state)
        else:
            self.generator.set_state(tensors["generator"])
        self.agent.load_state_dict(state)
        device = self.config.device
        self.sums = {k: x.to(device) for k, x in _under("sums.", tensors).items()}
        if self.rows and self.step < self.config.steps:
            self.run.save_curve(self.rows)  # drops the rows that are about to be made again
        self.repeat_episode(tensors["actions"].numpy())

    def reseed(self, state: dict[str, Tensor]) -> None:
        """Begin the random streams anew: those of another kind of device cannot be continued."""
        warnings.warn(
            f"the run moves to device {self.config.device!r}, whose random numbers are others: "
            "from here on it differs from a run that stayed",
            stacklevel=2,
        )
        self.generator.manual_seed(derive(self.config.seed, 4, self.step))
        for name, part in self.agent.parts().items():
            if isinstance(part, torch.Generator):
                part.manual_seed(derive(self.config.seed, 5, self.step))
                state[name] = part.get_state()

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


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}
