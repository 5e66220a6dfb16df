"""From the bytes of a PNG or JPEG file to rows of RGBA pixels, limits first.

Nothing is decoded here before the header has been read and the caller has seen the size.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pyspng  # pyright: ignore[reportMissingTypeStubs]: the wheel ships none; one call, cast below
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]  # (height, width, 4)

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")

# The callers' limit is the only one: Pillow's own guard warns at a size of its choosing and raises at twice that.
Image.MAX_IMAGE_PIXELS = None

_load_png: Callable[..., Pixels] = pyspng.load  # pyright: ignore[reportUnknownMemberType]: untyped, see above


class Undecodable(Exception):
    """The file is not an image we can read; the text finishes the sentence "the head image …"."""


class Source:
    """One image file, opened but not decoded: its size is known, its pixels are not."""

    def __init__(self, path: Path) -> None:
        try:
            self._bytes = path.read_bytes()
        except OSError as error:
            raise Undecodable("could not be read") from error
        self._image = _open(self._bytes)
        self.size = self._image.size

    def pixels(self) -> Pixels:
        """Decode. A file that promises more than it holds raises `Undecodable`."""
        if self._is_plain():
            try:
                fast = _load_png(self._bytes, format="RGBA")
            except RuntimeError:
                pass  # Pillow decides whether the file is damaged or only unusual, and says it in words
            else:
                if fast.shape == (self.size[1], self.size[0], 4):
                    return fast
        return _with_pillow(self._image)

    def _is_plain(self) -> bool:
        """Whether libspng and Pillow agree on the file.

        | file                                   | libspng binding                            |
        | 8 or 16 bits, RGB or RGBA              | same pixels, in a third of the time        |
        | a transparent colour or palette (tRNS) | drops the transparency                     |
        | palette, grey, 16-bit grey             | left to Pillow: rare, and not worth a rule |
        """
        image = self._image
        return image.format == "PNG" and image.mode in {"RGB", "RGBA"} and "transparency" not in image.info


def _open(data: bytes) -> Image.Image:
    if not data:
        raise Undecodable("is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata (a bad EXIF block, an odd animation), never about pixels
            return Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except UnidentifiedImageError as error:
        known = data.startswith(_SIGNATURES)
        raise Undecodable("is damaged or ends early" if known else "is not a PNG or JPEG") from error
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError) as error:
        raise Undecodable("is damaged or ends early") from error


def _with_pillow(image: Image.Image) -> Pixels:
    try:
        if image.mode.startswith("I"):
            # 16-bit grey: `convert` clips such values to white instead of scaling them.
            deep = np.asarray(image)
            shade = np.clip(deep >> 8, 0, 255).astype(np.uint8)
            return np.dstack((shade, shade, shade, np.full_like(shade, 255)))
        return np.asarray(image.convert("RGBA"))
    except OSError as error:
        raise Undecodable("ends early" if "truncated" in str(error) else "is damaged") from error
    except (ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError) as error:
        raise Undecodable("is damaged") from error
