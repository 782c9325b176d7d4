"""Maps, poles, prompts and pruning of a transformer's neurons, in a browser."""

from projector.environment import prepare_environment

# Before any of it loads PyTorch.
prepare_environment()
