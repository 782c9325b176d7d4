"""How two sets of prompts part over the layers of the residual stream."""
