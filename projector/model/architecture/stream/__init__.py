"""How a model writes to and reads from its residual stream, found from what its modules do."""
