"""What each part of a model writes to the stream, as particles."""
