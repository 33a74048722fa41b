"""The models of the suite: (a) the paper's nine, (b) models and cells to rewrite or to leave alone, (c) training.

As ``bench.models.cases``: float32, batch 1, random weights and inputs from one fixed seed, nothing downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models import suite_cells as cells
from bench.models import suite_networks as networks
from bench.models.cases import CASES, Case, LinearAttention, randomize_batch_norms
from bench.models.paper_graphs import NasNetA, NasRnn

Built = tuple[nn.Module, tuple[Tensor, ...]]


def _model(name: str, description: str, make: Callable[[], Built]) -> Case:
    return Case(name, 0.0, description, make)


def _training(name: str, description: str, make: Callable[[], Built]) -> Case:
    return Case(name, 0.0, description, make, training=True)


def _torchvision(name: str, size: int = 224, **arguments: bool) -> Callable[[], Built]:
    def make() -> Built:
        import torchvision

        # Two images: a batch norm over one pixel of one image has no variance.
        images = torch.randn(2, 3, size, size)
        module, _ = randomize_batch_norms(torchvision.models.get_model(name, weights=None, **arguments), (images,))
        return module, (images[:1],)

    return make


def _nasrnn() -> Built:
    return NasRnn(), tuple(torch.randn(1, 512) for _ in range(6))


def _of(module: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> Callable[[], Built]:
    return lambda: (module(), tuple(torch.randn(shape) for shape in shapes))


def _indexed(module: Callable[[], nn.Module], limit: int, count: int) -> Callable[[], Built]:
    return lambda: (module(), (torch.randint(limit, (count,)),))


class _WithLoss(nn.Module):
    """A model and the loss that it is trained with. ``target`` is a buffer, the same at each step."""

    def __init__(self, model: nn.Module, target: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("target", target)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Cross entropy for classes, else the mean square error."""
        output, target = self.model(*inputs), self.get_buffer("target")
        classes = not target.is_floating_point()
        return functional.cross_entropy(output, target) if classes else functional.mse_loss(output, target)


def _train_resnet() -> Built:
    import torchvision

    return _WithLoss(torchvision.models.resnet18(num_classes=10), torch.randint(10, (4,))), (torch.randn(4, 3, 64, 64),)


def _train_bert() -> Built:
    from transformers import BertConfig, BertForSequenceClassification

    from bench.models.cases import Outputs

    config = BertConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = Outputs(BertForSequenceClassification(config), lambda answer: answer.logits)
    return _WithLoss(model, torch.randint(2, (4,))), (torch.randint(config.vocab_size, (4, 64)),)


def _train_lora() -> Built:
    stack = nn.Sequential(nn.Linear(768, 768), nn.ReLU(), nn.Linear(768, 768), nn.ReLU(), nn.Linear(768, 768))
    stack.requires_grad_(False)
    return _WithLoss(networks.with_adapters(stack), torch.randn(256, 768)), (torch.randn(256, 768),)


def _train_graph() -> Built:
    module, inputs = cells.graph_convolution()
    return _WithLoss(module, torch.rand(2048, 256)), inputs


class _ProjectedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(512, 3 * 512)
        self.attention = LinearAttention()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.view(1, -1, 8, 64).transpose(1, 2) for t in self.projection(x).chunk(3, -1))
        output: Tensor = self.attention(q, k, v)
        return output


def _train_attention() -> Built:
    return _WithLoss(_ProjectedAttention(), torch.randn(1, 8, 1024, 64)), (torch.randn(1, 1024, 512),)


