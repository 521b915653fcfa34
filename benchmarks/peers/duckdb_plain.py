"""What a DuckDB user would write: a recursive average has no window function, so a recursive query."""

import sys

import duckdb

source, target, *columns = sys.argv[1:]
first = ", ".join(columns)
step = ", ".join(f"0.9 * trend.{name}_ema + 0.1 * row.{name}" for name in columns)
names = ", ".join(f"{name}_ema" for name in columns)
duckdb.sql(f"""
    copy (
        with recursive
            numbered as (select row_number() over () as i, * from read_csv('{source}')),
            trend(i, {names}) as (
                select i, {first} from numbered where i = 1
                union all
                select row.i, {step} from trend join numbered as row on row.i = trend.i + 1
            )
        select numbered.* exclude (i), {names} from numbered join trend using (i) order by i
    ) to '{target}'
""")
