"""A run of `ema-smooth`: which columns, the road from source to sink, the state, many files."""
