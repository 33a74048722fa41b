"""The catalogue of laws, one module per family. ``catalogue()`` returns all of them."""

from functools import cache

from torch_eqsat.laws.law import Law, collect
from torch_eqsat.laws.matcher import check_examples


@cache
def catalogue() -> tuple[Law, ...]:
    """All laws, in a fixed order, each checked on its examples (70 ms in all).

    Raises LawError, naming the law, its file and line, if a law does not fire or changes a shape or dtype.
    """
    from torch_eqsat.rewrites import (
        attention,
        blocks,
        convolution,
        elementwise,
        functions,
        layout,
        lookup,
        matmul,
        merging,
        normalisation,
        precision,
        principles,
        reduction,
        resampling,
        selection,
        transposed,
        winograd,
    )

    laws = collect(
        elementwise,
        functions,
        matmul,
        convolution,
        winograd,
        transposed,
        layout,
        selection,
        principles,
        reduction,
        normalisation,
        resampling,
        attention,
        lookup,
        precision,
        blocks,
        merging,
    )
    for law in laws:
        check_examples(law)
    return laws
