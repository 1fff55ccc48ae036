"""The agents, one file each. `AGENTS`: name -> (config class, agent class)."""

from som_lite.rl.agents.sac import SAC, SACConfig
from som_lite.rl.agents.som import SOM, SOMConfig
from som_lite.rl.agents.som_paper import SOMPaper, SOMPaperConfig

AGENTS = {"som": (SOMConfig, SOM), "sac": (SACConfig, SAC), "som_paper": (SOMPaperConfig, SOMPaper)}
AgentConfig = SOMConfig | SACConfig | SOMPaperConfig

__all__ = [
    "AGENTS",
    "SAC",
    "SOM",
    "AgentConfig",
    "SACConfig",
    "SOMConfig",
    "SOMPaper",
    "SOMPaperConfig",
]
