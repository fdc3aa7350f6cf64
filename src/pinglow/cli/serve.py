"""pinglow serve: a model as an HTTP service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pinglow.cli.output_file import echo
from pinglow.cli.predict import Device
from pinglow.cli.sensitivity import MinScore
from pinglow.extras import import_extra


def serve(
    model: Annotated[
        str,
        typer.Option(
            help="A bundled model (see `pinglow models`), a run folder, a weights file, or an "
            "exported model."
        ),
    ] = "pinglow-fast",
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen on; one that other machines reach needs --token-file."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 8080,
    device: Device = "auto",
    backend: Annotated[
        str, typer.Option(help="auto (the fastest installed), torch, onnxruntime or openvino.")
    ] = "auto",
    min_score: MinScore = None,
    workers: Annotated[
        int, typer.Option(help="Processes with a model each; one uses all cores.", metavar="N")
    ] = 1,
    queue: Annotated[
        int, typer.Option(help="Frames that may wait; one more is refused (429).", metavar="N")
    ] = 64,
    max_mb: Annotated[
        float, typer.Option(help="Megabytes of a request, at most.", metavar="MB")
    ] = 64.0,
    max_pixels: Annotated[int, typer.Option(help="Pixels of a frame, at most.", metavar="N")] = 2
    ** 24,
    wait_ms: Annotated[
        float,
        typer.Option(
            help="Milliseconds that a frame waits for others to be computed with, on a card.",
            metavar="MS",
        ),
    ] = 5.0,
    jobs: Annotated[
        int, typer.Option(help="Jobs (/v1/jobs) that run at a time; others wait.", metavar="N")
    ] = 1,
    max_job_mb: Annotated[
        float, typer.Option(help="Megabytes of a clip or an archive, at most.", metavar="MB")
    ] = 2048.0,
    streams: Annotated[
        int, typer.Option(help="Streams (/v1/streams) that are open at a time.", metavar="N")
    ] = 8,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with the token that clients must send.", metavar="FILE"),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Whoever reaches --host may use the service, under whatever name.",
        ),
    ] = False,
) -> None:
    """Serve a model over HTTP: frames in, targets out.

    Stop it with Ctrl-C or SIGTERM: what was accepted is answered before.

    Example: pinglow serve

    Example: curl --data-binary @frame.png http://127.0.0.1:8080/v1/predict
    """
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        import_extra(package, "serve", "pinglow serve")
    from pinglow.models.card import find_model
    from pinglow.serve.server import run
    from pinglow.serve.settings import ServeSettings, read_token

    settings = ServeSettings(
        model=model,
        host=host,
        port=port,
        device=device,
        backend=backend,
        min_score=min_score,
        workers=workers,
        queue=queue,
        max_mb=max_mb,
        max_pixels=max_pixels,
        wait_ms=wait_ms,
        jobs=jobs,
        max_job_mb=max_job_mb,
        streams=streams,
        token=None if token_file is None else read_token(token_file),
        insecure=insecure,
    )
    find_model(model)
    run(settings, lambda address: echo(f"{model} is served at {address} (Ctrl-C stops it)"))
