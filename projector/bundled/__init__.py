"""The language model that ships with the package, and the program that trained it."""
