"""`smooth` and `Smoother`: arrays, Series and DataFrames to the engine and back."""
