"""Commands that draw all layers."""
