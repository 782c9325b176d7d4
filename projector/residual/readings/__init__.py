"""What a lens says at each reading of the stream, and how it is measured."""
