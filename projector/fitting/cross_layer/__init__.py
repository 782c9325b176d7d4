"""Find partners across layers as part of a fit."""
