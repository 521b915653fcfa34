"""`smooth` and `Smoother`: from arrays, Series and DataFrames to the engine and back."""
