"""Attention called alone, with numbers of ours: what depends on what, what shapes its logits."""
