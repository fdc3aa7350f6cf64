"""Send frames in order to a running `pinglow serve` and print targets with numbers of tracks.

    pip install websockets
    python examples/clients/stream.py ws://127.0.0.1:8080 frames/*.png --rate 25

A token is taken from PINGLOW_TOKEN. Frames are sent at the rate, as a camera does. Where the
service is slower, it leaves out the oldest that wait.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

PATIENCE = 30  # seconds for the last answers


async def main() -> None:
    """Send frames and print answers, at the same time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address")
    parser.add_argument("frames", nargs="+", type=Path)
    parser.add_argument("--rate", type=float, default=25, help="frames a second")
    arguments = parser.parse_args()
    token = os.environ.get("PINGLOW_TOKEN")
    protocols = [Subprotocol(f"bearer.{token}")] if token else None
    address = f"{arguments.address}/v1/streams?rate={arguments.rate:g}"
    async with connect(address, subprotocols=protocols) as stream:
        printing = asyncio.create_task(print_answers(stream, len(arguments.frames) - 1))
        for path in arguments.frames:
            await stream.send(path.read_bytes())
            await asyncio.sleep(1 / arguments.rate)
        await asyncio.wait_for(printing, PATIENCE)


async def print_answers(stream: ClientConnection, last: int) -> None:
    """Print what is found, until the last frame is answered; it is never left out."""
    async for line in stream:
        print(str(line).strip(), flush=True)
        if json.loads(line)["frame"] == last:
            return


if __name__ == "__main__":
    asyncio.run(main())
