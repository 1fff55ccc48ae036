"""Reinforcement learning on top of `som_lite.flow`: tasks, replay, critic, agents, training."""

from som_lite.rl.policy import load_policy, read_curve

__all__ = ["load_policy", "read_curve"]
