"""Several hosts on one Redis that is near or far: items/s a host, and what an item costs Redis.

    hosts.py [--hosts 1 4] [--delays 0 1 20] [--slots 8] [--items 200] [--work call noop] [--write]

A host is a network namespace with one batchq worker, which needs the rights of root; the way to
Redis and back takes the delay, in milliseconds, by slow_line.py. Redis and the coordinator are on
this machine. `call` items are calls of 200 ms to a server that is as near as ever, `--slots` at a
time on each host; `noop` items do nothing. `--items` are those of one host. `--write` puts the
table into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import table
from turns import HERE, Idle, Redis, SlowServer, cpu_s

import batchq
from batchq.progress import RunState
from batchq.services import Services, build_services
from batchq.settings import load_settings

LATENCY_MS = 200
LOOK_EVERY_S = 0.05
UP_WITHIN_S, DONE_WITHIN_S = 240.0, 900.0
PAGE = HERE.parent / "docs" / "scaling.md"
NETWORKS = itertools.count()
HEADS = (
    "items",
    "hosts",
    "ms to Redis",
    "items/s",
    "a host",
    "of slots / latency",
    "CPU ms an item",
    "Redis: CPU ms",
    "a Redis is full at",
    "round trips",
    "commands",
    "KB an item",
)
MANIFEST = """
name: {name}
config: {{output_dir: out}}
{more}
steps:
  - {{name: all, input: {{generate: {items}}}, {work}, batch_size: 100,
     concurrent_batches: {window}}}
