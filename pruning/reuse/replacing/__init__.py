"""Choose neurons, refit their layers, and build the model that computes fewer neurons."""
