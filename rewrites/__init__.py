"""The catalogue of laws, a module per family. ``catalogue()`` is all of them."""

from functools import cache

from torch_eqsat.laws.law import Law, collect
from torch_eqsat.laws.matcher import check_examples


@cache
def catalogue() -> tuple[Law, ...]:
    """All laws, in a fixed order, each tried on its examples (70 ms in all).

    Raises LawError, naming the law, its file and line, for one that does not fire or turns a term into one of another
    shape or dtype.
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
        blocks,
        merging,
    )
    for law in laws:
        check_examples(law)
    return laws
