"""What `batchq doctor` finds out of live processes: versions, clocks, keys, folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from batchq.cli.finding import Finding
from batchq.errors import BatchqError, QueueError
from batchq.monitoring.fleet import read_queues
from batchq.plan import is_remote
from batchq.queue.names import DEFAULT_QUEUES
from batchq.queue.probe import PATIENCE_S, SEEN, Sight, ask
from batchq.version import __version__

if TYPE_CHECKING:
    from batchq.services import Services

Alive = Mapping[str, Mapping[str, Any]]

WRONG_CLOCK_S = 2.0
MOST_FOLDERS = 3
NEWEST_RUNS = 200
"""In whose folders a doctor without a manifest looks."""
FLOWER = ">=2.2,<2.3"
"""The versions whose menu our pages are in."""


def check_processes(services: Services) -> Iterator[Finding]:
    """Who is alive, by queue, with which version, and whether their clocks agree."""
    alive = _whole(services.ledger.alive())
    coordinators = [about for about in alive.values() if about["role"] == "coordinator"]
    hosts = ", ".join(sorted({about["host"] for about in coordinators}))
    yield Finding(
        "coordinator",
        bool(coordinators),
        f"{len(coordinators)} alive on {hosts}" if coordinators else "none is alive",
        "start one where the run folders are: batchq coordinator (or batchq up)",
    )
    for queue, use in read_queues(services, DEFAULT_QUEUES, alive).items():
        yield Finding(
            f"workers of {queue}",
            bool(use.workers),
            f"{use.workers} alive, {use.active} of {use.slots} slots in use, "
            f"{use.waiting} messages wait",
            f"start one: batchq worker --queues {queue}",
        )
    yield _check_versions(alive)
    yield _check_clocks(alive, services)


def _whole(alive: Alive) -> dict[str, Mapping[str, Any]]:
    """Workers and coordinators, not the processes of their pools."""
    return {name: about for name, about in alive.items() if about.get("role") != "process"}


def _check_versions(alive: Alive) -> Finding:
    others = Counter(
        f"{about['version']} on {about['host']}"
        for about in alive.values()
        if about["version"] != __version__
    )
    if not others:
        return Finding("versions", ok=True, detail=f"batchq {__version__} everywhere")
    named = ", ".join(f"{name} ({number})" for name, number in sorted(others.items()))
    return Finding(
        "versions",
        ok=False,
        detail=f"batchq {__version__} here, {named}",
        advice="install the same version everywhere: a worker refuses messages of another format",
    )


def _check_clocks(alive: Alive, services: Services) -> Finding:
    skews = {"this host": services.ledger.clock_skew_s()}
    for about in alive.values():
        skews[str(about["host"])] = float(about.get("skew_s", 0.0))
    wrong = {host: skew for host, skew in skews.items() if abs(skew) > WRONG_CLOCK_S}
    if not wrong:
        largest = max(abs(skew) for skew in skews.values())
        return Finding("clocks", ok=True, detail=f"within {largest:.1f} s of that of Redis")
    named = ", ".join(
        f"{host} is {abs(skew):,.0f} s {'fast' if skew > 0 else 'slow'}"
        for host, skew in sorted(wrong.items())
    )
    return Finding(
        "clocks",
        ok=False,
        detail=f"against Redis, {named}",
        advice="start an NTP client there: times in outputs and logs are wrong, and so are delays",
    )


def check_sights(
    services: Services, folders: Sequence[str], variables: Mapping[str, str]
) -> Iterator[Finding]:
    """What live processes see of the folders that runs are written to, and which keys they lack.

    `variables` are those of the keys, by provider.
    """
    alive = _whole(services.ledger.alive())
    coordinators = {name for name, about in alive.items() if about["role"] == "coordinator"}
    callers = {
        name
        for name, about in alive.items()
        if DEFAULT_QUEUES[0] in str(about["queues"]).split(",")
    }
    if not alive:
        return
    try:
        newest = _newest_run(services)
        names = [*variables.values()]
        sights = ask(services.settings, folders, names, expected=len(alive), run=newest)
    except QueueError as error:
        yield Finding("answers of processes", ok=False, detail=str(error), advice="see the broker")
        return
    silent = sorted(set(alive) - {sight.name for sight in sights})
    if silent:
        yield Finding(
            "answers of processes",
            ok=False,
            detail=f"no answer within {PATIENCE_S:g} s: {', '.join(silent)}",
            advice="see their logs; they are stuck, have just died, or have another signing key",
        )
    theirs = [one for one in sights if one.name in coordinators]
    if newest and theirs:
        yield _check_catalogs(theirs)
    yield from _check_store(theirs, folders)
    for provider, variable in variables.items():
        yield from _check_key(
            provider, variable, [one for one in sights if one.name in callers], alive
        )


def _newest_run(services: Services) -> str:
    try:
        newest = services.listing.newest(1)
    except BatchqError:
        return ""
    return newest[0].run if newest else ""


def _check_catalogs(sights: Sequence[Sight]) -> Finding:
    lacking = [sight.name for sight in sights if sight.lacks_run]
    return Finding(
        "catalogs",
        not lacking,
        f"the newest run of ours is not in that of {', '.join(lacking)}"
        if lacking
        else f"{_number(len(sights), 'coordinator')} have ours",
        "set the same BATCHQ_CATALOG_URL for coordinators and the command line, or none",
    )


def _check_store(sights: Sequence[Sight], folders: Sequence[str]) -> Iterator[Finding]:
    for folder in folders:
        told = [(sight.name, sight.folders.get(folder, "")) for sight in sights]
        wrong = [f"{name}: {what}" for name, what in told if what not in ("", SEEN)]
        if not any(what for _, what in told):
            continue  # nobody was asked: we cannot write there ourselves
        yield Finding(
            "store",
            not wrong,
            "; ".join(wrong)
            or f"{_number(len(told), 'coordinator')} and we read each other's files in {folder}",
            "let coordinators and the command line see the run folders under the same path: a "
            "shared disk, or an object store (docs/operations.md)",
        )


def _check_key(
    provider: str, variable: str, sights: Sequence[Sight], alive: Alive
) -> Iterator[Finding]:
    if not sights:
        return
    lacking = [sight.name for sight in sights if variable in sight.missing]
    hosts = ", ".join(sorted({str(alive[name]["host"]) for name in lacking}))
    yield Finding(
        f"key of {provider} on workers",
        not lacking,
        f"{len(lacking)} of {_number(len(sights), 'worker')} lack {variable} ({hosts})"
        if lacking
        else f"{_number(len(sights), 'worker')} have {variable}",
        f"export {variable}=... where these workers start, and start them anew",
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def folders_of_runs(services: Services) -> list[str]:
    """The folders that the newest runs are written to, for a doctor without a manifest."""
    try:
        records = services.listing.newest(NEWEST_RUNS)
    except BatchqError:
        return []  # what is wrong with the catalog is said elsewhere
    newest = (record.folder.rstrip("/").rsplit("/", 2)[0] for record in records)
    return list(dict.fromkeys(filter(_is_a_place, newest)))[:MOST_FOLDERS]


def _is_a_place(folder: str) -> bool:
    return is_remote(folder) or folder.startswith("/")


def check_flower() -> Iterator[Finding]:
    """Whether Flower is one whose menu our pages are in."""
    from packaging.specifiers import SpecifierSet

    try:
        version = metadata.version("flower")
    except metadata.PackageNotFoundError:
        yield Finding("Flower", ok=False, detail="not installed", advice="pip install 'flower<2.3'")
        return
    from batchq.web.menu import has_known_menu

    is_known = version in SpecifierSet(FLOWER) and has_known_menu()
    yield Finding(
        "Flower",
        is_known,
        version if is_known else f"{version}, whose menu is not known: the pages are at /runs",
        f"install flower {FLOWER}: our entry goes into its menu",
    )
