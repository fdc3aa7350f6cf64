"""What importing pinglow loads, and what it does not need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import pinglow

OPTIONAL = [
    *("onnx", "onnxruntime", "onnxscript", "openvino", "nncf"),
    *("torchvision", "ultralytics", "faster_coco_eval", "pycocotools"),
    *("fastapi", "uvicorn", "multipart", "python_multipart"),
    *("ray", "av", "cv2"),
]


def without(packages: list[str]) -> str:
    """Code after which these packages look as if they were not installed."""
    return f"""
import importlib.metadata
import sys

installed = importlib.metadata.Distribution.from_name

def from_name(name):
    if name.replace("-", "_") in {packages}:
        raise importlib.metadata.PackageNotFoundError(name)
    return installed(name)

importlib.metadata.Distribution.from_name = from_name  # Lightning's parts ask here

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages}:
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def modules_after(statement: str) -> set[str]:
    """Top-level packages that are loaded after a statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    return {name.partition(".")[0] for name in json.loads(run(code))}


@pytest.mark.parametrize("statement", ["import pinglow", "import pinglow; dir(pinglow)"])
def test_importing_pinglow_is_light(statement: str) -> None:
    loaded = modules_after(statement)
    assert "pinglow" in loaded
    assert not loaded & {"torch", "numpy", "scipy", "PIL", "typer", "lightning"}


def test_the_command_line_starts_light() -> None:
    loaded = modules_after("import pinglow.cli.main")
    assert "typer" in loaded
    assert not loaded & {"torch", "numpy", "scipy", "PIL", "lightning", "matplotlib"}


def test_every_module_imports_without_the_optional_packages() -> None:
    code = f"""{without(OPTIONAL)}
import importlib, pkgutil
import pinglow

def fail(name):
    raise

found = [m.name for m in pkgutil.walk_packages(pinglow.__path__, "pinglow.", onerror=fail)]
found = [name for name in found if not name.startswith("pinglow.serve.")]  # made of them
for name in found:
    importlib.import_module(name)
assert not set({OPTIONAL}) & {{name.partition(".")[0] for name in sys.modules}}
print(len(found), *found)
"""
    count, *names = run(code).split()
    assert int(count) == len(names)
    assert {"pinglow.cli.main", "pinglow.training.run", "pinglow.nn.unet"} <= set(names)


def test_hidden_packages_look_as_if_they_were_not_installed() -> None:
    look = "import importlib.util; print(importlib.util.find_spec('wave') is None)"
    assert run(look).strip() == "False"
    assert run(f"{without(['wave'])}{look}").strip() == "True"


@pytest.mark.parametrize("name", pinglow.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(pinglow, name) is not None
    assert name in dir(pinglow)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'predict'"):
        pinglow.predict  # type: ignore[attr-defined]  # noqa: B018
