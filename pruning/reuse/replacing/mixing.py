"""Reuse where it pays: choose which neurons of a layer to remove, and which to reuse.

Removing neuron j loses P_j and saves the c multiply-adds of its vectors. Reuse loses (1 − ρ²) P_j
and saves c minus the cost of its column, which is zero if another neuron already takes the same
partner's value. Moves are made one by one, each with the lowest loss per saved multiply-add: a
neuron is removed, or reused, or a reused neuron is removed after all, with its column. This is the
greedy rule for knapsack problems with several choices for each item (Sinha and Zoltners 1979),
except that neurons share columns here.
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
    """Make moves until enough is saved.

    Args:
        power: P, the loss of removing each neuron.
        loss: the loss of reusing each neuron.
        partners: the partner whose value each neuron would take; None if it has none.
        need: multiply-adds to save.
        neuron: c; ``column``: the cost of a column.

    Returns:
        Neurons that are not computed, in ascending order; whether each is reused; and the saving.
    """
    state = [_KEPT] * len(power)
    users: dict[Hashable, int] = {}
    takers: dict[Hashable, list[int]] = {}
    for j, partner in enumerate(partners):
        if partner is not None:
            takers.setdefault(partner, []).append(j)

    def move(j: int) -> tuple[float, int, int]:
        """A neuron's best move: its loss per multiply-add, the state after it, and its saving."""
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
            # Its price has changed since.
            heappush(queue, (now, power[j], j))
            continue
        partner = partners[j]
        if state[j] == _REUSED:
            users[partner] -= 1
        state[j] = after
        saved += gained
        if after == _REUSED:
            users[partner] = users.get(partner, 0) + 1
            # It may be removed after all.
            heappush(queue, (move(j)[0], power[j], j))
            if users[partner] == 1:
                # Neurons that take the same value have become cheaper.
                for each in takers[partner]:
                    if state[each] == _KEPT:
                        heappush(queue, (move(each)[0], power[each], each))
    replaced = [j for j, each in enumerate(state) if each != _KEPT]
    return replaced, [state[j] == _REUSED for j in replaced], saved
