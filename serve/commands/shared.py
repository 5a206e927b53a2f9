"""What the commands share: arguments, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., None])


def quiet_ends(command: _Command) -> _Command:
    """Ctrl-C leaves with 130, a reader that went away (`| head`) ends the command quietly."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except BrokenPipeError:
            # The interpreter flushes once more at exit: give it somewhere to write.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None

    return run  # type: ignore[return-value]


bundle_folder = click.Path(exists=True, file_okay=False)
bundle_argument = click.argument("bundle", type=bundle_folder)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
