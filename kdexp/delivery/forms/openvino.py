"""OpenVINO, float32 weights, made from the ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.delivery.form import Form, Inputs, Runner, Sample
from kdexp.delivery.forms.onnx import FILE as GRAPH
from kdexp.heads.base import Head

if TYPE_CHECKING:
    from torch import Tensor, nn


FILE = "openvino_model.xml"


class OpenVino(Form):
    """An intermediate representation: a graph (.xml) and its weights (.bin)."""

    purpose = "OpenVINO, for Intel processors and accelerators"
    modules = ("openvino", "onnx", "onnxscript", "onnxruntime")
    extra = "openvino"
    made_of = "onnx"

    def write(self, model: nn.Module, head: Head, folder: Path, source: Path, sample: Sample) -> None:
        """See :meth:`Form.write`: made from the form ``onnx``."""
        import openvino

        openvino.save_model(openvino.convert_model(source / GRAPH), folder / FILE, compress_to_fp16=False)

    def load(self, folder: Path, head: Head, threads: int) -> Runner:
        """See :meth:`Form.load`."""
        import openvino
        import torch

        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(folder / FILE, "CPU", settings)
        wanted = [one.get_any_name() for one in compiled.inputs]

        def run(inputs: Inputs) -> dict[str, Tensor]:
            got = compiled({name: inputs[name].numpy() for name in wanted})
            return {name: torch.from_numpy(got[name].copy()) for name in head.names}

        return run


FORM = OpenVino()
