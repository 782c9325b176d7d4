"""What the pages of the residual stream share: a prompt's tokens, its lens, parts of logits, heads."""
