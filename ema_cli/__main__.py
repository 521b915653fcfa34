"""`python -m ema_cli` is `ema-smooth`."""

from ema_cli.cli import main

main()
