"""Every family of torchvision and timm, once, with random weights: a map of regions in their places, or one line."""

from __future__ import annotations

import pytest
import torch

from fastzsl.errors import UserError
from fastzsl.features.backbones import Backbone, load_backbone

TORCHVISION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_32", "wide_resnet50_2",
)  # fmt: skip
TIMM = (
    "beit_base_patch16_224", "halonet26t", "test_byobnet", "cait_xxs24_224", "coat_tiny", "convit_tiny",
    "convmixer_768_32", "test_convnext", "cpubone_nano", "crossvit_tiny_240", "csatv2", "cs3darknet_s", "cspnext_tiny",
    "davit_tiny", "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "densenet121", "dla34", "dpn68",
    "edgenext_small", "efficientformer_l1", "efficientformerv2_s0", "test_efficientnet", "tf_efficientnet_lite3",
    "efficientvim_m1", "efficientvit_b0", "efficientvit_m0", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t8",
    "focalnet_tiny_lrf", "gcvit_xxtiny", "ghostnet_050", "hardcorenas_a", "hgnet_tiny", "hiera_tiny_224",
    "hrnet_w18_small", "iformer_s", "inception_next_atto", "inception_resnet_v2", "inception_v3", "inception_v4",
    "lcnetv2_small", "levit_128s", "lowformer_b0", "test_mambaout", "test_maxvit", "caformer_s18", "poolformer_s12",
    "gmlp_s16_224", "mixer_s32_224", "resmlp_12_224", "tf_mobilenetv3_large_minimal_100", "mobilevit_xxs",
    "mobilevitv2_050", "mvitv2_tiny", "nest_tiny", "nextvit_small", "test_nfnet", "pit_xs_224", "pvt_v2_b0",
    "rdnet_tiny", "regnetx_002", "repghostnet_050", "repvit_m0_9", "res2net50_14w_8s", "resnest14d", "resnet10t",
    "resnetv2_18", "rexnet_100", "selecsls42", "legacy_seresnet18", "sequencer2d_s", "shvit_s1", "skresnet18",
    "starnet_s1", "swiftformer_xs", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224",
    "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "tresnet_m", "twins_svt_small", "twins_pcpvt_small", "vgg11",
    "visformer_tiny", "test_vit", "vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2",
    "vit_base_patch32_clip_224.openai", "vit_tiny_r_s16_p8_224", "vit_relpos_small_patch16_224", "vitamin_small_224",
    "volo_d1_224", "ese_vovnet19b_slim", "legacy_xception", "xception41", "xcit_nano_12_p8_224",
)  # fmt: skip
"""One small model of each of timm's modules; left out are those without one below 90 million weights."""

FORGETFUL = {
    "timm/levit_128s",
    "timm/convmixer_768_32",
    "timm/cpubone_nano",
    "timm/tiny_vit_5m_224",
    "timm/visformer_tiny",
}
"""Without training, their layers mix all places alike, so that a change cannot be located in the map."""


def check_places(backbone: Backbone) -> None:
    """What changes most in the map lies where the image was changed: no axis is swapped, no token is out of place."""
    side, (rows, columns) = backbone.image_size, backbone.grid
    assert rows == columns >= 2
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, side, side, generator=generator)
    cell = side // 4
    with torch.no_grad():
        before = backbone(image)
        assert before.shape == (1, backbone.feature_dim, rows, columns)
        for top, left in ((0, 3), (3, 0)):
            changed = image.clone()
            changed[:, :, top * cell : (top + 1) * cell, left * cell : (left + 1) * cell] *= 0
            change = (backbone(changed) - before).abs().sum(1)[0]
            at_top, at_left = change[: rows // 2].sum(), change[:, : columns // 2].sum()
            assert (at_top > change[-(rows // 2) :].sum()) == (top == 0), f"rows of {backbone.name}"
            assert (at_left > change[:, -(columns // 2) :].sum()) == (left == 0), (
                f"columns of {backbone.name}"
            )


@pytest.mark.campaign
@pytest.mark.parametrize("name", [*TORCHVISION, *(f"timm/{name}" for name in TIMM)])
def test_every_family_gives_regions_in_their_places(name: str) -> None:
    import timm

    if name.startswith("timm/") and not timm.is_model(name.removeprefix("timm/")):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    backbone = load_backbone(name, "random")
    if name in FORGETFUL:
        assert backbone.grid[0] == backbone.grid[1] >= 2
    else:
        check_places(backbone)


@pytest.mark.slow
def test_every_family_of_timm_is_in_the_list() -> None:
    import timm

    large = {"deepseek_vit", "gemma4_vit", "hieradet_sam2", "mobilenetv5", "naflexvit", "nasnet", "pnasnet",
             "qwen3_vit", "vision_transformer_sam"}  # fmt: skip
    tried = {
        timm.models._registry._model_to_module[name.split(".")[0]] for name in TIMM if timm.is_model(name)
    }
    assert set(timm.list_modules()) - tried <= large


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet18", 32, 'backbone "resnet18" gives one region for 32 × 32 pixels; attention needs several'),
        ("timm/vit_tiny_patch16_224", 16, "gives one region for 16 × 16 pixels"),
        ("resnet18", 5000, "--image-size is 5000; wanted 16 to 4096 pixels"),
        ("maxvit_t", 200, "does not take images of 200 × 200 pixels"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(name: str, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        load_backbone(name, "random", size)
    assert "\n" not in str(refused.value)
