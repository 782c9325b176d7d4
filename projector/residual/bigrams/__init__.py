"""Zero-layer paths: predictions from a single token, scored against real bigrams."""
