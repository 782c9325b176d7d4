"""How well two sets of samples are distinguished at one place of the stream, and by what."""
