"""How far two sets of samples can be told from each other at one place of the stream, and how."""
