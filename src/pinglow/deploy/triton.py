"""The config of a model in the model repository of NVIDIA's Triton Inference Server.

Source: the model configuration of Triton (model_config.proto) and what its ONNX Runtime backend
does with it. docs/guides/export.md says what a client has to do.
"""

from __future__ import annotations

import re
from typing import Final

CONFIG: Final = "config.pbtxt"
"""Name of the file, beside the folders of the model's versions."""

VERSION: Final = "1"
"""Name of the folder that the model goes to."""

_TEMPLATE: Final = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 16

# The normalized, enlarged frame: 1 x height x width, from 32 x 32 on. Triton adds the batch.
input [
  {{ name: "image" data_type: TYPE_FP32 dims: [ 1, -1, -1 ] }}
]
# Of the same size.
output [
  {{ name: "probability" data_type: TYPE_FP32 dims: [ 1, -1, -1 ] }}
]

# Requests of one size that wait at the same time are computed together. None waits for others.
dynamic_batching {{ }}

# On a card if Triton sees one, else on the CPU.
instance_group [
  {{ count: 1 kind: KIND_AUTO }}
]

# On a card as exact as the original, and no search for the fastest convolution at every new size.
optimization {{
  execution_accelerators {{
    gpu_execution_accelerator [
      {{ name: "cuda" parameters {{ key: "use_tf32" value: "0" }} }}
    ]
  }}
}}
parameters {{ key: "cudnn_conv_algo_search" value: {{ string_value: "1" }} }}
"""


def describe_model(name: str) -> str:
    """The config.pbtxt of a model that `pinglow.models.conversion` has written.

    Args:
        name: The name of the model's folder; see `folder_name`.
    """
    return _TEMPLATE.format(name=name)


def folder_name(name: str) -> str:
    """A model's name as that of a folder, which is how Triton's clients ask for it."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).lstrip(".") or "model"
