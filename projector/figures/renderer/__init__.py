"""The renderer: points that a browser draws, for maps and for what moves from layer to layer."""
