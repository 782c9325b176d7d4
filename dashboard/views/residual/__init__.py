"""The pages of the residual stream: what layers read and write, heads, sets of prompts, bases."""
