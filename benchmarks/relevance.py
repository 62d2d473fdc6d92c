"""Relevance, DeepLIFT and attention on models of keras.applications and keras-hub.

    python benchmarks/relevance.py [NAME ...]
    python benchmarks/relevance.py photos SQUEEZENET_WEIGHTS EFFICIENTNET.keras FIGURE PHOTO ...

For each method and model, the largest conservation error of a layer (relevance), the gap of the sum
(DeepLIFT), "map" (attention), or what it is refused for. Weights are random, normalized by batch
statistics, with biases; images are random.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import keras
import numpy as np

import tfsaliency as tfs

METHODS = (
    *("lrp_epsilon", "lrp_z_plus", "lrp_alpha2_beta1", "lrp_epsilon_plus", "lrp_epsilon_plus_flat"),
    *("transformer_lrp", "deep_lift", "attention_rollout", "generic_attention", "legrad"),
)
APPLICATIONS = (
    *("VGG16", "ResNet50", "ResNet50V2", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0"),
    *("EfficientNetV2B0", "ConvNeXtTiny", "DenseNet121", "InceptionV3", "Xception", "NASNetMobile"),
)
SIDE = 96


def application(name: str) -> keras.Model:
    """Build a model of keras.applications."""
    options = {"include_preprocessing": False} if "V3Small" in name else {}
    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(SIDE, SIDE, 3), classes=10, **options)


def hub() -> dict[str, Callable[[], keras.Model]]:
    """Return builders of keras-hub's vision transformers, if it is installed."""
    try:
        import keras_hub
    except ImportError:
        return {}
    models = keras_hub.models
    vit = {"image_shape": (32, 32, 3), "patch_size": 8, "num_layers": 2, "num_heads": 2}

    def classify(backbone: keras.Model) -> keras.Model:
        x = backbone(i := keras.Input((32, 32, 3)))
        if isinstance(x, dict):
            x = x.get("pooled_output", x.get("sequence_output", x.get("pyramid_outputs")))
        rank = len(x.shape)
        if rank == 4:
            x = keras.layers.GlobalAveragePooling2D()(x)
        elif rank == 3:
            x = x[:, 0]
        return keras.Model(i, keras.layers.Dense(10, "softmax")(x))

    return {
        "keras-hub ViT": lambda: classify(
            models.ViTBackbone(**vit, hidden_dim=16, mlp_dim=32)
        ),
        "keras-hub DeiT": lambda: classify(
            models.DeiTBackbone(**vit, hidden_dim=16, intermediate_dim=32)
        ),
        "keras-hub CLIP": lambda: classify(
            models.CLIPVisionEncoder(
                patch_size=8, hidden_dim=16, num_layers=2, num_heads=2, intermediate_dim=32,
                intermediate_activation="quick_gelu", image_shape=(32, 32, 3),
            )
        ),
        "keras-hub SigLIP": lambda: classify(
            models.SigLIPVisionEncoder(
                patch_size=8, hidden_dim=16, num_layers=2, num_heads=2, intermediate_dim=32,
                image_shape=(32, 32, 3),
            )
        ),
        "keras-hub DINOv2": lambda: classify(
            models.DINOV2Backbone(
                patch_size=8, num_layers=2, hidden_dim=16, num_heads=2, intermediate_dim=32,
                image_shape=(32, 32, 3),
            )
        ),
        "keras-hub Swin": lambda: classify(
            models.SwinTransformerBackbone(
                image_shape=(32, 32, 3), patch_size=4, embed_dim=16, depths=(2, 2),
                num_heads=(2, 2), window_size=4,
            )
        ),
    }  # fmt: skip


def settle(model: keras.Model, images: np.ndarray) -> None:
    """Give a model statistics of its own, biases, and logits of a size."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    for _ in range(3):
        model(images, training=True)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if weight.path.endswith("bias"):
            weight.assign(rng.normal(0, 0.05, weight.shape))


def cell(model: keras.Model, images: np.ndarray, method: str) -> str:
    """Return what a method does for a model."""
    try:
        maps = tfs.attributions(model, images, method, on_problem="ignore", verbose=0)
    except tfs.TfSaliencyError as error:
        return str(error).split("Received: ")[-1].split("Use ")[0].strip(" .")[:90]
    told = maps.details.get(method, {})
    for name in ("conservation_error", "gap"):
        if name in told:
            return f"{told[name].max():.1g}"
    return "map"


def photos(weights: str, efficientnet: str, figure: str, *files: str) -> None:
    """Print conservation errors on photos, and draw all methods."""
    networks = {
        "squeezenet": (
            tfs.models.SqueezeNet(weights),
            tfs.models.squeezenet.preprocess_input,
        ),
        "efficientnet": (keras.models.load_model(efficientnet), lambda x: (x - 127.0) / 128.0),
    }
    print(
        "| | lrp_epsilon: largest error of a layer | relevance + biases over score |\n|---|---|---|"
    )
    for name, (model, preprocess) in networks.items():
        images = tfs.load_images(files, model, fit="squash")
        prepared = tfs.prepare(model, preprocess=preprocess)
        told = tfs.attributions(prepared, images, "lrp_epsilon", verbose=0).details["lrp_epsilon"]
        scores = tfs.attributions(prepared, images, "gradient", verbose=0).scores
        whole = (told["relevance"] + told["kept"]) / scores
        spread = f"{whole.min():.5f} to {whole.max():.5f}"
        print(f"| {name} | {told['conservation_error'].max():.1g} | {spread} |", flush=True)
        usable = [n for n in tfs.METHODS if not n.startswith(("attention", "generic", "legrad"))]
        maps = tfs.saliency_map(prepared, images, usable, on_problem="ignore", batch_size=16)
        maps.plot(columns=8).savefig(f"{figure}-{name}.png", dpi=60)


def main() -> None:
    if sys.argv[1:2] == ["photos"]:
        photos(*sys.argv[2:])
        return
    builders = {name: (lambda n=name: application(n)) for name in APPLICATIONS} | hub()
    chosen = sys.argv[1:] or list(builders)
    print(f"| | {' | '.join(METHODS)} |\n|{'---|' * (1 + len(METHODS))}")
    for name in chosen:
        keras.utils.set_random_seed(0)
        model = builders[name]()
        high = 255 if name.startswith(("EfficientNet", "ConvNeXt")) else 1
        shape = (2, *model.input_shape[1:])
        images = np.random.default_rng(0).uniform(0 if high > 1 else -1, high, shape)
        settle(model, images)
        print(f"| {name} | {' | '.join(cell(model, images, m) for m in METHODS)} |", flush=True)
        del model
        gc.collect()


if __name__ == "__main__":
    main()
