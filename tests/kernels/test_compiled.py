"""The kernels in code of Inductor, on values of any layout."""

from types import SimpleNamespace

import pytest
import torch
from torch._inductor.compile_fx import compile_fx
from torch._inductor.virtualized import V

from torch_eqsat.graph.whole import FILTER_BANK, TakeApart
from torch_eqsat.kernels.calls import flat
from torch_eqsat.kernels.inductor import _check_dense, use_kernels
from torch_eqsat.rewrites import winograd

SIX = winograd.transforms(winograd.SIX_POINTS, 3)
C = 32

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh")]


def split(x):
    """Tiles of an image of 8 by 8 with a margin of one."""
    x = torch.nn.functional.pad(x, (1, 1, 1, 1))
    rows = FILTER_BANK(x, 2, 1, 4, 1, flat(SIX[2]), 6)
    return FILTER_BANK(rows, 3, 1, 4, 1, flat(SIX[2]), 6)


def join(x):
    """An image of 8 by 8 of 2 by 2 tiles."""
    n, c, down, across = x.shape
    x = FILTER_BANK(x.reshape(n, c, down, across, 1), 1, 4, 1, c // 6, flat(SIX[0]), 4)
    x = x.reshape(n, c // 6, down, 1, 4 * across)
    return FILTER_BANK(x, 1, 3, 1, c // 36, flat(SIX[0]), 4).reshape(n, c // 36, 4 * down, 4 * across)


def image(*shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return x.to(memory_format=torch.channels_last) if x.dim() == 4 else x


TILES, IMAGE = (2, 36 * C, 2, 2), (2, C, 8, 8)


@pytest.fixture
def agrees(monkeypatch):
    """Compare with eager, and count the kernels that are called."""
    called = []

    def compile_with(module, inputs):
        def used(graph):
            use_kernels(graph)
            called.extend(n for n in graph.nodes if "tiles" in n.name)

        patches = {"post_grad_custom_pre_pass": TakeApart("test", used), "force_disable_caches": True}
        return compile_fx(module, inputs, config_patches=patches)

    def check(function, *inputs, kernels=1, **options):
        expected = function(*inputs)
        with torch.no_grad():
            result = torch.compile(function, backend=compile_with, **options)(*inputs)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
        assert len(called) == kernels

    return check


def test_a_half_of_the_channels_as_residual(agrees):
    agrees(lambda x, r: (join(x) + r.chunk(2, 1)[1]).relu(), image(*TILES), image(2, 2 * C, 8, 8))


@pytest.mark.parametrize("part", [lambda x: x[:, 16 : 16 + 36 * C], lambda x: x.sin()[:, 16 : 16 + 36 * C]])
def test_some_channels_are_joined(agrees, part):
    agrees(lambda x: join(part(x)), image(2, 36 * C + 32, 2, 2))


def test_two_halves_of_one_product(agrees):
    agrees(lambda x: [join(half) for half in x.sin().chunk(2, 1)], image(2, 72 * C, 2, 2), kernels=2)


LAYOUTS = {
    "every other channel": lambda: image(2, 2 * C, 8, 8)[:, ::2],
    "one number": lambda: torch.randn(1).expand(2, C, 8, 8),
    "rows": lambda: torch.randn(2, C, 8, 8),
    "a part": lambda: image(2, C, 12, 12)[:, :, 2:10, 1:9],
    "columns first": lambda: torch.randn(2, 8, 8, C).permute(0, 3, 2, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_of_any_layout_is_split(agrees, layout):
    agrees(split, LAYOUTS[layout]())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_residual_of_any_layout(agrees, layout):
    agrees(lambda x, r: (join(x) + r).relu(), image(*TILES), LAYOUTS[layout]())


def test_one_pixel_of_rows(agrees):
    """Along axes of size one strides say nothing."""
    bank = (2, 1, 1, 1, [1.0, 2.0, 3.0], 1)
    agrees(
        lambda x: FILTER_BANK(torch.nn.functional.pad(x[:, :, :1, :1], (0, 0, 1, 1)), *bank), torch.randn(1, C, 6, 6)
    )


@pytest.mark.parametrize(
    "use",
    [
        lambda y: torch.as_strided(y, (2, 8, 8), (512, 8, 1)),
        lambda y: torch.as_strided(y + 1.0, (2, 8, 8), (512, 8, 1)),
        lambda y: torch.as_strided(y.contiguous(), (2, 8, 8), (512, 8, 1)),
    ],
)
def test_what_is_read_by_addresses(agrees, use):
    agrees(lambda x: use(join(x)), image(*TILES))


def test_splits_that_are_read_by_addresses(agrees):
    agrees(lambda x: torch.as_strided(split(x), (2, 8, 8), (512, 8, 1)), image(*IMAGE))


def test_batches_of_any_size(agrees):
    def function(x, r):
        return (join(x) + r).relu()

    x, r = image(*TILES), image(*IMAGE)
    for value in (x, r):
        torch._dynamo.mark_dynamic(value, 0)
    agrees(function, x, r)


def test_batches_whose_size_only_data_tell(agrees):
    """Sizes are not compared where that would be a guard."""
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        agrees(
            lambda x, r, mask: join(x[mask.nonzero()[:, 0]]) + r[mask.nonzero()[:, 0]],
            image(*TILES),
            image(*IMAGE),
            torch.tensor([True, True]),
        )


def test_many_steps(agrees):
    def function(x):
        y = join(x)
        for _ in range(30):
            y = y.relu()
        return y

    agrees(function, image(*TILES))


def test_images_that_lie_otherwise_are_refused():
    """Lowering asks for the layout; the kernel would read beyond an image with another one."""

    def image(size, stride):
        return SimpleNamespace(get_size=lambda: size, get_stride=lambda: stride)

    sizes = SimpleNamespace(statically_known_equals=lambda a, b: a == b)
    with V.set_graph_handler(SimpleNamespace(sizevars=sizes)):
        _check_dense([image([1, 16, 8, 8], [7, 1, 128, 16]), image([16, 1, 1], [1, 1, 1])])
        for stride in ([1024, 64, 8, 1], [2048, 1, 256, 32]):
            with pytest.raises(ValueError, match="channels-last"):
                _check_dense([image([2, 16, 8, 8], stride)])
