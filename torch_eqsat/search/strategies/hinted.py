"""The first playout of a search with a hint: what the laws gained on a graph that is equal up to sizes."""

from __future__ import annotations

from torch_eqsat.search.actions import Action
from torch_eqsat.search.environment import Environment


def follow_hint(environment: Environment) -> bool:
    """Apply the laws of the environment's hint, and no others, until nothing changes, and extract. Whether that gains
    as much as the hint says, so that nothing else has to be searched."""
    hint = environment.hint
    if hint is None:
        return False
    batch = Action("hint", tuple(law for law in environment.laws if law.name in hint.laws))
    environment.push()
    changed, truncated = True, False
    while changed and not truncated and not environment.out_of_time:
        changed, truncated = environment.step(batch, fair=True)
    environment.evaluate()
    environment.pop()
    gain = (environment.base_cost - environment.best.cost) / environment.base_cost if environment.base_cost else 0.0
    return gain >= environment.parameters.hint_share * hint.gain
