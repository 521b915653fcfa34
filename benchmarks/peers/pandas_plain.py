"""What a pandas user would write."""

import sys

import pandas as pd

source, target, *columns = sys.argv[1:]
table = pd.read_csv(source)
for name in columns:
    table[name + "_ema"] = table[name].ewm(alpha=0.1, adjust=False, ignore_na=True).mean()
table.to_csv(target, index=False)
