import pytest

from som_lite.rl.agents import AGENTS
from som_lite.rl.config import TrainConfig
from som_lite.rl.options import WORDS, known, train_help, unknown_option


@pytest.mark.parametrize(
    ("option", "found"),
    [
        ("--learning-rate", "--config.critic-lr or --config.actor-lr or --config.alpha-lr?"),
        ("--lr", "--config.critic-lr or --config.actor-lr or --config.alpha-lr?"),
        ("--config.actor_learning_rate", "--help lists them"),
        ("--gamma", "mean --config.gamma?"),
        ("--batch_size", "mean --config.batch?"),
        ("--total-timesteps", "mean --steps?"),
        ("--stepz", "mean --steps"),
        ("--K", "with --agent sac; there is --config.K of --agent som"),
        ("--flux-capacitor", "som-lite train --agent sac --help lists them"),
    ],
)
def test_near_misses(option, found):
    assert found in unknown_option(option, "sac")


def test_every_word_leads_somewhere():
    options = {o for agent in AGENTS for o in known(agent)}
    for theirs, ours in WORDS.items():
        assert any(o.endswith(ours) for o in options), ours
        answers = [unknown_option(f"--{theirs}", agent) for agent in AGENTS]
        assert any("did you mean" in a or "there is" in a for a in answers), theirs


@pytest.mark.parametrize("agent", AGENTS)
def test_help_names_every_option_with_its_comment_and_default(agent):
    lines = train_help(agent, "about").splitlines()
    for option in known(agent):
        shown = option.replace("--no-", "--[no-]")
        head, _, last = option.rpartition(".")
        (line,) = [
            x for x in lines if x.split()[:1] in ([shown], [f"{head}.[no-]{last}"])
            or x.strip().startswith(f"--[no-]{option[2:]} ")
        ]  # fmt: skip
        assert len(line.split()) > 2, f"{option} has no comment"
    assert any(line.endswith("(HalfCheetah-v5)") for line in lines)
    assert TrainConfig().agent in AGENTS
