"""The agents, one file each. `AGENTS`: name -> (config class, agent class)."""

from som_lite.rl.agents.aca import ACA, ACAConfig
from som_lite.rl.agents.dacer import DACER, DACER2, DACER2Config, DACERConfig
from som_lite.rl.agents.dipo import DIPO, DIPOConfig
from som_lite.rl.agents.dpmd import DPMD, DPMDConfig
from som_lite.rl.agents.fpmd import FPMDM, FPMDR, FPMDConfig
from som_lite.rl.agents.lql import LQL, NCLQL, LQLConfig, NCLQLConfig
from som_lite.rl.agents.mfpo import MFPO, MFPOConfig
from som_lite.rl.agents.qsm import QSM, QSMConfig
from som_lite.rl.agents.qvpo import QVPO, QVPOConfig
from som_lite.rl.agents.sac import SAC, SACConfig
from som_lite.rl.agents.sdac import IDEM, SDAC, SDACConfig
from som_lite.rl.agents.som import SOM, SOMConfig
from som_lite.rl.agents.som_paper import SOMPaper, SOMPaperConfig
from som_lite.rl.agents.td3 import TD3, TD3Config

AGENTS = {
    "som": (SOMConfig, SOM),
    "sac": (SACConfig, SAC),
    "som_paper": (SOMPaperConfig, SOMPaper),
    "td3": (TD3Config, TD3),
    "sdac": (SDACConfig, SDAC),
    "idem": (SDACConfig, IDEM),
    "qsm": (QSMConfig, QSM),
    "dpmd": (DPMDConfig, DPMD),
    "qvpo": (QVPOConfig, QVPO),
    "dipo": (DIPOConfig, DIPO),
    "fpmd_r": (FPMDConfig, FPMDR),
    "fpmd_m": (FPMDConfig, FPMDM),
    "lql": (LQLConfig, LQL),
    "nc_lql": (NCLQLConfig, NCLQL),
    "dacer": (DACERConfig, DACER),
    "dacer2": (DACER2Config, DACER2),
    "mfpo": (MFPOConfig, MFPO),
    "aca": (ACAConfig, ACA),
}
AgentConfig = (
    SOMConfig | SACConfig | SOMPaperConfig | TD3Config | SDACConfig | QSMConfig | DPMDConfig
    | QVPOConfig | DIPOConfig | FPMDConfig | LQLConfig | NCLQLConfig | DACERConfig | DACER2Config
    | MFPOConfig | ACAConfig
)  # fmt: skip


def presets(name: str) -> dict[str, AgentConfig]:
    """The named settings of an agent: for one CPU core, and its paper's where they are known."""
    config, agent = AGENTS[name]
    found = {"one_core": agent.one_core or config()}
    return found | ({"paper": agent.paper} if agent.paper else {})


__all__ = [
    "AGENTS",
    "SAC",
    "SOM",
    "AgentConfig",
    "SACConfig",
    "SOMConfig",
    "SOMPaper",
    "SOMPaperConfig",
    "presets",
]
