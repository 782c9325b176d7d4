"""Defaults and bounds of settings. Imports nothing heavy: command lines read them."""

from __future__ import annotations

DEFAULT_SEQUENCES = 256
# The last of every five sequences is held out, to check estimates on unseen text.
HELD_OUT_EVERY = 5
LEAST_SEQUENCES = HELD_OUT_EVERY
# Every random number generator takes a seed below this, after a layer's number is added.
MOST_SEEDS = 2**31
# Training steps in each layer.
DEFAULT_STEPS = 200
ALLOCATIONS = ("uniform", "global")
