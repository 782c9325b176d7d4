"""Computed labels for neurons and groups of neurons, names given by the user, and search."""
