"""Predictions of lenses at each reading of the stream, and their measures."""
