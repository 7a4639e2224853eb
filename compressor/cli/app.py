"""The command line put together: the commands, and how any of them ends."""

import io
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from compressor import __version__
from compressor.cli import info, ship, train
from compressor.cli import predict as predicting
from compressor.cli import students as choosing
from compressor.errors import EXIT_INTERRUPTED, EXIT_PASS, EXIT_USAGE, KdcError, explained
from compressor.processes import interruption
from compressor.terminal.spelling import typed_as_options

__all__ = ["app", "main", "run"]

INTERRUPTED = KdcError("interrupted")

app = typer.Typer(
    name="kdc",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Distill a large model into one that fits a device, and prove it.",
    epilog="Exit codes: 0 the gate passes, 1 it fails, 2 wrong usage or input, 3 inconclusive or unmeasured, "
    "4 a runtime or tool is missing, 130 interrupted.",
)
profiles_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Hardware profiles: the devices kdc knows, and your own."
)
COMMANDS: tuple[Callable[..., None], ...] = (
    train.teach, train.specialists, train.distill, predicting.predict, ship.export, ship.measure, ship.report,
    ship.check, choosing.students, info.losses, info.doctor, info.demo,
)  # fmt: skip
"""In the order of --help."""

for command in COMMANDS:
    app.command()(command)
profiles_app.command("list")(info.profiles_list)
profiles_app.command("show")(info.profiles_show)
profiles_app.command("new")(info.profiles_new)
app.add_typer(profiles_app, name="profiles")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kdc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def main() -> None:
    """Run a command, and turn however it ends into one clear line and an exit code."""
    interruption.catch()
    code = EXIT_USAGE
    try:
        code = run()
    finally:
        interruption.ignore(code)
    sys.exit(code)


def run() -> int:
    """Run a command; returns its exit code. Nothing but bugs under KDC_DEBUG leaves here as an exception."""
    put_back = interruption.catch()
    try:
        from compressor.terminal.console import show_error, steady_streams

        steady_streams()
        with typed_as_options():
            code, error = _ended()
        if error is not None:
            show_error(error)
        return code
    finally:
        put_back()


def _ended() -> tuple[int, KdcError | None]:
    """Run a command; its exit code, and what is to be said of it."""
    # typer uses click or brings its own copy, by its version. Either way this is the ancestor of its usage errors.
    usage_error: type[typer.BadParameter] = typer.BadParameter.__mro__[2]
    try:
        _readable(sys.argv[1:])
        code = app(prog_name="kdc", standalone_mode=False)
        # typer turns an interruption into this code by itself, by its version.
        if code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0, None
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED, INTERRUPTED
    except usage_error as error:
        _show_usage_error(error)
        return EXIT_USAGE, None
    except SystemExit as error:
        if _completes():  # typer's own way to end it; its 1 would mean that a gate failed
            return (EXIT_USAGE if error.code else EXIT_PASS), None
        # typer's, where the reader of --help has gone (`kdc --help | head -1`): it saw enough.
        if isinstance(error.__context__, BrokenPipeError):
            return EXIT_PASS, None
        known = explained(RuntimeError(f"a library ended the program with {error.code!r}"))
        return known.exit_code, known
    except Exception as error:
        if interruption.asked():  # some libraries make an error of their own of it, and so does what waits for a child
            return EXIT_INTERRUPTED, INTERRUPTED
        if os.environ.get("KDC_DEBUG") and not isinstance(error, KdcError):
            raise
        return _told(error)


def _completes() -> bool:
    """Whether a shell asks how a command goes on, or somebody for that to be set up: then typer answers and ends."""
    asked = {"--install-completion", "--show-completion"}
    return "_KDC_COMPLETE" in os.environ or bool(asked & set(sys.argv[1:2]))


def _told(error: Exception) -> tuple[int, KdcError]:
    """What to say of an error, without the frames that it went through: they would keep files open until they are
    collected."""
    known = explained(error)
    return known.exit_code, KdcError(known.message, known.hint, known.exit_code)


def _readable(arguments: list[str]) -> None:
    """Raises KdcError for an argument that is not text in this locale (it could be written into no file of a run), and
    for an empty one, which as a path would mean the current folder."""
    for before, argument in zip(["kdc", *arguments], arguments, strict=False):
        if not argument or (argument.startswith("--") and argument.endswith("=") and argument.count("=") == 1):
            position = f"after {before}" if not argument else f"of {argument[:-1]}"
            raise KdcError(f"the argument {position} is empty", "is a variable of the shell not set?")
        if any("\ud800" <= sign <= "\udfff" for sign in argument):
            raise KdcError(
                f"the argument {argument!r} is not text in the encoding of this locale ({sys.getfilesystemencoding()})",
                "export LC_ALL=C.UTF-8, or rename the file",
            )


def _show_usage_error(error: typer.BadParameter) -> None:
    """As typer shows it. What stands on the command line cannot forge a line of ours."""
    from compressor.terminal.console import show_usage
    from compressor.terminal.printable import printable

    said, text = error.format_message(), io.StringIO()
    error.show(file=text)
    # Where no command was given the message is the help, whose lines are ours.
    line = said if said.startswith("Usage:") else printable(said)
    show_usage(text.getvalue().replace(said, line))
