"""Weights that change after they were frozen: every answer is that of the weights as they are now."""

import copy

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor_config
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from torch_eqsat.planning.inductor.versions import keeps_changing, note_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh")]
SETTINGS = {"freezing": True, "eqsat.seconds": 2, "eqsat.measure_seconds": 0, "force_disable_caches": True}


class Model(nn.Module):
    """Two linear layers, which are folded into one, a batch norm, and a weight that is used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(8, 16), nn.Linear(16, 8), nn.BatchNorm1d(8)
        self.tied = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.tied.weight
        self.register_buffer("shift", torch.rand(8))

    def forward(self, x):
        return self.norm(self.again(torch.relu(self.tied(self.second(self.first(x)))))) + self.shift


def train(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    with torch.enable_grad():
        model(torch.rand(4, 8)).square().sum().backward()
    optimizer.step()
    model.eval()


def train_fused(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    model.train()
    with torch.enable_grad():
        model(torch.rand(4, 8)).square().sum().backward()
    optimizer.step()
    model.eval()


def load(model):
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})


def replace(model):
    model.first.weight = nn.Parameter(torch.rand(16, 8))


def retie(model):
    model.again.weight = nn.Parameter(torch.rand(8, 8))


def retype(model):
    model.double().float()


def initialise(model):
    nn.init.normal_(model.second.weight)


def write_a_row(model):
    model.first.weight[2] = 0.5


def put_elsewhere(model):
    model.first.weight.data = torch.rand(16, 8)


WAYS = {
    "add_": lambda model: model.first.weight.add_(1.0),
    "a buffer": lambda model: model.shift.mul_(2.0),
    "statistics": lambda model: model.norm.running_mean.fill_(3.0),
    "a tied weight": lambda model: model.tied.weight.mul_(-1.0),
    "foreach": lambda model: torch._foreach_mul_(list(model.parameters()), 0.5),
    "an optimizer": train,
    "a fused optimizer": train_fused,
    "load_state_dict": load,
    "replaced": replace,
    "tied anew": retie,
    "to another dtype and back": retype,
    "initialised": initialise,
    "through a view": write_a_row,
    "other memory": put_elsewhere,
    "a part of its memory": lambda model: setattr(model.first.bias, "data", model.first.bias.data[:1]),
    "turned": lambda model: setattr(model.again.weight, "data", model.again.weight.data.T),
    "other memory twice": lambda model: [put_elsewhere(model) for _ in range(2)],
    "a vector": lambda model: vector_to_parameters(parameters_to_vector(model.parameters()) + 1, model.parameters()),
    "rounded": lambda model: model.half().float(),
    "through data": lambda model: model.first.weight.data.mul_(2.0),
    "an average of weights": lambda model: model.norm.running_var.data.mul_(0.9).add_(0.1),
    "numpy": lambda model: model.second.bias.detach().numpy().fill(3.0),
}
WRITES = {  # what neither autograd counts nor a look at one element sees
    "a row": lambda model: model.first.weight.data[1].mul_(2.0),
    "some elements": lambda model: model.norm.running_var.data[:2].mul_(0.9).add_(0.1),
    "numpy": lambda model: model.second.bias.detach().numpy().__setitem__(0, 3.0),
}


@pytest.mark.parametrize("globally", [False, True], ids=["by option", "by Inductor's setting"])
@pytest.mark.parametrize("way", WAYS)
def test_a_changed_weight_is_seen(way, globally):
    """It went on with the old values, without a line."""
    torch.manual_seed(0)
    model, x = Model().eval(), torch.rand(4, 8)
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
    with inductor_config.patch(freezing=globally), torch.no_grad():
        before = compiled(x)
        torch.testing.assert_close(before, model(x), rtol=1e-4, atol=1e-5)
        WAYS[way](model)
        torch.testing.assert_close(compiled(x), copy.deepcopy(model)(x), rtol=1e-4, atol=1e-5)
        assert not torch.equal(before, model(x)) or way == "to another dtype and back"


@pytest.mark.parametrize(("way", "backend"), [("a row", "eqsat_mcts"), *((way, "eqsat_mcts_eager") for way in WRITES)])
def test_writes_that_nothing_counts_are_seen_by_values(way, backend):
    model, x = Model().eval(), torch.rand(4, 8)
    compiled = torch.compile(model, backend=backend, options={**SETTINGS, "eqsat.watch": "values"})
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
            WRITES[way](model)
            for _ in range(2):
                torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("watch", ["sample", "values"])
def test_what_keeps_being_written_unseen_becomes_an_input(watch):
    """An average of weights: each step compiled the model again, until Dynamo gave it up."""
    model, x = Model().eval(), torch.rand(4, 8)
    options = {**SETTINGS, "eqsat.watch": watch}
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options=options)
    with torch.no_grad():
        for _ in range(7):
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
            model.first.weight.data.mul_(0.9).add_(0.1)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4


def test_other_memory_is_seen_at_each_size():
    model = Model().eval()
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
    with torch.no_grad():
        for batch in (4, 1, 8):
            put_elsewhere(model)
            for rows in (batch, 4, batch):
                x = torch.rand(rows, 8)
                torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_weight_that_is_swapped():
    """It could not be, for compiled graphs referred to it weakly. One that a constant is a view of still cannot."""
    model, x = nn.Conv2d(3, 4, 3).eval(), torch.rand(2, 3, 8, 8)
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
            torch.utils.swap_tensors(model.weight, nn.Parameter(torch.rand(4, 3, 3, 3)))
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_copies_and_files_of_frozen_weights_have_no_notes(tmp_path):
    model, x = Model().eval(), torch.rand(4, 8)
    with torch.no_grad():
        torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)(x)
    torch.save(list(model.parameters()), tmp_path / "weights")
    for weight in [*torch.load(tmp_path / "weights"), *copy.deepcopy(model).parameters()]:
        note = note_of(weight)
        assert note.stood is None and not keeps_changing(weight) and note is note_of(weight)


def test_a_model_that_was_rounded_meanwhile():
    """Back in single precision it went on with the weights that it had before they were rounded."""
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)).eval(), torch.rand(4, 8)
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16, torch.float32):
            model.to(dtype)
            actual, expected = compiled(x.to(dtype)), model(x.to(dtype))
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_compiled_step_of_a_fused_optimizer():
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)).eval(), torch.rand(4, 8)
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    step = torch.compile(optimizer.step, backend="aot_eager")
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
        model(x).square().sum().backward()
        step()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_weights_made_in_inference_mode():
    with torch.inference_mode():
        model, x = Model().eval(), torch.rand(4, 8)
        compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_weights_made_in_inference_mode_that_are_written():
    with torch.inference_mode():
        model, x = Model().eval(), torch.rand(4, 8)
        compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
        compiled(x)
        model.first.weight.add_(1.0)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_other_memory_behind_weights_made_in_inference_mode():
    with torch.inference_mode():
        model, x = Model().eval(), torch.rand(4, 8)
        compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
        for _ in range(6):
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
            put_elsewhere(model)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
