"""Writes the page of laws from their declarations: ``python -m bench.laws.document > docs/laws.md``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.laws.printer import write_terms
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import Law
from torch_eqsat.laws.matcher import rewrites
from torch_eqsat.rewrites import catalogue, families

HEAD = """# The laws

Written by `make docs` from the declarations in `rewrites/`; do not edit.

{laws} laws of {declarations} declarations. A declaration over a trait is expanded to every operator with that trait.
Each law is verified on its examples and on variants of them (`torch_eqsat/verification/laws.py`).

- **Tiers.** *bitwise*: the same bits, for NaN, infinities and signed zeros too. *reassociates*: equal in real
  arithmetic, with rounding errors of the size of the left side's own. *approximates*: equal in real arithmetic where
  both sides are defined; may cancel or overflow where the left side does not.
- **Assumptions.** *assumes finite (x)*: holds if x is neither infinite nor NaN. `torch_eqsat/laws/assumptions.py`
  defines each assumption, states what happens if it does not hold, and which are granted by default.
- **Direction.** *left to right*: the right side is added where the left side is found. *both ways*: each side is added
  where the other is found.
- *normalises*: applied to a fixpoint before all other laws. *expansive*: makes more forms than it joins, and is applied
  only where the search chooses it. *siblings*: all matches that share an operand are replaced together.
- **Terms** are those of `torch_eqsat/ir/operators.py`. `[2, 3]` is a float32 tensor of that shape, `integers(4)` a
  tensor of indices, `booleans(4)` a mask; `u := …` names a term that is used again.
"""


def document(laws: Sequence[Law], introductions: Mapping[str, str]) -> str:
    """The page of ``laws`` in Markdown; ``introductions`` are texts by family."""
    declarations = _grouped(laws, lambda law: f"{law.family} {law.declaration}")
    parts = [HEAD.format(laws=len(laws), declarations=len(declarations))]
    for family, members in _grouped(laws, lambda law: law.family).items():
        parts.append(f"## {family}\n\n{introductions.get(family, '').strip()}\n\nIn `rewrites/{family}.py`.\n")
        parts += [_section(group) for group in _grouped(members, lambda law: law.declaration).values()]
    return "\n".join(parts)


def _grouped(laws: Iterable[Law], key: Callable[[Law], str]) -> dict[str, list[Law]]:
    groups: dict[str, list[Law]] = {}
    for law in laws:
        groups.setdefault(key(law), []).append(law)
    return groups


def _section(laws: Sequence[Law]) -> str:
    """One declaration."""
    first = laws[0]
    lines = [f"### {first.declaration}\n", f"{first.statement}\n", f"*{', '.join(_properties(laws))}*"]
    if operators := _operators(laws):
        lines[-1] += f"; {len(laws)} laws, {operators}"
    assumed = dict.fromkeys(str(a) for law in laws for a in law.assumptions)
    if assumed:
        lines[-1] += f"; assumes {', '.join(assumed)}"
    lines += ["", *_example(first), ""]
    if first.refused:
        misses = "\n".join(f"- `{text}`" for text in first.refused)
        lines += [f"Does not apply to\n\n{misses}\n"]
    return "\n".join(lines)


def _properties(laws: Sequence[Law]) -> list[str]:
    first = laws[0]
    words = [first.exactness, "both ways" if any(_is_back(law) for law in laws) else "left to right"]
    if first.siblings:
        words.append("siblings")
    if any(law.normalises for law in laws):
        words.append("normalises")
    if any(law.expansive for law in laws):
        ways = {_is_back(law) for law in laws if law.expansive}
        one_of_two = len({_is_back(law) for law in laws}) == 2 and len(ways) == 1
        words.append(f"expansive{' to the ' + ('left' if True in ways else 'right') if one_of_two else ''}")
    return words


def _labels(law: Law) -> list[str]:
    """The operators that replace the metavariables of a law, and "back" for the way back."""
    return law.name.removeprefix(law.declaration).strip("[]").split(",")


def _is_back(law: Law) -> bool:
    return _labels(law)[-1] == "back"


def _operators(laws: Sequence[Law]) -> str:
    """The operators that replace each metavariable of a declaration."""
    labels = [tuple(label for label in _labels(law) if label not in ("", "back")) for law in laws]
    if not labels[0]:
        return ""
    columns = [", ".join(f"`{name}`" for name in dict.fromkeys(column)) for column in zip(*labels, strict=True)]
    return "over " + " with ".join(columns)


def _example(law: Law) -> list[str]:
    """The first example of a law before and after."""
    graph = TermGraph()
    root = build_example(law.examples[0], Builder(GraphStore(graph))).id
    pairs = rewrites(law, graph)
    if not law.siblings:
        pairs = [next((pair for pair in pairs if pair[0] == root), pairs[0])]
    written = write_terms(graph, [term for pair in pairs for term in pair])
    lines = [f"{name} = {text}" for name, text in written.inputs]
    for before, after in zip(written.terms[::2], written.terms[1::2], strict=True):
        lines += [before, f"  = {after}"]
    return ["```", *lines, "```"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the page of the catalogue."""
    argparse.ArgumentParser(prog="python -m bench.laws.document", description=__doc__).parse_args(arguments)
    print(catalogue_page(), end="")


def catalogue_page() -> str:
    """The page of the catalogue, each family introduced by the docstring of its module."""
    return document(catalogue(), {family: module.__doc__ or "" for family, module in families().items()})


if __name__ == "__main__":
    main()
