"""How much memory this host may use, or the container that it is, and who was killed for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_WHOLE_HOST = Path("/proc/vmstat")


def host_memory() -> int:
    """The bytes of memory that this host, or the container that this is, may use."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = _read_groups("memory.max", "memory.limit_in_bytes")
    return min([whole, *(int(text) for text in limits if text.isdecimal())])


def oom_kills() -> int:
    """How often the kernel has killed a process here for want of memory; 0 where it does not say.

    The container's own count goes before that of the host.
    """
    for text in (*_read_groups("memory.events", "memory.oom_control"), _read(_WHOLE_HOST)):
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def _read_groups(name: str, old_name: str) -> list[str]:
    """What a file says in the control group of this process, and in those above it.

    `old_name` is that of the file where groups are of the first version.
    """
    found = []
    for line in _read(_OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += [_read(folder / name) for folder in _upwards(_GROUPS, path)]
        elif "memory" in controllers.split(","):
            found += [_read(folder / old_name) for folder in _upwards(_GROUPS / "memory", path)]
    return [text for text in found if text]


def _upwards(root: Path, path: str) -> Iterator[Path]:
    group = PurePosixPath(path)
    for one in (group, *group.parents):
        yield root / str(one).strip("/")


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
