"""What anybody would write for JSON lines without a library: read a line, smooth, write it."""

import json
import sys
from pathlib import Path

source, target, *columns = sys.argv[1:]
averages: dict[str, float] = {}
with Path(source).open() as lines, Path(target).open("w") as out:
    for line in lines:
        record = json.loads(line)
        for name in columns:
            x = record.get(name)
            if x is not None:
                averages[name] = averages[name] + 0.1 * (x - averages[name]) if name in averages else x
            record[f"{name}_ema"] = None if x is None else averages[name]
        out.write(json.dumps(record) + "\n")
