"""A fixed number of particles: an autoencoder of hidden states, trained on a corpus."""
