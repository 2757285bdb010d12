"""Export a network as one ONNX file with logits and heat map, verified against torch before it is used.

Shapes: B batch, N verification images, S side of the input in px, h w sides of the last feature map.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from muralab.registry.silence import silenced

if TYPE_CHECKING:
    import torch

    from muralab.training.network import Network

PROBABILITY_TOLERANCE = 1e-4
"""Largest accepted difference in probability between torch and onnxruntime."""

HEAT_TOLERANCE = 1e-3
"""Largest accepted difference of a heat map, as a fraction of its peak, besides its rounding."""

HEAT_ROUNDING = 1e-5
"""Rounding of a heat map, as a fraction of the largest sum of its terms' sizes.

A heat map sums one term per filter, and keeps what is positive. Where the terms cancel, what is left may be rounding
alone: of one radiograph of a hand the peak was 3e-6, and a difference of 2e-8 in it 0.6%.
"""

FEATURE_TOLERANCE = 1e-3
"""Largest accepted difference of a pooled feature, as a fraction of the largest one."""

OUTPUTS = ("logits", "heatmap", "features")

_TRACED_BATCH = 3


def export_onnx(network: Network, image_size: int, path: str | Path, *, verify_images: np.ndarray) -> None:
    """Write the network as ONNX and compare it with torch.

    The graph takes `images`, uint8 [B, S, S], and returns `logits`, float32 [B], `heatmap`, float32 [B, h, w] (the
    Grad-CAM of `muralab.evaluation.gradcam`), and `features`, float32 [B, D] (the pooled features that the head
    receives), for any batch size. The network is not modified.

    Args:
        network: in any mode, on any device.
        image_size: S in px.
        path: the file to write.
        verify_images: uint8 [N, S, S], compared at batch sizes 1 and N.

    Raises:
        RuntimeError: onnxruntime and torch differ, or an output is not finite.
    """
    import torch

    frozen = copy.deepcopy(network).to("cpu").float().to(memory_format=torch.contiguous_format).eval()
    frozen.requires_grad_(False)
    images = torch.zeros((_TRACED_BATCH, image_size, image_size), dtype=torch.uint8)
    with silenced():
        module = _build_module(frozen, images)
        torch.onnx.export(
            module,
            (images,),
            str(path),
            dynamo=True,
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            external_data=False,
            verbose=False,
        )
    verify_onnx(frozen, path, verify_images)


def verify_onnx(network: Network, path: str | Path, images: np.ndarray) -> None:
    """Compare an exported file with its network, on the first image alone and on all images at once.

    Args:
        network: on the CPU, in eval mode.
        path: the ONNX file.
        images: uint8 [N, S, S].

    Raises:
        RuntimeError: they differ, or an output is not finite.
    """
    import onnxruntime
    import torch

    from muralab.evaluation.gradcam import maps_and_gradient, weigh

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (images[:1], images):
        tensor = torch.from_numpy(np.ascontiguousarray(batch))
        with torch.inference_mode():
            logits = network(tensor).numpy()
            pooled = network.pooled(tensor).numpy()
        served, heat, features = session.run(list(OUTPUTS), {"images": batch})
        _check_equal("probability", _sigmoid(served), _sigmoid(logits), PROBABILITY_TOLERANCE)
        scale = float(np.abs(pooled).max()) or 1.0
        _check_equal("feature", features / scale, pooled / scale, FEATURE_TOLERANCE)
        maps, gradient = maps_and_gradient(network, tensor)
        terms = weigh(maps.abs(), gradient.mean(dim=(2, 3), keepdim=True).abs())
        _check_heat(heat, weigh(maps, gradient).numpy(), float(terms.max()))


def _build_module(network: Network, images: torch.Tensor) -> torch.nn.Module:
    """The network with its Grad-CAM as a second output, without autograd."""
    import torch

    from muralab.evaluation.gradcam import weigh

    with torch.no_grad():
        traced = _trace_head_and_gradient(network, network.maps(images))

    class Served(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.head = network, traced

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            maps = self.network.maps(images)
            logits, gradient = self.head(maps)
            return logits, weigh(maps, gradient), self.network.pool(maps)

    return Served().eval()


def _trace_head_and_gradient(network: Network, maps: torch.Tensor) -> torch.nn.Module:
    """Feature maps -> logits and their gradient, as plain operations, since torch.export cannot follow autograd."""
    import torch
    from torch._decomp import core_aten_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    def head_and_gradient(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = maps.detach().requires_grad_()
        logits = network.classify(leaf)
        return logits.detach(), torch.autograd.grad(logits.sum(), leaf)[0]

    with torch.enable_grad():
        return make_fx(
            head_and_gradient,
            decomposition_table={**core_aten_decompositions(), **_pool_gradients()},
            tracing_mode="symbolic",
            _allow_non_fake_inputs=True,
        )(maps)


def _pool_gradients() -> dict[Any, Any]:
    """Gradients of max pooling, which ONNX lacks, as a scatter to the positions of the maxima."""
    import torch

    def scatter(gradient: torch.Tensor, maps: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        flat = torch.zeros_like(maps).flatten(2)
        return flat.scatter_add(2, indices.flatten(2), gradient.flatten(2)).view_as(maps)

    def max_pool(gradient: torch.Tensor, maps: torch.Tensor, *geometry: Any) -> torch.Tensor:
        return scatter(gradient, maps, geometry[-1])

    aten = torch.ops.aten
    return {
        aten.adaptive_max_pool2d_backward.default: scatter,
        aten.max_pool2d_with_indices_backward.default: max_pool,
    }


def _check_heat(heat: np.ndarray, expected: np.ndarray, terms: float) -> None:
    """Compare heat maps [B, h, w] whose terms have sizes that add up to at most `terms`."""
    scale = float(expected.max()) + terms * HEAT_ROUNDING / HEAT_TOLERANCE + 1e-6
    _check_equal("heat map", heat / scale, expected / scale, HEAT_TOLERANCE)


def _check_equal(what: str, served: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    if not np.isfinite(served).all():
        raise RuntimeError(f"The exported network returns a {what} that is not finite. Nothing was registered.")
    worst = float(np.abs(served - expected).max())
    if not worst <= tolerance:  # true for NaN as well
        raise RuntimeError(
            f"The exported network differs from torch by {worst:.2g} in {what} (batch of {len(served)}); "
            f"at most {tolerance:g} is accepted. Nothing was registered."
        )


def _sigmoid(logits: np.ndarray) -> Any:
    return 1 / (1 + np.exp(-np.clip(np.asarray(logits, float), -60, 60)))
