"""Encoders: the width a model states is the width it gives, and construction is exact."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from lightning_rad.nn.encoders import Encoder
from lightning_rad.optim.decay_groups import decay_groups

# one small model of many families; those of the second list keep a hidden layer in their head
PLAIN = [
    "resnet10t",
    "resnetv2_18",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "swin_tiny_patch4_window7_224",
    "efficientnet_lite0",
    "regnetx_002",
    "densenet121",
    "mobilenetv2_050",
    "repvgg_a0",
    "crossvit_tiny_240",
    "pit_ti_224",
    "edgenext_xx_small",
    "tiny_vit_5m_224",
    "xception41",
    "levit_128s",
]
HIDDEN_HEAD = [
    "mobilenetv3_small_050",
    "ghostnet_050",
    "vgg11",
    "hgnetv2_b0",
    "efficientvit_b0",
    "inception_next_atto",
    "mambaout_femto",
    "repghostnet_050",
    "resnet50_mlp",
]


def _meta(name: str, **options: Any) -> Encoder:
    """The encoder without storage: its shapes cost nothing."""
    with torch.device("meta"):
        return Encoder(name, **options).eval()


@pytest.mark.parametrize("name", PLAIN + HIDDEN_HEAD)
def test_stated_width_is_that_of_a_forward(name: str) -> None:
    encoder = _meta(name)
    side = encoder.net.pretrained_cfg["input_size"][-1]  # type: ignore[index, union-attr]
    raw = encoder.net(torch.zeros(2, 1, side, side, device="meta"))
    assert raw.shape == (2, encoder.out_features)
    assert (encoder.out_features != encoder.net.num_features) == (name in HIDDEN_HEAD)


@pytest.mark.parametrize(
    ("name", "width"),
    [("resnet18", 512), ("resnet50", 2048), ("resnext50_32x4d", 2048), ("wide_resnet50_2", 2048)],
)
def test_torchvision_resnets_take_one_channel(name: str, width: int) -> None:
    encoder = _meta(f"torchvision/{name}")
    assert encoder.out_features == width
    assert encoder(torch.zeros(2, 1, 64, 64, device="meta")).shape == (2, width)


def test_channels_image_size_dropout_and_kwargs_reach_the_model() -> None:
    encoder = _meta("vit_tiny_patch16_224", in_channels=2, image_size=96, kwargs={"drop_rate": 0.3})
    assert encoder(torch.zeros(1, 2, 96, 96, device="meta")).shape == (1, 192)
    assert {m.p for m in encoder.modules() if isinstance(m, nn.Dropout)} == {0.0, 0.3}
    encoder = _meta("vit_tiny_patch16_224", kwargs={"depth": 2})
    assert len(encoder.net.blocks) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18"])
def test_a_small_stem_keeps_the_resolution(name: str) -> None:
    plain, small = Encoder(name), Encoder(name, small_stem=True)
    maps: list[Tensor] = []
    for encoder in (plain, small):
        encoder.net.layer1.register_forward_hook(lambda *a: maps.append(a[2]))  # type: ignore[union-attr]
        assert encoder.eval()(torch.rand(1, 1, 32, 32)).shape == (1, 512)
    assert [m.shape[-1] for m in maps] == [8, 32]


def _weights(encoder: Encoder) -> list[Tensor]:
    return list(encoder.state_dict().values())


@pytest.mark.parametrize("name", ["resnet10t", "torchvision/resnet18", "vit_tiny_patch16_224"])
def test_fresh_is_a_function_of_the_seed_and_leaves_the_generators_alone(name: str) -> None:
    encoder = Encoder(name, image_size=64 if "vit" in name else None)
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002 - the global one is meant
    first, again, other = encoder.fresh(1), encoder.fresh(1), encoder.fresh(2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert all(torch.equal(a, b) for a, b in zip(_weights(first), _weights(again), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(_weights(first), _weights(other), strict=True))
    shapes = [w.shape for w in _weights(encoder)]
    assert [w.shape for w in _weights(first)] == shapes
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(first.eval()(images), again.eval()(images))


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_gray_input_gives_what_three_equal_channels_gave(source: str, tmp_path: Any) -> None:
    if source == "timm":
        teacher, name, stem = timm.create_model("resnet10t"), "resnet10t", "conv1.0.weight"
    else:
        teacher, name = torchvision.models.resnet18(weights=None), "torchvision/resnet18"
        stem = "conv1.weight"
    torch.save({"state_dict": teacher.state_dict()}, tmp_path / "rgb.pth")
    encoder = Encoder(name, init_from=str(tmp_path / "rgb.pth")).eval()
    assert encoder.dropped == ("fc.weight", "fc.bias")
    assert encoder.net.state_dict()[stem].shape[1] == 1
    teacher.fc = nn.Identity()
    gray = torch.rand(2, 1, 64, 64)
    want = teacher.eval()(gray.expand(-1, 3, -1, -1))
    torch.testing.assert_close(encoder(gray), want, rtol=1e-4, atol=1e-5)


def test_an_encoders_own_weights_load_back_but_a_fresh_one_ignores_them(tmp_path: Any) -> None:
    encoder = Encoder("resnet10t")
    torch.save(encoder.state_dict(), tmp_path / "own.pt")
    loaded = Encoder("resnet10t", init_from=str(tmp_path / "own.pt"))
    pairs = zip(_weights(encoder), _weights(loaded), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert loaded.dropped == ()
    stem = loaded.fresh(0).net.state_dict()["conv1.0.weight"]
    assert not torch.equal(stem, loaded.net.state_dict()["conv1.0.weight"])


def test_frozen_parts_have_the_parameters_that_do_not_learn() -> None:
    encoder = Encoder("test_vit", image_size=32, frozen=["patch_embed", "blocks.1.attn"])
    still = {n for n, p in encoder.net.named_parameters() if not p.requires_grad}
    below = ("patch_embed.", "blocks.1.attn.")
    assert still == {n for n, _ in encoder.net.named_parameters() if n.startswith(below)}
    before = {n: p.clone() for n, p in encoder.net.named_parameters()}
    groups = decay_groups(encoder)
    encoder(torch.rand(2, 1, 32, 32)).square().sum().backward()
    torch.optim.SGD(groups, lr=1.0, weight_decay=0.1).step()
    moved = {n for n, p in encoder.net.named_parameters() if not torch.equal(p, before[n])}
    assert moved == before.keys() - still


def test_fixed_positions_and_frozen_parts_change_no_other_draw_and_stay_when_fresh() -> None:
    plain = Encoder("test_vit", image_size=32)
    special = Encoder("test_vit", image_size=32, frozen=["patch_embed"], position="sincos")
    a, b = plain.fresh(1), special.fresh(1)
    differing = [
        n for (n, p), q in zip(a.named_parameters(), b.parameters(), strict=True) if (p != q).any()
    ]
    assert differing == ["net.pos_embed"]
    assert torch.equal(b.net.pos_embed, special.net.pos_embed)  # type: ignore[arg-type]
    still = {n for n, p in b.net.named_parameters() if not p.requires_grad}
    assert still == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}


def test_fixed_positions_are_not_taken_from_a_file(tmp_path: Any) -> None:
    learned = Encoder("test_vit", image_size=64)
    torch.save(learned.state_dict(), tmp_path / "learned.pt")
    file = str(tmp_path / "learned.pt")
    fixed = Encoder("test_vit", image_size=32, position="sincos", init_from=file)
    assert fixed.dropped == ("pos_embed",)
    want = Encoder("test_vit", image_size=32, position="sincos")
    assert torch.equal(fixed.net.pos_embed, want.net.pos_embed)  # type: ignore[arg-type]
    assert torch.equal(fixed.net.cls_token, learned.net.cls_token)  # type: ignore[arg-type]


def test_an_encoder_survives_pickling() -> None:
    encoder = Encoder("resnet10t").eval()
    images = torch.rand(1, 1, 32, 32)
    assert torch.equal(pickle.loads(pickle.dumps(encoder))(images), encoder(images))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet81", "resnet18"),
        ("torchvision/resnet19", "torchvision/resnet18"),
        ("torchvision/vgg11", ""),
        ("hf-hub:timm/resnet18.a1_in1k", ""),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"no model '{name}'.*{near}"):
        Encoder(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet10t", "image_size": 64}, "resnet10t.*img_size"),
        ({"name": "resnet10t", "kwargs": {"dpeth": 2}}, "dpeth"),
        ({"name": "torchvision/resnet18", "kwargs": {"drop_rate": 0.1}}, "drop_rate"),
        ({"name": "resnet10t", "position": "sincos"}, "position: sincos needs a transformer"),
        ({"name": "swin_tiny_patch4_window7_224", "position": "sincos"}, "position: sincos"),
        ({"name": "resnet10t", "position": "sine"}, "position: 'sine'"),
        (
            {"name": "resnet10t", "frozen": ["conv1", "layer5"]},
            r"no part 'layer5'.*\['conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4'\]",
        ),
        ({"name": "resnet10t", "frozen": [""]}, "no part ''"),
        ({"name": "resnet10t", "frozen": ["act1"]}, "no part 'act1' with parameters"),
        ({"name": "resnet10t", "in_channels": 0}, "in_channels: 0"),
        ({"name": "resnet10t", "kwargs": {"pretrained": True}}, "kwargs: .'pretrained'."),
        ({"name": "resnet10t", "small_stem": True}, "small_stem"),
        ({"name": "vit_tiny_patch16_224", "small_stem": True}, "small_stem"),
    ],
)
def test_unusable_arguments_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder(**options)


@pytest.mark.parametrize(("name", "kept"), [("resnet10t", True), ("vit_tiny_patch16_224", False)])
def test_a_memory_format_that_would_change_nothing_is_left_off_and_said_once(
    name: str, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder(name, in_channels=3, channels_last=True)
    encoder.fresh(0)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (0 if kept else 1)
    assert all(f"channels_last: left off, '{name}'" in line for line in said)
    assert all(p.is_contiguous() for p in encoder.parameters()) is not kept


def test_a_pooling_that_widens_the_features_is_counted() -> None:
    assert _meta("resnet10t", kwargs={"global_pool": "catavgmax"}).out_features == 1024


@pytest.mark.parametrize("stated", [511, 512])
def test_features_of_another_shape_than_stated_never_leave_the_encoder(stated: int) -> None:
    encoder = _meta("resnet10t", kwargs={"global_pool": "" if stated == 512 else "avg"})
    encoder.out_features = stated
    with pytest.raises(ValueError, match=r"resnet10t.*global_pool"):
        encoder(torch.zeros(2, 1, 64, 64, device="meta"))


TOKENS = [
    ("vit_tiny_patch16_224", 64, 16),
    ("deit_tiny_distilled_patch16_224", 224, 196),
    ("vit_small_patch14_reg4_dinov2", 56, 16),
    ("resnet10t", 64, 4),
    ("convnext_atto", 64, 4),
    ("swin_tiny_patch4_window7_224", 224, 49),
]


@pytest.mark.parametrize(("name", "side", "places"), TOKENS)
def test_tokens_are_the_places_of_the_last_map_and_features_stay_what_they_are(
    name: str, side: int, places: int
) -> None:
    sized = {} if name in ("resnet10t", "convnext_atto") else {"image_size": side}
    encoder = Encoder(name, **sized).eval()  # type: ignore[arg-type]
    images = torch.rand(2, 1, side, side)
    with torch.no_grad():
        alone = encoder(images)
        features, tokens = encoder(images, tokens=True)
        map_ = encoder.net.forward_features(images)  # type: ignore[operator]
    assert torch.equal(features, alone)
    assert torch.equal(alone, encoder.net(images))
    assert tokens.shape == (2, places, encoder.out_features)
    if map_.ndim == 3:  # what comes first is not of a place
        assert torch.equal(tokens, map_[:, -places:])
        assert map_.shape[1] > places
    else:
        nhwc = map_ if "swin" in name else map_.permute(0, 2, 3, 1)
        assert torch.equal(tokens[:, 1], nhwc[:, 0, 1])  # row by row


def test_pooled_tokens_of_a_resnet_are_its_features_in_channels_last_too() -> None:
    encoder = Encoder("resnet10t", channels_last=True).eval()
    features, tokens = encoder(torch.rand(2, 1, 96, 96), tokens=True)
    torch.testing.assert_close(tokens.mean(1), features, rtol=1e-5, atol=1e-6)


def test_gradient_reaches_the_network_through_features_and_tokens() -> None:
    encoder = Encoder("test_vit", image_size=32, frozen=["patch_embed"])
    images = torch.rand(2, 1, 32, 32)
    found = []
    for kept in (0, 1):
        encoder.zero_grad()
        encoder(images, tokens=True)[kept].square().sum().backward()
        found.append(encoder.net.blocks[0].mlp.fc1.weight.grad.clone())  # type: ignore[index, union-attr]
        assert encoder.net.patch_embed.proj.weight.grad is None  # type: ignore[union-attr]
    assert found[0].abs().max() > 1e-6
    assert not torch.equal(*found)


@pytest.mark.parametrize(
    "name", ["torchvision/resnet18", "mobilenetv3_small_050", "crossvit_9_240"]
)
def test_tokens_of_a_network_without_a_map_as_wide_as_its_features_are_refused(name: str) -> None:
    side = 240 if "crossvit" in name else 64
    with pytest.raises(ValueError, match=rf"{name}': tokens need a timm model whose map is as wi"):
        _meta(name)(torch.zeros(2, 1, side, side, device="meta"), tokens=True)
