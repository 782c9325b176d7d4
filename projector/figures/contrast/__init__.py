"""Figures of two sets of prompts over a model's layers, drawn from a report."""
