"""What a server takes, and how it says no."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a request and on all of them together; memory and time are bounded by them."""

    max_bytes: int  # of an image file
    max_pixels: int  # of an image
    max_side: int  # pixels
    max_requests: int  # at once, the one on the device included; others are told to come back
    max_shapes: int  # sizes for which programs are kept
    upload_seconds: float  # for a file to arrive


class RefusedError(Exception):
    """A request that is not served: a status of HTTP and one line that says why."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
        self.message = message
