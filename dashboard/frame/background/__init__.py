"""A page's view of work in a separate process."""
