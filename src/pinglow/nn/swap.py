"""Change the convolutions of a whole network: plain to shaped, and shaped to plain. Ours."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from pinglow.nn.conv import GaussianConv2d


def fold_kernels(model: nn.Module) -> nn.Module:
    """A copy of a network in which every module that can is a plainer one with equal outputs.

    A module says so by a method ``reparameterize()``, which gives what stands in its place. Static
    Gaussian × pinwheel kernels become one nn.Conv2d each, banks one n-fold nn.Conv2d and the
    reduction; the shape costs nothing any more. Modules that share weights still share them.
    """
    model = copy.deepcopy(model)
    plain: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        reparameterize: Callable[[], nn.Module] | None = getattr(module, "reparameterize", None)
        if reparameterize is not None:
            plain[module] = reparameterize().train(module.training)
    return _replace(model, plain)


def shape_convolutions(
    model: nn.Module, where: str, *, keep_outputs: bool = True, **shape: Any
) -> list[str]:
    """Turn chosen convolutions of a network into GaussianConv2d, in place.

    1 x 1 convolutions have nothing to shape and are left, as are those that are shaped already.

    Args:
        model: Any network; it is changed.
        where: A regular expression that the whole path of a layer has to match, such as
            "stem|stage1[.].*".
        keep_outputs: See `GaussianConv2d.from_conv`.
        **shape: sigma, orientation, arms, clip of `GaussianConv2d`.

    Returns:
        The paths of all shaped convolutions that match, those that were shaped before included.

    Raises:
        ValueError: No convolution matches, or one cannot be shaped so.
    """
    try:
        pattern = re.compile(where)
    except re.error as error:
        raise ValueError(f"where={where!r} is not a regular expression: {error}") from error
    chosen = {
        path: layer
        for path, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1) and pattern.fullmatch(path)
    }
    if not chosen:
        raise ValueError(
            f"where={where!r} matches no convolution larger than 1 x 1; look at the paths in "
            "model.named_modules()"
        )
    shaped: dict[nn.Module, nn.Module] = {}
    for path, layer in chosen.items():
        if isinstance(layer, GaussianConv2d) or layer in shaped:
            continue
        try:
            shaped[layer] = GaussianConv2d.from_conv(layer, keep_outputs=keep_outputs, **shape)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    _replace(model, shaped)
    return list(chosen)


def copy_shapes(model: nn.Module, example: nn.Module) -> None:
    """Shape a network's convolutions as those of another one of the same layout, in place.

    Only the structure is taken over: load the example's state afterwards.
    """
    layers = dict(model.named_modules())
    _replace(
        model,
        {
            layers[path]: GaussianConv2d.from_conv(layers[path], **layer.shape_options)
            for path, layer in example.named_modules()
            if isinstance(layer, GaussianConv2d) and type(layers.get(path)) is nn.Conv2d
        },
    )


def _replace(model: nn.Module, replacements: dict[nn.Module, nn.Module]) -> nn.Module:
    """Put layers in the place of others, everywhere in a network; the network, or its stand-in.

    Attributes that a framework has hung on a convolution (ultralytics: i, f, type, np) go along.
    """
    own = vars(nn.Conv2d(1, 1, 1)).keys()
    for old, new in replacements.items():
        if isinstance(old, nn.Conv2d):
            vars(new).update({k: v for k, v in vars(old).items() if k not in own})
    if model in replacements:
        return replacements[model]
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module in replacements:
            model.set_submodule(path, replacements[module])
    return model
