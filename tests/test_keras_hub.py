"""Models of keras-hub, where it is installed: a box of a detector, and layers without a config."""

import keras
import numpy as np
import pytest

import tfsaliency as tfs

pytestmark = pytest.mark.slow


def _models():
    return pytest.importorskip("keras_hub").models


def test_an_anchor_of_retinanet():
    models = _models()
    resnet = models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64] * 4,
        stackwise_num_blocks=[1] * 4, stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block", image_shape=(128, 128, 3),
    )  # fmt: skip
    backbone = models.RetinaNetBackbone(
        image_encoder=resnet, min_level=3, max_level=5, use_p5=False, image_shape=(128, 128, 3)
    )
    detector = models.RetinaNetObjectDetector(
        backbone=backbone, num_classes=5, bounding_box_format="xyxy"
    )
    photo = np.random.default_rng(0).uniform(size=(1, 128, 128, 3)).astype("float32")
    found = detector(photo)
    logits, boxes = (found[name].numpy()[0] for name in ("cls_logits", "bbox_regression"))
    anchor, kind = np.unravel_index(logits.argmax(), logits.shape)
    classes = tfs.prepare(detector, output="cls_logits", score="logit")
    region = np.arange(len(logits)) == anchor
    by_region = tfs.attributions(
        classes, photo, ["gradient", "guided_backprop"], targets=kind, region=region
    )
    by_function = tfs.attributions(
        tfs.prepare(detector, output="cls_logits", score=lambda o, t: o[:, anchor, kind]), photo
    )
    np.testing.assert_allclose(by_region.scores, [logits[anchor, kind]], rtol=1e-4)
    scale = np.abs(by_function["gradient"]).max()
    np.testing.assert_allclose(
        by_region["gradient"] / scale, by_function["gradient"] / scale, atol=1e-5
    )
    left = tfs.prepare(detector, output="bbox_regression", score=lambda o, t: o[:, anchor, 0])
    np.testing.assert_allclose(tfs.saliency_map(left, photo).scores, [boxes[anchor, 0]], rtol=1e-4)


def _backbones():
    models = _models()
    vit = {"image_shape": (32, 32, 3), "patch_size": 8, "num_layers": 2, "num_heads": 2}
    yield models.ViTBackbone(**vit, hidden_dim=16, mlp_dim=32)
    yield models.DeiTBackbone(**vit, hidden_dim=16, intermediate_dim=32)
    yield models.SwinTransformerBackbone(
        image_shape=(32, 32, 3), patch_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 2),
        window_size=4,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # of keras-hub's own layers
def test_layers_that_are_not_rebuilt_by_their_config():
    x = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
    for backbone in _backbones():
        h = backbone(i := keras.Input((32, 32, 3)))
        h = h["pyramid_outputs"] if isinstance(h, dict) else h
        pool = (
            keras.layers.GlobalAveragePooling1D
            if len(h.shape) == 3
            else (keras.layers.GlobalAveragePooling2D)
        )
        model = keras.Model(i, keras.layers.Dense(3, activation="softmax")(pool()(h)))
        result = tfs.sanity_check(
            model, x, seeds=2, similarities="spearman", verbose=0, on_problem="ignore"
        )
        assert "not rebuilt by config" in result.settings["drawn by 'matched'"]
        assert result.verdicts["gradient"][-1].verdict == "depends on the parameters"
