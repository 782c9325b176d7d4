"""Poles of correlated neurons, pruning, and what it costs."""
