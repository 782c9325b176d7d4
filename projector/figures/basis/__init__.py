"""A change of basis as an offline page: the canvas script and the pages with it."""
