"""The numbers: rows in, moments out, everything remembered in a `State`; NumPy and nothing else.

Read in this order: `kernel` (the arithmetic), `moments` (two runs of rows joined), `lanes` (blocks side by
side), `weights` (how blocks weigh), `fold` (rows into memory), `models` and `ties` (how rows decay), `rows`
(a tile taken apart), `engine` (one tile of rows, all of it together). For rows in many places at once:
`progress` (how far each series is), `summary` (a part folded by itself), `absorb` (summaries into a state).
"""
