"""Algorithms that find positions."""
