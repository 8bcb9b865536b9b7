"""SRD: a projector, normalisation, a logarithm (Miles and Mikolajczyk, AAAI 2024, arXiv 2303.11098; official code)."""

from __future__ import annotations

from torch import Tensor, nn

from kdexp.config.schema import Amount, NotNegative
from kdexp.objectives.base import Batch, Context
from kdexp.objectives.common import alive, choice, wide
from kdexp.objectives.pooled import Relation

VARIANTS = ("difference", "correlation")


def srd(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    exponent: float = 4.0,
    bn_eps: float = 1e-4,
    eps: float = 0.0,
    variant: str = "difference",
) -> Tensor:
    """Logarithm of how far batch-normalised vectors (B, D) are apart; the student's go through x W^T + b if given.

    Args:
        weight, bias: of the projector.
        exponent: of absolute differences.
        bn_eps: in the normalisation per dimension (biased variance over the batch, no affine).
        eps: added to the sum inside the logarithm; with 0 a perfect match costs -inf.
        variant: ``difference`` = log(sum over B*D of |a - b|^exponent + eps); ``correlation`` = log(sum over D of
            |mean over B of a*b - 1|^exponent + eps).
    """
    choice("variant", variant, VARIANTS)
    a = wide(student)
    if weight is not None:
        a = nn.functional.linear(a, weight, bias)
    a, b = _normalised(a, bn_eps), _normalised(wide(teacher.detach()), bn_eps)
    gap = a - b if variant == "difference" else (a * b).mean(0) - 1
    return (gap.abs().pow(exponent).sum() + eps).log()


def _normalised(x: Tensor, eps: float) -> Tensor:
    """(B, D) to mean 0 and variance 1 in every dimension over the batch; one without spread gives zeros."""
    gap = alive((x - x.mean(0)).T).T
    return gap * (gap.square().mean(0) + max(eps, 1e-24)).rsqrt()


class SRD(Relation):
    """log(sum |BN(W h_student + b) - BN(h_teacher)|^exponent + eps) of pooled vectors.

    Reduction: a sum inside the logarithm, so batch size and width only shift the value, and a weight scales the
    gradient alone. Mask: in the pooling. Power of T: none. Units: none, it depends on the batch. Source: official
    code (exponent 4, normalisation without affine on both sides in training mode, weight 2 for ImageNet); the DeiT
    folder of the same release has the ``correlation`` form with eps 1e-5. Degenerate: a perfect match costs log(eps),
    -inf with eps 0; one sentence has no spread and gets no gradient. The projector is trained with the student and
    never exported.

    Args:
        exponent: of absolute differences.
        bn_eps: in the normalisation.
        eps: inside the logarithm; the released image form has 0.
        variant: ``difference`` or ``correlation``.
        pool, layer_reduce: as in :class:`Relation`.
    """

    def __init__(
        self,
        exponent: Amount = 4.0,
        bn_eps: NotNegative = 1e-4,
        eps: NotNegative = 1e-5,
        variant: str = "difference",
        pool: str = "mean",
        layer_reduce: str = "sum",
    ) -> None:
        super().__init__(pool, layer_reduce)
        choice("srd.variant", variant, VARIANTS)
        self.exponent, self.bn_eps, self.eps, self.variant = exponent, bn_eps, eps, variant

    def setup(self, context: Context) -> None:
        super().setup(context)
        assert context.teacher is not None
        self.maps = nn.ModuleList(
            nn.Linear(context.student.hidden_size, context.teacher.hidden_size) for _ in self.pairs
        )

    def relation(self, number: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`srd` through the layer's projector."""
        mapped = self.maps[number](student)
        return srd(mapped, teacher, None, None, self.exponent, self.bn_eps, self.eps, self.variant)
