"""Pictures and films of all layers, drawn with Pillow."""
