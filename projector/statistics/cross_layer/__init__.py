"""Neurons of different layers that fire together: their correlations, found pair by pair."""
