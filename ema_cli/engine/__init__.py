"""The numbers: rows in, moments out, everything remembered in a `State`; NumPy and nothing else.

Read in this order: `arithmetic` (two stretches of a series joined), `row_weights` (the modes: how much a
row weighs), `scan` (blocks side by side), `rows` (a tile taken apart), `engine` (one tile, all of it
together), `ties` (rows of equal time), `state` (what is remembered). For rows in many places at once:
`digest` (a part folded by itself).
"""
