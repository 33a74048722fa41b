"""ONNX Runtime and OpenVINO, on one thread and in float32. Needs the extra ``peers``.

The ONNX file goes to the folder that ``EQSAT_BENCH_CACHE_DIR`` names, where a second process finds it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CACHE = "EQSAT_BENCH_CACHE_DIR"


def exported(module: nn.Module, inputs: tuple[Tensor, ...]) -> Path:
    """The ONNX file of a module, written unless it is there. Raises what ``torch.onnx`` raises."""
    path = Path(os.environ[CACHE]) / "model.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # The weights lie in a file of their own beside it, which is complete before this one gets its name.
        scratch = path.with_name("exported.onnx")
        torch.onnx.export(module, inputs, scratch, dynamo=True, external_data=True)
        scratch.replace(path)
    return path


def onnxruntime(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Any]:
    """The module in ONNX Runtime, all optimisations on."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = runtime.InferenceSession(exported(module, inputs), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def run(*arguments: Tensor) -> Any:
        values = dict(zip(names, (x.numpy() for x in arguments), strict=True))
        return _unpacked([torch.from_numpy(value) for value in session.run(None, values)])

    return run


def openvino(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Any]:
    """The module in OpenVINO. It would choose bfloat16 where the processor has it, were it not told."""
    import openvino as runtime

    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "CACHE_DIR": str(Path(os.environ[CACHE]) / "openvino"),
    }
    compiled = runtime.Core().compile_model(exported(module, inputs), "CPU", settings)
    request = compiled.create_infer_request()

    def run(*arguments: Tensor) -> Any:
        request.infer([x.numpy() for x in arguments], share_inputs=True)
        return _unpacked([torch.from_numpy(request.get_output_tensor(i).data) for i in range(len(compiled.outputs))])

    return run


def _unpacked(outputs: list[Tensor]) -> Any:
    return outputs[0] if len(outputs) == 1 else outputs
