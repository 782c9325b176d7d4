"""Commands that show saved projections."""