_PAPER = (
    _model("inception_v3", "torchvision", _torchvision("inception_v3", 299, init_weights=False, aux_logits=False)),
    _model("mobilenet_v2", "torchvision", _torchvision("mobilenet_v2")),
    CASES["resnet50"],
    _model("resnext50", "torchvision resnext50_32x4d", _torchvision("resnext50_32x4d")),
    _model("squeezenet1_1", "torchvision", _torchvision("squeezenet1_1")),
    _model("vgg19", "torchvision", _torchvision("vgg19")),
    _model("nasnet_a", "NASNet-A of the paper's size", _of(NasNetA, (1, 3, 224, 224))),
    CASES["bert_base"],
    _model("nasrnn", "NasRNN, 5 steps, 512 wide", _nasrnn),
)

_REWRITABLE = (
    *(case for case in CASES.values() if case not in _PAPER),
    _model("pythia", "pythia-70m's shape, logits[:, -1]", networks.pythia),
    _model("smollm", "SmolLM's shape, 8 layers, logits[:, -1]", networks.smollm),
    _model("lora_bert", "BERT, 2 layers, adapters of rank 16", networks.lora_bert),
    _model("dlrm_embeddings", "26 embeddings", partial(networks.recommender, bags=False)),
    _model("dlrm_bags", "26 embedding bags of 10", partial(networks.recommender, bags=True)),
    _model("mmoe", "mixture of 8 experts, 2 gates", _of(networks.Mmoe, (1, 128))),
    _model("gru_loop", "GRUCell in a loop, 16 steps, 512 wide", _of(partial(cells.Gru, 512), (1, 16, 512))),
    _model(
        "dpt_fusion", "DPT fusion layer, 64 channels",
        _of(partial(networks.DptFusion, 64), (1, 64, 64, 64), (1, 64, 64, 64)),
    ),
    _model("vae_decoder", "Stable Diffusion's decoder, quarter width", _of(networks.VaeDecoder, (1, 4, 16, 16))),
    _model("swin_mask", "attention of shifted windows", _of(cells.ShiftedWindows, (64, 3, 49, 49))),
    _model("t5_attention", "attention with T5's bias", _of(cells.RelativeAttention, (128, 512))),
    _model("densenet_transition", "1x1 convolution, pooling", _of(cells.DenseTransition, (1, 256, 56, 56))),
    _model("graph_convolution", "A (X W), 2048 nodes", cells.graph_convolution),
    _model("interactions", "factorization machine, 39 fields", _of(cells.Interactions, (64, 39, 16))),
    _model("embedding_linear", "an embedding, projected", _indexed(cells.TokenFeatures, 5000, 128)),
    _model("mean_of_linear", "a projection, pooled", _of(cells.MeanOfLinear, (8, 128, 768))),
    _model("one_hot", "one-hot vectors times a table", _indexed(cells.OneHot, 5000, 64)),
    _model(
        "product_vector", "(A B) v, n=512",
        lambda: cells.formula(lambda a, b, v: (a @ b) @ v, (512, 512), (512, 512), (512,)),
    ),
    _model("trace", "trace(A B), n=768", lambda: cells.formula(lambda a, b: (a @ b).trace(), (768, 768), (768, 768))),
    _model("concatenated_linear", "4 inputs, better left alone", _of(cells.ConcatenatedLinear, *[(128, 128)] * 4)),
    _model("resnext_block", "32 groups, better left alone", lambda: randomize_batch_norms(*cells.resnext_block())),
    _model("fire", "SqueezeNet's fire, better left alone", cells.fire),
)  # fmt: skip

_TRAINED = (
    _training("train_resnet18", "ResNet-18, 4 images of 64x64", _train_resnet),
    _training("train_bert", "BERT classifier, 2 layers, 128 wide, 4 x 64 tokens", _train_bert),
    _training("train_lora", "adapters on three linear layers, 256 rows", _train_lora),
    _training("train_graph_convolution", "A (X W), 2048 nodes", _train_graph),
    _training("train_linear_attention", "attention without softmax, n=1024", _train_attention),
)

SETS = {"a": _PAPER, "b": _REWRITABLE, "c": _TRAINED}
"""The models of each set."""

MODELS = {case.name: case for cases in SETS.values() for case in cases}
"""All models by name."""
