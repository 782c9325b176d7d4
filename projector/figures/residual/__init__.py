"""Figures of the residual stream."""
