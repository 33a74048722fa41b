"""Ranks of a process group: all rewrite a graph in the same way, or none does."""

import json
import os
import subprocess
import sys

import pytest
import torch.distributed as dist

pytestmark = [
    pytest.mark.skipif(
        not dist.is_available() or not dist.is_gloo_available(), reason="needs torch.distributed with gloo"
    ),
    pytest.mark.slow,
]

PROGRAM = """
import datetime, json, os, sys, time
import torch, torch.distributed as dist
from torch.fx.experimental.proxy_tensor import make_fx
from torch_eqsat.planning import pipeline as optimizing
from torch_eqsat.planning import ranks
from torch_eqsat.planning import verdict
from torch_eqsat.options import Options
from torch_eqsat.planning.setting import Setting

case, rank, place, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
torch.set_num_threads(1)
seconds = 15.0 if case in ("killed", "late") else 300.0
dist.init_process_group("gloo", init_method="file://" + place, rank=rank, world_size=count,
                        timeout=datetime.timedelta(seconds=seconds))

def chain(x, a, b):
    return (x @ a) @ b

def other(x, a, b):
    return torch.relu(x @ a) @ b

def plan(function=chain):
    inputs = [torch.rand(64, 64), torch.rand(64, 64), torch.rand(64, 1)]
    graph = make_fx(function, tracing_mode="fake")(*inputs).graph
    before = str(graph)
    setting = Setting(Options(seconds=2.0, measure_seconds=2.0), False, "cpu", 1, "key")
    try:
        report = optimizing.optimize(graph, setting, verdict.GraphInputs(frozenset(), inputs))
        decision = report.decision
    except Exception as error:
        decision = f"{type(error).__name__}: {error}"
        report = None
    return {"graph": str(graph), "changed": str(graph) != before, "decision": decision,
            "searched": bool(report and report.search_seconds), "from_plan": bool(report and report.from_plan)}

if case == "killed" and rank == 1:
    os._exit(9)
if case == "late" and rank == 1:
    time.sleep(10.0)
if case == "refused" and rank == 1:
    verdict.disagreement = lambda *_: "off by one"
if case == "broken" and rank == 0:
    def broken(*_):
        raise ValueError("cannot plan")
    optimizing.search_regions = broken
found = [plan(other if case == "different" and rank == 1 else chain)]
if case in ("together", "different"):
    found.append(plan())
if case == "late":
    start = time.monotonic()
    found.append(plan())
    found[-1]["waited"] = time.monotonic() - start
print(json.dumps(found), flush=True)
if case != "killed":  # rank 0 may hold the store
    store = dist.distributed_c10d._get_default_store()
    store.set(f"done {rank}", "")
    while not store.check([f"done {rank}" for rank in range(count)]):
        time.sleep(0.02)
"""


TRAINING = """
import datetime, json, sys
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch_eqsat.report import last_reports

case, rank, place, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + place, rank=rank, world_size=count,
                        timeout=datetime.timedelta(seconds=300))

class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(64, 64) / 8), nn.Parameter(torch.randn(64, 1) / 8)

    def forward(self, x):
        return ((x @ self.a) @ self.b).sum()

torch.manual_seed(0)
plain, model = Chain(), Chain()
model.load_state_dict(plain.state_dict())
model = DistributedDataParallel(model) if case == "ddp" else fully_shard(model)
options = {"eqsat.seconds": 2.0, "eqsat.measure_seconds": 2.0, "force_disable_caches": True}
backend = "eqsat_mcts" if case == "ddp" else "eqsat_mcts_eager"
step = torch.compile(model, backend=backend, options=options)
inputs = [torch.randn(64, 64) for _ in range(count)]
loss = step(inputs[rank])
loss.backward()
sum(plain(x) for x in inputs).div(count).backward()
whole = [p.grad if case == "ddp" else p.grad.full_tensor() for p in model.parameters()]
errors = [((g - q.grad).abs().max() / q.grad.abs().max()).item()
          for g, q in zip(whole, plain.parameters(), strict=True)]
reports = last_reports()
print(json.dumps([{"error": max(errors), "loss": (loss - plain(inputs[rank])).abs().item(),
                   "laws": [sorted(r.laws.items()) for r in reports], "changed": [r.changed for r in reports]}]),
      flush=True)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture
def ranks(tmp_path):
    """Runs a case on ranks with a cache each; for each rank what became of its graphs, or None if it ended."""

    def run(case, program=PROGRAM, count=2):
        processes = []
        for rank in range(count):
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
            environment["TORCH_EQSAT_CACHE_DIR"] = str(tmp_path / str(rank))
            arguments = [sys.executable, "-c", program, case, str(rank), str(tmp_path / "store"), str(count)]
            processes.append(
                subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
        answers = []
        for process in processes:
            out, err = process.communicate(timeout=300)
            assert process.returncode in (0, 9), err
            answers.append(json.loads(out.splitlines()[-1]) if process.returncode == 0 else None)
        return answers

    return run


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_take_the_same_program(ranks, count):
    """Two that planned for themselves took programs of 41 and 36 new calls."""
    first, *others = ranks("together", count=count)
    assert first[0]["changed"] and first[0]["searched"] and not any(other[0]["searched"] for other in others)
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert a["changed"] and a["graph"] == b["graph"]
    assert first[1]["from_plan"]


def test_different_graphs_are_left(ranks):
    first, second = ranks("different")
    for answers in (first, second):
        assert not answers[0]["changed"] and "the ranks have different graphs" in answers[0]["decision"]
        assert answers[1]["changed"]  # the next one is the same again
    assert first[1]["graph"] == second[1]["graph"]


def test_a_rank_that_refuses_keeps_all_from_it(ranks):
    for (answer,), reason in zip(ranks("refused"), ("another rank", "off by one"), strict=True):
        assert not answer["changed"] and reason in answer["decision"]


def test_rank_0_cannot_plan(ranks):
    for (answer,), reason in zip(ranks("broken"), ("cannot plan", "rank 0 could not plan it"), strict=True):
        assert not answer["changed"] and reason in answer["decision"]


def test_a_rank_that_is_dead(ranks):
    (answer,), nothing = ranks("killed")
    assert nothing is None and not answer["changed"] and "did not come in time" in answer["decision"]


def test_a_rank_that_is_late(ranks):
    """Both leave the graph as it is, and no later one waits."""
    for answers in ranks("late"):
        assert not any(answer["changed"] for answer in answers)
        assert all("left as they are from now on" in answer["decision"] for answer in answers)


@pytest.mark.parametrize(("case", "count"), [("ddp", 2), ("fsdp", 4)])
def test_training(ranks, case, count):
    """Replicated, and sharded by FSDP2."""
    first, *others = (answer for (answer,) in ranks(case, TRAINING, count))
    assert max(found["error"] for found in (first, *others)) < 1e-5
    assert max(found["loss"] for found in (first, *others)) < 1e-3
    assert first["changed"] and any(first["changed"])
    for other in others:
        assert first["changed"] == other["changed"] and first["laws"] == other["laws"]
