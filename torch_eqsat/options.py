"""The options of ``torch.compile(model, backend="eqsat_mcts", options={...})``.

Keys that begin with ``eqsat.`` are ours; all others are Inductor's and go to it, checked as ``torch.compile`` checks
them for its own backend.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_origin

from torch_eqsat.cost.targets import HERE, TARGETS
from torch_eqsat.errors import OptionError
from torch_eqsat.laws.assumptions import GRANTED, PROPERTIES
from torch_eqsat.laws.law import Law

PREFIX = "eqsat."


@dataclass(frozen=True)
class Options:
    """The options that the user set, with defaults for the others.

    >>> Options.parse({"eqsat.seconds": 5, "freezing": True})  # doctest: +ELLIPSIS
    (Options(seconds=5.0, ...), {'freezing': True})
    """

    seconds: float = field(default=16.0, metadata={"help": "search time for one graph, in seconds", "least": 0})
    nodes: int = field(default=20_000, metadata={"help": "size limit of an e-graph, in e-nodes", "least": 1})
    memory_bytes: int = field(
        default=2 << 30, metadata={"help": "address-space limit of the search worker, in bytes", "least": 256 << 20}
    )
    simulations: int = field(default=64, metadata={"help": "playouts of the tree search for one graph", "least": 1})
    measure_seconds: float = field(
        default=10.0, metadata={"help": "time for measuring kernels of one graph, in seconds", "least": 0}
    )
    min_saving: float = field(
        default=0.03, metadata={"help": "smallest predicted saving that rewrites a graph (0.03: 3 %)", "least": 0}
    )
    exactness: str = field(
        default="reassociates",
        metadata={
            "help": "loosest rounding allowed: `bitwise`, `reassociates` (sums reordered, Winograd) or `approximates`",
            "choices": ("bitwise", "reassociates", "approximates"),
        },
    )
    laws: tuple[Law | str, ...] = field(
        default=(),
        repr=False,  # cache keys contain a hash of the laws instead
        metadata={"help": "additional laws: law objects, or names of modules that declare them"},
    )
    disable: tuple[str, ...] = field(
        default=(), metadata={"help": "laws to leave out, by the name of a law, a declaration or a family"}
    )
    assume: tuple[str, ...] = field(
        default=tuple(sorted(GRANTED)),
        metadata={
            "help": f"properties that laws may assume without proof, out of {', '.join(PROPERTIES)}",
            "choices": PROPERTIES,
        },
    )
    strategy: str = field(
        default="mcts",
        metadata={
            "help": "search strategy: `mcts`, `paper` (the paper's MCTS), `saturation` (equality saturation, TENSAT), "
            "`substitution` (best-first, TASO) or `none`",
            "choices": ("mcts", "paper", "saturation", "substitution", "none"),
        },
    )
    executor: Any = field(
        default=None,
        repr=False,  # where a search runs does not change what it finds
        metadata={"help": "a concurrent.futures executor that runs the searches of regions elsewhere", "has": "submit"},
    )
    seed: int = field(default=0, metadata={"help": "random seed of the search"})
    measure: bool = field(
        default=False,
        metadata={"help": "compile the original and the rewritten graph, time both, and keep the faster one"},
    )
    deterministic: bool = field(
        default=False,
        metadata={"help": "time no kernels and limit work instead of seconds: the same plan in every process"},
    )
    target: str = field(
        default=HERE,
        metadata={
            "help": f"`{HERE}`, or a device to plan for at estimated prices; its plan is reported, not applied",
            "choices": (HERE, *TARGETS),
        },
    )
    judge: bool = field(default=True, metadata={"help": "compare each rewritten graph with the original before use"})
    guard: str = field(
        default="never",
        metadata={
            "help": "compare the first calls of each compiled graph with eager, and replace a graph that differs",
            "choices": ("never", "first_calls"),
        },
    )
    guard_calls: int = field(default=1, metadata={"help": "number of calls that `eqsat.guard` compares", "least": 1})
    watch: str = field(
        default="sample",
        metadata={
            "help": "what of frozen weights is compared before each call: `sample` sees writes, other memory, and one "
            "element of each; `values` reads all weights",
            "choices": ("sample", "values"),
        },
    )
    cache: bool = field(default=True, metadata={"help": "keep plans on disk and reuse them"})
    strict: bool = field(default=False, metadata={"help": "raise on a fault instead of leaving the graph unchanged"})

    @classmethod
    def parse(cls, options: Mapping[str, Any] | None) -> tuple[Options, dict[str, Any]]:
        """Our options and Inductor's. Raises OptionError for a key or value that is not allowed."""
        own: dict[str, Any] = {}
        others: dict[str, Any] = {}
        known = {f.name: f for f in fields(cls)}
        for key, value in (options or {}).items():
            if not key.startswith(PREFIX):
                others[_name_in_inductor(key, value)] = value
                continue
            name = key.removeprefix(PREFIX)
            if name not in known:
                allowed = [PREFIX + name for name in known]
                raise OptionError(f"{_unknown(key, allowed)} Allowed: {', '.join(allowed)}")
            own[name] = _checked(key, value, known[name])
        parsed = cls(**own)
        if parsed.measure and parsed.deterministic:
            raise OptionError(f"options '{PREFIX}measure' and '{PREFIX}deterministic' exclude each other: choose one")
        return parsed, others


