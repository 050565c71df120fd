"""From features back to places: CAM, Grad-CAM, and the networks that have neither."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.patches import as_map, averages_map, patches

POOLED_VIT = {"class_token": False, "global_pool": "avg"}

AVERAGES: list[tuple[str, dict[str, Any], int, bool]] = [
    ("resnet18", {}, 64, True),
    ("densenet121", {}, 64, True),
    ("regnetx_002", {}, 64, True),
    ("efficientnet_lite0", {}, 64, True),
    ("resnetv2_18", {}, 64, True),
    ("resnet18", {"global_pool": "max"}, 64, False),
    ("resnet18", {"global_pool": "avgmax"}, 64, False),
    ("convnext_atto", {}, 64, False),
    ("test_vit", POOLED_VIT, 32, False),
]
"""Networks, whether their features are the mean of their last map."""


def made(name: str, kwargs: dict[str, Any], side: int) -> Encoder:
    """In float64, with norms that do not pass their input on as fresh ones nearly do."""
    torch.manual_seed(0)
    sized = {"image_size": side} if "vit" in name else {}
    encoder = Encoder(name, kwargs=kwargs, **sized)  # type: ignore[arg-type]
    for value in encoder.state_dict().values():
        if value.ndim == 1 and value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return encoder.double().eval()


@pytest.mark.parametrize(("name", "kwargs", "side", "averages"), AVERAGES)
def test_what_is_said_of_the_mean_holds_in_numbers(
    name: str, kwargs: dict[str, Any], side: int, averages: bool
) -> None:
    encoder = made(name, kwargs, side)
    with torch.no_grad():
        features, tokens = encoder(torch.randn(2, 1, side, side, dtype=torch.float64), tokens=True)
    apart = float((features - tokens.mean(1)).abs().max() / features.abs().max())
    assert encoder.averages is averages
    assert averages_map(encoder.net) is averages
    assert (apart < 1e-12) is averages


def test_dropout_behind_the_mean_makes_it_no_plain_mean() -> None:
    assert not Encoder("resnet10t", kwargs={"drop_rate": 0.2}).averages
    assert not Encoder("densenet121", kwargs={"drop_rate": 0.2}).averages


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet10t", 64),
        ("densenet121", 64),
        ("convnext_atto", 64),
        ("swin_tiny_patch4_window7_224", 224),
        ("test_vit", 160),
        ("vit_small_patch14_reg4_dinov2", 518),
        ("levit_128s", 224),
        ("mixer_s32_224", 224),
        ("maxvit_tiny_rw_224", 224),
    ],
)
def test_patches_go_back_into_the_map_they_came_from(name: str, side: int) -> None:
    with torch.device("meta"):
        net = Encoder(name).eval().net
        map_ = net.forward_features(torch.zeros(2, 1, side, side))  # type: ignore[operator]
        tokens = patches(net, map_)
        assert tokens is not None
        sequence = map_.ndim == 3
        assert as_map(net, tokens, sequence=sequence).shape == map_.shape
    back = torch.arange(2 * 49 * 5).view(2, 49, 5)
    again = patches(net, as_map(net, back, sequence=sequence))
    assert again is not None
    assert torch.equal(again, back)


def literal_grad_cam(encoder: Encoder, images: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Heat [B, P] and weights [B, D] by a forward hook and backward, image after image.

    The hook takes what `forward_features` gave; gradients run through the ordinary forward.
    """
    net: Any = encoder.net
    inner = net.forward_features
    heats, weights = [], []
    for image, towards in zip(images, direction, strict=True):
        kept: list[Tensor] = []

        def keep(x: Tensor, kept: list[Tensor] = kept, **_: Any) -> Tensor:
            kept.append(inner(x))
            kept[0].retain_grad()
            return kept[0]

        net.forward_features = keep
        score = (net(image[None])[0] * towards).sum()
        net.forward_features = inner
        score.backward()
        tokens, slopes = patches(net, kept[0]), patches(net, kept[0].grad)
        assert tokens is not None
        assert slopes is not None
        weight = sum(slopes[0, p] for p in range(slopes.shape[1])) / slopes.shape[1]
        weights.append(weight)
        heats.append(torch.stack([(tokens[0, p] * weight).sum() for p in range(tokens.shape[1])]))
    return torch.stack(heats).detach(), torch.stack(weights).detach()  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "side"), [("resnet18", 96), ("densenet121", 64)])
