"""The explorers of the book, each in a file of its own."""

from som_lite.view.average_velocity import average_velocity_explorer
from som_lite.view.policy import policy_explorer

__all__ = ["average_velocity_explorer", "policy_explorer"]
