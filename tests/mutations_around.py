"""Mutations of what lies around the gradients: outputs, inputs, photos and runs."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """A text of a file of the package, its replacement, and the test that then fails."""

    file: str
    text: str
    replacement: str
    test: str


AROUND = [
    # Meanings, regions and targets.
    Mutation(
        "engine/heads.py",
        'meaning: Meaning = "binary" if outputs.shape[-1] == 1 else "labels"',
        'meaning: Meaning = "labels"',
        "test_targets.py::test_a_single_sigmoid_is_two_classes",
    ),
    Mutation(
        "engine/heads.py",
        'return one if outputs == 1 else "labels"',
        "return None",
        "test_outputs.py::test_the_loss_tells_what_outputs_mean",
    ),
    Mutation(
        "engine/heads.py",
        "return loss[place] if len(loss) == len(names) else None",
        "return loss[0] if len(loss) == len(names) else None",
        "test_outputs.py::test_the_loss_of_the_chosen_output",
    ),
    Mutation(
        "engine/scores.py",
        "    weights /= tf.reduce_sum(weights, axes, keepdims=True)\n",
        "",
        "test_outputs.py::test_the_logit_is_the_mean_over_the_region",
    ),
    Mutation(
        "engine/scores.py",
        "given = head.logits[:, 0] if single else head.logits",
        "given = head.outputs",
        "test_outputs.py::test_on_logits_gives_the_logits_in_place_of_the_outputs",
    ),
    Mutation(
        "engine/scores.py",
        "        given = head.returned\n",
        "        given = head.outputs\n",
        "test_outputs.py::test_a_callable_gets_the_shape_that_the_model_returns",
    ),
    Mutation(
        "engine/scores.py",
        "unit = tf.math.l2_normalize(scaled, axis=-1)",
        "unit = scaled",
        "test_outputs.py::test_similarity_to_vectors",
    ),
    Mutation(
        "engine/targets.py",
        "return list(array.argmax(axis=1))",
        "return list(array.argmax(axis=0))",
        "test_targets.py::test_a_form_with_one_reading",
    ),
    Mutation(
        "engine/randomness.py",
        "return not constant or any(seed not in nodes for seed in seeds)",
        "return False",
        "test_outputs.py::test_a_random_forward_pass_is_said",
    ),
    Mutation(
        "engine/build.py",
        "if outputs.min() >= 0 and near(outputs.sum(axis=-1), 1):",
        "if False:",
        "test_outputs.py::test_probabilities_are_recognized_however_they_are_computed",
    ),
    # Inputs and traces.
    Mutation(
        "engine/functions.py",
        "return _RANK_OF_AN_IMAGE - 1 if as_batches else _RANK_OF_AN_IMAGE",
        "return _RANK_OF_AN_IMAGE",
        "test_inputs.py::test_functions_of_all_ranks_take_a_batch",
    ),
    Mutation(
        "engine/kept_traces.py",
        "if seen not in self.sizes and not _runs_only_keras(describe(batch).model):",
        "if False:",
        "test_inputs.py::test_a_layer_of_which_only_the_gradient_reads_the_size",
    ),
    Mutation(
        "engine/kept_traces.py",
        "any_size = None if any(map(uses_layer, methods)) else batch.of_any_size()",
        "any_size = None",
        "test_inputs.py::test_one_trace_serves_images_of_any_size",
    ),
    Mutation(
        "engine/fingerprint.py",
        "digest = hashlib.sha1(value.tobytes(), usedforsecurity=False)",
        'digest = hashlib.sha1(b"", usedforsecurity=False)',
        "test_inputs.py::test_what_a_layer_holds_may_change_in_place",
    ),
    Mutation(
        "models/ranges.py",
        "applied = applied.then(layer.scale, layer.offset)",
        "pass",
        "test_inputs.py::test_the_range_that_the_first_layers_expect",
    ),
    Mutation(
        "arrays.py",
        "ends = np.asarray(limits, np.float64).astype(dtype)",
        "ends = np.zeros(2)",
        "test_outputs.py::test_values_beyond_the_models_dtype_are_refused",
    ),
    Mutation(
        "maps.py",
        "gradients = [g[..., tf.newaxis] if features and reduce else g for g in result.gradients]",
        "gradients = result.gradients",
        "test_inputs.py::test_features_have_attributions_and_maps_of_one_value_each",
    ),
    # Runs of the command line.
    Mutation(
        "cli/output.py",
        "if present and record.get(arguments.command) != options and not arguments.overwrite:",
        "if False:",
        "test_cli_runs.py::test_another_run_does_not_replace_files_unasked",
    ),
    Mutation(
        "cli/map.py",
        "job.problems += shift_problems(maps.problems, len(job.names))",
        "job.problems += maps.problems",
        "test_cli_runs.py::test_problems_name_the_photos_of_every_batch",
    ),
    Mutation(
        "visualization/tiles.py",
        "text.set_parse_math(False)",
        "pass",
        "test_cli_runs.py::test_long_names_and_names_with_dollar_signs",
    ),
    Mutation(
        "arrays.py",
        'image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer)',
        "pass",
        "test_image_io.py::test_transparent_pixels_are_white",
    ),
    Mutation(
        "sanity/run.py",
        "            self.fallbacks[unit.path] = None\n",
        "            raise\n",
        "test_sanity_kinds.py::test_a_layer_that_cannot_be_rebuilt_is_matched",
    ),
    Mutation(
        "similarity/protocol.py",
        "return arrays.reshape(*arrays.shape[:2], -1, arrays.shape[-1])",
        "return arrays[:, :, 0]",
        "test_sanity_kinds.py::test_verdicts_of_sequences_volumes_and_features",
    ),
]
