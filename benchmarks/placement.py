"""Places of the cells of class activation maps: a table of architectures.

    python benchmarks/placement.py [MODEL ...]

Weights are random. For each model: the default layer, its cells, the number of other tokens before
them, the distance of cells and the center of the first in pixels, its difference from a grid that
is stretched over the image, and the warning if the choice of the layer is uncertain. Refused models
print the reason. Models of keras-hub are left out where it is not installed. An argument selects
the models whose names start with it.
"""

import gc
import sys
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from coverage import applications
from keras import layers

import tfsaliency as tfs

CLASSES = 5


def classifier(backbone, tensor=None, token=False):
    """Put a head on an output of a backbone: the first token, or the mean over positions."""
    tensor = backbone.output if tensor is None else tensor
    if token:
        tensor = tensor[:, 0]
    elif len(tensor.shape) == 4:
        tensor = layers.GlobalAveragePooling2D()(tensor)
    elif len(tensor.shape) == 3:
        tensor = layers.GlobalAveragePooling1D()(tensor)
    return keras.Model(backbone.inputs[0], layers.Dense(CLASSES)(tensor))


def hub() -> Iterator[tuple[str, Callable[[], keras.Model]]]:
    """Yield small models of keras-hub, where it is installed."""
    try:
        from keras_hub import models
    except ImportError:
        print("keras-hub is not installed: its models are left out", file=sys.stderr)
        return

    size = {"image_shape": (64, 64, 3)}
    vit = {"num_layers": 3, "num_heads": 2, "hidden_dim": 32}

    def resnet(shape=(128, 128, 3)):
        return models.ResNetBackbone(
            input_conv_filters=[64], input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 64, 64, 64], stackwise_num_blocks=[1, 1, 1, 1],
            stackwise_num_strides=[1, 2, 2, 2], block_type="basic_block", image_shape=shape,
        )  # fmt: skip

    def mit():
        return models.MiTBackbone(
            layerwise_depths=[1, 1, 1, 1], num_layers=4, layerwise_num_heads=[1, 2, 2, 4],
            layerwise_sr_ratios=[8, 4, 2, 1], max_drop_path_rate=0.1,
            layerwise_patch_sizes=[7, 3, 3, 3], layerwise_strides=[4, 2, 2, 2],
            image_shape=(128, 128, 3), hidden_dims=[16, 32, 48, 64],
        )  # fmt: skip

    def deeplab():
        backbone = models.DeepLabV3Backbone(
            image_encoder=resnet(), projection_filters=16, low_level_feature_key="P2",
            spatial_pyramid_pooling_key="P4", upsampling_size=4, dilation_rates=[2, 4, 6],
            image_shape=(128, 128, 3),
        )  # fmt: skip
        return models.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=CLASSES)

    def segformer():
        backbone = models.SegFormerBackbone(
            image_encoder=mit(), projection_filters=16, image_shape=(128, 128, 3)
        )
        return models.SegFormerImageSegmenter(backbone=backbone, num_classes=CLASSES)

    def retinanet():
        backbone = models.RetinaNetBackbone(
            image_encoder=resnet(), min_level=3, max_level=5, use_p5=False,
            image_shape=(128, 128, 3),
        )  # fmt: skip
        return models.RetinaNetObjectDetector(
            backbone=backbone, num_classes=CLASSES, bounding_box_format="xyxy"
        )

    def clip():
        from keras_hub.src.models.clip.clip_vision_encoder import CLIPVisionEncoder

        return CLIPVisionEncoder(
            patch_size=8, hidden_dim=32, num_layers=3, num_heads=2, intermediate_dim=64, **size
        )

    def siglip():
        from keras_hub.src.models.siglip.siglip_vision_encoder import SigLIPVisionEncoder

        return SigLIPVisionEncoder(
            patch_size=8, hidden_dim=32, num_layers=3, num_heads=2, intermediate_dim=64, **size
        )

    def dino(make, **options):
        return make(
            patch_size=8, num_layers=3, hidden_dim=32, num_heads=2, intermediate_dim=64, **size,
            **options,
        )  # fmt: skip

    yield (
        "keras-hub ViT",
        lambda: classifier(models.ViTBackbone(patch_size=8, mlp_dim=64, **size, **vit), token=True),
    )
    yield (
        "keras-hub ViT, mean of tokens",
        lambda: classifier(
            models.ViTBackbone(patch_size=8, mlp_dim=64, use_class_token=False, **size, **vit)
        ),
    )
    yield (
        "keras-hub DeiT",
        lambda: classifier(
            models.DeiTBackbone(patch_size=8, intermediate_dim=64, **size, **vit), token=True
        ),
    )
    yield "keras-hub CLIP", lambda: classifier(clip(), token=True)
    yield "keras-hub SigLIP", lambda: classifier(siglip())
    yield (
        "keras-hub DINOv2",
        lambda: classifier(
            dino(
                models.DINOV2Backbone, num_register_tokens=2, position_embedding_shape=(64, 64, 3)
            ),
            token=True,
        ),
    )
    yield "keras-hub DINOv3", lambda: classifier(dino(models.DINOV3Backbone), token=True)
    yield (
        "keras-hub Swin",
        lambda: classifier(
            models.SwinTransformerBackbone(
                image_shape=(64, 64, 3),
                embed_dim=16,
                depths=[2, 2],
                num_heads=[2, 4],
                window_size=4,
            )
        ),
    )
    yield "keras-hub MiT", lambda: classifier(mit())
    yield "keras-hub SegFormer", segformer
    yield "keras-hub DeepLabV3", deeplab
    yield "keras-hub RetinaNet", retinanet
    yield (
        "keras-hub SAM encoder",
        lambda: classifier(
            models.ViTDetBackbone(
                hidden_size=32,
                num_layers=3,
                intermediate_dim=64,
                num_heads=2,
                global_attention_layer_indices=[2],
                image_shape=(64, 64, 3),
                patch_size=8,
                num_output_channels=16,
                window_size=4,
            )
        ),
    )


