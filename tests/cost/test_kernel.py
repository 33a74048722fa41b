"""Names of kernels: checked, normalised, stable and distinct."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_eqsat.cost.kernel import BYTES_OF, Kernel
from torch_eqsat.errors import TypeMismatchError

sizes = st.integers(1, 64)
dtypes = st.sampled_from(sorted(BYTES_OF))
flags = st.booleans()


@st.composite
def matmuls(draw: st.DrawFn) -> Kernel:
    m, k, n = (draw(sizes) for _ in range(3))
    batch = tuple(draw(st.lists(sizes, max_size=1)))
    bias = draw(flags) and not batch
    options = {"dtype": draw(dtypes), "weight": draw(flags), "turned": draw(flags)}
    return Kernel.matmul((*batch, m, k), (*batch, k, n), bias=bias, **options)


@st.composite
def convs(draw: st.DrawFn) -> Kernel:
    axes, groups, window = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    into, out = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    x = (draw(st.integers(1, 4)), into * groups, *(draw(st.integers(7, 20)) for _ in range(axes)))
    return Kernel.conv(
        x,
        (out * groups, into, *(window,) * axes),
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(0, 2)),
        dilation=draw(st.integers(1, 3)),
        groups=groups,
        dtype=draw(dtypes),
        weight=draw(flags),
        bias=draw(flags),
    )


@st.composite
def attentions(draw: st.DrawFn) -> Kernel:
    b, h, rows, columns, d, e = (draw(sizes) for _ in range(6))
    return Kernel.sdpa((b, h, rows, d), (b, h, columns, d), (b, h, columns, e), causal=draw(flags), dtype=draw(dtypes))


kernels = st.one_of(matmuls(), convs(), attentions())


@given(kernels)
def test_work_is_positive(kernel: Kernel) -> None:
    assert kernel.flops > 0
    assert kernel.bytes >= BYTES_OF[kernel.dtype] * math.prod(kernel.out_shape) > 0
    assert kernel.key.isprintable()
    assert kernel.key.startswith(f"{kernel.kind} {kernel.dtype} {kernel.device} ")


@given(kernels, kernels)
def test_keys_are_equal_exactly_when_kernels_are(one: Kernel, other: Kernel) -> None:
    assert (one == other) == (one.key == other.key)
    assert (one == other) <= (hash(one) == hash(other))


def test_keys_are_stable() -> None:
    """The keys lie in tables on disk: a change of them needs a new schema."""
    assert Kernel.matmul((2, 3), (3, 4), weight=True).key == "matmul float32 cpu 2x3 3x4 weight"
    conv = Kernel.conv((1, 8, 9, 9), (16, 4, 3, 3), padding=(1, 2), groups=2, bias=True, device="cuda")
    assert conv.key == "conv float32 cuda 1x8x9x9 16x4x3x3 s1x1 p1x2 d1x1 g2 bias"
    sdpa = Kernel.sdpa((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 6), causal=True, dtype="bfloat16")
    assert sdpa.key == "sdpa bfloat16 cpu 1x2x3x4 1x2x5x4 1x2x5x6 causal"


def test_flops_and_bytes_by_hand() -> None:
    assert Kernel.matmul((5, 2, 3), (5, 3, 4)).flops == 2 * 5 * 2 * 3 * 4
    assert Kernel.matmul((2, 3), (3, 4), bias=True).bytes == 4 * (6 + 12 + 8 + 4)
    conv = Kernel.conv((1, 4, 8, 8), (6, 2, 3, 3), groups=2, stride=2, padding=1, bias=True)
    assert conv.out_shape == (1, 6, 4, 4)
    assert conv.flops == 2 * 96 * 18 + 96
    assert conv.bytes == 4 * (256 + 108 + 96 + 6)
    assert Kernel.sdpa((1, 1, 4, 8), (1, 1, 4, 8), (1, 1, 4, 8)).flops == 2 * 16 * 16
    assert Kernel.sdpa((1, 1, 4, 8), (1, 1, 4, 8), (1, 1, 4, 8), causal=True).flops == 2 * 10 * 16
    # A query sees the keys that are not after it; keys beyond the last query are seen by none.
    assert Kernel.sdpa((1, 1, 2, 8), (1, 1, 5, 8), (1, 1, 5, 8), causal=True).flops == 2 * 3 * 16
    assert Kernel.sdpa((1, 1, 5, 8), (1, 1, 2, 8), (1, 1, 2, 8), causal=True).flops == 2 * 9 * 16


def test_weight_is_kept_only_where_it_is_packed() -> None:
    assert Kernel.matmul((2, 3), (3, 4), weight=True).weight
    assert not Kernel.matmul((2, 3), (3, 4), weight=True, dtype="float64").weight
    assert not Kernel.matmul((2, 3), (3, 4), weight=True, device="cuda").weight
    assert Kernel.matmul((1, 2, 3), (1, 3, 4), weight=True) == Kernel.matmul((1, 2, 3), (1, 3, 4))
    assert Kernel.matmul((2, 3), (3, 4), turned=True) != Kernel.matmul((2, 3), (3, 4))
    assert not Kernel.matmul((2, 3), (3, 4), weight=True, turned=True).turned
    assert not Kernel.conv((1, 2, 9), (2, 2, 3), weight=True).weight
    assert not Kernel.conv((1, 2, 9, 9), (2, 2, 3, 3), weight=True, dtype="float64").weight
    assert Kernel.conv((1, 2, 9, 9), (2, 2, 3, 3), weight=True).weight


def test_one_number_stands_for_all_axes() -> None:
    listed = Kernel.conv((1, 2, 9, 9), (2, 2, 3, 3), stride=[2], padding=(1, 1))
    assert listed == Kernel.conv((1, 2, 9, 9), (2, 2, 3, 3), stride=2, padding=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Kernel.matmul((2, 3), (4, 5)),
        lambda: Kernel.matmul((2, 2, 3), (3, 5)),
        lambda: Kernel.matmul((3,), (3,)),
        lambda: Kernel.matmul((0, 3), (3, 5)),
        lambda: Kernel.matmul((2, 3), (3, 5), dtype="int64"),
        lambda: Kernel.matmul((2, 2, 3), (2, 3, 5), bias=True),
        lambda: Kernel.conv((1, 4, 8, 8), (4, 4, 3)),
        lambda: Kernel.conv((1, 4, 8, 8), (4, 4, 3, 3), groups=2),
        lambda: Kernel.conv((1, 4, 2, 2), (4, 4, 3, 3)),
        lambda: Kernel.conv((1, 4, 8, 8), (4, 4, 3, 3), stride=(1, 1, 1)),
        lambda: Kernel.sdpa((1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 4)),
        lambda: Kernel.sdpa((1, 2, 3, 4), (1, 1, 3, 4), (1, 1, 3, 4)),
        lambda: Kernel.sdpa((2, 3, 4), (2, 3, 4), (2, 3, 4)),
    ],
)
def test_operands_that_do_not_fit(make: object) -> None:
    with pytest.raises(TypeMismatchError):
        make()  # type: ignore[operator]
