"""``torch-eqsat bisect`` finds the law without which a model's compiled result agrees with eager."""

from __future__ import annotations

import copy
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from torch_eqsat import report as reports
from torch_eqsat.errors import EqsatError
from torch_eqsat.options import Options
from torch_eqsat.rewrites import catalogue
from torch_eqsat.user_laws import load_laws
from torch_eqsat.verification.guard import InDouble, difference, widened

# Exit statuses of the command.
FOUND, AGREES, USAGE, NOT_OURS = 0, 1, 2, 3


def bisect(
    subject: str,
    backend: str = "eqsat_mcts",
    options: dict[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Find the law that makes a model's result wrong, and print it. ``subject`` is "module:function"; the function
    returns the model and a list of its inputs. ``options`` are those of the backend.

    Returns 0 if a law was found, 1 if the compiled result agrees with eager, 3 if it differs without any law. Raises
    EqsatError if there is no such function, and OptionError for bad ``options``.
    """
    options = dict(options or {})
    everything = _all_laws(options)
    model, inputs = _subject(subject)
    trial = _Trial(model, inputs, backend, options)
    problem, laws = trial(())
    if not problem:
        say("the compiled result agrees with eager")
        return AGREES
    say(f"the compiled result is wrong: {problem}")
    if trial(everything)[0]:
        say("it is wrong without any law too: a bug of Inductor, or of the pass itself")
        return NOT_OURS
    # Reports do not name laws that make no terms, and disabling one law may let others apply.
    laws = [law for law in laws if law in everything]
    suspects = laws if laws and not trial(laws)[0] else everything
    needed = _shortest(suspects, lambda disabled: not trial(disabled)[0])
    last = needed[-1]
    if not trial((last,))[0]:
        say(f"law: {last}")
    else:
        say(f"law: {last}, while these are disabled: {', '.join(needed[:-1])}")
    return FOUND


def _shortest(suspects: Sequence[str], agrees: Callable[[Sequence[str]], bool]) -> Sequence[str]:
    """The shortest prefix of ``suspects`` that makes the results agree when disabled. All of them together do."""
    low, high = 0, len(suspects)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if agrees(suspects[:middle]) else (middle, high)
    return suspects[:high]


def _all_laws(options: dict[str, Any]) -> list[str]:
    own = load_laws(Options.parse(options)[0])
    return list(dict.fromkeys(law.name for law in (*catalogue(), *own.laws)))


def _subject(subject: str) -> tuple[Callable[..., Any], Sequence[Any]]:
    name, _, function = subject.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # an installed command has its own folder there instead
    try:
        made = getattr(importlib.import_module(name), function)()
        model, inputs = made
        return model, list(inputs)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise EqsatError(
            f"{subject!r} is not a module:function that returns (model, inputs): {type(error).__name__}: {error}"
        ) from error


class _Trial:
    """Compiles the model with some laws disabled and compares it with eager. A call returns the difference in words (""
    if there is none) and the laws that the reports name."""

    def __init__(self, model: Callable[..., Any], inputs: Sequence[Any], backend: str, options: dict[str, Any]) -> None:
        self.model, self.inputs, self.backend = model, inputs, backend
        self.options = {**options, "eqsat.cache": False, "force_disable_caches": True}
        self.eager = self._run(model)
        try:
            with InDouble():
                wide = copy.deepcopy(model)
                if isinstance(wide, torch.nn.Module):
                    wide.double()
                self.exact: list[Any] = tree_leaves(wide(*tree_map(widened, copy.deepcopy(list(inputs)))))
        except Exception:  # a kernel that exists for one dtype only
            self.exact = [None] * len(self.eager)

    def _run(self, function: Callable[..., Any]) -> list[Any]:
        torch.manual_seed(0)
        with torch.no_grad():
            return list(tree_leaves(function(*copy.deepcopy(list(self.inputs)))))

    def __call__(self, disabled: Sequence[str]) -> tuple[str, Sequence[str]]:
        torch.compiler.reset()
        options = {**self.options, "eqsat.disable": tuple(disabled)}
        actual = self._run(torch.compile(copy.deepcopy(self.model), backend=self.backend, options=options))
        laws = sorted({law for report in reports.last_reports() if report.changed for law in report.laws})
        for number, (found, exact, eager) in enumerate(zip(actual, self.exact, self.eager, strict=True)):
            exact = exact.detach() if isinstance(exact, Tensor) else None
            if problem := difference(found, exact, eager):
                return f"output {number} {problem}", laws
        return "", laws
