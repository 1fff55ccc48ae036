"""The explorers of the book, each in a file of its own."""

from som_lite.view.average_velocity import average_velocity_explorer
from som_lite.view.boltzmann import boltzmann_explorer
from som_lite.view.flow_field import flow_field_explorer
from som_lite.view.law_of_t import law_of_t_explorer
from som_lite.view.neighbours import neighbours_explorer
from som_lite.view.offline import offline_explorer
from som_lite.view.one_step import one_step_explorer
from som_lite.view.policy import policy_explorer
from som_lite.view.schedule import schedule_explorer
from som_lite.view.score_estimate import score_estimate_explorer
from som_lite.view.soft_greedy import soft_greedy_explorer
from som_lite.view.value_landscape import value_landscape_explorer

__all__ = [
    "average_velocity_explorer",
    "boltzmann_explorer",
    "flow_field_explorer",
    "law_of_t_explorer",
    "neighbours_explorer",
    "offline_explorer",
    "one_step_explorer",
    "policy_explorer",
    "schedule_explorer",
    "score_estimate_explorer",
    "soft_greedy_explorer",
    "value_landscape_explorer",
]
