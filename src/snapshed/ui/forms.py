"""Reading the small forms of the pages.

A form is never larger than 64 KiB, holds no file, and is believed only after its CSRF word was checked.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends

from snapshed.bodies import Body, spooled
from snapshed.errors import Invalid
from snapshed.settings import Settings

_MOST_BYTES = 64 * 2**10
_MOST_FIELDS = 32


def _limit(settings: Settings) -> int:
    del settings  # a form's size is no matter of taste
    return _MOST_BYTES


def read(body: Annotated[Body, Depends(spooled(_limit))]) -> dict[str, str]:
    """The fields of an urlencoded form; of a field given twice, the last. Raises Invalid."""
    text = body.open().read()
    try:
        fields = parse_qsl(text.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Invalid("The form could not be read; reload the page and try again.") from None
    return dict(fields)


Form = Annotated[dict[str, str], Depends(read)]
