"""Correlations of neurons in different layers, computed one pair of layers at a time."""
