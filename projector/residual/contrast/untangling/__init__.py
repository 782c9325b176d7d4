"""How well two sets of samples can be distinguished at a point of the stream."""
