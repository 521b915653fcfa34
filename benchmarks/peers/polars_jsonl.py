"""What a polars user would write for JSON lines: scan, smooth, sink."""

import sys

import polars as pl

source, target, *columns = sys.argv[1:]
trends = [
    pl.col(name).ewm_mean(alpha=0.1, adjust=False, ignore_nulls=True).name.suffix("_ema") for name in columns
]
pl.scan_ndjson(source).with_columns(trends).sink_ndjson(target)
