"""The agents, one file each. `AGENTS`: name -> (config class, agent class)."""

from som_lite.rl.agents.sac import SAC, SACConfig
from som_lite.rl.agents.som import SOM, SOMConfig

AGENTS = {"som": (SOMConfig, SOM), "sac": (SACConfig, SAC)}
AgentConfig = SOMConfig | SACConfig

__all__ = ["AGENTS", "SAC", "SOM", "AgentConfig", "SACConfig", "SOMConfig"]
