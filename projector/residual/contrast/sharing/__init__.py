"""Whether successive layers write in the same directions of the stream."""
