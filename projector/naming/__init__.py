"""What neurons and groups of neurons fire on: computed labels, names that a user gave, search."""
