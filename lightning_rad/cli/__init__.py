"""One door: `lightning-rad fit|validate|test|predict` and `lightning-rad shards|reports ...`."""

from __future__ import annotations

import os
import sys
import warnings
from typing import NoReturn

from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_rad.cli.doctor import doctor
from lightning_rad.cli.reports import reports
from lightning_rad.cli.run import run
from lightning_rad.cli.shards import shards
from lightning_rad.collectives import world_size
from lightning_rad.objectives.loss_guard import LossDivergedError
from lightning_rad.training import death, launch
from lightning_rad.training.console import reason


def main() -> None:
    """Run the command line of this process; the exit statuses are in docs/reliability.md.

    What a user got wrong ends in one line and exit status 2.
    LIGHTNING_RAD_TRACEBACK=1 shows the stack instead.
    """
    launch.follow()
    # Lightning calls jsonargparse and torch by names these have deprecated: not the user's concern
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message="Found .* in eval mode at the start of training")
    if os.environ.get("LIGHTNING_RAD_TRACEBACK"):
        _run()
        return
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as ending:
        if isinstance(ending.__context__, KeyboardInterrupt):  # Lightning makes a 1 of it
            sys.exit(130)
        raise
    except LossDivergedError as error:
        _complain(str(error))
        _end(86)
    except Exception as error:
        if death.told(error):
            launch.leave(1)
        _end(_refused(error))


def _refused(error: Exception) -> int:
    """Say in one line what the user got wrong; anything else is raised again."""
    if isinstance(error, (ValueError, OSError, MisconfigurationException)):
        return _complain(reason(str(error)))
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        said = " ".join(str(error).split())[:300]
        return _complain(f"the checkpoint is of another model: {said}")
    raise error


def _end(status: int) -> NoReturn:
    if world_size() > 1:  # a group whose peers are gone may hang in its destructor
        launch.leave(status)
    sys.exit(status)


def _run() -> None:
    if sys.argv[1:2] == ["shards"]:
        shards(sys.argv[2:])
    elif sys.argv[1:2] == ["reports"]:
        reports(sys.argv[2:])
    elif sys.argv[1:2] == ["doctor"]:
        doctor(sys.argv[2:])
    else:
        run()


def _complain(message: str) -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # the others fail alike
        print(f"lightning-rad: {message}", file=sys.stderr)  # noqa: T201
    return 2
