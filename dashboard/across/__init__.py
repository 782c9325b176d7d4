"""Lists, counts and figures of neurons that correlate across layers."""
