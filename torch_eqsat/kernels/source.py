"""The C++ of two kernels that take an image apart into tiles and put it together, with sums of each tile's rows and
columns on the way.

They are what Winograd's convolutions do before and after their products (see `rewrites/winograd.py`): a tile is read
once and written once. Inductor's code for the same calls writes the padded image, then the sums of rows, then those of
columns: around a convolution of 64 channels of 56x56, whose product takes 0.48 ms, both kernels take 0.26 ms, and its
code 0.22 more (Intel Xeon, one thread).

The image lies channels-last. Of a tile all channels stand side by side, so that a vector is one number of each of as
many channels, and every sum is one of vectors. Additions come in the order of the calls, and no product is fused into
one (`-ffp-contract=off`, Inductor's default), so that results are equal bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch_eqsat.ir.families import reductions

Matrix = tuple[tuple[float, ...], ...]

STEPS = ("", "add", "sub", "mul", "add_image", "relu")
"""What may follow a sum before it is stored: with a number of its channel, or with another image."""
MOST_OPERANDS = 8
"""How many operands these steps take at most."""
STEP_BITS = 3
MOST_STEPS = 63 // STEP_BITS
"""How many steps one number of 64 bits holds."""
LEAST_CHANNELS = reductions.LEAST_CHANNELS
"""A vector takes as many numbers of a pixel at once."""
NUMBERS_PER_THREAD = 1 << 14
"""Numbers to write for each thread: starting one takes some microseconds, and writing these about four."""
SPLIT_ARGUMENTS = ["const float*", "float*", *["int64_t"] * 14]
JOIN_ARGUMENTS = ["const float*", "float*", *["const float*"] * MOST_OPERANDS, *["int64_t"] * 8]

_HEADER = f"""
#include <algorithm>
#include <cstdint>
#include <vector>
#if defined(__AVX512F__)
constexpr int64_t LANES = 16;
#elif defined(__AVX__)
constexpr int64_t LANES = 8;
#else
constexpr int64_t LANES = 4;
#endif
typedef float V __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
static_assert(LANES <= {LEAST_CHANNELS}, "a vector reads no more than the channels of one pixel");
static inline int64_t threads_for(int64_t numbers, int64_t most) {{
    return std::max<int64_t>(1, std::min(most, numbers / {NUMBERS_PER_THREAD}));
}}
static inline V load(const float* from) {{ return *reinterpret_cast<const V*>(from); }}
static inline void store(float* to, V value) {{ *reinterpret_cast<V*>(to) = value; }}
"""


def split_source(rows: Matrix, columns: Matrix) -> str:
    """C++ of ``kernel(x, y, ...)``: channel (j · len(rows) + i) · c + k of ``y`` [n, filters, down, across] is
    Σ rows[i][a] columns[j][b] x[k, step_h · s + a − top, step_w · t + b − left] at tile (s, t); outside of ``x`` is 0.
    """
    height, width = len(rows[0]), len(columns[0])
    taps = height * width
    lines = [f"const V d{k} = load(p[{k}] + c);" for k in range(taps)]
    for b in range(width):
        column = [f"d{a * width + b}" for a in range(height)]
        lines += [f"const V r{i}_{b} = {_sum(row, column)};" for i, row in enumerate(rows)]
    for i in range(len(rows)):
        sums = [f"r{i}_{b}" for b in range(width)]
        for j, column_filter in enumerate(columns):
            lines.append(f"store(to + {j * len(rows) + i} * channels + c, {_sum(column_filter, sums)});")
    return f"""{_HEADER}
