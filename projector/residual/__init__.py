"""The residual stream as a sum: what each part adds to it, and what rests on that sum."""
