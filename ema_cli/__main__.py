"""`python -m ema_cli` is `ema-smooth`."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """The entry point of the command."""
    # While things are loaded Ctrl-C ends it without a word; then the command minds it itself.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    from ema_cli import cli

    cli.main()


if __name__ == "__main__":
    main()
