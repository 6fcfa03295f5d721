"""Says what a file system's error means, and what to do about it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from batchq.errors import StoreError

_FREE_SPACE = "free some space, then go on with `batchq resume`"
_NOT_WRITABLE = "it may not be written: change its permissions or choose another `output_dir`"
_NO_FOLDER = (
    "a file or a link stands where a folder is needed: remove it or choose another `output_dir`"
)
_ON_DISK = {
    errno.ENOSPC: f"the disk is full: {_FREE_SPACE}",
    errno.EDQUOT: f"the disk quota is used up: {_FREE_SPACE}",
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EROFS: "its file system is read-only: choose another `output_dir`",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.ELOOP: "it is a symbolic link, and links in a run folder are not followed: remove it",
    errno.EISDIR: "a folder stands where a file is needed: remove it",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter `output_dir`",
}

_KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, here and where the "
    "coordinator runs"
)
_RIGHTS = (
    "these keys may not do that: allow s3:ListBucket, s3:GetObject, s3:PutObject and "
    "s3:DeleteObject"
)
_REGION = "the bucket is in another region: set AWS_REGION"
_NAME = "mend the bucket's name in `output_dir`"
_NETWORK = "check the network and AWS_ENDPOINT_URL; `batchq resume` goes on with a run that stopped"
_ON_OBJECT_STORE = {
    **dict.fromkeys(
        (
            *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
            *("ProfileNotFound", "UnauthorizedSSOTokenError", "SSOTokenLoadError"),
            *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
        ),
        _KEYS,
    ),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "403"), _RIGHTS),
    **dict.fromkeys(("PermanentRedirect", "AuthorizationHeaderMalformed", "301"), _REGION),
    **dict.fromkeys(("InvalidBucketName", "ParamValidationError"), _NAME),
    "NoSuchBucket": "make the bucket, or mend `output_dir`",
    "XMinioStorageFull": f"the store is full: {_FREE_SPACE}",
}


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turns what a file system raises into a StoreError that names the place and a way out."""
    try:
        yield
    except _raised() as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()).rstrip(".")
        raise StoreError(f"{place}: {reason or type(error).__name__} ({_advice(error)})") from error


def code_of(error: BaseException) -> str:
    """What an object store calls an error, such as `NoSuchBucket`; else the name of its class.

    The file system's own error has the store's answer as its cause.
    """
    for one in (error.__cause__, error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def _raised() -> tuple[type[BaseException], ...]:
    """What a file system raises; some errors of S3's client are no OSError.

    Their module is only there when the client is, and takes 100 ms to import.
    """
    client = sys.modules.get("botocore.exceptions")
    if client is None:
        return (OSError,)
    return (OSError, client.BotoCoreError, client.ClientError)


def _advice(error: BaseException) -> str:
    code = code_of(error)
    if code in _ON_OBJECT_STORE:
        return _ON_OBJECT_STORE[code]
    if not isinstance(error, OSError) or code != type(error).__name__:
        return _NETWORK
    if isinstance(error, TimeoutError):
        return _NETWORK
    return _ON_DISK.get(error.errno or 0, "check that `output_dir` exists and can be written")
