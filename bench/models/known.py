"""All cases by their names."""

from __future__ import annotations

from bench.models.attention_models import attention_case
from bench.models.cases import CASES, Case, torchvision_model
from bench.models.decoding_models import decoding_case
from bench.models.drawn_models import drawn_case
from bench.models.suite_models import MODELS
from bench.models.zoo_models import zoo_case

_SMALL = Case("resnet18", 0.98, "torchvision ResNet-18, whose start is timed", torchvision_model("resnet18"))
KNOWN = {**MODELS, **CASES, _SMALL.name: _SMALL}
"""Those that have a name of their own."""


def case_of(name: str) -> Case:
    """The case of a name. Raises ValueError for an unknown one."""
    case = KNOWN.get(name)
    for other in (drawn_case, decoding_case, attention_case, zoo_case):
        case = case or other(name)
    if case is None:
        raise ValueError(
            f"unknown case {name!r}; it is drawn-SEED-WAY, decode-FAMILY-WIDTHxLAYERS-bBATCH, "
            "attention-LENGTHxWIDTH-WAY, zoo-SOURCE:NAME-WAY, or one of " + ", ".join(KNOWN)
        )
    return case
