"""Requests made from the service's own description, by schemathesis."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path

from siege.service import Service, report

CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"
CHECKS += ",response_headers_conformance,unsupported_method"
MEANT = {503, 507}  # of the statuses from 500 on: those that say what to do
TOKEN = "correct-Horse-battery-staple"


def fuzz(cases: int, seed: int) -> int:
    """Send generated requests to two services, one with a token; the exit code."""
    promises: dict[str, bool] = {}
    for token in (None, TOKEN):
        with tempfile.TemporaryDirectory(prefix="siege-") as name:
            file = Path(name, "token")
            file.write_text(TOKEN)
            options = ["--token-file", str(file)] if token else []
            with Service("--workers", "2", "--max-mb", "4", *options) as service:
                promises |= _fuzz(service, cases, seed, token, Path(name))
    return report(promises)


def _fuzz(
    service: Service, cases: int, seed: int, token: str | None, folder: Path
) -> dict[str, bool]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    address = f"{service.address}/openapi.json"
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
        described = json.load(answer)
    before = len(service.log.read_text().splitlines())  # it was not ready at first
    operations = [each for path in described["paths"].values() for each in path.values()]
    command = [sys.executable, "-m", "schemathesis.cli", "run", address]
    command += ["--max-examples", str(-(-cases // len(operations)))]
    command += ["--checks", CHECKS, "--no-color", "--generation-database", "none"]
    command += ["--continue-on-failure", "--request-timeout", "30"]
    command += [f"--header={name}: {value}" for name, value in headers.items()]
    with_token = "with a token" if token else "without a token"
    generated, failed = 0, False
    while generated < cases and not failed:  # some operations have few cases
        run = subprocess.run(
            [*command, "--seed", str(seed)], capture_output=True, text=True, cwd=folder
        )
        counts = re.findall(r"(\d[\d,]*) generated", run.stdout)
        generated += sum(int(count.replace(",", "")) for count in counts)
        failed = run.returncode != 0 or not generated
        if failed:
            print(run.stdout[-8000:], run.stderr[-2000:])
        print(f"{with_token}: {generated} cases of {len(operations)} operations, to seed {seed}")
        seed += 1
    lines = service.log.read_text().splitlines()[before:]
    statuses = Counter(json.loads(line).get("status") for line in lines)
    print(", ".join(f"{count} x {status}" for status, count in statuses.items() if status))
    faults = [line for line in lines if '"error"' in line]
    print(*faults[:3], sep="\n")
    return {
        f"{with_token}: each answer is as described": not failed,
        f"{with_token}: no status from 500 on but 503 and 507": not any(
            status for status in statuses if status and status >= 500 and status not in MEANT
        ),
        f"{with_token}: no fault is in the log": not faults,
        f"{with_token}: {cases} cases or more were sent": generated >= cases,
        f"{with_token}: the service is ready afterwards": service.status("/readyz") == 200,
    }
