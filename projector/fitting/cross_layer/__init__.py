"""The partners that a fit finds across layers: their plan, and the work itself."""
