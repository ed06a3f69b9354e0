"""Checkpoints as users' tools save them, read here and by their own network: the same logits and masks.

On one image at its own size. 1e-4 of the logits' deviation: what single precision leaves after a hundred layers.
"""

from __future__ import annotations

import numpy as np
import pytest
from torch_peers import import_peer

import deeplab_jax as dl
from deeplab_jax.types import UserError

pytestmark = pytest.mark.peer
TOLERANCE = 1e-4
MEAN, STD = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 4), np.uint8)


@pytest.fixture(scope="module")
def torch():
    return import_peer("torch")


def _drawn(torch, network):
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.8, 1.2)
    return network.eval()


def _smp(torch, **options):
    smp = import_peer("segmentation_models_pytorch")
    settings = {"encoder_weights": None, "classes": 2, "in_channels": 3} | options
    return _drawn(torch, smp.DeepLabV3Plus("mobilenet_v2", **settings))


def _torchvision(torch, num_classes):
    """Trained for 21 classes, of which the tutorials replace the main classifier alone."""
    segmentation = import_peer("torchvision").models.segmentation
    make = segmentation.deeplabv3_mobilenet_v3_large
    network = make(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    network.classifier[4] = torch.nn.Conv2d(256, num_classes, 1)
    return _drawn(torch, network)


def _logits(torch, network, channels=3):
    pixels = IMAGE[..., :channels].astype(np.float32)
    x = (pixels - MEAN) / STD if channels == 3 else pixels / 127.5 - 1
    with torch.no_grad():
        y = network(torch.from_numpy(x.transpose(2, 0, 1)[None].copy()))
    return (y["out"] if isinstance(y, dict) else y).numpy()[0].transpose(1, 2, 0)


def _assert_same(path, theirs, *, channels=3, words="are assumed", **options):
    with pytest.warns(UserWarning, match=words):
        model = dl.load(path, **options)
    assert model.info.channels == channels
    ours = np.asarray(model.module.apply(model.variables, IMAGE[None, ..., :channels], train=False))[0]
    assert np.abs(ours - theirs).max() < TOLERANCE * theirs.std()
    np.testing.assert_array_equal(ours.argmax(-1), theirs.argmax(-1))


def test_torchvision_fine_tuned(torch, tmp_path):
    network = _torchvision(torch, 2)
    torch.save(network.state_dict(), tmp_path / "model.pth")
    _assert_same(tmp_path / "model.pth", _logits(torch, network), words="auxiliary head does not fit")
    with pytest.raises(UserError, match=r"aux_classifier\.4\.weight"):
        dl.load(tmp_path / "model.pth", strict=True)


def test_lightning(torch, tmp_path):
    network = _smp(torch)
    named = {f"model.{name}": value for name, value in network.state_dict().items()}
    named |= {"std": torch.ones(1, 3, 1, 1), "loss_fn.weight": torch.ones(2)}
    saved = {"epoch": 3, "pytorch-lightning_version": "2.5.0", "state_dict": named, "optimizer_states": []}
    torch.save(saved | {"hyper_parameters": {"arch": "DeepLabV3Plus"}}, tmp_path / "last.ckpt")
    _assert_same(tmp_path / "last.ckpt", _logits(torch, network), words="'state_dict.model'.*left out.*loss_fn")


def test_compiled_averaged_and_parallel(torch, tmp_path):
    network = _smp(torch)
    average = torch.optim.swa_utils.AveragedModel(torch.nn.DataParallel(network))
    states = {f"_orig_mod.{name}": value for name, value in average.state_dict().items()}
    torch.save({"model_ema": states, "epoch": 1}, tmp_path / "model.pth")
    _assert_same(tmp_path / "model.pth", _logits(torch, network), words="of 'model_ema'")


@pytest.mark.parametrize("options", [{"encoder_output_stride": 8}, {"decoder_atrous_rates": (6, 12, 18)}])
def test_save_pretrained_says_stride_and_rates(options, torch, tmp_path):
    network = _smp(torch, **options)
    network.save_pretrained(str(tmp_path / "mine"))
    _assert_same(tmp_path / "mine", _logits(torch, network), words=r"as its config\.json has them")


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"encoder_output_stride": 8}, {"output_stride": 8}),
        ({"decoder_atrous_rates": (6, 12, 18)}, {"atrous_rates": (6, 12, 18)}),
    ],
)
def test_what_a_state_dict_does_not_say_can_be_chosen(options, chosen, torch, tmp_path):
    network = _smp(torch, **options)
    torch.save(network.state_dict(), tmp_path / "model.pth")
    _assert_same(tmp_path / "model.pth", _logits(torch, network), **chosen)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels, torch, tmp_path):
    network = _smp(torch, in_channels=channels)
    torch.save(network.state_dict(), tmp_path / "model.pth")
    _assert_same(tmp_path / "model.pth", _logits(torch, network, channels), channels=channels)


