"""The browser renderer of points, for maps and for particles that move from layer to layer."""
