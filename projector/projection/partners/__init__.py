"""Files about neurons that correlate across layers."""