"""
PROVIDER = "providers: {{slow: {{kind: openai, model: m, base_url: '{url}/v1', api_key_env: KEY}}}}"
WORK = {"call": 'prompt: "Say something about\\nnumber {number}."', "noop": 'task: "work:noop"'}


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"`ip {' '.join(arguments)}`: {done.stderr.strip()}; hosts want root")


@contextmanager
def network(count: int) -> Iterator[tuple[str, list[str]]]:
    """Namespaces on one switch; gives the address of this machine on it, and their names."""
    number = next(NETWORKS)  # the last one's cables may not all be gone
    switch, net = f"bq{os.getpid() % 10000}n{number}", f"10.213.{(os.getpid() + number) % 250}"
    names = [f"{switch}h{number}" for number in range(count)]
    with ExitStack() as stack:
        ip("link", "add", switch, "type", "bridge")
        stack.callback(ip, "link", "del", switch)
        ip("addr", "add", f"{net}.1/24", "dev", switch)
        ip("link", "set", switch, "up")
        for number, name in enumerate(names):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            cable = f"{switch}c{number}"
            ip("link", "add", cable, "type", "veth", "peer", "name", "up0", "netns", name)
            ip("link", "set", cable, "master", switch, "up")
            ip("-n", name, "addr", "add", f"{net}.{number + 2}/24", "dev", "up0")
            ip("-n", name, "link", "set", "up0", "up")
        yield f"{net}.1", names


class Fleet:
    """A coordinator here, and a worker on each host."""

    def __init__(self, folder: Path, url: str, far_url: str, hosts: Sequence[str]) -> None:
        self.folder = folder
        self._log = (folder / "log").open("ab")
        common = {
            **os.environ,
            "BATCHQ_HOME": str(folder / ".batchq"),
            "BATCHQ_TASKS": '["work"]',
            "PYTHONPATH": str(HERE / "sides"),
            "KEY": "none",
        }
        self._near = {**common, "BATCHQ_BROKER_URL": url}
        self._far = {**common, "BATCHQ_BROKER_URL": far_url}
        self._hosts = hosts
        self.children: list[psutil.Popen] = []

    def start(self, slots: int, work: str) -> None:
        batchq_command = [sys.executable, "-m", "batchq"]
        self._run([*batchq_command, "coordinator"], self._near)
        pool = ("--pool", "threads" if work == "call" else "prefork", "-c", str(slots))
        for host in self._hosts:
            enter = ("ip", "netns", "exec", host)
            self._run([*enter, *batchq_command, "worker", *pool], self._far)

    def _run(self, command: list[str], env: dict[str, str]) -> None:
        self.children.append(
            psutil.Popen(command, env=env, cwd=self.folder, stdout=self._log, stderr=self._log)
        )

    def stop(self) -> None:
        everybody = [one for child in self.children for one in _family(child)]
        for child in self.children:
            child.terminate()
        psutil.wait_procs(self.children, timeout=30)
        for one in everybody:
            if one.is_running():
                one.kill()
        self._log.close()

    def cpu_s(self) -> float:
        return cpu_s([one for child in self.children for one in _family(child)])


def _family(child: psutil.Process) -> list[psutil.Process]:
    try:
        return [child, *child.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def measure(hosts: int, delay_ms: float, work: str, slots: int, items: int) -> list[str]:
    """One run on so many hosts; gives the cells of its row."""
    with ExitStack() as stack:
        gate, names = stack.enter_context(network(hosts))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bq")))
        server, slow = Redis(folder), SlowServer(LATENCY_MS, gate)
        stack.callback(server.stop)
        stack.callback(slow.stop)
        line = [sys.executable, str(HERE / "slow_line.py"), str(server.port), str(delay_ms), gate]
        proxy = subprocess.Popen(line, stdout=subprocess.PIPE)
        stack.callback(proxy.communicate)
        stack.callback(proxy.terminate)
        assert proxy.stdout is not None
        proxy.stdout.readline()
        fleet = Fleet(folder, server.url, server.url.replace("127.0.0.1", gate), names)
        stack.callback(fleet.stop)
        fleet.start(slots, work)
        os.environ.update(BATCHQ_BROKER_URL=server.url, BATCHQ_HOME=str(folder / ".batchq"))
        services = build_services(load_settings())
        _wait_until_up(services, hosts)
        window = max(2, -(-hosts * slots * 3 // 100))
        more = PROVIDER.format(url=slow.url) if work == "call" else ""
        values = {"work": WORK[work], "more": more, "window": window}
        for name, count in (("warm", 10 * hosts), ("measured", items * hosts)):
            path = folder / f"{name}.yaml"
            path.write_text(MANIFEST.format(name=name, items=count, **values))
            idle = Idle.of(server)
            before = fleet.cpu_s(), cpu_s([server.child])
            server.client.config_resetstat()
            slow.seen()
            began = time.perf_counter()
            _run(path, services)
            took_s = time.perf_counter() - began
        spent = [b - a for a, b in zip(before, (fleet.cpu_s(), cpu_s([server.child])), strict=True)]
        trips, commands, net_bytes = idle.beyond(server.load(), took_s)
        rate = slow.seen()["steady_per_s"] or count / took_s
    share = f"{rate / (hosts * slots * 1000 / LATENCY_MS):.0%}" if work == "call" else ""
    return [
        *(work, str(hosts), f"{delay_ms:g}", f"{rate:.0f}", f"{rate / hosts:.0f}", share),
        *(f"{spent[0] / count * 1000:.2f}", f"{spent[1] / count * 1000:.2f}"),
        f"{count / spent[1]:.0f}/s",
        *(f"{trips / count:.1f}", f"{commands / count:.1f}", f"{net_bytes / count / 1000:.1f}"),
    ]


def _run(path: Path, services: Services) -> None:
    run = batchq.submit(path, wait=False).id
    end = time.monotonic() + DONE_WITHIN_S
    while services.ledger.state(run) is not RunState.COMPLETED:
        if time.monotonic() > end:
            raise TimeoutError(run)
        time.sleep(LOOK_EVERY_S)


def _wait_until_up(services: Services, hosts: int) -> None:
    end = time.monotonic() + UP_WITHIN_S
    while True:
        roles = [one.get("role") for one in services.ledger.alive().values()]
        if roles.count("worker") == hosts and "coordinator" in roles:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"not all workers came up: {json.dumps(roles)}")
        time.sleep(LOOK_EVERY_S)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 1.0, 20.0])
    parser.add_argument("--slots", type=int, default=8, help="of a host, for calls")
    parser.add_argument("--items", type=int, default=200, help="of a host")
    parser.add_argument("--work", nargs="+", choices=tuple(WORK), default=list(WORK))
    parser.add_argument("--write", action="store_true", help="the table into docs/scaling.md")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # networks are to be taken down
    lines = [f"| {' | '.join(HEADS)} |", f"|{' --- |' * len(HEADS)}"]
    print("\n".join(lines), flush=True)
    for work in given.work:
        for hosts in given.hosts:
            for delay_ms in given.delays:
                slots = given.slots if work == "call" else 2
                cells = measure(hosts, delay_ms, work, slots, given.items)
                lines.append(f"| {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    load = f"load average {psutil.getloadavg()[0]:.1f} at the end, on {psutil.cpu_count()} cores"
    print(load)
    if given.write:
        date = f"{datetime.now(UTC):%d %B %Y}".lstrip("0")
        table.put(PAGE, "\n".join([*lines, "", f"{date}, {load}.", ""]))


if __name__ == "__main__":
    main()
