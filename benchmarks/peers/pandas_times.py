"""pandas, irregular times (its `times=` knows only bias-corrected weights, so its numbers are other ones)."""

import sys

import pandas as pd

source, target, time, *columns = sys.argv[1:]
table = pd.read_csv(source, parse_dates=[time])
for name in columns:
    table[name + "_ema"] = table[name].ewm(halflife="1h", times=table[time]).mean()
table.to_csv(target, index=False)