def test_the_class_activation_map_is_grad_cam_up_to_the_number_of_places(
    name: str, side: int
) -> None:
    encoder = made(name, {}, side)
    classifier = nn.Linear(encoder.out_features, 3).double()
    images = torch.randn(2, 1, side, side, dtype=torch.float64)
    features, tokens = encoder(images, tokens=True)
    which = classifier(features).argmax(1)
    direction = classifier.weight[which].detach()
    cam = torch.einsum("bpd,bd->bp", tokens, direction).detach()
    grad_cam, weights = literal_grad_cam(encoder, images, direction)
    places = tokens.shape[1]
    assert places == (9 if name == "resnet18" else 4)
    assert float(cam.abs().max()) > 1e-3
    largest = float(cam.abs().max())
    torch.testing.assert_close(grad_cam * places, cam, rtol=0, atol=1e-12 * largest)
    torch.testing.assert_close(weights * places, direction, rtol=1e-10, atol=1e-14)
    # and what is computed where there is no such shortcut agrees
    slope = encoder.sensitivity(tokens, direction)
    torch.testing.assert_close(slope * places, direction, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "kwargs", "side"),
    [
        ("convnext_atto", {}, 64),
        ("test_vit", POOLED_VIT, 32),
        ("resnet10t", {"global_pool": "max"}, 64),
        ("efficientformerv2_s0", {}, 224),  # pools a grid by a name, as transformers do sequences
        ("hiera_tiny_224", {}, 224),  # pools a sequence by a layer of its head
    ],
)
def test_sensitivity_is_grad_cam_by_hooks(name: str, kwargs: dict[str, Any], side: int) -> None:
    encoder = made(name, kwargs, side)
    images = torch.randn(2, 1, side, side, dtype=torch.float64)
    direction = torch.randn(2, encoder.out_features, dtype=torch.float64)
    with torch.no_grad():
        tokens = encoder(images, tokens=True)[1]
        found = encoder.sensitivity(tokens, direction)
    _, wanted = literal_grad_cam(encoder, images, direction)
    assert not found.requires_grad
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-14)
    # with a norm behind, it is no multiple of the direction, which a plain mean's map is weighed by
    alike = torch.nn.functional.cosine_similarity(found, direction)
    assert (float(alike.max()) < 0.999) == (name in ("convnext_atto", "test_vit", "hiera_tiny_224"))


def test_sensitivity_leaves_no_gradient_and_works_in_inference_mode_and_under_autocast() -> None:
    encoder = Encoder("test_vit", image_size=32, kwargs=POOLED_VIT)
    images, direction = torch.randn(2, 1, 32, 32), torch.randn(2, encoder.out_features)
    tokens = encoder(images, tokens=True)[1]
    plain = encoder.sensitivity(tokens, direction)
    assert all(p.grad is None for p in encoder.parameters())
    assert tokens.requires_grad
    with torch.inference_mode():
        other = encoder.sensitivity(encoder(images, tokens=True)[1], direction.clone())
    torch.testing.assert_close(other, plain)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = encoder.sensitivity(encoder(images, tokens=True)[1].bfloat16(), direction)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, plain, rtol=0.05, atol=0.05 * float(plain.abs().max()))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("test_vit", {}, r"encoder 'test_vit': its features do not depend on its last patches; "),
        ("vit_tiny_patch16_224", {}, r"set kwargs {class_token: false, global_pool: avg}"),
        ("deit_tiny_distilled_patch16_224", {}, "do not depend on its last patches"),
        ("torchvision/resnet18", {}, "torchvision/resnet18': tokens need a timm model"),
        ("mobilenetv3_small_050", {}, "mobilenetv3_small_050': tokens need a timm model"),
        ("resnet10t", {"global_pool": "catavgmax"}, "tokens need a timm model"),
    ],
)
def test_networks_whose_features_are_not_of_their_patches_are_refused(
    name: str, kwargs: dict[str, Any], message: str
) -> None:
    with torch.device("meta"):
        encoder = Encoder(name, kwargs=kwargs)
    with pytest.raises(ValueError, match=message):
        _ = encoder.averages


def test_patches_that_make_no_square_are_refused() -> None:
    with torch.device("meta"):
        net = Encoder("resnet10t").net
    with pytest.raises(ValueError, match="6 patches make no square"):
        as_map(net, torch.zeros(1, 6, 512), sequence=False)
