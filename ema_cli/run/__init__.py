"""A run of `ema-smooth`: which columns, from source to sink, the state, many files."""
