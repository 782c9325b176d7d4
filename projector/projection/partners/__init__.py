"""What a projection keeps of neurons that correlate across layers."""
