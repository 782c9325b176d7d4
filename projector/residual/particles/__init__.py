"""Prompts as particles that move from layer to layer, and how far their picture can be trusted."""
