"""Parts that the pages of the residual stream share: prompt, lens, parts of logits, heads."""
