"""ONNX, float32, by PyTorch's own exporter; run by ONNX Runtime."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.delivery.form import Form, Inputs, Runner, Sample
from kdexp.heads.base import Head

if TYPE_CHECKING:
    from torch import Tensor, nn


FILE = "model.onnx"
SHORTEST = 2
"""Tokens of the shortest text: its first and its last."""


class Onnx(Form):
    """A graph with free batch size and length."""

    purpose = "ONNX in float32, for ONNX Runtime in any language"
    modules = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"

    def write(self, model: nn.Module, head: Head, folder: Path, source: Path, sample: Sample) -> None:
        """See :meth:`Form.write`.

        Raises:
            ValueError: the exporter does not know an operator of the model.
        """
        import torch

        known, batch = inspect.signature(model.forward).parameters, next(sample())
        inputs = {name: value for name, value in batch.inputs.items() if name in known}
        shapes = tuple(_free(value) for value in inputs.values())
        log = logging.getLogger("torch.onnx")
        before = log.level
        log.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the exporter, about itself
                torch.onnx.export(
                    _answers(model, head, list(inputs)), tuple(inputs.values()), folder / FILE, dynamo=True,
                    dynamic_shapes=(shapes,), input_names=list(inputs), output_names=list(head.names),
                    verbose=False, external_data=False,
                )  # fmt: skip
        except Exception as error:
            raise ValueError(f"PyTorch's exporter cannot write this model as ONNX: {_reason(error)}") from error
        finally:
            log.setLevel(before)
        _strip(folder / FILE)

    def load(self, folder: Path, head: Head, threads: int) -> Runner:
        """See :meth:`Form.load`."""
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own kinds are bare ones
            raise ValueError(f"ONNX Runtime cannot load {folder / FILE}: {_first_line(error)}") from error
        wanted = [one.name for one in session.get_inputs()]

        def run(inputs: Inputs) -> dict[str, Tensor]:
            try:
                got = session.run(list(head.names), {name: inputs[name].numpy() for name in wanted})
            except Exception as error:
                raise ValueError(f"ONNX Runtime cannot run {folder / FILE}: {_first_line(error)}") from error
            return {name: torch.from_numpy(values) for name, values in zip(head.names, got, strict=True)}

        return run


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _reason(error: BaseException) -> str:
    """Return what the exporter stumbled over: it says so in the innermost of the errors that it wraps."""
    while error.__cause__ is not None:
        error = error.__cause__
    lacking = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(error))
    return f"ONNX has no operator for {lacking[1]}, which it uses" if lacking else _first_line(error)


def _strip(path: Path) -> None:
    """Take the exporter's notes out of a graph: its author's source lines and folders."""
    import onnx

    model = onnx.load(path)
    for part in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
    ):
        del part.metadata_props[:]
    onnx.save(model, path)


def _free(value: Tensor) -> dict[int, Any]:
    """Return the axes of an input that may have any size: examples, and the length of texts (the last axis of ids)."""
    import torch

    axes: dict[int, Any] = {0: torch.export.Dim("batch")}
    if not value.is_floating_point():
        axes[value.dim() - 1] = torch.export.Dim("length", min=SHORTEST)
    return axes


def _answers(model: nn.Module, head: Head, inputs: list[str]) -> nn.Module:
    """Return a model that takes its inputs in order and returns its head's outputs alone, in order."""
    from torch import nn

    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
            answered = head.outputs(self.model(**dict(zip(inputs, values, strict=True))))
            return tuple(answered[name] for name in head.names)

    return Answers().eval()


FORM = Onnx()
