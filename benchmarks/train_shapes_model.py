"""Train the networks of synthetic.shapes_model, and write their weights into the package.

    python benchmarks/train_shapes_model.py FOLDER [cnn] [vit] [vit_twins]

The CNN is trained on pictures with their labels; its twins, of the same architecture, memorize
permuted labels of some of these pictures. The vision transformer needs more pictures, shifted and
turned at random, and a second loss: each token tells how much of the object it covers, and of
which class. Its twins would make the package too large: "vit_twins" writes them into FOLDER, and
prints the verdicts of the transformer's maps beside them.

FOLDER keeps the pictures and the state of each training: a second run continues with the epoch in
which the first one stopped. The printed accuracies are those of the shipped weights, without batch
normalization and in half precision.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.synthetic.networks import (
    PERMUTED,
    TRAINED,
    TRAINED_VIT,
    WEIGHTS,
    build_shapes_model,
)
from tfsaliency.synthetic.transformer import build_vit

PARTS = {"plain": 12_000, "two_objects": 6_000, "null_patch": 3_000, "colored_distractor": 3_000}
TRAINING_SEED, TEST_SEED = 1, 2  # of the pictures
TESTED = 2_000  # pictures of each variant
EPOCHS, TWIN_EPOCHS = 20, 60
TWIN_PICTURES = 2_400
BATCH, RATE, WARM_UP = 64, 4e-3, 200
VIT_PARTS = {
    "plain": 30_000,
    "two_objects": 8_000,
    "null_patch": 6_000,
    "colored_distractor": 6_000,
}
# For each cycle: the epochs, the length of the schedule that ends at 0, the highest rate, and
# the variants that are shifted and turned. This breaks the relation of two objects to their mark,
# so the second cycle leaves them out.
VIT_CYCLES = (
    (29, 40, 1.5e-3, tuple(VIT_PARTS)),
    (36, 36, 1e-3, ("plain", "null_patch", "colored_distractor")),
)
VIT_BATCH, VIT_WARM_UP, VIT_DECAY = 128, 500, 0.02
VIT_TWIN_EPOCHS, VIT_TWIN_RATE = 150, 1e-3
PATCHES, PATCH = 8, 8  # along each axis, and their size in pixels


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


def pictures_with_masks(folder):
    """Return pictures, labels and packed masks for the transformer; made once."""
    path = folder / "pictures_vit.npz"
    if not path.exists():
        parts = [synthetic.make_shapes(n, TRAINING_SEED, variant=v) for v, n in VIT_PARTS.items()]
        np.savez(
            path,
            images=np.concatenate([part.images for part in parts]).astype(np.uint8),
            labels=np.concatenate([part.labels for part in parts]),
            masks=np.packbits(np.concatenate([part.masks for part in parts]), axis=-1),
        )
    with np.load(path) as stored:
        return stored["images"], stored["labels"], stored["masks"]


def boxes(masks, whole):
    """Return the first and last row and column of each mask, (n, 4).

    Where `whole` is true, it is the whole picture.
    """
    bits = np.unpackbits(masks, axis=-1)
    last = bits.shape[1] - 1
    sides = [bits.any(axis=2), bits.any(axis=1)]
    ends = [(side.argmax(axis=1), last - side[:, ::-1].argmax(axis=1)) for side in sides]
    found = np.stack([end for pair in ends for end in pair], axis=1).astype(np.int32)
    found[whole] = 0, last, 0, last
    return found


def augment(image, label, mask, box):
    """Shift a picture in a circle so that its object stays whole, turn and mirror it at random.

    A picture whose box is all of it is mirrored only. Returns the picture, the class and what each
    token covers, and the weights of these two.
    """
    size = PATCHES * PATCH
    bits = tf.bitwise.right_shift(mask[:, :, None], tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8))
    bits = tf.reshape(tf.bitwise.bitwise_and(bits, tf.constant(1, tf.uint8)), (size, size, 1))
    low, high = -box[0::2], size - 1 - box[1::2]
    shifts = [tf.random.uniform((), low[i], high[i] + 1, tf.int32) for i in (0, 1)]
    both = tf.roll(tf.concat([image, bits], axis=-1), shifts, (0, 1))
    still = tf.reduce_all(low == 0) & tf.reduce_all(high == 0)
    turns = tf.where(still, 0, tf.random.uniform((), 0, 4, tf.int32))
    both = tf.image.rot90(both, turns)
    both = tf.cond(tf.random.uniform(()) < 0.5, lambda: both[:, ::-1], lambda: both)
    both = tf.cast(both, tf.float32)
    cells = tf.reshape(both[..., -1], (PATCHES, PATCH, PATCHES, PATCH))
    covered = tf.minimum(2 * tf.reshape(tf.reduce_mean(cells, (1, 3)), (-1, 1)), 1.0)
    classes = tf.one_hot(label, len(synthetic.CLASSES))
    tokens = tf.concat([covered * classes, 1 - covered], axis=-1)
    return both[..., :-1], (classes, tokens), (1.0, 1 + 8 * covered[:, 0])


def train_vit(folder):
    """Return the trained vision transformer, without the head of the tokens."""
    images, labels, masks = pictures_with_masks(folder)
    variants = np.repeat(list(VIT_PARTS), list(VIT_PARTS.values()))
    steps = len(images) // VIT_BATCH
    keras.utils.set_random_seed(0)
    model = build_vit()
    for cycle, (epochs, length, rate, shifted) in enumerate(VIT_CYCLES):
        finished = folder / f"{TRAINED_VIT}_{cycle}.weights.h5"
        keras.utils.set_random_seed(cycle)
        if not finished.exists():
            tokens = keras.layers.Cropping1D((1, 0))(model.get_layer("norm").output)
            tokens = keras.layers.Dense(1 + len(synthetic.CLASSES), activation="softmax")(tokens)
            both = keras.Model(model.input, [model.output, tokens])
            places = boxes(masks, ~np.isin(variants, shifted))
            data = tf.data.Dataset.from_tensor_slices((images, labels, masks, places))
            data = data.shuffle(20_000).map(augment, num_parallel_calls=2)
            data = data.batch(VIT_BATCH, drop_remainder=True).prefetch(4)
            falling = keras.optimizers.schedules.CosineDecay(
                0.0, length * steps - VIT_WARM_UP, warmup_target=rate, warmup_steps=VIT_WARM_UP
            )
            both.compile(
                keras.optimizers.AdamW(falling, weight_decay=VIT_DECAY, clipnorm=1.0),
                ["categorical_crossentropy"] * 2,
                metrics=[["accuracy"], []],
                jit_compile=True,
            )
            backup = keras.callbacks.BackupAndRestore(folder / f"{TRAINED_VIT}_{cycle}")
            both.fit(data, epochs=epochs, callbacks=[backup], verbose=2)
            model.save_weights(finished)
        model.load_weights(finished)
    return model


def train_vit_twin(folder, number, images, labels):
    """Return a vision transformer that memorized labels."""
    finished = folder / f"{TRAINED_VIT}_permuted_{number}.weights.h5"
    keras.utils.set_random_seed(number)
    model = build_vit(1 + number)
    rate = keras.optimizers.schedules.CosineDecay(
        VIT_TWIN_RATE, VIT_TWIN_EPOCHS * -(-len(images) // BATCH)
    )
    model.compile(
        keras.optimizers.AdamW(rate, clipnorm=1.0),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=True,
    )
    if not finished.exists():
        backup = keras.callbacks.BackupAndRestore(folder / f"{TRAINED_VIT}_permuted_{number}")
        data = images.astype(np.float32)
        model.fit(
            data, labels, batch_size=BATCH, epochs=VIT_TWIN_EPOCHS, callbacks=[backup], verbose=2
        )
        model.save_weights(finished)
    model.load_weights(finished)
    return model


def main_vit_twins(folder):
    """Train the twins of the transformer, and print their accuracies and verdicts."""
    images, labels = (array[:TWIN_PICTURES] for array in pictures(folder))
    twins = []
    for number in range(len(PERMUTED)):
        wrong = np.random.default_rng(1 + number).permutation(labels)
        twins.append(train_vit_twin(folder, number, images, wrong))
        own, true = (accuracy(twins[-1], images, each) for each in (wrong, labels))
        print(f"vit twin {number}: permuted training labels {own:.4f}, true labels {true:.4f}")
    world = synthetic.make_shapes(16, TEST_SEED)
    methods = ["gradient", "integrated_gradients", "grad_cam", "hires_cam", "layer_cam"]
    result = tfs.data_randomization_check(
        synthetic.shapes_model("vit"), world.images, methods, permuted=twins,
        targets=world.labels, verbose=0, on_problem="ignore",
    )  # fmt: skip
    for method in methods:
        print(f"{method}: {result.verdicts[method][0]}")


def accuracy(model, images, labels):
    outputs = model.predict(images.astype(np.float32), batch_size=256, verbose=0)
    return np.mean(outputs.argmax(axis=-1) == labels)


def main_cnn(folder, tests):
    """Train the CNN and its twins, and print their accuracies."""
    images, labels = pictures(folder)
    save(train(folder, TRAINED, 0, images, labels, EPOCHS, flips=True), TRAINED)
    few = images[:TWIN_PICTURES]
    permuted = [
        np.random.default_rng(seed).permutation(labels[:TWIN_PICTURES])
        for seed in range(1, 1 + len(PERMUTED))
    ]
    for seed, (name, wrong) in enumerate(zip(PERMUTED, permuted, strict=True), start=1):
        save(train(folder, name, seed, few, wrong, TWIN_EPOCHS, flips=False), name)
    report("cnn", tests)
    for name, twin, wrong in zip(
        PERMUTED, synthetic.permuted_label_models(), permuted, strict=True
    ):
        own, true = (accuracy(twin, few, each) for each in (wrong, labels[:TWIN_PICTURES]))
        print(f"{name}: permuted training labels {own:.4f}, their true labels {true:.4f}")


def report(name, tests):
    """Print the accuracy of the shipped weights on unseen pictures of each variant."""
    model = synthetic.shapes_model(name)
    for variant, world in tests.items():
        print(f"{name}, unseen {variant}: {accuracy(model, world.images, world.labels):.4f}")


def main():
    folder, wanted = Path(sys.argv[1]), sys.argv[2:] or ["cnn", "vit"]
    folder.mkdir(parents=True, exist_ok=True)
    tests = {v: synthetic.make_shapes(TESTED, TEST_SEED, variant=v) for v in PARTS}
    if "cnn" in wanted:
        main_cnn(folder, tests)
    if "vit" in wanted:
        save(train_vit(folder), TRAINED_VIT)
        report("vit", tests)
    if "vit_twins" in wanted:
        main_vit_twins(folder)


if __name__ == "__main__":
    main()