class Patches(layers.Layer):
    """The patch layer of the example "Image classification with Vision Transformer" of keras.io."""

    def __init__(self, patch_size):
        super().__init__()
        self.patch_size = patch_size

    def call(self, images):
        """Return the patches (n, number, size * size * 3) of images (n, h, w, 3)."""
        size = self.patch_size
        shape = keras.ops.shape(images)
        patches = keras.ops.image.extract_patches(images, size=size)
        return keras.ops.reshape(
            patches, (shape[0], (shape[1] // size) * (shape[2] // size), size * size * shape[3])
        )


class PatchEncoder(layers.Layer):
    """The position embedding of the same example."""

    def __init__(self, num_patches, width):
        super().__init__()
        self.num_patches = num_patches
        self.projection = layers.Dense(width)
        self.position_embedding = layers.Embedding(num_patches, width)

    def call(self, patch):
        """Return embedded patches (n, number, width)."""
        positions = keras.ops.expand_dims(keras.ops.arange(0, self.num_patches), axis=0)
        return self.projection(patch) + self.position_embedding(positions)


def keras_io_vit():
    """Build the ViT of keras.io: representations are flattened behind the last block."""
    inputs = keras.Input((64, 64, 3))
    x = PatchEncoder(64, 32)(Patches(8)(inputs))
    for _ in range(3):
        h = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([layers.MultiHeadAttention(2, 16)(h, h), x])
        h = layers.LayerNormalization(epsilon=1e-6)(x)
        h = layers.Dense(32)(layers.Dense(64, activation="gelu")(h))
        x = layers.Add()([h, x])
    x = layers.Flatten()(layers.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.Dense(64, activation="gelu")(x)))


def swin():
    """Build a network with attention in windows, folded into the batch axis and shifted."""
    inputs = keras.Input((64, 64, 3))
    x = layers.Conv2D(16, 4, strides=4)(inputs)
    for shift in (0, 2):
        h = keras.ops.roll(layers.LayerNormalization()(x), (-shift, -shift), (1, 2))
        h = keras.ops.reshape(h, (-1, 4, 4, 4, 4, 16))
        h = keras.ops.reshape(keras.ops.transpose(h, (0, 1, 3, 2, 4, 5)), (-1, 16, 16))
        h = layers.MultiHeadAttention(2, 8)(h, h)
        h = keras.ops.reshape(h, (-1, 4, 4, 4, 4, 16))
        h = keras.ops.reshape(keras.ops.transpose(h, (0, 1, 3, 2, 4, 5)), (-1, 16, 16, 16))
        x = layers.Add()([x, keras.ops.roll(h, (shift, shift), (1, 2))])
        x = layers.Add()([x, layers.Dense(16)(layers.Dense(32, activation="gelu")(x))])
    x = layers.GlobalAveragePooling2D()(layers.LayerNormalization(name="last_norm")(x))
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def mixer():
    """Build an MLP-Mixer: dense layers over tokens, with residual connections."""
    inputs = keras.Input((64, 64, 3))
    x = layers.Reshape((64, 32))(layers.Conv2D(32, 8, strides=8)(inputs))
    for _ in range(2):
        h = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        h = layers.Dense(64)(layers.Dense(32, activation="gelu")(h))
        x = layers.Add()([x, layers.Permute((2, 1))(h)])
        x = layers.Add()([x, layers.Dense(32)(layers.Dense(64, activation="gelu")(x))])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def unet():
    """Build a U-Net of three levels with outputs (n, h, w, classes)."""
    x = inputs = keras.Input((64, 64, 3))
    skips = []
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="bottleneck")(x)
    for filters, skip in zip((16, 8), reversed(skips), strict=True):
        x = layers.Conv2DTranspose(filters, 2, strides=2)(x)
        x = layers.Concatenate()([x, skip])
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(CLASSES, 1, activation="softmax")(x))


