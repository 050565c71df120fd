"""One door: `lightning-rad fit|validate|test|predict` and `lightning-rad shards ...`."""

from __future__ import annotations

import os
import sys
import warnings

from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_rad.cli.run import run
from lightning_rad.cli.shards import shards
from lightning_rad.training.console import reason


def main() -> None:
    """Run the command line of this process.

    What a user got wrong ends in one line and exit status 2.
    LIGHTNING_RAD_TRACEBACK=1 shows the stack instead.
    """
    # Lightning calls jsonargparse and torch by names these have deprecated: not the user's concern
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message="Found .* in eval mode at the start of training")
    if os.environ.get("LIGHTNING_RAD_TRACEBACK"):
        _run()
        return
    try:
        _run()
    except (ValueError, OSError, MisconfigurationException) as error:
        sys.exit(_complain(reason(str(error))))
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        sys.exit(
            _complain("the checkpoint is of another model: " + " ".join(str(error).split())[:300])
        )
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> None:
    if sys.argv[1:2] == ["shards"]:
        shards(sys.argv[2:])
    else:
        run()


def _complain(message: str) -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # the others fail alike
        print(f"lightning-rad: {message}", file=sys.stderr)  # noqa: T201
    return 2
