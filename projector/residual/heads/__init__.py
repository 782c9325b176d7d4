"""Kinds of attention heads, attention patterns, and their chance levels."""
