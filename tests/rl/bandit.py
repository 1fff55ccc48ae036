"""An easy bandit for the tests of learning."""

import torch

from som_lite.flow.boltzmann import Bumps
from som_lite.rl.bandit import FixedQ as KnownQ
from som_lite.rl.bandit import actions, learn_from, network_calls, transitions

EASY = Bumps(torch.tensor([[0.5, -0.3]]), torch.tensor([0.4]), torch.ones(1))  # one wide hill

__all__ = ["EASY", "KnownQ", "actions", "learn_from", "network_calls", "transitions"]
