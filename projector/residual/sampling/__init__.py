"""Draws of samples that belong together in groups: labels permuted, folds dealt, resampling."""
