"""The catalogue of laws, a module per family. ``catalogue()`` is all of them."""

from torch_eqsat.rules.law import Law, collect


def catalogue() -> tuple[Law, ...]:
    """All laws, in a fixed order."""
    from torch_eqsat.rewrites import (
        convolution,
        elementwise,
        layout,
        matmul,
        merging,
        principles,
        reduction,
        resampling,
        selection,
    )

    return collect(elementwise, matmul, convolution, layout, selection, reduction, resampling, merging, principles)
