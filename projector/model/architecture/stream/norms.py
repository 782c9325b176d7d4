"""Every norm in one common form: linear, once each token's scale is frozen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projector.model.architecture.weights import replaceable, resident_tensors

# A token whose vector is all zeros has no scale: whatever it is multiplied by stays zero.
_TINY = 1e-30
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class NormForm:
    """The common form of LayerNorm, RMSNorm and similar: y = s · weight · (x − c · mean x) + bias.

    ``s`` is the token's scale, the reciprocal of the root mean square of (x − c · mean x). With the
    scale frozen at its value for a token, the norm is linear, and maps a sum to the sum of its
    mapped parts.

    Attributes:
        weight: (H,) float32, on the norm's device; for Gemma it is 1 + w.
        bias: (H,) float32; zeros if the norm has none.
        centres: c: whether the mean over the H coordinates is subtracted, as in LayerNorm.
    """

    weight: Tensor
    bias: Tensor
    centres: bool

    @classmethod
    @torch.no_grad()
    def of(cls, module: nn.Module, width: int) -> NormForm | None:
        """Find the form of a module that reads vectors of ``width``; None if it doesn't have this
        form.

        The module is run on a few vectors: zeros give the bias, ones show whether it centres, and
        ±1 give the weight. The form must reproduce the module's output on random vectors.
        """
        parameters = list(resident_tensors(module))
        if any(tensor.ndim > 1 or tensor.is_meta for _, tensor in parameters):
            return None
        device = parameters[0][1].device if parameters else torch.device("cpu")
        # In float32, whatever the model's type: bfloat16 would round the weights found here.
        wide = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in parameters
        }
        generator = torch.Generator().manual_seed(0)
        signs = torch.ones(width)
        signs[1::2] = -1
        # An odd width has one coordinate over, which is 0 here, and the first one once more.
        shifted = signs.clone()
        if width % 2:
            signs[-1], shifted[0] = 0, 0
        probes = torch.stack(
            [torch.zeros(width), torch.ones(width), signs, shifted]
            + [torch.randn(width, generator=generator) + 0.5 for _ in range(3)]
        ).to(device)
        try:
            with replaceable(module):
                given = torch.func.functional_call(module, wide, (probes[None],))
        except Exception:
            # No function of one tensor, so not what is looked for.
            return None
        if not isinstance(given, Tensor) or given.numel() != probes.numel():
            return None
        given = given.float().reshape(probes.shape)
        bias = given[0]
        centres = bool((given[1] - bias).norm() <= _TOLERANCE * (given[2] - bias).norm())
        weight = (given[2] - bias) * probes[2]
        if width % 2:
            weight[-1] = (given[3, -1] - bias[-1]) * probes[3, -1]
        # So that a scale is one over a root mean square, also of the probe with one coordinate 0.
        weight = weight * probes[2].pow(2).mean().sqrt()
        form = cls(weight, bias, centres)
        x, y = probes[4:], given[4:]
        again = form.apply(x, form.scale(x, y)) + bias
        return form if bool((again - y).norm() <= _TOLERANCE * y.norm()) else None

    def scale(self, x: Tensor, y: Tensor) -> Tensor:
        """Each token's scale, (…, 1) float32, from the norm's input and output, (…, H) each.

        It is fitted by least squares over the coordinates, which averages out the rounding errors
        of low-precision types.
        """
        unscaled = self._unscaled(x.to(self.weight))
        given = y.to(self.weight) - self.bias
        square = (unscaled * unscaled).sum(dim=-1, keepdim=True)
        return (given * unscaled).sum(dim=-1, keepdim=True) / square.clamp_min(_TINY)

    def apply(self, part: Tensor, scale: Tensor) -> Tensor:
        """Apply the norm to a part of its input; returns (…, H) float32, without the bias.

        Args:
            part: (…, H), on any device.
            scale: (…, 1), from :meth:`scale`.
        """
        return self._unscaled(part.to(self.weight)) * scale

    def pull(self, directions: Tensor) -> Tensor:
        """Map directions after the norm to directions before it: the transpose, without the scale.

        Args:
            directions: (…, H).

        Returns:
            (…, H) float32 d′ with ⟨d′, x⟩ · s = ⟨d, apply(x, s)⟩.
        """
        weighted = directions.to(self.weight) * self.weight
        return weighted - weighted.mean(dim=-1, keepdim=True) if self.centres else weighted

    def _unscaled(self, x: Tensor) -> Tensor:
        return self.weight * (x - x.mean(dim=-1, keepdim=True) if self.centres else x)
