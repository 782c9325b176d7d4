"""The residual stream as a sum of contributions, and analyses based on this sum."""
