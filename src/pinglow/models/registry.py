"""The networks by name: what recipes and cards may say of each, without torch until one is built.

A network of another package is an entry point of the group ``pinglow.models`` that names its
`NetworkConfig`, or its class: then the constructor's arguments are its configuration. A recipe may
also name either as ``module:Class``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from pinglow.errors import ModelError, explain_fault
from pinglow.plugins import constructor_fields, find_plugin, load_object, plugin_names

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["pixels", "boxes"]
"""What a network finds: the pixels of targets, or boxes around them."""

GROUP: Final = "pinglow.models"
"""The group of entry points by which other packages add networks."""


class NetworkConfig(BaseModel):
    """The type of a network and its arguments, as a recipe and a card have them.

    Attributes:
        kind: What it finds.
        network: Where its class is, as ``module:Class``; imported when one is built.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: ClassVar[Kind] = "pixels"
    network: ClassVar[str]

    type: str

    @property
    def multiple(self) -> int:
        """By how much the network pools, pixels."""
        return 1

    def arguments(self) -> dict[str, Any]:
        """What its class is called with."""
        return self.model_dump(exclude={"type"})

    def build(self) -> nn.Module:
        """A new network.

        Raises:
            ModelError: The arguments do not fit together.
            MissingExtraError: Its library is not installed.
        """
        network = load_object(self.network)
        try:
            built: nn.Module = network(**self.arguments())
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"network {self.type} cannot be built: {error}") from error
        return built


_Width = Annotated[int, Field(gt=0, le=8192)]
_Depth = Annotated[int, Field(gt=0, le=256)]


class PinwheelUNetConfig(NetworkConfig):
    """See `pinglow.nn.PinwheelUNet`; the defaults are those of the fast form."""

    network = "pinglow.nn:PinwheelUNet"

    in_channels: Literal[1] = 1
    widths: tuple[_Width, ...] = Field(default=(16, 32, 64, 128), min_length=2, max_length=16)
    depths: tuple[_Depth, ...] = (1, 1, 1, 1)
    attention: Literal["free", "gaussian", "fixed", "learned", "max", "steered"] = "learned"
    patch: int = Field(default=2, ge=1, le=64)
    convolution: Literal["plain", "gaussian"] = "plain"
    shaped_levels: int = Field(default=2, ge=0, le=16)

    @property
    def multiple(self) -> int:
        """See `NetworkConfig`."""
        return int(self.patch * 2 ** (len(self.widths) - 1))

    @model_validator(mode="after")
    def _check_levels(self) -> PinwheelUNetConfig:
        if len(self.widths) != len(self.depths):
            raise ValueError("widths and depths need the same length")
        return self


class DetectorConfig(NetworkConfig):
    """What the detectors have in common."""

    kind = "boxes"

    gaussian: bool = Field(default=False, description="GaussianConv2d in the first layers")
    box_loss: Literal["own", "ciou", "sdb", "diff"] = Field(
        default="own", description="the loss for boxes; own: the detector's library's"
    )

    @property
    def multiple(self) -> int:
        """See `NetworkConfig`."""
        return 32


class YoloConfig(DetectorConfig):
    """See `pinglow.integrations.yolo.YoloDetector`; the type is its layout."""

    network = "pinglow.integrations.yolo:YoloDetector"

    def arguments(self) -> dict[str, Any]:
        """See `NetworkConfig`."""
        return super().arguments() | {"layout": self.type}


class RetinaNetConfig(DetectorConfig):
    """See `pinglow.integrations.retinanet.RetinaNetDetector`; the type ends with its body."""

    network = "pinglow.integrations.retinanet:RetinaNetDetector"

    def arguments(self) -> dict[str, Any]:
        """See `NetworkConfig`."""
        return super().arguments() | {"body": self.type.removeprefix("retinanet-")}


NETWORKS: Final[dict[str, type[NetworkConfig]]] = {
    "PinwheelUNet": PinwheelUNetConfig,
    "yolov8n": YoloConfig,
    "yolov8n-p2": YoloConfig,
    "yolov8s-p2": YoloConfig,
    "retinanet-small": RetinaNetConfig,
    "retinanet-resnet50": RetinaNetConfig,
}
"""Networks by the name that recipes and weights use."""


def find_network(name: object) -> type[NetworkConfig]:
    """What is known of a network.

    Args:
        name: A key of `NETWORKS`, an entry point's name, or ``module:Class``.

    Raises:
        ModelError: The name is unknown, or what it stands for is no network.
        MissingExtraError: Its package cannot be imported.
    """
    if name in NETWORKS:
        return NETWORKS[str(name)]
    found = find_plugin(GROUP, name) if isinstance(name, str) else None
    if found is None:
        known = ", ".join([*NETWORKS, *plugin_names(GROUP)])
        raise ModelError(f"network.type is {name!r}; use one of {known}, or module:Class")
    if isinstance(found, type) and issubclass(found, NetworkConfig):
        return found
    return _config_of(found, str(name), name in plugin_names(GROUP))


@functools.cache
def _config_of(network: Any, name: str, offered: bool) -> type[NetworkConfig]:
    """The configuration of a class that has none: the arguments of its constructor.

    Args:
        network: The class.
        name: What the recipe or the card calls it.
        offered: Whether its package offers it to pinglow, by an entry point.
    """
    from torch import nn

    # A model file can name anything that is installed, and some torch modules download and unpickle
    # what their constructor is told to. So a class that nobody offers must say that it is meant for
    # pinglow.
    if not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise ModelError(f"network.type is {name!r}, which is no network: name a torch module")
    if not offered and getattr(network, "kind", None) not in get_args(Kind):
        raise ModelError(
            f'network.type is {name!r}, a class not made for pinglow: give it kind = "pixels"'
        )

    class ClassConfig(NetworkConfig):
        kind = getattr(network, "kind", "pixels")

        @property
        def multiple(self) -> int:
            return int(getattr(network, "multiple", 1))

    ClassConfig.network = f"{network.__module__}:{network.__qualname__}"
    return create_model(network.__name__, __base__=ClassConfig, **constructor_fields(network))


def parse_network(values: Mapping[str, Any]) -> NetworkConfig:
    """Check {"type": a network's name, **arguments}, the arguments left out being the defaults.

    Raises:
        ModelError: The type or an argument is unknown, or a value does not fit.
        MissingExtraError: See `find_network`.
    """
    config = find_network(values.get("type"))
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise ModelError(explain_fault(error, config, "network")) from error


def build_network(values: Mapping[str, Any]) -> nn.Module:
    """A new network from {"type": a network's name, **arguments}.

    Raises:
        ModelError: See `parse_network`; or the arguments do not fit together.
        MissingExtraError: Its library is not installed.
    """
    return parse_network(values).build()
