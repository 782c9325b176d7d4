"""Images of all layers of one token, for one model, two models, or a sequence of checkpoints."""
