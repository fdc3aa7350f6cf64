"""The examples of README and docs: Python runs, TOML is read, commands and options exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from markdown_it import MarkdownIt
from typer.core import TyperGroup

from finders import finder_settings, save_still
from pinglow.archive.merge import merge
from pinglow.archive.place import Place
from pinglow.archive.run import run_archive
from pinglow.backends.opening import open_model
from pinglow.cli.main import app
from pinglow.inference.predictor import Predictor
from pinglow.io.frames import read_frame
from pinglow.output.sink import FrameRecord
from pinglow.output.sinks import open_sinks
from pinglow.serve.settings import ServeSettings
from pinglow.structures import Prediction
from pinglow.study.grid import load_study, plan_runs
from serving import LocalPool, serve

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    # Their Python needs the detectors, or a service: tests/integrations and tests/serve have it.
    if page.name not in ("detectors.md", "serve.md")
]
ALL_PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language on a page."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    return [token.content for token in tokens if token.type == "fence" and token.info == language]


def commands(page: Path) -> Iterator[list[str]]:
    """The command lines of a page: of indented blocks, whole; of code in sentences, as they are."""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "code_block":
            lines = token.content.replace("\\\n", " ").splitlines()
        else:
            spans = [child for child in token.children or [] if child.type == "code_inline"]
            lines = [span.content.replace("\n", " ") for span in spans]
        for line in lines:
            words = line.split(" #")[0].split(" | ")[0]  # what it is piped to is not ours
            if words.split()[:1] in (["pinglow"], ["python"], ["make"], ["torchrun"]):
                yield shlex.split(words)


def cases(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT).as_posix()}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, language))
    ]


@pytest.mark.parametrize("source", cases("python"))
def test_python_runs(
    source: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {}
    if "deployed/model.xml" in source:  # what the page has exported before
        monkeypatch.chdir(request.getfixturevalue("deployed"))
        values["image"] = np.zeros((1, 1, 64, 64), np.float32)
    elif "localhost:8080" in source:  # the service, in a folder with a frame
        folder, address = request.getfixturevalue("served")
        monkeypatch.chdir(folder)
        source = source.replace("localhost:8080", address)
    elif "localhost:8000" in source:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr("tritonclient.http.InferenceServerClient", Triton)
    elif "found/" in source:
        monkeypatch.chdir(request.getfixturevalue("found"))
    elif "archive/" in source or "tables/" in source:
        monkeypatch.chdir(request.getfixturevalue("archived"))
    else:
        monkeypatch.chdir(ROOT)
    exec(source, values)
    if "InferenceServerClient" in source:
        expected = Predictor.load("pinglow-fast", backend="onnxruntime")(values["frame"]).targets
        assert expected
        if "prediction" in values:
            assert values["prediction"].targets == expected
        else:
            assert [row[1] for row in values["found"].as_numpy("targets")] == [
                target.x for target in expected
            ]


class Triton:
    """A client whose server has what `pinglow export` writes of a bundled model."""

    def __init__(self, url: str) -> None:
        self.url = url

    def infer(self, name: str, inputs: list[Any]) -> Any:
        (image,) = inputs
        assert (image.name(), image.datatype()) == ("image", "FP32")
        images = np.frombuffer(image._get_binary_data(), np.float32).reshape(image.shape())
        backend, _ = open_model(name, "onnxruntime", "cpu")
        return SimpleNamespace(as_numpy={"probability": backend.run(images, None)}.__getitem__)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Return a folder that holds frame.npy, and the address of a service."""
    np.save(tmp_path / "frame.npy", read_frame(ROOT / "examples" / "images" / "000000.png"))
    pool = LocalPool(ServeSettings())
    pool.predictor = Predictor.load("pinglow-fast", backend="onnxruntime", device="cpu")
    with serve(pool) as address:
        yield tmp_path, address


@pytest.fixture
def deployed(exported: dict[str, Path]) -> Path:
    """Return a folder that holds deployed/model.xml."""
    folder = exported["openvino"].parents[1]
    if not (folder / "deployed").exists():
        (folder / "deployed").symlink_to("openvino")
    return folder


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """Return a folder that holds found/, with tables of a frame that has a target."""
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    probability = np.zeros((40, 60), np.float32)
    probability[10:13, 20:23] = 0.9
    with open_sinks(["csv", "jsonl", "coco", "parquet", "crops"], tmp_path / "found") as sinks:
        for sink in sinks:
            sink.write(
                FrameRecord("a.png", 0, "a", np.zeros((40, 60), np.uint16), Prediction(probability))
            )
    return tmp_path


@pytest.fixture
def archived(tmp_path: Path) -> Path:
    """Return a folder that holds archive/ with results of two cameras, and tables/ of them."""
    for name in ("cam1/20260814T101500", "cam2/20260814T115900"):
        save_still(tmp_path / "in" / f"{name}.png")
    settings = finder_settings()
    run_archive([str(tmp_path / "in")], settings, Place(f"{tmp_path}/archive"))
    merge(Place(f"{tmp_path}/archive/{settings.name}"), tmp_path / "tables")
    return tmp_path


@pytest.mark.parametrize("source", cases("toml"))
def test_toml_is_read(source: str, tmp_path: Path) -> None:
    values = tomllib.loads(source)
    if "arms" in values:
        path = tmp_path / "study.toml"
        path.write_text(source)
        assert plan_runs(load_study(path))


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist(page: Path) -> None:
    faults = [fault for words in commands(page) if (fault := fault_of(words))]
    assert faults == []


def fault_of(words: list[str]) -> str | None:
    """What is wrong with a command line; None: nothing."""
    if words[0] == "make":
        rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        missing = [
            word for word in words[1:] if re.fullmatch(r"[\w-]+", word) and word not in rules
        ]
        return f"make has no {missing}" if missing else None
    if words[0] in ("python", "torchrun"):
        if "-m" in words:
            module, *words = words[words.index("-m") + 1 :]
            return fault_of(["pinglow", *words]) if module == "pinglow" else None
        script = ROOT / words[1]
        known = script.is_file() or (script / "__main__.py").is_file()
        known = known or words[1].startswith("experiments/")
        return None if known else f"there is no {words[1]}"
    return fault_of_pinglow(words[1:])


def fault_of_pinglow(words: list[str]) -> str | None:
    command = typer.main.get_command(app)
    while isinstance(command, TyperGroup) and words and words[0] not in ("--help", "--version"):
        name, *words = words
        found = command.commands.get(name)
        if found is None:
            return f"pinglow has no command {name}"
        command = found
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    unknown = sorted(used - known - {"--help"})
    return f"pinglow {command.name} has no option {', '.join(unknown)}" if unknown else None


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("pinglow predict x --out y", None),
        ("pinglow foretell x", "pinglow has no command foretell"),
        ("pinglow predict x --outt y", "pinglow predict has no option --outt"),
        ("python -m pinglow data gather", "pinglow has no command gather"),
        ("python benchmarks/none.py", "there is no benchmarks/none.py"),
        ("make coffee", "make has no ['coffee']"),
    ],
)
def test_what_does_not_exist_is_found(words: str, fault: str | None) -> None:
    assert fault_of(words.split()) == fault


def test_the_site_has_every_page() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"[\w/-]+\.md", str(site["project"]["nav"])))
    assert listed == {
        page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")
    }
