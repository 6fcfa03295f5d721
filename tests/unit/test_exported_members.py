from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import batchq
from batchq import errors


@pytest.mark.parametrize("name", batchq.__all__)
def test_an_exported_name_exists_and_says_what_it_is(name: str) -> None:
    member = getattr(batchq, name)

    if name != "__version__":
        assert member.__name__ == name
        assert (member.__doc__ or "").rstrip().endswith(".")  # one that dataclass made does not
        assert member.__module__.startswith("batchq.")


def test_the_list_of_exported_names_is_sorted_and_has_none_twice() -> None:
    assert batchq.__all__ == sorted(set(batchq.__all__))


def test_every_error_is_exported() -> None:
    tree = {
        name
        for name, member in vars(errors).items()
        if inspect.isclass(member) and issubclass(member, Exception)
    }

    assert tree - set(batchq.__all__) == set()


def test_a_name_that_is_not_exported_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'batchq' has no attribute 'load_manifesto'"):
        batchq.load_manifesto  # type: ignore[attr-defined]  # noqa: B018


def test_exported_names_are_listed_for_completion() -> None:
    assert set(batchq.__all__) <= set(dir(batchq))


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import batchq, sys; print(*sorted(name.partition('.')[0] for name in sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    heavy = {"pydantic", "pydantic_settings", "ruamel", "jinja2", "celery", "redis", "sqlalchemy"}
    assert heavy & set(done.stdout.split()) == set()
