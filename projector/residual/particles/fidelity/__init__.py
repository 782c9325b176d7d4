"""How faithful a picture of particles is, compared with controls where there is nothing to find."""
