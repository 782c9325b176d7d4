"""Attention called alone on chosen inputs, to find its dependencies and the terms of its logits."""
