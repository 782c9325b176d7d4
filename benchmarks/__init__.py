"""What the README's figures of speed are made with; each prints a table."""

from projector.environment import prepare_environment

# As the commands do, before anything loads PyTorch.
prepare_environment()
