"""A logit as a sum: directions that read the stream, and the rows of an attribution."""
