"""What is asked of whole graphs."""

import pytest
import torch

from torch_eqsat.errors import RebuildError
from torch_eqsat.graph.fx import check_cut, late_nodes, outputs_of


def test_results_of_the_forward_must_not_depend_on_gradients(trace):
    graph = trace(lambda x, t: (x * 2.0, t * x), torch.rand(3), torch.rand(3)).graph
    graph.find_nodes(op="placeholder")[1].target = "tangents_1"
    late, before = late_nodes(graph), outputs_of(graph)
    check_cut(graph, late, before)
    graph.output_node().replace_input_with(before[0], before[1])
    with pytest.raises(RebuildError, match="would depend on gradients"):
        check_cut(graph, late, before)
