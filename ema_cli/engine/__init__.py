"""The numbers: rows in, moments out, everything remembered in a `State`; NumPy and nothing else.

Read in this order: `kernel` (the arithmetic), `lanes` (blocks side by side), `fold` (rows into memory),
`models` and `ties` (how rows decay), `engine` (one tile of rows, all of it together).
"""
