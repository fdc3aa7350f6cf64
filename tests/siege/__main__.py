"""Besiege the service: overload, an hour of load, hostile clients, killed workers, a stop.

python tests/siege overload --seconds 600
python tests/siege soak --seconds 3600
python tests/siege schema --cases 10000
python tests/siege attacks                    all of them; --cases 100 takes some, evenly
python tests/siege kill --points 20
python tests/siege drain --times 5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from siege.deaths import drain, kill
from siege.hostile import besiege
from siege.overload import overload, soak
from siege.schema import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, seconds in (("overload", 600), ("soak", 3600)):
        command = commands.add_parser(name)
        command.add_argument("--seconds", type=float, default=seconds)
        command.add_argument("--model", default="pinglow-fast")
    commands.choices["soak"].add_argument("--rate", type=float, default=2)
    command = commands.add_parser("schema")
    command.add_argument("--cases", type=int, default=10_000, help="of each of two services")
    command.add_argument("--seed", type=int, default=1)
    command = commands.add_parser("attacks")
    command.add_argument("--cases", type=int, help="all, unless given")
    command.add_argument("--bound-ms", type=float, default=1000)
    command.add_argument("--most-mb", type=float, default=1500)
    command = commands.add_parser("kill")
    command.add_argument("--points", type=int, default=20)
    command.add_argument("--model", default="pinglow-fast")
    command = commands.add_parser("drain")
    command.add_argument("--times", type=int, default=5)
    command.add_argument("--model", default="pinglow-fast")
    given = vars(parser.parse_args())
    run = {
        **{"overload": overload, "soak": soak, "schema": fuzz},
        **{"attacks": besiege, "kill": kill, "drain": drain},
    }[given.pop("command")]
    return int(run(**given))


if __name__ == "__main__":
    sys.exit(main())
