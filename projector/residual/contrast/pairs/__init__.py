"""Pairs of prompt sets that the project makes itself."""
