"""torchrun that ends with the status of the rank that failed first; torchrun itself says 1."""

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

if __name__ == "__main__":
    parser = get_args_parser()
    parser.allow_abbrev = False  # it would take `--run`, an argument of ours, for its --run-path
    try:
        run(parser.parse_args())
    except ChildFailedError as failed:
        status = failed.get_first_failure()[1].exitcode
        sys.exit(status if status > 0 else 128 - status)
