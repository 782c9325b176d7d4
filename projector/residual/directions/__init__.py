"""The direction between two sets of prompts: saving, causal tests, and steering."""
