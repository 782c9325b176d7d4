"""All layers of one token as an image, of one model, of two, or of a sequence of checkpoints."""
