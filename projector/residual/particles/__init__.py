"""Prompts as particles that move from layer to layer, and how faithful their picture is."""
