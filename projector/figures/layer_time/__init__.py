"""Hidden states as particles that move from layer to layer, as a page that plays offline."""
