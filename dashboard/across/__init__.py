"""Neurons that correlate across layers: what pages list, count and draw of them."""
