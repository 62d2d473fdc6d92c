"""The three rules on every model of keras.applications and some of keras-hub.

Run it on a machine that does nothing else: python benchmarks/coverage.py [NAME ...]. It takes
half an hour and 10 GB. Each model has random weights and gets one random image. Its maps are
compared with those of another mechanism: the gradients of the Relu ops are overridden by name
while the model is traced, and tf.gradients differentiates. That works on graphs without function
calls, as these are. Where gates are expected, Relu6 is not overridden.
"""

from __future__ import annotations

import gc
import inspect
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

import tfsaliency as tfs

METHODS = ["gradient", "guided_backprop", "zeiler_fergus"]
GATED = ("MobileNetV3", "keras-hub MobileNet")  # every Relu6 in these is a hard sigmoid's
CLASSES = 10


@tf.RegisterGradient("BenchmarkGuided")
def _guided(op: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    y = op.outputs[0]
    inside = (y > 0) & (y < 6) if op.type == "Relu6" else y > 0
    return tf.where(inside & (upstream > 0), upstream, 0.0)


@tf.RegisterGradient("BenchmarkZeiler")
def _zeiler(op: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    return tf.where(upstream > 0, upstream, 0.0)


OVERRIDES = {
    "gradient": None, "guided_backprop": "BenchmarkGuided", "zeiler_fergus": "BenchmarkZeiler"
}  # fmt: skip


def reference(
    model: keras.Model, image: np.ndarray, target: int, name: str, methods: Iterable[str]
) -> dict[str, np.ndarray]:
    """Return the attributions of each method by overridden ops."""
    ops = ["Relu"] if name.startswith(GATED) else ["Relu", "Relu6"]
    found = {}
    for method in methods:
        override = OVERRIDES[method]

        @tf.function(autograph=False)
        def differentiate(images: tf.Tensor, override: str | None = override) -> tf.Tensor:
            graph = tf.compat.v1.get_default_graph()
            with graph.gradient_override_map(dict.fromkeys(ops, override) if override else {}):
                outputs = model(images, training=False)
            softmax = [op for op in graph.get_operations() if op.type == "Softmax"]
            scores = softmax[-1].inputs[0] if softmax else outputs
            return tf.gradients(tf.reshape(scores, [-1])[target], images)[0]

        found[method] = differentiate(tf.constant(image)).numpy()
    return found


def row(name: str, build: Callable[[], keras.Model]) -> str:
    """Return the table's row of one model."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = build()
    shape = [size or 224 for size in model.input_shape[1:]]
    image = np.random.default_rng(0).uniform(-1, 1, (1, *shape)).astype("float32")
    start = time.perf_counter()
    try:
        maps = tfs.attributions(model, image, METHODS, on_problem="ignore")
    except tfs.NoReluError:
        maps = tfs.attributions(model, image, on_problem="ignore")
    seconds = time.perf_counter() - start
    refused = "guided_backprop" not in maps
    coverage = maps.coverage["gradient" if refused else "guided_backprop"]
    expected = reference(model, image, int(maps.targets[0]), name, maps)
    cells = [name, str(coverage.relus), "refused" if refused else str(coverage.reached)]
    cells += [str(len(coverage.gates)), coverage.engine]
    for method in METHODS:
        if method in maps:
            largest = np.abs(expected[method]).max()
            difference = np.abs(maps[method] - expected[method]).max() / largest
            cells.append("all zero" if largest == 0 else f"{difference:.0e}")
        else:
            cells.append("refused")
    return f"| {' | '.join([*cells, f'{seconds:.1f}'])} |"


def applications() -> Iterator[tuple[str, Callable[[], keras.Model]]]:
    """Yield the models of keras.applications."""
    for name, make in sorted(vars(keras.applications).items()):
        if inspect.isfunction(make):
            yield name, lambda make=make: make(weights=None)


def hub() -> Iterator[tuple[str, Callable[[], keras.Model]]]:
    """Yield small models of keras-hub, where it is installed."""
    try:
        from keras_hub import models
    except ImportError:
        print("keras-hub is not installed: its models are left out", file=sys.stderr)
        return

    def resnet() -> keras.Model:
        return models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 64, 64],
            stackwise_num_blocks=[1, 1, 1],
            stackwise_num_strides=[1, 2, 2],
            block_type="bottleneck_block",
            image_shape=(224, 224, 3),
        )

    def hgnet() -> keras.Model:
        return models.HGNetV2Backbone(
            depths=[1, 2, 4],
            embedding_size=32,
            hidden_sizes=[64, 128, 256],
            stem_channels=[3, 16, 32],
            hidden_act="relu",
            use_learnable_affine_block=False,
            stackwise_stage_filters=[
                (32, 16, 64, 1, 1, 3), (64, 32, 128, 2, 1, 3), (128, 64, 256, 4, 1, 3)
            ],
            apply_downsample=[False, True, True],
            use_lightweight_conv_block=[False, False, False],
            image_shape=(224, 224, 3),
        )  # fmt: skip

    def deeplab() -> keras.Model:
        return models.DeepLabV3Backbone(
            image_encoder=resnet(),
            projection_filters=48,
            low_level_feature_key="P2",
            spatial_pyramid_pooling_key="P4",
            upsampling_size=4,
            dilation_rates=[6, 12, 18],
            image_shape=(224, 224, 3),
        )

    def mobilenet() -> keras.Model:
        return models.MobileNetBackbone(
            stackwise_expansion=[[40, 56], [64, 144, 144]],
            stackwise_num_blocks=[2, 3],
            stackwise_num_filters=[[16, 16], [24, 24, 24]],
            stackwise_kernel_size=[[3, 3], [5, 5, 5]],
            stackwise_num_strides=[[2, 1], [2, 1, 1]],
            stackwise_se_ratio=[[None, None], [0.25, 0.25, 0.25]],
            stackwise_activation=[["relu", "relu"], ["hard_swish"] * 3],
            stackwise_padding=[[1, 1], [2, 2, 2]],
            output_num_filters=288,
            input_activation="hard_swish",
            output_activation="hard_swish",
            input_num_filters=16,
            image_shape=(224, 224, 3),
            depthwise_filters=8,
            depthwise_stride=2,
            depthwise_residual=False,
            last_layer_filter=288,
            squeeze_and_excite=0.5,
        )

    for name, backbone in (
        ("ResNet", resnet), ("HGNetV2", hgnet), ("DeepLabV3", deeplab), ("MobileNet", mobilenet)
    ):  # fmt: skip
        yield f"keras-hub {name}", lambda backbone=backbone: _classifier(backbone())


def _classifier(backbone: keras.Model) -> keras.Model:
    """Put a head on the deepest output of a backbone."""
    deepest = max(keras.tree.flatten(backbone.output), key=lambda tensor: tensor.shape[-1])
    h = keras.layers.GlobalAveragePooling2D()(deepest)
    return keras.Model(backbone.input, keras.layers.Dense(CLASSES)(h))


def main() -> None:
    wanted = sys.argv[1:]
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}\n")
    columns = ["model", "ReLUs", "reached", "gates", "engine", *METHODS, "seconds"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for models in (applications(), hub()):
        for name, build in models:
            if not wanted or name in wanted:
                print(row(name, build), flush=True)
                gc.collect()


if __name__ == "__main__":
    main()
