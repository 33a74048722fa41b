"""What tests of several packages use."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._inductor.decomposition import select_decomp_table
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx


@pytest.fixture
def trace() -> Callable[..., GraphModule]:
    """Traces a function to the functional graph of ATen calls that Inductor's passes see."""

    def trace_(function: Callable[..., Any], *inputs: Any) -> GraphModule:
        functional = torch.func.functionalize(function, remove="mutations")
        module = make_fx(functional, decomposition_table=select_decomp_table(), tracing_mode="fake")(*inputs)
        module.graph.eliminate_dead_code()
        module.recompile()
        return module

    return trace_
