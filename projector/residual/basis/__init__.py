"""What the linear maps of a model do to the space: planes before and after, with their controls."""
