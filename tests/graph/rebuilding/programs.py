"""Programs for captured graphs, as tests write them."""

from torch.fx import GraphModule

from torch_eqsat.graph.rebuilding.rebuild import rebuild
from torch_eqsat.ir.builder import Builder, GraphStore, Handle
from torch_eqsat.ir.term import TermGraph


def start(captured, *leaves: int):
    """A program with the captured inputs numbered ``leaves``; its builder and handles."""
    program = TermGraph()
    handles = []
    for leaf in leaves:
        node, type_ = captured.graph.nodes[leaf], captured.graph.types[leaf]
        handles.append(Handle(program.add(node, type_, captured.graph.constant[leaf]), type_))
    return program, Builder(GraphStore(program)), handles


def finish(module: GraphModule, captured, program, *roots: Handle) -> int:
    program.roots = [root.id for root in roots]
    inputs = {node: i for i, node in enumerate(captured.graph.nodes) if node.op == "input"}
    added = rebuild(captured, program, [inputs.get(node, -1) for node in program.nodes])
    module.recompile()
    return added


def targets(module):
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]
