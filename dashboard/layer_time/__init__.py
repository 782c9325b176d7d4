"""Hidden states as particles over the layers: orders and pictures of the page."""
