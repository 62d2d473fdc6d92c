"""Train the networks of synthetic.shapes_model, and write their weights into the package.

    python benchmarks/train_shapes_model.py FOLDER

One network is trained on pictures with their labels; its twins, of the same architecture, memorize
permuted labels of some of these pictures. FOLDER keeps the pictures and the state of each training:
a second run continues with the epoch in which the first one stopped. The printed accuracies are
those of the shipped weights, without batch normalization and in half precision.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfsaliency import synthetic
from tfsaliency.synthetic.networks import PERMUTED, TRAINED, WEIGHTS, build_shapes_model

PARTS = {"plain": 12_000, "two_objects": 6_000, "null_patch": 3_000, "colored_distractor": 3_000}
TRAINING_SEED, TEST_SEED = 1, 2  # of the pictures
TESTED = 2_000  # pictures of each variant
EPOCHS, TWIN_EPOCHS = 20, 60
TWIN_PICTURES = 2_400
BATCH, RATE, WARM_UP = 64, 4e-3, 200


def normalize(x, conv_name):
    """Add a batch normalization, without which the network does not learn."""
    return keras.layers.BatchNormalization(momentum=0.9, name=f"{conv_name}-norm")(x)


def fold(normalized):
    """Return the network without batch normalizations that computes the same."""
    plain = build_shapes_model()
    names = {layer.name for layer in normalized.layers}
    for layer in plain.layers:
        weights = normalized.get_layer(layer.name).get_weights()
        if f"{layer.name}-norm" in names:
            norm = normalized.get_layer(f"{layer.name}-norm")
            gamma, beta, mean, variance = norm.get_weights()
            scale = gamma / np.sqrt(variance + norm.epsilon)
            kernel, bias = weights
            weights = [kernel * scale, (bias - mean) * scale + beta]
        layer.set_weights(weights)
    return plain


def save(model, name):
    """Write the weights of a network into the package, in half precision."""
    halves = {weight.path: weight.numpy().astype(np.float16) for weight in model.weights}
    np.savez_compressed(WEIGHTS / f"{name}.npz", **halves)


def pictures(folder):
    """Return the pictures to train on, uint8, the plain ones first, and their labels; made once."""
    path = folder / "pictures.npz"
    if not path.exists():
        parts = [synthetic.make_shapes(n, TRAINING_SEED, variant=v) for v, n in PARTS.items()]
        images = np.concatenate([part.images for part in parts]).astype(np.uint8)
        np.savez(path, images=images, labels=np.concatenate([part.labels for part in parts]))
    with np.load(path) as stored:
        return stored["images"], stored["labels"]


def train(folder, name, seed, images, labels, epochs, flips):
    """Return the network trained on images with labels, without its normalizations."""
    finished = folder / f"{name}.weights.h5"
    keras.utils.set_random_seed(seed)
    model = build_shapes_model(seed, normalize)
    if finished.exists():
        model.load_weights(finished)
        return fold(model)
    steps = -(-len(images) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, epochs * steps - WARM_UP, warmup_target=RATE, warmup_steps=WARM_UP
    )
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=seed)
    data = data.batch(BATCH)
    if flips:
        flip = tf.image.random_flip_left_right
        data = data.map(lambda x, y: (flip(tf.cast(x, tf.float32), seed=seed), y))
    backup = keras.callbacks.BackupAndRestore(folder / name)
    model.fit(data.prefetch(4), epochs=epochs, callbacks=[backup], verbose=2)
    model.save_weights(finished)
    return fold(model)


def accuracy(model, images, labels):
    outputs = model.predict(images.astype(np.float32), batch_size=256, verbose=0)
    return np.mean(outputs.argmax(axis=-1) == labels)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = pictures(folder)
    save(train(folder, TRAINED, 0, images, labels, EPOCHS, flips=True), TRAINED)
    few = images[:TWIN_PICTURES]
    permuted = [
        np.random.default_rng(seed).permutation(labels[:TWIN_PICTURES])
        for seed in range(1, 1 + len(PERMUTED))
    ]
    for seed, (name, wrong) in enumerate(zip(PERMUTED, permuted, strict=True), start=1):
        save(train(folder, name, seed, few, wrong, TWIN_EPOCHS, flips=False), name)
    trained, twins = synthetic.shapes_model(), synthetic.permuted_label_models()
    tests = {v: synthetic.make_shapes(TESTED, TEST_SEED, variant=v) for v in PARTS}
    for variant, world in tests.items():
        print(f"trained, unseen {variant}: {accuracy(trained, world.images, world.labels):.4f}")
    for name, twin, wrong in zip(PERMUTED, twins, permuted, strict=True):
        own, true = (accuracy(twin, few, each) for each in (wrong, labels[:TWIN_PICTURES]))
        print(f"{name}: permuted training labels {own:.4f}, their true labels {true:.4f}")


if __name__ == "__main__":
    main()
