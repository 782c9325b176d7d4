"""Two prompts in one geometry: which tokens are partners, and where the prompts part."""