def by_hand() -> Iterator[tuple[str, Callable[[], keras.Model]]]:
    """Yield architectures that are written here."""
    yield "ViT of keras.io", keras_io_vit
    yield "Swin by hand", swin
    yield "MLP-Mixer by hand", mixer
    yield "U-Net by hand", unet


def score(outputs, targets):
    """Return a number that depends on all outputs of a class."""
    picked = outputs[..., 0]
    return tf.reduce_sum(picked, axis=list(range(1, picked.shape.rank)))


def row(name: str, build: Callable[[], keras.Model]) -> str:
    """Return the table's row of one model."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = build()
    shape = [size or 224 for size in model.inputs[0].shape[1:]]
    images = np.random.default_rng(0).uniform(-1, 1, (1, *shape)).astype("float32")
    output = 0 if len(keras.tree.flatten(model.outputs)) > 1 else None
    spatial = len(keras.tree.flatten(model.outputs)[0].shape) > 2
    prepared = tfs.prepare(model, score=score if spatial else "logit", output=output)
    recorder = Recorder()
    try:
        maps = tfs.attributions(prepared, images, recorder, on_problem="ignore")
    except tfs.GeometryError as error:
        return f"| {name} | refused: {error} |"
    (grid,) = maps.coverage["recorder"].grids
    shift = [f - s for f, s in zip(grid.first, grid.stretched_first, strict=True)]
    why = "; ".join(p.detail for p in maps.problems if p.cause == "uncertain_layer")
    cells = [name, grid.layer, " x ".join(map(str, grid.cells)), str(grid.prefix)]
    cells += [numbers(grid.step), numbers(grid.first), numbers(shift), why or "-"]
    return f"| {' | '.join(cells)} |"


class Recorder:
    """A composition that asks for the best layer, and returns nothing else."""

    name = "recorder"

    def __call__(self, attribute, points, image_index):
        """Return zeros."""
        layer = attribute.at_layer(points, image_index)
        return tfs.methods.protocol.Attributions(tf.zeros_like(points), layer.scores, {})


def numbers(values) -> str:
    return ", ".join(f"{value:.4g}" for value in dict.fromkeys(values))


def main() -> None:
    wanted = sys.argv[1:]
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}\n")
    columns = [
        "model",
        "layer",
        "cells",
        "prefix",
        "pixels a cell",
        "first cell",
        "shift",
        "warning",
    ]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for models in (by_hand(), hub(), applications()):
        for name, build in models:
            if not wanted or any(name.startswith(each) for each in wanted):
                print(row(name, build), flush=True)
                gc.collect()


if __name__ == "__main__":
    main()
