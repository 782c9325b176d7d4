"""The language model in the package, and the program that trained it."""
