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
        "any_size = None if any(map(needs_sizes, methods)) else batch.of_any_size()",
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
        "visualization/canvas.py",
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
    # Figures, pages, progress and the callback.
    Mutation(
        "visualization/maps_figure.py",
        "if top != maps.targets[i]:",
        "if top == maps.targets[i]:",
        "test_maps_figure.py::test_each_image_is_named_with_the_explained_and_the_top_class",
    ),
    Mutation(
        "visualization/maps_figure.py",
        "percentile=style.percentile)",
        "percentile=FULL_COLOR)",
        "test_maps_figure.py::test_an_overlay_is_that_of_overlay",
    ),
    Mutation(
        "visualization/maps_figure.py",
        "across = -(-each // -(-each // columns))",
        "across = columns",
        "test_maps_figure.py::test_images_stand_beside_each_other_and_many_methods_wrap",
    ),
    Mutation(
        "visualization/maps_figure.py",
        "return values.sum(axis=-1) if",
        "return np.abs(values).sum(axis=-1) if",
        "test_maps_figure.py::test_sequences_features_volumes_and_attributions",
    ),
    Mutation(
        "visualization/canvas.py",
        "pyplot = _pyplot_in_use() if _to_show.get() else None",
        "pyplot = _pyplot_in_use()",
        "test_maps_figure.py::test_plt_show_finds_the_figure_if_pyplot_is_in_use",
    ),
    Mutation(
        "saliency_maps/record.py",
        "for i in kept for k in new[i]",
        "for i in kept for k in (i,)",
        "test_maps_figure.py::test_images_are_selected_with_all_that_belongs_to_them",
    ),
    Mutation(
        "visualization/tiles.py",
        "    painted[~np.isfinite(values)] = _UNDEFINED\n",
        "",
        "test_visualization.py::test_colors_of_a_map_are_those_of_its_tile",
    ),
    Mutation(
        "visualization/report.html.jinja",
        "<h3>{{ photo.title }}</h3>",
        "<h3>{{ photo.title|safe }}</h3>",
        "test_report.py::test_names_are_text_and_nothing_is_loaded",
    ),
    Mutation(
        "visualization/markup.py",
        '<td style="{LEFT}">{escape(cell)}</td>',
        '<td style="{LEFT}">{cell}</td>',
        "test_report.py::test_a_table_escapes_its_cells",
    ),
    Mutation(
        "visualization/report_parts.py",
        "np.sqrt(_BYTES / tiles / _BYTES_A_PIXEL)",
        "_SIDES[1]",
        "test_report.py::test_fifty_photos_stay_below_15_mb",
    ),
    Mutation(
        "visualization/callback.py",
        "if (epoch + 1) % self._every:",
        "if epoch % self._every:",
        "test_callback.py::test_tensorboard_has_the_maps_of_each_epoch",
    ),
    Mutation(
        "visualization/callback.py",
        "if self._tried or not self.model.built:",
        "if True:",
        "test_callback.py::test_errors_come_before_training",
    ),
    Mutation(
        "engine/counts.py",
        "self._variables[place].assign_add([points, 0])",
        "self._variables[place].assign_add([1, 0])",
        "test_progress.py::test_points_are_counted_as_they_are_evaluated",
    ),
    Mutation(
        "display/progress.py",
        "if self._parent is not None and not self._parent._done:",
        "if False:",
        "test_progress.py::test_a_call_inside_another_is_part_of_it",
    ),
    Mutation(
        "display/progress.py",
        "early = self._patient and progress.elapsed < _PATIENCE",
        "early = False",
        "test_progress.py::test_a_short_call_prints_nothing",
    ),
    Mutation(
        "image_io.py",
        "inside = np.any(colors, axis=0) & (opaque > 0)",
        "inside = np.any(colors, axis=0)",
        "test_cli_results.py::test_transparent_pixels_of_a_mask_do_not_count",
    ),
    Mutation(
        "engine/counts.py",
        "if total > done:  # this level",
        "if total < 0:  # this level",
        "test_progress.py::test_a_refined_path_is_expected_to_go_on",
    ),
    Mutation(
        "display/progress.py",
        "self._origin = time.monotonic(), self.share  #",
        "self._origin = None  #",
        "test_progress.py::test_compiling_does_not_count_for_the_time_left",
    ),
    Mutation(
        "map_batches.py",
        "with progress.suspended():",
        "if True:",
        "test_progress.py::test_a_loop_over_batches_is_left_alone_while_it_works",
    ),
    Mutation(
        "cli/evaluate.py",
        "photo.pixels.shape[1:3], fit)",
        "photo.pixels.shape[1:3], 'squash')",
        "test_cli_results.py::test_masks_are_cut_as_photos_are_and_problems_are_those_of_a_photo",
    ),
]
