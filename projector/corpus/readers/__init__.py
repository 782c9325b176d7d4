"""One module for every kind of source of text."""
