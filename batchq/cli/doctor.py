"""`batchq doctor`: whether everything that a run needs is there, and what to do if not."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchq.broker.signing import is_local, signer_of
from batchq.cli.checkup import check_flower, check_processes, check_sights, folders_of_runs
from batchq.cli.finding import Finding
from batchq.cli.output import put, put_json
from batchq.cli.request import json_option
from batchq.errors import BatchqError, QueueError, StoreError
from batchq.host.apikeys import read_api_key
from batchq.plan import is_remote
from batchq.services import COMMAND_PATIENCE_S, Services, build_services
from batchq.settings import Settings, load_settings

if TYPE_CHECKING:
    from batchq.manifest.models import Manifest

EXIT_OUT_OF_REACH = 6
MIN_REDIS = (6, 2)
SLOW_MS = 20.0
MIN_FREE_BYTES = 500_000_000


@dataclass
class _Wanted:
    """What the live processes are to be asked for; of a manifest."""

    folders: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)


@click.command("doctor")
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@json_option
def doctor_command(file: Path | None, as_json: bool) -> int:  # noqa: FBT001 (click)
    """Checks the broker, its workers, the store and the catalog.

    With the manifest FILE also its keys, here and on the workers.
    """
    settings = load_settings()
    checks = (_check_broker, _check_catalog, _check_cache, _check_disk)
    findings = [finding for check in checks for finding in check(settings)]
    findings += check_flower()
    found = _Wanted()
    if file is not None:
        findings += _check_manifest(file, found)
    if settings.broker_url:
        findings += _ask_processes(settings, found)
    if as_json:
        put_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            put(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.detail}")
            if not finding.ok and finding.advice:
                put(f"      -> {finding.advice}")
    return 0 if all(finding.ok for finding in findings) else EXIT_OUT_OF_REACH


def _check_broker(settings: Settings) -> Iterator[Finding]:
    if not settings.broker_url:
        yield _check_embedded(settings)
        return
    services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
    try:
        services.ledger.runs()
    except QueueError as error:
        advice = "start Redis, mend BATCHQ_BROKER_URL, or unset it for the embedded stack"
        yield Finding("broker", ok=False, detail=str(error), advice=advice)
        return
    yield from _check_redis(services)
    yield from check_processes(services)


def _ask_processes(settings: Settings, wanted: _Wanted) -> Iterator[Finding]:
    services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
    try:
        folders = wanted.folders or folders_of_runs(services)
        yield from check_sights(services, folders, wanted.variables)
    except QueueError:
        return  # it was said above


def _check_embedded(settings: Settings) -> Finding:
    from batchq.embedded.binary import find_redis_server

    try:
        binary = find_redis_server(settings.redis_server)
    except QueueError as error:
        return Finding("embedded Redis", ok=False, detail="no server binary", advice=str(error))
    return Finding("embedded Redis", ok=True, detail=f"{binary} (no broker is set)")


def _check_redis(services: Services) -> Iterator[Finding]:
    import redis

    info: dict[str, Any] = services.redis.info()
    version = str(info.get("redis_version", "0"))
    is_new = tuple(int(part) for part in version.split(".")[:2]) >= MIN_REDIS
    name = f"{info.get('server_name', 'redis')} {info.get('valkey_version', version)}"
    yield Finding("broker version", is_new, name, "Celery needs Redis 6.2 or newer: upgrade it")
    policy = str(info.get("maxmemory_policy", "?"))
    yield Finding(
        "eviction",
        policy == "noeviction",
        policy,
        "set maxmemory-policy noeviction, else Redis drops items when it is full",
    )
    yield Finding(
        "append-only file",
        str(info.get("aof_enabled")) == "1",
        "on" if str(info.get("aof_enabled")) == "1" else "off",
        "set appendonly yes, else a restart of Redis forgets what is in flight",
    )
    yield _check_signatures(services)
    try:
        began = time.perf_counter()
        for _ in range(5):
            services.redis.ping()
        took_ms = (time.perf_counter() - began) * 1000 / 5
    except redis.RedisError as error:
        yield Finding("latency", ok=False, detail=str(error), advice="see whether Redis is stuck")
        return
    yield Finding(
        "latency", took_ms < SLOW_MS, f"{took_ms:.1f} ms", "put workers and Redis closer together"
    )


def _check_signatures(services: Services) -> Finding:
    settings = services.settings
    signer = signer_of(settings.signing_key, settings.broker_url)
    ours = signer.name if signer else ""
    others = sorted(
        f"{about['host']} ({about['role']})"
        for about in services.ledger.alive().values()
        if about.get("signs", ours) != ours
    )
    if others:
        return Finding(
            "signed messages",
            ok=False,
            detail=f"another key on {', '.join(others)}",
            advice="set the same BATCHQ_SIGNING_KEY, or password of the broker, everywhere",
        )
    made_of = "BATCHQ_SIGNING_KEY" if settings.signing_key else "the broker's password"
    return Finding(
        "signed messages",
        ok=signer is not None or is_local(settings.broker_url),
        detail=f"key {ours}, made of {made_of}" if signer else "none, there is no key",
        advice="set BATCHQ_SIGNING_KEY everywhere, or give the broker a password",
    )


def _check_catalog(settings: Settings) -> Iterator[Finding]:
    services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
    url = settings.effective_catalog_url
    shown = f"{url.partition('://')[0]}://{url.partition('://')[2].rpartition('@')[2]}"
    try:
        number = services.listing.count()
    except BatchqError as error:
        yield Finding("catalog", ok=False, detail=str(error), advice="mend BATCHQ_CATALOG_URL")
        return
    yield Finding("catalog", ok=True, detail=f"{shown}, {number} runs")


def _check_cache(settings: Settings) -> Iterator[Finding]:
    if not settings.cache_url:
        return  # then it is the broker's Redis or a file in the home folder
    try:
        build_services(settings, patience_s=COMMAND_PATIENCE_S).cache.get("")
    except BatchqError as error:
        yield Finding("cache", ok=False, detail=str(error), advice="mend BATCHQ_CACHE_URL")
        return
    yield Finding("cache", ok=True, detail=f"{settings.cache_url.partition('://')[0]}:// answers")


def _check_disk(settings: Settings) -> Iterator[Finding]:
    yield _writable("home folder", settings.home.absolute())


def _writable(name: str, folder: Path) -> Finding:
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Finding(
            name, ok=False, detail=f"{folder} cannot be written", advice="choose another"
        )
    free = shutil.disk_usage(place).free
    detail = f"{folder}, {free / 1e9:.1f} GB free"
    return Finding(name, free > MIN_FREE_BYTES, detail, "make room on the disk")


def _check_manifest(file: Path, wanted: _Wanted) -> Iterator[Finding]:
    from batchq.manifest.loader import load_manifest
    from batchq.planning.planner import make_plan

    try:
        manifest = load_manifest(file)
        plan = make_plan(manifest)
    except BatchqError as error:
        yield Finding("manifest", ok=False, detail=str(error), advice=f"batchq validate {file}")
        return
    yield Finding("manifest", ok=True, detail=str(file))
    yield from _check_keys(manifest)
    providers = manifest.providers.items()
    wanted.variables = {name: one.api_key_env for name, one in providers if one.api_key_env}
    if is_remote(plan.output_dir):
        yield _reachable("output folder", plan.output_dir)
        wanted.folders = [plan.output_dir]
    else:
        folder = Path(plan.base_dir, plan.output_dir)
        yield _writable("output folder", folder)
        wanted.folders = [str(folder)] if folder.is_dir() else []


def _reachable(name: str, url: str) -> Finding:
    """Whether an object store takes, lists and removes a file."""
    from batchq.store.files import open_files

    probe = f".doctor-{os.getpid()}"
    try:
        files = open_files(url)
        files.write(probe, b"")
        files.names()
        files.remove(probe)
    except StoreError as error:
        return Finding(name, ok=False, detail=str(error), advice="mend it, or choose another one")
    return Finding(name, ok=True, detail=f"{url} can be written")


def _check_keys(manifest: Manifest) -> Iterator[Finding]:
    for name, provider in manifest.providers.items():
        variable = provider.api_key_env
        if not variable:
            continue
        advice = f"export {variable}=... where the workers start, or {variable}_FILE=its file"
        try:
            read_api_key(variable, os.environ)
        except ValueError as error:
            yield Finding(f"key of {name}", ok=False, detail=str(error), advice=advice)
        else:
            where = f"{variable}_FILE" if os.environ.get(f"{variable}_FILE") else variable
            yield Finding(f"key of {name}", ok=True, detail=f"{where} is set")
