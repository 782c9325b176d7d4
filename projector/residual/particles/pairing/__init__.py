"""Two prompts in one picture: which tokens are partners, and where the prompts diverge."""
