"""Neurons of one layer in place of another's: what that saves, and what it costs."""
