"""pandas, a series for each key."""

import sys

import pandas as pd

source, target, key, *columns = sys.argv[1:]
table = pd.read_csv(source)
for name in columns:
    smoothed = table.groupby(key)[name].ewm(alpha=0.1, adjust=False, ignore_na=True).mean()
    table[name + "_ema"] = smoothed.droplevel(0)
table.to_csv(target, index=False)
