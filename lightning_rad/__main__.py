"""`python -m lightning_rad` is `lightning-rad`."""

from lightning_rad.cli import main

if __name__ == "__main__":
    main()
