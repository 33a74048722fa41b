"""A task cut into regions, of which equal ones are searched once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch_eqsat.cost.model import CostModel
from torch_eqsat.cost.programs import captured_program
from torch_eqsat.ir.program import Program, Task
from torch_eqsat.search.parameters import SearchParameters
from torch_eqsat.search.regions import Region, grouped, join_programs, split_into_regions, whole_region


@dataclass(frozen=True)
class Partition:
    """The regions of a task, in order. Equal regions are a group, known by the digest of their graphs; ``groups`` is
    in the order in which they first occur."""

    task: Task
    regions: Sequence[Region]
    groups: Mapping[str, Sequence[Region]]

    @classmethod
    def of(
        cls, task: Task, nodes: int = 20_000, parameters: SearchParameters = SearchParameters(), *, cut: bool = True
    ) -> Partition:
        """The partition of ``task`` for e-graphs of ``nodes`` e-nodes; without ``cut`` it is one region."""
        regions = split_into_regions(task, nodes, parameters) if cut else [whole_region(task)]
        return cls(task, regions, grouped(regions))

    def task_of(self, group: str) -> Task:
        """The task of each region of ``group``."""
        return self.groups[group][0].task

    def by_size(self) -> list[str]:
        """The groups, those of few terms first."""
        return sorted(self.groups, key=lambda group: len(self.task_of(group).graph))

    def captured(self, pricing: CostModel) -> dict[str, Program]:
        """The program of each group as it was captured."""
        return {group: captured_program(self.task_of(group), pricing) for group in self.groups}

    def weights(self, programs: Mapping[str, Program]) -> dict[str, float]:
        """What the program of each group costs in all places of the group (ms)."""
        return {group: len(regions) * programs[group].cost for group, regions in self.groups.items()}

    def join(self, programs: Mapping[str, Program]) -> Program:
        """The program of the whole task in which each region has the program of its group."""
        return join_programs(self.task, self.regions, [programs[r.task.graph.digest()] for r in self.regions])
