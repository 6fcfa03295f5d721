"""The tree of commands. A command's module is imported when the command is used."""

from __future__ import annotations

import difflib
import importlib
from copy import copy
from typing import NamedTuple

import click

from batchq.version import __version__


class Entry(NamedTuple):
    """Where a command is, what `batchq --help` says about it, and what else it is named."""

    module: str
    help: str
    same_as: str = ""


COMMANDS = {
    "init": Entry("init", "Copy an example into a folder, ready to run."),
    "validate": Entry("manifests", "Show all problems of a manifest, with line and column."),
    "schema": Entry("manifests", "Print the JSON Schema of the manifest, for editors."),
    "plan": Entry("manifests", "Show what a submit would do; nothing is queued."),
    "submit": Entry("submit", "Run a manifest and follow it."),
    "resume": Entry("submit", "Go on with a run that was paused or interrupted."),
    "retry": Entry("submit", "Run what failed once more, in the same version."),
    "rerun": Entry("rerun", "Redo chosen items as a new version, merged with the one before."),
    "watch": Entry("watch", "Follow a run until it is over."),
    "status": Entry("runs", "Show how far runs are."),
    "list": Entry("runs", "List pipelines, or the versions of one."),
    "show": Entry("show", "Show a run, or one item of it."),
    "logs": Entry("logs", "Show what the workers of a run logged."),
    "failures": Entry("review", "Group what failed in a run by its cause."),
    "explain": Entry("explain", "Tell one item's whole story: attempts, prompts, cost, files."),
    "compare": Entry("compare", "Compare two versions of a pipeline item by item."),
    "report": Entry("reports", "Report on a run: its jobs ranked, effects, cost; CSV, HTML."),
    "export": Entry("export", "Write the items of a run as a table: CSV, Parquet, JSON lines."),
    "pack": Entry("pack", "Write a run into one file, with all that it builds on."),
    "unpack": Entry("pack", "Make a packed file a run again."),
    "label": Entry("review", "Say how mature a version is; final ones are read-only."),
    "mark": Entry("review", "Mark an item as good or bad."),
    "pause": Entry("watch", "Start no more items of a run; resume goes on."),
    "unpause": Entry("submit", "Go on with a paused run; the same as resume.", "resume"),
    "approve": Entry("approve", "Let a run go on that waits after its first items."),
    "cancel": Entry("watch", "End a run early; what is done is kept."),
    "limits": Entry("limits", "Show what is used of providers' limits, or change them."),
    "schedule": Entry("schedule", "Have manifests submitted by themselves, by cron."),
    "web": Entry("pages", "Serve pages of runs, items, failures and limits."),
    "flower": Entry("pages", "Run Flower with these pages in its menu."),
    "up": Entry("up", "Run Redis, coordinator, workers and Flower here, until Ctrl-C."),
    "worker": Entry("serve", "Run a worker for the broker."),
    "coordinator": Entry("serve", "Run a coordinator for the broker."),
    "simulator": Entry("serve", "Run a local server that behaves like an LLM provider."),
    "gc": Entry("gc", "Remove old versions that nothing is built on."),
    "catalog": Entry("catalog", "Rebuild the index of runs from their folders."),
    "doctor": Entry("doctor", "Check broker, workers, catalog and keys."),
}


class LazyGroup(click.Group):
    """Imports a command when it is asked for, and lists all without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """All names, in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports one command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        entry = COMMANDS[cmd_name]
        module = importlib.import_module(f"batchq.cli.{entry.module}")
        command: click.Command = getattr(module, f"{entry.same_as or cmd_name}_command")
        if entry.same_as:
            command = copy(command)
            command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; an unknown one is refused with the nearest name."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " See `batchq --help`."
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the list out of the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="batchq %(version)s")
def cli() -> None:
    """Runs large batches of LLM, API and CPU work from one YAML manifest.

    RUN is pipeline@v3, pipeline@latest, pipeline (its newest version) or a run id.
    """