def test_a_classification_head_beside_it(torch, tmp_path):
    network = _smp(torch, aux_params={"classes": 4})
    torch.save(network.state_dict(), tmp_path / "model.pth")
    _assert_same(tmp_path / "model.pth", _logits(torch, lambda x: network(x)[0]))


# ---- networks of another kind

_SEGMENTERS = ("Unet", "UnetPlusPlus", "FPN", "PSPNet", "PAN", "Linknet", "MAnet", "UPerNet", "Segformer")


@pytest.mark.parametrize("name", _SEGMENTERS)
def test_other_networks_of_smp(name, torch, tmp_path):
    smp = import_peer("segmentation_models_pytorch")
    torch.save(getattr(smp, name)("mobilenet_v2", encoder_weights=None).state_dict(), tmp_path / "model.pth")
    with pytest.raises(UserError, match=rf"this is smp's {name}: "):
        dl.load(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_base_patch16_224", "timm's vit_base_patch16_224"),
        ("vit_small_patch16_224", "timm's vit_small_patch16_224"),
        ("convnext_tiny", "timm's convnext_tiny or small"),
        ("hrnet_w18", "timm's hrnet_w18"),
        ("swin_tiny_patch4_window7_224", "timm's swin_tiny or small"),
        ("regnety_004", "timm's regnet"),
        ("densenet121", "timm's densenet"),
    ],
)
def test_other_backbones_of_timm(name, words, torch, tmp_path):
    timm = import_peer("timm")
    torch.save(timm.create_model(name).state_dict(), tmp_path / "model.pth")
    with pytest.raises(UserError, match=f"this is {words}: there is no such backbone here"):
        dl.load(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("convnext_tiny", "torchvision's convnext_tiny or small"),
        ("vit_b_16", "torchvision's vit"),
        ("swin_t", "torchvision's swin_tiny or small"),
        ("squeezenet1_1", "torchvision's squeezenet"),
        ("shufflenet_v2_x1_0", "torchvision's shufflenet_v2"),
        ("mnasnet1_0", "torchvision's mnasnet"),
        ("regnet_y_400mf", "torchvision's regnet"),
        ("alexnet", "torchvision's alexnet"),
    ],
)
def test_other_backbones_of_torchvision(name, words, torch, tmp_path):
    models = import_peer("torchvision").models
    torch.save(getattr(models, name)(weights=None).state_dict(), tmp_path / "model.pth")
    with pytest.raises(UserError, match=f"this is {words}: there is no such backbone here"):
        dl.load(tmp_path / "model.pth")


def test_an_encoder_that_does_not_exist_here(torch, tmp_path):
    smp = import_peer("segmentation_models_pytorch")
    torch.save(smp.DeepLabV3Plus("tu-convnext_tiny", encoder_weights=None).state_dict(), tmp_path / "model.pth")
    with pytest.raises(UserError, match="smp's DeepLabV3Plus on timm's convnext_tiny or small, which is no backbone"):
        dl.load(tmp_path / "model.pth")


