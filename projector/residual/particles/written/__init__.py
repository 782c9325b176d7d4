"""Contributions of the parts of a model to the stream, as particles."""
