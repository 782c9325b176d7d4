"""How two sets of prompts separate over the layers of the residual stream."""
