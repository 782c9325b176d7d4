"""Particles in the plane as a density: its numbers, and its shades."""
