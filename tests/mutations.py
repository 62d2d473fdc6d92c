"""Mutations of the package, and the test that detects each; test_mutations.py runs them."""

from mutations_around import AROUND, Mutation
from mutations_datasets import DATASETS
from mutations_evaluation import EVALUATION
from mutations_relevance import RELEVANCE

RELU_LAYER = "test_rules.py::test_rules_equal_the_numpy_reference[ReLU layer-float64]"

MUTATIONS = [
    # Rules, and the engine that puts them in.
    Mutation(
        "methods/rules.py",
        "return site.backward(tf.nn.relu(upstream))",
        "return site.backward(upstream)",
        "test_rules.py::test_rules_by_hand",
    ),
    Mutation(
        "methods/rules.py",
        "    return tf.nn.relu(upstream)\n",
        "    return site.backward(tf.nn.relu(upstream))\n",
        "test_rules.py::test_rules_by_hand",
    ),
    # Batch normalization, folded.
    Mutation(
        "engine/folding.py",
        "shift += scale * tf.reshape(bias, [-1])",
        "shift += tf.reshape(bias, [-1])",
        "test_folding.py::test_maps_are_those_of_the_layers[convolution]",
    ),
    Mutation(
        "engine/folding.py",
        "            if not read:\n",
        "            if True:\n",
        "test_folding.py::test_a_model_that_looks_at_gradients_gets_its_own[relu]",
    ),
    Mutation(
        "engine/folding.py",
        "                break  # the model",
        "                raise  # the model",
        "test_folding.py::test_a_model_that_looks_at_gradients_gets_its_own[tape]",
    ),
    Mutation(
        "engine/folding.py",
        """Conv2DBackpropInput": (1, (-2,))""",
        """Conv2DBackpropInput": (1, (-1,))""",
        "test_folding.py::test_maps_are_those_of_the_layers[transposed]",
    ),
    Mutation(
        "engine/build.py",
        "return fold_normalization(forward, callee) if fold else forward",
        "return fold_normalization(forward, callee)",
        "test_folding.py::test_maps_are_those_of_the_layers[dilated]",
    ),
    Mutation("methods/rules.py", "rect_grad_at(98.0)", "rect_grad_at(90.0)", RELU_LAYER),
    Mutation(
        "engine/gradients.py",
        "with backward_rule(rule, census.gates) as passed:",
        "with backward_rule([*rules.values()][-1], census.gates) as passed:",
        RELU_LAYER,
    ),
    Mutation(
        "engine/gradients.py",
        "if place is None or value is None:",
        "if True:",
        "test_gradients.py::test_other_weights_are_arguments",
    ),
    Mutation(
        "engine/gradients.py",
        "        if last is not value:\n",
        "        if False:\n",
        "test_gradients.py::test_weights_are_those_given_last_however_they_are_mixed",
    ),
    Mutation(
        "engine/clone.py",
        "    return gradient if name in active.gates else active.rule",
        "    return active.rule",
        "test_coverage.py::test_gates_keep_their_own_derivative",
    ),
    Mutation(
        "engine/clone.py",
        '        if "training" in kwargs:\n            kwargs["training"] = False\n',
        "",
        "test_rules.py::"
        "test_rules_equal_the_numpy_reference[layers called with training=True-float64]",
    ),
    Mutation(
        "engine/clone.py",
        "if isinstance(operation, keras.layers.PReLU) and",
        "if False and",
        "test_rules.py::test_rules_equal_the_numpy_reference[PReLU-float64]",
    ),
    Mutation(
        "engine/graph_rewrite.py",
        "return rule(upstream, Site(op.outputs[0], lambda u: _RELU_GRADIENTS[op.type](op, u)))",
        "return _RELU_GRADIENTS[op.type](op, upstream)",
        "test_graph_rewrite.py::test_hidden_relus_equal_the_numpy_reference",
    ),
    Mutation(
        "engine/graph_rewrite.py",
        "for inner in [*main, *inside(main, library)]:",
        "for inner in main:",
        "test_graph_rewrite.py::test_a_relu_in_a_recurrent_cell",
    ),
    Mutation(
        "engine/build.py",
        "        if dropped:\n",
        "        if False:\n",
        "test_graph_rewrite.py::test_a_gradient_of_the_models_own_is_carried_over_or_refused",
    ),
    Mutation(
        "engine/build.py",
        "return batch.with_images(np.concatenate([first, noise.astype(first.dtype)]))",
        "return batch.with_images(first)",
        "test_graph_rewrite.py::test_a_clone_that_differs_is_noticed_behind_a_black_image",
    ),
    Mutation(
        "engine/coverage.py",
        "if (names and found.others) or found.hidden:",
        "if False:",
        "test_coverage.py::test_an_unreached_relu_is_refused_by_name",
    ),
    Mutation(
        "engine/coverage.py",
        "    if callers:\n",
        "    if False:\n",
        "test_coverage.py::test_an_unreached_relu_is_refused_by_name",
    ),
    Mutation(
        "engine/coverage.py",
        "if op in above and any(",
        "if any(",
        "test_coverage.py::test_only_what_lies_between_image_and_score_counts",
    ),
    Mutation(
        "engine/coverage.py",
        '    if op.type in ("StopGradient", "PreventGradient"):\n        return []\n',
        "",
        "test_coverage.py::test_a_relu_that_no_gradient_passes_is_none",
    ),
    Mutation(
        "engine/coverage.py",
        "    left = tuple(name for name in found.direct if name not in passed)",
        "    left = ()",
        "test_coverage.py::test_a_gradient_put_over_that_of_a_relu_is_refused",
    ),
    Mutation(
        "engine/layer_candidates.py",
        "return self.candidate(alive[-1])",
        "return self.candidate(alive[0])",
        "test_cams.py::test_of_a_layer_that_is_called_twice_the_last_call_counts",
    ),
    Mutation(
        "engine/precision.py",
        "return self._precision if mine else self._own",
        "return self._precision",
        "test_precision.py::"
        "test_what_another_thread_calls_meanwhile_is_in_the_models_own_precision",
    ),
    Mutation(
        "engine/gradients.py",
        "head = head if subject.precision is None else widen_head(head)",
        "pass",
        "test_precision.py::test_what_follows_the_logits_is_float32",
    ),
    Mutation(
        "engine/compose.py",
        "tf.gather(self.first.targets, image_index)",
        "tf.gather(self.first.targets, image_index * 0)",
        "test_compositions.py::test_each_image_keeps_its_class_and_its_other_inputs",
    ),
    Mutation(
        "engine/heads.py",
        'final = op.type in ("Softmax", "LogSoftmax", "Sigmoid")',
        'final = op.type in ("Sigmoid",)',
        "test_scores.py::test_logit_is_the_value_before_the_softmax",
    ),
    Mutation(
        "engine/scores.py",
        "head.logits), head.logits.dtype.min, head.logits)",
        "head.logits), head.logits, head.logits)",
        "test_scores.py::test_probability_log_probability_and_margin",
    ),
    Mutation(
        "engine/kept_traces.py",
        "if self.fingerprint is None or not self.fingerprint.matches(model):",
        "if self.fingerprint is None:",
        "test_clone.py::test_a_layer_changed_in_place_is_seen",
    ),
    Mutation(
        "prepared.py",
        "self.preprocess(batch.astype(dtype, copy=True))",
        "self.preprocess(batch.astype(dtype, copy=False))",
        "test_maps.py::test_preprocess_works_on_a_copy_and_gradients_are_those_of_its_output",
    ),
    Mutation(
        "maps.py",
        "    raise_problems(batch.problems, options.on_problem)\n",
        "",
        "test_batches_once.py::test_images_are_looked_at_before_anything_is_computed",
    ),
    Mutation(
        "sanity/run.py",
        "    trained = explain(prepared, batch, resolved, None, options)",
        "    trained = explain(prepared, prepared.check(images), resolved, None, options)",
        "test_batches_once.py::test_preprocess_is_called_once_with_all_images",
    ),
    # Compositions.
    Mutation(
        "methods/smooth_grad.py",
        "radius * tf.sin(angle)",
        "radius * tf.cos(angle)",
        "test_compositions.py::test_smooth_grad_is_a_statistic_of_the_gradients_of_noisy_images",
    ),
    Mutation(
        "methods/smooth_grad.py",
        "moments.squares / n)",
        "moments.squares / (n - 1))",
        "test_compositions.py::test_smooth_grad_is_a_statistic_of_the_gradients_of_noisy_images",
    ),
    Mutation(
        "methods/protocol.py",
        "        return start + count, join(part, new), largest([details, others])",
        "        return start + count, join(new, new), largest([details, others])",
        "test_compositions.py::test_how_many_go_at_a_time_changes_nothing",
    ),
    Mutation(
        "methods/integrated_gradients.py",
        "(nodes + 1) / 2, shares / 2",
        "(nodes + 1) / 2, shares / 2 * 1.001",
        "test_compositions.py::test_integrated_gradients_are_those_of_gauss_and_legendre",
    ),
    Mutation(
        "methods/completeness.py",
        "tf.where(gap > tolerance)[:, 0]",
        "tf.where(gap > -1.0)[:, 0]",
        "test_compositions.py::"
        "test_nodes_are_doubled_until_the_sum_is_the_difference_of_the_scores",
    ),
    Mutation(
        "methods/blur_ig.py",
        "at(tf.cast(step, tf.float32) + 0.5)",
        "at(tf.cast(step, tf.float32))",
        "test_paths.py::test_blur_ig_equals_its_definition",
    ),
    Mutation(
        "methods/guided_ig.py",
        "progress = tf.clip_by_value(progress, lowest, highest)",
        "progress = tf.minimum(progress, highest)",
        "test_paths.py::test_guided_ig_equals_its_definition",
    ),
    Mutation(
        "methods/guided_ig.py",
        "(size > limit) & (size <= further)",
        "size <= further",
        "test_paths.py::test_guided_ig_equals_its_definition",
    ),
    Mutation(
        "methods/expected_gradients.py",
        "key = [self.seed, 2 * sample]\n",
        "key = [self.seed, 0 * sample]\n",
        "test_paths.py::test_expected_gradients_equal_their_definition",
    ),
    Mutation(
        "methods/cam.py",
        "return tf.reduce_mean(gradients, _positions(gradients), keepdims=True)",
        "return tf.reduce_max(gradients, _positions(gradients), keepdims=True)",
        "test_cams.py::test_a_cam_equals_its_definition",
    ),
    Mutation(
        "methods/product.py",
        "Attributions(one.values * other.values,",
        "Attributions(one.values * one.values,",
        "test_cams.py::test_guided_grad_cam_is_the_product",
    ),
    # Similarities and verdicts.
    Mutation(
        "sanity/verdict.py",
        "_CLIPPED = 99.0",
        "_CLIPPED = 95.0",
        "test_verdict.py::test_the_index_is_that_of_the_formula",
    ),
    Mutation(
        "sanity/verdict.py",
        "chance = np.minimum(other, CHANCE_LIMIT)",
        "chance = np.minimum(other, 0.0)",
        "test_verdict.py::test_the_index_is_that_of_the_formula",
    ),
    Mutation(
        "statistics.py",
        "by_photo = rng.multinomial(photos, np.full(photos, 1 / photos), _RESAMPLES)",
        "by_photo = np.ones((_RESAMPLES, photos), int)",
        "test_verdict.py::test_the_interval_resamples_photos_and_seeds_independently",
    ),
    Mutation(
        "similarity/rank.py",
        "means = (bounds[:-1] + bounds[1:] - 1) / 2",
        "means = bounds[:-1]",
        "test_similarity.py::test_average_ranks_are_scipys",
    ),
    Mutation(
        "similarity/structure.py",
        "_K1, _K2 = 0.01, 0.03",
        "_K1, _K2 = 0.02, 0.03",
        "test_similarity.py::test_a_similarity_equals_that_of_another_library",
    ),
    Mutation(
        "similarity/entropy.py",
        "_BINS = 100",
        "_BINS = 50",
        "test_similarity.py::test_emprt_is_the_rise_of_the_entropy",
    ),
    Mutation(
        "similarity/protocol.py",
        "_CLIPPED = 99.0",
        "_CLIPPED = 95.0",
        "test_similarity.py::test_a_similarity_equals_that_of_another_library",
    ),
    # Randomization.
    Mutation(
        "sanity/randomizers.py",
        "    drawn = rng.permutation(flat)\n    while",
        "    drawn = rng.permutation(weight).ravel()\n    while",
        "test_randomization.py::test_every_1x1_kernel_changes",
    ),
    Mutation(
        "sanity/randomizers.py",
        "return rng.normal(exact.mean(), exact.std(), weight.shape)",
        "return rng.normal(exact.mean(), 1.0, weight.shape)",
        "test_randomization.py::test_draws_have_the_distribution_of_their_name",
    ),
    Mutation(
        "sanity/plans.py",
        '"cascade": [order[start:] for start in reversed(range(len(order)))],',
        '"cascade": [order for _ in order],',
        "test_sanity.py::test_lower_layers_are_still_the_trained_ones",
    ),
    Mutation(
        "sanity/run.py",
        "    if retarget:\n        targets =",
        "    if True:\n        targets =",
        "test_sanity.py::test_numbers_are_those_of_maps_made_by_hand",
    ),
    Mutation(
        "sanity/comparison.py",
        "np.roll(part, 1, axis=0), own)",
        "np.roll(part, 0, axis=0), own)",
        "test_sanity.py::test_floors_are_of_the_next_photo",
    ),
    Mutation(
        "sanity/data_randomization.py",
        "if len(set(map(digest_weights, every))) < len(every):",
        "if False:",
        "test_data_randomization.py::test_networks_that_cannot_be_compared_are_refused",
    ),
    # Evaluation and known answers.
    Mutation(
        "evaluation/localization.py",
        "average_ranks(values)[mask].sum() - inside * (inside - 1) / 2",
        "average_ranks(values)[mask].sum()",
        "test_localization.py::test_a_score_equals_its_definition",
    ),
    Mutation(
        "evaluation/run.py",
        "Options(labels, None, batch_size,",
        "Options(None, None, batch_size,",
        "test_evaluation.py::test_the_label_is_explained_and_not_the_top_class",
    ),
    Mutation(
        "evaluation/result.py",
        "gaps = self.of(name, metric) - self.of(other, metric)",
        "gaps = self.of(name, metric) - np.roll(self.of(other, metric), 1)",
        "test_evaluation.py::test_intervals_are_those_of_resampled_pictures",
    ),
    Mutation(
        "synthetic/shapes.py",
        "rng = np.random.default_rng([seed, chunk, list(VARIANTS).index(variant)])",
        "rng = np.random.default_rng([seed, 0, list(VARIANTS).index(variant)])",
        "test_synthetic.py::test_fewer_pictures_are_the_first_ones_of_more",
    ),
    # Networks and files from elsewhere.
    Mutation(
        "models/torch_file.py",
        "if name not in _KNOWN:",
        "if False:",
        "test_torch_file.py::"
        "test_a_file_that_names_anything_else_is_refused_and_runs_nothing[os.system-value]",
    ),
    Mutation(
        "models/torch_file.py",
        "if last >= len(storage) or size > len(storage):",
        "if False:",
        "test_torch_file.py::test_a_tensor_beyond_its_storage_is_refused",
    ),
    Mutation(
        "models/efficientnet_lite.py",
        "(2, 3, 0, 1) if depthwise else (2, 3, 1, 0)",
        "(2, 3, 0, 1) if depthwise else (3, 2, 1, 0)",
        "test_efficientnet_lite.py::test_it_is_the_network_that_was_converted_elsewhere",
    ),
    Mutation(
        "models/efficientnet_lite.py",
        "found != shapes:",
        "False:",
        "test_efficientnet_lite.py::test_a_damaged_cache_is_made_anew[of other layers]",
    ),
    Mutation(
        "models/imagenet.py",
        "return _installed_index() or _keras_index()",
        "return _keras_index()",
        "test_efficientnet_lite.py::test_class_names_are_those_of_keras_without_a_network",
    ),
    # What stands around the numbers.
    Mutation(
        "storage.py",
        "    part = target.with_name(",
        "    target.unlink(missing_ok=True)\n    part = target.with_name(",
        "test_storage.py::test_a_full_disk_leaves_the_earlier_file",
    ),
    Mutation(
        "storage.py",
        'if header.get("format") != FORMAT:',
        "if False:",
        "test_storage.py::test_parts_that_do_not_belong_together_are_refused",
    ),
    Mutation(
        "saliency_maps/files.py",
        'read_problems(header["problems"], len(header["names"])), int(start)',
        'read_problems(header["problems"], len(header["names"])), 0',
        "test_diagnostics.py::test_problems_are_saved_and_joined",
    ),
    Mutation(
        "engine/heads.py",
        "_ROUNDING_ERRORS, _VANISHED = 10.0, 1e-30",
        "_ROUNDING_ERRORS, _VANISHED = 0.0, 0.0",
        "test_diagnostics.py::test_a_saturated_probability",
    ),
    Mutation(
        "image_io.py",
        "if turn is not None:",
        "if False:",
        "test_image_io.py::test_a_phones_photo_is_turned_upright",
    ),
    Mutation(
        "errors.py",
        'return re.sub(r"[-_ ]", "", name.replace("+", "plus")).casefold()',
        "return name",
        "test_public_api.py::test_an_unknown_name_suggests_the_nearest",
    ),
    Mutation(
        "map_batches.py",
        "return batch, _classes(labels) if of_labels else targets",
        "return batch, None if of_labels else targets",
        "test_map_batches.py::test_labels_that_come_along_are_explained_if_asked_for",
    ),
    # Class activation maps: places, layers and their choice.
    Mutation(
        "placement/parts.py",
        "first, radius = (kernel - 1) / 2 - before, (kernel - 1) / 2",
        "first, radius = (kernel - 1) / 2, (kernel - 1) / 2",
        "test_placement.py::test_places_by_hand",
    ),
    Mutation(
        "placement/parts.py",
        "return way / 2",
        "return way",
        "test_placement.py::test_places_by_hand",
    ),
    Mutation(
        "placement/cuts.py",
        "start=field.start - part.step * before,",
        "start=field.start,",
        "test_placement.py::test_a_blob_is_found_where_it_is[ZeroPadding2D]",
    ),
    Mutation(
        "placement/joins.py",
        "if not places or (lost and not places[0].places):",
        "if not places or lost:",
        "test_placement.py::test_tokens_keep_their_places_behind_attention",
    ),
    Mutation(
        "placement/windows.py",
        "return (index + halves) * old / new - halves",
        "return (index + halves) * old / new",
        "test_placement.py::test_places_by_hand",
    ),
    Mutation(
        "methods/cell_grids.py",
        "        weights[~seen] = 0\n",
        "",
        "test_placement.py::test_maps_are_placed_like_the_slow_version",
    ),
    Mutation(
        "methods/cam.py",
        "def _hires_cam(values: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:\n"
        "    return gradients",
        "def _hires_cam(values: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:\n"
        "    return tf.nn.relu(gradients)",
        "test_cams.py::test_a_cam_equals_its_definition[hires_cam-last]",
    ),
    Mutation(
        "engine/cells.py",
        "if [part.source for part in placement.axes[0]] != [BATCH]:",
        "if False:",
        "test_cam_layers.py::test_windows_in_the_batch_axis_are_refused",
    ),
    Mutation(
        "engine/build.py",
        "    if found != [1, 2]:\n",
        "    if False:\n",
        "test_cam_layers.py::test_windows_in_the_batch_axis_are_refused",
    ),
    Mutation(
        "engine/layer_candidates.py",
        "        if around:\n",
        "        if False:\n",
        "test_cam_layers.py::test_parts_of_attention_are_refused",
    ),
    Mutation(
        "engine/layer_candidates.py",
        "OUTPUTS not in others and ends < others",
        "False",
        "test_cam_layers.py::test_attention_without_a_layer_of_its_own",
    ),
    Mutation(
        "engine/placements.py",
        "kept = [out for out in consumer.outputs if not found.drops(tensor, out)]",
        "kept = list(consumer.outputs)",
        "test_cam_layers.py::test_of_a_class_token_the_default_is_before_the_last_attention",
    ),
    Mutation(
        "engine/layer_choice.py",
        "fewest = min(",
        "fewest = max(",
        "test_cam_layers.py::test_a_model_whose_outputs_are_a_picture",
    ),
    Mutation(
        "engine/layer_choice.py",
        "if len(last) > 1 or not _carries_all(last[0], candidates, outputs):",
        "if False:",
        "test_cam_layers.py::test_of_layers_side_by_side_the_last_common_one_is_taken",
    ),
    Mutation(
        "diagnostics.py",
        "& (largest == 0) & ~explained & negative)",
        "& (largest == 0) & ~explained & ~negative)",
        "test_cam_layers.py::test_negative_evidence_has_its_own_cause",
    ),
    Mutation(
        "placement/parts.py",
        "for each in placement.parts_of(source)]",
        "for each in placement.parts_of(source)[:1]]",
        "test_placement.py::test_cells_see_what_their_fields_say[far dilations]",
    ),
    Mutation(
        "placement/joins.py",
        "if max(starts) - min(starts) > grain * (1 + _NEARLY):",
        "if False:",
        "test_placement.py::test_cells_without_one_place_are_refused[sum of halves]",
    ),
    Mutation(
        "placement/joins.py",
        "        _check_digits(parts)\n",
        "",
        "test_placement.py::test_cells_without_one_place_are_refused[pairs of rows]",
    ),
    Mutation(
        "engine/cells.py",
        "if abs(field.drift) > abs(part.step):",
        "if False:",
        "test_placement.py::test_cells_without_one_place_are_refused[causal dilations]",
    ),
    Mutation(
        "engine/layer_choice.py",
        "usable = [each for each in widest if each.op in spread]",
        "usable = list(widest)",
        "test_cam_defaults.py::test_outputs_of_a_detector_of_one_level",
    ),
    Mutation(
        "engine/layer_choice.py",
        "if t.ref() in around and not found.drops(t, output)]",
        "if t.ref() in around]",
        "test_cam_defaults.py::test_a_class_token_however_it_is_taken",
    ),
    *AROUND,
    *DATASETS,
    *EVALUATION,
    *RELEVANCE,
]
