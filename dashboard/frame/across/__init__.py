"""Partners across layers, as several pages show them."""
