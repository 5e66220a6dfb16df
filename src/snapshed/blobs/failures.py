"""What a store's errors mean to us: a class to act on, and one sentence that holds no secret.

A store's own words may carry addresses, keys and credentials. They are looked at here and shown nowhere.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, replace
from typing import Literal

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from snapshed.errors import StoreUnavailable

FailureClass = Literal["unavailable", "throttled", "refused"]

_REFUSED = "The store refuses: check the permissions of its credentials or folder, and whether the object is locked."
_THROTTLED = "The store asks for fewer requests."
_FULL = "The store is full."
_SILENT = "The store does not answer as it should."

# Only in the places where a status or a code stands: a key is full of digits and may hold any number.
_CODE = re.compile(r"<Code>(\w+)</Code>|\(code: (\w+)\)")
_STATUS = re.compile(r"status code: (\d{3})|HTTP status \D*\((\d{3})")

_THROTTLING = {"SlowDown", "TooManyRequests", "Throttling", "ThrottlingException", "RequestLimitExceeded", "ServerBusy"}
_REFUSING = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ObjectLocked", "InvalidObjectState"}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a key could not be removed. `store_is_down`: not this key failed, the whole store does not answer."""

    kind: FailureClass
    sentence: str
    store_is_down: bool = False

    def of_the_store(self) -> Failure:
        """The same, seen to be the whole store's."""
        return replace(self, store_is_down=True)


def classify(error: BaseException) -> Failure:
    """Turn a store's error into ours. Only its type, number, status and code are looked at."""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return Failure("refused", _REFUSED)
    if isinstance(error, OSError) and error.errno is not None:
        return _by_number(error.errno)
    text = str(error)
    codes = {code for pair in _CODE.findall(text) for code in pair if code}
    statuses = {status for pair in _STATUS.findall(text) for status in pair if status}
    if codes & _THROTTLING or statuses & {"429", "503"}:
        return Failure("throttled", _THROTTLED)
    if codes & _REFUSING or statuses & {"401", "403"}:
        return Failure("refused", _REFUSED)
    if is_full(error):
        return Failure("unavailable", _FULL)
    return Failure("unavailable", _SILENT)


def _by_number(number: int) -> Failure:
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Failure("refused", _REFUSED)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return Failure("unavailable", _FULL)
    return Failure("unavailable", _SILENT)


def is_full(error: BaseException) -> bool:
    """True if a store or its disk has no room left."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    return any(words in text for words in ("No space left on device", "Disk quota exceeded", "QuotaExceeded"))


def unavailable(error: Exception) -> StoreUnavailable:
    """The error a caller sees when the store fails."""
    return StoreUnavailable(f"{classify(error).sentence} Nothing was lost; try again later.")
