"""Reinforcement learning on top of `som_lite.flow`: tasks, replay, critic, agents, training."""
