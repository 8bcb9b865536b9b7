"""The folder as transformers loads it, in float32."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.delivery.form import Form, Inputs, Runner, Sample
from kdexp.heads.base import Head
from kdexp.models import plain

if TYPE_CHECKING:
    from torch import Tensor, nn


class PyTorch(Form):
    """Safetensors, read by transformers alone."""

    purpose = "transformers in float32: a folder for pipeline(...) and AutoModel"
    dtype = "float32"

    def write(self, model: nn.Module, head: Head, folder: Path, source: Path, sample: Sample) -> None:
        """See :meth:`Form.write`: the files are the model's own."""
        for path in self.files(source):
            shutil.copy2(path, folder / path.name)

    def load(self, folder: Path, head: Head, threads: int) -> Runner:
        """See :meth:`Form.load`."""
        import torch

        torch.set_num_threads(threads)
        return runner(plain.load(folder, head).to(getattr(torch, self.dtype)), head)


def runner(model: nn.Module, head: Head) -> Runner:
    """Return what answers by a model in memory."""
    import torch

    @torch.inference_mode()
    def run(inputs: Inputs) -> dict[str, Tensor]:
        dtype = next(model.parameters()).dtype
        given = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
        return {name: values.float() for name, values in head.outputs(model(**given)).items()}

    return run


FORM = PyTorch()
