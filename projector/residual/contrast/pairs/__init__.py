"""Built-in pairs of prompt sets."""
