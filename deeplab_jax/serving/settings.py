"""Settings of the server, and the error with which it refuses a request."""

import dataclasses

from deeplab_jax.fields import above, at_least


@dataclasses.dataclass(slots=True)
class ServeConfig:
    """Limits on each request and on all of them together, which bound memory and time."""

    max_bytes: int = at_least(1, default=16_000_000)  # of an image file
    max_pixels: int = at_least(1, default=4_200_000)  # of an image
    max_side: int = at_least(1, default=4096)  # pixels
    max_requests: int = at_least(1, default=8)  # at once, including the one on the device; others are told to retry
    max_connections: int = at_least(1, default=64)  # beyond, the one that has been idle for longest is closed
    max_per_address: int = at_least(1, default=32)  # connections
    max_rate: int = at_least(1, default=50)  # requests in a second from one address
    max_shapes: int = at_least(1, default=16)  # image sizes for which compiled programs are kept
    upload_seconds: float = above(0, default=30.0)  # for a file to arrive
    header_seconds: float = above(0, default=10.0)  # for a request's header to arrive
    idle_seconds: float = above(0, default=5.0)  # between two requests on one connection


class RefusedError(Exception):
    """A refused request: an HTTP status and one line that says why."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
        self.message = message
