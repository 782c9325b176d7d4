"""How the residual stream grows over the layers."""