def test_segformer_of_transformers(torch, tmp_path):
    transformers = import_peer("transformers")
    network = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig())
    torch.save(network.state_dict(), tmp_path / "model.pth")
    with pytest.raises(UserError, match="this is transformers' SegFormer: "):
        dl.load(tmp_path / "model.pth")


@pytest.mark.parametrize("flipped", [True, False])
def test_mobilevit_as_transformers_saves_it(torch, tmp_path, flipped):
    """Its processor is read: BGR, divided by 255, and not normalised by the means that it lists."""
    transformers = import_peer("transformers")
    sizes = {"hidden_sizes": (64, 80, 96), "neck_hidden_sizes": (16, 16, 24, 48, 64, 80, 320), "expand_ratio": 2.0}
    settings = {"output_stride": 8, "atrous_rates": (2, 4, 6), "semantic_loss_ignore_index": 254}
    names = {"id2label": {0: "ground", 1: "tree"}, "label2id": {"ground": 0, "tree": 1}}
    config = transformers.MobileViTConfig(**sizes, **settings, **names)
    network = _drawn(torch, transformers.MobileViTForSemanticSegmentation(config))
    options = {"do_resize": False, "do_center_crop": False, "do_flip_channel_order": flipped}
    processor = transformers.MobileViTImageProcessor(**options)
    processor.save_pretrained(tmp_path)
    images = processor(IMAGE[..., :3], return_tensors="pt")
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)  # where training begins, they are almost 0
        first, second = network(**images).logits[0]
        network.segmentation_head.classifier.convolution.bias[1] += (first - second).median()  # so that both occur
        network.save_pretrained(tmp_path)
        output = network(**images)
        (wanted,) = processor.post_process_semantic_segmentation(output, [IMAGE.shape[:2]])
    with pytest.warns(UserWarning, match="ignored label 254: as its config.json"):
        model = dl.load(tmp_path)
    assert (model.classes, model.info.ignore_label) == (("ground", "tree"), 254)
    logits = output.logits.numpy()[0].transpose(1, 2, 0)
    pixels = model.module.normalize(IMAGE[None, ..., :3])
    ours = np.asarray(model.module.apply(model.variables, pixels, train=False, method="scores"))[0]
    assert np.abs(ours - logits).max() < TOLERANCE * logits.std()
    assert 0.2 < np.mean(wanted.numpy()) < 0.8
    np.testing.assert_array_equal(model.segment(IMAGE[..., :3]), wanted)


@pytest.mark.parametrize("make", [lambda torch: _smp(torch, classes=1), lambda torch: _torchvision(torch, 1)])
def test_one_output_keeps_its_sigmoid(torch, tmp_path, make):
    """The mask is where the sigmoid of the logit is above a half, as the peer's users have it."""
    network = make(torch)
    logits = _logits(torch, network)
    with torch.no_grad():  # so that both sides of the threshold occur
        last = [
            module for module in network.modules() if isinstance(module, torch.nn.Conv2d) and module.bias is not None
        ]
        next(each for each in last if each.out_channels == 1).bias -= float(np.median(logits))
    logits = _logits(torch, network)
    torch.save(network.state_dict(), tmp_path / "model.pth")
    with pytest.warns(UserWarning, match="its one output is one logit, of the object"):
        model = dl.load(tmp_path / "model.pth", bucket=1)
    mask, probability = model.segment(IMAGE[..., :3]), model.probabilities(IMAGE[..., :3])[..., 1]
    wanted = 1 / (1 + np.exp(-logits[..., 0]))
    np.testing.assert_allclose(probability, wanted, atol=TOLERANCE * logits.std())
    sure = np.abs(logits[..., 0]) > TOLERANCE * logits.std()
    assert 0.2 < mask.mean() < 0.8
    np.testing.assert_array_equal(mask[sure], (wanted > 0.5)[sure])
