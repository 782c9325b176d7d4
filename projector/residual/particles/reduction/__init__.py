"""Maps of many dimensions to two or three: one record each."""
