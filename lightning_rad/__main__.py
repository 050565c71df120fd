"""`python -m lightning_rad` is `lightning-rad`."""

import os
import signal


def main() -> None:
    """Start; a Ctrl-C while all is still being imported ends at once, without a stack."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from lightning_rad.cli import main as run  # noqa: PLC0415 - takes seconds

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
