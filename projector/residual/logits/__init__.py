"""Logits as sums: directions in the stream, and the records of an attribution."""
