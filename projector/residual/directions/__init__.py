"""The direction between two sets of prompts: saved, tested causally, and generated with."""
