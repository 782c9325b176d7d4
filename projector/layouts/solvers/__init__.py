"""Algorithms that find positions, each for the objectives that ask for it."""
