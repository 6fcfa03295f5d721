"""A server that has imported the command line, and forks for each command that it is asked to run.

Most of a short command's time is the import of its modules, and the suite runs hundreds of them.
What it forks is a process of its own, with its own environment, folder and output.

Run as `python warm.py SOCKET`. A request is a line of JSON, `{arguments, folder, env}`, with the
descriptors for standard output and error; the answers are the process id and the exit code, a line
each.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import threading
from typing import NoReturn

PRELOADED = ("batchq.__main__", "batchq.cli.submit", "batchq.queue.app", "batchq.store.catalog")


def serve(path: str) -> NoReturn:
    """Answers requests until it is killed."""
    for name in PRELOADED:
        importlib.import_module(name)
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
    client.sendall(b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    client.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _run(request: dict, out: int, err: int) -> NoReturn:
    for target, source in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
        os.dup2(source, target)
        os.close(source)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0] = request["folder"]  # as `python -m batchq` has it
    sys.argv = ["batchq", *request["arguments"]]
    from batchq.__main__ import main

    sys.exit(main())


if __name__ == "__main__":
    serve(sys.argv[1])
