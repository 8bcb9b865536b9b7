"""The same folder, computed in bfloat16: half the memory; faster where the processor has bfloat16 units."""

from __future__ import annotations

from kdexp.delivery.forms.pytorch import PyTorch


class BFloat16(PyTorch):
    """Weights are cast when they are loaded; the files stay float32."""

    purpose = "transformers in bfloat16 (model.to(torch.bfloat16)): the same files"
    dtype = "bfloat16"


FORM = BFloat16()
