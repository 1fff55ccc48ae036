"""An easy bandit for the tests of learning."""

import torch

from som_lite.flow.boltzmann import Bumps

EASY = Bumps(torch.tensor([[0.5, -0.3]]), torch.tensor([0.4]), torch.ones(1))  # one wide hill
