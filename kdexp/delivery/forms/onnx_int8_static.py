"""ONNX in int8 with activations' ranges fixed beforehand, from texts of train (static quantisation)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.delivery.form import Sample
from kdexp.delivery.forms.onnx import FILE, Onnx
from kdexp.heads.base import Head

if TYPE_CHECKING:
    from torch import nn


BATCHES = 16
"""Batches of train whose activations are looked at."""


class OnnxInt8Static(Onnx):
    """Weights and activations of products in int8, as pairs of quantise and dequantise."""

    purpose = "ONNX with int8 weights and activations, calibrated on texts of train"
    made_of = "onnx"
    calibrated = True

    def write(self, model: nn.Module, head: Head, folder: Path, source: Path, sample: Sample) -> None:
        """See :meth:`Form.write`: made from the form ``onnx``."""
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self, wanted: list[str]) -> None:
                batches = (batch.inputs for _, batch in zip(range(BATCHES), sample(), strict=False))
                self.rows: Iterator[Any] = ({name: one[name].numpy() for name in wanted} for one in batches)

            def get_next(self) -> Any:
                return next(self.rows, None)

        import onnx

        wanted = [one.name for one in onnx.load(source / FILE, load_external_data=False).graph.input]
        log = logging.getLogger()
        before, log.level = log.level, logging.ERROR
        try:
            quantize_static(
                source / FILE, folder / FILE, Reader(wanted), quant_format=QuantFormat.QDQ, per_channel=True,
                op_types_to_quantize=["MatMul", "Gemm", "Gather"], activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )  # fmt: skip
        finally:
            log.level = before


FORM = OnnxInt8Static()
