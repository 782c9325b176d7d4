"""Zero-layer paths: what a model predicts from one token alone, scored against real bigrams."""
