"""The catalogue of laws, a module per family. ``catalogue()`` is all of them."""

from functools import cache

from torch_eqsat.rules.law import Law, collect


@cache
def catalogue() -> tuple[Law, ...]:
    """All laws, in a fixed order."""
    from torch_eqsat.rewrites import (
        attention,
        blocks,
        convolution,
        elementwise,
        layout,
        lookup,
        matmul,
        merging,
        normalisation,
        principles,
        reduction,
        resampling,
        selection,
    )

    return collect(
        elementwise,
        matmul,
        convolution,
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
