"""Maps, poles, prompts and pruning of a transformer's neurons, in a browser."""
