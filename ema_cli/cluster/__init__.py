"""One series in parts, each worked on by itself: Dask and fsspec are an extra, imported where asked for."""
