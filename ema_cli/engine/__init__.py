"""The arithmetic: rows in, moments out, the memory in a `State`; NumPy and nothing else.

Read in this order: `arithmetic` (two stretches of a series joined), `row_weights` (the modes: how much a
row weighs), `scan` (blocks side by side), `rows` (a tile sorted by key), `engine` (one tile from end to
end), `ties` (rows of equal time), `state` (the memory). For rows on several machines: `digest` (a part
folded by itself).
"""
