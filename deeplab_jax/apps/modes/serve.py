"""Serves a trained network on this machine: a page to drop images on, and a JSON endpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import pathlib
import socket

import numpy as np

from deeplab_jax.apps.assembly import network, open_data
from deeplab_jax.apps.assembly.predictor_settings import predictor_options
from deeplab_jax.apps.request import CHECKPOINT, Flag, Needs, Request
from deeplab_jax.config import Config
from deeplab_jax.inference.predictor import canvas_size, make_segmenter
from deeplab_jax.serving.service import Service
from deeplab_jax.types import UserError

_WARM_SIZE = (385, 513)  # (height, width) of an image segmented before the first request


FLAGS = (CHECKPOINT, Flag("port", 8080, "port of the page; 0: any free port"))
NEEDS = Needs.WEIGHTS


def run(request: Request) -> int:
    serve(request.config, request.workdir, **request.flags)
    return 0


def serve(config: Config, workdir: pathlib.Path, checkpoint: str, port: int) -> None:
    """Answers requests with the workdir's best checkpoint, or `checkpoint`, until it is interrupted.

    Images go through the network according to `config.inference`, as in evaluation and prediction.

    Raises:
      UserError: if there is no checkpoint, a package is missing, or the port is taken.
    """
    require_packages()
    import uvicorn

    from deeplab_jax.serving.connections import uvicorn_config
    from deeplab_jax.serving.guard import HOST
    from deeplab_jax.serving.web import make_app

    with open_socket(HOST, port) as listener:
        service = make_service(config, workdir, checkpoint)
        print("compiling for a first size ...", flush=True)
        service.segment(np.zeros((*_WARM_SIZE, 3), np.uint8))
        app = make_app(service, {"network": network_line(config), "inference": dataclasses.asdict(config.inference)})
        settings = uvicorn_config(app, config.serve, log_level="error")
        print(f"http://{HOST}:{listener.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn re-raises it after a clean shutdown
            uvicorn.Server(settings).run(sockets=[listener])


def require_packages() -> None:
    """Raises UserError with the pip command if a package needed only for serving is missing."""
    if any(importlib.util.find_spec(package) is None for package in ("starlette", "uvicorn")):
        raise UserError("--mode=serve: needs two more packages: pip install starlette uvicorn")


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
      UserError: if the port is taken or invalid.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--port={port}: {reason}; choose another, or 0 for any that is free") from None


def make_service(config: Config, workdir: pathlib.Path, checkpoint: str = "") -> Service:
    """The workdir's network as a service, within the limits of `config.serve`."""
    info = open_data.find_info(config, workdir)
    if not info.is_rgb:
        raise UserError(f"--mode=serve: takes photographs, but data set {info.name} has {info.channels} channels")
    model = network.build(config, info)
    variables = network.load_variables(config, model, workdir, checkpoint)
    options = predictor_options(config, info)
    return Service(
        functools.partial(make_segmenter, model.apply, variables, options),
        functools.partial(canvas_size, options=options),
        info,
        config.serve,
    )


def network_line(config: Config) -> str:
    """The network in a few words."""
    head, backbone = (part.name.rpartition(".")[2] for part in (config.model.head, config.model.backbone))
    return f"{head} on {backbone}, output stride {config.model.output_stride}"