def _name_in_inductor(key: str, value: Any) -> str:
    """The name of Inductor's option ``key``, in which torch.compile takes dashes for underscores."""
    from torch._inductor import config

    name = key.replace("-", "_")
    try:
        type_ = config.get_type(name)
    except (AttributeError, KeyError):
        known = [*(PREFIX + f.name for f in fields(Options)), *config.get_config_copy()]
        others = f"Options without {PREFIX!r} are those of torch._inductor.config"
        raise OptionError(f"{_unknown(key, known)} {others}") from None
    if get_origin(type_) is None and isinstance(type_, type) and not isinstance(value, type_):
        raise OptionError(f"option {key!r} of Inductor is {value!r}; it takes a {type_.__name__}")
    return name


def _unknown(key: str, allowed: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(key, allowed, 1, cutoff=0.0)
    return f"unknown option {key!r}; did you mean {nearest[0]!r}?"


def _checked(key: str, value: Any, spec: Any) -> Any:
    """``value`` converted to the option's type: ints become floats, lists become tuples."""
    default, metadata = spec.default, spec.metadata
    if "has" in metadata:
        if value is not None and not callable(getattr(value, metadata["has"], None)):
            raise OptionError(f"option {key!r} is {value!r}; it takes {metadata['help']}")
        return value
    if isinstance(default, float) and type(value) in (int, float):
        value = float(value)
    elif key == f"{PREFIX}laws" and isinstance(value, (list, tuple)):
        value = _laws(key, value)
    elif isinstance(default, tuple) and isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        value = tuple(value)
    elif type(value) is not type(default):
        raise OptionError(f"option {key!r} is {value!r}; it takes a {type(default).__name__}: {metadata['help']}")
    for choice in value if isinstance(value, tuple) else (value,):
        if choice not in metadata.get("choices", (choice,)):
            raise OptionError(f"option {key!r} is {choice!r}; it is one of {', '.join(metadata['choices'])}")
    if "least" in metadata and not value >= metadata["least"]:  # NaN is not either
        raise OptionError(f"option {key!r} is {value!r}; it is at least {metadata['least']}")
    return value


def _laws(key: str, entries: Sequence[Any]) -> tuple[Law | str, ...]:
    """Laws and names of modules, flat: the decorators return lists of laws, which ``entries`` may contain."""
    flat = [law for entry in entries for law in (entry if isinstance(entry, (list, tuple)) else [entry])]
    for entry in flat:
        if not isinstance(entry, (Law, str)):
            raise OptionError(
                f"option {key!r} holds {entry!r}; it takes laws, as the decorators return them, and names of modules: "
                "'package.module' or 'package.module:name'"
            )
    return tuple(flat)
