"""One series in parts, on Dask and with fsspec, which are an extra and imported only here."""
