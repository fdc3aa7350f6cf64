"""What all results of one kind have in common: the model, and the options that change results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pinglow._version import __version__
from pinglow.backends.opening import open_model
from pinglow.errors import ModelError
from pinglow.inference.ignored import Ignored
from pinglow.inference.predictor import Predictor
from pinglow.models.card import EXPORTED, find_model, read_card

if TYPE_CHECKING:
    from pinglow.inference.boxes import BoxPredictor

SETTINGS: Final = "settings.json"
"""Where they stand in the folder of the results."""


@dataclass(frozen=True)
class Settings:
    """How frames become results; it can be sent to other processes and machines.

    Attributes:
        model: The name or path of the model.
        card: The name on its card.
        digest: SHA-256 of the model's file.
        min_score: The smallest score of a target.
        ignored: What of each frame is no part of the picture.
        options: All that changes results besides the model, as JSON with sorted keys.
        backend: See `Predictor.load`; results may differ by rounding.
        device: The same.
    """

    model: str
    card: str
    digest: str
    min_score: float
    ignored: Ignored | None
    options: str
    backend: str = "auto"
    device: str = "auto"

    @property
    def name(self) -> str:
        """The folder of the results, in the destination."""
        kind = hashlib.sha256(f"{self.digest}{self.options}".encode()).hexdigest()
        return f"{Path(self.card).name}-{kind[:8]}"

    def describe(self) -> dict[str, Any]:
        """What is kept beside the results."""
        return {
            "model": self.card,
            "model_sha256": self.digest,
            "options": json.loads(self.options),
            "pinglow": __version__,
        }

    def load_predictor(self) -> Predictor | BoxPredictor:
        """The model, loaded here.

        Raises:
            ModelError: It is not there, or not the one that the settings are of.
            MissingExtraError: See `Predictor.load`.
            OptionError: See there.
        """
        if (found := digest_of(self.model)) != self.digest:
            raise ModelError(
                f"{self.model} is another file here ({found[:8]}, not {self.digest[:8]}): copy "
                "the same model to every machine"
            )
        predictor = Predictor.load(
            self.model,
            backend=self.backend,
            device=self.device,
            min_score=self.min_score,
            ignore=self.ignored,
        )
        if isinstance(predictor, Predictor):
            predictor.backend.make_repeatable()
        return predictor


def make_settings(
    model: str = "pinglow-fast",
    *,
    min_score: float | None = None,
    ignore: Sequence[str] = (),
    crop: str | None = None,
    backend: str = "auto",
    device: str = "auto",
) -> Settings:
    """Settings as the command line names them.

    Args:
        model: A bundled model's name, or the path of weights or of an exported model.
        min_score: A detection is a target if its score is above this; the card's by default.
        ignore: See `Ignored.parse`.
        crop: See there.
        backend: See `Predictor.load`.
        device: See there.

    Raises:
        ModelError: The model is unknown or the file cannot be used.
        OptionError: An option has an impossible value.
        FrameError: A mask cannot be read.
        DataError: Polygons cannot be read.
    """
    path = find_model(model)
    exported = path.suffix.lower() in EXPORTED
    card = open_model(model, device="cpu")[1] if exported else read_card(model)
    score = card.choose_score(min_score)
    # A file counts by what is in it, wherever it lies.
    words = [_sha256(Path(word)) if Path(word).is_file() else word for word in ignore]
    options = {"crop": crop, "ignore": words, "min_score": score}
    return Settings(
        model=model,
        card=card.name,
        digest=digest_of(model),
        min_score=score,
        ignored=Ignored.parse(ignore, crop),
        options=json.dumps(options, sort_keys=True),
        backend=backend,
        device=device,
    )


def digest_of(model: str) -> str:
    """SHA-256 of a model's file in hex, of an OpenVINO model with its weights.

    Raises:
        ModelError: There is no such model.
    """
    path = find_model(model)
    weights = path.with_suffix(".bin")
    return _sha256(path, *([weights] if path.suffix.lower() == ".xml" else []))


def _sha256(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
