"""Benchmarks behind the documentation's figures; each prints a table."""

from projector.environment import prepare_environment

# As the commands do, before anything loads PyTorch.
prepare_environment()
