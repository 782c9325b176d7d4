"""The pages of the residual stream: lens, heads, sets of prompts, layer-time, changes of basis."""
