"""Partners across layers, for several pages."""
