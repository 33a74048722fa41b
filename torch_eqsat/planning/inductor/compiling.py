"""One Dynamo graph through Inductor with our passes; where that fails without them, and then without our freezing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch._dynamo.exc import RestartAnalysis, SkipFrame
from torch._inductor import config as inductor_config
from torch._inductor.compile_fx import compile_fx
from torch._inductor.custom_graph_pass import get_custom_graph_passes
from torch.fx import GraphModule

from torch_eqsat.graph.whole import TakeApart
from torch_eqsat.kernels.inductor import use_kernels
from torch_eqsat.options import Options
from torch_eqsat.planning.inductor.caching import packed_weights_in_keys
from torch_eqsat.planning.inductor.folding import without_wrong_folds
from torch_eqsat.planning.inductor.freezing import Lifting
from torch_eqsat.planning.plans.source import source_hash
from torch_eqsat.report import GraphReport


class OurPass(Protocol):
    """What a compilation asks of our pass."""

    options: Options

    @property
    def rewritten(self) -> list[GraphReport]:
        """The reports of graphs that were rewritten."""
        ...

    def take_back(self, error: Exception, what: str = "rewritten") -> None:
        """Say that what was ``what`` (rewritten or frozen) did not compile."""
        ...


@dataclass
class Compilation:
    """One Dynamo graph on its way; ``lifting`` is there if its weights are frozen."""

    module: GraphModule
    inputs: list[Any]
    lifting: Lifting | None
    patches: dict[str, Any]
    our_pass: OurPass
    inner: Callable[..., Any]

    def run(self) -> Callable[..., Any]:
        """Compile with our pass; where that fails without it, and then without our freezing."""
        try:
            return self._with_patches(joint_custom_pre_pass=[*_user_passes(self.patches), self.our_pass])
        except (SkipFrame, RestartAnalysis):  # how compilers speak to Dynamo
            raise
        except Exception as error:
            if self.our_pass.options.strict or not (self.our_pass.rewritten or self.lifting):
                raise
            return self._run_otherwise(error)

    def _run_otherwise(self, error: Exception) -> Callable[..., Any]:
        """Compile without our pass if that rewrote anything; and if that fails too or nothing was rewritten, without
        our freezing. Raises ``error``, with which all of it failed, if this does too."""
        if self.our_pass.rewritten:
            # The first attempt's passes before autograd may have changed the module; what it computes they keep.
            with contextlib.suppress(Exception):
                compiled = self._with_patches()
                self.our_pass.take_back(error)
                return compiled
        if self.lifting is None:
            raise error
        self.lifting.put_back()
        self.lifting = None
        try:
            compiled = self._with_patches(freezing=False)
        except Exception:
            raise error from None
        self.our_pass.take_back(error, "frozen")
        return compiled

    def _with_patches(self, **patches: Any) -> Callable[..., Any]:
        inputs = self.inputs if self.lifting is None else self.lifting.inputs
        # Our pass may switch patterns off, which ends with this compilation (see `attention.py`).
        patterns = {"pattern_matcher": inductor_config.pattern_matcher}
        settings = {**patterns, **self.patches, "joint_custom_pre_pass": _user_passes(self.patches), **patches}
        settings["post_grad_custom_pre_pass"] = [
            *_user_passes(self.patches, "post_grad_custom_pre_pass"),
            TakeApart(source_hash(), use_kernels),
        ]
        with without_wrong_folds(), packed_weights_in_keys(settings):
            return compile_fx(self.module, inputs, inner_compile=self.inner, config_patches=settings)  # type: ignore[no-any-return]


def _user_passes(patches: dict[str, Any], hook: str = "joint_custom_pre_pass") -> list[Any]:
    """The passes that the user set for this hook; ours comes after them."""
    given = patches.get(hook, getattr(inductor_config, hook))
    return list(get_custom_graph_passes(given))
