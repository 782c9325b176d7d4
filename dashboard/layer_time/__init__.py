"""Hidden states as particles over the layers: what a page asks for, and what it shows of them."""
