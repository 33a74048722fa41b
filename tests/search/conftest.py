"""Tasks for the search tests."""

import pytest
import torch

from torch_eqsat.graph.capture import capture
from torch_eqsat.search.program import Task


@pytest.fixture
def task_of(trace):
    """The task of a function's graph; ``static`` are the positions of its weights."""

    def make(function, *shapes, static=()) -> Task:
        graph = trace(function, *(torch.empty(shape) for shape in shapes)).graph
        placeholders = graph.find_nodes(op="placeholder")
        captured = capture(graph, {placeholders[i] for i in static})
        return Task(captured.graph, captured.parts)

    return make
