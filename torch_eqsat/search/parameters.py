"""The numbers by which a search decides, apart from the limits that the user sets.

Under each stands its unit, what it does, and the measurement that chose it, or that there was none. They are part of
the keys of plans and of what the benchmarks write.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParameters:
    """What regions, strategies and the planner count with."""

    # Regions

    whole_operators: int = 900
    """Operators. A graph of at most so many is not cut, if an e-graph has room for them. Not measured."""
    largest_region: int = 900
    """Operators. A region of a graph that is cut has at most so many. Not measured."""
    smallest_region: int = 16
    """Operators. A region has at least so many where narrow places allow. Not measured."""
    nodes_per_operator: int = 8
    """E-nodes. The limit of nodes has room for an operator for each so many: an operator is about 2.5 terms as
    captured, and laws need at least twice as much room again."""

    # The environment

    evaluation_seconds: float = 2.0
    """Seconds. A worker may go on for so many beyond its time, and for grace_share of it and grace_seconds at most: an
    e-graph that took the whole time to grow still has to be read, at about 0.1 s per 1,000 e-nodes."""
    reading_seconds: float = 5e-5
    """Seconds for each e-node. So much of the time of a search is left for reading the e-graph that has grown."""
    grace_share: float = 0.05
    """Share of the time of a search. See evaluation_seconds; a step that looks at no clock gets as much again, and a
    user's limit is kept within a tenth and 0.2 s."""
    grace_seconds: float = 0.1
    """Seconds. See grace_share."""
    flips_per_node: int = 100
    """Flips. The local search of an extraction ends after so many for each e-node, where seconds would make plans
    depend on what else runs. The extractions of the searches of repvgg_a0, lstm_loop and densenet121 made 1 to 30."""
    extraction_work: int = 10
    """Applications of laws. An extraction counts as the work of so many: 45 µs an e-node against 4.3 µs."""
    loaded_egraphs: int = 4
    """E-graphs. Those of so many programs that a search may come back to are kept loaded, at about 1 KiB an e-node.
    Not measured otherwise."""
    leisure_seconds: float = 5.0
    """Seconds. An extraction at the end of a search or at new prices, besides its exact part, ends after so many. Not
    measured."""
    annealing_rounds: int = 2
    """Rounds. The last extraction, once kernels are measured, anneals until so many bring nothing. Not measured."""
    unknown_law: float = 0.1
    """Share of programs. A law about which nothing is known counts like one that was in so many of those that could use
    it. Not measured."""

    # Monte Carlo tree search

    exploration: float = 1.5
    """Best gains found so far. A fully trusted move that was never tried is worth so many beyond its parent. Not
    measured."""
    first_moves: int = 2
    """Moves. A state visited n times has first_moves + moves_per_visit * sqrt(n) open, by prior. Not measured."""
    moves_per_visit: float = 2.0
    """Moves per root of visits. See first_moves. Not measured."""
    playout_steps: int = 2
    """Batches of laws. A playout makes at most so many at random before it applies everything. Not measured."""
    patience: int = 24
    """Playouts. The search ends after so many without an improvement. Not measured."""
    pulses: int = 8
    """Rebases. So many are made in a row, as long as each of them gains. Not measured."""
    least_gain: float = 1e-4
    """Share of the base cost. Smaller gains are no reason to go on. Not measured."""
    stop_weight: float = 0.1
    """Share of the heaviest batch's weight. Stopping has this weight as a move. Not measured."""
    rebase_weight: float = 0.5
    """Share of the heaviest batch's weight. Rebasing has this weight as a move. Not measured."""
    luck: float = 4.0
    """Factor. A move that was on the way to a better program each time it was made counts so much more. Not
    measured."""
    room: int = 2
    """Factor. Expansive laws, which fill any e-graph, get so many times the e-nodes that the others took, and
    least_room besides: with all of 20,000 an encoder layer took 11 s, most of it for copies of what it had."""
    least_room: int = 1_500
    """E-nodes. Expansive laws get so many beyond room times what the others took. Measured with room."""

    # Patience of the tree search

    least_work: int = 60_000
    """E-nodes of work, about 0.3 s. Once the other laws have saturated, expansive laws may do as much work as those
    did, and this much at least, without a worthwhile gain: without such limits twelve encoder layers took 20 s, of
    which the last 15 brought 0.1 %, and a cell whose prices were estimates took 18 s."""
    most_grants: int = 4
    """Factor. Expansive laws may do so many times what least_work grants, whatever they gain. Measured with
    least_work."""
    worthwhile_gain: float = 5e-3
    """Share of the base cost. A larger gain grants expansive laws the work of least_work anew. Measured with
    least_work."""

    # Hints

    hint_share: float = 0.9
    """Share of the gain of a hint. A graph is not searched if the laws of the hint gain so much: sizes
    change what a rewrite saves by some per cent. Of mobileone_s0, seven of eight followers ended with the program that
    a search of their own found, and one, whose leader had not found the best, was searched."""

    # Parts of the tree search

    room_of_parts: int = 4
    """Factor. Parts are as small as if the limit of nodes were so many times lower, and have all of it: NasRNN saved
    31.9 % whole under a limit of 2,000 and 32.9 % in parts."""
    largest_limit_of_parts: int = 2_000
    """E-nodes. Parts are no larger under a higher limit than under this one: NasRNN saved 32.9 % in parts of this one
    and 31.9 % in those of a limit of 10,000."""

    # Baselines

    multi_rounds: int = 1
    """Rounds. Saturation applies laws for siblings (multi-patterns) in so many. TENSAT's default, k_multi = 1."""
    substitution_alpha: float = 1.05
    """Factor. Substitution goes on from programs that cost less than so many times the best one. Not measured."""
    paper_simulations: int = 128
    """Simulations. The paper's search makes so many for each action that it commits to. From its published code."""
    paper_rollout_steps: int = 11
    """Laws. A rollout of the paper's search applies at most so many. From its published code."""
    paper_committed_actions: int = 200
    """Actions. The paper's search commits to at most so many. From its published code."""
    paper_exploration: float = 2.0
    """Milliseconds. The exploration term of the paper's UCT is multiplied by this. From its published code."""
    paper_discount: float = 0.99
    """Factor. A reward of the paper's search is multiplied by it for each step before. From its published code."""
    paper_least_cost: float = 0.1
    """Milliseconds. The paper's search ends at a program below this cost. From its published code."""
    paper_expansion: float = 0.5
    """Probability. The paper's search tries a new law at a state that has children. From its published code."""

    # The planner

    search_share: float = 0.7
    """Share of the time. So much goes to the searches, the rest to extracting again and exactly. Not measured."""
    work_per_second: float = 1 / 4.3e-6
    """E-nodes of work. A second of search is so many where time must not count: applying laws takes 4.3 µs an
    e-node."""
    reprice_rounds: int = 5
    """Rounds. So many of measuring what the best programs need and extracting again are made: estimates are optimistic,
    so each measures what looks best of what is left. An extraction of densenet121 takes 2 s."""
    needed_share: float = 0.9
    """Share of the time left for measuring. A round spends so much on what programs need: of the 200 kernels of vgg11's
    e-graph, which took 25 s, its best program needs 19. Some is always left for kernels that whole programs run with
    weights from elsewhere than the e-graph's."""
    others_share: float = 0.5
    """Share of the time left for measuring. A round spends so much on what none needs as yet. Measured with
    needed_share."""
    distrust_ms: float = 1e6
    """Milliseconds. A kernel without a time costs so much besides its estimate at the end, so that any program without
    it is better. Not measured."""
    exact_seconds: float = 2.0
    """Seconds. The exact extraction at the end may take so long for a region: growing e-graphs is worth more than the
    last per cent. mobileone_s0, of 14 distinct regions, took 13.8 ms with exact extractions for all and 7.6 ms
    without."""
    exact_needs: float = 4.0
    """Seconds. A region is extracted exactly if so many are left of the time. Measured with exact_seconds."""
    exact_nodes: int = 1_500
    """E-nodes. E-graphs of at most so many are extracted exactly: of 95 in 71 models of the suite and of drawn ones,
    four gained by it, 0.4 to 26 %, in at most 1.5 s. Of 33 larger ones, up to 9,100 e-nodes, none did, in 2 s each."""
    annealed_nodes: int = 3_000
    """E-nodes. Extractions of e-graphs of at most so many anneal at the end: of 11 of them with more than exact_nodes,
    two gained 0.4 and 1.6 %. Of 22 larger ones, which took up to 2.5 s, one gained 0.05 %."""
    kernel_doubt: float = 0.02
    """Share of the work of heavy kernels. So much of what a program takes away and puts in its place has to be saved,
    for prices are not exact. Not measured; at 0.04 small savings in large products were lost."""
    fused_doubt: float = 0.1
    """Share of all other work. As for kernels, whose prices are better: the median error of fused work was 24 %."""

    def grace(self, seconds: float) -> float:
        """The seconds that a search of so many may take beyond its time."""
        return min(self.evaluation_seconds, self.grace_seconds + self.grace_share * seconds)
