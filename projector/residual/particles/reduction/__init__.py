"""Reductions of many dimensions to two or three, with one record each."""
