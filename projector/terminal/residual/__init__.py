"""Commands about the residual stream."""
