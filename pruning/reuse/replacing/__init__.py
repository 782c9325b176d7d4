"""Neurons are chosen, their layers refitted, and the model that computes fewer of them is built."""
