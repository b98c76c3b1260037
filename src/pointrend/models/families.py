"""Segmentation networks of other libraries: their coarse logits and maps, and how to build each again by its name.

Shapes: B images, C classes, H W rows and columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pointrend.models import require
from pointrend.models.inputs import Preprocessing
from pointrend.models.library_backbones import normalisation

Maps = dict[str, Tensor]
Split = Callable[[nn.Module, Tensor], tuple[Maps, Tensor]]
"""A network and normalised images (B, 3, H, W) -> its maps (B, channels, h, w) by name, and coarse logits (B, C, h, w)
as they are before anything enlarges them."""

# What may be built from a file: each has one meaning, and none executes anything or fetches weights.
TRANSFORMERS = (
    "SegformerForSemanticSegmentation",
    "UperNetForSemanticSegmentation",
    "MaskFormerForInstanceSegmentation",
    "Mask2FormerForUniversalSegmentation",
)
SMP = (
    *("DeepLabV3", "DeepLabV3Plus", "FPN", "Linknet", "MAnet", "PAN", "PSPNet", "Segformer", "UPerNet"),
    *("Unet", "UnetPlusPlus"),
)
# Arguments that would fetch code or weights from elsewhere.
_REFUSED = ("attn_implementation", "experts_implementation", "auto_map", "use_kernels", "quantization_config")
_LARGEST = 2**20  # no width, depth or size of these networks is near it


@dataclass(frozen=True)
class NetworkSource:
    """A network by name, so that a file can say which it holds.

    Args:
        family: the library; "own" for what only its author can build.
        name: torchvision's function, or the class of the others; empty if it cannot be built by name.
        arguments: of that function or class, plain JSON values; transformers' whole configuration.
        binary: its only channel is the second of two classes.
    """

    family: Literal["torchvision", "transformers", "smp", "own"] = "own"
    name: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    binary: bool = False


def recognise(network: Any) -> NetworkSource:
    """Which network this is, by its class and its tensors."""
    library = {base.__module__.partition(".")[0] for base in type(network).__mro__}
    if "transformers" in library and hasattr(network, "config"):
        name = type(network).__name__
        arguments = json.loads(network.config.to_json_string(use_diff=False), object_hook=_without_private)
        return NetworkSource("transformers", name if name in TRANSFORMERS else "", arguments)
    if "segmentation_models_pytorch" in library and hasattr(network, "segmentation_head"):
        name = type(network).__name__
        arguments = json.loads(json.dumps({**network.config, "encoder_weights": None}, default=str))
        return NetworkSource("smp", name if name in SMP else "", arguments)
    if type(network).__module__.startswith("torchvision.models.segmentation"):
        return NetworkSource("torchvision", *_torchvision_name(network))
    return NetworkSource()


def _without_private(settings: dict[str, object]) -> dict[str, object]:
    """Without what transformers notes of a session, such as `_name_or_path`, a folder of this machine."""
    return {name: value for name, value in settings.items() if not name.startswith("_")}


def build_network(source: NetworkSource, num_classes: int) -> nn.Module:
    """The network of this name with random weights, for so many classes.

    Raises:
        ValueError: it cannot be built by name, or not with these arguments.
        ImportError: its library is not installed; says how to install it.
    """
    if not source.name:
        raise ValueError(
            "network: the file holds the weights of a network that cannot be built by name; pass it, "
            "pointrend.attach(network, weights=FILE)"
        )
    _check_arguments(source.arguments)
    outputs = 1 if source.binary and num_classes == 2 else num_classes
    try:
        return _BUILDERS[source.family](source, outputs)
    except ImportError:
        raise
    except Exception as error:  # whatever a library says of arguments that a file holds
        raise ValueError(
            f"network: {source.family} builds no {source.name} of these arguments: {error}"
        ) from error


def split_of(source: NetworkSource, network: nn.Module) -> Split:
    """How to get the maps and coarse logits of a network of this family."""
    if source.family == "transformers":
        if type(network).__name__ == "UperNetForSemanticSegmentation":
            return _split_upernet
        return _split_queries if hasattr(network, "class_predictor") else _split_transformers
    return {"torchvision": _split_torchvision, "smp": _split_smp}.get(source.family, _split_own)


def preprocessing_of(source: NetworkSource, network: nn.Module) -> Preprocessing:
    """Normalisation of the pixels that the family's published weights were trained with.

    Raises:
        ValueError: it is not known of this network.
    """
    if source.family == "smp" and (encoder := str(source.arguments.get("encoder_name"))).startswith("tu-"):
        mean, std = normalisation(f"timm/{encoder.removeprefix('tu-')}")
        return Preprocessing(mean=mean, std=std)
    if source.family == "transformers" and not source.name:
        raise ValueError(
            f"preprocessing: not known of {type(network).__name__}; pass pointrend.attach(..., preprocessing=..)"
        )
    return Preprocessing()


def _check_arguments(value: object, name: str = "network") -> None:
    """Raise a ValueError where arguments from a file would fetch something or fill the memory."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            fetched = key == "backbone" and "/" in str(inner)
            if fetched or (
                any(word in str(key) for word in _REFUSED) and inner not in (None, "eager", "sdpa")
            ):
                raise ValueError(f"{name}: refused {key} = {inner!r}, which would be fetched from elsewhere")
            _check_arguments(inner, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_arguments(inner, name)
    elif isinstance(value, str) and ("://" in value or "hf-hub:" in value or "hf_hub:" in value):
        raise ValueError(f"{name}: refused {value!r}, a place to fetch from")
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(f"{name}: expected a number below {_LARGEST}, got {value}")


def _torchvision_name(network: nn.Module) -> tuple[str, dict[str, Any]]:
    """The function of torchvision that builds a network of these tensors, and its arguments; "" if there is none."""
    from torchvision.models import list_models, segmentation

    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    auxiliary = getattr(network, "aux_classifier", None) is not None
    for name in list_models(module=segmentation):
        arguments = {} if name.startswith("lraspp") else {"aux_loss": auxiliary}
        with torch.device("meta"):
            other = _build_torchvision(
                NetworkSource("torchvision", name, arguments), _torchvision_classes(network)
            )
        if {key: tensor.shape for key, tensor in other.state_dict().items()} == wanted:
            return name, arguments
    return "", {}


def _torchvision_classes(network: Any) -> int:
    head = network.classifier
    return (
        head.low_classifier if hasattr(head, "low_classifier") else list(head.children())[-1]
    ).out_channels


def _build_torchvision(source: NetworkSource, outputs: int) -> nn.Module:
    from torchvision.models import get_model, list_models, segmentation

    if source.name not in list_models(module=segmentation) or set(source.arguments) - {"aux_loss"}:
        raise ValueError(f"no such network, {source.name} with {source.arguments}")
    return get_model(
        source.name, weights=None, weights_backbone=None, num_classes=outputs, **source.arguments
    )


def _build_transformers(source: NetworkSource, outputs: int) -> nn.Module:
    if source.name not in TRANSFORMERS:
        raise ValueError(f"expected one of {', '.join(TRANSFORMERS)}")
    network = getattr(require("transformers", "transformers"), source.name)
    given = deepcopy(source.arguments)  # transformers 4 takes keys out
    arguments = {**given, "use_pretrained_backbone": False}
    if len(arguments.get("id2label") or ()) != outputs:
        arguments["id2label"] = {str(number): f"class {number}" for number in range(outputs)}
        arguments["label2id"] = {name: int(number) for number, name in arguments["id2label"].items()}
    with _LinspaceOnCPU():
        return network(network.config_class.from_dict(arguments))


class _LinspaceOnCPU(TorchFunctionMode):
    """transformers 4 reads back the rates of its stochastic depth, which meta tensors do not have."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.linspace:
            kwargs = {**(kwargs or {}), "device": "cpu"}
        return func(*args, **(kwargs or {}))


def _build_smp(source: NetworkSource, outputs: int) -> nn.Module:
    if source.name not in SMP:
        raise ValueError(f"expected one of {', '.join(SMP)}")
    network = getattr(require("segmentation_models_pytorch", "smp"), source.name)
    return network(**{**source.arguments, "encoder_weights": None, "classes": outputs})


_BUILDERS: dict[str, Callable[[NetworkSource, int], nn.Module]] = {
    "torchvision": _build_torchvision,
    "transformers": _build_transformers,
    "smp": _build_smp,
}


def _split_torchvision(network: Any, images: Tensor) -> tuple[Maps, Tensor]:
    """The maps of all layers of the backbone, by their names there."""
    maps, x = {}, images
    for name, layer in network.backbone.items():
        maps[name] = x = layer(x)
    seen = {new: maps[old] for old, new in network.backbone.return_layers.items()}
    return maps, network.classifier(seen if "high" in seen else seen["out"])


def _split_transformers(network: Any, images: Tensor) -> tuple[Maps, Tensor]:
    """`outputs.hidden_states`, numbered, and `outputs.logits`."""
    outputs = network(pixel_values=images, output_hidden_states=True, return_dict=True)
    return {str(number): one for number, one in enumerate(outputs.hidden_states)}, outputs.logits


def _split_upernet(network: Any, images: Tensor) -> tuple[Maps, Tensor]:
    """The backbone's maps, numbered; the network itself would enlarge its logits."""
    maps = network.backbone(images).feature_maps
    return {str(number): one for number, one in enumerate(maps)}, network.decode_head(maps)


def _split_queries(network: Any, images: Tensor) -> tuple[Maps, Tensor]:
    """The pixel decoder's last map, "pixels"; logits whose softmax are the shares of the classes' scores.

    MaskFormer scores a class at a pixel by the sum over queries of its probability times the mask's (section 3.4).
    """
    outputs = network(pixel_values=images, output_hidden_states=True, return_dict=True)
    classes = outputs.class_queries_logits.float().softmax(-1)[..., :-1]  # the last is "no object"
    scores = torch.einsum("bqc,bqhw->bchw", classes, outputs.masks_queries_logits.float().sigmoid())
    return {"pixels": outputs.pixel_decoder_last_hidden_state}, scores.clamp_min(1e-6).log()


def _split_smp(network: Any, images: Tensor) -> tuple[Maps, Tensor]:
    """The encoder's maps, numbered by their stride's power of two; the head's convolution without its enlargement."""
    encoded = network.encoder(images)
    maps = {str(number): one for number, one in enumerate(encoded) if number and one.shape[1]}
    return maps, network.segmentation_head[0](network.decoder(encoded))


def _split_own(network: Any, images: Tensor) -> tuple[Maps, Tensor]:
    """What the network itself returns: features (one map, several, or by name) and logits."""
    outputs = network(images)
    if not isinstance(outputs, tuple | list) or len(outputs) != 2 or not isinstance(outputs[1], Tensor):
        raise ValueError(
            f"network: expected (features, coarse logits), got {type(outputs).__name__}; pass forward=, a function of "
            "the network and its images that returns both"
        )
    features, logits = outputs
    if isinstance(features, Tensor):
        return {"features": features}, logits
    if isinstance(features, Mapping):
        return {str(name): one for name, one in features.items()}, logits
    return {str(number): one for number, one in enumerate(features)}, logits
