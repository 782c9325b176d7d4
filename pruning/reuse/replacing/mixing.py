"""Reuse where it pays: which neurons of a layer are removed, and which take a partner's value.

Removing neuron j loses P_j and saves the c multiply-adds of its vectors. Reuse loses (1 − ρ²) P_j
and saves c, less what its column costs: nothing where another neuron takes the same partner's value
already. Moves are made one by one, always the one that loses least for a multiply-add that it
saves: a neuron is removed, or reused, or one that was reused is removed after all, with its column.
This is the greedy rule for knapsack problems with several choices for each item (Sinha and Zoltners
1979), but that here neurons share columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from heapq import heapify, heappop, heappush

_KEPT, _REUSED, _REMOVED = range(3)


def mix(
    power: Sequence[float],
    loss: Sequence[float],
    partners: Sequence[Hashable | None],
    need: float,
    neuron: int,
    column: int,
) -> tuple[list[int], list[bool], int]:
    """Make moves until so much is saved.

    Args:
        power: P, what each neuron's removal loses.
        loss: what its reuse loses.
        partners: whose value it would take; None where it can take none.
        need: multiply-adds to save.
        neuron: c; ``column``: what a column costs.

    Returns:
        Neurons that are not computed, in ascending order; of each whether it is reused; and what
        is saved.
    """
    state = [_KEPT] * len(power)
    users: dict[Hashable, int] = {}
    takers: dict[Hashable, list[int]] = {}
    for j, partner in enumerate(partners):
        if partner is not None:
            takers.setdefault(partner, []).append(j)

    def move(j: int) -> tuple[float, int, int]:
        """The best one of a neuron: its loss a multiply-add, the state after, what it saves."""
        partner = partners[j]
        if state[j] == _REUSED:
            if users[partner] > 1:
                return float("inf"), _REMOVED, 0
            return (power[j] - loss[j]) / column, _REMOVED, column
        removal = power[j] / neuron, _REMOVED, neuron
        if partner is None:
            return removal
        saved = neuron - (0 if users.get(partner) else column)
        return min(removal, (loss[j] / saved, _REUSED, saved), key=lambda each: each[0])

    queue = [(move(j)[0], power[j], j) for j in range(len(power))]
    heapify(queue)
    saved = 0
    while saved < need and queue:
        price, _, j = heappop(queue)
        if state[j] == _REMOVED:
            continue
        now, after, gained = move(j)
        if gained == 0:
            continue
        if now > price:
            # What it was priced by has changed since.
            heappush(queue, (now, power[j], j))
            continue
        partner = partners[j]
        if state[j] == _REUSED:
            users[partner] -= 1
        state[j] = after
        saved += gained
        if after == _REUSED:
            users[partner] = users.get(partner, 0) + 1
            # It may go after all.
            heappush(queue, (move(j)[0], power[j], j))
            if users[partner] == 1:
                # Those that take the same value have become cheaper.
                for each in takers[partner]:
                    if state[each] == _KEPT:
                        heappush(queue, (move(each)[0], power[each], each))
    replaced = [j for j, each in enumerate(state) if each != _KEPT]
    return replaced, [state[j] == _REUSED for j in replaced], saved