extern "C" void kernel(const float* x, float* y, int64_t images, int64_t height, int64_t width, int64_t channels,
    int64_t stride_n, int64_t stride_h, int64_t stride_w, int64_t top, int64_t left, int64_t step_h, int64_t step_w,
    int64_t down, int64_t across, int64_t most_threads) {{
    const int64_t last = channels - LANES;
    const int64_t threads = threads_for(images * down * across * {len(rows) * len(columns)} * channels, most_threads);
    const std::vector<float> zeros(channels);
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t tile = 0; tile < images * down * across; ++tile) {{
        const int64_t t = tile % across, s = tile / across % down, n = tile / (across * down);
        const float* p[{taps}];
        for (int64_t a = 0; a < {height}; ++a) for (int64_t b = 0; b < {width}; ++b) {{
            const int64_t h = step_h * s + a - top, w = step_w * t + b - left;
            const bool inside = h >= 0 && h < height && w >= 0 && w < width;
            p[a * {width} + b] = inside ? x + n * stride_n + h * stride_h + w * stride_w : zeros.data();
        }}
        float* const to = y + tile * {len(rows) * len(columns)} * channels;
        for (int64_t block = 0; block < channels; block += LANES) {{
            const int64_t c = std::min(block, last);
            {_indented(lines, 12)}
        }}
    }}
}}
"""


def join_source(rows: Matrix, columns: Matrix) -> str:
    """C++ of ``kernel(x, y, ...)``: pixel (len(rows) · s + i, len(columns) · t + j) of ``y``, as far as it is one of
    the image, is Σ rows[i][a] columns[j][b] x[(b · taps of rows + a) · channels + k] at tile (s, t)."""
    height, width = len(rows[0]), len(columns[0])
    lines = [
        f"const V d{b}_{a} = load(from + {b * height + a} * channels + c);" for b in range(width) for a in range(height)
    ]
    for a in range(height):
        taken = [f"d{b}_{a}" for b in range(width)]
        lines += [f"const V r{a}_{j} = {_sum(column, taken)};" for j, column in enumerate(columns)]
    for i, row in enumerate(rows):
        for j in range(len(columns)):
            lines.append(f"o[{i * len(columns) + j}] = {_sum(row, [f'r{a}_{j}' for a in range(height)])};")
    outputs = len(rows) * len(columns)
    operands = ", ".join(f"const float* q{k}" for k in range(MOST_OPERANDS))
    return f"""{_HEADER}
extern "C" void kernel(const float* x, float* y, {operands}, int64_t images, int64_t height, int64_t width,
    int64_t channels, int64_t down, int64_t across, int64_t steps, int64_t most_threads) {{
    const int64_t last = channels - LANES;
    const int64_t threads = threads_for(images * height * width * channels, most_threads);
    const float* const operands[] = {{{", ".join(f"q{k}" for k in range(MOST_OPERANDS))}}};
    #pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t tile = 0; tile < images * down * across; ++tile) {{
        const int64_t t = tile % across, s = tile / across % down, n = tile / (across * down);
        const float* const from = x + tile * {height * width} * channels;
        const int64_t top = {len(rows)} * s, left = {len(columns)} * t;
        const int64_t rows = std::min<int64_t>({len(rows)}, height - top);
        const int64_t columns = std::min<int64_t>({len(columns)}, width - left);
        const int64_t origin = ((n * height + top) * width + left) * channels;
        for (int64_t block = 0; block < channels; block += LANES) {{
            const int64_t c = std::min(block, last);
            V o[{outputs}];
            {_indented(lines, 12)}
            const float* const* operand = operands;
            for (int64_t rest = steps; rest; rest >>= {STEP_BITS}) {{
                switch (rest & {(1 << STEP_BITS) - 1}) {{
                {_indented(_steps(outputs, len(columns)), 16)}
                }}
            }}
            for (int64_t i = 0; i < rows; ++i) for (int64_t j = 0; j < columns; ++j)
                store(y + origin + (i * width + j) * channels + c, o[i * {len(columns)} + j]);
        }}
    }}
}}
"""


def _steps(outputs: int, columns: int) -> Iterator[str]:
    for name, sign in (("add", "+"), ("sub", "-"), ("mul", "*")):
        yield f"case {STEPS.index(name)}: {{"
        yield "    const V q = load(*operand++ + c);"
        yield f"    for (int k = 0; k < {outputs}; ++k) o[k] = o[k] {sign} q;"
        yield "    break;"
        yield "}"
    yield f"case {STEPS.index('add_image')}: {{"
    yield "    const float* const q = *operand++ + origin + c;"
    yield "    for (int64_t i = 0; i < rows; ++i) for (int64_t j = 0; j < columns; ++j)"
    yield f"        o[i * {columns} + j] = o[i * {columns} + j] + load(q + (i * width + j) * channels);"
    yield "    break;"
    yield "}"
    yield f"case {STEPS.index('relu')}:"
    yield f"    for (int k = 0; k < {outputs}; ++k) o[k] = o[k] < 0 ? V{{}} : o[k];  // NaN stays"
    yield "    break;"


def _sum(coefficients: Sequence[float], values: Sequence[str]) -> str:
    """Σ coefficient · value from the left, without those that are zero; one at least is not."""
    terms = [v if c == 1 else f"{v} * float({c!r})" for c, v in zip(coefficients, values, strict=True) if c]
    return " + ".join(terms)


def _indented(lines: Sequence[str] | Iterator[str], by: int) -> str:
    return f"\n{' ' * by}".join(lines)
