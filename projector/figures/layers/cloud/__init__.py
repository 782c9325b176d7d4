"""Particles in the plane as a density: computation and shading."""
