"""A server that has imported batchq and Celery, and forks for each program that it is asked to run.

Most of a short program's time is the import of its modules, and the suite runs hundreds of them.
What it forks is a process of its own, with its own environment, folder and output.

A command starts a supervisor, and that simulators; these are forks as well, for the same reason.

Run as `python warm.py SOCKET`. A request is a line of JSON, `{module, arguments, folder, env,
is_leader}`, with the descriptors for standard output and error; the module is run as by
`python -m`. The answers are the process id and what `waitpid` said of its end, as integers of four
bytes.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import os
import pkgutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import batchq
from batchq.embedded.forks import import_for_workers

LEFT_OUT = "batchq.celery"
"""An app with the settings of whoever imports it."""

FORKED = ("batchq.embedded.supervisor", "batchq.simulator.__main__")
"""Modules that a command runs as programs, and that are forked from it here."""

_SIGNATURE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


class Forked(BaseException):
    """Raised in the child: it leaves what the command was doing, and then is that program."""

    def __init__(self, module: str, argv: Sequence[str], descriptors: Mapping[int, int]) -> None:
        self.module = module
        self.argv = argv
        self.descriptors = descriptors
        super().__init__(module)


class WarmPopen(subprocess.Popen):
    """Forks for `python -P -m MODULE` of a module in FORKED; a Popen in all else."""

    def _execute_child(self, *given: Any) -> None:
        told = _SIGNATURE.bind(self, *given).arguments
        module = _module_of(told["args"])
        if module is None or threading.active_count() > 1:  # a fork copies one thread only
            super()._execute_child(*given)  # type: ignore[misc]
            return
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._child_created = False
            raise _become(module, told)
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]
            *(told[one] for one in ("p2cread", "p2cwrite", "c2pread", "c2pwrite")),
            *(told[one] for one in ("errread", "errwrite")),
        )


def _module_of(args: Sequence[str]) -> str | None:
    if tuple(args[:3]) != (sys.executable, "-P", "-m"):
        return None
    return next((one for one in FORKED if one.removesuffix(".__main__") == args[3]), None)


def _become(module: str, told: Mapping[str, Any]) -> Forked:
    """What the child of a fork does in place of an exec, as far as it can be done at once."""
    if told["start_new_session"]:
        os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if told["preexec_fn"] is not None:
        told["preexec_fn"]()
    if told["env"] is not None:
        environment = dict(told["env"])
        os.environ.clear()
        os.environ.update(environment)
    # Under other numbers: on its way out the command closes what it has opened.
    streams = enumerate((told["p2cread"], told["c2pwrite"], told["errwrite"]))
    kept = [*((target, source) for target, source in streams if source != -1)]
    kept += [(one, one) for one in told["pass_fds"]]
    return Forked(module, told["args"][4:], {target: os.dup(source) for target, source in kept})


def serve(path: str) -> NoReturn:
    """Answers requests until it is killed."""
    for found in pkgutil.walk_packages(batchq.__path__, "batchq."):
        if found.name != LEFT_OUT and not found.name.startswith("batchq.examples"):
            importlib.import_module(found.name)
    for name in ("s3fs", "celery.bin.celery", "celery.bin.worker"):
        importlib.import_module(name)
    import_for_workers()
    assert threading.active_count() == 1  # a fork copies one thread only
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(client)
            client.close()


def _answer(client: socket.socket) -> NoReturn:
    _, descriptors, _, _ = socket.recv_fds(client, 1, 2)
    with client.makefile("rb") as requests:
        request = json.loads(requests.readline())
    pid = os.fork()
    if pid == 0:
        client.close()
        _run(request, *descriptors)
    client.sendall(struct.pack("i", pid))
    _, status = os.waitpid(pid, 0)
    client.sendall(struct.pack("i", status))
    os._exit(0)


def _run(request: dict, out: int, err: int) -> NoReturn:
    for target, source in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
        os.dup2(source, target)
        os.close(source)
    if request["is_leader"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None  # that of the environment
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = [request["folder"], *paths]  # as `python -m` has them
    sys.argv = [request["module"], *request["arguments"]]
    subprocess.Popen = WarmPopen  # type: ignore[misc]
    main = _main_of(request["module"])
    while True:
        try:
            sys.exit(main())
        except Forked as raised:
            forked = raised.with_traceback(None)
        gc.collect()  # what still has a descriptor closes it now
        sys.path[:] = [one for one in sys.path if one != request["folder"]]  # -P
        main = _program(forked)


def _main_of(module: str) -> Any:
    found = importlib.import_module(module)
    if hasattr(found, "__path__"):
        found = importlib.import_module(f"{module}.__main__")
    return found.main


def _program(forked: Forked) -> Any:
    """Makes this process the program that it was forked for; returns its main function."""
    for target, source in forked.descriptors.items():
        os.dup2(source, target)
        os.set_inheritable(target, target < 3)
    first = 3
    for one in sorted({*forked.descriptors, os.sysconf("SC_OPEN_MAX")} - {0, 1, 2}):
        os.closerange(first, min(one, 1024))
        first = one + 1
    sys.argv = [forked.module, *forked.argv]
    return importlib.import_module(forked.module).main


if __name__ == "__main__":
    serve(sys.argv[1])
