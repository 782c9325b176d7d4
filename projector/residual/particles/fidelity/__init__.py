"""How far a picture of particles can be trusted, beside pictures where there is nothing to find."""
