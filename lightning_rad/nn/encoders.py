"""Image encoders by name, one grayscale channel by default.

Shape letters: B images, C channels, H W pixels, D features, P patches.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, overload

import timm
import torch
import torchvision
from torch import Tensor, nn

from lightning_rad.nn.blocks import repeated_blocks
from lightning_rad.nn.frozen import freeze
from lightning_rad.nn.patch_places import patch_shift
from lightning_rad.nn.patches import averages_map, no_map, patches, require_patches, sensitivity
from lightning_rad.nn.position import POS_EMBED, fix_sincos
from lightning_rad.nn.pretrained import load_pretrained

log = logging.getLogger(__name__)

TORCHVISION: Final = "torchvision/"
"""Prefix of the names of torchvision's ResNets."""

RESERVED: Final = ("pretrained", "checkpoint_path", "num_classes", "in_chans", "img_size")
"""Arguments of timm that the encoder sets itself."""

_RESNETS: Final = torchvision.models.list_models(include=["resnet*", "resnext*", "wide_resnet*"])

_SIDE: Final = 224
"""Of an image that every network takes that is not built for another one."""


class Encoder(nn.Module):
    """A backbone without its classifier: images [B, C, H, W] to features [B, out_features].

    name: a model of timm ("resnet18", "vit_small_patch16_224" ...) with its own default pooling, or
    a ResNet of torchvision ("torchvision/resnet18"). init_from: a local file of weights to start
    from, of timm, torchvision or a checkpoint of any objective, checked tensor by tensor (see
    `load_pretrained`); None is random, and nothing is ever downloaded. image_size: pixels, for
    models that are built for one size (most transformers); None leaves the model's own. small_stem:
    ResNets only, the 3x3 stem of stride 1 without pooling that SimCLR uses for small images
    (arXiv:2002.05709, appendix B.9). channels_last: keep weights and activations in that memory
    format, faster for convolutions on GPUs and in bfloat16 on CPUs; left off, with a warning, where
    only the patch embedding is one. frozen: submodules, by dotted name, whose parameters do not
    learn (norms among them still follow their batches): `[patch_embed]` is the stable start of MoCo
    v3 on transformers (arXiv:2104.02057, section 4.2). position: "sincos"
    fixes a transformer's position embedding (see `fix_sincos`) and does not take it from a file.
    kwargs: further arguments of the model's constructor, such as `drop_rate`.

    `out_features` is what the model says of itself; a forward that yields anything else raises.
    `dropped` names the tensors of the file that were left aside. Raises ValueError for an unknown
    name (with the nearest ones) and for arguments that the model does not take.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 1,
        init_from: str | None = None,
        image_size: int | None = None,
        small_stem: bool = False,
        channels_last: bool = False,
        frozen: Sequence[str] = (),
        position: Literal["learned", "sincos"] = "learned",
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels: {in_channels} is not at least 1")
        if position not in ("learned", "sincos"):
            raise ValueError(f"position: '{position}' is not one of ['learned', 'sincos']")
        options = dict(kwargs or {})
        self._config: dict[str, Any] = {
            "name": name,
            "in_channels": in_channels,
            "image_size": image_size,
            "small_stem": small_stem,
            "channels_last": channels_last,
            "frozen": tuple(frozen),
            "position": position,
            "kwargs": dict(options),
        }
        if taken := sorted(set(options) & set(RESERVED)):
            raise ValueError(f"kwargs: {taken} are set by the encoder's own arguments")
        if image_size is not None:
            options["img_size"] = image_size
        build = _from_torchvision if name.startswith(TORCHVISION) else _from_timm
        self.net, self.out_features, stems, heads = build(name, in_channels, options)
        if small_stem:
            _shrink_stem(self.net, name)
        if position == "sincos":
            fix_sincos(self.net)
        freeze(self.net, frozen)
        self.dropped: tuple[str, ...] = ()
        on_meta = any(p.is_meta for p in self.net.parameters())
        if init_from is not None and not on_meta:  # another rank's values will replace these
            fixed = [POS_EMBED] if position == "sincos" else []
            self.dropped = load_pretrained(
                self.net, init_from, stems=stems, heads=heads, fixed=fixed
            )
        if channels_last and sum(isinstance(part, nn.Conv2d) for part in self.net.modules()) < 2:
            log.warning("channels_last: left off, '%s' convolves nothing but its patches", name)
            self._config["channels_last"] = channels_last = False  # `fresh` has nothing to say
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.net.to(memory_format=self._format)

    @property
    def built_for(self) -> int | None:
        """The side, in pixels, of the only images the network takes; None where any will do."""
        patches = getattr(self.net, "patch_embed", None)
        size = getattr(patches, "img_size", None)
        return int(size[0]) if size and getattr(patches, "strict_img_size", False) else None

    @overload
    def forward(self, images_BCHW: Tensor, tokens: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, images_BCHW: Tensor, tokens: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, images_BCHW: Tensor, tokens: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Features [B, out_features], and with `tokens` the patches [B, P, out_features], too.

        Patches are what the last layer says of each place of the image, row by row, before the
        pooling that makes features of them: a transformer's without its class token and registers,
        each place of a convolution network's last map. Raises ValueError for a network without a
        map as wide as its features.
        """
        images_BCHW = images_BCHW.contiguous(memory_format=self._format)
        if tokens:
            return self._with_tokens(images_BCHW)
        features_BD: Tensor = self.net(images_BCHW)
        return self._checked(features_BD, len(images_BCHW))

    def _with_tokens(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        # the two halves of a forward of timm: to its last map, and from it to what it gives
        forward_features = getattr(self.net, "forward_features", None)
        map_: Any = None if forward_features is None else forward_features(images_BCHW)
        tokens_BPD = patches(self.net, map_)
        if tokens_BPD is None or tokens_BPD.shape[-1] != self.out_features:
            raise ValueError(no_map(self._config["name"], self.out_features))
        self._sequence = map_.ndim == 3  # seen, for no attribute of timm says it
        features_BD: Tensor = self.net.forward_head(map_)  # type: ignore[operator]
        return self._checked(features_BD, len(images_BCHW)), tokens_BPD

    @property
    def averages(self) -> bool:
        """Whether features are the mean of the patches, with nothing behind that computes.

        Raises ValueError for a network whose features are not made of its last patches at all.
        """
        require_patches(self.net, self._config["name"], self.out_features)
        return averages_map(self.net)

    @property
    def patch_shift(self) -> float:
        """How far patches lie from the middles of their squares, in patches (see `patch_shift`)."""
        return patch_shift(self.net, self._config["in_channels"], self.built_for or _SIDE)

    def sensitivity(self, tokens_BPD: Tensor, direction_BD: Tensor) -> Tensor:
        """How features along a direction move with the patches, [B, D] (see `nn.patches`).

        Of patches that this encoder has given.
        """
        return sensitivity(self.net, tokens_BPD, direction_BD, sequence=self._sequence)

    def _checked(self, features_BD: Tensor, images: int) -> Tensor:
        if features_BD.shape != (images, self.out_features):
            raise ValueError(
                f"encoder '{self._config['name']}' gave features {tuple(features_BD.shape)}, not "
                f"[B, {self.out_features}]: choose a model or `kwargs: {{global_pool: ...}}` "
                "that yields one vector an image"
            )
        return features_BD

    def blocks(self) -> list[nn.Module]:
        """The repeated blocks of the network, whatever its family (see `repeated_blocks`)."""
        return repeated_blocks(self.net)

    def fresh(self, seed: int) -> Encoder:
        """The same configuration at random init, on the CPU; a function of the seed alone.

        The generators of the process are left as they were.
        """
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            return type(self)(**self._config)


Built = tuple[nn.Module, int, tuple[str, ...], tuple[str, ...]]
"""Network, features, and the module names of its stems and of the heads it was published with."""


def _from_timm(name: str, in_channels: int, options: dict[str, Any]) -> Built:
    if not timm.is_model(name):
        raise _unknown(name)
    try:
        net = timm.create_model(name, num_classes=0, in_chans=in_channels, **options)
    except (TypeError, AssertionError, RuntimeError, KeyError) as error:
        raise ValueError(f"encoder '{name}' does not take {options}: {error}") from error
    card = net.pretrained_cfg
    # width after pooling and after what a head keeps when it loses its classifier
    return net, net.head_hidden_size, _names(card["first_conv"]), _names(card["classifier"])


def _from_torchvision(name: str, in_channels: int, options: dict[str, Any]) -> Built:
    short = name.removeprefix(TORCHVISION)
    if short not in _RESNETS:
        raise _unknown(name)
    try:
        net = torchvision.models.get_model(short, weights=None, **options)
    except TypeError as error:
        raise ValueError(f"encoder '{name}' does not take {options}: {error}") from error
    out_features = net.fc.in_features
    net.fc = nn.Identity()
    if in_channels != net.conv1.in_channels:
        net.conv1 = _convolution_like(net.conv1, in_channels=in_channels)
    return net, out_features, ("conv1",), ("fc",)


def _unknown(name: str) -> ValueError:
    known = timm.list_models() + [TORCHVISION + short for short in _RESNETS]
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return ValueError(f"encoder: no model '{name}' in timm or torchvision's ResNets; near: {near}")


def _names(entry: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def _shrink_stem(net: nn.Module, name: str) -> None:
    stem = getattr(net, "conv1", None)
    if not isinstance(stem, nn.Conv2d) or not hasattr(net, "maxpool"):
        raise ValueError(f"small_stem: '{name}' is not a ResNet with a single 7x7 stem")
    net.conv1 = _convolution_like(stem, kernel_size=3, stride=1, padding=1)
    net.maxpool = nn.Identity()


def _convolution_like(old: nn.Conv2d, **changes: int) -> nn.Conv2d:
    """A fresh stem with some attributes changed, initialised as ResNets are (fan out, ReLU)."""
    kept = ("in_channels", "out_channels", "kernel_size", "stride", "padding")
    new = nn.Conv2d(**({k: getattr(old, k) for k in kept} | changes), bias=old.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new
