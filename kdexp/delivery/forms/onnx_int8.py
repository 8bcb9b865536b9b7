"""ONNX with int8 weights; activations are quantised as they come (dynamic), so no calibration is needed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.delivery.form import Sample
from kdexp.delivery.forms.onnx import FILE, Onnx
from kdexp.heads.base import Head

if TYPE_CHECKING:
    from torch import nn


class OnnxInt8(Onnx):
    """Products with weights in int8, a scale for each output channel; everything else in float32."""

    purpose = "ONNX with int8 weights, activations quantised as they come"
    made_of = "onnx"

    def write(self, model: nn.Module, head: Head, folder: Path, source: Path, sample: Sample) -> None:
        """See :meth:`Form.write`: made from the form ``onnx``."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        log = logging.getLogger()
        before, log.level = log.level, logging.ERROR  # it advises on the root logger
        try:
            quantize_dynamic(
                source / FILE, folder / FILE, op_types_to_quantize=["MatMul", "Gemm", "Gather"], per_channel=True,
                weight_type=QuantType.QInt8, extra_options={"DefaultTensorType": 1},
            )  # fmt: skip
        finally:
            log.level = before


FORM = OnnxInt8()
