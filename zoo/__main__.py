"""The command `zoo`: a table of subcommands, each imported only when it is used.

Commands are named by module and attribute, as entry points are, so that this file knows no package
but its own and `zoo --help` starts neither TensorFlow nor ONNX Runtime.
"""

import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

import zoo

COMMANDS: dict[str, tuple[str, str, str]] = {
    "list": ("zoo.commands", "list_", "Show recipes, tasks, architectures, data sources."),
    "train": ("zoo.commands", "train", "Train a model by a recipe; --resume goes on after a stop."),
    "evaluate": ("export.commands.evaluate", "evaluate", "Measure a run or a bundle on test data."),
    "export": ("export.commands.export", "export", "Turn a run into ONNX, SavedModel or LiteRT."),
    "verify": (
        "serve.commands.looking",
        "verify",
        "Check a bundle's files and replay its reference values.",
    ),
    "predict": ("serve.commands.predict", "predict", "Answer texts from a bundle."),
    "chat": ("serve.commands.chat", "chat", "Talk with a bundle of a model that writes."),
    "search": ("serve.commands.search", "search", "Find passages of a folder by their meaning."),
    "inspect": ("serve.commands.looking", "inspect_", "Show what a bundle holds."),
}
PACKAGES = ("zoo", "export", "serve")
EXTRAS = {
    "tensorflow": "cpu",
    "keras": "cpu",
    "onnx": "cpu",
    "tf2onnx": "cpu",
    "babel": "cpu",
    "sklearn": "cpu",
    "yaml": "cpu",
    "matplotlib": "cpu",
    "pyarrow": "cpu",
    "onnxruntime": "cpu",
    "tokenizers": "cpu",
}
WRONG_USE = ("ConfigError", "ProviderError")
"""Errors about what was asked for, rather than about what came of it."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(zoo.__version__, prog_name="zoo")
@click.option("--debug", is_flag=True, help="Show tracebacks; may stand anywhere.")
def cli(debug: bool) -> None:
    """Keras text models: train them, export them, answer from them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs `zoo`; exits with 0 (good), 1 (the work failed), 2 (wrong use) or 130 (interrupted)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    debug = "--debug" in given[:end]
    given = [word for word in given[:end] if word != "--debug"] + given[end:]
    if not debug:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = cli.main(given, prog_name="zoo", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except (BrokenPipeError, SystemExit) as stop:
        code = _ended(stop)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = 130
    except Exception as error:
        if debug:
            raise
        click.echo(f"zoo: {_describe(error)}", err=True)
        code = 2 if _is(error, *WRONG_USE) else 1
    sys.exit(code if isinstance(code, int) else 0)


def _ended(stop: BaseException) -> int:
    """The exit code of an end that is no failure where a reader went away (`| head`)."""
    cause = stop if isinstance(stop, OSError) else stop.__context__
    if isinstance(cause, OSError) and cause.errno == errno.EPIPE:
        # The interpreter flushes once more at exit: give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    code = stop.code if isinstance(stop, SystemExit) else 1
    return code if isinstance(code, int) else int(code is not None)


def _is(error: Exception, *names: str) -> bool:
    """Whether `error` is one of the project's own errors (of these names, if any are given)."""
    return any(
        cls.__module__ in {f"{package}.errors" for package in PACKAGES}
        and (not names or cls.__name__ in names)
        for cls in type(error).__mro__
    )


def _describe(error: Exception) -> str:
    if _is(error):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        if package in EXTRAS:
            extra = EXTRAS[package]
            return f"this needs {package}: pip install 'keras-text-zoo[{extra}]' (or [gpu])"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(error).strip().splitlines()
    first = text[0] if text else ""
    return f"unexpected {type(error).__name__}: {first} (--debug shows the traceback)"


if __name__ == "__main__":
    main()
