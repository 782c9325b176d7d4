"""How the linear maps of a model transform space: planes before and after, with controls."""
