"""Runs large batches of LLM, API and CPU work from one YAML manifest, on Celery and Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchq.version import __version__

__all__ = [
    "AuthFailed",
    "BadRequest",
    "BatchqError",
    "BudgetUsedUp",
    "ConnectionFailed",
    "ContextTooLong",
    "FormRefused",
    "Item",
    "LimitError",
    "LimitTimeout",
    "Manifest",
    "ManifestError",
    "NotJson",
    "Outcome",
    "OutputError",
    "Overloaded",
    "Plan",
    "PlanError",
    "Problem",
    "ProviderError",
    "ProviderTimeout",
    "QueueError",
    "RateLimited",
    "Refused",
    "RequestTooLarge",
    "ResultsCutOff",
    "Run",
    "RunExists",
    "RunNotFound",
    "RunState",
    "SchemaMismatch",
    "ServerFailed",
    "Settings",
    "Step",
    "StoreError",
    "Summary",
    "TaskError",
    "Truncated",
    "UnknownModel",
    "UploadCancelled",
    "UploadExpired",
    "UploadQuotaUsedUp",
    "Usage",
    "UsageError",
    "__version__",
    "check_manifest",
    "load_manifest",
    "load_settings",
    "make_plan",
    "run_pipeline",
    "submit",
]

if TYPE_CHECKING:
    from batchq.api import Run, run_pipeline, submit
    from batchq.errors import (
        AuthFailed,
        BadRequest,
        BatchqError,
        BudgetUsedUp,
        ConnectionFailed,
        ContextTooLong,
        FormRefused,
        LimitError,
        LimitTimeout,
        ManifestError,
        NotJson,
        OutputError,
        Overloaded,
        PlanError,
        Problem,
        ProviderError,
        ProviderTimeout,
        QueueError,
        RateLimited,
        Refused,
        RequestTooLarge,
        ResultsCutOff,
        RunExists,
        RunNotFound,
        SchemaMismatch,
        ServerFailed,
        StoreError,
        TaskError,
        Truncated,
        UnknownModel,
        UploadCancelled,
        UploadExpired,
        UploadQuotaUsedUp,
        UsageError,
    )
    from batchq.manifest.loader import check_manifest, load_manifest
    from batchq.manifest.models import Manifest
    from batchq.manifest.step import Step
    from batchq.outcome import Outcome, Summary, Usage
    from batchq.plan import Item, Plan
    from batchq.progress import RunState
    from batchq.runs.pins import make_plan
    from batchq.settings import Settings, load_settings
else:  # a type checker that saw this would take any name for there
    # Nothing is imported before it is used: `batchq --help` and workers start with this module.
    _HOMES = {
        "Item": "plan",
        "Manifest": "manifest.models",
        "Outcome": "outcome",
        "Plan": "plan",
        "Run": "api",
        "RunState": "progress",
        "Settings": "settings",
        "Step": "manifest.step",
        "Summary": "outcome",
        "Usage": "outcome",
        "check_manifest": "manifest.loader",
        "load_manifest": "manifest.loader",
        "load_settings": "settings",
        "make_plan": "runs.pins",
        "run_pipeline": "api",
        "submit": "api",
    }

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'batchq' has no attribute {name!r}")
        import importlib

        module = importlib.import_module(f"batchq.{_HOMES.get(name, 'errors')}")
        value = globals()[name] = getattr(module, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
